// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a way of scheduling must be able to do, for the CPUs and units of one pool.
//!
//! Where a CPU, or a set of them, is returned, those shall call `schedule`.

use core::fmt::Debug;

use crate::{Affinity, Cpu, CpuSet, Decision, GroupId, Params, Place, UnitId};

pub(crate) trait Policy: Debug + Send {
    /// Decides what a CPU runs from now on, having charged the unit that it ran.
    fn schedule(&mut self, now: u64, cpu: Cpu) -> Decision;

    /// Makes a unit runnable.
    fn wake(&mut self, now: u64, unit: UnitId) -> Option<Cpu>;

    /// Returns when a CPU must decide that [`Policy::wake`] has just named, if that is not yet: it need only be reminded then.
    /// Other CPUs that shall decide are added to `poke`.
    fn postpone(&mut self, _now: u64, _cpu: Cpu, _poke: &mut CpuSet) -> Option<u64> {
        None
    }

    /// Makes a unit sleep. Returns the CPU that still runs it.
    fn sleep(&mut self, now: u64, unit: UnitId) -> Option<Cpu>;

    /// Takes from a unit that sleeps what is kept for it, since it will sleep for long.
    fn release(&mut self, now: u64, unit: UnitId) -> Option<Cpu>;

    /// True when a unit waits for this CPU while another one runs there.
    fn is_wanted(&self, cpu: Cpu) -> bool;

    /// Lets a running unit give way once: the next decision of its CPU (which the caller makes at
    /// once) prefers any other unit that waits there.
    fn yield_now(&mut self, now: u64, unit: UnitId);

    /// Adds a CPU, which shall call `schedule` next. Units that waited for such a CPU wait for it now.
    fn cpu_online(&mut self, now: u64, cpu: Cpu);

    /// Takes a CPU away.
    fn cpu_offline(&mut self, now: u64, cpu: Cpu) -> CpuSet;

    /// Adds a unit, asleep, to a group. A group that has no other unit begins with the default
    /// weight and no cap. Does nothing for a unit that exists.
    fn add(&mut self, unit: UnitId, group: GroupId, affinity: Affinity);

    /// Removes a unit, and with the last one its group. Returns the CPU that still runs it.
    fn remove(&mut self, unit: UnitId) -> Option<Cpu>;

    /// Sets where a unit may and would like to run.
    fn set_affinity(&mut self, now: u64, unit: UnitId, affinity: Affinity) -> CpuSet;

    /// Returns a unit's affinity.
    fn affinity(&self, unit: UnitId) -> Option<Affinity>;

    /// Sets a group's weight, and its cap in percent of one CPU (0 for none).
    fn set_weight_cap(&mut self, now: u64, group: GroupId, weight: u32, cap_percent: u32) -> CpuSet;

    /// Returns a group's weight and cap, where there is such a thing.
    fn weight_cap(&self, group: GroupId) -> Option<(u32, u32)>;

    /// Returns the times in force.
    fn params(&self) -> Params;

    /// Sets new times, which hold from each CPU's next decision on.
    fn set_params(&mut self, params: Params);

    /// Returns how long a unit has run, in nanoseconds, up to now.
    fn runtime(&self, now: u64, unit: UnitId) -> u64;

    /// Returns where a unit is.
    fn whereabouts(&self, unit: UnitId) -> Option<Place>;

    /// Returns the unit that a CPU runs.
    fn current(&self, cpu: Cpu) -> Option<UnitId>;
}
