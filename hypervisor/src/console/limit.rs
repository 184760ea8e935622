// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many lines a domain may cause: [`BURST`] at once, and one more each [`PERIOD_NS`].
//!
//! Domains share a few buckets by number, so the memory is bounded however many there are. All zero is a full allowance.

/// How many lines may come at once.
const BURST: u32 = 24;
/// How long it takes until one more may come.
const PERIOD_NS: u64 = 250_000_000;
const BUCKETS: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Lines that count now.
    used: u32,
    /// Lines that were left out since the last one that was not.
    dropped: u32,
    /// When `used` was brought up to date.
    since: u64,
}

/// The allowances of all domains.
#[derive(Debug)]
pub(super) struct Limiter([Bucket; BUCKETS]);

impl Limiter {
    pub(super) const fn new() -> Self {
        Self([Bucket { used: 0, dropped: 0, since: 0 }; BUCKETS])
    }

    /// Asks whether a line of the domain may appear; says how many before it did not.
    pub(super) fn admit(&mut self, domain: u16, now: u64) -> Option<u32> {
        let bucket = self.0.get_mut(usize::from(domain) % BUCKETS)?;
        let periods = now.saturating_sub(bucket.since) / PERIOD_NS;
        if periods > 0 {
            bucket.used = bucket.used.saturating_sub(periods.min(u64::from(BURST)) as u32);
            bucket.since = now;
        }
        if bucket.used == BURST {
            bucket.dropped = bucket.dropped.saturating_add(1);
            return None;
        }
        bucket.used += 1;
        Some(core::mem::take(&mut bucket.dropped))
    }
}

/// Returns the domain that a message is about: `d<number>` begins its target or its text.
pub(super) fn domain_of(target: &str, text: &str) -> Option<u16> {
    number_after_d(target).or_else(|| number_after_d(text))
}

fn number_after_d(text: &str) -> Option<u16> {
    let rest = text.strip_prefix('d')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, rest) = rest.split_at_checked(end)?;
    let ends = rest.is_empty() || rest.starts_with([':', ' ', 'v']);
    number.parse().ok().filter(|_| ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_trickle() {
        let mut limiter = Limiter::new();
        let now = 5_000_000_000;
        for _ in 0..BURST {
            assert_eq!(limiter.admit(3, now), Some(0));
        }
        for _ in 0..10 {
            assert_eq!(limiter.admit(3, now + 1), None);
        }
        assert_eq!(limiter.admit(4, now), Some(0), "another domain is not affected");
        assert_eq!(limiter.admit(3, now + PERIOD_NS), Some(10));
        assert_eq!(limiter.admit(3, now + PERIOD_NS), None);
        for _ in 0..BURST {
            assert!(limiter.admit(3, now + 1000 * PERIOD_NS).is_some());
        }
        assert_eq!(limiter.admit(3, 0), None, "a clock that goes back grants nothing");
    }

    #[test]
    fn whose_message() {
        assert_eq!(domain_of("d12", "text"), Some(12));
        assert_eq!(domain_of("hypervisor::ops", "d0v1: text"), Some(0));
        assert_eq!(domain_of("hypervisor::ops", "d7 has shut down"), Some(7));
        assert_eq!(domain_of("hypervisor::ops", "dom0 has shut down"), None);
        assert_eq!(domain_of("hypervisor::ops", "d"), None);
        assert_eq!(domain_of("hypervisor::ops", "d99999: x"), None);
        assert_eq!(domain_of("hypervisor::ops", "d1x: x"), None);
    }
}
