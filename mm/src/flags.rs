// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bits of page-table entries, which of them a guest may set at which level, and how a guest's entry is adjusted
//! before hardware sees it.

use core::sync::atomic::{AtomicU64, Ordering};
use hypercalls::Mfn;

/// Present.
pub const P: u64 = 1;
/// Writable.
pub const RW: u64 = 1 << 1;
/// Accessible from ring 3.
pub const US: u64 = 1 << 2;
/// Write-through.
pub const PWT: u64 = 1 << 3;
/// Cache disabled.
pub const PCD: u64 = 1 << 4;
/// Accessed.
pub const A: u64 = 1 << 5;
/// Dirty.
pub const D: u64 = 1 << 6;
/// Page attribute table, in L1 entries.
pub const PAT: u64 = 1 << 7;
/// Large page, in L2 and L3 entries.
pub const PSE: u64 = 1 << 7;
/// Global.
pub const G: u64 = 1 << 8;
/// Free for software.
pub const AVAIL: u64 = 7 << 9;
/// Free for software, high.
pub const AVAIL_HIGH: u64 = 0x7ff << 52;
/// Our software bit in L1 entries: the guest's kernel alone may use the mapping.
pub const GUEST_KERNEL: u64 = 1 << 52;
/// No execute.
pub const NX: u64 = 1 << 63;
/// Bits that select the cache type in L1 entries.
pub const CACHE: u64 = PWT | PCD | PAT;
/// Where any machine's address may lie.
pub const ADDR: u64 = 0x000f_ffff_ffff_f000;

/// Bits whose change alone needs no new reference, at L1. A positive list (XSA-182).
pub const FAST_L1: u64 = A | D | AVAIL | AVAIL_HIGH | NX | G | US;
/// Likewise above L1.
pub const FAST_TABLE: u64 = A | D | AVAIL | AVAIL_HIGH | NX;

/// What this machine's entries may hold: its address bits, and NX where the CPU has it.
static MACHINE: AtomicU64 = AtomicU64::new(0);

/// Asks the CPU once.
pub(crate) fn init() {
    let address = ((1u64 << arch::phys::maddr_bits().min(52)) - 1) & ADDR;
    let nx = if arch::phys::has_nx() { NX } else { 0 };
    MACHINE.store(address | nx, Ordering::Relaxed);
}

/// Returns the bits an L1 entry may have, cache bits apart.
#[inline]
pub(crate) fn allowed_l1() -> u64 {
    MACHINE.load(Ordering::Relaxed) | P | RW | US | A | D | G | AVAIL | AVAIL_HIGH
}

/// Returns the bits an L2, L3 or L4 entry may have: no PSE (XSA-148), no cache bits.
#[inline]
pub(crate) fn allowed_table() -> u64 {
    MACHINE.load(Ordering::Relaxed) | P | RW | US | A | D | AVAIL | AVAIL_HIGH
}

/// Returns the frame that an entry names.
#[inline]
pub const fn mfn_of(entry: u64) -> Mfn {
    Mfn((entry & ADDR) >> 12)
}

/// Returns the entry for a frame.
#[inline]
pub const fn entry_for(mfn: Mfn, flags: u64) -> u64 {
    mfn.0 << 12 | flags
}

/// Adjusts a present L1 entry: everything is reachable from ring 3; mappings of the guest's kernel carry
/// [`GUEST_KERNEL`] and are never global, those of its user mode are, since both address spaces share them.
#[inline]
pub const fn adjust_l1(mut entry: u64) -> u64 {
    if entry & US == 0 {
        entry |= US | GUEST_KERNEL;
    }
    if entry & GUEST_KERNEL == 0 { entry | G } else { entry & !G }
}

/// Adjusts a present entry of a table of level 2 to 4.
#[inline]
pub const fn adjust_table(entry: u64, level: u8) -> u64 {
    if level == 4 { entry | US | A } else { entry | US }
}
