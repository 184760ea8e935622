// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the machine is and has, and which domains it runs.

use hypercalls::sysctl_args::*;
use hypercalls::{DomId, Mfn, Payload, Result};
use mm::{buddy, frame};

use super::{Answer, topology};
use crate::ops::domctl;
use crate::vcpu::Vcpu;
use crate::{domain, guest, host};

/// Says what the machine has: CPUs, memory, features, and what the tools may ask for.
pub(super) fn physinfo(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let cpus = arch::cpu::online();
    let (threads_per_core, cores_per_socket) = topology::shape();
    payload.put(&Physinfo {
        threads_per_core,
        cores_per_socket,
        nr_cpus: cpus.count() as u32,
        max_cpu_id: crate::cpus::count().saturating_sub(1),
        nr_nodes: 1,
        max_node_id: 0,
        cpu_khz: arch::time::scale().khz,
        capabilities: XEN_SYSCTL_PHYSCAP_PV | XEN_SYSCTL_PHYSCAP_GNTTAB_V1,
        total_pages: buddy::total_frames(),
        free_pages: buddy::frames_for_domains(),
        outstanding_pages: buddy::claimed_frames(),
        max_mfn: frame::end().saturating_sub(1),
        hw_cap: host::capabilities(),
        ..Physinfo::default()
    });
    Ok(Answer::Back)
}

/// Describes domains in ascending order of their numbers, from the first one wanted on, as many as there is room for.
pub(super) fn domains(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: GetDomainInfoList = payload.get();
    let mut next = a.first_domain;
    let mut count = 0;
    while count < a.max_domains
        && let Some(domain) = domain::next(next)
    {
        guest::write_at(a.buffer, u64::from(count), &domctl::info::of(&domain))?;
        count += 1;
        let Some(behind) = domain.id.0.checked_add(1) else { break };
        next = DomId(behind);
    }
    a.num_domains = count;
    payload.put(&a);
    Ok(Answer::Back)
}

/// Says how long each CPU has been idle.
pub(super) fn idle_times(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: GetCpuInfo = payload.get();
    let now = arch::time::now();
    let mut count = 0;
    for cpu in arch::cpu::online().iter().take(a.max_cpus as usize) {
        guest::write_at(a.info, u64::from(count), &arch::cpu::idle_time(cpu, now))?;
        count += 1;
    }
    a.nr_cpus = count;
    payload.put(&a);
    Ok(Answer::Back)
}

/// Says how much memory is free whose addresses have a number of bits that lies in a range.
pub(super) fn available(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: AvailHeap = payload.get();
    // -1 is every node.
    let is_here = matches!(a.node, -1 | 0);
    let up_to = |bits| if bits == 0 { buddy::free_frames() } else { buddy::free_frames_below(bits) };
    let below = |bits: u32| bits.checked_sub(1).map_or(0, buddy::free_frames_below);
    let frames = up_to(a.max_bitwidth).saturating_sub(below(a.min_bitwidth));
    a.avail_bytes = if is_here { Mfn(frames).maddr().0 } else { 0 };
    payload.put(&a);
    Ok(Answer::Back)
}

/// No feature can be masked from guests in hardware.
pub(super) fn levelling_caps(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    payload.put(&CpuLevellingCaps { caps: 0 });
    Ok(Answer::Back)
}
