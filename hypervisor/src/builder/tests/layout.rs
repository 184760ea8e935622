// SPDX-License-Identifier: MIT OR Apache-2.0
//! The layout: the numbers of a Debian kernel, and the rules for random ones.

use super::Random;
use crate::builder::layout::{Entry, Layout, LayoutError, Mapping, Request, Table};
use crate::builder::notes::XenNotes;
use crate::builder::start_info::{self, Role};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;
use hypercalls::start_info::{StartInfoConsole, VgaConsoleInfo};
use hypercalls::{Maddr, Mfn, Pfn};
use zerocopy::IntoBytes;

const BASE: u64 = 0xffff_ffff_8000_0000;

fn debian() -> XenNotes {
    XenNotes {
        entry: 0xffff_ffff_8307_91c0,
        hypercall_page: None,
        virt_base: BASE,
        paddr_offset: 0,
        init_p2m: Some(0x80_0000_0000),
        unmapped_initrd: true,
        extended_cr3: true,
        suspend_cancel: true,
        supported_features: Some(0x8801),
        guest_os: "linux".try_into().expect("short"),
        guest_version: "2.6".try_into().expect("short"),
        kernel_start: 0xffff_ffff_8100_0000,
        kernel_end: 0xffff_ffff_84a0_0000,
    }
}

fn request(notes: &XenNotes, nr_pages: u64, initrd_bytes: u64) -> Request<'_> {
    Request { notes, initrd_bytes, nr_pages, cmdline_len: 20, has_ring: false }
}

#[test]
fn debian_numbers() {
    let notes = debian();
    let layout = Layout::compute(&request(&notes, 0x4_0000, 10_000_000)).expect("fits");
    assert_eq!((layout.kernel.pfn, layout.kernel.pages), (Pfn(0x1000), 0x3a00));
    assert_eq!(layout.start_info.va, 0xffff_ffff_84a0_0000);
    assert_eq!(layout.page_tables.va, 0xffff_ffff_84a0_1000);
    // One L4, L3 and L2, and an L1 for each 2 MiB up to 0xffffffff84c00000.
    assert_eq!(layout.page_tables.pages, 3 + 38);
    assert_eq!(layout.boot.end(), 0xffff_ffff_84c0_0000);
    assert_eq!(layout.stack.va, layout.page_tables.end());
    assert_eq!(layout.stack_pointer(), layout.stack.va + 4096);
    let initrd = layout.initrd.expect("there is one");
    assert_eq!((initrd.va, initrd.pfn, initrd.pages), (None, Pfn(0x4c00), 2442));
    assert_eq!(layout.first_p2m_pfn, Pfn(0x4c00 + 2442));
    // 512 pages of array, one table of each level.
    assert_eq!(layout.nr_p2m_frames, 512 + 3);
    assert_eq!((layout.p2m.va, layout.p2m.pfn), (0x80_0000_0000, Pfn(0x4c00 + 2442 + 3)));
    assert_eq!(layout.required_pages, 0x4c00 + 2442 + 515);
    check(&layout, &notes);
}

