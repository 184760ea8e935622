// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending: on a port, or a virtual interrupt; and what makes a vCPU look.

use core::sync::atomic::Ordering::SeqCst;

use hypercalls::shared_info::vcpu_offset;
use hypercalls::{DomId, Errno, Result, VcpuId, Virq};

use super::port::{Channel, State};
use super::two_level::{self, raise};
use crate::domain::{self, Domain};
use crate::schedule;
use crate::vcpu::Vcpu;

/// Tells a vCPU that events wait for it.
pub fn mark_pending(vcpu: &Vcpu) {
    if vcpu.vcpu_info().u8(vcpu_offset::EVTCHN_UPCALL_PENDING).swap(1, SeqCst) == 0 {
        schedule::kick(vcpu);
    }
}

pub(super) fn wake_pollers(domain: &Domain) {
    for vcpu in &domain.vcpus {
        if vcpu.status.polling.load(SeqCst) {
            schedule::wake_poller(vcpu);
        }
    }
}

/// Unmasks a port and delivers it if it is pending.
///
/// # Errors
/// `EINVAL` when there is no such port.
pub fn unmask(domain: &Domain, port: u32) -> Result<()> {
    let channel = domain.events.lock().get(port).ok_or(Errno::EINVAL)?;
    two_level::unmask(domain, port, channel.vcpu);
    Ok(())
}

/// Sends on a port.
///
/// # Errors
/// `EINVAL` when it is closed or of a kind that cannot be sent on.
#[inline]
pub fn send(domain: &Domain, port: u32) -> Result<()> {
    let channel = domain.events.lock().get(port).ok_or(Errno::EINVAL)?;
    match channel.state {
        State::Ipi => raise(domain, port, channel.vcpu),
        State::Interdomain { remote, port } => send_remote(domain, remote, port),
        State::Unbound { .. } => {}
        State::Closed | State::Virq(_) | State::Pirq(_) => return Err(Errno::EINVAL),
    }
    Ok(())
}

fn send_remote(domain: &Domain, remote: DomId, port: u32) {
    let deliver = |to: &Domain| {
        let target = to.events.lock().get(port);
        if let Some(Channel { state: State::Interdomain { remote, .. }, vcpu }) = target
            && remote == domain.id
        {
            raise(to, port, vcpu);
        }
    };
    if remote == domain.id {
        deliver(domain);
    } else if let Some(to) = domain::find(remote) {
        deliver(&to);
    }
}

/// Raises a virtual interrupt of one vCPU, if it is bound.
pub fn send_vcpu_virq(vcpu: &Vcpu, virq: Virq) {
    let port = vcpu.virq_port(virq).load(SeqCst);
    if port != 0 {
        raise(vcpu.domain(), port, vcpu.id);
    }
}

/// Raises a virtual interrupt of the machine in the domain that handles it.
pub fn send_global_virq(virq: Virq) {
    let Some(domain) = domain::hardware() else { return };
    let Some(vcpu) = domain.vcpu(VcpuId(0)) else { return };
    let port = vcpu.virq_port(virq).load(SeqCst);
    let channel = domain.events.lock().get(port);
    if let Some(Channel { state: State::Virq(bound), vcpu }) = channel
        && bound == virq
    {
        raise(&domain, port, vcpu);
    }
}
