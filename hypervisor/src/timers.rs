// SPDX-License-Identifier: MIT OR Apache-2.0
//! Timers of vCPUs: single-shot, periodic, poll time-outs and watchdogs.
//!
//! Each CPU has a queue; a vCPU's timers are in the queue of the CPU that last armed one of them ([`Vcpu::timer_cpu`]) and
//! fire there wherever the vCPU is. The queue is a binary heap that knows where each timer lies, so arming, moving and
//! stopping cost O(log n) and allocate nothing: room is made when the vCPU is made.
//!
//! Invariant: each timer is in at most one queue, at most once. [`Vcpu::timer_cpu`] changes only while the queue it names and
//! the one that it will name are both locked, the lower number first; whoever locks a vCPU's queue looks again.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use arch::{CpuId, MAX_CPUS, cpu};
use hypercalls::{Result, Virq};
use mm::{Lock, LockGuard};

use crate::irq::chores;
use crate::keys::{self, Text, line};
use crate::vcpu::Vcpu;
use crate::{current, events, mca, rank, schedule, time, watchdog};

mod queue;
use queue::Queue;

/// What a timer does when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Raises the timer interrupt once.
    SingleShot = 0,
    /// Raises the timer interrupt and goes on.
    Periodic = 1,
    /// Ends a `poll`.
    Poll = 2,
    /// Shuts the domain down; vCPU 0's.
    Watchdog = 3,
}

impl Kind {
    const ALL: [Self; KINDS as usize] = [Self::SingleShot, Self::Periodic, Self::Poll, Self::Watchdog];
}

/// Numbers that each vCPU has for its timers: a power of two, which divides easily.
const KINDS: u32 = 4;

static QUEUES: [Lock<Queue>; MAX_CPUS] = [const { Lock::new(rank::TIMERS, Queue::new()) }; MAX_CPUS];

fn queue(cpu: CpuId) -> &'static Lock<Queue> {
    &QUEUES[cpu.0 as usize % MAX_CPUS]
}

#[inline(always)]
const fn id(vcpu: &Vcpu, kind: Kind) -> u32 {
    (vcpu.unit * KINDS) | kind as u32
}

/// Forgets all timers, for a new machine.
#[cfg(not(target_os = "none"))]
pub fn forget_all() {
    QUEUES.iter().for_each(|queue| *queue.lock() = Queue::new());
}

/// Makes room in every queue for the timers of `units` vCPUs.
///
/// # Errors
/// `ENOMEM`.
pub fn make_room(units: u32) -> Result<()> {
    cpu::online().iter().try_for_each(|cpu| make_room_on(cpu, units))
}

/// Makes room in a CPU's queue for the timers of `units` vCPUs.
///
/// # Errors
/// `ENOMEM`.
pub fn make_room_on(cpu: CpuId, units: u32) -> Result<()> {
    queue(cpu).lock().make_room((units * KINDS) as usize)
}

/// Stops all timers of a vCPU that will not run any more.
pub fn stop_all(vcpu: &Vcpu) {
    vcpu.period.store(0, Relaxed);
    Kind::ALL.into_iter().for_each(|kind| stop(vcpu, kind));
}

/// Arms a timer for an absolute time; one that has passed fires at once.
#[inline]
pub fn arm(vcpu: &Vcpu, kind: Kind, deadline: u64) {
    let here = cpu::this_cpu();
    let timer = id(vcpu, kind);
    let at = arch::time::tsc_at(deadline);
    let mut queue = home_here(vcpu, here);
    if at <= arch::time::tsc() {
        queue.stop(timer);
        drop(queue);
        fire(vcpu, kind as u32, deadline);
        return;
    }
    queue.arm(timer, deadline);
    let first = queue.first();
    drop(queue);
    if deadline < cpu::deadline() {
        // Sooner than all that the hardware timer waits for.
        cpu::change_deadline(deadline);
        arch::timer::program_at(at);
    } else {
        program(first.min(others_due(here)));
    }
}

/// Locks the queue that a vCPU's timers are in.
#[inline]
fn home(vcpu: &Vcpu) -> LockGuard<'static, Queue> {
    loop {
        let cpu = vcpu.timer_cpu.load(SeqCst);
        let queue = queue(CpuId(cpu)).lock();
        if vcpu.timer_cpu.load(SeqCst) == cpu {
            return queue;
        }
    }
}

/// Locks this CPU's queue, with a vCPU's timers in it.
#[inline(always)]
fn home_here(vcpu: &Vcpu, here: CpuId) -> LockGuard<'static, Queue> {
    loop {
        let queue = queue(here).lock();
        if vcpu.timer_cpu.load(SeqCst) == here.0 {
            return queue;
        }
        drop(queue);
        move_here(vcpu, here);
    }
}

/// Moves all armed timers of a vCPU into this CPU's queue.
#[cold]
fn move_here(vcpu: &Vcpu, here: CpuId) {
    let from = CpuId(vcpu.timer_cpu.load(SeqCst));
    if from == here {
        return;
    }
    let first = queue(from.min(here)).lock();
    let second = queue(from.max(here)).lock_second();
    let (mut old, mut new) = if from < here { (first, second) } else { (second, first) };
    if vcpu.timer_cpu.load(SeqCst) != from.0 {
        return;
    }
    for timer in Kind::ALL.map(|kind| id(vcpu, kind)) {
        if let Some(deadline) = old.deadline_of(timer) {
            old.stop(timer);
            new.arm(timer, deadline);
        }
    }
    vcpu.timer_cpu.store(here.0, SeqCst);
}

