// SPDX-License-Identifier: MIT OR Apache-2.0
//! The notes: values, defaults, refusals.

use super::{Random, linux_notes, note};
use crate::builder::elf::{NoteSegment, PhysRange};
use crate::builder::notes::{NoteError, XenNotes};
use alloc::format;
use alloc::vec::Vec;

const IMAGE: PhysRange = PhysRange { start: 0x100_0000, end: 0x200_0000 };

fn read(notes: &[Vec<u8>]) -> Result<XenNotes, NoteError> {
    XenNotes::read(&[NoteSegment::new(notes.concat(), 4)], IMAGE, 0x100_0000)
}

/// The usual notes with one more, or another value for one.
fn with(kind: u32, value: &[u8]) -> Result<XenNotes, NoteError> {
    let mut notes = linux_notes();
    notes.push(note(b"Xen\0", kind, value));
    read(&notes)
}

fn number(kind: u32, value: u64) -> Result<XenNotes, NoteError> {
    with(kind, &value.to_le_bytes())
}

#[test]
fn values_are_read() {
    let notes = read(&linux_notes()).expect("good");
    assert_eq!(notes.entry, 0xffff_ffff_8100_0010);
    assert_eq!(notes.hypercall_page, None);
    assert_eq!(notes.virt_base, 0xffff_ffff_8000_0000);
    assert_eq!(notes.paddr_offset, 0);
    assert_eq!(notes.init_p2m, Some(0x80_0000_0000));
    assert!(notes.unmapped_initrd && notes.extended_cr3);
    assert_eq!(notes.supported_features, Some(0x8801));
    assert_eq!(notes.guest_os.as_str(), "linux");
    assert_eq!(notes.kernel_start, 0xffff_ffff_8100_0000);
    assert_eq!(notes.kernel_end, 0xffff_ffff_8200_0000);
}

#[test]
fn absent_notes_have_defaults() {
    let minimal = XenNotes::read(
        &[NoteSegment::new(note(b"Xen\0", 5, b"xen-3.0\0"), 4)],
        PhysRange { start: 0x10_0000, end: 0x20_0000 },
        0x10_0123,
    )
    .expect("good");
    assert_eq!((minimal.entry, minimal.virt_base, minimal.init_p2m), (0x10_0123, 0, None));
    assert!(!minimal.unmapped_initrd && !minimal.extended_cr3);
    assert_eq!(minimal.supported_features, None);
}

/// What the linker writes into every program: a segment of its own, aligned to 8 from the note's start.
#[test]
fn notes_of_other_owners_and_alignment_are_passed_over() {
    let property = [4u32, 16, 5, u32::from_le_bytes(*b"GNU\0"), 0xc000_8002, 4, 1, 0].map(u32::to_le_bytes).concat();
    let property = NoteSegment::new([property.clone(), property].concat(), 8);
    let read = |segments: &[NoteSegment]| XenNotes::read(segments, IMAGE, 0x100_0000);
    assert_eq!(read(core::slice::from_ref(&property)), Err(NoteError::Missing));
    let notes = read(&[property, NoteSegment::new(linux_notes().concat(), 4)]).expect("good");
    assert_eq!(notes.entry, 0xffff_ffff_8100_0010);
}

#[test]
fn hypercall_pages_and_offsets() {
    let page = number(2, 0xffff_ffff_8100_1000).expect("good");
    assert_eq!(page.hypercall_page, Some(0xffff_ffff_8100_1000));
    assert_eq!(number(2, 0xffff_ffff_8100_1008), Err(NoteError::BadAddress("HYPERCALL_PAGE", 0xffff_ffff_8100_1008)));
    for outside in [0, 0xffff_ffff_80ff_f000, 0xffff_ffff_8200_0000, 0xffff_ffff_ffff_f000] {
        assert_eq!(number(2, outside), Err(NoteError::OutsideKernel("HYPERCALL_PAGE", outside)));
    }
    let moved = number(4, 0x100_0000);
    assert_eq!(
        moved,
        Err(NoteError::OutsideKernel("ENTRY", 0xffff_ffff_8100_0010)),
        "the kernel starts at the base now"
    );
    for bad in [0x200_0000, u64::MAX, 0x800] {
        assert_eq!(number(4, bad), Err(NoteError::BadAddress("PADDR_OFFSET", bad)));
    }
}

