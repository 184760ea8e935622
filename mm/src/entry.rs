// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames as memory: page-table entries and whole-frame operations on frames that are known to be RAM.
//!
//! The one place outside `arch` where a machine frame becomes memory in this crate. Soundness: the direct map covers
//! all RAM for ever; a frame below is RAM by the frame table; entries are only ever seen as atomics; whole frames are
//! only written while no guest and no Rust value uses them.
#![expect(unsafe_code, reason = "machine frames become memory here")]

use core::sync::atomic::{AtomicU64, Ordering};
use hypercalls::Mfn;

/// A frame seen as a page table.
type Entries = [AtomicU64; 512];

/// Returns the entries of a frame.
///
/// # Panics
/// In debug builds, if the frame is not RAM.
#[inline]
fn entries(mfn: Mfn) -> &'static Entries {
    debug_assert!(crate::frame::ram(mfn).is_some(), "entries of {mfn}, which is no RAM");
    // SAFETY: callers got the frame number from the frame table or from an entry of a validated table, so it is RAM,
    // and used as guest memory, never as Rust memory; a frame has room for 512 entries and their alignment.
    unsafe { &*arch::phys::frame_ptr(mfn).cast::<Entries>() }
}

/// Returns entry `index % 512` of a frame.
///
/// # Panics
/// In debug builds, if the frame is not RAM.
#[inline]
pub(crate) fn entry(mfn: Mfn, index: usize) -> &'static AtomicU64 {
    &entries(mfn)[index & 511]
}

/// Entries in a cache line, which are looked at together.
const LINE: usize = 8;

fn is_used(entry: &AtomicU64) -> bool {
    entry.load(Ordering::Relaxed) != 0
}

/// True when a line has no entry but zeros: without a branch for each.
fn is_empty(line: &[AtomicU64; LINE]) -> bool {
    line.iter().fold(0, |bits, entry| bits | entry.load(Ordering::Relaxed)) == 0
}

/// Returns the first index from `from` on whose entry is not zero; 512 when all are.
///
/// Tables are mostly empty: most of what a process's making and end cost is the looking for entries.
#[inline]
pub(crate) fn next_used(mfn: Mfn, from: usize) -> usize {
    let table = entries(mfn);
    let mut index = from;
    while let Some(entry) = table.get(index) {
        if is_used(entry) {
            return index;
        }
        index += 1;
        if index.is_multiple_of(LINE) {
            index += LINE * table.as_chunks().0[index / LINE..].iter().take_while(|line| is_empty(line)).count();
        }
    }
    512
}

/// Returns the last index below `before` whose entry is not zero.
#[inline]
pub(crate) fn last_used(mfn: Mfn, before: usize) -> Option<usize> {
    let table = entries(mfn);
    let mut index = before;
    while index > 0 {
        index -= 1;
        if is_used(&table[index]) {
            return Some(index);
        }
        if index.is_multiple_of(LINE) {
            index -= LINE * table.as_chunks().0[..index / LINE].iter().rev().take_while(|line| is_empty(line)).count();
        }
    }
    None
}

/// Zeroes a frame of RAM that is between owners.
pub(crate) fn zero(mfn: Mfn) {
    debug_assert!(crate::frame::ram(mfn).is_some());
    // SAFETY: the frame is RAM by the frame table, and its caller just allocated it.
    unsafe { arch::phys::zero(mfn) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosted::{self, Random};

    /// Both directions find exactly what looking at each entry finds.
    #[test]
    fn used_entries_are_found() {
        let _machine = hosted::boot(16, 1);
        let (mut random, table) = (Random::from_env(7), Mfn(3));
        for round in 0..200 {
            (0..512).for_each(|i| hosted::poke(table, i, 0));
            for _ in 0..random.below(1 + round) {
                hosted::poke(table, random.below(512) as usize, 1 << random.below(64));
            }
            let used: alloc::vec::Vec<_> = (0..512).filter(|&i| hosted::peek(table, i) != 0).collect();
            for from in 0..=512 {
                let found = next_used(table, from);
                assert_eq!(found, used.iter().copied().find(|&i| i >= from).unwrap_or(512), "from {from}");
                assert_eq!(last_used(table, from), used.iter().copied().rfind(|&i| i < from), "before {from}");
            }
        }
    }
}