/// Stops a timer.
pub fn stop(vcpu: &Vcpu, kind: Kind) {
    home(vcpu).stop(id(vcpu, kind));
}

/// Programs this CPU's hardware timer for the next deadline: a vCPU's, or one of [`others_due`].
pub fn reprogram() {
    program(next_deadline());
}

/// Returns when this CPU's hardware timer has to fire.
#[inline(always)]
fn next_deadline() -> u64 {
    let here = cpu::this_cpu();
    let first = queue(here).lock().first();
    first.min(others_due(here))
}

/// Sees to it that the hardware timer fires at `due` at the latest. It is not put off: a CPU that changes between vCPUs would
/// program it each time, and so programs it once more when it has fired for nothing.
pub fn remind(due: u64) {
    if cfg!(not(target_os = "none")) {
        // Tests play the timer by what is due.
        reprogram();
    } else if due < cpu::deadline() {
        program(due);
    }
}

/// As [`remind`], of the next deadline.
pub fn remind_of_first() {
    remind(next_deadline());
}

/// Returns when this CPU has to do something else by its timer: end a slice, go on with a debug key, do a chore for
/// interrupts, or publish the time that the running vCPU sees.
#[inline(always)]
fn others_due(here: CpuId) -> u64 {
    let refresh = current::vcpu().map_or(u64::MAX, |vcpu| vcpu.time_due.load(Relaxed));
    schedule::slice_end(here).min(keys::due_on(here)).min(chores::due(here)).min(refresh)
}

/// Programs the hardware timer if what it is programmed for is not what is next. It may fire too early: whoever handles
/// that programs it again.
#[inline(always)]
fn program(next: u64) {
    if cpu::change_deadline(next) {
        if next == u64::MAX {
            arch::timer::stop();
        } else {
            arch::timer::program_at(arch::time::tsc_at(next));
        }
    }
}

/// Fires what is due on this CPU and programs the hardware timer for what is next.
#[inline(never)]
pub fn run() {
    let here = cpu::this_cpu();
    // It has fired, or will be programmed anew: nothing counts on it now.
    cpu::change_deadline(u64::MAX);
    let now = arch::time::now();
    let first = loop {
        let (due, next) = queue(here).lock().take_due(now);
        let Some(timer) = due else { break next };
        let (unit, kind) = (timer / KINDS, timer % KINDS);
        schedule::with_unit(unit, |vcpu| fire(vcpu, kind, now));
        if kind == Kind::SingleShot as u32 && next > now {
            // It has armed nothing.
            break next;
        }
    };
    let mut others = others_due(here);
    if others <= now {
        serve_others(here, now);
        others = others_due(here);
    }
    program(first.min(others));
}

/// Does what is due of the others.
#[inline(never)]
fn serve_others(here: CpuId, now: u64) {
    schedule::check_slice(here, now);
    if keys::due_on(here) <= now {
        cpu::raise_here(cpu::Work::CONSOLE);
    }
    chores::run(here, now);
    mca::look(here, now);
    if let Some(vcpu) = current::vcpu() {
        time::refresh(vcpu, now);
    }
}

#[inline(always)]
fn fire(vcpu: &Vcpu, kind: u32, now: u64) {
    if kind == Kind::SingleShot as u32 {
        events::send_vcpu_virq(vcpu, Virq::TIMER);
    } else {
        fire_other(vcpu, kind, now);
    }
}

#[inline(never)]
fn fire_other(vcpu: &Vcpu, kind: u32, now: u64) {
    if kind == Kind::Poll as u32 {
        return schedule::wake_poller(vcpu);
    }
    if kind == Kind::Watchdog as u32 {
        return watchdog::look(vcpu.domain());
    }
    let mut queue = home_here(vcpu, cpu::this_cpu());
    // Whoever stops it takes the period away first, and then the timer.
    let period = vcpu.period.load(Relaxed);
    if period != 0 {
        // Never into the past: a deadline missed by more than a period is not made up for (XSA-20).
        queue.arm(id(vcpu, Kind::Periodic), now + period);
        drop(queue);
        events::send_vcpu_virq(vcpu, Virq::TIMER);
    }
}

/// Tells of a timer that lies where nobody would look for it: in a queue that is not its vCPU's.
#[cfg(not(target_os = "none"))]
pub fn stray(vcpu: &Vcpu) -> Option<(CpuId, Kind)> {
    let home = CpuId(vcpu.timer_cpu.load(SeqCst));
    let elsewhere = cpu::online();
    elsewhere.iter().filter(|cpu| *cpu != home).find_map(|cpu| {
        let queue = queue(cpu).lock();
        let kind = Kind::ALL.into_iter().find(|kind| queue.deadline_of(id(vcpu, *kind)).is_some())?;
        Some((cpu, kind))
    })
}

/// Timers of one CPU that are told about; the others are counted.
const TOLD: usize = 24;

/// Writes which timers a CPU has.
pub(crate) fn describe(cpu: CpuId, to: &mut Text) {
    use core::fmt::Write as _;
    let Some(queue) = queue(cpu).try_lock() else {
        line!(to, "  busy");
        return;
    };
    let now = arch::time::now();
    for &(deadline, timer) in queue.all().iter().take(TOLD) {
        let kind = ["single shot", "periodic", "poll", "watchdog"].get((timer % KINDS) as usize).unwrap_or(&"?");
        let in_us = deadline.cast_signed().wrapping_sub(now.cast_signed()) / 1000;
        line!(to, "  {kind} of unit {} in {in_us} us", timer / KINDS);
    }
    if queue.all().len() > TOLD {
        line!(to, "  and {} more", queue.all().len() - TOLD);
    }
}
