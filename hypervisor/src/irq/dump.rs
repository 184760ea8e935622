// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interrupts as text, for a person who looks for one that does not come.

use core::fmt;

use arch::{CpuId, cpu};

use super::{Irq, Source, State, vectors};
use crate::keys::{Text, line, patiently};

/// Interrupts that one step tells about.
const MANY: u64 = 16;

/// Writes a line about each interrupt that is in use, from number `at` on: where it arrives, how often it did, what state it
/// is in, and who listens. At the end, how many vectors are left. Returns where to go on.
pub(crate) fn describe(at: u64, to: &mut Text) -> Option<u64> {
    use fmt::Write as _;
    let first = usize::try_from(at).ok()?;
    for irq in super::table().iter().skip(first).take(MANY as usize) {
        let Some(state) = patiently(&irq.state) else {
            line!(to, "IRQ {:3}: busy", irq.number);
            continue;
        };
        if state.arrivals > 0 || state.own.is_some() || state.flow.count() > 0 || state.place.is_some() {
            line!(to, "{}", Row { irq, state: &state });
        }
    }
    if super::table().len() > first + MANY as usize {
        return Some(at + MANY);
    }
    for cpu in cpu::online().iter() {
        line!(to, "CPU {}: {} vectors free", cpu.0, vectors::of(cpu).free());
    }
    None
}

struct Row<'a> {
    irq: &'a Irq,
    state: &'a State,
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state;
        write!(f, "IRQ {:3}:", self.irq.number)?;
        match state.place {
            Some((CpuId(cpu), vector)) => write!(f, " CPU {cpu} vector {vector:#04x}")?,
            None => f.write_str(" no vector")?,
        }
        match &state.source {
            Source::None => f.write_str(", nothing")?,
            Source::Message(message) => write!(f, ", {message}")?,
            Source::Line(mode) => write!(
                f,
                ", GSI {}, {}",
                if mode.level { "level" } else { "edge" },
                if mode.active_low { "low" } else { "high" }
            )?,
        }
        write!(f, ", {} times", state.arrivals)?;
        if state.own.is_none() && state.flow.is_masked() {
            f.write_str(", masked")?;
        }
        if state.flow.is_held() {
            f.write_str(", held back")?;
        }
        if state.flow.in_flight() > 0 {
            write!(f, ", {} in flight", state.flow.in_flight())?;
        }
        if state.storm.times() > 0 {
            write!(f, ", {} storms", state.storm.times())?;
        }
        if let Some(own) = state.own {
            write!(f, ", the hypervisor's {}", own.name)?;
        }
        for guest in state.flow.listeners() {
            write!(f, ", d{} PIRQ {} port {} vCPU {}", guest.domain.id.0, guest.pirq, guest.port, guest.vcpu.0)?;
        }
        Ok(())
    }
}
