// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine memory through the direct map.
#![expect(unsafe_code, reason = "turns machine addresses into pointers")]

use core::sync::atomic::AtomicU64;

use hypercalls::addr::PAGE_SIZE;
use hypercalls::{Maddr, Mfn};

use crate::{features, layout};

/// Returns the linear address at which machine address 0 is mapped.
#[inline(always)]
pub const fn directmap() -> usize {
    layout::DIRECT_MAP as usize
}

/// Returns where the frame is mapped.
///
/// # Safety
/// The frame must be RAM that the direct map covers, and what is done through the pointer must not
/// clash with references held to the same memory.
#[inline(always)]
pub const unsafe fn frame_ptr(mfn: Mfn) -> *mut u8 {
    directmap().wrapping_add((mfn.0 as usize) << 12) as *mut u8
}

/// Returns a view of one 8-byte entry of a frame.
///
/// # Safety
/// As [`frame_ptr`]; nobody may hold a non-atomic reference to the entry.
#[inline(always)]
pub unsafe fn entry(mfn: Mfn, index: usize) -> &'static AtomicU64 {
    // SAFETY: the caller says that the frame is mapped RAM without plain references; 512 entries fit
    // a frame, so the masked index stays in it, and 8-byte alignment follows from both terms.
    unsafe { &*frame_ptr(mfn).cast::<AtomicU64>().add(index & 511) }
}

/// Fills a frame with zeros.
///
/// # Safety
/// As [`frame_ptr`].
pub unsafe fn zero(mfn: Mfn) {
    // SAFETY: the caller's promise; a frame has PAGE_SIZE bytes.
    unsafe { core::ptr::write_bytes(frame_ptr(mfn), 0, PAGE_SIZE) }
}

/// Copies bytes, upwards, from one place in machine memory to another; the two may overlap.
///
/// # Safety
/// As [`frame_ptr`] for all frames that the two ranges touch. What guests write there meanwhile may be torn.
#[inline]
pub unsafe fn copy_bytes(dst: Maddr, src: Maddr, bytes: usize) {
    let from = directmap() + src.0 as usize;
    let to = directmap() + dst.0 as usize;
    // SAFETY: both ranges are RAM that no plain reference points into, by the caller; a string move is no access of
    // the compiler's, so that guests may write there at the same time. The direction flag is clear in all our code.
    unsafe {
        core::arch::asm!("rep movsq", "mov ecx, {rest:e}", "rep movsb",
            rest = in(reg) bytes & 7, inout("rcx") bytes / 8 => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
}

/// Returns the width of machine addresses, in bits.
pub fn maddr_bits() -> u32 {
    features::get().maddr_bits
}

/// True when page-table entries may say no-execute.
pub fn has_nx() -> bool {
    features::get().nx
}

/// Writes a frame's cache lines back to memory and drops them, after it was mapped around the caches.
pub fn flush_cache(mfn: Mfn) {
    // SAFETY: only the address is formed here; CLFLUSH changes no content.
    let start = unsafe { frame_ptr(mfn) } as usize;
    for line in (start..start + PAGE_SIZE).step_by(64) {
        // SAFETY: CLFLUSH of a mapped line has no effect that a program can see but on memory types.
        unsafe { core::arch::asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: a fence.
    unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
}
