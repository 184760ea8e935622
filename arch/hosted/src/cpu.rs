// SPDX-License-Identifier: MIT OR Apache-2.0
//! Simulated CPUs. A thread says which CPU it is; one that never did gets a number of its own from the top of the
//! range, so that per-CPU bookkeeping of unrelated tests never meets.

use arch_types::{CpuId, CpuMask, MAX_CPUS};
use core::cell::Cell;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

static ONLINE: AtomicU16 = AtomicU16::new(1);
static NEXT_ANONYMOUS: AtomicU16 = AtomicU16::new(0);
/// Questions left until preemption is wanted; `u64::MAX`: never.
static PREEMPT_AFTER: AtomicU64 = AtomicU64::new(u64::MAX);

std::thread_local! {
    static CURRENT: Cell<Option<CpuId>> = const { Cell::new(None) };
}

/// Returns the CPU that this thread plays.
pub fn this_cpu() -> CpuId {
    CURRENT.with(|c| {
        c.get().unwrap_or_else(|| {
            let n = NEXT_ANONYMOUS.fetch_add(1, Ordering::Relaxed) % (MAX_CPUS as u16 / 2);
            let id = CpuId(MAX_CPUS as u16 - 1 - n);
            c.set(Some(id));
            id
        })
    })
}

/// Makes this thread play another CPU.
pub fn set_this_cpu(cpu: CpuId) {
    CURRENT.with(|c| c.set(Some(cpu)));
}

/// Makes this thread anonymous again.
pub(crate) fn unset_this_cpu() {
    CURRENT.with(|c| c.set(None));
}

/// Returns the CPUs of the machine.
pub fn online() -> CpuMask {
    let mut mask = CpuMask::EMPTY;
    (0..ONLINE.load(Ordering::Relaxed)).for_each(|n| mask.insert(CpuId(n)));
    mask
}

pub(crate) fn set_online(count: usize) {
    assert!((1..=MAX_CPUS).contains(&count));
    ONLINE.store(count as u16, Ordering::Relaxed);
}

/// True when long work should stop at a continuation now: as [`preempt_after`] says.
pub fn preempt_pending() -> bool {
    let left = PREEMPT_AFTER.load(Ordering::Relaxed);
    if left == u64::MAX {
        return false;
    }
    PREEMPT_AFTER.store(left.saturating_sub(1), Ordering::Relaxed);
    left == 0
}

/// Wants preemption from the question after the next `questions` on, until told otherwise; `None`: never.
pub fn preempt_after(questions: Option<u64>) {
    PREEMPT_AFTER.store(questions.unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// True when [`preempt_after`] had set a number and it has run out.
pub fn preempt_ran_out() -> bool {
    PREEMPT_AFTER.load(Ordering::Relaxed) == 0
}
