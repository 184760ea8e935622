// SPDX-License-Identifier: MIT OR Apache-2.0
//! When an interrupt comes too often.

/// The period over which interrupts are counted, and for which a line that exceeds the limit is held back.
pub const PERIOD_NS: u64 = 10_000_000;
/// How many may come in a period.
const LIMIT: u32 = 10_000;
/// From how many on it is asked whether they are handled at all.
const SUSPICIOUS: u32 = 100;
/// For how many one counts that finds the one before it unhandled.
const UNHANDLED: u32 = 50;

/// Counts the interrupts of one line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Storm {
    since: u64,
    count: u32,
    /// How often the limit was exceeded.
    times: u32,
}

impl Storm {
    /// Counts one; true when the limit is exceeded and the line should be held back for [`PERIOD_NS`]. `is_unhandled` says
    /// whether nobody has taken notice of the one before.
    #[inline]
    pub fn count(&mut self, now: u64, is_unhandled: impl FnOnce() -> bool) -> bool {
        if now.wrapping_sub(self.since) >= PERIOD_NS {
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
        if self.count > SUSPICIOUS && is_unhandled() {
            self.count += UNHANDLED - 1;
        }
        if self.count <= LIMIT {
            return false;
        }
        (self.count, self.times) = (0, self.times.saturating_add(1));
        true
    }

    /// True when it should be on the log: the first times, then ever more seldom.
    pub fn is_worth_a_line(&self) -> bool {
        self.times.is_power_of_two()
    }

    /// Returns how often the limit was exceeded.
    pub fn times(&self) -> u32 {
        self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until_held(storm: &mut Storm, step: u64, unhandled: bool) -> Option<u32> {
        (1..100_000).find(|n| storm.count(u64::from(*n) * step, || unhandled))
    }

    #[test]
    fn only_what_comes_too_often_is_held() {
        assert_eq!(until_held(&mut Storm::default(), 1100, false), None, "900 a millisecond are a busy device");
        assert_eq!(until_held(&mut Storm::default(), 100, false), Some(LIMIT + 1));
        let unhandled = until_held(&mut Storm::default(), 100, true).expect("held");
        assert!(unhandled < SUSPICIOUS + LIMIT / UNHANDLED + 2, "{unhandled}");
        assert_eq!(until_held(&mut Storm::default(), PERIOD_NS / 50, true), None, "50 a period are no storm");
    }

    #[test]
    fn lines_on_the_log_get_fewer() {
        let mut storm = Storm::default();
        let mut lines = 0;
        for n in 0..1_000_000u64 {
            if storm.count(n, || false) && storm.is_worth_a_line() {
                lines += 1;
            }
        }
        assert!(storm.times() >= 90 && lines == 7, "{storm:?}, {lines}");
    }
}
