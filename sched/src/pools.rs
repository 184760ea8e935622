// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pools: sets of CPUs, each scheduled for itself by a policy of its own.
//!
//! What must always hold: a CPU belongs to at most one pool, a group to exactly one with all of its units, and a unit
//! runs only on its pool's CPUs.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::fair::Fair;
use crate::null::Null;
use crate::policy::Policy;
use crate::{Affinity, Cpu, CpuSet, Decision, GroupId, MAX_CPUS, Params, Place, UnitId};

/// A pool's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u32);

impl PoolId {
    /// The pool that is always there and that CPUs and groups belong to which nobody has put elsewhere.
    pub const DEFAULT: Self = Self(0);
}

/// How a pool's CPUs are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In proportion to weights, with caps.
    Fair,
    /// Not at all: one unit a CPU, without a timer.
    Null,
}

/// Why pools are not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such pool, or no such group.
    Unknown,
    /// There is such a pool already.
    Exists,
    /// The CPU is not free, or not the pool's.
    NotThere,
    /// The pool has CPUs or groups that would be left without one.
    Busy,
}

#[derive(Debug)]
struct Pool {
    id: PoolId,
    kind: Kind,
    cpus: CpuSet,
    policy: Any,
}

/// A policy, so that the hot calls are direct.
#[derive(Debug)]
enum Any {
    Fair(Box<Fair>),
    Null(Box<Null>),
}

/// Does something with whichever policy it is.
macro_rules! with {
    ($any:expr, $policy:ident => $what:expr) => {
        match $any {
            Any::Fair($policy) => $what,
            Any::Null($policy) => $what,
        }
    };
}

impl Any {
    fn get(&self) -> &dyn Policy {
        with!(self, policy => &**policy)
    }

    fn get_mut(&mut self) -> &mut dyn Policy {
        with!(self, policy => &mut **policy)
    }
}

/// Where a pool lies in the list.
type Slot = u16;
const NOWHERE: Slot = Slot::MAX;

#[derive(Clone, Copy, Debug)]
struct Member {
    slot: Slot,
    group: GroupId,
}

const NOBODY: Member = Member { slot: NOWHERE, group: GroupId(0) };

/// All that is to be scheduled, and where.
#[derive(Debug)]
pub struct Scheduler {
    /// The first one is the default pool.
    pools: Vec<Option<Pool>>,
    units: Vec<Member>,
    cpus: [Slot; MAX_CPUS],
    /// CPUs that are online, whether in a pool or not.
    online: CpuSet,
}

impl Scheduler {
    /// Returns a scheduler with the default pool, without CPUs and units.
    pub fn new(kind: Kind, params: Params) -> Self {
        let first = Pool::new(PoolId::DEFAULT, kind, params);
        Self { pools: alloc::vec![Some(first)], units: Vec::new(), cpus: [NOWHERE; MAX_CPUS], online: CpuSet::EMPTY }
    }

    #[inline(always)]
    fn any_at(&mut self, slot: Slot) -> Option<&mut Any> {
        self.pools.get_mut(usize::from(slot))?.as_mut().map(|pool| &mut pool.policy)
    }

    fn at(&mut self, slot: Slot) -> Option<&mut dyn Policy> {
        self.any_at(slot).map(Any::get_mut)
    }

    fn slot(&self, unit: UnitId) -> Slot {
        self.units.get(unit.0 as usize).map_or(NOWHERE, |member| member.slot)
    }

    fn of(&self, unit: UnitId) -> Option<&Pool> {
        self.pools.get(usize::from(self.slot(unit)))?.as_ref()
    }

    fn of_mut(&mut self, unit: UnitId) -> Option<&mut dyn Policy> {
        self.at(self.slot(unit))
    }

    fn on(&self, cpu: Cpu) -> Option<&Pool> {
        self.pools.get(usize::from(*self.cpus.get(cpu.index())?))?.as_ref()
    }

    /// Decides what a CPU runs from now on, having charged the unit that it ran. The caller switches
    /// to [`Decision::next`], programs the timer and pokes.
    pub fn schedule(&mut self, now: u64, cpu: Cpu) -> Decision {
        let slot = self.cpus.get(cpu.index()).copied().unwrap_or(NOWHERE);
        match self.any_at(slot) {
            Some(any) => with!(any, policy => policy.schedule(now, cpu)),
            None => Decision::default(),
        }
    }

    /// Makes a unit runnable. Returns a CPU that shall call `schedule` because of it.
    pub fn wake(&mut self, now: u64, unit: UnitId) -> Option<Cpu> {
        with!(self.any_at(self.slot(unit))?, policy => policy.wake(now, unit))
    }

