// SPDX-License-Identifier: MIT OR Apache-2.0
//! UEFI firmware's memory map, as the loader took it when the boot services ended.

use crate::bytes::{u32_at, u64_at};
use arrayvec::ArrayVec;

/// The most entries kept; firmware has one or two hundred.
pub const MAX_EFI_REGIONS: usize = 512;
/// The size of the entries that the specification knows; later ones may be longer.
const ENTRY: usize = 40;

/// An entry of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EfiRegion {
    /// First machine address.
    pub start: u64,
    /// Number of pages of 4 KiB.
    pub pages: u64,
    /// `EFI_MEMORY_TYPE`.
    pub kind: u32,
    /// Attribute bits.
    pub attributes: u64,
}

impl EfiRegion {
    /// The firmware uses it while the system runs.
    pub const RUNTIME: u64 = 1 << 63;
    /// It can be cached with write-back.
    pub const WRITE_BACK: u64 = 1 << 3;
    /// `EfiRuntimeServicesCode`.
    pub const RUNTIME_CODE: u32 = 5;

    /// Returns the number of bytes, as many as an address can hold.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.pages.saturating_mul(4096).min(u64::MAX - self.start)
    }

    /// True when it has no page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages == 0
    }
}

/// The map.
pub type EfiMap = ArrayVec<EfiRegion, MAX_EFI_REGIONS>;

/// Reads the loader's tag; `None` when it cannot be what it says. The second value is false when not all fitted.
pub(crate) fn parse(payload: &[u8]) -> Option<(EfiMap, bool)> {
    let (size, version) = (u32_at(payload, 0)? as usize, u32_at(payload, 4)?);
    if size < ENTRY || version != 1 {
        return None;
    }
    let mut map = EfiMap::new();
    for entry in payload.get(8..)?.chunks_exact(size) {
        let region = EfiRegion {
            kind: u32_at(entry, 0)?,
            start: u64_at(entry, 8)?,
            pages: u64_at(entry, 24)?,
            attributes: u64_at(entry, 32)?,
        };
        if map.try_push(region).is_err() {
            return Some((map, false));
        }
    }
    Some((map, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn tag(size: u32, version: u32, entries: &[[u64; 4]]) -> Vec<u8> {
        let mut bytes = [size.to_le_bytes(), version.to_le_bytes()].concat();
        for [kind, start, pages, attributes] in entries {
            let words = [*kind, *start, 0, *pages, *attributes].map(u64::to_le_bytes).concat();
            bytes.extend(words);
            bytes.resize(bytes.len() + (size as usize).saturating_sub(ENTRY), 0xee);
        }
        bytes
    }

    #[test]
    fn entries_of_any_size() {
        for size in [40, 48, 64] {
            let (map, whole) = parse(&tag(size, 1, &[[5, 0x1000, 2, 1 << 63 | 15], [7, 0x10_0000, 3, 15]])).unwrap();
            assert!(whole);
            assert_eq!(map[0], EfiRegion { start: 0x1000, pages: 2, kind: 5, attributes: 1 << 63 | 15 });
            assert_eq!((map.len(), map[1].len()), (2, 3 * 4096));
        }
    }

    #[test]
    fn what_cannot_be() {
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&tag(39, 1, &[])), None);
        assert_eq!(parse(&tag(48, 2, &[])), None);
        let many = std::vec![[7, 0, 1, 0]; MAX_EFI_REGIONS + 1];
        let (map, whole) = parse(&tag(40, 1, &many)).unwrap();
        assert_eq!((map.len(), whole), (MAX_EFI_REGIONS, false));
        // A last entry that is cut off is no entry.
        let mut cut = tag(40, 1, &[[7, 0, 1, 0]; 2]);
        cut.pop();
        assert_eq!(parse(&cut).unwrap().0.len(), 1);
        let endless = EfiRegion { start: 0x1000, pages: u64::MAX, kind: 7, attributes: 0 };
        assert_eq!(endless.len(), u64::MAX - 0x1000);
    }
}
