// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queue of FIFO events: senders on several CPUs, and a guest that masks, unmasks and takes events, in all orders.
//!
//! Whatever the order, in the end no event is pending, unmasked and not taken, and none is in a queue that its vCPU would
//! not look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use hypercalls::event::FIFO_LINK_MASK;
use hypervisor::events::fifo::queue::{self, Added, BUSY, LINKED, MASKED, PENDING, Queue, Word};

use crate::explore::{Body, explore, step, wait_until};

/// A word that lets others go first before each access.
#[derive(Debug, Default)]
struct Shared(AtomicU32);

impl Word for Shared {
    fn load(&self) -> u32 {
        step();
        self.0.load(SeqCst)
    }
    fn store(&self, value: u32) {
        step();
        self.0.store(value, SeqCst);
    }
    fn set(&self, bit: u32) -> bool {
        step();
        self.0.fetch_or(bit, SeqCst) & bit != 0
    }
    fn clear(&self, bit: u32) {
        step();
        self.0.fetch_and(!bit, SeqCst);
    }
    fn replace(&self, old: u32, new: u32) -> Result<(), u32> {
        step();
        self.0.compare_exchange(old, new, SeqCst, SeqCst).map(|_| ())
    }
}

/// A lock around one of the queues.
struct Locked {
    taken: AtomicBool,
    queue: std::sync::Mutex<Queue>,
}

impl Locked {
    fn new() -> Self {
        Self { taken: AtomicBool::new(false), queue: std::sync::Mutex::new(Queue::EMPTY) }
    }
}

const PORTS: usize = 4;

/// A domain of two vCPUs with a queue each.
struct World {
    words: [Shared; PORTS],
    queues: [Locked; 2],
    heads: [Shared; 2],
    ready: [Shared; 2],
    upcall: [Shared; 2],
    /// The queue to which each port's next event goes, and that of its last one.
    wanted: [AtomicU32; PORTS],
    last: [AtomicU32; PORTS],
    senders: AtomicU32,
    taken: [AtomicU32; PORTS],
}

impl World {
    fn new(senders: u32) -> Arc<Self> {
        Arc::new(Self {
            words: Default::default(),
            queues: [Locked::new(), Locked::new()],
            heads: Default::default(),
            ready: Default::default(),
            upcall: Default::default(),
            wanted: Default::default(),
            last: Default::default(),
            senders: AtomicU32::new(senders),
            taken: Default::default(),
        })
    }

    fn acquire(self: &Arc<Self>, n: usize) {
        let world = self.clone();
        step();
        wait_until(move || !world.queues[n].taken.load(SeqCst));
        assert!(!self.queues[n].taken.swap(true, SeqCst));
    }

    /// What `Fifo::add` does.
    fn add(self: &Arc<Self>, port: u32) {
        let at = port as usize;
        let (last, wanted) = (self.last[at].load(SeqCst) as usize, self.wanted[at].load(SeqCst) as usize);
        self.acquire(last.min(wanted));
        if last != wanted {
            self.acquire(last.max(wanted));
        }
        assert_eq!(self.last[at].load(SeqCst) as usize, last, "one sender a port that moves");
        let added = {
            let mut new = self.queues[wanted].queue.lock().expect("nobody panics");
            let mut old = (last != wanted).then(|| self.queues[last].queue.lock().expect("nobody panics"));
            let word_of = |port: u32| self.words.get(port as usize);
            new.add(old.as_deref_mut(), port, word_of, &self.heads[wanted])
        };
        if added != Added::Not {
            self.last[at].store(wanted as u32, SeqCst);
        }
        for n in [last, wanted] {
            self.queues[n].taken.store(false, SeqCst);
        }
        if added == Added::First && !self.ready[wanted].set(1) {
            self.upcall[wanted].set(1);
        }
    }

    fn send(self: &Arc<Self>, port: u32) {
        queue::raise(&self.words[port as usize], || self.add(port));
    }

    fn sender(self: &Arc<Self>, ports: &'static [u32]) -> Body {
        let world = self.clone();
        Box::new(move || {
            ports.iter().for_each(|port| world.send(*port));
            world.senders.fetch_sub(1, SeqCst);
        })
    }

