// SPDX-License-Identifier: MIT OR Apache-2.0
//! A distribution's kernel, taken from `XENITH_TEST_KERNEL`.

use super::{Memory, Random, pack, std, unpack};
use crate::builder::decompress::{Stream, memory_needed};
use crate::builder::elf::Loader;
use crate::builder::image::find;
use crate::builder::layout::{Layout, Request};
use crate::builder::notes::XenNotes;
use alloc::vec;
use alloc::vec::Vec;

fn kernel() -> Option<Vec<u8>> {
    let Ok(path) = std::env::var("XENITH_TEST_KERNEL") else {
        std::println!("skipped: XENITH_TEST_KERNEL does not name a kernel");
        return None;
    };
    Some(std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")))
}

#[test]
fn a_real_kernel_loads_and_fits() {
    let Some(module) = kernel() else { return };
    let payload = find(&module).expect("a kernel");
    std::println!("{:?}, {} KiB to unpack", payload.format, memory_needed(&payload).expect("good") / 1024);
    let loader = Loader::open(Stream::open(&payload).expect("memory")).expect("an ELF kernel");
    let (range, entry) = (loader.range(), loader.entry());
    let mut memory = Memory { base: range.start, bytes: vec![0; (range.end - range.start) as usize], unpacked: 0 };
    let segments = loader.segments().to_vec();
    let notes = XenNotes::read(&loader.load(&mut memory).expect("good"), range, entry).expect("a PV kernel");
    let request = Request { notes: &notes, initrd_bytes: 9 << 20, nr_pages: 0x2_0000, cmdline_len: 0, has_ring: false };
    let layout = Layout::compute(&request).expect("fits");
    std::println!("{notes:x?}\n{layout:x?}");
    // The same by way of the whole file.
    let whole = unpack(&payload).expect("good");
    assert_eq!(memory.unpacked, whole.len() as u64);
    for segment in segments {
        let at = (segment.memory.start - range.start) as usize;
        let (file, len) = (segment.offset as usize, segment.file_size as usize);
        assert!(memory.bytes[at..at + len] == whole[file..file + len]);
    }
}

#[test]
fn a_real_kernel_packed_in_other_ways() {
    let Some(module) = kernel() else { return };
    let whole = unpack(&find(&module).expect("a kernel")).expect("good");
    for command in [&["gzip", "-1", "-c"][..], &["zstd", "-q", "-3", "--long=27", "-c"], &["xz", "-0", "-T2", "-c"]] {
        let Some(packed) = pack(command, &whole) else {
            continue;
        };
        assert!(unpack(&find(&packed).expect("packed")).expect("good") == whole, "{command:?}");
    }
}

#[test]
fn a_damaged_real_kernel_is_noticed() {
    let Some(mut module) = kernel() else { return };
    let mut random = Random::new("damaged kernel");
    let at = (module.len() as u64 / 4 + random.below(module.len() as u64 / 2)) as usize;
    module[at] ^= 1 << random.below(8);
    let error = unpack(&find(&module).expect("a kernel")).expect_err("one bit is wrong");
    std::println!("bit at {at}: {error}");
}
