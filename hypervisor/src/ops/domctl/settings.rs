// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tools set of a domain as a whole, and read back.

use core::sync::atomic::Ordering::SeqCst;

use hypercalls::domctl_args::*;
use hypercalls::{Errno, Payload, Result};

use crate::domain::Domain;
use crate::ops::bitmap;
use crate::ops::sysctl::Answer;
use crate::placement::{self, Weight};
use crate::time;
use crate::vcpu::Vcpu;

/// Refuses what a domain cannot do to itself.
fn not_self(vcpu: &Vcpu, domain: &Domain) -> Result<()> {
    if vcpu.domid == domain.id { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Stops all vCPUs of a domain until it is unpaused as often.
pub(super) fn pause(vcpu: &Vcpu, domain: &Domain, _: &mut Payload) -> Result<Answer> {
    not_self(vcpu, domain)?;
    domain.pause_by_controller()?;
    Ok(Answer::Nothing)
}

/// Takes one pause back.
pub(super) fn unpause(_: &Vcpu, domain: &Domain, _: &mut Payload) -> Result<Answer> {
    domain.unpause_by_controller()?;
    Ok(Answer::Nothing)
}

const PAGES_PER_KIB_SHIFT: u32 = 2;

/// Sets how much memory a domain may have; it may have more already.
pub(super) fn max_mem(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: MaxMem = payload.get();
    domain.account.set_maximum(a.max_memkb >> PAGES_PER_KIB_SHIFT);
    Ok(Answer::Nothing)
}

/// Reads or sets the part of the CPUs that a domain gets.
pub(super) fn scheduler_op(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let mut a: DomctlSchedulerOp = payload.get();
    if a.sched_id != placement::scheduler() {
        return Err(Errno::EINVAL);
    }
    match a.cmd {
        DomctlSchedOp::GETINFO => {
            let Weight { weight, cap_percent } = placement::weight(domain);
            (a.weight, a.cap) = (weight, cap_percent);
        }
        DomctlSchedOp::PUTINFO => {
            let old = placement::weight(domain);
            // 0 leaves the weight as it is.
            let weight = if a.weight == 0 { old.weight } else { a.weight };
            if usize::from(a.cap) > 100 * domain.vcpus.len() {
                return Err(Errno::EINVAL);
            }
            placement::set_weight(domain, Weight { weight, cap_percent: a.cap });
        }
        _ => return Err(Errno::EINVAL),
    }
    payload.put(&a);
    Ok(Answer::Back)
}

/// Sets by how many seconds a domain's clock differs from the machine's.
pub(super) fn time_offset(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: SetTimeOffset = payload.get();
    domain.time_offset.store(a.time_offset_seconds.cast_unsigned(), SeqCst);
    time::publish_wall_clock(domain);
    Ok(Answer::Nothing)
}

/// Bits of an address of every guest.
const ADDRESS_BITS: u32 = 64;

/// Says how wide a domain's addresses are.
pub(super) fn address_size(_: &Vcpu, _: &Domain, payload: &mut Payload) -> Result<Answer> {
    payload.put(&AddressSize { size: ADDRESS_BITS });
    Ok(Answer::Back)
}

/// There are 64-bit guests only, so there is nothing to set.
pub(super) fn set_address_size(_: &Vcpu, _: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: AddressSize = payload.get();
    match a.size {
        ADDRESS_BITS => Ok(Answer::Nothing),
        32 => Err(Errno::EOPNOTSUPP),
        _ => Err(Errno::EINVAL),
    }
}

/// The machine's time-stamp counter, as it is.
const TSC_NATIVE: u32 = 2;

/// Says how a domain sees the time-stamp counter.
pub(super) fn tsc(vcpu: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    not_self(vcpu, domain)?;
    payload.put(&TscInfo {
        tsc_mode: TSC_NATIVE,
        gtsc_khz: u32::try_from(arch::time::scale().khz).unwrap_or(u32::MAX),
        elapsed_nsec: arch::time::now(),
        ..TscInfo::default()
    });
    Ok(Answer::Back)
}

/// Says on which nodes a domain's memory would best be: there is one.
pub(super) fn node_affinity(_: &Vcpu, _: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: NodeAffinity = payload.get();
    bitmap::write_nodes(&a.nodemap)?;
    Ok(Answer::Nothing)
}

/// Takes a set of nodes that has the only one.
pub(super) fn set_node_affinity(_: &Vcpu, _: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: NodeAffinity = payload.get();
    bitmap::read_nodes(&a.nodemap)?;
    Ok(Answer::Nothing)
}
