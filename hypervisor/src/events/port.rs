// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports: what one can be bound to, and a domain's table of them.

use alloc::vec::Vec;

use hypercalls::event::EvtchnStat;
use hypercalls::shared_info::EVTCHN_2L_NR_CHANNELS;
use hypercalls::{DomId, Errno, Result, VcpuId, Virq};

use crate::domain::Domain;

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
    /// An interrupt of the machine, by the domain's number for it; [`crate::pirq`] keeps it.
    Pirq(u32),
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

    pub(super) fn get_mut(&mut self, port: u32) -> Option<&mut Channel> {
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
        State::Pirq(pirq) => (EvtchnStat::PIRQ, pirq, 0),
        State::Ipi => (EvtchnStat::IPI, 0, 0),
    };
    Ok((status, channel.vcpu, a, b))
}