#[test]
fn too_little_memory_names_what_is_needed() {
    let notes = debian();
    let needed = Layout::smallest(&request(&notes, 0, 10_000_000)).expect("some number does");
    assert!(Layout::compute(&request(&notes, needed, 10_000_000)).is_ok());
    for given in [0, 1, 0x4c00, needed - 1] {
        let error = Layout::compute(&request(&notes, given, 10_000_000)).expect_err("too few");
        assert_eq!(error, LayoutError::TooFewPages { given, needed });
        assert!(format!("{error}").contains(&format!("{} KiB needed", needed * 4)));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let notes = debian();
    let error =
        |notes: &XenNotes, nr_pages, initrd| Layout::compute(&request(notes, nr_pages, initrd)).expect_err("refused");
    let long = Request { cmdline_len: 1024, ..request(&notes, 0x4_0000, 0) };
    assert_eq!(Layout::compute(&long), Err(LayoutError::CommandLineTooLong(1024)));
    assert!(Layout::compute(&Request { cmdline_len: 1023, ..long }).is_ok());
    assert_eq!(error(&notes, u64::MAX, 0), LayoutError::TooManyPages);
    assert_eq!(error(&notes, 0x4_0000, u64::MAX), LayoutError::TooManyPages);
    let mapped = XenNotes { unmapped_initrd: false, ..debian() };
    assert_eq!(error(&mapped, 0x40_0000, u64::MAX), LayoutError::BootMappingTooLarge);
    assert_eq!(error(&mapped, 0x40_0000, 1 << 30), LayoutError::BootMappingTooLarge);
}

#[test]
fn places_that_cannot_be_mapped_are_refused() {
    let notes = debian();
    let error =
        |notes: &XenNotes, nr_pages, initrd| Layout::compute(&request(notes, nr_pages, initrd)).expect_err("refused");
    for bad in [
        BASE,
        0xffff_ffff_f000_0000,
        0xffff_ff80_0000_0000,
        0xffff_8000_0000_0000,
        1 << 47,
        0x80_0000_0001,
        u64::MAX - 4095,
    ] {
        let notes = XenNotes { init_p2m: Some(bad), ..debian() };
        assert_eq!(error(&notes, 0x4_0000, 0), LayoutError::BadP2mBase(bad));
    }
    let old = XenNotes { init_p2m: None, ..debian() };
    assert_eq!(error(&old, 1 << 30, 0), LayoutError::BootMappingTooLarge);
    let clipped = Layout::clip(&request(&old, 1 << 30, 0));
    assert!(Layout::compute(&request(&old, clipped, 0)).is_ok());
    assert_eq!(Layout::clip(&request(&notes, 1 << 30, 0)), 1 << 30);
    // No room for the padding below the hypervisor's hole, or below the next gigabyte.
    let under_hole = XenNotes {
        virt_base: 0x7fff_ffb0_0000,
        kernel_start: 0x7fff_ffb0_0000,
        kernel_end: 0x7fff_ffff_0000,
        ..debian()
    };
    assert_eq!(error(&under_hole, 0x4_0000, 0), LayoutError::BadVirtBase(0x7fff_ffb0_0000));
    let at_end = XenNotes { kernel_start: BASE + 0x1000, kernel_end: BASE + (1 << 30) - 0x4000, ..debian() };
    assert_eq!(error(&at_end, 0x8_0000, 0), LayoutError::BootMappingTooLarge);
}

#[test]
fn random_layouts_keep_the_rules() {
    let mut random = Random::new("layouts");
    let mut fitting = 0;
    for _ in 0..120 {
        let base = [BASE, 0, 0x40_0000, 0x1000_0000_0000, 0xffff_8800_0000_0000, 0xffff_ffff_c000_0000, 0x7000]
            [random.below(7) as usize];
        let start = base + random.below(0x1000) * 4096;
        let bits = random.below(27);
        let notes = XenNotes {
            virt_base: base,
            kernel_start: start,
            kernel_end: start + 1 + random.below(1 << bits),
            init_p2m: (random.below(2) == 0).then(|| (2 + random.below(20)) << 39 | random.below(1 << 27) << 12),
            unmapped_initrd: random.below(2) == 0,
            ..debian()
        };
        let initrd = if random.below(3) == 0 { 0 } else { random.below(60 << 20) };
        let bits = 10 + random.below(15);
        let asked = Request { has_ring: random.below(2) == 0, ..request(&notes, random.below(1 << bits), initrd) };
        match Layout::compute(&asked) {
            Ok(layout) => {
                fitting += 1;
                check(&layout, &notes);
            }
            Err(LayoutError::TooFewPages { needed, .. }) => {
                let layout = Layout::compute(&Request { nr_pages: needed, ..asked }).expect("said to be enough");
                check(&layout, &notes);
                assert!(Layout::compute(&Request { nr_pages: needed - 1, ..asked }).is_err());
            }
            Err(LayoutError::BootMappingTooLarge) if !base.is_multiple_of(1 << 30) || notes.init_p2m.is_none() => {}
            Err(error) => panic!("{notes:?}: {error}"),
        }
    }
    assert!(fitting > 10);
}

/// Checks every rule of a layout by walking its tables.
fn check(layout: &Layout, notes: &XenNotes) {
    let boot = layout.boot;
    assert_eq!((boot.va, boot.pfn), (notes.virt_base, Pfn(0)));
    let mut spans = Vec::from([layout.kernel, layout.start_info, layout.ring, layout.page_tables, layout.stack]);
    spans.retain(|span| span.pages > 0);
    let mut frames: Vec<(u64, u64)> = Vec::new();
    if let Some(initrd) = layout.initrd {
        assert_eq!(initrd.pages, initrd.bytes.div_ceil(4096));
        assert_eq!(initrd.va.is_none(), notes.unmapped_initrd);
        assert_eq!(
            initrd.va.unwrap_or(notes.virt_base + initrd.pfn.0 * 4096),
            notes.virt_base.wrapping_add(initrd.pfn.0 * 4096)
        );
        assert_eq!(boot.contains(initrd.pfn), initrd.va.is_some());
        frames.push((initrd.pfn.0, initrd.pages));
    }
    assert_eq!(layout.p2m.pages, (layout.nr_pages * 8).div_ceil(4096));
    match notes.init_p2m {
        Some(va) => {
            assert_eq!(layout.p2m.va, va);
            frames.push((layout.first_p2m_pfn.0, layout.nr_p2m_frames));
            assert!(layout.first_p2m_pfn.0 >= boot.pages);
            assert_eq!(layout.p2m.pfn.0 + layout.p2m.pages, layout.first_p2m_pfn.0 + layout.nr_p2m_frames);
        }
        None => {
            assert_eq!((layout.first_p2m_pfn, layout.nr_p2m_frames), (Pfn(0), 0));
            spans.push(crate::builder::layout::Span {
                va: layout.p2m.va,
                pfn: layout.p2m.pfn,
                pages: layout.p2m.pages,
            });
        }
    }
    for span in spans {
        assert_eq!(span.va, notes.virt_base + span.pfn.0 * 4096);
        assert!(span.pages > 0 && boot.contains(span.pfn) && boot.contains(Pfn(span.pfn.0 + span.pages - 1)));
        frames.push((span.pfn.0, span.pages));
    }
    check_frames(layout, frames);
    assert!(layout.kernel.va <= notes.kernel_start && layout.kernel.end() >= notes.kernel_end);
    let padding = boot.end().wrapping_sub(layout.stack.end());
    assert!((512 << 10..(4 << 20) + (512 << 10)).contains(&padding), "{padding:#x}");
    assert_eq!(boot.end() % (4 << 20), 0);
    assert_eq!(boot.va >> 30, (boot.end() - 1) >> 30, "one L2 table");
    check_tables(layout, notes);
}

/// Checks that no two elements (first PFN and length) overlap, and that all are within the domain.
fn check_frames(layout: &Layout, mut frames: Vec<(u64, u64)>) {
    frames.sort_unstable();
    assert!(frames.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{frames:?}");
    assert!(frames.iter().all(|(pfn, pages)| pfn + pages <= layout.required_pages));
    assert!(layout.required_pages <= layout.nr_pages);
}

fn check_tables(layout: &Layout, notes: &XenNotes) {
    let tables: Vec<Table> = layout.tables().collect();
    let by_pfn: BTreeMap<u64, Table> = tables.iter().map(|table| (table.pfn.0, *table)).collect();
    assert_eq!(by_pfn.len(), tables.len(), "no table twice");
    assert_eq!((tables[0].level, tables[0].pfn), (4, layout.page_tables.pfn));
    let boot = tables.iter().filter(|table| table.mapping == Mapping::Boot).count() as u64;
    assert_eq!(boot, layout.page_tables.pages);
    for table in &tables[1..] {
        match table.mapping {
            Mapping::Boot => assert!(layout.page_tables.contains(table.pfn)),
            Mapping::P2m => {
                assert!(table.pfn >= layout.first_p2m_pfn && table.pfn < layout.p2m.pfn)
            }
        }
    }
    let mut reached = BTreeSet::from([tables[0].pfn.0]);
    let mut leaves = BTreeMap::new();
    let mut todo = Vec::from([(tables[0], 0u64)]);
    while let Some((table, va)) = todo.pop() {
        for index in 0..512 {
            let mut va = va + (index << (12 + 9 * (table.level - 1)));
            if table.level == 4 && index >= 256 {
                assert!(index >= 272 || layout.entry(&table, index) == Entry::Empty);
                va |= 0xffff << 48;
            }
            match layout.entry(&table, index) {
                Entry::Empty => {}
                Entry::Table(pfn) => {
                    let below = by_pfn[&pfn.0];
                    assert!(reached.insert(pfn.0), "a table with two parents");
                    assert_eq!((below.level, below.va), (table.level - 1, va));
                    todo.push((below, va));
                }
                Entry::Page { pfn, writable } => {
                    assert_eq!(table.level, 1);
                    assert_eq!(writable, !by_pfn.contains_key(&pfn.0));
                    leaves.insert(va, pfn.0);
                }
            }
        }
    }
    assert_eq!(reached.len(), tables.len(), "all tables are linked");
    let mut expected = BTreeMap::new();
    for i in 0..layout.boot.pages {
        expected.insert(layout.boot.va + i * 4096, i);
    }
    if notes.init_p2m.is_some() {
        for i in 0..layout.p2m.pages {
            expected.insert(layout.p2m.va + i * 4096, layout.p2m.pfn.0 + i);
        }
    }
    assert!(leaves == expected, "exactly the two mappings");
}

#[test]
fn start_info_has_it_all() {
    let notes = debian();
    let layout = Layout::compute(&request(&notes, 0x4_0000, 10_000_000)).expect("fits");
    let screen = Role::Dom0(Some(VgaConsoleInfo::text(16, (0, 0), 25, 80)));
    let info = start_info::page(&layout, &notes, Maddr(0x1234_5000), b"console=hvc0", &screen);
    let bytes = info.as_bytes();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
    assert_eq!(bytes[..16], *b"xen-3.0-x86_64p\0");
    assert_eq!((word(32), word(40), bytes[48], word(56)), (0x4_0000, 0x1234_5000, 1 | 2 | 8, 0));
    assert_eq!((word(88), word(96)), (layout.page_tables.va, 41));
    assert_eq!((word(104), word(112), word(120)), (0x80_0000_0000, 0x4c00, 10_000_000));
    assert_eq!(word(72), 40 << 32 | 1168, "the screen's description follows");
    assert_eq!(bytes[128..141], *b"console=hvc0\0");
    assert_eq!((word(1152), word(1160)), (0x4c00 + 2442, 515));
    let long = start_info::page(&layout, &notes, Maddr(0), &[b'x'; 5000], &Role::Dom0(None));
    assert_eq!((long.console.info_off, long.console.info_size), (0, 0));
    assert_eq!((long.cmd_line[1022], long.cmd_line[1023]), (b'x', 0));
    let mapped = XenNotes { unmapped_initrd: false, extended_cr3: false, ..debian() };
    let layout = Layout::compute(&request(&mapped, 0x4_0000, 10_000_000)).expect("fits");
    let info = start_info::page(&layout, &mapped, Maddr(0), b"", &Role::Dom0(None));
    assert_eq!((info.flags, info.mod_start), (3, 0xffff_ffff_84a0_0000));
    let layout = Layout::compute(&request(&mapped, 0x4_0000, 0)).expect("fits");
    let info = start_info::page(&layout, &mapped, Maddr(0), b"", &Role::Dom0(None));
    assert_eq!((info.flags, info.mod_start, info.mod_len), (3, 0, 0));
}

#[test]
fn a_guest_is_told_of_its_console_and_of_no_rights() {
    let notes = debian();
    let asked = Request { has_ring: true, ..request(&notes, 0x4_0000, 10_000_000) };
    let layout = Layout::compute(&asked).expect("fits");
    assert_eq!((layout.ring.pages, layout.ring.pfn.0), (1, layout.start_info.pfn.0 + 1));
    assert!(!layout.page_tables.contains(layout.ring.pfn));
    let console = StartInfoConsole::domu(Mfn(0x12_3456_789a), 7);
    let info = start_info::page(&layout, &notes, Maddr(0), b"", &Role::Guest(console));
    let bytes = info.as_bytes();
    assert_eq!((info.flags, info.store_evtchn), (8, 0));
    assert_eq!(bytes[72..80], 0x12_3456_789au64.to_le_bytes());
    assert_eq!(bytes[80..84], [7, 0, 0, 0]);
}
