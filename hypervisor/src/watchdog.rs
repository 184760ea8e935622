// SPDX-License-Identifier: MIT OR Apache-2.0
//! Watchdogs of domains: one that is not put off in time shuts its domain down.
//!
//! A domain has two. Both use one timer, vCPU 0's, which is armed for the earlier; what counts is what is written here, so
//! a timer that fires without need does nothing.

use hypercalls::sched::ShutdownReason;
use hypercalls::{Errno, Result};

use crate::domain::Domain;
use crate::timers::{self, Kind};

/// How many a domain has.
const COUNT: usize = 2;

/// When the watchdogs that are in use bite, in ns of system time.
pub type Watchdogs = [Option<u64>; COUNT];

/// Sets a watchdog to so many seconds from now. Number 0 takes the next free one, whose number is returned; any other number
/// is one in use, which 0 seconds give up.
///
/// # Errors
/// `EINVAL` for a number that is not in use, `ENOSPC` when all are.
pub fn set(domain: &Domain, number: u32, seconds: u32) -> Result<i64> {
    let deadline = arch::time::now().saturating_add(u64::from(seconds) * 1_000_000_000);
    let mut all = domain.watchdogs.lock();
    let result = match number.checked_sub(1) {
        None => {
            let free = all.iter().position(Option::is_none).ok_or(Errno::ENOSPC)?;
            all[free] = Some(deadline);
            free as i64 + 1
        }
        Some(index) => {
            let used = all.get_mut(index as usize).filter(|at| at.is_some()).ok_or(Errno::EINVAL)?;
            *used = (seconds != 0).then_some(deadline);
            0
        }
    };
    let first = first(&all);
    drop(all);
    arm(domain, first);
    Ok(result)
}

fn first(all: &Watchdogs) -> Option<u64> {
    all.iter().flatten().min().copied()
}

fn arm(domain: &Domain, first: Option<u64>) {
    let Some(vcpu) = domain.vcpus.first() else { return };
    match first {
        Some(deadline) => timers::arm(vcpu, Kind::Watchdog, deadline),
        None => timers::stop(vcpu, Kind::Watchdog),
    }
}

/// A timer may be early by the rounding of its deadline, in ns.
const EARLY: u64 = 1000;

/// Sees whether a watchdog bites; if not, waits for the next that might.
#[cold]
pub fn look(domain: &Domain) {
    let Some(first) = first(&domain.watchdogs.lock()) else { return };
    if first > arch::time::now() + EARLY {
        arm(domain, Some(first));
    } else if let Some(reason) = domain.shut_down(ShutdownReason::WATCHDOG) {
        log::warn!("d{}: its watchdog bites", domain.id.0);
        crate::crash::ended(domain, reason);
    }
}
