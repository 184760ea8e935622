// SPDX-License-Identifier: MIT OR Apache-2.0
//! Binding and closing ports.
//!
//! Both ends of a channel change together, under both domains' locks.

use core::sync::atomic::Ordering::SeqCst;

use hypercalls::event::VirqScope;
use hypercalls::{DomId, Errno, Result, VcpuId, Virq};

use super::port::{Channel, State};
use super::send::{clear_pending, raise};
use super::table::{Changes, lock_two};
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
    let mut events = domain.events.lock();
    if let Some(Channel { state: State::Pirq(_), .. }) = events.get(port) {
        events.set(port, Channel::CLOSED);
        events.release(port);
    }
}

/// Makes a port by which the domain and the hypervisor tell each other of news in the console's ring.
///
/// # Errors
/// `ENOSPC`.
pub fn open_console(domain: &Domain) -> Result<u32> {
    domain.events.lock().allocate(State::Console, VcpuId(0))
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
        waits_for(domain.id, &events, remote_port)?;
        let port = events.allocate(State::Interdomain { remote, port: remote_port }, VcpuId(0))?;
        set_state(&mut events, remote_port, State::Interdomain { remote, port });
        port
    } else {
        let other = domain::find(remote).ok_or(Errno::ESRCH)?;
        let (mut ours, mut theirs) = lock_two(domain, &other);
        waits_for(domain.id, &theirs, remote_port)?;
        // Ours first: what they send as soon as they are bound must find it.
        let port = ours.allocate(State::Interdomain { remote, port: remote_port }, VcpuId(0))?;
        set_state(&mut theirs, remote_port, State::Interdomain { remote: domain.id, port });
        port
    };
    raise(domain, port);
    Ok(port)
}

fn waits_for(id: DomId, events: &Changes<'_>, port: u32) -> Result<()> {
    match events.get(port) {
        Some(Channel { state: State::Unbound { remote }, .. }) if remote == id => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// Changes what an open port is bound to, and leaves the rest.
fn set_state(events: &mut Changes<'_>, port: u32, state: State) {
    if let Some(channel) = events.get(port) {
        events.set(port, Channel { state, ..channel });
    }
}

/// Moves a port to another vCPU.
///
/// # Errors
/// `ENOENT` for an unknown vCPU, `EINVAL` for a port that cannot be moved.
pub fn bind_vcpu(domain: &Domain, port: u32, vcpu: VcpuId) -> Result<()> {
    domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
    let mut events = domain.events.lock();
    let channel = events.get(port).ok_or(Errno::EINVAL)?;
    match channel.state {
        State::Virq(virq) if virq.scope() == Some(VirqScope::Vcpu) => Err(Errno::EINVAL),
        State::Ipi | State::Closed => Err(Errno::EINVAL),
        State::Unbound { .. } | State::Interdomain { .. } | State::Virq(_) | State::Pirq(_) | State::Console => {
            events.set(port, Channel { vcpu, ..channel });
            drop(events);
            if let State::Pirq(pirq) = channel.state {
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
    // Another round when another CPU changes the port between the two looks at it.
    loop {
        let state = domain.events.get(port).ok_or(Errno::EINVAL)?.state;
        let peer = match state {
            State::Interdomain { remote, .. } if remote != domain.id => domain::find(remote),
            State::Pirq(pirq) => {
                // First the interrupt, then the port: it must not be raised for whoever gets it next.
                pirq::unbind(domain, pirq, port);
                None
            }
            _ => None,
        };
        let (mut ours, mut theirs) = match &peer {
            Some(peer) => {
                let (ours, theirs) = lock_two(domain, peer);
                (ours, Some(theirs))
            }
            None => (domain.events.lock(), None),
        };
        if ours.get(port).is_some_and(|now| now.state == state) {
            close_one(domain, &mut ours, port, state);
            if let State::Interdomain { remote, port } = state {
                let other_end = if remote == domain.id { Some(&mut ours) } else { theirs.as_mut() };
                other_end.into_iter().for_each(|events| set_state(events, port, State::Unbound { remote: domain.id }));
            }
            return Ok(());
        }
    }
}

fn close_one(domain: &Domain, events: &mut Changes<'_>, port: u32, state: State) {
    if let State::Virq(virq) = state {
        for vcpu in &domain.vcpus {
            // Whichever vCPU it was bound through; a moved global one is still in vCPU 0's list.
            let _ = vcpu.virq_port(virq).compare_exchange(port, 0, SeqCst, SeqCst);
        }
    }
    events.set(port, Channel::CLOSED);
    clear_pending(domain, port);
    events.release(port);
}
