// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is told of ports: to the tools in numbers, to a person in a line.

use core::fmt;

use hypercalls::event::{EvtchnStat, FIFO_LINK_MASK};
use hypercalls::{Result, VcpuId};

use super::fifo::queue::{BUSY, LINKED};
use super::port::{Channel, State};
use super::send::{is_masked, is_pending};
use crate::domain::Domain;

/// Returns what the tools and Linux want to know of a port: status, vCPU, and two words that depend on it.
///
/// # Errors
/// `EINVAL` for a port that was never there.
pub fn status(domain: &Domain, port: u32) -> Result<(EvtchnStat, VcpuId, u32, u32)> {
    let channel = domain.events.valid(port)?.channel();
    let (status, a, b) = channel.describe();
    Ok((status, channel.vcpu, a, b))
}

/// A port, to be shown in a line: its number, `p`ending, `m`asked, the port behind it in its queue (`B` when that is being
/// changed), vCPU and priority, and what it is bound to. [`HEADER`] goes above.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Whose it is.
    pub domain: &'a Domain,
    /// Its number.
    pub port: u32,
    /// What it is bound to.
    pub channel: Channel,
}

/// What the columns of a [`Listed`] port are.
pub const HEADER: &str = "  port pm  link vCPU prio bound to";

/// Returns the name of the form that a domain uses.
pub fn form_name(domain: &Domain) -> &'static str {
    if domain.events.fifo.is_some() { "FIFO" } else { "two-level" }
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, port, channel } = *self;
        let mark = |is_set, mark| if is_set { mark } else { '-' };
        let pending = mark(is_pending(domain, port), 'p');
        write!(f, "{port:6} {pending}{} ", mark(is_masked(domain, port), 'm'))?;
        match domain.events.fifo.with(|fifo| fifo.peek(port)).flatten() {
            Some(word) if word & LINKED != 0 => {
                write!(f, "{:5}{}", word & FIFO_LINK_MASK, if word & BUSY != 0 { 'B' } else { ' ' })?;
            }
            _ => f.write_str("    - ")?,
        }
        write!(f, "{:4} {:4} ", channel.vcpu.0, channel.priority)?;
        match channel.state {
            State::Closed => f.write_str("nothing"),
            State::Unbound { remote } => write!(f, "nobody yet; d{} may bind", remote.0),
            State::Interdomain { remote, port } => write!(f, "port {port} of d{}", remote.0),
            State::Virq(virq) => write!(f, "{virq:?}"),
            State::Pirq(pirq) => write!(f, "PIRQ {pirq}"),
            State::Ipi => f.write_str("another vCPU"),
            State::Console => f.write_str("the hypervisor, for its console"),
        }
    }
}
