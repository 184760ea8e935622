// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames as memory: page-table entries and whole-frame operations on frames that are known to be RAM.
//!
//! The one place outside `arch` where a machine frame becomes memory in this crate. Soundness: the direct map covers
//! all RAM for ever; a frame below is RAM by the frame table; entries are only ever seen as atomics; whole frames are
//! only written while no guest and no Rust value uses them.
#![expect(unsafe_code, reason = "machine frames become memory here")]

use core::sync::atomic::AtomicU64;
use hypercalls::Mfn;

/// Returns entry `index % 512` of a frame.
///
/// # Panics
/// In debug builds, if the frame is not RAM.
#[inline]
pub(crate) fn entry(mfn: Mfn, index: usize) -> &'static AtomicU64 {
    debug_assert!(crate::frame::ram(mfn).is_some(), "entry of {mfn}, which is no RAM");
    // SAFETY: callers got the frame number from the frame table or from an entry of a validated table, so it is RAM,
    // and used as guest memory, never as Rust memory; the index is in bounds.
    unsafe { arch::phys::entry(mfn, index & 511) }
}

/// Zeroes a frame of RAM that is between owners.
pub(crate) fn zero(mfn: Mfn) {
    debug_assert!(crate::frame::ram(mfn).is_some());
    // SAFETY: the frame is RAM by the frame table, and its caller just allocated it.
    unsafe { arch::phys::zero(mfn) }
}
