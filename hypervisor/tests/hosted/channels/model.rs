// SPDX-License-Identifier: MIT OR Apache-2.0
//! What should be: a model of ports, words and queues in which nothing is clever.

use std::collections::{BTreeMap, VecDeque};

use hypercalls::event::VirqScope;
use hypercalls::{DomId, Errno, VcpuId, Virq};
use hypervisor::events::{self, State};
use mm::hosted::Random;

use super::guest::{Guest, LINKED, MASKED, PENDING};

#[derive(Clone, Copy, Debug)]
struct Bound {
    state: State,
    vcpu: u32,
    priority: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Word {
    pending: bool,
    masked: bool,
    linked: bool,
}

#[derive(Default)]
struct Side {
    ports: BTreeMap<u32, Bound>,
    words: BTreeMap<u32, Word>,
    queues: BTreeMap<(u32, u32), VecDeque<u32>>,
    /// It has changed to the FIFO form.
    fifo: bool,
}

/// Two guests and what should be true of them.
pub(crate) struct Model {
    guests: [Guest; 2],
    sides: [Side; 2],
}

const VCPUS: u64 = 2;
/// Ports that the play opens at most: more would only make it slower.
const MANY: usize = 40;

impl Model {
    pub(crate) fn new(guests: [Guest; 2]) -> Self {
        Self { guests, sides: [Side::default(), Side::default()] }
    }

    /// Does one thing to both.
    pub(crate) fn step(&mut self, random: &mut Random) {
        let who = random.below(2) as usize;
        let port = self.any_port(who, random);
        let wrong = u64::from(random.one_in(20));
        let vcpu = random.below(VCPUS + wrong) as u32;
        match random.below(30) {
            0 | 1 => self.alloc_unbound(who, random),
            2..=4 => self.bind_interdomain(who, random),
            5 => self.bind_virq(who, random, vcpu),
            6 => self.bind_ipi(who, vcpu),
            7 | 8 => self.close(who, port),
            9..=15 => self.send(who, port),
            16 | 17 => self.unmask(who, port),
            18 => self.mask(who, port),
            19 => self.bind_vcpu(who, port, vcpu),
            20 | 21 => self.set_priority(who, port, random.below(17) as u32),
            22 => self.init_control(who, vcpu),
            23 => self.expand(who),
            24 => {
                if random.one_in(20) {
                    self.reset(who, random);
                }
            }
            _ => self.take(who, vcpu % VCPUS as u32, random.below(6) as usize),
        }
    }

    fn any_port(&self, who: usize, random: &mut Random) -> u32 {
        let open: Vec<u32> = self.sides[who].ports.keys().copied().collect();
        if open.is_empty() || random.one_in(10) {
            return random.pick(&[0, 1, 5, 255, 256, 1023, 1024, 4095, 4096, 131_071, 131_072, u32::MAX]);
        }
        random.pick(&open)
    }

    fn is_full(&self, who: usize) -> bool {
        self.sides[who].ports.len() >= MANY
    }

    /// Notes a new port; it is none that is open or still in a queue.
    fn open(&mut self, who: usize, port: u32, state: State, vcpu: u32) {
        let side = &mut self.sides[who];
        assert!(side.words.get(&port).is_none_or(|word| !word.linked), "{port} is still in a queue");
        let old = side.ports.insert(port, Bound { state, vcpu, priority: 7 });
        assert!(old.is_none() && port != 0, "{port} was open");
    }

    fn alloc_unbound(&mut self, who: usize, random: &mut Random) {
        if self.is_full(who) {
            return;
        }
        let remote = DomId(random.below(3) as u16);
        let port = events::alloc_unbound(&self.guests[who].domain, remote).expect("there is room");
        self.open(who, port, State::Unbound { remote }, 0);
    }

    fn bind_interdomain(&mut self, who: usize, random: &mut Random) {
        let remote = random.below(2) as usize;
        let there = self.any_port(remote, random);
        if self.is_full(who) {
            return;
        }
        let us = DomId(who as u16);
        let fits = self.sides[remote].ports.get(&there).is_some_and(|b| b.state == State::Unbound { remote: us });
        let result = events::bind_interdomain(&self.guests[who].domain, DomId(remote as u16), there);
        assert_eq!(result.is_ok(), fits, "{result:?}");
        let Ok(port) = result else { return assert_eq!(result, Err(Errno::EINVAL)) };
        self.open(who, port, State::Interdomain { remote: DomId(remote as u16), port: there }, 0);
        let bound = self.sides[remote].ports.get_mut(&there).expect("it waits");
        bound.state = State::Interdomain { remote: us, port };
        self.raise(who, port);
    }

