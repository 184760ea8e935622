// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who listens to an interrupt, and when its line is masked: pure logic.
//!
//! A level-triggered line is masked from its arrival until every listener has said that it is done. An edge-triggered one, and
//! a message, is not masked: what comes meanwhile is merged in the event channel. Whatever it is, it is masked while nobody
//! listens or while it is held back for coming too often.
//!
//! Invariant: [`Flow::in_flight`] is the number of listeners that wait; it is 0 unless the line is level-triggered.

use arrayvec::ArrayVec;
use hypercalls::{Errno, Result};

/// How many may share a line.
pub const MOST_LISTENERS: usize = 8;

/// Somebody who listens.
pub trait Listener {
    /// What tells listeners apart.
    type Key: PartialEq;
    /// Returns this one's.
    fn key(&self) -> Self::Key;
}

#[derive(Debug)]
struct Place<L> {
    listener: L,
    /// It was told of an interrupt and has not said that it is done.
    waiting: bool,
}

/// The state of one interrupt.
#[derive(Debug)]
pub struct Flow<L> {
    is_level: bool,
    places: ArrayVec<Place<L>, MOST_LISTENERS>,
    /// All who listen agreed to share.
    shareable: bool,
    in_flight: u8,
    held: bool,
    /// What the hardware was told last.
    masked: bool,
}

/// What the hardware is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Hold the line back.
    Mask,
    /// Let it through.
    Unmask,
}

impl<L: Listener> Flow<L> {
    /// Nobody listens, the line is masked.
    pub const fn new() -> Self {
        Self {
            is_level: false,
            places: ArrayVec::new_const(),
            shareable: false,
            in_flight: 0,
            held: false,
            masked: true,
        }
    }

    /// Says how the line is triggered. Only while nobody listens.
    pub fn set_level(&mut self, is_level: bool) {
        debug_assert!(self.places.is_empty());
        self.is_level = is_level;
    }

    /// True when listeners must say that they are done.
    pub fn is_level(&self) -> bool {
        self.is_level
    }

    /// Those who listen.
    pub fn listeners(&self) -> impl Iterator<Item = &L> {
        self.places.iter().map(|p| &p.listener)
    }

    /// As [`Flow::listeners`], to be changed.
    pub fn listener_mut(&mut self, key: &L::Key) -> Option<&mut L> {
        self.places.iter_mut().map(|p| &mut p.listener).find(|l| l.key() == *key)
    }

    /// Returns how many listen.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// True while the hardware holds the line back, as far as [`Flow::settle`] was obeyed.
    pub fn is_masked(&self) -> bool {
        self.masked
    }

    /// Returns how many have been told and are not done.
    pub fn in_flight(&self) -> u8 {
        self.in_flight
    }

    /// True while it is held back for coming too often.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Adds a listener.
    ///
    /// # Errors
    /// `EBUSY` when somebody does not share, or too many do.
    pub fn bind(&mut self, listener: L, shares: bool) -> Result<()> {
        let may_join = self.places.is_empty() || shares && self.shareable;
        if !may_join {
            return Err(Errno::EBUSY);
        }
        self.places.try_push(Place { listener, waiting: false }).map_err(|_| Errno::EBUSY)?;
        self.shareable = shares;
        Ok(())
    }

    /// Removes a listener; what it waited for it is done with. `None` when it does not listen.
    pub fn unbind(&mut self, key: &L::Key) -> Option<L> {
        let at = self.places.iter().position(|p| p.listener.key() == *key)?;
        let place = self.places.remove(at);
        self.in_flight -= u8::from(place.waiting);
        if self.places.is_empty() {
            self.held = false;
        }
        Some(place.listener)
    }

    /// An interrupt has come: all listeners are told.
    #[inline]
    pub fn arrive(&mut self) {
        if self.is_level {
            self.places.iter_mut().for_each(|p| p.waiting = true);
            self.in_flight = self.places.len() as u8;
        }
    }

    /// A listener says that it is done.
    pub fn done(&mut self, key: &L::Key) {
        if let Some(place) = self.places.iter_mut().find(|p| p.listener.key() == *key) {
            self.in_flight -= u8::from(core::mem::take(&mut place.waiting));
        }
    }

