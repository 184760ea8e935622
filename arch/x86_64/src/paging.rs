// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor's own page tables.
//!
//! All L3 tables of the hypervisor's slots exist from the start, so the 16 L4 entries that every guest L4 carries
//! never change: what is mapped below them later is seen in every address space at once. Slot 256 (the M2P) is the
//! only one that ring 3 may read.
#![expect(unsafe_code, reason = "writes page tables through the direct map")]

use core::sync::atomic::{AtomicU64, Ordering};

use hypercalls::{Maddr, Mfn};
use spin::{Mutex, Once};

use crate::{features, layout, phys};

bitflags::bitflags! {
    /// Bits of a page-table entry (SDM volume 3, 4.5).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Pte: u64 {
        /// The entry maps something.
        const PRESENT = 1;
        /// Writes are allowed.
        const WRITE = 1 << 1;
        /// Ring 3 may use it.
        const USER = 1 << 2;
        /// Write-through, the PAT index's low bit.
        const PWT = 1 << 3;
        /// Uncached, the PAT index's middle bit.
        const PCD = 1 << 4;
        /// The CPU has used the entry.
        const ACCESSED = 1 << 5;
        /// The CPU has written through the entry.
        const DIRTY = 1 << 6;
        /// A 2 MiB or 1 GiB page.
        const LARGE = 1 << 7;
        /// Kept when CR3 is loaded.
        const GLOBAL = 1 << 8;
        /// No instruction fetch.
        const NX = 1 << 63;
    }
}

/// Read-only data.
pub const RO: Pte = Pte::from_bits_retain(1 | 1 << 5 | 1 << 8 | 1 << 63);
/// Data.
pub const RW: Pte = RO.union(Pte::WRITE).union(Pte::DIRTY);
/// Code.
pub const RX: Pte = RO.difference(Pte::NX);
/// Device registers: uncached.
pub const DEVICE: Pte = RW.union(Pte::PCD).union(Pte::PWT);
/// Data that ring 3 may read.
pub const USER_RO: Pte = RO.union(Pte::USER);

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Gives one zeroed frame for a page table, or `None` when memory is out.
pub type TableAlloc<'a> = &'a mut dyn FnMut() -> Option<Mfn>;

static ROOT: Once<Mfn> = Once::new();
/// Serialises changes to the hypervisor's tables. Taken by no interrupt handler.
static CHANGES: Mutex<()> = Mutex::new(());

/// Memory for page tables ran out.
#[derive(Clone, Copy, Debug)]
pub struct NoTables;

/// Returns the L4 that has only the hypervisor's slots: what idle CPUs run on.
pub fn root() -> Mfn {
    *ROOT.get().expect("paging::init made the root at boot")
}

/// Returns the 16 L4 entries that every guest L4 carries.
pub fn hypervisor_slots() -> [u64; layout::SLOTS] {
    core::array::from_fn(|i| {
        // SAFETY: the root is RAM, mapped, and accessed only as atomics.
        unsafe { phys::entry(root(), layout::FIRST_SLOT + i) }.load(Ordering::Relaxed)
    })
}

/// Makes the root with all L3 tables of the hypervisor's slots. The new tables are not loaded yet.
///
/// # Errors
/// [`NoTables`] when `alloc` has nothing left.
pub fn init(alloc: TableAlloc<'_>) -> Result<(), NoTables> {
    let l4 = alloc().ok_or(NoTables)?;
    for slot in 0..layout::SLOTS {
        let l3 = alloc().ok_or(NoTables)?;
        let user = if slot == 0 { Pte::USER } else { Pte::empty() };
        let flags = Pte::PRESENT | Pte::WRITE | Pte::ACCESSED | Pte::DIRTY | user;
        // SAFETY: `l4` is a fresh zeroed frame of ours.
        unsafe { phys::entry(l4, layout::FIRST_SLOT + slot) }.store(l3.maddr().0 | flags.bits(), Ordering::Relaxed);
    }
    ROOT.call_once(|| l4);
    Ok(())
}

fn next_table(entry: &AtomicU64, user: bool, alloc: TableAlloc<'_>) -> Result<Mfn, NoTables> {
    let old = entry.load(Ordering::Relaxed);
    if old & 1 != 0 {
        assert!(old & Pte::LARGE.bits() == 0, "a page is mapped where a table is wanted");
        return Ok(Maddr(old & ADDRESS).mfn());
    }
    let table = alloc().ok_or(NoTables)?;
    let flags = Pte::PRESENT | Pte::WRITE | Pte::ACCESSED | Pte::DIRTY;
    let user = if user { Pte::USER } else { Pte::empty() };
    entry.store(table.maddr().0 | (flags | user).bits(), Ordering::Release);
    Ok(table)
}

fn encode(maddr: u64, flags: Pte, large: bool) -> u64 {
    let mut bits = maddr | flags.bits();
    let f = features::get();
    if !f.nx {
        bits &= !Pte::NX.bits();
    }
    if !f.pge {
        bits &= !Pte::GLOBAL.bits();
    }
    if large { bits | Pte::LARGE.bits() } else { bits }
}

