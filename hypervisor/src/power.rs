// SPDX-License-Identifier: MIT OR Apache-2.0
//! Power: switching the machine off as the hardware domain wants it, and what it told of the processors' power states.
//!
//! The latter is kept for whoever asks (and for whoever will use it): idle CPUs halt, and frequencies are the firmware's.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use arch::SleepValues;
use hypercalls::platform_power::{PctRegister, ProcessorCx, ProcessorPx, PsdPackage};
use mm::Lock;

use crate::rank;

/// Switches the machine off by the values of the firmware's registers.
pub fn off_by(values: &SleepValues) -> ! {
    log::info!("dom0 enters sleep state S5: powering off");
    crate::console::flush();
    let _ = crate::stop::others();
    arch::machine::power_off_by(values)
}

/// The idle states of a processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdleStates {
    /// What the tables say of bus mastering and of how the states were found.
    pub flags: u32,
    /// The states.
    pub states: Vec<ProcessorCx>,
}

/// The performance states of a processor. Each part is told by itself and stays when a later call does not tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Performance {
    /// The registers of control and status.
    pub registers: Option<[PctRegister; 2]>,
    /// The states, fastest first.
    pub states: Option<Vec<ProcessorPx>>,
    /// How frequencies depend on each other's, and whose.
    pub dependency: Option<(u32, PsdPackage)>,
    /// The fastest state that may be used now.
    pub limit: Option<u32>,
}

impl Performance {
    fn merge(&mut self, new: Self) {
        self.registers = new.registers.or(self.registers);
        self.dependency = new.dependency.or(self.dependency);
        self.limit = new.limit.or(self.limit);
        if new.states.is_some() {
            self.states = new.states;
        }
    }
}

/// What is known of one processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessorInfo {
    /// Its idle states.
    pub idle: Option<IdleStates>,
    /// Its performance states.
    pub performance: Performance,
}

/// By the CPU's number: at most as many entries as there are CPUs.
static KNOWN: Lock<BTreeMap<u32, ProcessorInfo>> = Lock::new(rank::POWER, BTreeMap::new());

/// Keeps the idle states of a CPU; earlier ones are forgotten.
pub fn keep_idle_states(cpu: u32, states: IdleStates) {
    KNOWN.lock().entry(cpu).or_default().idle = Some(states);
}

/// Keeps what is told of a CPU's performance states.
pub fn keep_performance(cpu: u32, new: Performance) {
    KNOWN.lock().entry(cpu).or_default().performance.merge(new);
}

/// Returns what is known of a CPU.
pub fn known(cpu: u32) -> Option<ProcessorInfo> {
    KNOWN.lock().get(&cpu).cloned()
}
