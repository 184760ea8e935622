// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which vCPU runs where: the scheduler's decisions carried out.
//!
//! `sched` decides; here are the lock around it, blocking and waking without lost wake-ups, and the switch itself. A switch
//! happens only in [`run`], on the way back to a guest, never with a lock held.
//!
//! # Blocking
//! A vCPU that blocks sets its flag, then looks for pending events; whoever raises an event sets it pending, then looks at
//! the flag. Both are sequentially consistent, so one of them sees the other. [`run`] puts a vCPU to sleep under the
//! scheduler's lock only if it is still not runnable there, and [`wake`] takes the same lock after clearing the flag.

mod describe;
mod switch;

pub(crate) use describe::describe;
use switch::{switch_to, unload};

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use arch::context;
use arch::cpu::{self, Work};
use arch::{CpuId, MAX_CPUS};
use hypercalls::shared_info::vcpu_offset;
use hypercalls::vcpu::Runstate as State;
use hypercalls::{Errno, Result, VcpuId};
use mm::Lock;
use sched::{Affinity, Cpu, CpuSet, GroupId, Kind, Params, PoolId, Scheduler, UnitId};

use crate::domain::Domain;
use crate::vcpu::Vcpu;
use crate::{current, lingering, rank, timers};

static SCHEDULER: spin::once::Once<Lock<Scheduler>, arch::sync::Relax> = spin::once::Once::new();
/// What a number of a unit stands for.
#[derive(Debug)]
pub enum Unit {
    /// Nothing.
    Free,
    /// A vCPU that is being made.
    Taken,
    /// A vCPU.
    Vcpu(Arc<Domain>, VcpuId),
}

static UNITS: spin::rwlock::RwLock<Vec<Unit>, arch::sync::Relax> = spin::rwlock::RwLock::new(Vec::new());
static SLICE_END: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(u64::MAX) }; MAX_CPUS];

fn scheduler() -> &'static Lock<Scheduler> {
    set_up(Kind::Fair)
}

/// Says how CPUs are shared that are in no other pool. Only the first call does, before there are any.
pub fn set_up(kind: Kind) -> &'static Lock<Scheduler> {
    SCHEDULER.call_once(|| Lock::new(rank::SCHEDULE, Scheduler::new(kind, Params::default())))
}

/// Calls `f` with the scheduler, under its lock.
pub(crate) fn with_scheduler<T>(f: impl FnOnce(&mut Scheduler) -> T) -> T {
    f(&mut scheduler().lock())
}

/// Forgets CPUs and vCPUs, for a new machine; what kept the domains is the caller's to drop.
#[cfg(not(target_os = "none"))]
pub fn take_all() -> Vec<Unit> {
    *scheduler().lock() = Scheduler::new(Kind::Fair, Params::default());
    SLICE_END.iter().for_each(|end| end.store(u64::MAX, Relaxed));
    core::mem::take(&mut *UNITS.write())
}

/// Lets a CPU run vCPUs.
pub fn cpu_online(cpu: CpuId) {
    // One that was not there when the vCPUs were made has no room for their timers yet. Without memory there will be none,
    // and they stay in the queues of other CPUs.
    let _ = timers::make_room_on(cpu, UNITS.read().len() as u32);
    scheduler().lock().cpu_online(arch::time::now(), Cpu(cpu.0));
    cpu::raise_here(Work::SCHEDULE);
}

/// Numbers for the vCPUs of a domain that is being made; those that no vCPU has when it is dropped are free again.
#[derive(Debug)]
pub struct Numbers(Vec<u32>);

impl Numbers {
    /// Takes the lowest `count` numbers that are free.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn take(count: usize) -> Result<Self> {
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        let mut units = UNITS.write();
        let free = units.iter().filter(|unit| matches!(unit, Unit::Free)).count();
        units.try_reserve(count.saturating_sub(free)).map_err(|_| Errno::ENOMEM)?;
        let more = units.len() + count.saturating_sub(free);
        timers::make_room(more as u32)?;
        units.resize_with(more, || Unit::Free);
        for (number, unit) in (0u32..).zip(units.iter_mut()).filter(|(_, unit)| matches!(unit, Unit::Free)).take(count)
        {
            *unit = Unit::Taken;
            numbers.push(number);
        }
        Ok(Self(numbers))
    }

    /// Returns the numbers.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        let mut units = UNITS.write();
        for number in &self.0 {
            if let Some(unit @ Unit::Taken) = units.get_mut(*number as usize) {
                *unit = Unit::Free;
            }
        }
    }
}

/// Takes up a new domain's vCPUs in a pool, or in the default one if it is gone. They have taken their numbers; they are
/// down and do not run yet.
pub fn adopt(domain: &Arc<Domain>, pool: PoolId) {
    let mut units = UNITS.write();
    for vcpu in &domain.vcpus {
        if let Some(unit) = units.get_mut(vcpu.unit as usize) {
            *unit = Unit::Vcpu(domain.clone(), vcpu.id);
        }
        scheduler().lock().add(UnitId(vcpu.unit), GroupId(domain.id.0), pool, Affinity::ANY);
    }
}

