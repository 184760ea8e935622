// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queue of one CPU: a binary heap of deadlines that knows where each timer lies.
//!
//! What must hold: `place[t]` is the index in the heap of the one entry of timer `t`, or [`NOWHERE`].

use alloc::vec::Vec;

use hypercalls::{Errno, Result};

const NOWHERE: u32 = u32::MAX;

/// A heap of deadlines that knows where each timer lies.
#[derive(Debug)]
pub(super) struct Queue {
    heap: Vec<(u64, u32)>,
    place: Vec<u32>,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self { heap: Vec::new(), place: Vec::new() }
    }

    pub(super) fn make_room(&mut self, timers: usize) -> Result<()> {
        let room = |_| Errno::ENOMEM;
        self.place.try_reserve(timers.saturating_sub(self.place.len())).map_err(room)?;
        self.heap.try_reserve(timers.saturating_sub(self.heap.len())).map_err(room)?;
        self.place.resize(timers.max(self.place.len()), NOWHERE);
        Ok(())
    }

    #[inline(always)]
    fn put(&mut self, at: usize, item: (u64, u32)) {
        self.heap[at] = item;
        self.place[item.1 as usize] = at as u32;
    }

    #[inline]
    fn up(&mut self, mut at: usize) {
        let item = self.heap[at];
        while at > 0 && item.0 < self.heap[(at - 1) / 2].0 {
            let parent = self.heap[(at - 1) / 2];
            self.put(at, parent);
            at = (at - 1) / 2;
        }
        self.put(at, item);
    }

    fn down(&mut self, mut at: usize) {
        let item = self.heap[at];
        loop {
            let mut child = 2 * at + 1;
            if child >= self.heap.len() {
                break;
            }
            if child + 1 < self.heap.len() && self.heap[child + 1].0 < self.heap[child].0 {
                child += 1;
            }
            if self.heap[child].0 >= item.0 {
                break;
            }
            let smaller = self.heap[child];
            self.put(at, smaller);
            at = child;
        }
        self.put(at, item);
    }

    #[inline]
    pub(super) fn arm(&mut self, timer: u32, deadline: u64) {
        let Some(&place) = self.place.get(timer as usize) else { return };
        if place == NOWHERE {
            let last = self.heap.len();
            self.heap.push((deadline, timer));
            self.up(last);
        } else if let Some(item) = self.heap.get_mut(place as usize) {
            let sooner = deadline < item.0;
            item.0 = deadline;
            if sooner { self.up(place as usize) } else { self.down(place as usize) }
        }
    }

    #[inline]
    pub(super) fn stop(&mut self, timer: u32) {
        if let Some(&place) = self.place.get(timer as usize)
            && place != NOWHERE
        {
            self.take_out(timer, place as usize);
        }
    }

    #[inline]
    fn take_out(&mut self, timer: u32, at: usize) {
        self.place[timer as usize] = NOWHERE;
        let Some(moved) = self.heap.pop() else { return };
        if at < self.heap.len() {
            self.put(at, moved);
            self.up(at);
            self.down(self.place[moved.1 as usize] as usize);
        }
    }

    /// Returns when a timer is to fire, if it is here.
    pub(super) fn deadline_of(&self, timer: u32) -> Option<u64> {
        let place = self.place.get(timer as usize).filter(|place| **place != NOWHERE)?;
        self.heap.get(*place as usize).map(|item| item.0)
    }

    /// All deadlines and their timers, in no order.
    pub(super) fn all(&self) -> &[(u64, u32)] {
        &self.heap
    }

    /// Returns the first deadline, `u64::MAX` when there is none.
    #[inline]
    pub(super) fn first(&self) -> u64 {
        self.heap.first().map_or(u64::MAX, |first| first.0)
    }

    /// Takes out the first timer if it is due; tells the first deadline of those that stay.
    #[inline(always)]
    pub(super) fn take_due(&mut self, now: u64) -> (Option<u32>, u64) {
        let due = self.heap.first().filter(|first| first.0 <= now).map(|first| first.1);
        if let Some(timer) = due {
            self.take_out(timer, 0);
        }
        (due, self.first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_out_in_order_whatever_is_armed_and_stopped() {
        let seed = std::env::var("XENITH_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(42u64);
        std::println!("seed {seed}");
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let mut queue = Queue::new();
        queue.make_room(50).expect("memory");
        let mut model = std::collections::BTreeMap::new();
        for _ in 0..20_000 {
            let timer = (random() % 50) as u32;
            match random() % 4 {
                0 => {
                    queue.stop(timer);
                    model.remove(&timer);
                }
                1 => {
                    let now = random() % 1000;
                    while let (Some(fired), next) = queue.take_due(now) {
                        let deadline = model.remove(&fired).expect("only armed timers fire");
                        assert!(deadline <= now);
                        assert!(model.values().all(|d| *d >= deadline));
                        assert_eq!(model.values().min().copied().unwrap_or(u64::MAX), next);
                    }
                    assert!(model.values().all(|d| *d > now));
                }
                _ => {
                    let deadline = random() % 1000;
                    queue.arm(timer, deadline);
                    model.insert(timer, deadline);
                }
            }
        }
    }
}