    /// A vCPU that takes events until all senders are done and it has no upcall due.
    fn taker(self: &Arc<Self>, vcpu: usize) -> Body {
        let world = self.clone();
        Box::new(move || {
            let mut head = 0;
            loop {
                let other = world.clone();
                let due = move || other.upcall[vcpu].0.load(SeqCst) != 0 || other.senders.load(SeqCst) == 0;
                wait_until(due);
                if world.upcall[vcpu].0.swap(0, SeqCst) == 0 {
                    return;
                }
                while world.ready[vcpu].0.load(SeqCst) != 0 {
                    world.ready[vcpu].clear(1);
                    while !world.take(vcpu, &mut head) {}
                }
            }
        })
    }

    /// Takes one event as the ABI says; true at the end of the queue.
    fn take(&self, vcpu: usize, head: &mut u32) -> bool {
        let port = if *head == 0 { self.heads[vcpu].load() } else { *head };
        let word = &self.words[port as usize];
        let mut seen = word.load();
        while let Err(now) = word.replace(seen, seen & !(LINKED | FIFO_LINK_MASK)) {
            seen = now;
        }
        *head = seen & FIFO_LINK_MASK;
        if word.load() & (PENDING | MASKED) == PENDING {
            word.clear(PENDING);
            assert!(port == 1 || vcpu == 0, "port {port} was taken on another vCPU");
            self.taken[port as usize].fetch_add(1, SeqCst);
        }
        *head == 0
    }

    /// Masks a port and unmasks it, as the ABI says.
    fn mask_and_unmask(self: &Arc<Self>, port: u32) {
        let word = &self.words[port as usize];
        word.set(MASKED);
        let mut seen = word.load();
        loop {
            if seen & PENDING != 0 {
                return queue::unmask(word, || self.add(port));
            }
            let old = seen & !BUSY;
            match word.replace(old, old & !MASKED) {
                Ok(()) => return,
                Err(now) => {
                    // It spins while the word is BUSY; here it waits.
                    let world = self.clone();
                    wait_until(move || world.words[port as usize].0.load(SeqCst) & BUSY == 0);
                    seen = if now & BUSY != 0 { word.load() } else { now };
                }
            }
        }
    }

    fn check(&self, ports: &[u32]) {
        for port in ports {
            let word = self.words[*port as usize].0.load(SeqCst);
            assert_eq!(word, 0, "port {port}: {word:#x}");
            assert_ne!(self.taken[*port as usize].load(SeqCst), 0, "port {port} was never taken");
        }
    }
}

#[test]
fn events_of_two_senders_are_taken() {
    let runs = explore(
        2,
        || {
            let world = World::new(2);
            let bodies = vec![world.sender(&[1, 2]), world.sender(&[2, 3]), world.taker(0)];
            (world, bodies)
        },
        |world| world.check(&[1, 2, 3]),
    );
    println!("{runs} orders");
    assert!(runs > 500);
}

#[test]
fn an_event_that_is_masked_meanwhile_is_taken() {
    let runs = explore(
        2,
        || {
            let world = World::new(2);
            let masks = world.clone();
            let mask: Body = Box::new(move || {
                masks.mask_and_unmask(1);
                masks.senders.fetch_sub(1, SeqCst);
            });
            let bodies = vec![world.sender(&[1, 2]), mask, world.taker(0)];
            (world, bodies)
        },
        |world| world.check(&[1, 2]),
    );
    println!("{runs} orders");
    assert!(runs > 500);
}

#[test]
fn an_event_that_moves_between_queues_takes_none_with_it() {
    let runs = explore(
        2,
        || {
            let world = World::new(2);
            let moves = world.clone();
            let mover: Body = Box::new(move || {
                moves.send(1);
                moves.wanted[1].store(1, SeqCst);
                moves.send(1);
                moves.senders.fetch_sub(1, SeqCst);
            });
            let bodies = vec![mover, world.sender(&[2]), world.taker(0), world.taker(1)];
            (world, bodies)
        },
        |world| world.check(&[1, 2]),
    );
    println!("{runs} orders");
    assert!(runs > 500);
}
