// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages, frames and the guest's own page tables.
//!
//! All memory the tests use comes from one pool in the image's BSS, which the builder has mapped at VIRT_BASE with
//! 4 KiB pages: PFN = (address - VIRT_BASE) >> 12 for the image, the builder's tables and the pool alike.

use crate::abi::{self, MmuUpdate, index, pte};
use crate::hypercall::{mmu_update, update_va_mapping};
use crate::{report, start};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// Bytes in a page.
pub const PAGE: u64 = 4096;
const POOL_PAGES: usize = 1400;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[[u8; PAGE as usize]; POOL_PAGES]>);
// SAFETY: pages are handed out once each, by the counter.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new([[0; PAGE as usize]; POOL_PAGES]));
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Takes a zeroed page from the pool; it is never given back.
pub fn alloc() -> u64 {
    alloc_contiguous(1)
}

/// Takes `count` pages that follow each other in linear memory.
pub fn alloc_contiguous(count: usize) -> u64 {
    let page = NEXT.fetch_add(count, SeqCst);
    if page + count > POOL_PAGES {
        report::abort("page-pool", format_args!("exhausted"));
    }
    POOL.0.get() as u64 + page as u64 * PAGE
}

/// Takes `count` pages at a multiple of `count` pages (a power of two): a stack, for one.
pub fn alloc_aligned(count: usize) -> u64 {
    loop {
        let next = POOL.0.get() as u64 + NEXT.load(SeqCst) as u64 * PAGE;
        if next.is_multiple_of(count as u64 * PAGE) {
            return alloc_contiguous(count);
        }
        alloc();
    }
}

/// Returns the PFN of an address in the initial mapping.
pub fn pfn(va: u64) -> u64 {
    (va - abi::VIRT_BASE) / PAGE
}

/// Returns the machine frame of a PFN, by the P2M.
pub fn p2m(pfn: u64) -> u64 {
    // SAFETY: the builder's list has nr_pages entries, and callers pass PFNs of the domain.
    unsafe { *((start::info().mfn_list + 8 * pfn) as *const u64) }
}

/// Returns the PFN of a machine frame, by the M2P.
pub fn m2p(mfn: u64) -> u64 {
    // SAFETY: the M2P covers all frames that appear in the guest's tables.
    unsafe { ((abi::M2P + 8 * mfn) as *const u64).read_volatile() }
}

/// Returns the machine frame behind an address in the initial mapping (by the P2M, not by its entry).
pub fn mfn(va: u64) -> u64 {
    p2m(pfn(va))
}

/// Returns the machine address of a byte in the initial mapping.
pub fn maddr(va: u64) -> u64 {
    mfn(va) * PAGE + va % PAGE
}

/// Returns where a machine frame is in the initial mapping.
pub fn va_of(mfn: u64) -> u64 {
    abi::VIRT_BASE + m2p(mfn) * PAGE
}

/// Returns a table entry, or any word, of the initial mapping.
pub fn entry(table: u64, index: usize) -> &'static AtomicU64 {
    // SAFETY: callers pass pages of the initial mapping; a trap catches what is not mapped.
    unsafe { &*((table + 8 * index as u64) as *const AtomicU64) }
}

/// Returns the address of the kernel's L4 table.
pub fn l4() -> u64 {
    start::info().pt_base
}

/// The machine address and the value of the entry at some level for some address.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Machine address of the entry.
    pub maddr: u64,
    /// Its value.
    pub value: u64,
    /// Address of the table that holds it.
    pub table: u64,
}

/// Walks the tables below `l4` down to `level` (1 to 4) for `va`; none where a level is absent.
pub fn walk_from(l4: u64, va: u64, level: u32) -> Option<Entry> {
    let mut table = l4;
    let mut at = 4;
    loop {
        let slot = index(va, at);
        let value = entry(table, slot).load(SeqCst);
        if at == level {
            return Some(Entry { maddr: maddr(table) + 8 * slot as u64, value, table });
        }
        if value & pte::P == 0 {
            return None;
        }
        table = va_of((value & pte::ADDR) / PAGE);
        at -= 1;
    }
}

/// Walks the kernel's tables down to the L1 entry of `va`.
pub fn l1_entry(va: u64) -> Entry {
    walk_from(l4(), va, 1).unwrap_or_else(|| report::abort("walk", format_args!("nothing mapped near {va:#x}")))
}

/// Maps a page of the initial mapping read-only.
pub fn make_ro(va: u64) {
    remap(va, reference(va, pte::KERNEL_RO));
}

/// Maps a page of the initial mapping writable again.
pub fn make_rw(va: u64) {
    remap(va, reference(va, pte::KERNEL_RW));
}

/// Changes a mapping; ends the guest if the hypervisor refuses.
pub fn remap(va: u64, value: u64) {
    let result = update_va_mapping(va, value, abi::UVMF_INVLPG);
    if result != 0 {
        report::abort("remap", format_args!("{va:#x} to {value:#x} got {result}"));
    }
}

/// Takes a page for a table, filled by `fill`, and maps it read-only.
pub fn table(fill: impl FnOnce(u64)) -> u64 {
    let page = alloc();
    fill(page);
    make_ro(page);
    page
}

/// Returns an entry that refers to the page at `va` of the initial mapping.
pub fn reference(va: u64, flags: u64) -> u64 {
    (mfn(va) << 12) | flags
}

/// Writes a page-table entry by `mmu_update`; ends the guest if the hypervisor refuses.
pub fn set(maddr: u64, value: u64) {
    let (result, _) = mmu_update(&[MmuUpdate { ptr: maddr, val: value }]);
    if result != 0 {
        report::abort("mmu-update", format_args!("{maddr:#x} to {value:#x} got {result}"));
    }
}
