// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queue of one CPU: the units that wait for it, in the order of their virtual times.
//!
//! Units that may run nowhere else are kept apart, so that other CPUs that look for work need not
//! step over them.

use alloc::vec::Vec;

use crate::UnitId;
use crate::credit::Vtime;

/// A place in a queue.
pub(crate) type Entry = (Vtime, UnitId);

/// Entries in the order in which they are taken, the last one first: that one is looked at and taken all the time.
#[derive(Debug, Default)]
struct Line(Vec<Entry>);

impl Line {
    fn insert(&mut self, entry: Entry) {
        let at = self.0.partition_point(|other| *other > entry);
        self.0.insert(at, entry);
    }

    fn remove(&mut self, entry: Entry) -> bool {
        if self.first() == Some(entry) {
            return self.0.pop().is_some();
        }
        let at = self.0.binary_search_by(|other| entry.cmp(other));
        at.is_ok_and(|at| self.0.remove(at) == entry)
    }

    fn first(&self) -> Option<Entry> {
        self.0.last().copied()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    free: Line,
    pinned: Line,
}

impl Queue {
    pub(crate) fn insert(&mut self, entry: Entry, pinned: bool) {
        let line = if pinned { &mut self.pinned } else { &mut self.free };
        line.insert(entry);
    }

    pub(crate) fn remove(&mut self, entry: Entry) {
        let _ = self.free.remove(entry) || self.pinned.remove(entry);
    }

    /// Returns the unit that is furthest behind.
    pub(crate) fn head(&self) -> Option<Entry> {
        match (self.free.first(), self.pinned.first()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Returns the unit that is furthest behind of those that may move.
    pub(crate) fn free_head(&self) -> Option<Entry> {
        self.free.first()
    }

    /// Returns the units that may move, the one furthest behind first.
    pub(crate) fn free(&self) -> impl Iterator<Item = Entry> {
        self.free.0.iter().rev().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.free.0.len() + self.pinned.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.0.is_empty() && self.pinned.0.is_empty()
    }
}
