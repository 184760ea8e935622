// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vcpu_op` and `set_timer_op`.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use hypercalls::shared_info::vcpu_offset;
use hypercalls::vcpu::*;
use hypercalls::{Errno, GuestPtr, HypercallNr, PAGE_SIZE, Result, VcpuInfo};
use mm::WritableRef;

use crate::dispatch::{Args, Outcome, SubOp, by_family, find, sub};
use crate::timers::{self, Kind};
use crate::vcpu::Vcpu;
use crate::{events, guest, initialise, mmu, schedule, shared, time};

/// What runs a sub-operation: it gets the caller, the vCPU that is meant, and the address of the argument.
type OnTarget = fn(&Vcpu, &Vcpu, u64) -> Result<i64>;

/// The sub-operations. `initialise` can be cut short, so [`vcpu_op`] runs it itself.
pub static OPS: [SubOp<OnTarget>; 14] = [
    by_family("initialise"),
    sub("up", |_, target, _| up(target)),
    sub("down", |_, target, _| down(target)),
    sub("is_up", |_, target, _| Ok(i64::from(!target.status.down.load(SeqCst)))),
    sub("get_runstate_info", |_, target, arg| {
        let info = target.runstate.lock().info(arch::time::now());
        guest::write(GuestPtr::new(arg), &info).map(|()| 0)
    }),
    sub("register_runstate_memory_area", register_runstate),
    sub("set_periodic_timer", |_, target, arg| {
        let args: SetPeriodicTimer = guest::read(GuestPtr::new(arg))?;
        set_periodic(target, args.period_ns)
    }),
    sub("stop_periodic_timer", |_, target, _| {
        target.period.store(0, Relaxed);
        timers::stop(target, Kind::Periodic);
        Ok(0)
    }),
    sub("set_singleshot_timer", set_singleshot),
    sub("stop_singleshot_timer", |vcpu, target, _| {
        only_itself(vcpu, target)?;
        timers::stop(vcpu, Kind::SingleShot);
        Ok(0)
    }),
    sub("register_vcpu_info", |vcpu, target, arg| {
        let args: RegisterVcpuInfo = guest::read(GuestPtr::new(arg))?;
        register_info(vcpu, target, &args)
    }),
    sub("send_nmi", |_, target, arg| {
        if arg != 0 {
            return Err(Errno::EINVAL);
        }
        target.nmi_pending.store(true, SeqCst);
        schedule::deliver(target);
        Ok(0)
    }),
    sub("get_physid", |_, target, arg| {
        guest::write(GuestPtr::new(arg), &GetPhysid { phys_id: physical_id(target)? }).map(|()| 0)
    }),
    sub("register_vcpu_time_memory_area", register_time),
];

/// Hypercall 24.
pub fn vcpu_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    let op = VcpuOp(args[0] as u32);
    let arg = args[2];
    match mmu::vcpu_of(vcpu.domain(), args[1] & 0xffff_ffff) {
        // The one that is called all the time.
        Ok(target) if op == VcpuOp::SET_SINGLESHOT_TIMER => set_singleshot(vcpu, target, arg).into(),
        Ok(target) if op == VcpuOp::INITIALISE => {
            Outcome::or_again(initialise::from_guest(target, GuestPtr::new(arg)), args)
        }
        Ok(target) => {
            find(vcpu, HypercallNr::VCPU_OP, &OPS, u64::from(op.0)).and_then(|run| run(vcpu, target, arg)).into()
        }
        Err(error) => Err(error).into(),
    }
}

#[inline(always)]
fn set_singleshot(vcpu: &Vcpu, target: &Vcpu, arg: u64) -> Result<i64> {
    only_itself(vcpu, target)?;
    let args: SetSingleshotTimer = guest::read(GuestPtr::new(arg))?;
    timers::arm(vcpu, Kind::SingleShot, args.timeout_abs_ns);
    Ok(0)
}

