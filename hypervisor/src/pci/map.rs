// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a function's message to a PIRQ, and back.

use arch::{CpuId, cpu};
use hypercalls::{Errno, Result};

use super::device::{self, Device};
use super::msi::{Message, Wanted};
use super::{Place, device::find};
use crate::domain::Domain;
use crate::irq::{self, Irq};
use crate::keys::{Text, line};

use alloc::sync::Arc;
use alloc::vec::Vec;

/// Messages that are reserved, with the interrupts that they became so far; all of it is undone when it is dropped.
struct Reserved {
    device: Arc<Device>,
    wanted: Wanted,
    irqs: Vec<&'static Irq>,
    kept: bool,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.kept {
            self.irqs.iter().for_each(|irq| irq.forget_message());
            self.device.give_up(self.wanted);
        }
    }
}

/// Maps the messages wanted as PIRQs of `target`, consecutive ones. Returns the first.
///
/// # Errors
/// What [`Device::reserve`] says; `ENODEV` for a function that dom0 has not told of, `EDOM` for an impossible number,
/// `ENOSPC` when there are not enough interrupts, vectors or PIRQs, and what `Pirqs::map` says. Nothing is changed then.
pub fn map(target: &Domain, place: Place, wanted: Wanted, pirq: Option<u32>) -> Result<u32> {
    if let Wanted::Msi(count) = wanted
        && !(count.is_power_of_two() && count <= 32)
    {
        return Err(Errno::EDOM);
    }
    let device = find(place).ok_or(Errno::ENODEV)?;
    device.reserve(wanted)?;
    let mut reserved = Reserved { device: device.clone(), wanted, irqs: Vec::new(), kept: false };
    let messages: Vec<Message> = Message::of(&device, wanted).collect();
    reserved.irqs = irq::allocate_messages(&messages, nearest(target))?;
    let first = target.pirqs.map_messages(&reserved.irqs, pirq)?;
    reserved.kept = true;
    Ok(first)
}

/// The CPU at which a message arrives first: where the domain is.
fn nearest(target: &Domain) -> CpuId {
    use core::sync::atomic::Ordering::Relaxed;
    let cpu = CpuId(target.vcpus.first().map_or(0, |vcpu| vcpu.status.cpu.load(Relaxed)));
    if cpu::is_online(cpu) { cpu } else { CpuId(0) }
}

/// Gives up the messages of which these are the interrupts: nobody listens to them any more.
pub fn unmap(irqs: &[&'static Irq]) {
    let Some(message) = irqs.first().and_then(|irq| irq.message()) else { return };
    irqs.iter().for_each(|irq| irq.forget_message());
    message.device().give_up(message.wanted());
}

/// Writes a line about a function of PCI, the one that comes `at` places behind the first. Returns the next one's number.
pub(crate) fn describe(at: u64, to: &mut Text) -> Option<u64> {
    use core::fmt::Write as _;
    let device = device::nth(usize::try_from(at).ok()?)?;
    let irqs = irq::of_device(&device).count();
    match device.table() {
        Some((table, pending)) => {
            line!(to, "{}: {irqs} messages, table {table:#x}, pending bits {pending:#x}", device.place);
        }
        None => line!(to, "{}: {irqs} messages", device.place),
    }
    Some(at + 1)
}
