// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups: their weight, and the budget by which a cap is kept.
//!
//! A capped group gets its share of each period at the period's beginning and loses what it did not
//! use. What it used too much is a debt that later periods pay, so the cap holds in the long run.

use crate::credit::DEFAULT_WEIGHT;

/// The shortest time worth running for.
const MIN_GRANT_NS: u64 = 50_000;

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) weight: u32,
    /// Percent of one CPU, 0 for no cap.
    cap_percent: u32,
    /// What is left of this period, in nanoseconds; negative for a debt.
    budget: i64,
    /// The number of the period that the budget is for.
    period: u64,
    /// How many units belong to it.
    pub(crate) members: u32,
    /// How many of its units run right now.
    pub(crate) running: u32,
}

impl Default for Group {
    fn default() -> Self {
        Self { weight: DEFAULT_WEIGHT, cap_percent: 0, budget: 0, period: 0, members: 0, running: 0 }
    }
}

impl Group {
    pub(crate) fn cap_percent(&self) -> u32 {
        self.cap_percent
    }

    /// Sets a new cap and begins with a full budget.
    pub(crate) fn set_cap(&mut self, now: u64, cap_percent: u32, period_ns: u64) {
        self.cap_percent = cap_percent;
        self.period = now / period_ns.max(1);
        self.budget = self.quota(period_ns);
    }

    /// Fills the budget up for the periods that began since it was last looked at.
    pub(crate) fn refill(&mut self, now: u64, period_ns: u64) {
        if self.cap_percent == 0 {
            return;
        }
        let period = now / period_ns.max(1);
        let passed = period.saturating_sub(self.period);
        if passed == 0 {
            return;
        }
        let quota = self.quota(period_ns);
        let added = quota.saturating_mul(i64::try_from(passed).unwrap_or(i64::MAX));
        self.budget = self.budget.saturating_add(added).min(quota);
        self.period = period;
    }

    /// Takes what a unit has run from the budget.
    pub(crate) fn spend(&mut self, ns: u64) {
        if self.cap_percent != 0 {
            self.budget = self.budget.saturating_sub(i64::try_from(ns).unwrap_or(i64::MAX));
        }
    }

    /// True when its units may run.
    pub(crate) fn has_budget(&self) -> bool {
        self.cap_percent == 0 || self.budget > 0
    }

    /// Returns how long one of its units may run before the budget must be looked at again.
    pub(crate) fn grant(&self) -> Option<u64> {
        if self.cap_percent == 0 {
            return None;
        }
        let left = u64::try_from(self.budget).unwrap_or(0);
        Some((left / u64::from(self.running.max(1))).max(MIN_GRANT_NS))
    }

    /// Returns when the budget will be positive again.
    pub(crate) fn ready_at(&self, period_ns: u64) -> u64 {
        let quota = self.quota(period_ns).unsigned_abs().max(1);
        let debt = self.budget.min(0).unsigned_abs();
        let periods = self.period.saturating_add(debt / quota + 1);
        periods.saturating_mul(period_ns)
    }

    fn quota(&self, period_ns: u64) -> i64 {
        let quota = u128::from(period_ns) * u128::from(self.cap_percent) / 100;
        i64::try_from(quota).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 10_000_000;

    #[test]
    fn a_debt_is_paid_before_the_group_runs_again() {
        let mut group = Group::default();
        group.set_cap(0, 10, PERIOD);
        assert!(group.has_budget());
        group.spend(2_500_000);
        assert!(!group.has_budget());
        let ready = group.ready_at(PERIOD);
        assert_eq!(ready, 2 * PERIOD);
        group.refill(ready - 1, PERIOD);
        assert!(!group.has_budget());
        group.refill(ready, PERIOD);
        assert!(group.has_budget());
    }

    #[test]
    fn what_is_not_used_is_lost() {
        let mut group = Group::default();
        group.set_cap(0, 50, PERIOD);
        group.refill(100 * PERIOD, PERIOD);
        assert_eq!(group.grant(), Some(PERIOD / 2));
    }
}
