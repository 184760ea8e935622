// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the scheduler knows of one unit and of one CPU.

use alloc::collections::BTreeSet;

use crate::credit::Vtime;
use crate::queue::Queue;
use crate::table::Slot;
use crate::{Affinity, Cpu, UnitId};

/// Where a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It sleeps.
    Blocked,
    /// It waits in the queue of a CPU.
    Queued(Cpu),
    /// It runs.
    Running(Cpu),
    /// It waits until its group has budget again, at the given time.
    Parked(Cpu, u64),
    /// It is runnable, but no CPU that it may use is online.
    Stranded,
}

#[derive(Debug)]
pub(crate) struct Unit {
    /// Its group's place in the table of groups.
    pub(crate) group: Slot,
    pub(crate) affinity: Affinity,
    /// By which it can never move.
    pub(crate) pinned: bool,
    pub(crate) place: Place,
    /// The CPU it was last on.
    pub(crate) home: Cpu,
    /// Its virtual time: counted from its CPU's base while queued or running, from 0 otherwise.
    pub(crate) vtime: Vtime,
    /// It has never been runnable.
    pub(crate) fresh: bool,
    /// How long it has run.
    pub(crate) runtime_ns: u64,
}

#[derive(Debug, Default)]
pub(crate) struct CpuState {
    pub(crate) current: Option<UnitId>,
    pub(crate) queue: Queue,
    /// Units whose groups are out of budget, by the time at which they may run again.
    pub(crate) parked: BTreeSet<(u64, UnitId)>,
    /// Where this CPU's virtual times count from. Moving it moves all of them at once.
    pub(crate) base: Vtime,
    /// How far this CPU's virtual time has got, from the base.
    pub(crate) floor: Vtime,
    /// When the current unit was given the CPU.
    pub(crate) dispatched: u64,
    /// Up to when the current unit's time is accounted.
    pub(crate) accounted: u64,
    /// What the last decision said.
    pub(crate) until: Option<u64>,
    /// When the decision is due that this CPU has been asked for by a unit that came.
    pub(crate) due: u64,
    /// It has been asked to call `schedule` and has not yet.
    pub(crate) pending: bool,
    /// The current unit gives way once.
    pub(crate) yielded: bool,
    /// What the list of all CPUs holds for this one.
    pub(crate) published: Option<Vtime>,
}

impl CpuState {
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_none() && self.queue.is_empty()
    }
}