/// Forgets a domain's vCPUs, of which none runs or ever will.
pub fn disown(domain: &Domain) {
    for vcpu in &domain.vcpus {
        // It sleeps, so no CPU is to be told.
        let _ = scheduler().lock().remove(UnitId(vcpu.unit));
        let freed = UNITS.write().get_mut(vcpu.unit as usize).map(|unit| core::mem::replace(unit, Unit::Free));
        drop(freed);
    }
}

/// Calls `f` with the vCPU of that number, if there is one.
#[inline]
pub fn with_unit(unit: u32, f: impl FnOnce(&Vcpu)) {
    if let Some(vcpu) = current::vcpu()
        && vcpu.unit == unit
    {
        return f(vcpu);
    }
    let units = UNITS.read();
    if let Some(Unit::Vcpu(domain, id)) = units.get(unit as usize)
        && let Some(vcpu) = domain.vcpu(*id)
    {
        f(vcpu);
    }
}

/// Returns when the running vCPU's slice on this CPU ends; `u64::MAX` when nobody else waits for it.
#[inline]
pub fn slice_end(cpu: CpuId) -> u64 {
    slice_end_of(cpu).load(Relaxed)
}

#[inline(always)]
fn slice_end_of(cpu: CpuId) -> &'static AtomicU64 {
    &SLICE_END[cpu.0 as usize % MAX_CPUS]
}

/// Calls for a new decision when the running vCPU's slice on this CPU is over.
pub fn check_slice(here: CpuId, now: u64) {
    let end = slice_end_of(here);
    if end.load(Relaxed) <= now {
        end.store(u64::MAX, Relaxed);
        cpu::raise_here(Work::SCHEDULE);
    }
}

/// Makes a runnable vCPU known to the scheduler.
pub fn wake(vcpu: &Vcpu) {
    if !vcpu.runnable() {
        return;
    }
    let now = arch::time::now();
    if !vcpu.status.running.load(Relaxed) {
        vcpu.runstate.lock().enter(State::RUNNABLE, now);
    }
    let (here, unit) = (cpu::this_cpu(), UnitId(vcpu.unit));
    let mut s = scheduler().lock();
    let Some(cpu) = s.wake(now, unit) else { return };
    let mut poke = CpuSet::EMPTY;
    let later = if cpu.0 == here.0 { s.postpone(now, unit, cpu, &mut poke) } else { None };
    drop(s);
    match later {
        // The vCPU that runs here goes on for now.
        Some(due) => {
            slice_end_of(here).store(due, Relaxed);
            timers::remind(due);
            poke_all(poke);
        }
        None => cpu::raise(CpuId(cpu.0), Work::SCHEDULE),
    }
}

#[inline]
pub(crate) fn poke_all(cpus: CpuSet) {
    if !cpus.is_empty() {
        poke_each(cpus);
    }
}

#[cold]
fn poke_each(cpus: CpuSet) {
    for cpu in cpus.iter() {
        cpu::raise(CpuId(cpu.0), Work::SCHEDULE);
    }
}

/// Makes a vCPU look at its pending events: wakes it when it is blocked, interrupts it when it runs elsewhere.
#[inline(always)]
pub fn kick(vcpu: &Vcpu) {
    // The current vCPU looks at its events on its way back anyway.
    if context::current() != core::ptr::from_ref(vcpu) as usize || vcpu.status.blocked.load(SeqCst) {
        kick_other(vcpu);
    }
}

#[inline(never)]
fn kick_other(vcpu: &Vcpu) {
    let status = &vcpu.status;
    if status.blocked.swap(false, SeqCst) {
        wake(vcpu);
        return;
    }
    if status.polling.load(SeqCst) && vcpu.vcpu_info().u8(vcpu_offset::EVTCHN_UPCALL_MASK).load(SeqCst) == 0 {
        wake_poller(vcpu);
        return;
    }
    if status.running.load(SeqCst) {
        let cpu = CpuId(status.cpu.load(Relaxed));
        if cpu != cpu::this_cpu() {
            cpu::poke(cpu);
        }
    }
}

/// Makes a vCPU look at what is due for it on its way back to the guest.
pub fn deliver(vcpu: &Vcpu) {
    if vcpu.status.blocked.swap(false, SeqCst) {
        wake(vcpu);
    }
    cpu::raise(CpuId(vcpu.status.cpu.load(Relaxed)), Work::VCPU);
}

/// Ends a vCPU's `poll`.
pub fn wake_poller(vcpu: &Vcpu) {
    if vcpu.status.polling.swap(false, SeqCst) {
        let domain = vcpu.domain();
        domain.pollers.fetch_sub(1, SeqCst);
        timers::stop(vcpu, timers::Kind::Poll);
        wake(vcpu);
    }
}

