// SPDX-License-Identifier: MIT OR Apache-2.0
//! What domains may do with devices, as tools give it and take it away. Nobody gives what he has not.

use core::fmt;

use hypercalls::domctl_args::*;
use hypercalls::{Errno, Payload, Result};

use crate::domain::Domain;
use crate::events;
use crate::ops::sysctl::Answer;
use crate::vcpu::Vcpu;

/// Says that a caller wanted to give or take what he has not. Only the tools' domain comes here.
fn not_given(caller: &Vcpu, domain: &Domain, what: fmt::Arguments<'_>) -> Errno {
    log::info!("d{}: {what} for d{} are not its own to give", caller.domid.0, domain.id.0);
    Errno::EPERM
}

/// Gives or takes an interrupt, named by the caller's PIRQ.
pub(super) fn permit_irq(caller: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: IrqPermission = payload.get();
    let own = &caller.domain().pirqs;
    if a.pirq >= own.count() {
        return Err(Errno::EINVAL);
    }
    let irq = own.irq(a.pirq).filter(|irq| own.may_use(irq.number()));
    let irq = irq.ok_or_else(|| not_given(caller, domain, format_args!("PIRQ {}", a.pirq)))?;
    domain.pirqs.permit(irq.number(), a.allow_access != 0);
    Ok(Answer::Nothing)
}

/// The frames of a call, which do not wrap.
fn frames(first: u64, count: u64) -> Result<core::ops::RangeInclusive<u64>> {
    let last = first.wrapping_add(count).wrapping_sub(1);
    if last < first { Err(Errno::EINVAL) } else { Ok(first..=last) }
}

/// Gives or takes frames that are not RAM.
pub(super) fn permit_memory(caller: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: IomemPermission = payload.get();
    let frames = frames(a.first_mfn, a.nr_mfns)?;
    if !caller.domain().io.may_map(frames.clone()) {
        return Err(not_given(caller, domain, format_args!("frames {frames:#x?}")));
    }
    domain.io.permit_memory(frames, a.allow_access != 0)?;
    Ok(Answer::Nothing)
}

/// One port more than there is.
const PORTS_END: u32 = 1 << 16;

/// Gives or takes ports.
pub(super) fn permit_ports(caller: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: IoportPermission = payload.get();
    let end = a.first_port.checked_add(a.nr_ports).filter(|end| *end <= PORTS_END).ok_or(Errno::EINVAL)?;
    let last = end.checked_sub(1).filter(|last| *last >= a.first_port).ok_or(Errno::EINVAL)?;
    let first = a.first_port as u16;
    if !caller.domain().io.may_use_port(first, a.nr_ports) {
        return Err(not_given(caller, domain, format_args!("ports {first:#x}-{last:#x}")));
    }
    domain.io.permit_ports(first..=last as u16, a.allow_access != 0)?;
    Ok(Answer::Nothing)
}

/// Frames in one call.
const MOST_FRAMES: u64 = 64;

/// Makes frames that are not RAM part of a domain's memory: one that has page tables of its own maps them itself, so only the
/// rights are looked at.
pub(super) fn map_memory(caller: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: MemoryMapping = payload.get();
    let machine = frames(a.first_mfn, a.nr_mfns)?;
    frames(a.first_gfn, a.nr_mfns)?;
    if a.nr_mfns > MOST_FRAMES {
        return Err(Errno::E2BIG);
    }
    if !caller.domain().io.may_map(machine.clone()) || !domain.io.may_map(machine.clone()) {
        return Err(not_given(caller, domain, format_args!("frames {machine:#x?}")));
    }
    Ok(Answer::Nothing)
}

/// Has a virtual interrupt of the machine sent to a domain from now on.
pub(super) fn set_virq_handler(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: SetVirqHandler = payload.get();
    events::set_virq_handler(a.virq, domain)?;
    Ok(Answer::Nothing)
}
