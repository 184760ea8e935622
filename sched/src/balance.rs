// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all CPUs know of each other: which ones have units waiting that could run elsewhere, in the
//! order of how far behind those are.

use alloc::vec::Vec;

use crate::Cpu;
use crate::credit::Vtime;

#[derive(Debug, Default)]
pub(crate) struct Balance {
    /// The CPUs with movable units waiting, by the virtual time of the first.
    heads: Vec<(Vtime, Cpu)>,
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
            && let Ok(at) = self.heads.binary_search(&(old, cpu))
        {
            self.heads.remove(at);
            self.sum -= old;
        }
        if let Some(new) = new
            && let Err(at) = self.heads.binary_search(&(new, cpu))
        {
            self.heads.insert(at, (new, cpu));
            self.sum += new;
        }
    }

    /// Returns the middle of the waiting units' virtual times, against which a CPU's own is held.
    pub(crate) fn reference(&self) -> Option<Vtime> {
        match (self.heads.len(), i64::try_from(self.sum)) {
            (0, _) => None,
            (1, _) => Some(self.sum),
            (count, Ok(sum)) => Some(Vtime::from(sum / count as i64)),
            (count, Err(_)) => Some(self.sum / count as Vtime),
        }
    }

    /// Returns the CPUs with movable units waiting, the one furthest behind first.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (Vtime, Cpu)> {
        self.heads.iter().copied()
    }
}
