// SPDX-License-Identifier: MIT OR Apache-2.0
//! `event_channel_op`.

use core::mem::offset_of;
use core::sync::atomic::Ordering::SeqCst;

use hypercalls::event::*;
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr, Mfn, Result, VcpuId};

use crate::dispatch::{Args, Outcome, SubOp, by_family, run_sub, sub};
use crate::domain::{self, Domain};
use crate::vcpu::Vcpu;
use crate::{events, guest, pirq};

/// The sub-operations.
pub static OPS: [SubOp; 15] = [
    sub("bind_interdomain", |vcpu, arg| {
        answer(arg, |a: &mut EvtchnBindInterdomain| {
            let remote = resolve(vcpu, a.remote_dom);
            a.local_port = events::bind_interdomain(vcpu.domain(), remote, a.remote_port)?;
            Ok(())
        })
    }),
    sub("bind_virq", |vcpu, arg| {
        answer(arg, |a: &mut EvtchnBindVirq| {
            a.port = events::bind_virq(vcpu.domain(), a.virq, VcpuId(a.vcpu))?;
            Ok(())
        })
    }),
    sub("bind_pirq", |vcpu, arg| {
        answer(arg, |a: &mut EvtchnBindPirq| {
            a.port = pirq::bind(vcpu.domain(), a.pirq, a.flags & BIND_PIRQ_WILL_SHARE != 0)?;
            Ok(())
        })
    }),
    sub("close", |vcpu, arg| {
        let a: EvtchnClose = guest::read(GuestPtr::new(arg))?;
        events::close(vcpu.domain(), a.port).map(|()| 0)
    }),
    sub("send", send),
    sub("status", |vcpu, arg| answer(arg, |a: &mut EvtchnStatus| status(vcpu, a))),
    sub("alloc_unbound", |vcpu, arg| {
        answer(arg, |a: &mut EvtchnAllocUnbound| {
            let remote = resolve(vcpu, a.remote_dom);
            a.port = with_domain(vcpu, a.dom, |domain| events::alloc_unbound(domain, remote))?;
            Ok(())
        })
    }),
    sub("bind_ipi", |vcpu, arg| {
        answer(arg, |a: &mut EvtchnBindIpi| {
            a.port = events::bind_ipi(vcpu.domain(), VcpuId(a.vcpu))?;
            Ok(())
        })
    }),
    sub("bind_vcpu", |vcpu, arg| {
        let a: EvtchnBindVcpu = guest::read(GuestPtr::new(arg))?;
        events::bind_vcpu(vcpu.domain(), a.port, VcpuId(a.vcpu)).map(|()| 0)
    }),
    sub("unmask", |vcpu, arg| {
        let a: EvtchnUnmask = guest::read(GuestPtr::new(arg))?;
        events::unmask(vcpu.domain(), a.port).map(|()| 0)
    }),
    by_family("reset"),
    sub("init_control", |vcpu, arg| {
        answer(arg, |a: &mut EvtchnInitControl| {
            a.link_bits = FIFO_LINK_BITS as u8;
            events::init_control(vcpu.domain(), VcpuId(a.vcpu), Mfn(a.control_gfn), a.offset)
        })
    }),
    sub("expand_array", |vcpu, arg| {
        let a: EvtchnExpandArray = guest::read(GuestPtr::new(arg))?;
        events::expand_array(vcpu.domain(), Mfn(a.array_gfn)).map(|()| 0)
    }),
    sub("set_priority", |vcpu, arg| {
        let a: EvtchnSetPriority = guest::read(GuestPtr::new(arg))?;
        events::set_priority(vcpu.domain(), a.port, a.priority).map(|()| 0)
    }),
    by_family("reset_cont"),
];

/// Hypercall 32.
#[inline(always)]
pub fn event_channel_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    let [op, arg, ..] = *args;
    // A C `int` in the interface.
    if op as u32 == EvtchnOp::SEND.0 {
        // The one that is called all the time.
        return send(vcpu, arg).into();
    }
    other(vcpu, op & 0xffff_ffff, arg)
}

#[inline(always)]
fn send(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let a: EvtchnSend = guest::read(GuestPtr::new(arg))?;
    events::send(vcpu.domain(), a.port).map(|()| 0)
}

#[inline(never)]
fn other(vcpu: &Vcpu, op: u64, arg: u64) -> Outcome {
    if op == u64::from(EvtchnOp::RESET.0) || op == u64::from(EvtchnOp::RESET_CONT.0) {
        return reset(vcpu, op == u64::from(EvtchnOp::RESET_CONT.0), arg);
    }
    run_sub(vcpu, HypercallNr::EVENT_CHANNEL_OP, &OPS, op, arg).into()
}

/// Hypercall 16, the old form: the number of the sub-operation lies before its argument.
pub fn event_channel_op_compat(vcpu: &Vcpu, args: &Args) -> Outcome {
    let op = GuestPtr::<EvtchnOp>::new(args[0]);
    match guest::read(op) {
        Ok(cmd) => event_channel_op(vcpu, &[u64::from(cmd.0), args[0] + offset_of!(EvtchnOpCompat, u) as u64, 0, 0, 0]),
        Err(error) => Err(error).into(),
    }
}

/// Resets a domain's event channels; another one's only while it is paused.
fn reset(vcpu: &Vcpu, goes_on: bool, arg: u64) -> Outcome {
    let act = || {
        let a: EvtchnReset = guest::read(GuestPtr::new(arg))?;
        with_domain(vcpu, a.dom, |domain| {
            if domain.id != vcpu.domid && domain.pause_count.load(SeqCst) == 0 {
                return Err(Errno::EINVAL);
            }
            events::reset(domain, goes_on)
        })
    };
    match act() {
        Err(Errno::ERESTART) => Outcome::Again([u64::from(EvtchnOp::RESET_CONT.0), arg, 0, 0, 0]),
        result => result.map(|()| 0).into(),
    }
}

/// Reads the argument, lets `act` fill in the answer, and writes it back.
fn answer<T>(arg: u64, act: impl FnOnce(&mut T) -> Result<()>) -> Result<i64>
where
    T: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    let ptr = GuestPtr::new(arg);
    let mut value: T = guest::read(ptr)?;
    act(&mut value)?;
    guest::write(ptr, &value)?;
    Ok(0)
}

fn resolve(vcpu: &Vcpu, id: DomId) -> DomId {
    if id == DomId::SELF { vcpu.domid } else { id }
}

/// Calls `f` with the domain a caller names: itself, or another one if it is privileged.
fn with_domain<T>(vcpu: &Vcpu, id: DomId, f: impl FnOnce(&Domain) -> Result<T>) -> Result<T> {
    let id = resolve(vcpu, id);
    if id == vcpu.domid {
        return f(vcpu.domain());
    }
    let other = domain::find(id).ok_or(Errno::ESRCH)?;
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM);
    }
    f(&other)
}

fn status(vcpu: &Vcpu, a: &mut EvtchnStatus) -> Result<()> {
    let (status, notified, arg, arg2) = with_domain(vcpu, a.dom, |domain| events::status(domain, a.port))?;
    (a.status, a.vcpu, a.arg, a.arg2) = (status, notified.0, arg, arg2);
    Ok(())
}
