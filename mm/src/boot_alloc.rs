// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot allocator: pure arithmetic over ranges of machine memory, until the frame table exists.
//!
//! It never touches the memory itself. What must hold: `free` is sorted, its ranges are disjoint and not empty; nothing
//! reserved or allocated is in it.

use arrayvec::ArrayVec;
use hypercalls::Maddr;
use hypercalls::addr::PAGE_SIZE;

/// The most ranges that are kept; a memory map that shatters into more loses the smallest ones.
pub const MAX_RANGES: usize = 256;

/// Bytes from `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// The byte behind the last.
    pub end: u64,
}

impl Range {
    /// Returns the length in bytes.
    pub const fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Free machine memory at boot.
#[derive(Clone, Debug, Default)]
pub struct BootAllocator {
    free: ArrayVec<Range, MAX_RANGES>,
}

impl BootAllocator {
    /// Makes an allocator of the RAM in `ranges`, which may come in any order and overlap; partial pages are left out.
    pub fn new(ranges: impl IntoIterator<Item = Range>) -> Self {
        let mut this = Self::default();
        ranges.into_iter().for_each(|r| this.add(r));
        this
    }

    fn add(&mut self, range: Range) {
        let page = PAGE_SIZE as u64;
        let Some(start) = range.start.checked_next_multiple_of(page) else {
            return;
        };
        let mut new = Range { start, end: range.end / page * page };
        if new.bytes() == 0 {
            return;
        }
        self.free.retain(|r| {
            let touches = r.start <= new.end && new.start <= r.end;
            if touches {
                new = Range { start: r.start.min(new.start), end: r.end.max(new.end) };
            }
            !touches
        });
        self.insert(new);
    }

    /// Inserts a range that touches no other, in order; when full the smallest goes.
    fn insert(&mut self, range: Range) {
        if self.free.is_full() {
            let smallest = (0..self.free.len()).min_by_key(|i| self.free[*i].bytes()).unwrap_or(0);
            if self.free[smallest].bytes() >= range.bytes() {
                return;
            }
            self.free.remove(smallest);
        }
        let at = self.free.partition_point(|r| r.start < range.start);
        self.free.insert(at, range);
    }

    /// Takes what the range touches out, whole pages.
    pub fn reserve(&mut self, range: Range) {
        let page = PAGE_SIZE as u64;
        let hole = Range { start: range.start / page * page, end: range.end.div_ceil(page).saturating_mul(page) };
        if hole.bytes() == 0 {
            return;
        }
        let old = core::mem::take(&mut self.free);
        for r in old {
            for part in [
                Range { start: r.start, end: r.end.min(hole.start) },
                Range { start: r.start.max(hole.end), end: r.end },
            ] {
                if part.bytes() > 0 {
                    self.insert(part);
                }
            }
        }
    }

    /// Allocates `bytes` (rounded up to pages) aligned to `align` (a power of two), all below `below`; from the top of
    /// the highest range that serves.
    pub fn alloc(&mut self, bytes: u64, align: u64, below: u64) -> Option<Maddr> {
        let page = PAGE_SIZE as u64;
        let bytes = bytes.max(1).checked_next_multiple_of(page)?;
        let align = align.max(page);
        let start = self.free.iter().rev().find_map(|r| {
            let start = r.end.min(below).checked_sub(bytes)? / align * align;
            (start >= r.start).then_some(start)
        })?;
        self.reserve(Range { start, end: start + bytes });
        Some(Maddr(start))
    }

    /// Returns what is free, in ascending order: what to hand to the buddy allocator in the end.
    pub fn ranges(&self) -> &[Range] {
        &self.free
    }

    /// Returns how many bytes are free.
    pub fn free_bytes(&self) -> u64 {
        self.free.iter().map(|r| r.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(start: u64, end: u64) -> Range {
        Range { start, end }
    }

    #[test]
    fn merges_and_cuts_to_pages() {
        let b = BootAllocator::new([r(0x5000, 0x9000), r(0x10, 0x3fff), r(0x8000, 0xa000), r(0x20000, 0x20fff)]);
        assert_eq!(b.ranges(), &[r(0x1000, 0x3000), r(0x5000, 0xa000)]);
    }

    #[test]
    fn reserve_splits_and_widens() {
        let mut b = BootAllocator::new([r(0, 0x10000)]);
        b.reserve(r(0x3001, 0x4001));
        b.reserve(r(0x8000, 0x8000));
        assert_eq!(b.ranges(), &[r(0, 0x3000), r(0x5000, 0x10000)]);
        b.reserve(r(0, u64::MAX));
        assert!(b.ranges().is_empty());
    }

    #[test]
    fn allocates_from_the_top_below_the_limit() {
        let mut b = BootAllocator::new([r(0x1000, 0x9000), r(0x100_0000, 0x200_0000)]);
        assert_eq!(b.alloc(1, 1, u64::MAX), Some(Maddr(0x1ff_f000)));
        assert_eq!(b.alloc(0x2000, 0x2000, 0x8000), Some(Maddr(0x6000)));
        assert_eq!(b.alloc(0x20_0000, 0x20_0000, 0x200_0000), Some(Maddr(0x1c0_0000)));
        assert_eq!(b.alloc(0x100_0000, 1, u64::MAX), None);
        assert_eq!(b.alloc(u64::MAX, 1, u64::MAX), None);
    }
}
