// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fair policy's decisions: which CPU a unit waits for, and which unit a CPU runs.

use crate::credit::{Vtime, charge, time_for};
use crate::fair::Fair;
use crate::queue::Entry;
use crate::{Cpu, CpuSet, Decision, Place, UnitId};

/// How many other CPUs' queues are searched for work.
const STEAL_QUEUES: usize = 16;
/// How many units of each of those.
const STEAL_UNITS: usize = 4;
/// How many CPUs with a unit of their own are asked whether they had better run another.
const LONE_PROBES: usize = 8;

impl Fair {
    /// Decides what a CPU runs from now on, having charged the unit that it ran.
    pub(crate) fn decide(&mut self, now: u64, cpu: Cpu) -> Decision {
        if !self.online.contains(cpu) {
            return Decision::default();
        }
        let mut poke = CpuSet::EMPTY;
        self.account(now, cpu);
        self.unpark(now, cpu, &mut poke);
        self.rebase(cpu);
        self.settle_current(now, cpu, &mut poke);
        self.choose(now, cpu, &mut poke);
        let until = self.finish(now, cpu, &mut poke);
        poke.remove(cpu);
        Decision { next: self.cpus[cpu.index()].current, until, poke }
    }

    /// Gives a unit that is nowhere a CPU to wait for. Returns that CPU when it must be told.
    pub(crate) fn place(&mut self, now: u64, id: UnitId) -> Option<Cpu> {
        let Some(cpu) = self.choose_cpu(id) else {
            self.strand(id);
            return None;
        };
        self.account(now, cpu);
        self.enqueue(cpu, id);
        let due = self.deadline(now, cpu)?;
        let state = &mut self.cpus[cpu.index()];
        if state.pending || state.until.is_some_and(|until| until <= due) {
            return None;
        }
        state.pending = true;
        state.due = due;
        Some(cpu)
    }

    /// Returns the best CPU for a unit to wait for: an idle one, else its last one, else the one with
    /// the least waiting; each time rather one of its soft affinity.
    fn choose_cpu(&self, id: UnitId) -> Option<Cpu> {
        let unit = self.units.get(&id)?;
        let allowed = unit.affinity.hard.and(&self.online);
        let liked = allowed.and(&unit.affinity.soft);
        if !self.idle.is_empty() {
            let idle = self.idle.and(&liked).first_from(unit.home);
            if let Some(cpu) = idle.or_else(|| self.idle.and(&allowed).first_from(unit.home)) {
                return Some(cpu);
            }
        }
        let best = if liked.is_empty() { allowed } else { liked };
        if best.contains(unit.home) && !unit.fresh {
            return Some(unit.home);
        }
        let load = |cpu: &Cpu| {
            let state = &self.cpus[cpu.index()];
            state.queue.len() + usize::from(state.current.is_some())
        };
        best.iter().min_by_key(load)
    }

    /// Puts a unit that is nowhere into a CPU's queue. What it may claim or owe for its past is
    /// bounded, so that neither can starve others or itself.
    fn enqueue(&mut self, cpu: Cpu, id: UnitId) {
        let reference = self.balance.reference();
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        let weight = self.groups.get(&unit.group).map_or(1, |group| group.weight);
        let state = &mut self.cpus[cpu.index()];
        let claim = if unit.fresh { 0 } else { Vtime::from(self.params.slice_ns) };
        let debt = charge(2 * self.params.slice_ns, weight) + Vtime::from(self.params.slice_ns);
        let empty = state.is_empty();
        let middle = match reference {
            Some(reference) if empty => reference,
            _ => state.base + state.floor,
        };
        let vtime = unit.vtime.clamp(middle - claim, middle + debt);
        unit.vtime = vtime - state.base;
        unit.fresh = false;
        unit.home = cpu;
        unit.place = Place::Queued(cpu);
        if empty {
            state.floor = unit.vtime;
        }
        state.queue.insert((unit.vtime, id), unit.pinned);
        self.idle.remove(cpu);
        self.lone.remove(cpu);
        self.publish(cpu);
    }

    /// Lets the units run again whose groups have got budget.
    fn unpark(&mut self, now: u64, cpu: Cpu, poke: &mut CpuSet) {
        while let Some((at, id)) = self.cpus[cpu.index()].parked.first().copied() {
            if at > now {
                break;
            }
            self.detach(id);
            self.place(now, id).into_iter().for_each(|cpu| poke.insert(cpu));
        }
    }

