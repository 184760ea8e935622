// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all CPUs know of each other: which ones have units waiting that could run elsewhere, in the
//! order of how far behind those are.

use alloc::collections::BTreeSet;

use crate::Cpu;
use crate::credit::Vtime;

#[derive(Debug, Default)]
pub(crate) struct Balance {
    /// The CPUs with movable units waiting, by the virtual time of the first.
    heads: BTreeSet<(Vtime, Cpu)>,
    /// Sum of those virtual times.
    sum: Vtime,
}

impl Balance {
    /// Replaces a CPU's entry.
    pub(crate) fn update(&mut self, cpu: Cpu, old: Option<Vtime>, new: Option<Vtime>) {
        if old == new {
            return;
        }
        if let Some(old) = old
            && self.heads.remove(&(old, cpu))
        {
            self.sum -= old;
        }
        if let Some(new) = new
            && self.heads.insert((new, cpu))
        {
            self.sum += new;
        }
    }

    /// Returns the middle of the waiting units' virtual times, against which a CPU's own is held.
    pub(crate) fn reference(&self) -> Option<Vtime> {
        let count = Vtime::try_from(self.heads.len()).ok()?;
        self.sum.checked_div(count)
    }

    /// Returns the CPUs with movable units waiting, the one furthest behind first.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (Vtime, Cpu)> {
        self.heads.iter().copied()
    }
}
