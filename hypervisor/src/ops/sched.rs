// SPDX-License-Identifier: MIT OR Apache-2.0
//! `sched_op`: yield, block, poll, shut down.

use core::sync::atomic::Ordering::SeqCst;

use arch::cpu::{self, Work};
use hypercalls::sched::*;
use hypercalls::{Errno, GuestPtr, HypercallNr, Result};

use crate::dispatch::{Args, Outcome, SubOp, run_sub, sub};
use crate::vcpu::Vcpu;
use crate::{cpus, crash, domain, events, guest, placement, schedule, timers, watchdog};

/// The sub-operations.
pub static OPS: [SubOp; 8] = [
    sub("yield", |vcpu, _| yield_now(vcpu)),
    sub("block", |vcpu, _| block(vcpu)),
    sub("shutdown", |vcpu, arg| {
        let args: SchedShutdown = guest::read(GuestPtr::new(arg))?;
        shutdown(vcpu, args.reason)
    }),
    sub("poll", poll),
    sub("remote_shutdown", remote_shutdown),
    sub("shutdown_code", |vcpu, arg| {
        let args: SchedShutdown = guest::read(GuestPtr::new(arg))?;
        vcpu.domain().give_reason(reason(args.reason));
        Ok(0)
    }),
    sub("watchdog", |vcpu, arg| {
        let args: SchedWatchdog = guest::read(GuestPtr::new(arg))?;
        watchdog::set(vcpu.domain(), args.id, args.timeout)
    }),
    sub("pin_override", pin_override),
];

/// The sub-operations of the old form, whose argument is the value itself.
pub static COMPAT: [SubOp; 3] = [
    sub("yield", |vcpu, _| yield_now(vcpu)),
    sub("block", |vcpu, _| block(vcpu)),
    sub("shutdown", |vcpu, arg| shutdown(vcpu, ShutdownReason(arg as u32))),
];

/// Hypercall 29.
pub fn sched_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    // A C `int` in the interface.
    run_sub(vcpu, HypercallNr::SCHED_OP, &OPS, args[0] & 0xffff_ffff, args[1]).into()
}

/// Hypercall 6.
pub fn sched_op_compat(vcpu: &Vcpu, args: &Args) -> Outcome {
    run_sub(vcpu, HypercallNr::SCHED_OP_COMPAT, &COMPAT, args[0] & 0xffff_ffff, args[1]).into()
}

fn yield_now(vcpu: &Vcpu) -> Result<i64> {
    schedule::yield_now(vcpu);
    Ok(0)
}

fn block(vcpu: &Vcpu) -> Result<i64> {
    schedule::block(vcpu);
    Ok(0)
}

/// The part of a reason that is kept.
const fn reason(given: ShutdownReason) -> ShutdownReason {
    ShutdownReason(given.0 & 0xff)
}

fn shutdown(vcpu: &Vcpu, given: ShutdownReason) -> Result<i64> {
    let domain = vcpu.domain();
    if let Some(reason) = domain.shut_down(reason(given)) {
        if reason == ShutdownReason::CRASH {
            log::error!("d{}v{}: {}", vcpu.domid.0, vcpu.id.0, crash::Reason::Requested);
        }
        crash::ended(domain, reason);
    }
    Ok(0)
}

/// Shuts another domain down, or its own.
fn remote_shutdown(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: SchedRemoteShutdown = guest::read(GuestPtr::new(arg))?;
    let target = domain::find(args.domain_id).ok_or(Errno::ESRCH)?;
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM);
    }
    if let Some(reason) = target.shut_down(reason(args.reason)) {
        crash::ended(&target, reason);
    }
    Ok(0)
}

/// Pins the caller to a CPU for a while: firmware wants to be called on a certain one.
fn pin_override(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM);
    }
    let args: SchedPinOverride = guest::read(GuestPtr::new(arg))?;
    let to = match u32::try_from(args.pcpu) {
        Ok(cpu) => Some(cpus::online(cpu).ok_or(Errno::EINVAL)?),
        Err(_) => None,
    };
    placement::pin(vcpu, to)?;
    Ok(0)
}

/// Most ports that one `poll` may name.
const MAX_PORTS: u32 = 128;

fn poll(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: SchedPoll = guest::read(GuestPtr::new(arg))?;
    if args.nr_ports > MAX_PORTS || !args.ports.range_ok(u64::from(args.nr_ports)) {
        return Err(Errno::EINVAL);
    }
    let domain = vcpu.domain();
    let only = if args.nr_ports == 1 { Some(guest::read_at(args.ports, 0)?) } else { None };
    vcpu.status.polled_port.store(only.unwrap_or(0), SeqCst);
    // Announced first, looked at second: an event between the two finds the flag.
    domain.pollers.fetch_add(1, SeqCst);
    vcpu.status.polling.store(true, SeqCst);
    let ready = ports_ready(vcpu, &args, only);
    if !matches!(ready, Ok(false)) {
        if vcpu.status.polling.swap(false, SeqCst) {
            domain.pollers.fetch_sub(1, SeqCst);
        }
        return ready.map(|_| 0);
    }
    if args.timeout != 0 {
        timers::arm(vcpu, timers::Kind::Poll, args.timeout);
    }
    cpu::raise_here(Work::SCHEDULE);
    Ok(0)
}

/// True when something is pending already. `only`: the one port of a list that was read before.
fn ports_ready(vcpu: &Vcpu, args: &SchedPoll, only: Option<u32>) -> Result<bool> {
    use hypercalls::shared_info::vcpu_offset::{EVTCHN_UPCALL_MASK, EVTCHN_UPCALL_PENDING};
    let info = vcpu.vcpu_info();
    if info.u8(EVTCHN_UPCALL_PENDING).load(SeqCst) != 0 && info.u8(EVTCHN_UPCALL_MASK).load(SeqCst) == 0 {
        return Ok(true);
    }
    for index in 0..u64::from(args.nr_ports) {
        let port = only.map_or_else(|| guest::read_at(args.ports, index), Ok)?;
        if vcpu.domain().events.get(port).is_none() {
            return Err(Errno::EINVAL);
        }
        if events::is_pending(vcpu.domain(), port) {
            return Ok(true);
        }
    }
    Ok(false)
}