    /// Moves the base of a CPU whose virtual times are far from everybody else's: they then say
    /// nothing about who is entitled to what, only about what the CPU did long ago.
    fn rebase(&mut self, cpu: Cpu) {
        let (Some(reference), Some(own)) = (self.balance.reference(), self.front(cpu)) else {
            return;
        };
        let limit = 10 * Vtime::from(self.params.slice_ns);
        let ahead = own - reference;
        let shift = ahead.clamp(-limit, limit) - ahead;
        if shift != 0 {
            self.cpus[cpu.index()].base += shift;
            self.publish(cpu);
        }
    }

    /// Returns the virtual time of the unit on a CPU that is furthest behind, running or waiting.
    fn front(&self, cpu: Cpu) -> Option<Vtime> {
        let state = &self.cpus[cpu.index()];
        let current = state.current.and_then(|id| self.units.get(&id)).map(|unit| unit.vtime);
        let head = state.queue.head().map(|(vtime, _)| vtime);
        let first = match (current, head) {
            (Some(current), Some(head)) => current.min(head),
            (current, head) => current.or(head)?,
        };
        Some(state.base + first)
    }

    /// Takes the current unit off the CPU if it may not go on here.
    fn settle_current(&mut self, now: u64, cpu: Cpu, poke: &mut CpuSet) {
        let Some(id) = self.cpus[cpu.index()].current else {
            return;
        };
        let Some(unit) = self.units.get(&id) else {
            return;
        };
        if !unit.affinity.hard.contains(cpu) {
            self.detach(id);
            self.place(now, id).into_iter().for_each(|cpu| poke.insert(cpu));
        } else if !self.has_budget(now, id) {
            self.detach(id);
            self.park(cpu, id);
        }
    }

    fn has_budget(&mut self, now: u64, id: UnitId) -> bool {
        let Some(unit) = self.units.get(&id) else {
            return false;
        };
        let Some(group) = self.groups.get_mut(&unit.group) else {
            return false;
        };
        group.refill(now, self.params.cap_period_ns);
        group.has_budget()
    }

    /// Makes the unit current that shall run. Units whose group has run out are set aside on the way.
    fn choose(&mut self, now: u64, cpu: Cpu, poke: &mut CpuSet) {
        while let Some(id) = self.candidate(now, cpu) {
            if self.cpus[cpu.index()].current == Some(id) {
                return;
            }
            self.detach(id);
            if self.has_budget(now, id) {
                let previous = self.cpus[cpu.index()].current;
                previous.map(|previous| self.detach(previous));
                self.dispatch(now, cpu, id);
                if let Some(previous) = previous {
                    self.requeue(now, cpu, previous, poke);
                }
                return;
            }
            self.park(cpu, id);
        }
    }

    /// Returns the unit that had best run on a CPU: the current one, one that waits here, or one that
    /// waits elsewhere.
    fn candidate(&self, now: u64, cpu: Cpu) -> Option<UnitId> {
        let state = &self.cpus[cpu.index()];
        let grain = Vtime::from(self.params.grain_ns);
        let head = state.queue.head();
        let current = state.current.and_then(|id| Some((self.units.get(&id)?.vtime, id)));
        let local: Option<Entry> = match (current, head) {
            (Some(_), Some(head)) if state.yielded => Some(head),
            (Some(current), _) if now.saturating_sub(state.dispatched) < self.params.ratelimit_ns => {
                return Some(current.1);
            }
            (Some(current), Some(head)) if head.0 + grain <= current.0 => Some(head),
            (Some(current), _) => Some(current),
            (None, head) => head,
        };
        let stolen = self.steal(cpu, local.map(|(vtime, _)| vtime + state.base));
        stolen.or(local.map(|(_, id)| id))
    }

    /// Returns a unit that waits for another CPU and had better run on this one, which would
    /// otherwise run a unit at the given virtual time, or idle.
    fn steal(&self, cpu: Cpu, own: Option<Vtime>) -> Option<UnitId> {
        let grain = Vtime::from(self.params.grain_ns);
        let reluctance = Vtime::from(self.params.slice_ns);
        let mut second = None;
        for (front, other) in self.balance.heads().take(STEAL_QUEUES) {
            if own.is_some_and(|own| front + grain > own) {
                break;
            }
            if other == cpu {
                continue;
            }
            let state = &self.cpus[other.index()];
            for (vtime, id) in state.queue.free().take(STEAL_UNITS) {
                let vtime = vtime + state.base;
                let Some(unit) = self.units.get(&id) else {
                    continue;
                };
                if !unit.affinity.hard.contains(cpu) || own.is_some_and(|own| vtime + grain > own) {
                    continue;
                }
                if unit.affinity.soft.contains(cpu) || !unit.affinity.soft.contains(other) {
                    return Some(id);
                }
                if own.is_none_or(|own| vtime + grain + reluctance <= own) {
                    second = second.or(Some(id));
                }
            }
        }
        second
    }

