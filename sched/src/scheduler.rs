// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scheduler's state and what its caller tells it: CPUs come and go, units come, go, wake, sleep.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::balance::Balance;
use crate::budget::Group;
use crate::credit::{Vtime, charge};
use crate::unit::{CpuState, Unit};
use crate::{Affinity, Cpu, CpuSet, GroupId, MAX_CPUS, Params, Place, UnitId};

/// All that is to be scheduled, and where.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) params: Params,
    pub(crate) cpus: Vec<CpuState>,
    pub(crate) units: BTreeMap<UnitId, Unit>,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) online: CpuSet,
    /// CPUs that idle and have not been poked.
    pub(crate) idle: CpuSet,
    /// CPUs that run a unit for which nobody waits.
    pub(crate) lone: CpuSet,
    pub(crate) balance: Balance,
    stranded: BTreeSet<UnitId>,
    /// The next CPU of `lone` to look at.
    pub(crate) probe: Cpu,
}

impl Scheduler {
    /// Returns a scheduler without CPUs and units.
    pub fn new(params: Params) -> Self {
        Self {
            params,
            cpus: Vec::new(),
            units: BTreeMap::new(),
            groups: BTreeMap::new(),
            online: CpuSet::EMPTY,
            idle: CpuSet::EMPTY,
            lone: CpuSet::EMPTY,
            balance: Balance::default(),
            stranded: BTreeSet::new(),
            probe: Cpu(0),
        }
    }

    /// Returns the times in force.
    pub fn params(&self) -> Params {
        self.params
    }

    /// Sets new times, which hold from each CPU's next decision on.
    pub fn set_params(&mut self, params: Params) {
        self.params = params;
    }

    /// Returns the CPUs that are online.
    pub fn online(&self) -> CpuSet {
        self.online
    }

    /// Adds a CPU, which shall call `schedule` next. Units that waited for such a CPU wait for it now.
    pub fn cpu_online(&mut self, now: u64, cpu: Cpu) {
        if cpu.index() >= MAX_CPUS || self.online.contains(cpu) {
            return;
        }
        if self.cpus.len() <= cpu.index() {
            self.cpus.resize_with(cpu.index() + 1, CpuState::default);
        }
        self.cpus[cpu.index()] = CpuState { pending: true, accounted: now, ..CpuState::default() };
        self.online.insert(cpu);
        for id in core::mem::take(&mut self.stranded) {
            self.place(now, id);
        }
    }

    /// Takes a CPU away. Returns the units that were there and the CPUs that shall call `schedule`
    /// for them; None for one that no CPU needs to be told of, or that has no CPU left to use.
    pub fn cpu_offline(&mut self, now: u64, cpu: Cpu) -> Vec<(UnitId, Option<Cpu>)> {
        if !self.online.contains(cpu) {
            return Vec::new();
        }
        self.account(now, cpu);
        self.online.remove(cpu);
        self.idle.remove(cpu);
        self.lone.remove(cpu);
        let here = |place: Place| match place {
            Place::Queued(at) | Place::Running(at) | Place::Parked(at, _) => at == cpu,
            Place::Blocked | Place::Stranded => false,
        };
        let moved: Vec<UnitId> = self.units.iter().filter(|(_, unit)| here(unit.place)).map(|(id, _)| *id).collect();
        for id in &moved {
            self.detach(*id);
        }
        moved.into_iter().map(|id| (id, self.place(now, id))).collect()
    }

    /// Adds a unit, asleep, to a group. A group that has no other unit begins with the default
    /// weight and no cap. Does nothing for a unit that exists.
    pub fn add(&mut self, unit: UnitId, group: GroupId, affinity: Affinity) {
        if self.units.contains_key(&unit) {
            return;
        }
        self.groups.entry(group).or_default().members += 1;
        let home = affinity.soft.and(&affinity.hard).first_from(Cpu(0)).unwrap_or_default();
        self.units
            .insert(unit, Unit { group, affinity, place: Place::Blocked, home, vtime: 0, fresh: true, runtime_ns: 0 });
    }

    /// Removes a unit, and with the last one its group. Returns the CPU that still runs it and shall
    /// call `schedule`.
    pub fn remove(&mut self, unit: UnitId) -> Option<Cpu> {
        let ran_on = self.detach(unit);
        let gone = self.units.remove(&unit)?;
        if let Some(group) = self.groups.get_mut(&gone.group) {
            group.members -= 1;
            if group.members == 0 {
                self.groups.remove(&gone.group);
            }
        }
        ran_on
    }

    /// Makes a unit runnable. Returns a CPU that shall call `schedule` because of it.
    pub fn wake(&mut self, now: u64, unit: UnitId) -> Option<Cpu> {
        match self.units.get(&unit)?.place {
            Place::Blocked => self.place(now, unit),
            _ => None,
        }
    }

    /// Makes a unit sleep. Returns the CPU that still runs it and shall call `schedule`.
    pub fn sleep(&mut self, now: u64, unit: UnitId) -> Option<Cpu> {
        if let Place::Running(cpu) = self.units.get(&unit)?.place {
            self.account(now, cpu);
        }
        self.detach(unit)
    }

    /// True when a unit waits for this CPU while another one runs there.
    pub fn is_wanted(&self, cpu: Cpu) -> bool {
        self.cpus.get(cpu.index()).is_some_and(|state| !state.queue.is_empty())
    }

    /// Lets a running unit give way once: the next decision of its CPU (which the caller makes at
    /// once) prefers any other unit that waits there.
    pub fn yield_now(&mut self, _now: u64, unit: UnitId) {
        if let Some(Place::Running(cpu)) = self.units.get(&unit).map(|unit| unit.place) {
            self.cpus[cpu.index()].yielded = true;
        }
    }

