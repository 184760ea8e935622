// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tools set of a domain as a whole, and read back.

use core::sync::atomic::Ordering::SeqCst;

use hypercalls::domctl_args::*;
use hypercalls::{Errno, Mfn, Payload, Result};

use crate::domain::Domain;
use crate::ops::bitmap;
use crate::ops::sysctl::Answer;
use crate::placement::{self, Weight};
use crate::vcpu::Vcpu;
use crate::{pools, time};

/// Refuses what a domain cannot do to itself.
pub(super) fn not_self(vcpu: &Vcpu, domain: &Domain) -> Result<()> {
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

/// Destroys a domain, a step at a time.
pub(super) fn destroy(vcpu: &Vcpu, domain: &Domain, _: &mut Payload) -> Result<Answer> {
    not_self(vcpu, domain)?;
    crate::death::destroy(domain)?;
    Ok(Answer::Nothing)
}

/// Lets a domain go on that has shut down.
pub(super) fn resume(vcpu: &Vcpu, domain: &Domain, _: &mut Payload) -> Result<Answer> {
    not_self(vcpu, domain)?;
    domain.resume();
    Ok(Answer::Nothing)
}

/// Makes the vCPUs: all are there since the domain was created, so only their number is looked at.
pub(super) fn max_vcpus(vcpu: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: MaxVcpus = payload.get();
    not_self(vcpu, domain)?;
    if a.max as usize == domain.vcpus.len() { Ok(Answer::Nothing) } else { Err(Errno::EINVAL) }
}

/// Has the end of a domain that shuts down to be saved told through one of its own ports.
pub(super) fn subscribe(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: Subscribe = payload.get();
    domain.suspend_port.store(a.port, SeqCst);
    Ok(Answer::Nothing)
}

/// Gives a domain another name among tools.
pub(super) fn set_handle(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: SetDomainHandle = payload.get();
    *domain.handle.lock() = a.handle;
    Ok(Answer::Nothing)
}

/// Fills a page of a domain with the stubs that its kernel calls.
pub(super) fn hypercall_page(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: HypercallInit = payload.get();
    let mfn = Mfn(a.gmfn);
    // One that is there and cannot be written is another mistake.
    mm::PageRef::get(mfn, domain.id).ok_or(Errno::EINVAL)?;
    crate::hypercall_page::fill(domain, mfn).map_err(|_| Errno::EPERM)?;
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
    if Some(a.sched_id) != pools::scheduler(pools::of(domain)) {
        return Err(Errno::EINVAL);
    }
    match a.cmd {
        DomctlSchedOp::PUTINFO | DomctlSchedOp::GETINFO if a.sched_id == SchedulerId::NULL => {}
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

/// Says how a domain sees the time-stamp counter.
pub(super) fn tsc(vcpu: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    not_self(vcpu, domain)?;
    payload.put(&domain.tsc.record());
    Ok(Answer::Back)
}

/// Sets how a domain sees the time-stamp counter. dom0 sees the machine's: it may make time of it for the machine.
pub(super) fn set_tsc(vcpu: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: TscInfo = payload.get();
    not_self(vcpu, domain)?;
    if domain.privileged {
        return Ok(Answer::Nothing);
    }
    domain.pause();
    let set = domain.tsc.set(&a);
    // What was published belongs to the old one: it is published anew when a vCPU runs.
    domain.vcpus.iter().for_each(|vcpu| vcpu.time_due.store(0, SeqCst));
    domain.unpause();
    set.map(|()| Answer::Nothing)
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