    /// Puts the unit that ran back: to an idle CPU that it may use, else into this one's queue.
    fn requeue(&mut self, now: u64, cpu: Cpu, id: UnitId, poke: &mut CpuSet) {
        let unit = if self.idle.is_empty() { None } else { self.units.get(&id) };
        let idle = unit.and_then(|unit| self.idle.and(&unit.affinity.hard).and(&unit.affinity.soft).first_from(cpu));
        match idle {
            Some(_) => self.place(now, id).into_iter().for_each(|cpu| poke.insert(cpu)),
            None => self.enqueue(cpu, id),
        }
    }

    fn dispatch(&mut self, now: u64, cpu: Cpu, id: UnitId) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        let state = &mut self.cpus[cpu.index()];
        unit.vtime -= state.base;
        unit.place = Place::Running(cpu);
        unit.home = cpu;
        if state.is_empty() {
            state.floor = unit.vtime;
        }
        state.current = Some(id);
        state.dispatched = now;
        state.accounted = now;
        if let Some(group) = self.groups.get_mut(&unit.group) {
            group.running += 1;
        }
    }

    /// Brings everything that depends on a CPU's decision up to date and says when the next is due.
    fn finish(&mut self, now: u64, cpu: Cpu, poke: &mut CpuSet) -> Option<u64> {
        let front = self.front(cpu);
        let state = &mut self.cpus[cpu.index()];
        if let Some(front) = front {
            state.floor = state.floor.max(front - state.base);
        }
        state.pending = false;
        state.yielded = false;
        let (idle, alone) = (state.current.is_none(), state.queue.is_empty());
        if idle {
            self.idle.insert(cpu)
        } else {
            self.idle.remove(cpu)
        };
        if !idle && alone {
            self.lone.insert(cpu)
        } else {
            self.lone.remove(cpu)
        };
        self.probe_lone(now, cpu, poke);
        let until = self.deadline(now, cpu);
        self.cpus[cpu.index()].until = until;
        until
    }

    /// Returns when a CPU must decide again: when its current unit has had enough compared with one
    /// that waits, or has used its group's budget, or when a parked unit may run.
    fn deadline(&self, now: u64, cpu: Cpu) -> Option<u64> {
        let state = &self.cpus[cpu.index()];
        let parked = state.parked.first().map(|(at, _)| *at);
        let Some(unit) = state.current.and_then(|id| self.units.get(&id)) else {
            let waiting = (!state.queue.is_empty()).then_some(now);
            return earlier(waiting, parked);
        };
        let group = self.groups.get(&unit.group);
        let weight = group.map_or(1, |group| group.weight);
        let turn = state.queue.head().map(|(head, _)| {
            let lead = head + Vtime::from(self.params.grain_ns) - unit.vtime;
            let at = now + time_for(lead, weight).min(self.params.slice_ns);
            at.max(state.dispatched + self.params.ratelimit_ns)
        });
        let spent = group.and_then(|group| group.grant()).map(|grant| now + grant);
        earlier(earlier(turn, spent), parked)
    }

    /// Pokes a CPU that runs a unit all alone while one that waits here is further behind. Such a CPU
    /// has no timer that would make it look.
    pub(crate) fn probe_lone(&mut self, now: u64, cpu: Cpu, poke: &mut CpuSet) {
        if self.lone.is_empty() {
            return;
        }
        let state = &self.cpus[cpu.index()];
        let Some((vtime, id)) = state.queue.free_head() else {
            return;
        };
        let wanted = vtime + state.base + Vtime::from(self.params.grain_ns);
        let Some(hard) = self.units.get(&id).map(|unit| unit.affinity.hard) else {
            return;
        };
        for _ in 0..LONE_PROBES {
            let Some(other) = self.lone.and(&hard).first_from(self.probe) else {
                return;
            };
            self.probe = Cpu((other.0 + 1) % crate::MAX_CPUS as u16);
            self.account(now, other);
            self.rebase(other);
            if self.front(other).is_some_and(|front| wanted <= front) {
                self.lone.remove(other);
                self.cpus[other.index()].pending = true;
                poke.insert(other);
                return;
            }
        }
    }
}

/// Returns the earlier of two times that may not come.
fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
