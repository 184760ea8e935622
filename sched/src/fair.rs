// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fair policy's state and what it is told: CPUs come and go, units come, go, wake, sleep.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::balance::Balance;
use crate::credit::{Vtime, charge};
use crate::policy::Policy;
use crate::table::{Groups, Units};
use crate::unit::{CpuState, Unit};
use crate::{Affinity, Cpu, CpuSet, Decision, GroupId, MAX_CPUS, Params, Place, UnitId};

/// Shares in proportion to weights: all that is to be scheduled, and where.
#[derive(Debug)]
pub(crate) struct Fair {
    pub(crate) params: Params,
    pub(crate) cpus: Vec<CpuState>,
    pub(crate) units: Units,
    pub(crate) groups: Groups,
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

impl Fair {
    /// Returns the policy without CPUs and units.
    pub(crate) fn new(params: Params) -> Self {
        Self {
            params,
            cpus: Vec::new(),
            units: Units::default(),
            groups: Groups::default(),
            online: CpuSet::EMPTY,
            idle: CpuSet::EMPTY,
            lone: CpuSet::EMPTY,
            balance: Balance::default(),
            stranded: BTreeSet::new(),
            probe: Cpu(0),
        }
    }

    /// Charges the current unit of a CPU for the time since it was last charged.
    pub(crate) fn account(&mut self, now: u64, cpu: Cpu) {
        let state = &mut self.cpus[cpu.index()];
        let ran = now.saturating_sub(state.accounted);
        if ran == 0 {
            return;
        }
        state.accounted = now;
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

impl Policy for Fair {
    fn schedule(&mut self, now: u64, cpu: Cpu) -> Decision {
        self.decide(now, cpu)
    }

    fn params(&self) -> Params {
        self.params
    }

    fn set_params(&mut self, params: Params) {
        self.params = params;
    }

    fn cpu_online(&mut self, now: u64, cpu: Cpu) {
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

    fn cpu_offline(&mut self, now: u64, cpu: Cpu) -> CpuSet {
        if !self.online.contains(cpu) {
            return CpuSet::EMPTY;
        }
        self.account(now, cpu);
        self.online.remove(cpu);
        self.idle.remove(cpu);
        self.lone.remove(cpu);
        let here = |place: Place| match place {
            Place::Queued(at) | Place::Running(at) | Place::Parked(at, _) => at == cpu,
            Place::Blocked | Place::Stranded => false,
        };
        let moved: Vec<UnitId> = self.units.iter().filter(|(_, unit)| here(unit.place)).map(|(id, _)| id).collect();
        for id in &moved {
            self.detach(*id);
        }
        moved.into_iter().filter_map(|id| self.place(now, id)).collect()
    }

    fn add(&mut self, unit: UnitId, group: GroupId, affinity: Affinity) {
        if self.units.get(&unit).is_some() {
            return;
        }
        let group = self.groups.find_or_add(group);
        if let Some(group) = self.groups.get_mut(&group) {
            group.members += 1;
        }
        let home = affinity.soft.and(&affinity.hard).first_from(Cpu(0)).unwrap_or_default();
        let pinned = affinity.is_pinned();
        let place = Place::Blocked;
        self.units.insert(unit, Unit { group, affinity, pinned, place, home, vtime: 0, fresh: true, runtime_ns: 0 });
    }

    fn remove(&mut self, unit: UnitId) -> Option<Cpu> {
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

    fn wake(&mut self, now: u64, unit: UnitId) -> Option<Cpu> {
        match self.units.get(&unit)?.place {
            Place::Blocked => self.place(now, unit),
            _ => None,
        }
    }

    fn postpone(&mut self, now: u64, cpu: Cpu, poke: &mut CpuSet) -> Option<u64> {
        let state = self.cpus.get_mut(cpu.index())?;
        if state.due <= now || state.yielded || state.current.is_none() {
            return None;
        }
        let due = state.due;
        state.until = Some(due);
        state.pending = false;
        self.probe_lone(now, cpu, poke);
        Some(due)
    }

    fn sleep(&mut self, now: u64, unit: UnitId) -> Option<Cpu> {
        if let Place::Running(cpu) = self.units.get(&unit)?.place {
            self.account(now, cpu);
        }
        self.detach(unit)
    }

    fn release(&mut self, _now: u64, _unit: UnitId) -> Option<Cpu> {
        None
    }

    fn is_wanted(&self, cpu: Cpu) -> bool {
        self.cpus.get(cpu.index()).is_some_and(|state| !state.queue.is_empty())
    }

    fn yield_now(&mut self, _now: u64, unit: UnitId) {
        if let Some(Place::Running(cpu)) = self.units.get(&unit).map(|unit| unit.place) {
            self.cpus[cpu.index()].yielded = true;
        }
    }

    fn set_affinity(&mut self, now: u64, unit: UnitId, affinity: Affinity) -> CpuSet {
        let Some(known) = self.units.get_mut(&unit) else {
            return CpuSet::EMPTY;
        };
        known.affinity = affinity;
        known.pinned = affinity.is_pinned();
        match known.place {
            Place::Blocked => CpuSet::EMPTY,
            Place::Running(cpu) if affinity.hard.contains(cpu) => CpuSet::EMPTY,
            Place::Running(cpu) => {
                self.cpus[cpu.index()].pending = true;
                CpuSet::of(cpu)
            }
            Place::Queued(_) | Place::Parked(..) | Place::Stranded => {
                self.detach(unit);
                self.place(now, unit).into_iter().collect()
            }
        }
    }

    fn affinity(&self, unit: UnitId) -> Option<Affinity> {
        Some(self.units.get(&unit)?.affinity)
    }

    fn set_weight_cap(&mut self, now: u64, group: GroupId, weight: u32, cap_percent: u32) -> CpuSet {
        for cpu in self.online.iter() {
            self.account(now, cpu);
        }
        let Some(group) = self.groups.find(group) else {
            return CpuSet::EMPTY;
        };
        let Some(known) = self.groups.get_mut(&group) else {
            return CpuSet::EMPTY;
        };
        known.weight = weight.max(1);
        known.set_cap(now, cap_percent, self.params.cap_period_ns);
        let mut poke = CpuSet::EMPTY;
        let members: Vec<(UnitId, Place)> =
            self.units.iter().filter(|(_, unit)| unit.group == group).map(|(id, unit)| (id, unit.place)).collect();
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

    fn weight_cap(&self, group: GroupId) -> Option<(u32, u32)> {
        self.groups.get(&self.groups.find(group)?).map(|group| (group.weight, group.cap_percent()))
    }

    fn runtime(&self, now: u64, unit: UnitId) -> u64 {
        let Some(known) = self.units.get(&unit) else {
            return 0;
        };
        match known.place {
            Place::Running(cpu) => known.runtime_ns + now.saturating_sub(self.cpus[cpu.index()].accounted),
            _ => known.runtime_ns,
        }
    }

    fn whereabouts(&self, unit: UnitId) -> Option<Place> {
        Some(self.units.get(&unit)?.place)
    }

    fn current(&self, cpu: Cpu) -> Option<UnitId> {
        self.cpus.get(cpu.index())?.current
    }
}
