// SPDX-License-Identifier: MIT OR Apache-2.0
//! Event channels, two-level ABI.
//!
//! A port is closed, or bound to a remote domain's port, a virtual interrupt or another vCPU. Raising one sets its bit in
//! the domain's bitmap, then (unless masked) the bit of its word in the vCPU's selector, then the vCPU's pending flag: each
//! step only on a transition from 0 to 1, so that a port that is pending already costs one atomic operation.
//!
//! Invariant: both ends of an interdomain channel name each other; a virtual interrupt of a vCPU has at most one port.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;

use hypercalls::event::{EvtchnStat, VirqScope};
use hypercalls::shared_info::{EVTCHN_2L_NR_CHANNELS, shared_offset, vcpu_offset};
use hypercalls::{DomId, Errno, Result, VcpuId, Virq};

use crate::domain::{self, Domain};
use crate::schedule;
use crate::vcpu::Vcpu;

/// What a port is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Closed,
    /// Waits for `remote` to bind to it.
    Unbound {
        /// Who may bind.
        remote: DomId,
    },
    /// A port of another (or the same) domain.
    Interdomain {
        /// The other domain.
        remote: DomId,
        /// The port there.
        port: u32,
    },
    /// A virtual interrupt.
    Virq(Virq),
    /// Another vCPU of the same domain.
    Ipi,
}

/// A port.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    /// What it is bound to.
    pub state: State,
    /// The vCPU that is notified.
    pub vcpu: VcpuId,
}

/// A domain's ports.
#[derive(Debug, Default)]
pub struct Events {
    channels: Vec<Channel>,
}

const CLOSED: Channel = Channel { state: State::Closed, vcpu: VcpuId(0) };

impl Events {
    /// Returns a port that exists and is not closed.
    pub fn get(&self, port: u32) -> Option<Channel> {
        self.channels.get(port as usize).copied().filter(|c| c.state != State::Closed)
    }

    fn get_mut(&mut self, port: u32) -> Option<&mut Channel> {
        self.channels.get_mut(port as usize).filter(|c| c.state != State::Closed)
    }

    /// Finds a closed port and binds it.
    ///
    /// # Errors
    /// `ENOSPC` when all are in use.
    pub fn allocate(&mut self, state: State, vcpu: VcpuId) -> Result<u32> {
        let channel = Channel { state, vcpu };
        // Port 0 is never given out.
        if self.channels.is_empty() {
            self.channels.push(CLOSED);
        }
        if let Some(port) = self.channels.iter().skip(1).position(|c| c.state == State::Closed) {
            let port = port + 1;
            self.channels[port] = channel;
            return Ok(port as u32);
        }
        if self.channels.len() >= EVTCHN_2L_NR_CHANNELS as usize {
            return Err(Errno::ENOSPC);
        }
        self.channels.push(channel);
        Ok(self.channels.len() as u32 - 1)
    }

    /// Iterates over the ports that are not closed.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Channel)> + '_ {
        self.channels.iter().enumerate().filter(|(_, c)| c.state != State::Closed).map(|(p, c)| (p as u32, *c))
    }
}

/// True when the port's bit is set in the bitmap at `base` of the shared page.
fn bit(domain: &Domain, base: usize, port: u32) -> bool {
    domain.shared_info.u64(base + port as usize / 64 * 8).load(SeqCst) >> (port % 64) & 1 != 0
}

/// True when the port is pending, masked or not.
pub fn is_pending(domain: &Domain, port: u32) -> bool {
    port < EVTCHN_2L_NR_CHANNELS && bit(domain, shared_offset::EVTCHN_PENDING, port)
}

/// True when the port is masked.
pub fn is_masked(domain: &Domain, port: u32) -> bool {
    port < EVTCHN_2L_NR_CHANNELS && bit(domain, shared_offset::EVTCHN_MASK, port)
}

/// Raises a port, to be delivered to `vcpu`.
pub fn raise(domain: &Domain, port: u32, vcpu: VcpuId) {
    let (word, mask) = (port as usize / 64 * 8, 1u64 << (port % 64));
    if port >= EVTCHN_2L_NR_CHANNELS {
        return;
    }
    if domain.shared_info.u64(shared_offset::EVTCHN_PENDING + word).fetch_or(mask, SeqCst) & mask != 0 {
        return;
    }
    if domain.shared_info.u64(shared_offset::EVTCHN_MASK + word).load(SeqCst) & mask == 0 {
        select(domain, port, vcpu);
    }
    if domain.pollers.load(SeqCst) != 0 {
        wake_pollers(domain);
    }
}

fn select(domain: &Domain, port: u32, vcpu: VcpuId) {
    let Some(vcpu) = domain.vcpu(vcpu) else { return };
    let bit = 1u64 << (port / 64);
    if vcpu.vcpu_info().u64(vcpu_offset::EVTCHN_PENDING_SEL).fetch_or(bit, SeqCst) & bit == 0 {
        mark_pending(vcpu);
    }
}

/// Tells a vCPU that events wait for it.
pub fn mark_pending(vcpu: &Vcpu) {
    if vcpu.vcpu_info().u8(vcpu_offset::EVTCHN_UPCALL_PENDING).swap(1, SeqCst) == 0 {
        schedule::kick(vcpu);
    }
}

fn wake_pollers(domain: &Domain) {
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
    let (word, mask) = (port as usize / 64 * 8, 1u64 << (port % 64));
    let was = domain.shared_info.u64(shared_offset::EVTCHN_MASK + word).fetch_and(!mask, SeqCst);
    if was & mask != 0 && is_pending(domain, port) {
        select(domain, port, channel.vcpu);
    }
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
        State::Closed | State::Virq(_) => return Err(Errno::EINVAL),
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
        _ => {
            channel.vcpu = vcpu;
            Ok(())
        }
    }
}

/// Closes a port; the other end of an interdomain channel goes back to waiting.
///
/// # Errors
/// `EINVAL` when it is not open.
pub fn close(domain: &Domain, port: u32) -> Result<()> {
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
        let word = shared_offset::EVTCHN_PENDING + port as usize / 64 * 8;
        domain.shared_info.u64(word).fetch_and(!(1 << (port % 64)), SeqCst);
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

/// Returns what the tools and Linux want to know of a port: status, vCPU, and two words that depend on it.
///
/// # Errors
/// `EINVAL` for a port out of range.
pub fn status(domain: &Domain, port: u32) -> Result<(EvtchnStat, VcpuId, u32, u32)> {
    if port >= EVTCHN_2L_NR_CHANNELS {
        return Err(Errno::EINVAL);
    }
    let channel = domain.events.lock().get(port).unwrap_or(CLOSED);
    let (status, a, b) = match channel.state {
        State::Closed => (EvtchnStat::CLOSED, 0, 0),
        State::Unbound { remote } => (EvtchnStat::UNBOUND, u32::from(remote.0), 0),
        State::Interdomain { remote, port } => (EvtchnStat::INTERDOMAIN, u32::from(remote.0), port),
        State::Virq(virq) => (EvtchnStat::VIRQ, virq.0, 0),
        State::Ipi => (EvtchnStat::IPI, 0, 0),
    };
    Ok((status, channel.vcpu, a, b))
}