#[test]
fn addresses_are_checked() {
    for entry in [0, 0xffff_ffff_80ff_ffff, 0xffff_ffff_8200_0000, u64::MAX] {
        assert_eq!(number(1, entry), Err(NoteError::OutsideKernel("ENTRY", entry)));
    }
    assert_eq!(number(3, 0xffff_ffff_8000_0800), Err(NoteError::BadAddress("VIRT_BASE", 0xffff_ffff_8000_0800)));
    // Into the hole, not canonical, over the top.
    for base in [0xffff_8000_0000_0000, 0x7fff_ff00_0000, 0x1234_0000_0000_0000, 0xffff_ffff_ff00_0000] {
        assert_eq!(number(3, base), Err(NoteError::BadAddress("PADDR_OFFSET", 0)), "{base:#x}");
    }
    let only_offset = [note(b"Xen\0", 5, b"xen-3.0\0"), note(b"Xen\0", 4, &[0; 8])];
    assert_eq!(read(&only_offset), Err(NoteError::NoVirtBase));
    assert!(number(12, 0xffff_8000_0000_0000).is_ok());
    assert_eq!(number(12, 0xffff_8800_0000_0000), Err(NoteError::HoleTooLow(0xffff_8800_0000_0000)));
}

#[test]
fn kernels_that_cannot_run_are_refused() {
    assert_eq!(read(&[]), Err(NoteError::Missing));
    assert_eq!(read(&[note(b"GNU\0", 5, b"xen-3.0\0")]), Err(NoteError::Missing));
    let text = |result: Result<XenNotes, NoteError>| format!("{}", result.expect_err("must be refused"));
    assert!(text(with(5, b"xen-4.0\0")).contains("\"xen-4.0\""));
    assert!(text(with(5, b"")).contains("\"\""));
    assert!(text(with(8, b"special\0")).contains("\"special\""));
    assert_eq!(with(8, b"generic"), with(8, b"generic\0"));
    assert_eq!(
        with(10, b"!supervisor_mode_kernel"),
        Err(NoteError::Feature("supervisor_mode_kernel".try_into().expect("short")))
    );
    assert!(text(with(10, b"!writable_page_tables|!teleportation|x\0")).contains("\"teleportation\""));
    assert!(with(10, b"teleportation|!dom0|").is_ok());
    assert!(text(with(10, &[b'!'; 1000])).len() < 200);
    let mut no_dom0 = linux_notes();
    no_dom0.retain(|note| note[8] != 17);
    assert!(read(&no_dom0).is_ok());
    no_dom0.push(note(b"Xen\0", 17, &0x8001u32.to_le_bytes()));
    assert_eq!(read(&no_dom0), Err(NoteError::NotForDom0));
}

#[test]
fn damaged_notes_are_errors_and_never_panics() {
    let good = linux_notes().concat();
    let mut start = 0;
    for note in linux_notes() {
        // Without the padding behind the value, a note is whole.
        let value = u32::from_le_bytes([note[4], note[5], note[6], note[7]]) as usize;
        for len in start + 1..start + 16 + value {
            let cut = NoteSegment::new(good[..len].to_vec(), 4);
            let result = XenNotes::read(&[cut], IMAGE, 0x100_0000);
            assert_eq!(result, Err(NoteError::Damaged), "cut at {len}");
        }
        start += note.len();
    }
    for word in [0, 4] {
        for value in [u32::MAX, u32::MAX - 3, 0x8000_0000, good.len() as u32] {
            let mut bad = good.clone();
            bad[word..word + 4].copy_from_slice(&value.to_le_bytes());
            let result = XenNotes::read(&[NoteSegment::new(bad, 4)], IMAGE, 0);
            assert_eq!(result, Err(NoteError::Damaged));
        }
    }
    let mut random = Random::new("damaged notes");
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bad.len() as u64) as usize;
            bad[at] = random.next() as u8;
        }
        let align = if random.below(2) == 0 { 4 } else { 8 };
        let _ = XenNotes::read(&[NoteSegment::new(bad, align)], IMAGE, random.next());
    }
}