    /// Holds the line back, or not any more.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Returns what the hardware must be told so that it is as it should be.
    #[inline]
    pub fn settle(&mut self) -> Option<Change> {
        let masked = self.places.is_empty() || self.held || self.in_flight > 0;
        if masked == core::mem::replace(&mut self.masked, masked) {
            return None;
        }
        Some(if masked { Change::Mask } else { Change::Unmask })
    }
}

impl<L: Listener> Default for Flow<L> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    impl Listener for u32 {
        type Key = u32;
        fn key(&self) -> u32 {
            *self
        }
    }

    fn level() -> Flow<u32> {
        let mut flow = Flow::new();
        flow.set_level(true);
        flow
    }

    #[test]
    fn a_shared_level_line_waits_for_all() {
        let mut flow = level();
        assert_eq!(flow.settle(), None, "masked to begin with");
        flow.bind(1, true).expect("free");
        flow.bind(2, true).expect("shared");
        assert_eq!(flow.settle(), Some(Change::Unmask));
        flow.arrive();
        assert_eq!((flow.settle(), flow.in_flight()), (Some(Change::Mask), 2));
        flow.done(&1);
        flow.done(&1);
        flow.done(&9);
        assert_eq!((flow.settle(), flow.in_flight()), (None, 1));
        assert_eq!(flow.unbind(&2), Some(2), "one that goes is done");
        assert_eq!(flow.settle(), Some(Change::Unmask));
        assert_eq!((flow.unbind(&2), flow.unbind(&1)), (None, Some(1)));
        assert_eq!(flow.settle(), Some(Change::Mask));
    }

    #[test]
    fn edges_are_not_masked_unless_held() {
        let mut flow = Flow::new();
        flow.bind(1, false).expect("free");
        assert_eq!(flow.settle(), Some(Change::Unmask));
        flow.arrive();
        assert_eq!(flow.settle(), None);
        flow.hold(true);
        assert_eq!(flow.settle(), Some(Change::Mask));
        flow.done(&1);
        assert_eq!(flow.settle(), None);
        flow.hold(false);
        assert_eq!(flow.settle(), Some(Change::Unmask));
    }

    #[test]
    fn sharing_takes_all() {
        let mut flow = level();
        flow.bind(1, false).expect("free");
        assert_eq!(flow.bind(2, true), Err(Errno::EBUSY), "the first does not share");
        flow.unbind(&1);
        flow.bind(1, true).expect("free");
        assert_eq!(flow.bind(2, false), Err(Errno::EBUSY), "the second does not share");
        for n in 2..=MOST_LISTENERS as u32 {
            flow.bind(n, true).expect("room");
        }
        assert_eq!(flow.bind(99, true), Err(Errno::EBUSY));
    }

    #[test]
    fn random_steps_agree_with_a_model() {
        let mut random = mm::hosted::Random::from_env(11);
        let mut below = |n| random.below(n);
        for is_level in [false, true] {
            let (mut flow, mut model, mut held, mut masked) = (Flow::new(), BTreeMap::new(), false, true);
            flow.set_level(is_level);
            for _ in 0..20_000 {
                let key = below(12) as u32;
                match below(6) {
                    0 if !model.contains_key(&key) => {
                        let fits = model.len() < MOST_LISTENERS;
                        assert_eq!(flow.bind(key, true).is_ok(), fits);
                        if fits {
                            model.insert(key, false);
                        }
                    }
                    1 => {
                        assert_eq!(flow.unbind(&key).is_some(), model.remove(&key).is_some());
                        held &= !model.is_empty();
                    }
                    // The hardware sends only what is not masked.
                    2 if !masked => {
                        flow.arrive();
                        model.values_mut().for_each(|waits| *waits = is_level);
                    }
                    3 if !model.is_empty() => {
                        held = below(2) == 0;
                        flow.hold(held);
                    }
                    _ => {
                        flow.done(&key);
                        model.entry(key).and_modify(|waits| *waits = false);
                    }
                }
                match flow.settle() {
                    Some(Change::Mask) => masked = true,
                    Some(Change::Unmask) => masked = false,
                    None => {}
                }
                let waiting = model.values().filter(|w| **w).count();
                assert_eq!(usize::from(flow.in_flight()), waiting);
                assert_eq!(masked, model.is_empty() || held || waiting > 0);
            }
        }
    }
}