    fn bind_virq(&mut self, who: usize, random: &mut Random, vcpu: u32) {
        let virq = Virq(random.below(26) as u32);
        let taken = self.sides[who]
            .ports
            .values()
            .any(|b| b.state == State::Virq(virq) && (virq.scope() != Some(VirqScope::Vcpu) || b.vcpu == vcpu));
        let expected = match virq.scope() {
            None => Err(Errno::EINVAL),
            Some(scope) if scope != VirqScope::Vcpu && vcpu != 0 => Err(Errno::EINVAL),
            _ if u64::from(vcpu) >= VCPUS => Err(Errno::ENOENT),
            _ if taken => Err(Errno::EEXIST),
            _ => Ok(()),
        };
        if expected.is_ok() && self.is_full(who) {
            return;
        }
        let result = events::bind_virq(&self.guests[who].domain, virq, VcpuId(vcpu));
        assert_eq!(result.map(|_| ()), expected, "{virq:?} {vcpu}");
        if let Ok(port) = result {
            self.open(who, port, State::Virq(virq), vcpu);
        }
    }

    fn bind_ipi(&mut self, who: usize, vcpu: u32) {
        if self.is_full(who) {
            return;
        }
        match events::bind_ipi(&self.guests[who].domain, VcpuId(vcpu)) {
            Ok(port) => self.open(who, port, State::Ipi, vcpu),
            Err(error) => assert_eq!((error, u64::from(vcpu)), (Errno::ENOENT, VCPUS)),
        }
    }

    fn close(&mut self, who: usize, port: u32) {
        let result = events::close(&self.guests[who].domain, port);
        let Some(bound) = self.sides[who].ports.remove(&port) else { return assert_eq!(result, Err(Errno::EINVAL)) };
        assert_eq!(result, Ok(()));
        self.closed(who, port, bound);
    }

    fn closed(&mut self, who: usize, port: u32, bound: Bound) {
        if let State::Interdomain { remote, port: there } = bound.state {
            // One that is being closed with it is gone already.
            if let Some(other) = self.sides[usize::from(remote.0)].ports.get_mut(&there) {
                other.state = State::Unbound { remote: DomId(who as u16) };
            }
        }
        self.word(who, port).pending = false;
    }

    fn word(&mut self, who: usize, port: u32) -> &mut Word {
        self.sides[who].words.entry(port).or_default()
    }

    fn send(&mut self, who: usize, port: u32) {
        let result = events::send(&self.guests[who].domain, port);
        match self.sides[who].ports.get(&port).map(|b| b.state) {
            Some(State::Ipi) => self.raise(who, port),
            Some(State::Interdomain { remote, port }) => self.raise(usize::from(remote.0), port),
            Some(State::Unbound { .. }) => {}
            _ => return assert_eq!(result, Err(Errno::EINVAL)),
        }
        assert_eq!(result, Ok(()));
    }

    fn raise(&mut self, who: usize, port: u32) {
        self.word(who, port).pending = true;
        self.link(who, port);
    }

    /// Adds an event to its queue if it is due.
    fn link(&mut self, who: usize, port: u32) {
        let covered = (port as usize) < self.guests[who].pages * 1024;
        let Some(bound) = self.sides[who].ports.get(&port).copied() else { return };
        let word = *self.word(who, port);
        if covered && word.pending && !word.masked && !word.linked && self.guests[who].controls[bound.vcpu as usize] {
            self.word(who, port).linked = true;
            self.sides[who].queues.entry((bound.vcpu, bound.priority)).or_default().push_back(port);
        }
    }

    fn unmask(&mut self, who: usize, port: u32) {
        let result = events::unmask(&self.guests[who].domain, port);
        if result == Err(Errno::EINVAL) {
            return assert!(!self.sides[who].ports.contains_key(&port));
        }
        assert_eq!(result, Ok(()));
        if self.sides[who].fifo && self.sides[who].ports.contains_key(&port) {
            if (port as usize) < self.guests[who].pages * 1024 {
                self.word(who, port).masked = false;
            }
            self.link(who, port);
        }
    }

    /// The guest masks a port, by a store.
    fn mask(&mut self, who: usize, port: u32) {
        if let Some(word) = self.guests[who].word(port) {
            self.guests[who].set_word(port, word | MASKED);
            self.word(who, port).masked = true;
        }
    }

