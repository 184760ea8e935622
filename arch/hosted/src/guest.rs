// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory through a software walk from the root that each simulated CPU has loaded, and through its TLB.
#![expect(unsafe_code, reason = "copies from and to machine memory")]

use crate::{cpu, phys, tlb};
use arch_types::{CpuId, Flush, GuestFault, MAX_CPUS};
use core::sync::atomic::{AtomicU64, Ordering};
use hypercalls::addr::PAGE_SIZE;
use hypercalls::{GuestVa, Mfn};

const PRESENT: u64 = 1;
const RW: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PSE: u64 = 1 << 7;
const ADDR: u64 = 0x000f_ffff_ffff_f000;

static ROOTS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(u64::MAX) }; MAX_CPUS];

pub(crate) fn reset() {
    ROOTS
        .iter()
        .for_each(|r| r.store(u64::MAX, Ordering::SeqCst));
}

fn root_of(cpu: CpuId) -> &'static AtomicU64 {
    &ROOTS[cpu.0 as usize % MAX_CPUS]
}

/// Loads a root on this CPU, as a write to CR3 does (TLB included).
pub fn set_root(root: Mfn) {
    root_of(cpu::this_cpu()).store(root.0, Ordering::SeqCst);
    tlb::flush_local(Flush::All);
}

/// Returns the root loaded on this CPU, [`Mfn::INVALID`] if none is.
pub fn root() -> Mfn {
    Mfn(root_of(cpu::this_cpu()).load(Ordering::SeqCst))
}

/// Translates one page as the MMU would for user mode, setting A and D bits and filling the TLB.
fn translate(va: GuestVa, write: bool) -> Result<Mfn, GuestFault> {
    let this = cpu::this_cpu();
    if let Some(hit) = tlb::lookup(this, va)
        && (hit.writable || !write)
    {
        return Ok(hit.mfn);
    }
    let mut table = root();
    let mut writable = true;
    for level in (1..=4u32).rev() {
        if table.0 >= (phys::size() / PAGE_SIZE) as u64 {
            return Err(GuestFault);
        }
        let index = (va.0 >> (12 + 9 * (level - 1)) & 511) as usize;
        // SAFETY: bounds checked above; page tables are only seen as atomics.
        let slot = unsafe { phys::entry(table, index) };
        let entry = slot.load(Ordering::SeqCst);
        writable &= entry & RW != 0;
        let leaf = level == 1;
        if entry & (PRESENT | USER) != PRESENT | USER
            || (write && !writable)
            || (!leaf && entry & PSE != 0)
        {
            return Err(GuestFault);
        }
        slot.fetch_or(
            if leaf && write {
                ACCESSED | DIRTY
            } else {
                ACCESSED
            },
            Ordering::SeqCst,
        );
        table = Mfn((entry & ADDR) >> 12);
    }
    // As hardware: without D set a cached translation lets no write through.
    tlb::insert(
        this,
        va,
        tlb::Cached {
            mfn: table,
            writable: write,
        },
    );
    Ok(table)
}

/// Calls `each` with a pointer and a range of the buffer for every page that the range touches.
fn pages(
    va: GuestVa,
    len: usize,
    write: bool,
    mut each: impl FnMut(*mut u8, core::ops::Range<usize>),
) -> Result<(), GuestFault> {
    let mut done = 0;
    while done < len {
        let at = GuestVa(va.0.wrapping_add(done as u64));
        let offset = at.0 as usize % PAGE_SIZE;
        let part = (PAGE_SIZE - offset).min(len - done);
        let mfn = translate(at, write)?;
        if mfn.0 >= (phys::size() / PAGE_SIZE) as u64 {
            return Err(GuestFault);
        }
        // SAFETY: RAM by the check above; the offset stays within the frame.
        let ptr = unsafe { phys::frame_ptr(mfn).add(offset) };
        each(ptr, done..done + part);
        done += part;
    }
    Ok(())
}

/// Copies from the current guest address space.
///
/// # Errors
/// [`GuestFault`] at the first byte that is not mapped; what came before it has been copied.
pub fn copy_from(dst: &mut [u8], va: GuestVa) -> Result<(), GuestFault> {
    pages(va, dst.len(), false, |ptr, range| {
        let part = &mut dst[range];
        // SAFETY: `ptr` has room for the part (see `pages`); machine memory never overlaps Rust's.
        unsafe { core::ptr::copy_nonoverlapping(ptr, part.as_mut_ptr(), part.len()) }
    })
}

/// Copies to the current guest address space.
///
/// # Errors
/// [`GuestFault`] at the first byte that is not mapped writable; what came before it has been written.
pub fn copy_to(va: GuestVa, src: &[u8]) -> Result<(), GuestFault> {
    pages(va, src.len(), true, |ptr, range| {
        let part = &src[range];
        // SAFETY: as in `copy_from`, the other way round.
        unsafe { core::ptr::copy_nonoverlapping(part.as_ptr(), ptr, part.len()) }
    })
}
