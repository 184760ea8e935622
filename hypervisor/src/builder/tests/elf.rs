// SPDX-License-Identifier: MIT OR Apache-2.0
//! The streaming loader: where bytes go, and every bound on its headers.

use super::{Image, Memory, Random, load, small_kernel};
use crate::builder::decompress::{MAX_UNPACKED, Stream};
use crate::builder::elf::{ElfError, LoadError, Loader, MAX_PROGRAM_HEADERS, PhysRange};
use crate::builder::image::{Format, ImageError, Payload};
use alloc::vec;
use alloc::vec::Vec;

fn open(bytes: &[u8]) -> Result<Loader<'_>, ImageError> {
    Loader::open(Stream::open(&Payload { bytes, format: Format::Elf, unpacked: None })?)
}

fn elf_error(bytes: &[u8]) -> ElfError {
    match open(bytes) {
        Err(ImageError::Elf(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn segments_land_at_their_addresses() {
    let file = small_kernel().build();
    let (memory, notes) = load(&file).expect("good");
    assert_eq!(memory.base, 0x100_0000);
    assert_eq!(memory.bytes.len(), 0x2_5000);
    assert_eq!(memory.bytes[..100_000], file[0x1000..0x1000 + 100_000]);
    assert!(memory.bytes[100_000..0x2_0000].iter().all(|byte| *byte == 0));
    assert_eq!(memory.bytes[0x2_0000..0x2_0000 + 300], [0x5a; 300]);
    assert!(memory.bytes[0x2_0000 + 300..].iter().all(|byte| *byte == 0));
    assert_eq!(notes.len(), 1);
    assert_eq!(notes[0].bytes, super::linux_notes().concat());
    assert_eq!(memory.unpacked, file.len() as u64);
}

#[test]
fn order_and_overlap_in_the_file_do_not_matter() {
    // The first segment holds the headers themselves; the others share its bytes, backwards.
    let image = Image::new().load(0x8000, 0x30_0000, &[3; 200], 200).load(0x7fc0, 0x20_0000, &[3; 100], 0x1000);
    let mut file = image.build();
    let start = file[..0x8000].to_vec();
    let header = 64;
    file[header + 8..header + 16].copy_from_slice(&0u64.to_le_bytes());
    file[header + 32..header + 40].copy_from_slice(&0x8000u64.to_le_bytes());
    file[header + 40..header + 48].copy_from_slice(&0x8000u64.to_le_bytes());
    let loader = open(&file).expect("good");
    assert_eq!(loader.range(), PhysRange { start: 0x20_0000, end: 0x30_8000 });
    let mut memory = Memory { base: 0x20_0000, bytes: vec![0; 0x10_8000], unpacked: 0 };
    loader.load(&mut memory).expect("good");
    assert_eq!(memory.bytes[0x10_0000 + 256..][..0x8000 - 256], start[256..]);
    assert_eq!(memory.bytes[0x10_0000..][..4], *b"\x7fELF");
    assert_eq!(memory.bytes[..100], file[0x7fc0..0x7fc0 + 100]);
}

#[test]
fn headers_are_checked() {
    let good = small_kernel().build();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        elf_error(&bad)
    };
    assert_eq!(with(1, b"X"), ElfError::NotElf);
    assert_eq!(with(4, &[1]), ElfError::NotElf64);
    assert_eq!(with(5, &[2]), ElfError::BadEncoding);
    assert_eq!(with(6, &[0]), ElfError::BadEncoding);
    assert_eq!(with(16, &[1, 0]), ElfError::NotExecutable(1));
    assert_eq!(with(18, &[3, 0]), ElfError::WrongMachine(3));
    assert_eq!(with(32, &[0xff; 8]), ElfError::BadProgramHeaders);
    assert_eq!(with(54, &[55, 0]), ElfError::BadProgramHeaders);
    assert_eq!(with(56, &[MAX_PROGRAM_HEADERS as u8 + 1, 0]), ElfError::BadProgramHeaders);
    assert_eq!(with(56, &[0, 0]), ElfError::NothingToLoad);
    assert_eq!(with(56, &[0xff, 0xff]), ElfError::BadProgramHeaders);
}

#[test]
fn segments_are_checked() {
    let good = small_kernel().build();
    let with = |index: usize, field: usize, value: u64| {
        let mut bad = good.clone();
        let at = 64 + index * 56 + field;
        bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
        open(&bad).map(drop)
    };
    let bad = |index| Err(ImageError::Elf(ElfError::BadSegment(index)));
    for value in [u64::MAX, 1 << 63, MAX_UNPACKED, u64::MAX - 99_999] {
        assert_eq!(with(0, 8, value), bad(0), "offset {value:#x}");
        assert_eq!(with(0, 32, value), bad(0), "file size {value:#x}");
    }
    for value in [u64::MAX, 1 << 63, MAX_UNPACKED + 1, 1] {
        assert_eq!(with(0, 40, value), bad(0), "memory size {value:#x}");
    }
    for value in [u64::MAX, 1 << 63, 1 << 46, u64::MAX - 0x1_ffff] {
        assert_eq!(with(0, 24, value), bad(0), "address {value:#x}");
    }
    // Far apart: each is possible, both together are not.
    assert_eq!(with(1, 24, 0x100_0000 + MAX_UNPACKED), bad(1));
    assert_eq!(with(1, 40, 0), bad(1));
    for value in [0x101_0000, 0x101_ffff, 0xff_f001] {
        assert_eq!(with(1, 24, value), Err(ImageError::Elf(ElfError::Overlap(1))), "{value:#x}");
    }
    assert_eq!(with(2, 32, 64 << 10), Ok(()));
    assert_eq!(with(2, 32, (64 << 10) + 1), Err(ImageError::Elf(ElfError::NotesTooLarge)));
    assert_eq!(with(2, 32, u64::MAX), bad(2));
    assert_eq!(with(2, 8, u64::MAX), bad(2));
    let empty = Image::new().notes(0x1000, b"abc").build();
    assert_eq!(elf_error(&empty), ElfError::NothingToLoad);
}

#[test]
fn a_file_that_ends_early_is_truncated() {
    let good = small_kernel().build();
    for len in (0..300).chain((300..good.len()).step_by(97)) {
        match load(&good[..len]).map(drop) {
            Err(LoadError::Image(ImageError::Truncated(_))) => {}
            Err(LoadError::Image(ImageError::Elf(ElfError::NotElf))) if len < 4 => {}
            other => panic!("cut at {len}: {other:?}"),
        }
    }
    let notes_last = Image::new().load(0x1000, 0x10_0000, &[1; 64], 64).notes(0x2000, &[0; 64]).build();
    for len in 0x1040..notes_last.len() {
        let error = load(&notes_last[..len]).map(drop);
        assert_eq!(error, Err(LoadError::Image(ImageError::Truncated("the ELF notes"))));
    }
}

#[test]
fn the_sink_can_refuse() {
    let file = small_kernel().build();
    let loader = open(&file).expect("good");
    let mut nothing = Memory::default();
    assert_eq!(loader.load(&mut nothing), Err(LoadError::Sink(())));
}

#[test]
fn random_headers_never_panic_nor_leave_their_range() {
    let mut random = Random::new("random headers");
    let good = small_kernel().build();
    let extremes = [0, 1, 0xfff, 0x1000, 1 << 30, (1 << 30) + 1, 1 << 46, 1 << 63, u64::MAX];
    for _ in 0..20_000 {
        let mut bad = good[..0x4000].to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(29) as usize * 8;
            let value = match random.below(3) {
                0 => extremes[random.below(extremes.len() as u64) as usize],
                1 => random.below(0x4000),
                _ => random.next(),
            };
            bad[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let Ok(loader) = open(&bad) else { continue };
        let range = loader.range();
        assert!(range.start < range.end && range.end - range.start <= MAX_UNPACKED);
        let mut writes = Writes { range, ranges: Vec::new() };
        let _ = loader.load(&mut writes);
    }
}

/// Checks that all writes are within the range and none twice.
struct Writes {
    range: PhysRange,
    ranges: Vec<PhysRange>,
}

impl crate::builder::elf::Sink for Writes {
    type Error = ();

    fn write(&mut self, paddr: u64, bytes: &[u8]) -> Result<(), ()> {
        let new = PhysRange { start: paddr, end: paddr + bytes.len() as u64 };
        assert!(self.range.start <= new.start && new.end <= self.range.end);
        assert!(self.ranges.iter().all(|old| new.end <= old.start || old.end <= new.start));
        self.ranges.push(new);
        Ok(())
    }
}
