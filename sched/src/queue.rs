// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queue of one CPU: the units that wait for it, in the order of their virtual times.
//!
//! Units that may run nowhere else are kept apart, so that other CPUs that look for work need not
//! step over them.

use alloc::collections::BTreeSet;

use crate::UnitId;
use crate::credit::Vtime;

/// A place in a queue.
pub(crate) type Entry = (Vtime, UnitId);

#[derive(Debug, Default)]
pub(crate) struct Queue {
    free: BTreeSet<Entry>,
    pinned: BTreeSet<Entry>,
}

impl Queue {
    pub(crate) fn insert(&mut self, entry: Entry, pinned: bool) {
        if pinned {
            self.pinned.insert(entry)
        } else {
            self.free.insert(entry)
        };
    }

    pub(crate) fn remove(&mut self, entry: Entry) {
        let _ = self.free.remove(&entry) || self.pinned.remove(&entry);
    }

    /// Returns the unit that is furthest behind.
    pub(crate) fn head(&self) -> Option<Entry> {
        match (self.free.first(), self.pinned.first()) {
            (Some(a), Some(b)) => Some(*a.min(b)),
            (a, b) => a.or(b).copied(),
        }
    }

    /// Returns the unit that is furthest behind of those that may move.
    pub(crate) fn free_head(&self) -> Option<Entry> {
        self.free.first().copied()
    }

    /// Returns the units that may move, the one furthest behind first.
    pub(crate) fn free(&self) -> impl Iterator<Item = Entry> {
        self.free.iter().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.free.len() + self.pinned.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.is_empty() && self.pinned.is_empty()
    }
}
