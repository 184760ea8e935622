// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each CPU does a while later, by its timer: free retired vectors, let interrupt lines through again that were held back,
//! look at guests' consoles, and show the other CPUs that it is not stuck.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use arch::cpu::{self, Work};
use arch::{CpuId, MAX_CPUS, apic};
use arrayvec::ArrayVec;
use mm::Lock;

use super::{storm, vectors};
use crate::{rank, stuck};

/// How long an interrupt may be on its way to a vector that it is not sent to any more.
const SETTLE_NS: u64 = 1_000_000;
const NEVER: u64 = u64::MAX;
/// How many lines one CPU holds back at once; more are not held.
const MOST_HELD: usize = 32;

struct Chores {
    /// When there is something to do.
    due: AtomicU64,
    held: Lock<ArrayVec<u32, MOST_HELD>>,
}

static CHORES: [Chores; MAX_CPUS] =
    [const { Chores { due: AtomicU64::new(NEVER), held: Lock::new(rank::HELD, ArrayVec::new_const()) } }; MAX_CPUS];

fn of(cpu: CpuId) -> &'static Chores {
    &CHORES[cpu.0 as usize % MAX_CPUS]
}

/// Returns when this CPU has something to do; `u64::MAX` for never.
#[inline]
pub fn due(here: CpuId) -> u64 {
    of(here).due.load(Relaxed)
}

/// Has a CPU look at its chores at `at`.
pub(crate) fn want(cpu: CpuId, at: u64) {
    of(cpu).due.fetch_min(at, SeqCst);
    // Its timer is programmed for the next deadline whenever it looks at its timers.
    cpu::raise(cpu, Work::TIMER);
}

/// Retires a vector; its CPU frees it when nothing can be on its way any more.
pub(super) fn retire(cpu: CpuId, vector: u8, irq: u32) {
    if vectors::of(cpu).retire(vector, irq) {
        want(cpu, arch::time::now() + SETTLE_NS);
    }
}

/// Lets a line through again after a while; false when there is no room to remember it.
pub(super) fn release_later(irq: u32) -> bool {
    let here = cpu::this_cpu();
    let noted = of(here).held.lock().try_push(irq).is_ok();
    if noted {
        want(here, arch::time::now() + storm::PERIOD_NS);
    }
    noted
}

/// Does what is due on this CPU.
#[inline]
pub fn run(here: CpuId, now: u64) {
    if due(here) <= now {
        do_all(here, now);
    }
}

#[cold]
fn do_all(here: CpuId, now: u64) {
    of(here).due.store(NEVER, SeqCst);
    if let Some(next) = stuck::beat(here, now) {
        of(here).due.fetch_min(next, SeqCst);
    }
    let left = vectors::of(here).reap(|vector| apic::is_requested(vector) || apic::in_service(vector));
    if left > 0 {
        of(here).due.fetch_min(now + SETTLE_NS, SeqCst);
    }
    let held = core::mem::take(&mut *of(here).held.lock());
    held.iter().filter_map(|number| super::get(*number)).for_each(super::Irq::release);
    if crate::console::has_more() {
        cpu::raise_here(Work::CONSOLE);
    }
}

/// Forgets everything, for a new machine.
#[cfg(not(target_os = "none"))]
pub(super) fn forget_all() {
    for chores in &CHORES {
        chores.due.store(NEVER, Relaxed);
        chores.held.lock().clear();
    }
}
