// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runstates: how long each vCPU ran, waited for a CPU, was blocked, or was off line.

use hypercalls::vcpu::{Runstate as State, RunstateInfo};

/// The account of one vCPU.
#[derive(Debug)]
pub struct Runstate {
    state: State,
    since: u64,
    times: [u64; 4],
}

impl Runstate {
    /// Starts the account off line at `now` (ns).
    pub const fn new(now: u64) -> Self {
        Self { state: State::OFFLINE, since: now, times: [0; 4] }
    }

    /// Changes the state at `now`.
    pub fn enter(&mut self, state: State, now: u64) {
        let spent = now.saturating_sub(self.since);
        if let Some(time) = self.times.get_mut(self.state.0 as usize) {
            *time += spent;
        }
        self.state = state;
        self.since = now;
    }

    /// Returns what it is doing.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Returns the account as the guest sees it at `now`.
    pub fn info(&self, now: u64) -> RunstateInfo {
        let mut time = self.times;
        if let Some(running) = time.get_mut(self.state.0 as usize) {
            *running += now.saturating_sub(self.since);
        }
        RunstateInfo { state: self.state, _pad: 0, state_entry_time: self.since, time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_add_up_to_the_age() {
        let mut r = Runstate::new(100);
        r.enter(State::RUNNABLE, 150);
        r.enter(State::RUNNING, 175);
        r.enter(State::BLOCKED, 275);
        let info = r.info(1275);
        assert_eq!(info.time, [100, 25, 1000, 50]);
        assert_eq!(info.time.iter().sum::<u64>(), 1275 - 100);
    }
}
