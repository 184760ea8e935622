// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUs that become too hot: told on the log, but by each CPU no more than once in a while.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use arch::{CpuId, MAX_CPUS};

/// How long a CPU that has told of its heat does not tell again.
const REST_NS: u64 = 5_000_000_000;

/// What one CPU has told.
struct Told {
    hot: AtomicBool,
    /// Before this time it does not tell again that it is hot.
    rests_until: AtomicU64,
}

static TOLD: [Told; MAX_CPUS] =
    [const { Told { hot: AtomicBool::new(false), rests_until: AtomicU64::new(0) } }; MAX_CPUS];

impl Told {
    /// Decides whether it is news that the CPU is hot or is not. Only that CPU calls.
    fn is_news(&self, hot: bool, now: u64) -> bool {
        if self.hot.load(Relaxed) == hot || hot && now < self.rests_until.load(Relaxed) {
            return false;
        }
        self.hot.store(hot, Relaxed);
        if hot {
            self.rests_until.store(now + REST_NS, Relaxed);
        }
        true
    }
}

/// Handles an interrupt of this CPU's thermal sensor.
pub fn came(here: CpuId, hot: bool, now: u64) {
    if !TOLD[usize::from(here.0) % MAX_CPUS].is_news(hot, now) {
        return;
    }
    if hot {
        log::warn!("CPU {}: too hot, it slows down", here.0);
    } else {
        log::info!("CPU {}: cool enough again", here.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_is_told_once_in_a_while_and_its_end_once() {
        let told = Told { hot: AtomicBool::new(false), rests_until: AtomicU64::new(0) };
        assert!(!told.is_news(false, 0), "it never was hot");
        assert!(told.is_news(true, 1));
        assert!(!told.is_news(true, 2));
        assert!(told.is_news(false, 3));
        // It goes up and down.
        for now in 4..100 {
            assert!(!told.is_news(now % 2 == 0, now));
        }
        assert!(told.is_news(true, 1 + REST_NS));
        assert!(told.is_news(false, 2 + REST_NS));
    }
}
