// SPDX-License-Identifier: MIT OR Apache-2.0
//! Containers and compression: every format, every error, damage of all kinds.

use super::{PACKERS, Random, bzimage, load, pack, packed_payloads, small_kernel, unpack};
use crate::builder::decompress::{MAX_MEMORY, memory_needed};
use crate::builder::elf::LoadError;
use crate::builder::image::{Format, ImageError, find};
use alloc::format;
use alloc::vec::Vec;

#[test]
fn every_packing_gives_the_kernel_back() {
    let kernel = small_kernel().build();
    let payloads = packed_payloads(&kernel);
    for payload in &payloads {
        for sectors in [0, 1, 39] {
            let module = bzimage(payload, sectors, 0x20f);
            let found = find(&module).expect("a bzImage");
            assert_eq!(found.unpacked, Some(kernel.len() as u64));
            assert!(memory_needed(&found).expect("good") <= MAX_MEMORY);
            assert_eq!(unpack(&found).expect("good"), kernel);
        }
    }
    for command in PACKERS {
        let Some(packed) = pack(command, &kernel) else {
            continue;
        };
        assert_eq!(unpack(&find(&packed).expect("packed")).expect("good"), kernel, "{command:?}");
    }
    let module = bzimage(&kernel, 4, 0x208);
    assert_eq!(unpack(&find(&module).expect("plain")).expect("plain"), kernel);
    assert_eq!(find(&kernel).expect("plain").format, Format::Elf);
}

#[test]
fn zstd_window_follows_the_size() {
    let kernel = small_kernel().build();
    let Some(mut packed) = pack(&["zstd", "-q", "-22", "--ultra", "-c"], &kernel) else {
        return;
    };
    assert!(memory_needed(&find(&packed).expect("zstd")).expect("good") > 100 << 20);
    packed.extend_from_slice(&(kernel.len() as u32).to_le_bytes());
    let module = bzimage(&packed, 4, 0x20f);
    assert!(memory_needed(&find(&module).expect("zstd")).expect("good") < 3 << 20);
}

#[test]
fn containers_are_refused_by_name() {
    let fails = |module: &[u8]| find(module).expect_err("must be refused");
    for (magic, name) in [
        (&b"BZh91AY"[..], "bzip2"),
        (b"\x5d\x00\x00\x80\x00\xff", "LZMA"),
        (b"\x89LZO\x00\x0d", "LZO"),
        (b"\x02\x21\x4c\x18\x00\x00", "LZ4"),
        (b"\x04\x22\x4d\x18\x00\x00", "LZ4"),
    ] {
        let mut payload = magic.to_vec();
        payload.resize(100, 0);
        for error in [fails(&payload), fails(&bzimage(&payload, 4, 0x20f))] {
            assert_eq!(error, ImageError::Unsupported(name));
            assert!(format!("{error}").contains(name));
        }
    }
    assert_eq!(fails(b""), ImageError::Truncated("its first four bytes"));
    assert!(matches!(fails(b"hello, world"), ImageError::NotAKernel(_)));
    assert!(matches!(fails(&bzimage(b"hello, world", 4, 0x20f)), ImageError::UnknownCompression(_)));
    assert_eq!(fails(&bzimage(b"hello, world", 4, 0x207)), ImageError::OldBootProtocol(0x207));
    assert!(format!("{}", fails(&bzimage(b"hello, world", 4, 0x207))).contains("2.07"));
    let mut far = bzimage(b"\x7fELF", 4, 0x20f);
    far[0x24b] = 0xff;
    assert_eq!(fails(&far), ImageError::Truncated("the kernel's payload"));
    far[0x24b..0x250].fill(0xff);
    assert_eq!(fails(&far), ImageError::Truncated("the kernel's payload"));
    assert!(matches!(fails(&bzimage(b"", 4, 0x20f)), ImageError::Truncated(_)));
}

#[test]
fn every_truncation_is_an_error() {
    let kernel = small_kernel().build();
    for payload in packed_payloads(&kernel) {
        let module = bzimage(&payload, 4, 0x20f);
        let end = module.len() - 100;
        let start = end - payload.len();
        for len in (0..start + 200).chain((start..end).step_by(397)).chain(end - 64..end) {
            assert!(load(&module[..len]).is_err(), "cut at {len} of {end}");
        }
        assert!(load(&module[..end]).is_ok());
        // The payload alone, so that it is the decoder that meets the end.
        let bare = &payload[..payload.len() - 4];
        for len in (0..bare.len().min(100)).chain((0..bare.len()).step_by(397)).chain(bare.len() - 40..bare.len()) {
            if let Ok(payload) = find(&bare[..len]) {
                assert!(unpack(&payload).is_err(), "cut at {len} of {}", bare.len());
            }
        }
    }
}

