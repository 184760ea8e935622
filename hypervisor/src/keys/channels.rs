// SPDX-License-Identifier: MIT OR Apache-2.0
//! The key that tells about event channels.

use core::fmt::Write as _;

use super::text::{line, part};
use super::{Place, Text, patiently};
use crate::domain;
use crate::events::{self, State};

/// Ports that one step tells about.
const PORTS: usize = 16;

/// Tells about the open ports of every domain.
pub(super) fn all(at: u64, to: &mut Text) -> Option<u64> {
    let Place { domain: id, item } = Place::of(at);
    let domain = domain::next(id)?;
    let first = if domain.id == id { item } else { 0 };
    if first == 0 {
        line!(to, "event channels of domain {}, {} vCPUs poll:", domain.id.0, pollers(&domain));
        line!(to, "  port: pending/masked, vCPU, what it is bound to");
    }
    let Some(open) = patiently(&domain.events) else {
        line!(to, "  busy");
        return Place::behind(domain.id);
    };
    let mut last = None;
    for (port, channel) in open.iter().skip_while(|(port, _)| *port < first).take(PORTS) {
        let bit = |is_set| if is_set { '1' } else { '0' };
        let pending = bit(events::is_pending(&domain, port));
        let masked = bit(events::is_masked(&domain, port));
        part!(to, "  {port:4}: {pending}/{masked} v{} ", channel.vcpu.0);
        match channel.state {
            State::Closed => line!(to, "nothing"),
            State::Unbound { remote } => line!(to, "nobody yet; d{} may bind", remote.0),
            State::Interdomain { remote, port } => line!(to, "port {port} of d{}", remote.0),
            State::Virq(virq) => line!(to, "{virq:?}"),
            State::Pirq(pirq) => line!(to, "PIRQ {pirq}"),
            State::Ipi => line!(to, "another vCPU"),
        }
        last = Some(port);
    }
    match last {
        Some(port) => Place::at(domain.id, port + 1),
        None => Place::behind(domain.id),
    }
}

fn pollers(domain: &domain::Domain) -> u64 {
    domain.pollers.load(core::sync::atomic::Ordering::Relaxed)
}
