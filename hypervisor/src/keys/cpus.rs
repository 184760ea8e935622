// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys that tell about CPUs: what waits for each, and what the scheduler makes of them.

use core::fmt::Write as _;

use arch::CpuId;
use arch::cpu::{self, Work};

use super::Text;
use super::text::{line, part};
use crate::schedule;

/// Returns the first CPU that is on line from a number on.
pub(super) fn from(at: u64) -> Option<CpuId> {
    cpu::online().iter().find(|cpu| u64::from(cpu.0) >= at)
}

/// Returns the place of the CPU behind this one.
pub(super) const fn behind(cpu: CpuId) -> Option<u64> {
    Some(cpu.0 as u64 + 1)
}

/// Tells what each CPU has to do, when its timer fires and how old its translations may be.
pub(super) fn state(at: u64, to: &mut Text) -> Option<u64> {
    if at == 0 {
        line!(to, "the flush clock is at {}", arch::tlb::stamp());
    }
    let cpu = from(at)?;
    let state = cpu::state(cpu);
    part!(to, "CPU {} (APIC {:#x}): ", cpu.0, state.apic_id);
    match state.deadline {
        u64::MAX => part!(to, "no timer"),
        deadline => part!(to, "timer in {} us", deadline.saturating_sub(arch::time::now()) / 1000),
    }
    let work = Work::from_bits_retain(state.work);
    let age = arch::tlb::stamp().wrapping_sub(state.flushed_at);
    line!(to, ", flushed {age} full flushes ago, work {:?}", work);
    behind(cpu)
}

/// Tells what the scheduler knows.
pub(super) fn queues(at: u64, to: &mut Text) -> Option<u64> {
    schedule::describe(at, to)
}
