// SPDX-License-Identifier: MIT OR Apache-2.0
//! vCPUs as tools see and place them.

use core::sync::atomic::Ordering::Relaxed;

use hypercalls::domctl_args::*;
use hypercalls::{Errno, Payload, Result, VcpuId};

use super::info::{is_blocked, is_running, run_time};
use crate::domain::Domain;
use crate::ops::bitmap;
use crate::ops::sysctl::Answer;
use crate::placement;
use crate::vcpu::Vcpu;

/// Says what a vCPU is doing, where, and how long it has run.
pub(super) fn info(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: GetVcpuInfo = payload.get();
    let vcpu = domain.vcpu(VcpuId(a.vcpu)).ok_or(Errno::EINVAL)?;
    let status = &vcpu.status;
    payload.put(&GetVcpuInfo {
        online: u8::from(!status.down.load(Relaxed)),
        blocked: u8::from(is_blocked(vcpu)),
        running: u8::from(is_running(vcpu)),
        cpu_time: run_time(vcpu),
        cpu: u32::from(status.cpu.load(Relaxed)),
        ..a
    });
    Ok(Answer::Back)
}

/// Returns the vCPU that an affinity is about, after a look at the rest of the argument.
fn target<'a>(domain: &'a Domain, a: &VcpuAffinity) -> Result<&'a Vcpu> {
    let vcpu = domain.vcpu(VcpuId(a.vcpu)).ok_or(Errno::EINVAL)?;
    let lacks = |flag, map: &Bitmap| a.flags & flag != 0 && map.bitmap.is_null();
    if a.flags == 0 || lacks(XEN_VCPUAFFINITY_HARD, &a.cpumap_hard) || lacks(XEN_VCPUAFFINITY_SOFT, &a.cpumap_soft) {
        return Err(Errno::EINVAL);
    }
    Ok(vcpu)
}

/// Says where a vCPU may run, and where it would like to.
pub(super) fn affinity(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: VcpuAffinity = payload.get();
    let places = placement::places(target(domain, &a)?);
    if a.flags & XEN_VCPUAFFINITY_HARD != 0 {
        bitmap::write_cpus(&a.cpumap_hard, &places.hard)?;
    }
    if a.flags & XEN_VCPUAFFINITY_SOFT != 0 {
        bitmap::write_cpus(&a.cpumap_soft, &places.soft)?;
    }
    Ok(Answer::Nothing)
}

/// Sets where a vCPU may run, and where it would like to, and says what that comes to on the CPUs there are.
pub(super) fn set_affinity(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: VcpuAffinity = payload.get();
    let vcpu = target(domain, &a)?;
    let online = crate::pools::cpus_of(domain);
    let within = |mut cpus: arch::CpuMask| {
        cpus.intersect(&online);
        cpus
    };
    let mut places = placement::places(vcpu);
    if a.flags & XEN_VCPUAFFINITY_HARD != 0 {
        places.hard = bitmap::read_cpus(&a.cpumap_hard)?;
    }
    if a.flags & XEN_VCPUAFFINITY_SOFT != 0 {
        places.soft = bitmap::read_cpus(&a.cpumap_soft)?;
    }
    // Nowhere to run is no place to be; nowhere to want to be is.
    if within(places.hard).is_empty() {
        return Err(Errno::EINVAL);
    }
    placement::set_places(vcpu, &places);
    let hard = within(places.hard);
    if a.flags & XEN_VCPUAFFINITY_HARD != 0 {
        bitmap::write_cpus(&a.cpumap_hard, &hard)?;
    }
    if a.flags & XEN_VCPUAFFINITY_SOFT != 0 {
        let mut soft = places.soft;
        soft.intersect(&hard);
        bitmap::write_cpus(&a.cpumap_soft, &soft)?;
    }
    Ok(Answer::Nothing)
}
