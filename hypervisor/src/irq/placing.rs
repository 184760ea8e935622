// SPDX-License-Identifier: MIT OR Apache-2.0
//! On which CPU and vector an interrupt arrives.

use core::sync::atomic::Ordering::Relaxed;

use arch::{CpuId, apic, cpu, ioapic};
use hypercalls::{Errno, Result};

use super::{Guest, Irq, Source, State, chores, vectors};

impl Irq {
    /// Gives the vector back.
    pub(super) fn withdraw(&self, state: &mut State) {
        if let Some((cpu, vector)) = state.place.take() {
            chores::retire(cpu, vector, self.number);
        }
    }

    /// Gives the interrupt a vector, on the CPU wanted if it has one, and routes it there.
    pub(super) fn find_place(&self, state: &mut State, wanted: CpuId) -> Result<()> {
        let others = cpu::online();
        let cpus = core::iter::once(wanted).chain(others.iter().filter(|c| *c != wanted));
        let mut places = cpus.filter(|c| apic::can_target(*c));
        let found = places.find_map(|c| Some((c, vectors::of(c).allocate(self.number)?)));
        let (cpu, vector) = found.ok_or(Errno::ENOSPC)?;
        if !self.route(state, cpu, vector) {
            chores::retire(cpu, vector, self.number);
            return Err(Errno::ENOSPC);
        }
        state.place = Some((cpu, vector));
        Ok(())
    }

    pub(super) fn route(&self, state: &State, cpu: CpuId, vector: u8) -> bool {
        match &state.source {
            Source::Line(mode) => ioapic::route(self.number, vector, cpu, *mode).is_ok(),
            Source::Message(message) => message.route(cpu, vector),
            Source::None => false,
        }
    }

    /// Takes a vector on a CPU to which the interrupt is to move. A message that cannot be masked keeps its vector, so that
    /// only one word of it changes.
    pub(super) fn vector_on(&self, state: &State, cpu: CpuId, now: u8) -> Option<u8> {
        let vectors = vectors::of(cpu);
        match &state.source {
            Source::Message(message) if !message.may_move() => None,
            Source::Message(message) if !message.is_maskable() => vectors.claim(now, self.number).then_some(now),
            _ => vectors.allocate(self.number),
        }
    }

    /// Moves the interrupt to the CPU of the vCPU that is notified, if it is elsewhere. `patience`: how often that must have
    /// been so. Only when no interrupt is on its way: at an arrival, or while the line is masked.
    pub(super) fn follow(&self, state: &mut State, patience: u8) {
        let Some(to) = state.flow.listeners().next().map(cpu_of) else { return };
        let Some((cpu, vector)) = state.place.filter(|(cpu, _)| *cpu != to) else {
            state.away = 0;
            return;
        };
        if state.away < patience {
            state.away += 1;
            return;
        }
        if !apic::can_target(to) || state.flow.is_level() && !ioapic::is_settled(self.number) {
            return;
        }
        let Some(new) = self.vector_on(state, to, vector) else { return };
        if self.route(state, to, new) {
            (state.place, state.away) = (Some((to, new)), 0);
            chores::retire(cpu, vector, self.number);
        } else {
            chores::retire(to, new, self.number);
        }
    }
}

/// Returns the CPU of the vCPU that is notified.
pub(super) fn cpu_of(guest: &Guest) -> CpuId {
    let vcpu = guest.domain.vcpu(guest.vcpu);
    CpuId(vcpu.map_or(0, |v| v.status.cpu.load(Relaxed)))
}