/// Makes a vCPU that must not run any more leave its CPU soon, and the queue in which it waits at once.
pub fn stop(vcpu: &Vcpu) {
    let (unit, now) = (UnitId(vcpu.unit), arch::time::now());
    // What a CPU is kept for is a vCPU that sleeps, not one that may never come back.
    let is_long = vcpu.status.down.load(SeqCst) || vcpu.domain().dying.load(SeqCst);
    let (runs_on, freed) = {
        let mut s = scheduler().lock();
        let runs_on = s.sleep(now, unit);
        (runs_on, if is_long { s.release(now, unit) } else { None })
    };
    poke_all(freed.into_iter().collect());
    let running = vcpu.status.running.load(SeqCst).then(|| vcpu.status.cpu.load(Relaxed));
    if let Some(number) = runs_on.map(|cpu| cpu.0).or(running) {
        cpu::raise(CpuId(number), Work::SCHEDULE);
    }
}

/// Returns when a vCPU that [`stop`] has stopped is off its CPU. It is not the caller.
pub fn wait_until_off(vcpu: &Vcpu) {
    while vcpu.status.running.load(SeqCst) {
        #[cfg(not(target_os = "none"))]
        play(CpuId(vcpu.status.cpu.load(Relaxed)));
        arch::tlb::serve();
        core::hint::spin_loop();
    }
}

/// Lets another CPU take its vCPU off: here all CPUs are played by whoever calls.
#[cfg(not(target_os = "none"))]
fn play(cpu: CpuId) {
    let here = cpu::this_cpu();
    cpu::set_this_cpu(cpu);
    if let Some(vcpu) = current::vcpu().filter(|vcpu| !vcpu.runnable()) {
        unload(vcpu, arch::time::now(), false);
        cpu::raise_here(Work::SCHEDULE);
    }
    cpu::set_this_cpu(here);
}

/// Gives up the rest of the current vCPU's turn, if anybody waits for it.
pub fn yield_now(vcpu: &Vcpu) {
    let here = cpu::this_cpu();
    // Without an end of its slice, and told of nothing, it is alone.
    if slice_end(here) == u64::MAX && !cpu::has_work() {
        return;
    }
    let mut s = scheduler().lock();
    if s.is_wanted(Cpu(here.0)) {
        s.yield_now(arch::time::now(), UnitId(vcpu.unit));
        drop(s);
        cpu::raise_here(Work::SCHEDULE);
    }
}

/// Blocks the current vCPU until an event is pending for it.
pub fn block(vcpu: &Vcpu) {
    let info = vcpu.vcpu_info();
    info.u8(vcpu_offset::EVTCHN_UPCALL_MASK).store(0, SeqCst);
    vcpu.status.blocked.store(true, SeqCst);
    if info.u8(vcpu_offset::EVTCHN_UPCALL_PENDING).load(SeqCst) != 0 {
        vcpu.status.blocked.store(false, SeqCst);
    } else {
        cpu::raise_here(Work::SCHEDULE);
    }
}

/// Chooses what this CPU does next and switches to it. Returns when a vCPU is loaded; an idle CPU waits in here.
#[inline(never)]
pub fn run() {
    let here = cpu::this_cpu();
    loop {
        let now = arch::time::now();
        cpu::leave_idle(now);
        let previous = current::vcpu();
        let decision = {
            let mut s = scheduler().lock();
            if let Some(vcpu) = previous
                && !vcpu.runnable()
            {
                // The CPU to tell is this one, which is about to decide anyway.
                let _ = s.sleep(now, UnitId(vcpu.unit));
            }
            s.schedule(now, Cpu(here.0))
        };
        poke_all(decision.poke);
        slice_end_of(here).store(decision.until.unwrap_or(u64::MAX), Relaxed);
        let chosen = decision.next.map(|unit| unit.0);
        if previous.map(|v| v.unit) != chosen || chosen.is_none() {
            if let Some(vcpu) = previous {
                unload(vcpu, now, chosen.is_none());
            }
            if let Some(unit) = chosen
                && !switch_to(unit, now)
            {
                // What this CPU has to do first is done on the way back, which leads here again.
                return;
            }
        }
        if chosen.is_some() {
            timers::remind_of_first();
            return;
        }
        timers::reprogram();
        cpu::enter_idle(now);
        crate::mca::look(cpu::this_cpu(), now);
        idle();
    }
}

/// Frames that guests gave back before an idle CPU scrubs them: the first step costs all others a flush.
const MANY_DIRTY: u64 = 256;

/// Waits until this CPU has something to decide.
fn idle() {
    let here = cpu::this_cpu();
    loop {
        lingering::look(here);
        let work = cpu::take_work();
        if work.contains(Work::TIMER) {
            timers::run();
        }
        if work.contains(Work::CONSOLE) {
            crate::console::work();
        }
        if work.contains(Work::GRACE) {
            crate::grace::pass();
        }
        if work.contains(Work::BURY) {
            crate::death::look();
        }
        if work.contains(Work::HARDWARE) {
            crate::mca::work();
            crate::nmi::work();
        }
        if work.contains(Work::SCHEDULE) || cpu::has_work() {
            return;
        }
        // Tests clean frames when they want to: there it would flush what they look for.
        if cfg!(target_os = "none") && mm::buddy::scrub_some(MANY_DIRTY) {
            arch::entry::take_interrupts();
        } else {
            arch::entry::wait_for_interrupt();
        }
    }
}
