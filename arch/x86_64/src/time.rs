// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clock, under the names of the machine interface.

pub use crate::platform::clock::{TscScale, delay_ns, now, scale, tsc, tsc_at};

/// Returns the time since boot, in ns, at which the TSC read this.
#[inline]
pub fn from_tsc(tsc: u64) -> u64 {
    crate::platform::clock::ns_at(tsc)
}

/// True when the TSC runs at one rate for ever, in step on all CPUs.
pub fn tsc_is_stable() -> bool {
    crate::platform::clock::tsc_is_invariant()
}

/// Returns once the time, in ns since boot, has come.
pub fn wait_until(deadline_ns: u64) {
    while now() < deadline_ns {
        core::hint::spin_loop();
    }
}