const fn index(va: u64, level: u32) -> usize {
    (va >> (12 + 9 * (level - 1)) & 511) as usize
}

/// Maps `[maddr, maddr + len)` at `va` with the largest pages that fit. Replaces what was there without a flush.
///
/// # Errors
/// [`NoTables`] when `alloc` has nothing left; a part may be mapped then.
pub fn map(va: u64, maddr: Maddr, len: u64, flags: Pte, alloc: TableAlloc<'_>) -> Result<(), NoTables> {
    map_below(root(), va, maddr, len, flags, alloc)
}

/// As [`map`], in the tables below another root of the hypervisor's.
///
/// # Errors
/// As [`map`].
pub(crate) fn map_below(
    root: Mfn,
    va: u64,
    maddr: Maddr,
    len: u64,
    flags: Pte,
    alloc: TableAlloc<'_>,
) -> Result<(), NoTables> {
    let _serialised = CHANGES.lock();
    let user = flags.contains(Pte::USER);
    let (mut va, mut pa, end) = (va, maddr.0, va + len);
    while va < end {
        // SAFETY: the root and the tables below it are ours and only accessed as atomics.
        let l3 = next_table(unsafe { phys::entry(root, index(va, 4)) }, user, alloc)?;
        // SAFETY: as above.
        let e3 = unsafe { phys::entry(l3, index(va, 3)) };
        let step = |shift: u32| (va | pa) & ((1 << shift) - 1) == 0 && end - va >= 1 << shift;
        if step(30) && features::get().page1g && e3.load(Ordering::Relaxed) & 1 == 0 {
            e3.store(encode(pa, flags, true), Ordering::Release);
            (va, pa) = (va + (1 << 30), pa + (1 << 30));
            continue;
        }
        let l2 = next_table(e3, user, alloc)?;
        // SAFETY: as above.
        let e2 = unsafe { phys::entry(l2, index(va, 2)) };
        if step(21) && (e2.load(Ordering::Relaxed) & 1 == 0 || e2.load(Ordering::Relaxed) & Pte::LARGE.bits() != 0) {
            e2.store(encode(pa, flags, true), Ordering::Release);
            (va, pa) = (va + (1 << 21), pa + (1 << 21));
            continue;
        }
        let l1 = next_table(e2, user, alloc)?;
        // SAFETY: as above.
        unsafe { phys::entry(l1, index(va, 1)) }.store(encode(pa, flags, false), Ordering::Release);
        (va, pa) = (va + 4096, pa + 4096);
    }
    Ok(())
}

/// Returns the L1 entry that maps `va`, making the tables above it.
///
/// # Errors
/// [`NoTables`] when `alloc` has nothing left.
pub fn l1_entry(va: u64, alloc: TableAlloc<'_>) -> Result<&'static AtomicU64, NoTables> {
    let _serialised = CHANGES.lock();
    // SAFETY: as in `map`.
    let l3 = next_table(unsafe { phys::entry(root(), index(va, 4)) }, false, alloc)?;
    // SAFETY: as in `map`.
    let l2 = next_table(unsafe { phys::entry(l3, index(va, 3)) }, false, alloc)?;
    // SAFETY: as in `map`.
    let l1 = next_table(unsafe { phys::entry(l2, index(va, 2)) }, false, alloc)?;
    // SAFETY: as in `map`.
    Ok(unsafe { phys::entry(l1, index(va, 1)) })
}

/// Returns the machine address that the hypervisor's tables map `va` to.
pub fn translate(va: u64) -> Option<Maddr> {
    let mut table = root();
    for level in (1..=4).rev() {
        // SAFETY: as in `map`; for device pages no table is entered.
        let e = unsafe { phys::entry(table, index(va, level)) }.load(Ordering::Acquire);
        if e & 1 == 0 {
            return None;
        }
        if level == 1 || e & Pte::LARGE.bits() != 0 {
            let size = 1u64 << (12 + 9 * (level - 1));
            return Some(Maddr((e & ADDRESS & !(size - 1)) | va & (size - 1)));
        }
        table = Maddr(e & ADDRESS).mfn();
    }
    None
}

/// Size of a page of level 2.
const LARGE: u64 = 2 << 20;
static NEXT_DEVICE: AtomicU64 = AtomicU64::new(layout::DEVICES);

/// Maps device registers and returns where.
///
/// # Errors
/// [`NoTables`] when `alloc` has nothing left.
pub fn map_device(maddr: Maddr, len: u64, alloc: TableAlloc<'_>) -> Result<u64, NoTables> {
    let offset = maddr.0 & 4095;
    let len = (offset + len).next_multiple_of(4096);
    // What is large is mapped by large pages: it lies in them as the registers do.
    let large = if len >= LARGE { LARGE } else { 0 };
    let start = NEXT_DEVICE.fetch_add(len + 4096 + 2 * large, Ordering::Relaxed);
    let within = (maddr.0 - offset) & (LARGE - 1);
    let va = if large == 0 { start } else { start.next_multiple_of(LARGE) + within };
    map(va, Maddr(maddr.0 - offset), len, DEVICE, alloc)?;
    Ok(va + offset)
}
