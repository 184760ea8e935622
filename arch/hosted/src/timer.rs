// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each CPU's one-shot timer; nothing fires by itself, a test asks [`expired`].

use crate::{cpu, time};
use arch_types::{CpuId, MAX_CPUS};
use core::sync::atomic::{AtomicU64, Ordering};

static DEADLINES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(u64::MAX) }; MAX_CPUS];

/// Sets this CPU's deadline, as the time-stamp counter counts: nanoseconds since boot.
pub fn program_at(tsc: u64) {
    set(tsc);
}

/// Stops this CPU's timer.
pub fn stop() {
    set(u64::MAX);
}

fn set(deadline: u64) {
    DEADLINES[cpu::this_cpu().0 as usize % MAX_CPUS].store(deadline, Ordering::SeqCst);
}

/// Returns a CPU's deadline.
pub fn deadline(cpu: CpuId) -> Option<u64> {
    Some(DEADLINES[cpu.0 as usize % MAX_CPUS].load(Ordering::SeqCst)).filter(|d| *d != u64::MAX)
}

/// True once when the CPU's deadline has passed; the timer is then stopped.
pub fn expired(cpu: CpuId) -> bool {
    let due = deadline(cpu).is_some_and(|d| d <= time::now());
    if due {
        DEADLINES[cpu.0 as usize % MAX_CPUS].store(u64::MAX, Ordering::SeqCst);
    }
    due
}

pub(crate) fn reset() {
    DEADLINES.iter().for_each(|d| d.store(u64::MAX, Ordering::SeqCst));
}