fn only_itself(vcpu: &Vcpu, target: &Vcpu) -> Result<()> {
    if core::ptr::eq(vcpu, target) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Returns the numbers of the CPU on which a vCPU of dom0's always runs.
fn physical_id(target: &Vcpu) -> Result<u64> {
    let places = crate::placement::places(target).hard;
    let mut cpus = places.iter();
    let (only, second) = (cpus.next(), cpus.next());
    let pinned = only.filter(|_| second.is_none() && target.domain().privileged).ok_or(Errno::EINVAL)?;
    let cpu = crate::cpus::get(u32::from(pinned.0)).ok_or(Errno::EINVAL)?;
    Ok(u64::from(cpu.acpi_id) << 32 | u64::from(cpu.apic_id))
}

fn up(target: &Vcpu) -> Result<i64> {
    if !target.status.initialised.load(SeqCst) {
        return Err(Errno::EINVAL);
    }
    if target.status.down.swap(false, SeqCst) {
        schedule::wake(target);
    }
    Ok(0)
}

fn down(target: &Vcpu) -> Result<i64> {
    let domain = target.domain();
    let others = domain.vcpus.iter().any(|v| v.id != target.id && !v.status.down.load(SeqCst));
    if !others {
        use hypercalls::sched::ShutdownReason;
        if let Some(reason) = domain.shut_down(ShutdownReason::POWEROFF) {
            crate::crash::ended(domain, reason);
        }
        return Ok(0);
    }
    if !target.status.down.swap(true, SeqCst) {
        schedule::stop(target);
    }
    Ok(0)
}

fn register_runstate(vcpu: &Vcpu, target: &Vcpu, arg: u64) -> Result<i64> {
    let area: RegisterArea = guest::read(GuestPtr::new(arg))?;
    if !area.addr.range_ok(size_of::<RunstateInfo>() as u64) {
        return Err(Errno::EFAULT);
    }
    target.runstate_area.store(area.addr.0, SeqCst);
    let info = target.runstate.lock().info(arch::time::now());
    if core::ptr::eq(vcpu, target) || !target.status.running.load(SeqCst) {
        // The address is one of the caller's own address space; if it is not mapped yet, a later switch fills it.
        let _ = guest::write(GuestPtr::new(area.addr.0), &info);
    }
    Ok(0)
}

/// The shortest period of a periodic timer, in ns.
const MIN_PERIOD: u64 = 1_000_000;
/// The longest: about nine years; longer ones would overflow sums of times (XSA-20).
const MAX_PERIOD: u64 = 1 << 58;

/// Starts a periodic timer.
///
/// # Errors
/// `EINVAL` for a period out of range.
pub fn set_periodic(target: &Vcpu, period: u64) -> Result<i64> {
    if !(MIN_PERIOD..=MAX_PERIOD).contains(&period) {
        return Err(Errno::EINVAL);
    }
    target.period.store(period, Relaxed);
    timers::arm(target, Kind::Periodic, arch::time::now() + period);
    Ok(0)
}

fn register_info(vcpu: &Vcpu, target: &Vcpu, args: &RegisterVcpuInfo) -> Result<i64> {
    let offset = args.offset as usize;
    if offset > PAGE_SIZE - size_of::<VcpuInfo>() {
        return Err(Errno::ENXIO);
    }
    if !offset.is_multiple_of(8) {
        return Err(Errno::ENXIO);
    }
    if !core::ptr::eq(vcpu, target) && !target.status.down.load(SeqCst) {
        return Err(Errno::EINVAL);
    }
    let mut held = target.info_frame.lock();
    if held.is_some() {
        return Err(Errno::EINVAL);
    }
    let frame = WritableRef::get(args.mfn, vcpu.domid).map_err(|_| Errno::EINVAL)?;
    let area = shared::of_guest(&frame, offset);
    shared::copy_words(target.vcpu_info(), area, size_of::<VcpuInfo>());
    target.info.set(area);
    *held = Some(frame);
    drop(held);
    if core::ptr::eq(vcpu, target) {
        arch::cpu::set_vcpu_info(Some(area.address()));
    }
    // Whatever was missed between the copy and the switch is looked for again.
    area.u64(vcpu_offset::EVTCHN_PENDING_SEL).store(u64::MAX, SeqCst);
    area.u8(vcpu_offset::EVTCHN_UPCALL_PENDING).store(0, SeqCst);
    time::update(target);
    events::mark_pending(target);
    Ok(0)
}

fn register_time(vcpu: &Vcpu, target: &Vcpu, arg: u64) -> Result<i64> {
    let area: RegisterArea = guest::read(GuestPtr::new(arg))?;
    if !area.addr.range_ok(size_of::<hypercalls::VcpuTimeInfo>() as u64) {
        return Err(Errno::EFAULT);
    }
    target.time_area.store(area.addr.0, SeqCst);
    if core::ptr::eq(vcpu, target) {
        time::update(target);
    }
    Ok(0)
}

/// Hypercall 15: the old single-shot timer, an absolute time; 0 stops it.
pub fn set_timer_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    /// Farther away than this, a guest has computed nonsense; some old ones wait for the result, so they get one soon.
    const FAR: u64 = 1 << 58;
    match args[0] {
        0 => timers::stop(vcpu, Kind::SingleShot),
        far if far > FAR => timers::arm(vcpu, Kind::SingleShot, arch::time::now() + 100_000_000),
        deadline => timers::arm(vcpu, Kind::SingleShot, deadline),
    }
    Outcome::Done(0)
}
