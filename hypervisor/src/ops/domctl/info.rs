// SPDX-License-Identifier: MIT OR Apache-2.0
//! A domain as tools see it.

use core::sync::atomic::Ordering::Relaxed;

use hypercalls::domctl_args::*;
use hypercalls::vcpu::Runstate;

use crate::domain::Domain;
use crate::vcpu::Vcpu;

/// Returns how long a vCPU has run, in ns.
pub fn run_time(vcpu: &Vcpu) -> u64 {
    let info = vcpu.runstate.lock().info(arch::time::now());
    info.time.get(Runstate::RUNNING.0 as usize).copied().unwrap_or(0)
}

/// True while a vCPU runs. Its own account says so from when it is loaded until it is saved; a CPU that finds out that it may not
/// run a vCPU has had the right to it for a moment.
pub fn is_running(vcpu: &Vcpu) -> bool {
    vcpu.runstate.lock().state() == Runstate::RUNNING
}

/// True while a vCPU waits for an event.
pub fn is_blocked(vcpu: &Vcpu) -> bool {
    vcpu.status.blocked.load(Relaxed) || vcpu.status.polling.load(Relaxed)
}

fn flags(domain: &Domain) -> u32 {
    let online = || domain.vcpus.iter().filter(|v| !v.status.down.load(Relaxed));
    let any = online().next().is_some();
    let shut_down = domain.is_shut_down.load(Relaxed);
    let set = [
        (XEN_DOMINF_BLOCKED, any && online().all(is_blocked)),
        (XEN_DOMINF_RUNNING, online().any(is_running)),
        (XEN_DOMINF_DYING, domain.dead.load(Relaxed)),
        (XEN_DOMINF_SHUTDOWN, shut_down),
        (XEN_DOMINF_PAUSED, domain.controller_pauses.load(Relaxed) != 0),
        (XEN_DOMINF_XS_DOMAIN, domain.serves_store),
    ];
    // All ones as long as there is none.
    let reason = domain.shutdown_code.load(Relaxed) & XEN_DOMINF_SHUTDOWNMASK;
    set.iter().filter(|(_, is_so)| *is_so).fold(reason << XEN_DOMINF_SHUTDOWNSHIFT, |all, (flag, _)| all | flag)
}

/// Describes a domain.
pub fn of(domain: &Domain) -> GetDomainInfo {
    let cpupool = crate::pools::of(domain).0;
    GetDomainInfo {
        domain: domain.id,
        flags: flags(domain),
        tot_pages: domain.account.owned(),
        // The tools take the largest 32-bit number for no limit.
        max_pages: domain.account.maximum().min(u64::from(u32::MAX)),
        outstanding_pages: domain.account.claimed(),
        shared_info_frame: domain.shared_info().mfn().0,
        cpu_time: domain.vcpus.iter().map(run_time).sum(),
        nr_online_vcpus: domain.vcpus.iter().filter(|v| !v.status.down.load(Relaxed)).count() as u32,
        max_vcpu_id: (domain.vcpus.len() as u32).wrapping_sub(1),
        handle: *domain.handle.lock(),
        cpupool,
        arch_config: domain.arch,
        ..GetDomainInfo::default()
    }
}
