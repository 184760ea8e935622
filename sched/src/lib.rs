// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scheduler as pure logic: which unit runs on which CPU, and until when.
//!
//! A *unit* is what runs (a vCPU), a *group* is what weight and cap belong to (a domain). Time and
//! CPU numbers come in as arguments; the caller holds one lock around every call, programs the timer
//! for [`Decision::until`] and sends the interrupts that the answers ask for ([`Decision::poke`] and
//! what [`Scheduler::wake`] and its like return: those CPUs shall call
//! [`Scheduler::schedule`]).
//!
//! CPUs and groups belong to pools, of which each is scheduled by a policy of its own: fair, or null, which gives each
//! unit a CPU to itself.
//!
//! Under the fair policy each unit has a virtual time that passes while it runs, faster the smaller its group's weight.
//! Each CPU has a queue ordered by virtual time and runs the unit that is furthest behind. A CPU
//! whose best unit is well ahead of one that waits elsewhere takes that one over, so that fairness
//! holds across CPUs; an idle CPU takes any that may run there. A unit that slept keeps a small claim,
//! so that one that blocks a lot preempts one that never does.
//!
//! What must always hold: a unit runs on at most one CPU and only on one of its hard affinity; a
//! unit that is runnable is in exactly one queue (or waits for its group's budget, or has no CPU
//! online that it may use); a group with a cap gets no more than it in the long run.
//!
//! A unit that `schedule` names may still be on its way off the CPU that ran it last (its registers
//! not saved yet): the caller lets each CPU save first and then waits for the other's save.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod affinity;
mod balance;
mod budget;
mod credit;
mod decide;
mod fair;
mod null;
mod policy;
mod pools;
mod queue;
mod table;
mod unit;

pub use affinity::{Affinity, CpuSet, MAX_CPUS};
pub use credit::DEFAULT_WEIGHT;
pub use pools::{Kind, PoolId, Refusal, Scheduler};
pub use unit::Place;

/// What runs: a vCPU's number to the scheduler, opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId(pub u32);

/// What weight and cap belong to: a domain's number to the scheduler, opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u16);

/// A physical CPU's number, below [`MAX_CPUS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(pub u16);

impl Cpu {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The scheduler's times, all in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// A unit that was given a CPU keeps it this long against any other.
    pub ratelimit_ns: u64,
    /// A unit runs at most this long before another that waits is considered.
    pub slice_ns: u64,
    /// How far, in virtual time, a unit may get ahead of one that waits.
    pub grain_ns: u64,
    /// How often the budgets of groups with a cap are filled up.
    pub cap_period_ns: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self { ratelimit_ns: 1_000_000, slice_ns: 10_000_000, grain_ns: 1_500_000, cap_period_ns: 10_000_000 }
    }
}

/// What a CPU shall do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The unit to run; None to idle.
    pub next: Option<UnitId>,
    /// When this CPU shall call `schedule` again, if nothing else happens; absolute.
    pub until: Option<u64>,
    /// Other CPUs that shall call `schedule` now.
    pub poke: CpuSet,
}
