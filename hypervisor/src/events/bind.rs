// SPDX-License-Identifier: MIT OR Apache-2.0
//! Binding and closing ports.
//!
//! Binding changes both ends together, under both domains' locks.

use core::sync::atomic::Ordering::SeqCst;

use hypercalls::event::VirqScope;
use hypercalls::{DomId, Errno, Result, VcpuId, Virq};

use super::port::{Channel, State};
use super::two_level::{clear_pending, raise};
use crate::domain::{self, Domain};
use crate::pirq;

/// Binds a virtual interrupt.
///
/// # Errors
/// `EINVAL` for an unknown one or a global one on another vCPU than 0, `ENOENT` for an unknown vCPU, `EEXIST` when it
/// is bound already, `ENOSPC`.
pub fn bind_virq(domain: &Domain, virq: Virq, vcpu: VcpuId) -> Result<u32> {
    let scope = virq.scope().ok_or(Errno::EINVAL)?;
    if scope != VirqScope::Vcpu && vcpu.0 != 0 {
        return Err(Errno::EINVAL);
    }
    let target = domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
    let mut events = domain.events.lock();
    if target.virq_port(virq).load(SeqCst) != 0 {
        return Err(Errno::EEXIST);
    }
    let port = events.allocate(State::Virq(virq), vcpu)?;
    target.virq_port(virq).store(port, SeqCst);
    Ok(port)
}

/// Binds a port to another vCPU of the same domain.
///
/// # Errors
/// `ENOENT` for an unknown vCPU, `ENOSPC`.
pub fn bind_ipi(domain: &Domain, vcpu: VcpuId) -> Result<u32> {
    domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
    domain.events.lock().allocate(State::Ipi, vcpu)
}

/// Makes a port for an interrupt of the machine, which notifies vCPU 0.
///
/// # Errors
/// `ENOSPC`.
pub fn open_pirq(domain: &Domain, pirq: u32) -> Result<u32> {
    domain.events.lock().allocate(State::Pirq(pirq), VcpuId(0))
}

/// Takes back a port of [`open_pirq`] that nobody was told of.
pub fn abandon_pirq(domain: &Domain, port: u32) {
    if let Some(channel) = domain.events.lock().get_mut(port) {
        channel.state = State::Closed;
    }
}

/// Makes a port that `remote` may bind to.
///
/// # Errors
/// `ENOSPC`.
pub fn alloc_unbound(domain: &Domain, remote: DomId) -> Result<u32> {
    domain.events.lock().allocate(State::Unbound { remote }, VcpuId(0))
}

/// Binds a new port of `domain` to an unbound one that waits for it. The new port starts pending, so that a
/// notification sent before is not lost.
///
/// # Errors
/// `ESRCH` for an unknown domain, `EINVAL` when the remote port does not wait for the caller, `ENOSPC`.
pub fn bind_interdomain(domain: &Domain, remote: DomId, remote_port: u32) -> Result<u32> {
    let port = if remote == domain.id {
        let mut events = domain.events.lock();
        match events.get(remote_port) {
            Some(Channel { state: State::Unbound { remote }, .. }) if remote == domain.id => {}
            _ => return Err(Errno::EINVAL),
        }
        let port = events.allocate(State::Interdomain { remote, port: remote_port }, VcpuId(0))?;
        if let Some(other) = events.get_mut(remote_port) {
            other.state = State::Interdomain { remote: domain.id, port };
        }
        port
    } else {
        bind_to_other(domain, remote, remote_port)?
    };
    raise(domain, port, VcpuId(0));
    Ok(port)
}

fn bind_to_other(domain: &Domain, remote: DomId, remote_port: u32) -> Result<u32> {
    let other = domain::find(remote).ok_or(Errno::ESRCH)?;
    // Both ends change together: locks in ascending order of domain numbers.
    let (mut ours, mut theirs) = if domain.id < remote {
        let ours = domain.events.lock();
        (ours, other.events.lock_second())
    } else {
        let theirs = other.events.lock();
        (domain.events.lock_second(), theirs)
    };
    match theirs.get(remote_port) {
        Some(Channel { state: State::Unbound { remote }, .. }) if remote == domain.id => {}
        _ => return Err(Errno::EINVAL),
    }
    let port = ours.allocate(State::Interdomain { remote, port: remote_port }, VcpuId(0))?;
    if let Some(end) = theirs.get_mut(remote_port) {
        end.state = State::Interdomain { remote: domain.id, port };
    }
    Ok(port)
}

/// Moves a port to another vCPU.
///
/// # Errors
/// `ENOENT` for an unknown vCPU, `EINVAL` for a port that cannot be moved.
pub fn bind_vcpu(domain: &Domain, port: u32, vcpu: VcpuId) -> Result<()> {
    domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
    let mut events = domain.events.lock();
    let channel = events.get_mut(port).ok_or(Errno::EINVAL)?;
    match channel.state {
        State::Virq(virq) if virq.scope() == Some(VirqScope::Vcpu) => Err(Errno::EINVAL),
        State::Ipi | State::Closed => Err(Errno::EINVAL),
        state => {
            channel.vcpu = vcpu;
            drop(events);
            if let State::Pirq(pirq) = state {
                pirq::notify(domain, pirq, port, vcpu);
            }
            Ok(())
        }
    }
}

/// Closes a port; the other end of an interdomain channel goes back to waiting.
///
/// # Errors
/// `EINVAL` when it is not open.
pub fn close(domain: &Domain, port: u32) -> Result<()> {
    let open = domain.events.lock().get(port);
    if let Some(Channel { state: State::Pirq(pirq), .. }) = open {
        // First the interrupt, then the port: it must not be raised for whoever gets it next.
        pirq::unbind(domain, pirq, port);
    }
    let closed = {
        let mut events = domain.events.lock();
        let channel = events.get_mut(port).ok_or(Errno::EINVAL)?;
        let state = core::mem::replace(&mut channel.state, State::Closed);
        if let State::Virq(virq) = state {
            for vcpu in &domain.vcpus {
                // Whichever vCPU it was bound through; a moved global one is still in vCPU 0's list.
                let _ = vcpu.virq_port(virq).compare_exchange(port, 0, SeqCst, SeqCst);
            }
        }
        if let State::Interdomain { remote, port: other } = state
            && remote == domain.id
            && let Some(end) = events.get_mut(other)
        {
            end.state = State::Unbound { remote: domain.id };
        }
        clear_pending(domain, port);
        state
    };
    if let State::Interdomain { remote, port: other } = closed
        && remote != domain.id
        && let Some(peer) = domain::find(remote)
    {
        let mut events = peer.events.lock();
        if let Some(end) = events.get_mut(other)
            && end.state == (State::Interdomain { remote: domain.id, port })
        {
            end.state = State::Unbound { remote: domain.id };
        }
    }
    Ok(())
}
