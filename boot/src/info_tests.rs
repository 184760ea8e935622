// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boot information built by the `multiboot2` crate, and by hand where it must be wrong.

use super::*;
use crate::rsdp::tests::sample;
use std::boxed::Box;
use std::string::String;
use std::vec::Vec;

fn fresh() -> Box<BootInfo> {
    Box::new(BootInfo::new())
}

/// A block of these tags.
fn block(tags: &[(u32, &[u8])]) -> Vec<u8> {
    let mut out = std::vec![0_u8; 8];
    for (kind, payload) in tags.iter().copied().chain([(0, &[][..])]) {
        out.extend(kind.to_le_bytes());
        out.extend((payload.len() as u32 + 8).to_le_bytes());
        out.extend(payload);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    let size = out.len() as u32;
    out[..4].copy_from_slice(&size.to_le_bytes());
    out
}

fn mmap(entries: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(24_u32.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    for (base, len, kind) in entries {
        out.extend(base.to_le_bytes());
        out.extend(len.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(0_u32.to_le_bytes());
    }
    out
}

fn module(start: u32, end: u32, line: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(start.to_le_bytes());
    out.extend(end.to_le_bytes());
    out.extend(line);
    out.push(0);
    out
}

#[test]
fn what_the_crate_builds() {
    use multiboot2::{
        BootLoaderNameTag, Builder, CommandLineTag, EFISdt64Tag, MaybeDynSized, MemoryArea, MemoryAreaType,
        MemoryMapTag, ModuleTag,
    };
    let built = Builder::new()
        .bootloader(BootLoaderNameTag::new("GRUB 2.06-13+deb12u1"))
        .cmdline(CommandLineTag::new("placeholder com1=115200 -- quiet"))
        .mmap(MemoryMapTag::new(&[
            MemoryArea::new(0x10_0000, 0x700_0000, MemoryAreaType::Available),
            MemoryArea::new(0, 0x9_fc00, MemoryAreaType::Available),
            MemoryArea::new(0x9_fc00, 0x400, MemoryAreaType::Reserved),
        ]))
        .add_module(ModuleTag::new(0x100_0000, 0x180_0000, "placeholder root=/dev/sda ro"))
        .add_module(ModuleTag::new(0x180_0000, 0x200_0000, ""))
        .efi64(EFISdt64Tag::new(0x7abc_d018))
        .build();
    let mut info = fresh();
    info.parse(multiboot2::MAGIC, built.as_bytes().as_ref()).unwrap();
    assert_eq!(info.loader(), "GRUB 2.06-13+deb12u1");
    assert_eq!(info.cmdline(), "placeholder com1=115200");
    assert_eq!(info.memory.len(), 3);
    assert_eq!(info.memory[1].kind, RegionKind::Reserved);
    assert_eq!(info.modules.len(), 2);
    assert_eq!((info.modules[0].start, info.modules[0].end), (0x100_0000, 0x180_0000));
    assert_eq!(info.module_cmdline(&info.modules[1]), "");
    assert_eq!(info.dom0_cmdline(&info.modules[0]).as_str(), "placeholder root=/dev/sda ro quiet");
    assert_eq!(info.efi, Some(Efi { system_table: 0x7abc_d018, wide: true }));
    assert!(info.warnings.is_empty(), "{:?}", info.warnings);
}

#[test]
fn basic_memory_is_the_fallback() {
    let mut meminfo = Vec::from(639_u32.to_le_bytes());
    meminfo.extend((63_u32 << 10).to_le_bytes());
    let mut info = fresh();
    info.parse(multiboot2::MAGIC, &block(&[(4, &meminfo)])).unwrap();
    assert_eq!(info.memory.len(), 2);
    assert_eq!(info.memory[1].end, 64 << 20);
    assert_eq!(info.warnings.as_slice(), [Warning::OnlyBasicMemory].as_slice());
}

#[test]
fn errors_name_what_is_wrong() {
    let empty = block(&[]);
    let parse = |magic, bytes: &[u8]| fresh().parse(magic, bytes);
    assert_eq!(parse(0x2bad_b002, &empty), Err(Error::Magic(0x2bad_b002)));
    assert_eq!(parse(multiboot2::MAGIC, &empty), Err(Error::NoMemoryMap));
    assert_eq!(parse(multiboot2::MAGIC, &[]), Err(Error::Size(0)));
    assert_eq!(parse(multiboot2::MAGIC, &empty[..8]), Err(Error::Size(16)));
    let reserved = mmap(&[(0, 1 << 20, 2)]);
    assert_eq!(parse(multiboot2::MAGIC, &block(&[(6, &reserved)])), Err(Error::NoMemory));
}

#[test]
fn long_lines_are_cut_and_said_so() {
    let map = mmap(&[(0, 1 << 30, 1)]);
    let fits = "x ".repeat(2048);
    let long = module(0x1000, 0x2000, "é".repeat(5000).as_bytes());
    let mut info = fresh();
    let bytes = block(&[(2, b"GRUB 2.12\0"), (1, fits.as_bytes()), (3, &long), (6, &map)]);
    info.parse(multiboot2::MAGIC, &bytes).unwrap();
    assert_eq!(info.cmdline(), fits);
    assert_eq!(info.module_cmdline(&info.modules[0]).len(), MAX_LINE);
    assert_eq!(info.warnings.as_slice(), [Warning::Truncated { length: 10000 }].as_slice());
    assert!(info.dom0_cmdline(&info.modules[0]).len() >= MAX_LINE);
}

#[test]
fn low_pages() {
    let map = mmap(&[(0, 0x9_fc00, 1), (0x9_fc00, 0x400, 2), (1 << 20, 1 << 26, 1)]);
    let low = module(0x9_9000, 0x9_d001, b"low");
    let mut info = fresh();
    let bytes = block(&[(6, &map), (3, &low)]);
    info.parse(multiboot2::MAGIC, &bytes).unwrap();
    assert_eq!(info.low_page(&[]), Some(0x9_e000));
    let taken = 0x9_e800..0x9_e900;
    assert_eq!(info.low_page(&[taken]), Some(0x9_8000));
    let all = 0x1000..0x10_0000;
    assert_eq!(info.low_page(core::slice::from_ref(&all)), None);
}

#[test]
fn bad_tags_are_left_out() {
    let map = mmap(&[(0, 1 << 30, 1)]);
    let mut broken = sample(2);
    broken[9] ^= 1;
    let bytes = block(&[
        (3, &module(0x2000, 0x1000, b"backwards")),
        (3, &[0, 0, 0]),
        (3, &module(0x2000, 0x2000, b"name \xff\xfe end")),
        (15, &broken),
        (14, &sample(0)[..20]),
        (8, &[0; 20]),
        (99, b"unknown"),
        (6, &map),
    ]);
    let mut info = fresh();
    info.parse(multiboot2::MAGIC, &bytes).unwrap();
    assert_eq!(
        info.warnings.as_slice(),
        [
            Warning::ModuleBackwards { start: 0x2000, end: 0x1000 },
            Warning::BadTag(3),
            Warning::BadRsdp,
            Warning::BadTag(8),
        ]
        .as_slice()
    );
    assert_eq!(info.modules.len(), 1);
    assert_eq!(info.module_cmdline(&info.modules[0]), "?? end");
    assert_eq!(info.rsdp.unwrap().revision(), 0);
}

#[test]
fn too_much_of_everything() {
    let map = mmap(&(0..400).map(|i| (i << 20, 1 << 19, 1)).collect::<Vec<_>>());
    let one = module(0x1000, 0x2000, String::from("m ").repeat(1000).as_bytes());
    let mut tags: Vec<(u32, &[u8])> = (0..40).map(|_| (3, one.as_slice())).collect();
    tags.push((6, &map));
    let mut info = fresh();
    info.parse(multiboot2::MAGIC, &block(&tags)).unwrap();
    assert_eq!(info.modules.len(), MAX_MODULES);
    assert_eq!(info.memory.len(), memory_map::MAX_REGIONS);
    assert!(info.warnings.contains(&Warning::TooManyModules) || info.warnings.is_full());
}

#[test]
fn arbitrary_bytes_never_panic() {
    let seed = std::env::var("XENITH_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x1234_5678_u64);
    std::println!("XENITH_SEED={seed}");
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let map = mmap(&[(0, 1 << 30, 1), (u64::MAX - 5, 100, 2)]);
    let good = block(&[(1, b"a b c\0"), (3, &module(1, 2, b"m")), (6, &map), (8, &[1; 40]), (15, &sample(2))]);
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..1 + next() % 6 {
            let at = 4 + next() as usize % (bytes.len() - 4);
            bytes[at] = next() as u8;
        }
        let mut info = fresh();
        let _ = info.parse(multiboot2::MAGIC, &bytes);
        for module in &info.modules {
            let _ = info.dom0_cmdline(module);
        }
    }
}
