// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tools set of a vCPU, and read back: all that is needed to start it, to save it and to go on with it.
//!
//! Its domain is paused meanwhile, so that it is in no CPU. No domain does any of this to itself.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use alloc::boxed::Box;
use hypercalls::domctl_args::*;
use hypercalls::{Errno, GuestVa, Payload, Result, VcpuGuestContext, VcpuId};
use zerocopy::FromZeros;

use super::settings::not_self;
use crate::domain::Domain;
use crate::ops::sysctl::Answer;
use crate::vcpu::{Entry, Vcpu};
use crate::{guest, initialise, schedule};

/// Does something to a vCPU of a paused domain.
fn while_paused<T>(domain: &Domain, act: impl FnOnce() -> T) -> T {
    domain.pause();
    let result = act();
    domain.unpause();
    result
}

/// Sets a vCPU's state; none puts it back to where it was when it was made.
pub(super) fn set_context(caller: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: DomctlVcpuContext = payload.get();
    not_self(caller, domain)?;
    let vcpu = domain.vcpu(VcpuId(a.vcpu)).ok_or(Errno::EINVAL)?;
    let context = if a.ctxt.is_null() { Box::default() } else { guest::read_boxed(a.ctxt)? };
    while_paused(domain, || {
        let _only_one = domain.initialising.lock();
        let Some(context) = context.first() else { return initialise::reset(vcpu) };
        let is_new = !vcpu.status.initialised.load(SeqCst);
        initialise::set(vcpu, context)?;
        if is_new {
            // It starts with a 100 Hz tick; kernels switch it off.
            crate::ops::vcpu::set_periodic(vcpu, 10_000_000)?;
        }
        Ok(())
    })?;
    Ok(Answer::Nothing)
}

/// Reads a vCPU's state.
pub(super) fn context(caller: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: DomctlVcpuContext = payload.get();
    not_self(caller, domain)?;
    let vcpu = domain.vcpu(VcpuId(a.vcpu)).ok_or(Errno::EINVAL)?;
    if !vcpu.status.initialised.load(SeqCst) {
        return Err(Errno::ENODATA);
    }
    let mut context = guest::boxed(VcpuGuestContext::new_zeroed())?;
    for context in &mut context {
        while_paused(domain, || initialise::get(vcpu, context));
        guest::write(a.ctxt, context)?;
    }
    Ok(Answer::Back)
}

/// Bytes of the argument without what is about machine checks.
const CALLBACKS: u32 = 32;

/// Sets where system calls of other kinds go.
pub(super) fn set_extended(caller: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: ExtVcpuContext = payload.get();
    let vcpu = domain.vcpu(VcpuId(a.vcpu)).ok_or(Errno::ESRCH)?;
    if caller.domid == domain.id {
        return Err(Errno::ESRCH);
    }
    let canonical = [a.sysenter_callback_eip, a.syscall32_callback_eip].iter().all(|va| GuestVa(*va).is_canonical());
    if a.size < CALLBACKS || !canonical {
        return Err(Errno::EINVAL);
    }
    while_paused(domain, || {
        vcpu.sysenter.set(a.sysenter_callback_eip, a.sysenter_disables_events != 0);
        vcpu.syscall32.set(a.syscall32_callback_eip, a.syscall32_disables_events != 0);
    });
    Ok(Answer::Nothing)
}

/// Says where system calls of other kinds go.
pub(super) fn extended(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: ExtVcpuContext = payload.get();
    let vcpu = domain.vcpu(VcpuId(a.vcpu)).ok_or(Errno::ESRCH)?;
    let address = |entry: &Entry| entry.address.load(Relaxed);
    let masks = |entry: &Entry| u8::from(entry.mask_events.load(Relaxed));
    payload.put(&ExtVcpuContext {
        vcpu: a.vcpu,
        size: size_of::<ExtVcpuContext>() as u32,
        sysenter_callback_eip: address(&vcpu.sysenter),
        sysenter_disables_events: masks(&vcpu.sysenter),
        syscall32_callback_eip: address(&vcpu.syscall32),
        syscall32_disables_events: masks(&vcpu.syscall32),
        ..ExtVcpuContext::default()
    });
    Ok(Answer::Back)
}

/// Sends a vCPU an NMI; there is nothing else that it could be sent.
pub(super) fn send_trigger(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: SendTrigger = payload.get();
    let vcpu = domain.vcpu(VcpuId(a.vcpu)).ok_or(Errno::ESRCH)?;
    match a.trigger {
        Trigger::NMI => {
            vcpu.nmi_pending.store(true, SeqCst);
            schedule::deliver(vcpu);
            Ok(Answer::Nothing)
        }
        Trigger::POWER | Trigger::SLEEP => Err(Errno::EINVAL),
        _ => Err(Errno::ENOSYS),
    }
}
