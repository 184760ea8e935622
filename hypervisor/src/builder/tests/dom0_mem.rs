// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dom0_mem=`: what is understood, and what dom0 gets of it.

use super::Random;
use crate::builder::dom0_mem::{BadDom0Mem, Dom0Mem};

const MIB: u64 = 256;
const GIB: u64 = 1024 * MIB;

fn pages(value: &str, available: u64) -> (u64, u32) {
    let pages = Dom0Mem::parse(value).expect("good").pages(available);
    (pages.nr_pages, pages.max_pages)
}

#[test]
fn the_default_leaves_a_sixteenth() {
    let default = |available| Dom0Mem::default().pages(available).nr_pages;
    assert_eq!(default(GIB), GIB - 64 * MIB);
    assert_eq!(default(2 * GIB), 2 * GIB - 128 * MIB);
    assert_eq!(default(64 * GIB), 64 * GIB - 128 * MIB);
    assert_eq!((default(0), default(15), default(16)), (0, 15, 15));
    assert_eq!(Dom0Mem::default().pages(GIB).max_pages, u32::MAX);
}

#[test]
fn amounts_and_limits() {
    assert_eq!(pages("512M", 2 * GIB), (512 * MIB, u32::MAX));
    assert_eq!(pages("1024", GIB), (256, u32::MAX), "KiB without a suffix");
    assert_eq!(pages("0x400", GIB), (256, u32::MAX));
    assert_eq!(pages("8192b", GIB), (2, u32::MAX));
    assert_eq!(
        pages("4G", 2 * GIB),
        (2 * GIB, u32::MAX),
        "not more than there is"
    );
    assert_eq!(pages("-256M", 2 * GIB), (2 * GIB - 256 * MIB, u32::MAX));
    assert_eq!(pages("50%", 2 * GIB), (GIB, u32::MAX));
    assert_eq!(pages("512M+25%", 2 * GIB), (GIB, u32::MAX));
    assert_eq!(pages("-512M+25%", 2 * GIB), (GIB, u32::MAX));
    assert_eq!(pages("max:1G", 4 * GIB), (GIB, GIB as u32));
    assert_eq!(pages("512M,max:1G", 4 * GIB), (512 * MIB, GIB as u32));
    assert_eq!(pages("2G,max:1G", 4 * GIB), (GIB, GIB as u32));
    assert_eq!(pages("min:1G,512M", 4 * GIB), (GIB, u32::MAX));
    assert_eq!(
        pages("min:2G,max:1G,512M", 4 * GIB),
        (GIB, GIB as u32),
        "the maximum wins"
    );
    assert_eq!(pages("min:8G", 4 * GIB), (4 * GIB, u32::MAX));
    assert_eq!(pages("max:-1G", 4 * GIB), (3 * GIB, 3 * GIB as u32));
    assert_eq!(pages("16T", 8 << 30), (4 << 30, u32::MAX));
    // Leaving more than there is says nothing.
    assert_eq!(pages("-8G", 4 * GIB), (4 * GIB - 128 * MIB, u32::MAX));
    assert_eq!(pages("max:-8G", 4 * GIB), (4 * GIB - 128 * MIB, u32::MAX));
}

#[test]
fn malformed_values_are_refused() {
    for value in [
        "",
        ",",
        "x",
        "-",
        "+",
        "512X",
        "512MM",
        "M",
        "1G+",
        "1G+2G",
        "10%+1G",
        "100%",
        "%",
        "-1G-1G",
        "+5",
        "min:",
        "max:x",
        "mid:1G",
        "1G,",
        "0x",
        "0xG",
        "08",
        "99999999999999999999",
        "16777216T",
        "1 G",
        "１G",
        "é",
    ] {
        assert_eq!(Dom0Mem::parse(value), Err(BadDom0Mem), "{value:?}");
    }
}

#[test]
fn random_values_keep_the_bounds() {
    let mut random = Random::new("dom0_mem");
    let alphabet: [char; 18] = [
        '0', '1', '9', 'x', 'M', 'G', 'T', 'k', 'b', '%', '+', '-', ',', ':', 'm', 'i', 'n', 'ü',
    ];
    for _ in 0..50_000 {
        let len = random.below(12);
        let value: alloc::string::String = (0..len)
            .map(|_| alphabet[random.below(18) as usize])
            .collect();
        if let Ok(parsed) = Dom0Mem::parse(&value) {
            for available in [0, 1, GIB, u64::MAX] {
                let pages = parsed.pages(available);
                assert!(
                    pages.nr_pages <= available && pages.nr_pages <= u64::from(pages.max_pages)
                        || pages.max_pages == u32::MAX
                );
            }
        }
    }
}
