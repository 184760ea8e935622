// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time: the TSC, and system time computed from `vcpu_time_info` as the ABI has it.

use crate::events;
use core::sync::atomic::{Ordering, fence};

/// A copy of `vcpu_time_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct TimeInfo {
    pub version: u32,
    pub pad: u32,
    pub tsc_timestamp: u64,
    pub system_time: u64,
    pub mul: u32,
    pub shift: i8,
    pub flags: u8,
}

/// Reads the time stamp counter.
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { core::arch::asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Reads this vCPU's `vcpu_time_info` in one piece.
pub fn info() -> TimeInfo {
    let source = events::time_info() as *const TimeInfo;
    loop {
        // SAFETY: points into the shared info page; the version tells whether the copy is whole.
        let copy = unsafe { source.read_volatile() };
        fence(Ordering::SeqCst);
        // SAFETY: as above.
        let version = unsafe { (source as *const u32).read_volatile() };
        if copy.version == version && version & 1 == 0 {
            return copy;
        }
    }
}

impl TimeInfo {
    /// Returns the nanoseconds in `ticks` of the TSC.
    pub fn scale(&self, ticks: u64) -> u64 {
        let ticks = if self.shift >= 0 { ticks << self.shift } else { ticks >> -self.shift };
        ((u128::from(ticks) * u128::from(self.mul)) >> 32) as u64
    }
    /// Returns the system time at a TSC value.
    pub fn at(&self, tsc: u64) -> u64 {
        self.system_time + self.scale(tsc.wrapping_sub(self.tsc_timestamp))
    }
}

/// Returns the system time in nanoseconds.
pub fn now() -> u64 {
    info().at(tsc())
}