    fn bind_vcpu(&mut self, who: usize, port: u32, vcpu: u32) {
        let result = events::bind_vcpu(&self.guests[who].domain, port, VcpuId(vcpu));
        let expected = match self.sides[who].ports.get_mut(&port) {
            _ if u64::from(vcpu) >= VCPUS => Err(Errno::ENOENT),
            None | Some(Bound { state: State::Ipi, .. }) => Err(Errno::EINVAL),
            Some(Bound { state: State::Virq(v), .. }) if v.scope() == Some(VirqScope::Vcpu) => Err(Errno::EINVAL),
            Some(bound) => {
                bound.vcpu = vcpu;
                Ok(())
            }
        };
        assert_eq!(result, expected);
    }

    fn set_priority(&mut self, who: usize, port: u32, priority: u32) {
        let result = events::set_priority(&self.guests[who].domain, port, priority);
        let side = &mut self.sides[who];
        match side.ports.get_mut(&port) {
            Some(_) if !side.fifo => assert_eq!(result, Err(Errno::ENOSYS)),
            Some(_) if priority > 15 => assert_eq!(result, Err(Errno::EINVAL)),
            Some(bound) => {
                assert_eq!(result, Ok(()));
                bound.priority = priority;
            }
            None => assert!(matches!(result, Err(Errno::EINVAL | Errno::EACCES | Errno::ENOSYS)), "{result:?}"),
        }
    }

    fn init_control(&mut self, who: usize, vcpu: u32) {
        let expected = match self.guests[who].controls.get(vcpu as usize) {
            None => Err(Errno::ENOENT),
            Some(true) => Err(Errno::EINVAL),
            Some(false) => Ok(()),
        };
        assert_eq!(self.guests[who].init_control(VcpuId(vcpu)), expected);
        self.sides[who].fifo |= expected.is_ok();
    }

    fn expand(&mut self, who: usize) {
        if self.guests[who].pages == 2 {
            return;
        }
        let result = self.guests[who].expand();
        assert_eq!(result.is_ok(), self.sides[who].fifo, "{result:?}");
        if result.is_ok() {
            // In the order of their numbers.
            let last = self.guests[who].pages as u32 * 1024;
            (last - 1024..last).for_each(|port| self.link(who, port));
        }
    }

    /// Takes events off a vCPU's queues, the most urgent queue first.
    fn take(&mut self, who: usize, vcpu: u32, count: usize) {
        let handled = self.guests[who].take(VcpuId(vcpu), count);
        let mut expected = Vec::new();
        for _ in 0..count {
            let mut queues = self.sides[who].queues.range_mut((vcpu, 0)..(vcpu, 16));
            let Some(port) = queues.find_map(|(_, queue)| queue.pop_front()) else { break };
            let word = self.word(who, port);
            word.linked = false;
            if word.pending && !word.masked {
                word.pending = false;
                expected.push(port);
            }
        }
        assert_eq!(handled, expected);
    }

    fn reset(&mut self, who: usize, random: &mut Random) {
        let mut goes_on = false;
        loop {
            arch::cpu::preempt_after(Some(random.below(20)));
            let result = events::reset(&self.guests[who].domain, goes_on);
            arch::cpu::preempt_after(None);
            hypervisor::grace::pass();
            match result {
                Ok(()) => break,
                Err(error) => assert_eq!(error, Errno::ERESTART),
            }
            goes_on = true;
        }
        for (port, bound) in core::mem::take(&mut self.sides[who].ports) {
            self.closed(who, port, bound);
        }
        self.sides[who] = Side::default();
        self.guests[who].forget();
    }

    /// Compares everything.
    pub(crate) fn check(&self) {
        for (guest, side) in self.guests.iter().zip(&self.sides) {
            let open: Vec<u32> = guest.domain.events.iter().map(|(port, _)| port).collect();
            assert_eq!(open, side.ports.keys().copied().collect::<Vec<_>>());
            for (port, bound) in &side.ports {
                let channel = guest.domain.events.get(*port).expect("it is open");
                assert_eq!((channel.state, channel.vcpu.0), (bound.state, bound.vcpu), "port {port}");
                assert_eq!(u32::from(channel.priority), bound.priority, "port {port}");
                let pending = side.words.get(port).is_some_and(|word| word.pending);
                assert!(!side.fifo || events::is_pending(&guest.domain, *port) == pending, "port {port}");
            }
            for (port, word) in &side.words {
                if let Some(seen) = guest.word(*port) {
                    let bit = |bit| seen & bit != 0;
                    let seen = Word { pending: bit(PENDING), masked: bit(MASKED), linked: bit(LINKED) };
                    assert_eq!(seen, *word, "port {port}");
                }
            }
        }
    }

    /// Takes what is left, and ends.
    pub(crate) fn finish(mut self) {
        for who in 0..2 {
            for vcpu in 0..VCPUS as u32 {
                self.take(who, vcpu, 500);
            }
            assert!(self.sides[who].words.values().all(|word| !word.linked));
        }
        self.check();
    }
}
