// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's memory map: sorted, disjoint, neighbours of one kind joined.
//!
//! Firmware is not to be trusted with that. Where entries overlap the more cautious kind wins: memory that anybody
//! claims is not usable.

use arrayvec::ArrayVec;
use core::fmt;

/// The most regions kept.
pub const MAX_REGIONS: usize = 256;

/// What a region is. A later kind wins over an earlier one where entries overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegionKind {
    /// RAM, free for us.
    Usable,
    /// Taken, or unknown.
    Reserved,
    /// RAM with ACPI tables in it.
    AcpiReclaimable,
    /// RAM that firmware keeps across sleep.
    AcpiNvs,
    /// RAM with errors.
    Unusable,
}

impl RegionKind {
    /// From the number that E820 and multiboot2 use.
    #[must_use]
    pub fn from_e820(number: u32) -> Self {
        match number {
            1 => Self::Usable,
            3 => Self::AcpiReclaimable,
            4 => Self::AcpiNvs,
            5 => Self::Unusable,
            _ => Self::Reserved,
        }
    }

    /// The number that E820 uses.
    #[must_use]
    pub fn to_e820(self) -> u32 {
        match self {
            Self::Usable => 1,
            Self::Reserved => 2,
            Self::AcpiReclaimable => 3,
            Self::AcpiNvs => 4,
            Self::Unusable => 5,
        }
    }
}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Usable => "usable",
            Self::Reserved => "reserved",
            Self::AcpiReclaimable => "ACPI data",
            Self::AcpiNvs => "ACPI NVS",
            Self::Unusable => "unusable",
        })
    }
}

/// Machine addresses `start..end`, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemRegion {
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
    /// What is there.
    pub kind: RegionKind,
}

impl fmt::Display for MemRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#014x}-{:#014x} {}", self.start, self.end - 1, self.kind)
    }
}

/// A list of regions.
pub type Regions = ArrayVec<MemRegion, MAX_REGIONS>;

/// Sorts `raw`, resolves overlaps and joins neighbours. Returns the list and whether regions were lost for want of room.
#[must_use]
pub fn sanitise(raw: &Regions) -> (Regions, bool) {
    let mut edges: ArrayVec<u64, { 2 * MAX_REGIONS }> = ArrayVec::new();
    for region in raw.iter().filter(|r| r.start < r.end) {
        // Two edges a region: they always fit.
        edges.push(region.start);
        edges.push(region.end);
    }
    edges.sort_unstable();
    let mut out = Regions::new();
    let mut lost = false;
    for (&start, &end) in edges.iter().zip(edges.iter().skip(1)) {
        let covering = raw.iter().filter(|r| r.start <= start && end <= r.end);
        let Some(kind) = covering.map(|r| r.kind).max() else {
            continue;
        };
        if start == end {
            continue;
        }
        match out.last_mut() {
            Some(last) if last.end == start && last.kind == kind => last.end = end,
            _ => lost |= out.try_push(MemRegion { start, end, kind }).is_err(),
        }
    }
    (out, lost)
}

/// Bytes of usable memory.
#[must_use]
pub fn usable_bytes(regions: &[MemRegion]) -> u64 {
    let usable = regions.iter().filter(|r| r.kind == RegionKind::Usable);
    usable.fold(0, |sum, r| sum.saturating_add(r.end.saturating_sub(r.start)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use RegionKind::{AcpiNvs, Reserved, Usable};

    fn region(start: u64, end: u64, kind: RegionKind) -> MemRegion {
        MemRegion { start, end, kind }
    }

    #[test]
    fn sorts_and_joins() {
        let raw: Regions = [
            region(0x2000, 0x3000, Usable),
            region(0, 0x1000, Usable),
            region(0x1000, 0x2000, Usable),
            region(0x5000, 0x5000, Reserved),
        ]
        .into_iter()
        .collect();
        assert_eq!(sanitise(&raw).0.as_slice(), [region(0, 0x3000, Usable)].as_slice());
    }

    #[test]
    fn the_cautious_kind_wins() {
        let raw: Regions =
            [region(0, 0x10000, Usable), region(0x4000, 0x6000, Reserved), region(0x5000, 0x7000, AcpiNvs)]
                .into_iter()
                .collect();
        assert_eq!(
            sanitise(&raw).0.as_slice(),
            [
                region(0, 0x4000, Usable),
                region(0x4000, 0x5000, Reserved),
                region(0x5000, 0x7000, AcpiNvs),
                region(0x7000, 0x10000, Usable),
            ]
            .as_slice()
        );
    }

    #[test]
    fn random_maps_agree_with_a_table_of_bytes() {
        let seed = std::env::var("XENITH_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x9e37_79b9_u64);
        std::println!("XENITH_SEED={seed}");
        let mut state = seed | 1;
        let mut next = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        for _ in 0..300 {
            let mut raw = Regions::new();
            let mut model = [None::<RegionKind>; 128];
            for _ in 0..next(24) {
                let (a, b) = (next(128), next(128));
                let kind = RegionKind::from_e820(1 + next(6) as u32);
                raw.push(region(a, b, kind));
                for cell in model.iter_mut().take(b as usize).skip(a as usize) {
                    *cell = (*cell).max(Some(kind));
                }
            }
            let (out, lost) = sanitise(&raw);
            assert!(!lost);
            assert!(out.iter().all(|r| r.start < r.end));
            assert!(
                out.windows(2).all(|w| w[0].end < w[1].start || (w[0].end == w[1].start && w[0].kind != w[1].kind))
            );
            for (at, cell) in model.iter().enumerate() {
                let at = at as u64;
                let found = out.iter().find(|r| r.start <= at && at < r.end);
                assert_eq!(found.map(|r| r.kind), *cell, "byte {at} of {raw:?}");
            }
        }
    }

    #[test]
    fn full_maps_say_what_was_lost() {
        // Every other region lies within its neighbour: twice as many edges as there is room for regions.
        let mut raw: Regions = (0..255).map(|i| region(i * 100 + 10, i * 100 + 20, Reserved)).collect();
        raw.push(region(0, 1 << 40, Usable));
        let (out, lost) = sanitise(&raw);
        assert!(lost);
        assert_eq!(out.len(), MAX_REGIONS);
        assert!(usable_bytes(&out) < 1 << 40);
    }
}
