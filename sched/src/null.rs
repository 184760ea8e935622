// SPDX-License-Identifier: MIT OR Apache-2.0
//! One unit a CPU, without a timer: the null policy.
//!
//! A unit gets a CPU when it first wakes and keeps it while it sleeps, until it is released or removed or may no longer
//! be there. Units for which there is none wait, in the order in which they came, for one that they may use.
//!
//! What must always hold: a CPU has at most one unit and a unit at most one CPU, of its hard affinity; no unit waits
//! while a CPU that it may use is free.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::policy::Policy;
use crate::{Affinity, Cpu, CpuSet, Decision, GroupId, MAX_CPUS, Params, Place, UnitId};

#[derive(Debug)]
struct Unit {
    affinity: Affinity,
    awake: bool,
    cpu: Option<Cpu>,
    runtime_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    /// Whose CPU it is.
    unit: Option<UnitId>,
    /// What it was last told to run, and up to when that is accounted.
    current: Option<UnitId>,
    accounted: u64,
}

#[derive(Debug)]
pub(crate) struct Null {
    params: Params,
    units: BTreeMap<UnitId, Unit>,
    cpus: Vec<Seat>,
    online: CpuSet,
    /// CPUs that nobody has.
    free: CpuSet,
    waiting: VecDeque<UnitId>,
}

impl Null {
    pub(crate) fn new(params: Params) -> Self {
        Self {
            params,
            units: BTreeMap::new(),
            cpus: Vec::new(),
            online: CpuSet::EMPTY,
            free: CpuSet::EMPTY,
            waiting: VecDeque::new(),
        }
    }

    fn account(&mut self, now: u64, cpu: Cpu) {
        let Some(seat) = self.cpus.get_mut(cpu.index()) else {
            return;
        };
        let ran = now.saturating_sub(seat.accounted);
        seat.accounted = seat.accounted.max(now);
        if let Some(unit) = seat.current.and_then(|id| self.units.get_mut(&id)) {
            unit.runtime_ns += ran;
        }
    }

    /// Gives a unit a CPU, or has it wait for one. Returns the CPU.
    fn seat(&mut self, id: UnitId) -> Option<Cpu> {
        let unit = self.units.get_mut(&id)?;
        let allowed = self.free.and(&unit.affinity.hard);
        let liked = allowed.and(&unit.affinity.soft).first_from(Cpu(0));
        let Some(cpu) = liked.or_else(|| allowed.first_from(Cpu(0))) else {
            self.waiting.push_back(id);
            return None;
        };
        unit.cpu = Some(cpu);
        self.free.remove(cpu);
        self.cpus[cpu.index()].unit = Some(id);
        Some(cpu)
    }

    /// Takes a unit's CPU from it, or its place among those who wait. The CPU goes to the first who waits and may use it.
    /// Returns it when it has something to do.
    fn unseat(&mut self, now: u64, id: UnitId) -> Option<Cpu> {
        let Some(cpu) = self.units.get_mut(&id)?.cpu.take() else {
            self.waiting.retain(|other| *other != id);
            return None;
        };
        self.account(now, cpu);
        let seat = &mut self.cpus[cpu.index()];
        seat.unit = None;
        let ran = seat.current.take().is_some();
        let next = if self.online.contains(cpu) { self.offer(cpu) } else { None };
        (ran || next.is_some()).then_some(cpu)
    }

    /// Gives a free CPU to the first who waits and may use it.
    fn offer(&mut self, cpu: Cpu) -> Option<UnitId> {
        self.free.insert(cpu);
        let may = |id: &UnitId| self.units.get(id).is_some_and(|unit| unit.affinity.hard.contains(cpu));
        let at = self.waiting.iter().position(may)?;
        let id = self.waiting.remove(at)?;
        self.free.remove(cpu);
        self.cpus[cpu.index()].unit = Some(id);
        self.units.get_mut(&id)?.cpu = Some(cpu);
        Some(id)
    }
}

impl Policy for Null {
    fn schedule(&mut self, now: u64, cpu: Cpu) -> Decision {
        self.account(now, cpu);
        let Some(seat) = self.cpus.get_mut(cpu.index()) else {
            return Decision::default();
        };
        seat.current = seat.unit.filter(|id| self.units.get(id).is_some_and(|unit| unit.awake));
        Decision { next: seat.current, until: None, poke: CpuSet::EMPTY }
    }

