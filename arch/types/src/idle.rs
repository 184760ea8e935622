// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a CPU has been idle, for whoever asks.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Set while the CPU is idle; the rest is then the total minus the time at which it became so.
const IDLE: u64 = 1 << 63;

/// The idle time of one CPU, in ns. Only that CPU changes it; any may read it, and no reading is below an earlier one.
#[derive(Debug, Default)]
pub struct IdleClock(AtomicU64);

impl IdleClock {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The CPU becomes idle, if it is not already.
    pub fn enter(&self, now: u64) {
        let total = self.0.load(SeqCst);
        if total & IDLE == 0 {
            self.0.store(total.wrapping_sub(now) | IDLE, SeqCst);
        }
    }

    /// The CPU has something to do, if it had not already.
    pub fn leave(&self, now: u64) {
        let word = self.0.load(SeqCst);
        if word & IDLE != 0 {
            self.0.store(word.wrapping_add(now) & !IDLE, SeqCst);
        }
    }

    /// Returns the idle time so far.
    pub fn total(&self, now: u64) -> u64 {
        let word = self.0.load(SeqCst);
        if word & IDLE == 0 { word } else { word.wrapping_add(now) & !IDLE }
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.0.store(0, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_adds_up() {
        let clock = IdleClock::new();
        assert_eq!(clock.total(100), 0);
        clock.leave(150);
        clock.enter(1_000);
        clock.enter(1_100);
        assert_eq!(clock.total(1_500), 500);
        clock.leave(2_000);
        clock.leave(2_500);
        assert_eq!(clock.total(9_000), 1_000);
        clock.enter(10_000);
        clock.leave(10_001);
        assert_eq!(clock.total(20_000), 1_001);
    }
}