    /// Returns when a CPU must decide that [`Scheduler::wake`] has just named for this unit, if that is not yet: it need only
    /// be reminded then. Other CPUs that shall call `schedule` are added to `poke`.
    #[inline]
    pub fn postpone(&mut self, now: u64, unit: UnitId, cpu: Cpu, poke: &mut CpuSet) -> Option<u64> {
        self.of_mut(unit)?.postpone(now, cpu, poke)
    }

    /// Makes a unit sleep. Returns the CPU that still runs it and shall call `schedule`.
    pub fn sleep(&mut self, now: u64, unit: UnitId) -> Option<Cpu> {
        with!(self.any_at(self.slot(unit))?, policy => policy.sleep(now, unit))
    }

    /// Takes from a unit that sleeps what is kept for it, since it will sleep for long. Returns a CPU that shall call
    /// `schedule`.
    pub fn release(&mut self, now: u64, unit: UnitId) -> Option<Cpu> {
        self.of_mut(unit)?.release(now, unit)
    }

    /// True when a unit waits for this CPU while another one runs there.
    pub fn is_wanted(&self, cpu: Cpu) -> bool {
        self.on(cpu).is_some_and(|pool| with!(&pool.policy, policy => policy.is_wanted(cpu)))
    }

    /// Lets a running unit give way once: the next decision of its CPU (which the caller makes at
    /// once) prefers any other unit that waits there.
    pub fn yield_now(&mut self, now: u64, unit: UnitId) {
        if let Some(policy) = self.of_mut(unit) {
            policy.yield_now(now, unit);
        }
    }

    /// Returns the CPUs that are online, whether in a pool or not.
    pub fn online(&self) -> CpuSet {
        self.online
    }

    /// Adds a CPU to the default pool. It shall call `schedule` next.
    pub fn cpu_online(&mut self, now: u64, cpu: Cpu) {
        if cpu.index() < MAX_CPUS && !self.online.contains(cpu) {
            self.online.insert(cpu);
            self.put(now, cpu, 0);
        }
    }

    /// Takes a CPU away, from whatever pool. Returns the CPUs that shall call `schedule`.
    pub fn cpu_offline(&mut self, now: u64, cpu: Cpu) -> CpuSet {
        self.online.remove(cpu);
        self.withdraw(now, cpu)
    }

    fn put(&mut self, now: u64, cpu: Cpu, slot: Slot) {
        if let Some(pool) = self.pools.get_mut(usize::from(slot)).and_then(Option::as_mut) {
            pool.cpus.insert(cpu);
            pool.policy.get_mut().cpu_online(now, cpu);
            self.cpus[cpu.index()] = slot;
        }
    }

    fn withdraw(&mut self, now: u64, cpu: Cpu) -> CpuSet {
        let Some(slot) = self.cpus.get_mut(cpu.index()) else {
            return CpuSet::EMPTY;
        };
        let slot = core::mem::replace(slot, NOWHERE);
        let Some(pool) = self.pools.get_mut(usize::from(slot)).and_then(Option::as_mut) else {
            return CpuSet::EMPTY;
        };
        pool.cpus.remove(cpu);
        pool.policy.get_mut().cpu_offline(now, cpu)
    }

    /// Adds a unit, asleep, to a group, which is new if it has no other unit: it then has the default weight and no cap,
    /// and belongs to the pool given, or to the default one if there is none such.
    pub fn add(&mut self, unit: UnitId, group: GroupId, pool: PoolId, affinity: Affinity) {
        let slot = self.group_slot(group).or_else(|| self.find(pool)).unwrap_or(0);
        let at = unit.0 as usize;
        if self.units.len() <= at {
            self.units.resize(at + 1, NOBODY);
        }
        if self.units[at].slot == NOWHERE {
            self.units[at] = Member { slot, group };
            self.at(slot).into_iter().for_each(|policy| policy.add(unit, group, affinity));
        }
    }

    /// Removes a unit, and with the last one its group. Returns the CPU that still runs it and shall
    /// call `schedule`.
    pub fn remove(&mut self, unit: UnitId) -> Option<Cpu> {
        let poke = self.of_mut(unit)?.remove(unit);
        self.units[unit.0 as usize] = NOBODY;
        poke
    }

    /// Sets where a unit may and would like to run. Returns the CPUs that shall call `schedule`.
    pub fn set_affinity(&mut self, now: u64, unit: UnitId, affinity: Affinity) -> CpuSet {
        self.of_mut(unit).map_or(CpuSet::EMPTY, |policy| policy.set_affinity(now, unit, affinity))
    }

