// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine-to-physical table: for each machine frame the owner's pseudo-physical number, all ones if it has none.
//!
//! Guests read it directly; it is only as true as the frame's owner wants it to be, and the hypervisor decides nothing
//! by it.
#![expect(unsafe_code, reason = "the table is an array at an address given at start")]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use hypercalls::{DomId, Mfn, Pfn};

/// What an entry without a number reads as.
pub const INVALID: u64 = u64::MAX;

/// Entries in a frame of the table.
const ENTRIES_PER_FRAME: u64 = 512;

static BASE: AtomicUsize = AtomicUsize::new(0);
static END: AtomicU64 = AtomicU64::new(0);
/// The first of the frames in which the table is; 0 until they are published.
static FIRST: AtomicU64 = AtomicU64::new(0);

/// Sets where the writable view of the table is and how many entries it has, and makes all invalid.
///
/// # Safety
/// `entries` words at `base` are mapped, aligned, used by nothing else, and stay so for ever.
pub(crate) unsafe fn init(base: usize, entries: u64) {
    // SAFETY: the caller's promise; nobody reads the table before `END` says that it is there.
    unsafe { core::ptr::write_bytes(base as *mut u64, 0xff, entries as usize) };
    BASE.store(base, Ordering::Release);
    END.store(entries, Ordering::Release);
    FIRST.store(0, Ordering::Release);
}

fn entry(mfn: Mfn) -> Option<&'static AtomicU64> {
    if mfn.0 >= END.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: below the end; `init`'s caller promised that many words for ever, and they are only seen as atomics.
    Some(unsafe { &*(BASE.load(Ordering::Relaxed) as *const AtomicU64).add(mfn.0 as usize) })
}

/// Returns the frame's number in its owner's space.
pub fn get(mfn: Mfn) -> Option<Pfn> {
    entry(mfn).map(|e| e.load(Ordering::Relaxed)).filter(|v| *v != INVALID).map(Pfn)
}

/// Sets a frame's number; a frame that the table does not cover has none.
pub fn set(mfn: Mfn, pfn: Pfn) {
    if let Some(e) = entry(mfn) {
        e.store(pfn.0, Ordering::Relaxed);
    }
}

/// Makes a frame's entry invalid.
pub fn clear(mfn: Mfn) {
    set(mfn, Pfn(INVALID));
}

/// Lets privileged domains map the frames in which the table is, `count` from `first` on, read-only. What is behind its last
/// entry reads as invalid.
pub fn publish(first: Mfn, count: u64) {
    for index in entries()..count * ENTRIES_PER_FRAME {
        let frame = first.add(index / ENTRIES_PER_FRAME);
        crate::entry::entry(frame, (index % ENTRIES_PER_FRAME) as usize).store(INVALID, Ordering::Relaxed);
    }
    (0..count).for_each(|n| crate::shared::share(first.add(n), DomId::XEN, crate::Share::ReadOnly));
    FIRST.store(first.0, Ordering::Release);
}

/// Returns the frame that holds entry `index`, once they are [published](publish).
pub fn frame_of(index: u64) -> Option<Mfn> {
    let first = FIRST.load(Ordering::Acquire);
    (first != 0 && index < entries()).then(|| Mfn(first).add(index / ENTRIES_PER_FRAME))
}

/// Returns how many entries the table has.
pub fn entries() -> u64 {
    END.load(Ordering::Relaxed)
}