    fn wake(&mut self, _now: u64, unit: UnitId) -> Option<Cpu> {
        let known = self.units.get_mut(&unit)?;
        if core::mem::replace(&mut known.awake, true) {
            return None;
        }
        known.cpu.or_else(|| self.seat(unit))
    }

    fn sleep(&mut self, now: u64, unit: UnitId) -> Option<Cpu> {
        let known = self.units.get_mut(&unit)?;
        known.awake = false;
        let Some(cpu) = known.cpu else {
            return self.unseat(now, unit);
        };
        self.account(now, cpu);
        self.cpus[cpu.index()].current.take().map(|_| cpu)
    }

    fn release(&mut self, now: u64, unit: UnitId) -> Option<Cpu> {
        if self.units.get(&unit)?.awake { None } else { self.unseat(now, unit) }
    }

    fn is_wanted(&self, _cpu: Cpu) -> bool {
        false
    }

    fn yield_now(&mut self, _now: u64, _unit: UnitId) {}

    fn cpu_online(&mut self, now: u64, cpu: Cpu) {
        if cpu.index() >= MAX_CPUS || self.online.contains(cpu) {
            return;
        }
        if self.cpus.len() <= cpu.index() {
            self.cpus.resize_with(cpu.index() + 1, Seat::default);
        }
        self.cpus[cpu.index()] = Seat { accounted: now, ..Seat::default() };
        self.online.insert(cpu);
        let _ = self.offer(cpu);
    }

    fn cpu_offline(&mut self, now: u64, cpu: Cpu) -> CpuSet {
        if !self.online.contains(cpu) {
            return CpuSet::EMPTY;
        }
        self.online.remove(cpu);
        self.free.remove(cpu);
        let Some(id) = self.cpus[cpu.index()].unit else {
            return CpuSet::EMPTY;
        };
        let _ = self.unseat(now, id);
        let awake = self.units.get(&id).is_some_and(|unit| unit.awake);
        awake.then(|| self.seat(id)).flatten().into_iter().collect()
    }

    fn add(&mut self, unit: UnitId, _group: GroupId, affinity: Affinity) {
        self.units.entry(unit).or_insert(Unit { affinity, awake: false, cpu: None, runtime_ns: 0 });
    }

    fn remove(&mut self, unit: UnitId) -> Option<Cpu> {
        // What it ran since it was last accounted goes with it.
        let poke = self.unseat(0, unit);
        self.units.remove(&unit);
        poke
    }

    fn set_affinity(&mut self, now: u64, unit: UnitId, affinity: Affinity) -> CpuSet {
        let Some(known) = self.units.get_mut(&unit) else {
            return CpuSet::EMPTY;
        };
        known.affinity = affinity;
        if known.cpu.is_some_and(|cpu| affinity.hard.contains(cpu)) {
            return CpuSet::EMPTY;
        }
        let awake = known.awake;
        let left = self.unseat(now, unit);
        let taken = awake.then(|| self.seat(unit)).flatten();
        left.into_iter().chain(taken).collect()
    }

    fn affinity(&self, unit: UnitId) -> Option<Affinity> {
        Some(self.units.get(&unit)?.affinity)
    }

    fn set_weight_cap(&mut self, _now: u64, _group: GroupId, _weight: u32, _cap_percent: u32) -> CpuSet {
        CpuSet::EMPTY
    }

    fn weight_cap(&self, _group: GroupId) -> Option<(u32, u32)> {
        None
    }

    fn params(&self) -> Params {
        self.params
    }

    fn set_params(&mut self, params: Params) {
        self.params = params;
    }

    fn runtime(&self, now: u64, unit: UnitId) -> u64 {
        let Some(known) = self.units.get(&unit) else {
            return 0;
        };
        let seat = known.cpu.and_then(|cpu| self.cpus.get(cpu.index())).filter(|seat| seat.current == Some(unit));
        known.runtime_ns + seat.map_or(0, |seat| now.saturating_sub(seat.accounted))
    }

    fn whereabouts(&self, unit: UnitId) -> Option<Place> {
        let known = self.units.get(&unit)?;
        Some(match known.cpu {
            _ if !known.awake => Place::Blocked,
            None => Place::Stranded,
            Some(cpu) if self.current(cpu) == Some(unit) => Place::Running(cpu),
            Some(cpu) => Place::Queued(cpu),
        })
    }

    fn current(&self, cpu: Cpu) -> Option<UnitId> {
        self.cpus.get(cpu.index())?.current
    }
}
