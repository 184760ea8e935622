// SPDX-License-Identifier: MIT OR Apache-2.0
//! The key that tells about event channels.

use core::fmt::Write as _;

use super::text::line;
use super::{Place, Text};
use crate::domain;
use crate::events::{self, Listed};

/// Ports that one step tells about.
const PORTS: usize = 16;

/// Tells about the open ports of every domain.
pub(super) fn all(at: u64, to: &mut Text) -> Option<u64> {
    let Place { domain: id, item } = Place::of(at);
    let domain = domain::next(id)?;
    let first = if domain.id == id { item } else { 0 };
    if first == 0 {
        let (polls, form) = (pollers(&domain), events::form_name(&domain));
        line!(to, "event channels of domain {} ({form}), {polls} vCPUs poll:", domain.id.0);
        line!(to, "{}", events::HEADER);
    }
    let mut last = None;
    for (port, channel) in domain.events.iter_from(first).take(PORTS) {
        line!(to, "{}", Listed { domain: &domain, port, channel });
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