#[test]
fn wrong_sizes_are_noticed() {
    let kernel = small_kernel().build();
    let Some(packed) = pack(PACKERS[0], &kernel) else {
        return;
    };
    for wrong in [0, 1, kernel.len() - 1, kernel.len() + 1, 0x4000_0000] {
        let mut payload = packed.clone();
        payload.extend_from_slice(&(wrong as u32).to_le_bytes());
        let module = bzimage(&payload, 4, 0x20f);
        let error = unpack(&find(&module).expect("a bzImage")).expect_err("the size is wrong");
        assert!(matches!(error, ImageError::WrongSize { expected, .. } if expected == wrong as u64));
    }
    let mut payload = packed;
    payload.extend_from_slice(&0x4000_0001u32.to_le_bytes());
    let module = bzimage(&payload, 4, 0x20f);
    assert_eq!(unpack(&find(&module).expect("a bzImage")), Err(ImageError::TooLarge));
}

#[test]
fn damage_never_panics_and_check_sums_notice_it() {
    let mut random = Random::new("damage");
    let kernel = small_kernel().build();
    for payload in packed_payloads(&kernel) {
        let module = bzimage(&payload, 4, 0x20f);
        for _ in 0..60 {
            let mut bad = module.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bad.len() as u64) as usize;
                bad[at] = random.next() as u8;
            }
            let _ = load(&bad);
        }
        // A bit within the packed bytes: noticed wherever there is a check sum.
        let checked =
            !payload.starts_with(b"\xfd7zXZ\0\0\0") && payload.get(4).is_some_and(|b| payload[0] != 0x28 || b & 4 != 0);
        for _ in 0..60 {
            let mut bad = payload.clone();
            let at = random.below(bad.len() as u64 - 4) as usize;
            bad[at] ^= 1 << random.below(8);
            let module = bzimage(&bad, 4, 0x20f);
            let Ok(found) = find(&module) else { continue };
            let same = unpack(&found).map(|bytes| bytes == kernel);
            assert!(!checked || same != Ok(false), "a flipped bit at {at} went unnoticed");
        }
    }
}

#[test]
fn gzip_headers_with_everything() {
    let kernel = small_kernel().build();
    let Some(plain) = pack(PACKERS[4], &kernel) else {
        return;
    };
    let mut full: Vec<u8> = plain[..10].to_vec();
    full[3] = 2 | 4 | 8 | 16;
    full.extend_from_slice(b"\x05\x00extra");
    full.extend_from_slice(b"name\0comment\0\x12\x34");
    full.extend_from_slice(&plain[10..]);
    assert_eq!(unpack(&find(&full).expect("gzip")).expect("good"), kernel);
    for len in 2..40 {
        let error = unpack(&find(&full[..len]).unwrap_or_else(|_| find(b"\x1f\x8b\x08\0").expect("gzip")));
        assert!(matches!(error, Err(ImageError::Truncated(_))), "cut at {len}: {error:?}");
    }
    let with = |at: usize, value: u8| {
        let mut bad = plain.clone();
        bad[at] = value;
        unpack(&find(&bad).expect("gzip")).expect_err("must be refused")
    };
    assert!(matches!(with(2, 7), ImageError::Beyond(Format::Gzip, _)));
    assert!(matches!(with(3, 0x80), ImageError::Corrupt(Format::Gzip, _)));
    let end = plain.len();
    assert!(matches!(with(end - 8, plain[end - 8] ^ 1), ImageError::Corrupt(Format::Gzip, _)));
    assert!(matches!(with(end - 4, plain[end - 4] ^ 1), ImageError::Corrupt(Format::Gzip, _)));
}

#[test]
fn large_windows_are_refused_before_they_are_allocated() {
    let kernel = small_kernel().build();
    if let Some(packed) = pack(&["xz", "--check=crc32", "--lzma2=dict=256MiB", "-c"], &kernel) {
        let error = unpack(&find(&packed).expect("XZ")).expect_err("too large");
        assert!(matches!(error, ImageError::WindowTooLarge { format: Format::Xz, bytes: 0x1000_0000, .. }));
        assert!(format!("{error}").contains("262144 KiB"));
    }
    // Magic, no content size, a window of 256 MiB.
    let frame = b"\x28\xb5\x2f\xfd\x00\x90\x01\x00\x00";
    let error = unpack(&find(frame).expect("zstd")).expect_err("too large");
    assert!(matches!(error, ImageError::WindowTooLarge { format: Format::Zstd, bytes: 0x1000_0000, .. }));
    let with = |descriptor| {
        let mut bad = *frame;
        bad[4] = descriptor;
        unpack(&find(&bad).expect("zstd")).expect_err("must be refused")
    };
    assert!(matches!(with(1), ImageError::Beyond(Format::Zstd, _)));
    assert!(matches!(with(8), ImageError::Corrupt(Format::Zstd, _)));
}

#[test]
fn errors_of_all_stages_reach_the_loader() {
    let image = |result: Result<_, LoadError<()>>| match result.map(drop) {
        Err(LoadError::Image(error)) => format!("{error}"),
        other => panic!("{other:?}"),
    };
    let text = b"this is no kernel at all".repeat(10);
    let Some(packed) = pack(PACKERS[5], &text) else {
        return;
    };
    assert_eq!(image(load(&packed)), "the unpacked kernel is not an ELF file");
}
