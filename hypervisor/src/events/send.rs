// SPDX-License-Identifier: MIT OR Apache-2.0
//! Raising ports: by sending on one, or for a virtual interrupt; and what makes a vCPU look.
//!
//! Nothing here takes a lock but what the form needs for its queues: a port's word says where an event goes, and the
//! domain there is found without one. A channel that is closed meanwhile may still get an event that was on its way, which
//! guests must expect of any port anyway.

use core::sync::atomic::{AtomicU16, Ordering::SeqCst};

use hypercalls::event::{NR_VIRQS, VirqScope};
use hypercalls::shared_info::vcpu_offset;
use hypercalls::{DomId, Errno, Result, VcpuId, Virq};

use super::port::{Channel, Port, State};
use super::two_level;
use crate::domain::{self, Domain};
use crate::vcpu::Vcpu;
use crate::{console, schedule};

/// Sends on a port.
///
/// # Errors
/// `EINVAL` when it is closed or of a kind that cannot be sent on.
#[inline(always)]
pub fn send(domain: &Domain, number: u32) -> Result<()> {
    let port = domain.events.valid(number)?;
    match port.channel() {
        Channel { state: State::Ipi, vcpu, .. } => deliver(domain, number, port, vcpu),
        Channel { state: State::Interdomain { remote, port }, .. } => send_remote(domain, remote, port),
        Channel { state: State::Unbound { .. }, .. } => {}
        Channel { state: State::Console, .. } => console::served(domain),
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

#[inline(never)]
fn send_remote(from: &Domain, remote: DomId, number: u32) {
    let to = |to: &Domain| {
        if let Some(port) = to.events.port(number)
            && let Channel { state: State::Interdomain { remote, .. }, vcpu, .. } = port.channel()
            && remote == from.id
        {
            deliver(to, number, port, vcpu);
        }
    };
    if remote == from.id {
        to(from);
    } else {
        domain::with(remote, to);
    }
}

/// Raises a port, whatever it is bound to.
#[inline(never)]
pub fn raise(domain: &Domain, number: u32) {
    if let Some(port) = domain.events.port(number) {
        deliver(domain, number, port, port.channel().vcpu);
    }
}

/// Raises a port in the form that the domain uses.
#[inline(always)]
fn deliver(domain: &Domain, number: u32, port: &Port, vcpu: VcpuId) {
    if domain.events.fifo.with(|fifo| fifo.raise(domain, number, port)).is_none() {
        two_level::raise(domain, number, vcpu);
        // A domain that changes to the other form meanwhile may have looked for pending ports already.
        if domain.events.fifo.is_some() {
            raise_again(domain, number);
        }
    }
}

#[cold]
#[inline(never)]
fn raise_again(domain: &Domain, number: u32) {
    raise(domain, number);
}

/// True when the port is pending, masked or not.
pub fn is_pending(domain: &Domain, number: u32) -> bool {
    let Some(port) = domain.events.port(number) else { return false };
    let fifo = domain.events.fifo.with(|fifo| fifo.is_pending(number, port));
    fifo.unwrap_or_else(|| two_level::is_pending(domain, number))
}

/// True when the port is masked.
pub fn is_masked(domain: &Domain, number: u32) -> bool {
    let fifo = domain.events.fifo.with(|fifo| fifo.is_masked(number));
    fifo.unwrap_or_else(|| two_level::is_masked(domain, number))
}

/// Forgets that a port is pending.
pub(super) fn clear_pending(domain: &Domain, number: u32) {
    let Some(port) = domain.events.port(number) else { return };
    if domain.events.fifo.with(|fifo| fifo.clear_pending(number, port)).is_none() {
        two_level::clear_pending(domain, number);
    }
}

/// Unmasks a port and delivers it if it is pending; a closed one stays as it is.
///
/// # Errors
/// `EINVAL` when there is no such port.
pub fn unmask(domain: &Domain, number: u32) -> Result<()> {
    let port = domain.events.valid(number)?;
    let channel = port.channel();
    if channel.state != State::Closed && domain.events.fifo.with(|fifo| fifo.unmask(domain, number, port)).is_none() {
        two_level::unmask(domain, number, channel.vcpu);
    }
    Ok(())
}

/// Tells a vCPU that events wait for it.
#[inline(always)]
pub fn mark_pending(vcpu: &Vcpu) {
    if vcpu.vcpu_info().u8(vcpu_offset::EVTCHN_UPCALL_PENDING).swap(1, SeqCst) == 0 {
        schedule::kick(vcpu);
    }
}

/// Wakes the vCPUs that poll a port which has become pending.
#[inline(always)]
pub(super) fn wake_pollers(domain: &Domain, port: u32) {
    if domain.pollers.load(SeqCst) != 0 {
        wake_each(domain, port);
    }
}

#[cold]
fn wake_each(domain: &Domain, port: u32) {
    for vcpu in &domain.vcpus {
        let polled = vcpu.status.polled_port.load(SeqCst);
        if vcpu.status.polling.load(SeqCst) && (polled == 0 || polled == port) {
            schedule::wake_poller(vcpu);
        }
    }
}

/// Raises a virtual interrupt of one vCPU, if it is bound.
#[inline]
pub fn send_vcpu_virq(vcpu: &Vcpu, virq: Virq) {
    let port = vcpu.virq_port(virq).load(SeqCst);
    if port != 0 {
        raise(vcpu.domain(), port);
    }
}

/// The domains that handle virtual interrupts of the machine.
static HANDLERS: [AtomicU16; NR_VIRQS as usize] = [const { AtomicU16::new(0) }; NR_VIRQS as usize];

/// Has a virtual interrupt of the machine sent to a domain from now on, until it dies.
///
/// # Errors
/// `EINVAL` for one that is not the machine's, and for a domain that is dying.
pub fn set_virq_handler(virq: Virq, domain: &Domain) -> Result<()> {
    let handler =
        HANDLERS.get(virq.0 as usize).filter(|_| virq.scope() == Some(VirqScope::Global)).ok_or(Errno::EINVAL)?;
    handler.store(domain.id.0, SeqCst);
    if domain.dying.load(SeqCst) {
        forget_virq_handler(domain.id);
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Has the hardware domain handle what a domain handled that is dying.
pub fn forget_virq_handler(id: DomId) {
    for handler in &HANDLERS {
        // Another one's stays.
        let _ = handler.compare_exchange(id.0, 0, SeqCst, SeqCst);
    }
}

/// Raises a virtual interrupt of the machine in the domain that handles it.
pub fn send_global_virq(virq: Virq) {
    let handler = HANDLERS.get(virq.0 as usize).map_or(0, |handler| handler.load(SeqCst));
    domain::with(DomId(handler), |domain| {
        let port = domain.vcpus.first().map_or(0, |vcpu| vcpu.virq_port(virq).load(SeqCst));
        if domain.events.get(port).is_some_and(|channel| channel.state == State::Virq(virq)) {
            raise(domain, port);
        }
    });
}
