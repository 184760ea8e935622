// SPDX-License-Identifier: MIT OR Apache-2.0
//! A walk through a guest's page tables in software.
//!
//! Tables that a root leads to are validated, but another vCPU may change them during the walk unless the page-table lock is
//! held; then the answer may be out of date, never out of bounds.

use crate::entry::entry;
use crate::flags::{P, PSE, entry_for, mfn_of};
use crate::frame;
use core::sync::atomic::{AtomicU64, Ordering};
use hypercalls::addr::{HOLE_END, HOLE_START};
use hypercalls::{GuestVa, Maddr, Mfn};

/// What a walk saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Entries of level 1 to 4 at index 0 to 3; 0 below where the walk ended.
    pub entries: [u64; 4],
    /// Where the L1 entry is, if the walk came so far.
    pub l1e: Option<Maddr>,
}

impl Walk {
    /// Returns the L1 entry, present or not, 0 if there is none.
    #[inline]
    pub fn l1(&self) -> u64 {
        self.entries[0]
    }
    /// True when every entry has all the bits.
    pub fn all(&self, bits: u64) -> bool {
        self.entries.iter().all(|e| e & bits == bits)
    }
    /// Returns the frame that is mapped.
    pub fn mapped(&self) -> Option<Mfn> {
        (self.l1() & P != 0).then(|| mfn_of(self.l1()))
    }
}

/// Returns the L1 entry of an address as [`walk()`] finds it, 0 where there is none; for where only that is asked.
#[inline]
pub fn leaf(root: Mfn, va: GuestVa) -> u64 {
    if !va.access_ok(1) {
        return 0;
    }
    let mut value = entry_for(root, P);
    for level in (0..4).rev() {
        let table = mfn_of(value);
        if value & P == 0 || (level < 3 && value & PSE != 0) || frame::ram(table).is_none() {
            return 0;
        }
        value = entry(table, index(va, level)).load(Ordering::Acquire);
    }
    value
}

/// Returns the slot of an address's L1 entry.
///
/// The root is a valid one of the domain whose page-table lock is held, so that all that it leads to are valid tables.
#[inline]
pub(crate) fn slot_below(root: Mfn, va: GuestVa) -> Option<&'static AtomicU64> {
    Some(entry(l1_below(root, va)?, index(va, 0)))
}

/// Returns where an address's L1 entry is, if there is a table for it.
#[inline]
pub(crate) fn place_below(root: Mfn, va: GuestVa) -> Option<Maddr> {
    Some(Maddr(l1_below(root, va)?.maddr().0 + index(va, 0) as u64 * 8))
}

/// Returns the L1 table of an address, as [`slot_below`] has it.
#[inline]
fn l1_below(root: Mfn, va: GuestVa) -> Option<Mfn> {
    if !va.access_ok(1) {
        return None;
    }
    let mut table = root;
    for level in (1..4).rev() {
        let value = entry(table, index(va, level)).load(Ordering::Relaxed);
        if value & (P | PSE) != P {
            return None;
        }
        table = mfn_of(value);
    }
    Some(table)
}

/// Returns which entry of a table of a level (0 to 3) is an address's.
#[inline(always)]
const fn index(va: GuestVa, level: usize) -> usize {
    (va.0 >> (12 + 9 * level) & 511) as usize
}

/// Walks from a root of the guest's. The hypervisor's part of the address space and addresses that are not canonical
/// lead nowhere.
pub fn walk(root: Mfn, va: GuestVa) -> Walk {
    let mut seen = Walk { entries: [0; 4], l1e: None };
    if !va.is_canonical() || (HOLE_START..HOLE_END).contains(&va.0) {
        return seen;
    }
    let mut table = root;
    for level in (0..4usize).rev() {
        if frame::ram(table).is_none() {
            return seen;
        }
        let index = index(va, level);
        let value = entry(table, index).load(Ordering::Acquire);
        seen.entries[level] = value;
        if level == 0 {
            seen.l1e = Some(Maddr(table.maddr().0 + index as u64 * 8));
        }
        if value & P == 0 || (level > 0 && value & PSE != 0) {
            return seen;
        }
        table = mfn_of(value);
    }
    seen
}
