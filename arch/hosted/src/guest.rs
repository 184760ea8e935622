// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory through a software walk from the root that each simulated CPU has loaded, and through its TLB.
#![expect(unsafe_code, reason = "copies from and to machine memory")]

use crate::area::locked;
use crate::{cpu, phys, tlb};
use arch_types::{CpuId, Flush, GuestFault, MAX_CPUS};
use core::sync::atomic::{AtomicU64, Ordering};
use hypercalls::addr::PAGE_SIZE;
use hypercalls::{GuestVa, Mfn};
use std::sync::Mutex;
use std::vec::Vec;

const PRESENT: u64 = 1;
const RW: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PSE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NX: u64 = 1 << 63;
const ADDR: u64 = 0x000f_ffff_ffff_f000;

/// Error code of a page fault: the page was present; it was a write; ring 3 did it; a bit was reserved; it was a fetch.
const CODE_PRESENT: u32 = 1;
const CODE_WRITE: u32 = 2;
const CODE_USER: u32 = 4;
const CODE_RESERVED: u32 = 8;
const CODE_FETCH: u32 = 16;

/// What was copied from guests since it is watched, as address and length.
static READS: Mutex<Option<Vec<(u64, usize)>>> = Mutex::new(None);

static ROOTS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(u64::MAX) }; MAX_CPUS];

/// What a guest does to its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It executes.
    Fetch,
}

/// An access by ring 3 that the MMU refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// Where.
    pub address: GuestVa,
    /// The error code.
    pub code: u32,
}

/// Starts to watch what is copied from guest memory.
pub fn watch_reads() {
    *locked(&READS) = Some(Vec::new());
}

/// Ends the watch; returns what was copied from guest memory, in order, as address and length.
pub fn take_reads() -> Vec<(u64, usize)> {
    locked(&READS).take().unwrap_or_default()
}

pub(crate) fn reset() {
    *locked(&READS) = None;
    ROOTS.iter().for_each(|r| r.store(u64::MAX, Ordering::SeqCst));
}

fn root_of(cpu: CpuId) -> &'static AtomicU64 {
    &ROOTS[cpu.0 as usize % MAX_CPUS]
}

/// Loads a root on this CPU and drops all that its TLB holds.
pub fn set_root(root: Mfn) {
    root_of(cpu::this_cpu()).store(root.0, Ordering::SeqCst);
    tlb::flush_local(Flush::All);
}

/// Has a CPU have no root.
pub(crate) fn leave_root(cpu: CpuId) {
    root_of(cpu).store(Mfn::INVALID.0, Ordering::SeqCst);
}

/// Loads a root on this CPU, as a write to CR3 does: global translations stay.
pub(crate) fn switch_root(root: Mfn) {
    root_of(cpu::this_cpu()).store(root.0, Ordering::SeqCst);
    tlb::flush_not_global();
}

/// Returns the root loaded on this CPU, [`Mfn::INVALID`] if none is.
pub fn root() -> Mfn {
    Mfn(root_of(cpu::this_cpu()).load(Ordering::SeqCst))
}

fn is_ram(mfn: Mfn) -> bool {
    mfn.0 < (phys::size() / PAGE_SIZE) as u64
}

