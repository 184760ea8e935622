// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine made of events: CPUs that obey the scheduler exactly, and units that run for a while and
//! sleep for a while. It checks at each step that no rule is broken.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use sched::{Affinity, Cpu, CpuSet, GroupId, Kind, Params, Place, PoolId, Scheduler, UnitId};

/// A small generator of numbers (splitmix64), the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Returns the generator of a test and prints its seed, which `XENITH_SEED` can set.
    pub(crate) fn for_test(name: &str) -> Self {
        let given = std::env::var("XENITH_SEED").ok();
        let seed = given.map_or(0x5eed, |seed| seed.parse().expect("XENITH_SEED is a number"));
        println!("{name}: XENITH_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What a unit does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Runs for ever.
    Hog,
    /// Runs and sleeps in turn, for so many nanoseconds.
    Burst { run: u64, sleep: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Wake(UnitId),
    Decide(Cpu),
    Sleep(UnitId),
}

#[derive(Debug)]
struct Unit {
    work: Work,
    /// Running time at which it goes to sleep next.
    sleep_at: u64,
    woken: u64,
    /// The longest time between being woken and running.
    latency: u64,
    waits: bool,
    last_ran: u64,
    longest_wait: u64,
    last_on: Option<Cpu>,
    on: Option<Cpu>,
}

pub(crate) struct Machine {
    pub(crate) now: u64,
    pub(crate) sched: Scheduler,
    units: BTreeMap<UnitId, Unit>,
    running: BTreeMap<Cpu, UnitId>,
    timers: BTreeMap<Cpu, u64>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    pub(crate) decisions: u64,
    /// How often a unit ran on another CPU than the last time.
    pub(crate) moves: u64,
    pub(crate) wakes: u64,
    /// Everything decided, folded into one number.
    pub(crate) trace: u64,
}

impl Machine {
    pub(crate) fn new(cpus: u16) -> Self {
        let mut machine = Self {
            now: 0,
            sched: Scheduler::new(Kind::Fair, Params::default()),
            units: BTreeMap::new(),
            running: BTreeMap::new(),
            timers: BTreeMap::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            decisions: 0,
            moves: 0,
            wakes: 0,
            trace: 0,
        };
        for cpu in 0..cpus {
            machine.online(Cpu(cpu));
        }
        machine
    }

    pub(crate) fn online(&mut self, cpu: Cpu) {
        self.sched.cpu_online(self.now, cpu);
        self.at(self.now, Event::Decide(cpu));
    }

    pub(crate) fn offline(&mut self, cpu: Cpu) {
        self.leave(cpu);
        self.timers.remove(&cpu);
        let poke = self.sched.cpu_offline(self.now, cpu);
        self.poke(poke);
    }

    /// Makes a pool of CPUs that it takes from the first one.
    pub(crate) fn pool(&mut self, kind: Kind, cpus: &[u16]) -> PoolId {
        let pool = self.sched.create_pool(None, kind, Params::default()).expect("there is room");
        for cpu in cpus.iter().copied().map(Cpu) {
            self.remove_cpu(PoolId::DEFAULT, cpu);
            self.add_cpu(pool, cpu);
        }
        pool
    }

    pub(crate) fn add_cpu(&mut self, pool: PoolId, cpu: Cpu) {
        if self.sched.add_cpu(self.now, pool, cpu).is_ok() {
            self.poke(CpuSet::of(cpu));
        }
    }

    pub(crate) fn remove_cpu(&mut self, pool: PoolId, cpu: Cpu) {
        let poke = self.sched.remove_cpu(self.now, pool, cpu).unwrap_or_default();
        self.obey(poke);
    }

    pub(crate) fn move_group(&mut self, group: u16, pool: PoolId) {
        let poke = self.sched.move_group(self.now, GroupId(group), pool).unwrap_or_default();
        self.obey(poke);
    }

    /// Lets CPUs decide at once, those first that lose what they run.
    fn obey(&mut self, poke: CpuSet) {
        let (lose, others): (CpuSet, CpuSet) =
            poke.iter().partition(|cpu| self.sched.current(*cpu) != self.running.get(cpu).copied());
        lose.iter().chain(others.iter()).for_each(|cpu| self.decide(cpu));
    }

    pub(crate) fn add(&mut self, id: u32, group: u16, work: Work, affinity: Affinity) {
        let id = UnitId(id);
        self.sched.add(id, GroupId(group), PoolId::DEFAULT, affinity);
        let sleep_at = match work {
            Work::Hog => u64::MAX,
            Work::Burst { run, .. } => run,
        };
        let unit = Unit {
            work,
            sleep_at,
            woken: self.now,
            latency: 0,
            waits: true,
            last_ran: self.now,
            longest_wait: 0,
            last_on: None,
            on: None,
        };
        self.units.insert(id, unit);
        self.at(self.now, Event::Wake(id));
    }

    pub(crate) fn set_weight_cap(&mut self, group: u16, weight: u32, cap: u32) {
        let set = self.sched.set_weight_cap(self.now, GroupId(group), weight, cap);
        self.poke(set);
    }

    pub(crate) fn set_affinity(&mut self, id: u32, affinity: Affinity) {
        let poke = self.sched.set_affinity(self.now, UnitId(id), affinity);
        self.poke(poke);
    }

    pub(crate) fn runtime(&self, id: u32) -> u64 {
        self.sched.runtime(self.now, UnitId(id))
    }

    pub(crate) fn latency(&self, id: u32) -> u64 {
        self.units[&UnitId(id)].latency
    }

    /// Forgets what has been measured.
    pub(crate) fn measure(&mut self) {
        for unit in self.units.values_mut() {
            (unit.latency, unit.longest_wait) = (0, 0);
        }
    }

    pub(crate) fn longest_wait(&self, id: u32) -> u64 {
        self.units[&UnitId(id)].longest_wait
    }

    pub(crate) fn run_until(&mut self, end: u64) {
        while let Some(Reverse((at, _, _))) = self.events.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                break;
            };
            self.now = at;
            self.step(event);
        }
        self.now = end;
    }

    fn at(&mut self, when: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((when, self.sequence, event)));
    }

    fn poke(&mut self, cpus: CpuSet) {
        cpus.iter().for_each(|cpu| self.at(self.now, Event::Decide(cpu)));
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Wake(id) => {
                if self.sched.whereabouts(id) == Some(Place::Blocked) {
                    let unit = self.units.get_mut(&id).unwrap();
                    self.wakes += 1;
                    unit.woken = self.now;
                    unit.last_ran = self.now;
                    unit.waits = true;
                }
                let poke = self.sched.wake(self.now, id);
                // As on the CPU that wakes another's unit to its own queue; by turns, as anybody else.
                match poke.filter(|_| self.now.is_multiple_of(2)) {
                    Some(cpu) => self.postpone(id, cpu),
                    None => self.poke(poke.into_iter().collect()),
                }
            }
            Event::Sleep(id) => self.sleep(id),
            Event::Decide(cpu) => self.decide(cpu),
        }
    }

    /// Has a CPU decide that was just named for a unit, then or later.
    fn postpone(&mut self, id: UnitId, cpu: Cpu) {
        let mut others = CpuSet::EMPTY;
        match self.sched.postpone(self.now, id, cpu, &mut others) {
            None => others.insert(cpu),
            Some(due) => {
                assert!(due > self.now);
                self.timers.insert(cpu, due);
                self.at(due, Event::Decide(cpu));
            }
        }
        self.poke(others);
    }

    /// Puts a unit to sleep if it has run as long as it wanted to.
    fn sleep(&mut self, id: UnitId) {
        let Some(Place::Running(cpu)) = self.sched.whereabouts(id) else {
            return;
        };
        let unit = self.units.get_mut(&id).unwrap();
        let Work::Burst { run, sleep } = unit.work else {
            return;
        };
        if self.sched.runtime(self.now, id) < unit.sleep_at {
            return;
        }
        unit.sleep_at += run;
        self.leave(cpu);
        assert_eq!(self.sched.sleep(self.now, id), Some(cpu));
        self.at(self.now + sleep, Event::Wake(id));
        self.decide(cpu);
    }

    fn decide(&mut self, cpu: Cpu) {
        if !self.sched.online().contains(cpu) {
            return;
        }
        let decision = self.sched.schedule(self.now, cpu);
        self.decisions += 1;
        let word = (self.now << 20) ^ u64::from(cpu.0) ^ decision.next.map_or(0, |id| id.0.into());
        self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3);
        self.leave(cpu);
        if let Some(id) = decision.next {
            self.enter(cpu, id);
        }
        // Timers that were superseded still fire: they must do no harm.
        if let Some(until) = decision.until {
            assert!(until > self.now, "{cpu:?} would decide for ever at {until}");
            if self.timers.get(&cpu).is_none_or(|armed| *armed <= self.now || *armed > until) {
                self.timers.insert(cpu, until);
                self.at(until, Event::Decide(cpu));
            }
        }
        self.poke(decision.poke);
        self.check(decision.poke, cpu);
    }

    fn leave(&mut self, cpu: Cpu) {
        if let Some(unit) = self.running.remove(&cpu).and_then(|id| self.units.get_mut(&id)) {
            unit.last_ran = self.now;
            unit.on = None;
        }
    }

    fn enter(&mut self, cpu: Cpu, id: UnitId) {
        let affinity = self.sched.affinity(id).expect("what runs exists");
        assert!(affinity.hard.contains(cpu), "{id:?} on {cpu:?}");
        let ran = self.sched.runtime(self.now, id);
        let unit = self.units.get_mut(&id).unwrap();
        if unit.waits {
            unit.waits = false;
            unit.latency = unit.latency.max(self.now - unit.woken);
        }
        assert_eq!(unit.on.replace(cpu), None, "{id:?} on two CPUs");
        let before = unit.last_on.replace(cpu);
        self.moves += u64::from(before.is_some_and(|before| before != cpu));
        unit.longest_wait = unit.longest_wait.max(self.now - unit.last_ran);
        unit.last_ran = self.now;
        let left = unit.sleep_at.saturating_sub(ran).min(1 << 50);
        self.running.insert(cpu, id);
        if left < 1 << 50 {
            self.at(self.now + left, Event::Sleep(id));
        }
    }

    fn check(&self, poke: CpuSet, cpu: Cpu) {
        assert!(!poke.contains(cpu));
        assert!(poke.iter().all(|other| self.sched.online().contains(other)));
        assert_eq!(self.sched.current(cpu), self.running.get(&cpu).copied());
    }
}

/// Returns each unit's share of `capacity` CPUs when shares follow the weights and none can have
/// more than one CPU.
pub(crate) fn fair_shares(weights: &[u32], capacity: u64) -> Vec<f64> {
    let mut shares = vec![0.0; weights.len()];
    let mut capacity = capacity as f64;
    let mut left: Vec<usize> = (0..weights.len()).collect();
    loop {
        let total: f64 = left.iter().map(|i| f64::from(weights[*i])).sum();
        let share = |i: usize| capacity * f64::from(weights[i]) / total;
        let (full, rest): (Vec<usize>, Vec<usize>) = left.iter().partition(|i| share(**i) >= 1.0);
        if full.is_empty() {
            rest.iter().for_each(|i| shares[*i] = share(*i));
            return shares;
        }
        full.iter().for_each(|i| shares[*i] = 1.0);
        capacity -= full.len() as f64;
        left = rest;
    }
}
