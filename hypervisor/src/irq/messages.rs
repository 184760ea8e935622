// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts that are messages of PCI functions: the numbers behind those of the lines, taken and given back.

use alloc::sync::Arc;
use alloc::vec::Vec;

use arch::{CpuId, apic, cpu, ioapic};
use hypercalls::{Errno, Result};

use super::{Irq, Source, State, table, vectors};
use crate::pci::device::Device;
use crate::pci::msi::Message;

impl Irq {
    /// Returns the message that it is, if it is one.
    pub fn message(&self) -> Option<Message> {
        match &self.state.lock().source {
            Source::Message(message) => Some(message.clone()),
            Source::None | Source::Line(_) => None,
        }
    }

    /// Makes the number free again: its message is given up, and nobody listens.
    pub fn forget_message(&self) {
        let mut state = self.state.lock();
        if !matches!(state.source, Source::Message(_)) {
            return;
        }
        self.withdraw(&mut state);
        let old = core::mem::replace(&mut *state, State::new());
        drop(state);
        drop(old);
    }

    /// Makes the number a message's, if it is free.
    fn take(&self, message: &Message) -> bool {
        let mut state = self.state.lock();
        if !matches!(state.source, Source::None) {
            return false;
        }
        state.source = Source::Message(message.clone());
        true
    }
}

/// Makes interrupts of messages that were reserved together, arriving at the CPU wanted if that has vectors; several need
/// consecutive ones. Nothing is left when it fails.
///
/// # Errors
/// `ENOSPC` when there are not enough numbers or vectors, `ENOMEM`.
pub fn allocate_messages(messages: &[Message], wanted: CpuId) -> Result<Vec<&'static Irq>> {
    let mut irqs = Vec::new();
    irqs.try_reserve_exact(messages.len()).map_err(|_| Errno::ENOMEM)?;
    let mut rest = messages.iter();
    let mut next = rest.next();
    for irq in table().iter().skip(ioapic::gsi_end() as usize) {
        let Some(message) = next else { break };
        if irq.take(message) {
            irqs.push(irq);
            next = rest.next();
        }
    }
    if next.is_none() && place_messages(&irqs, wanted).is_ok() {
        return Ok(irqs);
    }
    irqs.iter().for_each(|irq| irq.forget_message());
    Err(Errno::ENOSPC)
}

fn place_messages(irqs: &[&'static Irq], wanted: CpuId) -> Result<()> {
    if let [irq] = irqs {
        return irq.find_place(&mut irq.state.lock(), wanted);
    }
    let online = cpu::online();
    let cpus = core::iter::once(wanted).chain(online.iter().filter(|c| *c != wanted));
    let numbers = || irqs.iter().map(|irq| irq.number);
    let mut places = cpus.filter(|c| apic::can_target(*c));
    let found = places.find_map(|c| Some((c, vectors::of(c).allocate_block(numbers())?)));
    let (cpu, first) = found.ok_or(Errno::ENOSPC)?;
    for (irq, vector) in irqs.iter().zip(first..) {
        let mut state = irq.state.lock();
        state.place = Some((cpu, vector));
        if !irq.route(&state, cpu, vector) {
            return Err(Errno::ENOSPC);
        }
    }
    Ok(())
}

/// Returns the numbers of a PCI function's messages.
pub fn of_device(device: &Arc<Device>) -> impl Iterator<Item = u32> {
    let is_its = move |irq: &&Irq| irq.message().is_some_and(|message| Arc::ptr_eq(message.device(), device));
    table().iter().skip(ioapic::gsi_end() as usize).filter(is_its).map(|irq| irq.number)
}