/// Translates one page as the MMU would for ring 3, setting A and D bits and filling the TLB. The error is the error
/// code of the page fault.
fn translate(va: GuestVa, how: Access) -> Result<Mfn, u32> {
    let this = cpu::this_cpu();
    let write = how == Access::Write;
    let asked = CODE_USER
        | match how {
            Access::Read => 0,
            Access::Write => CODE_WRITE,
            Access::Fetch => CODE_FETCH,
        };
    if let Some(hit) = tlb::lookup(this, va)
        && (hit.writable || !write)
        && (hit.executable || how != Access::Fetch)
    {
        return Ok(hit.mfn);
    }
    let mut table = root();
    let mut writable = true;
    let mut executable = true;
    let mut global = false;
    for level in (1..=4u32).rev() {
        assert!(is_ram(table), "the MMU walks table {table}, which is no RAM");
        let index = (va.0 >> (12 + 9 * (level - 1)) & 511) as usize;
        // SAFETY: bounds checked above; page tables are only seen as atomics.
        let slot = unsafe { phys::entry(table, index) };
        let entry = slot.load(Ordering::SeqCst);
        writable &= entry & RW != 0;
        executable &= entry & NX == 0;
        let leaf = level == 1;
        if entry & PRESENT == 0 {
            return Err(asked);
        }
        if !leaf && entry & PSE != 0 {
            return Err(asked | CODE_PRESENT | CODE_RESERVED);
        }
        if entry & USER == 0 || (write && !writable) || (how == Access::Fetch && !executable) {
            return Err(asked | CODE_PRESENT);
        }
        let seen = if leaf && write { ACCESSED | DIRTY } else { ACCESSED };
        slot.fetch_or(seen, Ordering::SeqCst);
        global = entry & GLOBAL != 0;
        table = Mfn((entry & ADDR) >> 12);
    }
    // As hardware: without D set a cached translation lets no write through.
    let cached = tlb::Cached { mfn: table, writable: write, executable, global, serial: 0 };
    tlb::insert(this, va, cached);
    Ok(table)
}

/// Lets ring 3 touch one byte, as a guest's instruction would. What is refused is recorded in CR2 too.
///
/// # Errors
/// The page fault that the CPU takes.
pub fn access(va: GuestVa, how: Access) -> Result<Mfn, PageFault> {
    translate(va, how).map_err(|code| {
        crate::area::area().cr2.store(va.0, Ordering::Relaxed);
        PageFault { address: va, code }
    })
}

/// Calls `each` with a pointer and a range of the buffer for every page that the range touches.
fn pages(
    va: GuestVa,
    len: usize,
    how: Access,
    mut each: impl FnMut(*mut u8, core::ops::Range<usize>),
) -> Result<(), GuestFault> {
    if !va.range_ok(len as u64) || (len > 0 && !is_ram(root())) {
        return Err(GuestFault);
    }
    let mut done = 0;
    while done < len {
        let at = GuestVa(va.0.wrapping_add(done as u64));
        let offset = at.0 as usize % PAGE_SIZE;
        let part = (PAGE_SIZE - offset).min(len - done);
        let mfn = translate(at, how).map_err(|_| GuestFault)?;
        if !is_ram(mfn) {
            // A device: nothing is simulated behind its registers.
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
    if let Some(reads) = locked(&READS).as_mut().filter(|_| !dst.is_empty()) {
        reads.push((va.0, dst.len()));
    }
    pages(va, dst.len(), Access::Read, |ptr, range| {
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
    pages(va, src.len(), Access::Write, |ptr, range| {
        let part = &src[range];
        // SAFETY: as in `copy_from`, the other way round.
        unsafe { core::ptr::copy_nonoverlapping(part.as_ptr(), ptr, part.len()) }
    })
}

/// Copies words to the current guest address space.
///
/// # Errors
/// As [`copy_to`].
pub fn write_words<const N: usize>(dst: GuestVa, words: &[u64; N]) -> Result<(), GuestFault> {
    copy_to(dst, zerocopy::IntoBytes::as_bytes(words))
}

/// Reads a whole value.
///
/// # Errors
/// As [`copy_from`].
pub fn read<T: zerocopy::FromBytes + zerocopy::IntoBytes>(src: GuestVa) -> Result<T, GuestFault> {
    let mut value = T::new_zeroed();
    copy_from(value.as_mut_bytes(), src)?;
    Ok(value)
}

/// Reads 8 bytes.
///
/// # Errors
/// As [`copy_from`].
pub fn read_u64(src: GuestVa) -> Result<u64, GuestFault> {
    let mut bytes = [0; 8];
    copy_from(&mut bytes, src)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Writes 8 bytes.
///
/// # Errors
/// As [`copy_to`].
pub fn write_u64(dst: GuestVa, value: u64) -> Result<(), GuestFault> {
    copy_to(dst, &value.to_le_bytes())
}
