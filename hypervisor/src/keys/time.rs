// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys that tell about time.

use core::fmt::Write as _;
use core::sync::atomic::Ordering::Relaxed;

use super::text::line;
use super::{Place, Text, cpus};
use crate::{domain, timers};

/// Tells which timers each CPU has.
pub(super) fn queues(at: u64, to: &mut Text) -> Option<u64> {
    let cpu = cpus::from(at)?;
    line!(to, "CPU {}:", cpu.0);
    timers::describe(cpu, to);
    cpus::behind(cpu)
}

/// Tells about the machine's time-stamp counter, and how domains see it.
pub(super) fn tsc(at: u64, to: &mut Text) -> Option<u64> {
    if at == 0 {
        let scale = arch::time::scale();
        let steady = if arch::time::tsc_is_stable() { "steady" } else { "not steady" };
        line!(to, "TSC at {} kHz, {steady}, scale {:#x} shift {}", scale.khz, scale.mul, scale.shift);
    }
    let domain = domain::next(Place::of(at).domain)?;
    let (tsc, offset) = (domain.tsc.told(), domain.time_offset.load(Relaxed));
    let whose = if tsc.emulated { "its own" } else { "the machine's" };
    let (khz, mode, moves) = (tsc.khz, tsc.mode, tsc.incarnation);
    line!(to, "domain {}: {whose} at {khz} kHz, mode {mode}, {moves} moves, wall clock offset {offset} s", domain.id.0);
    Place::behind(domain.id)
}

/// Tells the time on every CPU, as its vCPU would see it.
pub(super) fn clocks(at: u64, to: &mut Text) -> Option<u64> {
    if at == 0 {
        let now = arch::time::now();
        line!(to, "{}.{:09} s since the start, TSC {:#x}", now / 1_000_000_000, now % 1_000_000_000, arch::time::tsc());
    }
    let cpu = cpus::from(at)?;
    let state = arch::cpu::state(cpu);
    match state.deadline {
        u64::MAX => line!(to, "CPU {}: no timer", cpu.0),
        deadline => line!(to, "CPU {}: timer at {}.{:09} s", cpu.0, deadline / 1_000_000_000, deadline % 1_000_000_000),
    }
    cpus::behind(cpu)
}