    /// Returns a unit's affinity.
    pub fn affinity(&self, unit: UnitId) -> Option<Affinity> {
        self.of(unit)?.policy.get().affinity(unit)
    }

    /// Sets a group's weight, and its cap in percent of one CPU (0 for none). Returns the CPUs that
    /// shall call `schedule`.
    pub fn set_weight_cap(&mut self, now: u64, group: GroupId, weight: u32, cap_percent: u32) -> CpuSet {
        let policy = self.group_slot(group).and_then(|slot| self.at(slot));
        policy.map_or(CpuSet::EMPTY, |policy| policy.set_weight_cap(now, group, weight, cap_percent))
    }

    /// Returns a group's weight and cap, if its pool has such a thing.
    pub fn weight_cap(&self, group: GroupId) -> Option<(u32, u32)> {
        self.pools.get(usize::from(self.group_slot(group)?))?.as_ref()?.policy.get().weight_cap(group)
    }

    /// Returns how long a unit has run in its pool, in nanoseconds, up to now.
    pub fn runtime(&self, now: u64, unit: UnitId) -> u64 {
        self.of(unit).map_or(0, |pool| pool.policy.get().runtime(now, unit))
    }

    /// Returns where a unit is.
    pub fn whereabouts(&self, unit: UnitId) -> Option<Place> {
        self.of(unit)?.policy.get().whereabouts(unit)
    }

    /// Returns the unit that a CPU runs.
    pub fn current(&self, cpu: Cpu) -> Option<UnitId> {
        self.on(cpu)?.policy.get().current(cpu)
    }
}

/// The pools themselves.
impl Scheduler {
    fn find(&self, id: PoolId) -> Option<Slot> {
        let at = self.pools.iter().position(|pool| pool.as_ref().is_some_and(|pool| pool.id == id))?;
        Some(at as Slot)
    }

    fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.pools.iter().flatten().find(|pool| pool.id == id)
    }

    fn group_slot(&self, group: GroupId) -> Option<Slot> {
        self.units.iter().find(|member| member.slot != NOWHERE && member.group == group).map(|member| member.slot)
    }

    /// Returns the pools' numbers in ascending order.
    pub fn pool_ids(&self) -> Vec<PoolId> {
        let mut ids: Vec<PoolId> = self.pools.iter().flatten().map(|pool| pool.id).collect();
        ids.sort_unstable();
        ids
    }

    /// Returns how a pool is scheduled.
    pub fn kind(&self, id: PoolId) -> Option<Kind> {
        Some(self.pool(id)?.kind)
    }

    /// Returns a pool's CPUs.
    pub fn pool_cpus(&self, id: PoolId) -> Option<CpuSet> {
        Some(self.pool(id)?.cpus)
    }

    /// Returns the CPUs that are online and in no pool.
    pub fn free_cpus(&self) -> CpuSet {
        self.online.iter().filter(|cpu| self.on(*cpu).is_none()).collect()
    }

    /// Returns a pool's groups.
    pub fn pool_groups(&self, id: PoolId) -> BTreeSet<GroupId> {
        let slot = self.find(id).unwrap_or(NOWHERE);
        let mine = |member: &&Member| slot != NOWHERE && member.slot == slot;
        self.units.iter().filter(mine).map(|member| member.group).collect()
    }

    /// Returns the pool that a group belongs to.
    pub fn pool_of(&self, group: GroupId) -> Option<PoolId> {
        Some(self.pools.get(usize::from(self.group_slot(group)?))?.as_ref()?.id)
    }

    /// Returns the times in force in a pool.
    pub fn params(&self, id: PoolId) -> Option<Params> {
        Some(self.pool(id)?.policy.get().params())
    }

    /// Sets new times for a pool, which hold from each CPU's next decision on.
    pub fn set_params(&mut self, id: PoolId, params: Params) {
        if let Some(policy) = self.find(id).and_then(|slot| self.at(slot)) {
            policy.set_params(params);
        }
    }

    /// Makes a pool without CPUs and groups; without a number it gets the one after the largest.
    ///
    /// # Errors
    /// `Exists`; `Busy` when there are as many as there can be.
    pub fn create_pool(&mut self, id: Option<PoolId>, kind: Kind, params: Params) -> Result<PoolId, Refusal> {
        let next = self.pools.iter().flatten().map(|pool| pool.id.0).max().unwrap_or(0).checked_add(1);
        let id = id.or(next.map(PoolId)).ok_or(Refusal::Busy)?;
        if self.pool(id).is_some() {
            return Err(Refusal::Exists);
        }
        let pool = Pool::new(id, kind, params);
        match self.pools.iter().position(Option::is_none) {
            Some(at) => self.pools[at] = Some(pool),
            None if self.pools.len() < usize::from(NOWHERE) => self.pools.push(Some(pool)),
            None => return Err(Refusal::Busy),
        }
        Ok(id)
    }

    /// Ends a pool that has neither CPUs nor groups; the default one never ends.
    ///
    /// # Errors
    /// `Unknown`, `Busy`.
    pub fn destroy_pool(&mut self, id: PoolId) -> Result<(), Refusal> {
        let slot = self.find(id).ok_or(Refusal::Unknown)?;
        let cpus = self.pool_cpus(id).unwrap_or_default();
        if slot == 0 || !cpus.is_empty() || !self.pool_groups(id).is_empty() {
            return Err(Refusal::Busy);
        }
        self.pools[usize::from(slot)] = None;
        Ok(())
    }

    /// Gives a free CPU to a pool. It shall call `schedule` next.
    ///
    /// # Errors
    /// `NotThere`, `Unknown`.
    pub fn add_cpu(&mut self, now: u64, id: PoolId, cpu: Cpu) -> Result<(), Refusal> {
        if !self.free_cpus().contains(cpu) {
            return Err(Refusal::NotThere);
        }
        let slot = self.find(id).ok_or(Refusal::Unknown)?;
        self.put(now, cpu, slot);
        Ok(())
    }

    /// Takes a CPU from a pool and leaves it free. Units that may run on none of those left may then run on all of them.
    /// Returns the CPUs that shall call `schedule`, this one among them.
    ///
    /// # Errors
    /// `Unknown`, `NotThere`; `Busy` for the last CPU of a pool with groups.
    pub fn remove_cpu(&mut self, now: u64, id: PoolId, cpu: Cpu) -> Result<CpuSet, Refusal> {
        let slot = self.find(id).ok_or(Refusal::Unknown)?;
        let cpus = self.pool_cpus(id).unwrap_or_default();
        if !cpus.contains(cpu) {
            return Err(Refusal::NotThere);
        }
        if cpus.len() == 1 && !self.pool_groups(id).is_empty() {
            return Err(Refusal::Busy);
        }
        let mut poke = self.withdraw(now, cpu);
        let left = self.pool_cpus(id).unwrap_or_default();
        for unit in self.units_where(|member| member.slot == slot) {
            if let Some(affinity) = self.affinity(unit).filter(|affinity| affinity.hard.and(&left).is_empty()) {
                poke.extend(self.set_affinity(now, unit, Affinity { hard: CpuSet::ALL, ..affinity }).iter());
            }
        }
        poke.insert(cpu);
        Ok(poke)
    }

    /// Puts a group into another pool, where its units may run on all CPUs and it has the default weight. Returns the
    /// CPUs that shall call `schedule`.
    ///
    /// # Errors
    /// `Unknown`, also for a pool without CPUs.
    pub fn move_group(&mut self, now: u64, group: GroupId, to: PoolId) -> Result<CpuSet, Refusal> {
        let from = self.group_slot(group).ok_or(Refusal::Unknown)?;
        let slot = self.find(to).ok_or(Refusal::Unknown)?;
        let mut poke = CpuSet::EMPTY;
        if from == slot {
            return Ok(poke);
        }
        if self.pool_cpus(to).unwrap_or_default().is_empty() {
            return Err(Refusal::Unknown);
        }
        for unit in self.units_where(|member| member.slot == from && member.group == group) {
            let awake = self.whereabouts(unit).is_some_and(|place| place != Place::Blocked);
            poke.extend(self.at(from).and_then(|policy| policy.remove(unit)));
            self.units[unit.0 as usize].slot = slot;
            if let Some(policy) = self.at(slot) {
                policy.add(unit, group, Affinity::ANY);
                poke.extend(awake.then(|| policy.wake(now, unit)).flatten());
            }
        }
        Ok(poke)
    }

    fn units_where(&self, which: impl Fn(&Member) -> bool) -> Vec<UnitId> {
        let numbered = (0u32..).zip(&self.units);
        numbered.filter(|(_, member)| member.slot != NOWHERE && which(member)).map(|(at, _)| UnitId(at)).collect()
    }
}

impl Pool {
    fn new(id: PoolId, kind: Kind, params: Params) -> Self {
        let policy = match kind {
            Kind::Fair => Any::Fair(Box::new(Fair::new(params))),
            Kind::Null => Any::Null(Box::new(Null::new(params))),
        };
        Self { id, kind, cpus: CpuSet::EMPTY, policy }
    }
}