    /// Sets where a unit may and would like to run. Returns a CPU that shall call `schedule`.
    pub fn set_affinity(&mut self, now: u64, unit: UnitId, affinity: Affinity) -> Option<Cpu> {
        let known = self.units.get_mut(&unit)?;
        known.affinity = affinity;
        match known.place {
            Place::Blocked => None,
            Place::Running(cpu) if affinity.hard.contains(cpu) => None,
            Place::Running(cpu) => {
                self.cpus[cpu.index()].pending = true;
                Some(cpu)
            }
            Place::Queued(_) | Place::Parked(..) | Place::Stranded => {
                self.detach(unit);
                self.place(now, unit)
            }
        }
    }

    /// Returns a unit's affinity.
    pub fn affinity(&self, unit: UnitId) -> Option<Affinity> {
        Some(self.units.get(&unit)?.affinity)
    }

    /// Sets a group's weight, and its cap in percent of one CPU (0 for none). Returns the CPUs that
    /// shall call `schedule`.
    pub fn set_weight_cap(&mut self, now: u64, group: GroupId, weight: u32, cap_percent: u32) -> CpuSet {
        for cpu in self.online.iter() {
            self.account(now, cpu);
        }
        let Some(known) = self.groups.get_mut(&group) else {
            return CpuSet::EMPTY;
        };
        known.weight = weight.max(1);
        known.set_cap(now, cap_percent, self.params.cap_period_ns);
        let mut poke = CpuSet::EMPTY;
        let members: Vec<(UnitId, Place)> =
            self.units.iter().filter(|(_, unit)| unit.group == group).map(|(id, unit)| (*id, unit.place)).collect();
        for (id, place) in members {
            match place {
                Place::Running(cpu) => poke.insert(cpu),
                Place::Parked(..) => {
                    self.detach(id);
                    self.place(now, id).into_iter().for_each(|cpu| poke.insert(cpu));
                }
                Place::Blocked | Place::Queued(_) | Place::Stranded => {}
            }
        }
        poke
    }

    /// Returns a group's weight and cap.
    pub fn weight_cap(&self, group: GroupId) -> Option<(u32, u32)> {
        self.groups.get(&group).map(|group| (group.weight, group.cap_percent()))
    }

    /// Returns how long a unit has run, in nanoseconds, up to now.
    pub fn runtime(&self, now: u64, unit: UnitId) -> u64 {
        let Some(known) = self.units.get(&unit) else {
            return 0;
        };
        match known.place {
            Place::Running(cpu) => known.runtime_ns + now.saturating_sub(self.cpus[cpu.index()].accounted),
            _ => known.runtime_ns,
        }
    }

    /// Returns where a unit is.
    pub fn whereabouts(&self, unit: UnitId) -> Option<Place> {
        Some(self.units.get(&unit)?.place)
    }

    /// Returns the unit that a CPU runs.
    pub fn current(&self, cpu: Cpu) -> Option<UnitId> {
        self.cpus.get(cpu.index())?.current
    }

    /// Charges the current unit of a CPU for the time since it was last charged.
    pub(crate) fn account(&mut self, now: u64, cpu: Cpu) {
        let state = &mut self.cpus[cpu.index()];
        let ran = now.saturating_sub(state.accounted);
        state.accounted = state.accounted.max(now);
        let Some(unit) = state.current.and_then(|id| self.units.get_mut(&id)) else {
            return;
        };
        unit.runtime_ns += ran;
        if let Some(group) = self.groups.get_mut(&unit.group) {
            unit.vtime += charge(ran, group.weight);
            group.spend(ran);
            group.refill(now, self.params.cap_period_ns);
        }
    }

    /// Takes a unit from wherever it is and leaves it asleep. Returns the CPU that ran it.
    pub(crate) fn detach(&mut self, id: UnitId) -> Option<Cpu> {
        let unit = self.units.get_mut(&id)?;
        let place = core::mem::replace(&mut unit.place, Place::Blocked);
        match place {
            Place::Blocked => None,
            Place::Stranded => {
                self.stranded.remove(&id);
                None
            }
            Place::Parked(cpu, at) => {
                self.cpus[cpu.index()].parked.remove(&(at, id));
                None
            }
            Place::Queued(cpu) => {
                let state = &mut self.cpus[cpu.index()];
                state.queue.remove((unit.vtime, id));
                unit.vtime += state.base;
                self.publish(cpu);
                None
            }
            Place::Running(cpu) => {
                let state = &mut self.cpus[cpu.index()];
                state.current = None;
                state.pending = true;
                unit.vtime += state.base;
                self.lone.remove(cpu);
                if let Some(group) = self.groups.get_mut(&unit.group) {
                    group.running -= 1;
                }
                Some(cpu)
            }
        }
    }

    /// Makes a unit wait that is nowhere for the budget of its group.
    pub(crate) fn park(&mut self, cpu: Cpu, id: UnitId) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        let Some(group) = self.groups.get(&unit.group) else {
            return;
        };
        let at = group.ready_at(self.params.cap_period_ns);
        unit.place = Place::Parked(cpu, at);
        unit.home = cpu;
        self.cpus[cpu.index()].parked.insert((at, id));
    }

    pub(crate) fn strand(&mut self, id: UnitId) {
        if let Some(unit) = self.units.get_mut(&id) {
            unit.place = Place::Stranded;
            self.stranded.insert(id);
        }
    }

    /// Brings the list of all CPUs up to date with one CPU's queue.
    pub(crate) fn publish(&mut self, cpu: Cpu) {
        let state = &mut self.cpus[cpu.index()];
        let new: Option<Vtime> = state.queue.free_head().map(|(vtime, _)| vtime + state.base);
        let old = core::mem::replace(&mut state.published, new);
        self.balance.update(cpu, old, new);
    }
}
