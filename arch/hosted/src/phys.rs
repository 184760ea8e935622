// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine memory: one anonymous mapping, in which machine address 0 is the first byte.
//!
//! The mapping is reserved once, [`MAX_BYTES`] long, and never moves or goes away; only its first [`size`] bytes are
//! RAM of the machine that runs now. So a pointer into it stays valid for the life of the process.
#![expect(unsafe_code, reason = "machine memory is raw memory")]

use crate::area::locked;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use hypercalls::addr::PAGE_SIZE;
use hypercalls::{Maddr, Mfn};
use std::sync::Mutex;
use std::vec::Vec;

/// The most memory a hosted machine may have, in bytes.
pub const MAX_BYTES: usize = 4 << 30;

static BASE: AtomicUsize = AtomicUsize::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// Reserves the memory (first call) or empties it (later ones), and makes `bytes` of it RAM.
pub(crate) fn init(bytes: usize) {
    assert!(bytes <= MAX_BYTES, "a hosted machine has at most {MAX_BYTES} bytes");
    let base = BASE.load(Ordering::Relaxed);
    if base != 0 {
        // SAFETY: the range is ours alone (mapped below) and is private anonymous memory, which reads as zero afterwards.
        let rc = unsafe { libc::madvise(base as *mut _, SIZE.load(Ordering::Relaxed), libc::MADV_DONTNEED) };
        assert_eq!(rc, 0, "madvise of the machine's memory");
    } else {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let at = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                MAX_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "mmap of the machine's memory");
        BASE.store(at as usize, Ordering::Relaxed);
    }
    SIZE.store(bytes, Ordering::Relaxed);
}

/// Returns how many bytes of RAM the machine has, from machine address 0.
pub fn size() -> usize {
    SIZE.load(Ordering::Relaxed)
}

/// Returns the linear address at which machine address 0 is mapped.
#[inline]
pub fn directmap() -> usize {
    BASE.load(Ordering::Relaxed)
}

/// Returns a pointer to the frame's first byte.
///
/// # Safety
/// The frame is RAM of this machine.
#[inline]
pub unsafe fn frame_ptr(mfn: Mfn) -> *mut u8 {
    debug_assert!((mfn.0 as usize) < size() / PAGE_SIZE, "frame {mfn} is no RAM");
    (directmap() + mfn.0 as usize * PAGE_SIZE) as *mut u8
}

/// Returns entry `index` of the frame seen as a page table.
///
/// # Safety
/// The frame is RAM that is not in use as Rust memory; `index` is below 512.
#[inline]
pub unsafe fn entry(mfn: Mfn, index: usize) -> &'static AtomicU64 {
    debug_assert!(index < 512);
    // SAFETY: RAM frame (caller), 8-byte aligned and in bounds by the index; the mapping is never unmapped.
    unsafe { &*frame_ptr(mfn).cast::<AtomicU64>().add(index) }
}

/// Zeroes the frame.
///
/// # Safety
/// The frame is RAM that no Rust reference points into.
pub unsafe fn zero(mfn: Mfn) {
    // SAFETY: a whole frame of RAM, by the caller.
    unsafe { core::ptr::write_bytes(frame_ptr(mfn), 0, PAGE_SIZE) }
}

/// Copies bytes, upwards, from one place in machine memory to another; the two may overlap.
///
/// # Safety
/// Both ranges are RAM that no Rust reference points into.
pub unsafe fn copy_bytes(dst: Maddr, src: Maddr, bytes: usize) {
    debug_assert!((dst.0.max(src.0) as usize).saturating_add(bytes) <= size(), "a copy leaves RAM");
    let base = directmap() as *mut u8;
    for n in 0..bytes {
        // SAFETY: RAM, by the caller; byte by byte, as the machine's string move looks from outside.
        unsafe { *base.add(dst.0 as usize + n) = *base.add(src.0 as usize + n) }
    }
}

/// Returns the width of a machine address, in bits.
pub fn maddr_bits() -> u32 {
    46
}

/// True when entries may carry the no-execute bit.
pub fn has_nx() -> bool {
    true
}

/// Frames whose cache lines were written back.
static FLUSHED: Mutex<Vec<Mfn>> = Mutex::new(Vec::new());

/// Writes the frame's cache lines back to memory; caches are coherent here, so that it was done is only noted.
pub fn flush_cache(mfn: Mfn) {
    locked(&FLUSHED).push(mfn);
}

/// Returns the frames whose cache lines were written back since it was last asked.
pub fn take_flushed_caches() -> Vec<Mfn> {
    core::mem::take(&mut *locked(&FLUSHED))
}
