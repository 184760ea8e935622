// SPDX-License-Identifier: MIT OR Apache-2.0
//! A clock that moves only when told to: one TSC tick is one nanosecond.

pub use arch_types::TscScale;
use core::sync::atomic::{AtomicU64, Ordering};

static NOW: AtomicU64 = AtomicU64::new(0);

/// Returns the time-stamp counter.
pub fn tsc() -> u64 {
    now()
}

/// Returns the value of the time-stamp counter at a time since boot, in ns.
pub fn tsc_at(ns: u64) -> u64 {
    ns
}

/// Returns nanoseconds since boot.
pub fn now() -> u64 {
    NOW.load(Ordering::SeqCst)
}

/// Returns the scale of the counter: 1 GHz.
pub fn scale() -> TscScale {
    TscScale { mul: 1 << 31, shift: 1, khz: 1_000_000 }
}

/// Returns the time since boot, in ns, at which the TSC read this.
pub fn from_tsc(tsc: u64) -> u64 {
    tsc
}

/// True when the TSC runs at one rate for ever, in step on all CPUs.
pub fn tsc_is_stable() -> bool {
    true
}

/// Returns once the time has come: the clock is moved on to it.
pub fn wait_until(deadline_ns: u64) {
    NOW.fetch_max(deadline_ns, Ordering::SeqCst);
}

/// Returns when so much time has passed: the clock is moved on.
pub fn delay_ns(ns: u64) {
    advance(ns);
}

/// Moves the clock on.
pub fn advance(ns: u64) {
    NOW.fetch_add(ns, Ordering::SeqCst);
}

pub(crate) fn reset() {
    NOW.store(1_000_000, Ordering::SeqCst);
}
