// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks time: the clock the hypervisor publishes is monotonic, runs at the pace of the real-time clock and agrees with
//! the wall clock; timers fire not before their deadline and not long after it; the run state adds up.
//!
//! Every timer raises VIRQ_TIMER: single-shot (a deadline that has passed fires at once), periodic (from 1 ms on), and the older
//! `set_timer_op`. A stopped timer does not fire. Times spent running, runnable and blocked sum up to the time gone by.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{nr, shared};
use pv::hypercall::*;
use pv::{check, equal, errno, events, mem, probe, time, vcpu};

pv::guest!(main);

const REGISTER_RUNSTATE: u64 = 5;
const SET_PERIODIC: u64 = 6;
const STOP_PERIODIC: u64 = 7;
const SET_SINGLESHOT: u64 = 8;
const STOP_SINGLESHOT: u64 = 9;
const REGISTER_TIME: u64 = 13;
const MS: u64 = 1_000_000;

fn main() {
    clock();
    wall_clock();
    // { virq, vcpu, port }; VIRQ_TIMER is 0.
    let mut bind = [0u32; 3];
    errno!("bind-virq-timer", event_channel_op(1, &mut bind), 0);
    let port = bind[2];
    events::unmask_port(port);
    initial_tick(port);
    single_shot(port);
    periodic(port);
    timer_op(port);
    run_state();
    time_area();
    refused();
}

fn clock() {
    let info = time::info();
    check!("time-info-published", info.mul != 0 && info.system_time != 0 && info.version != 0, "{info:?}");
    // A tick must last as long as the TSC's frequency says: 0.1 to 10 GHz.
    let nanoseconds = info.scale(1_000_000_000);
    check!("time-info-scale", (100_000_000..10_000_000_000).contains(&nanoseconds), "{nanoseconds}");
    let (mut last, mut back) = (time::now(), 0);
    for _ in 0..100_000 {
        let now = time::now();
        back += u64::from(now < last);
        last = now;
    }
    equal!("system-time-monotonic", back, 0);
    let mut versions = 0;
    let (start, mut version) = (time::now(), time::info().version);
    while versions == 0 && time::now() - start < 4500 * MS {
        let now = time::info().version;
        versions += u64::from(now != version);
        version = now;
    }
    check!("time-info-refreshed", versions > 0, "not refreshed within 4.5 s");
}

fn cmos(register: u8) -> u64 {
    let value: u8;
    // SAFETY: reads a register of the real-time clock, as the hypervisor emulates it.
    unsafe {
        core::arch::asm!("out 0x70, al", "in al, 0x71", inout("al") register => value);
    }
    u64::from(value >> 4) * 10 + u64::from(value & 15)
}

/// Seconds since 1970 by the real-time clock of the machine.
fn real_time_clock() -> u64 {
    let read = || [9, 8, 7, 4, 2, 0].map(cmos);
    let mut fields = read();
    loop {
        let again = read();
        if again == fields {
            break;
        }
        fields = again;
    }
    let [year, month, day, hour, minute, second] = fields;
    let years = 30 + year;
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][(month as usize - 1) % 12];
    // 1972, 1976, ..., 2096 are leap years, and this year's day counts from March on.
    let leaps = (years + 1) / 4 + u64::from((years + 2).is_multiple_of(4) && month > 2);
    (((years * 365 + leaps + before + day - 1) * 24 + hour) * 60 + minute) * 60 + second
}

fn wall_clock() {
    static LEVEL: u32 = 1;
    errno!("set-iopl", hypercall2(nr::PHYSDEV_OP, 6, (&raw const LEVEL) as u64), 0);
    let word = events::word(shared::WC).load(SeqCst);
    let rest = events::word(shared::WC + 8).load(SeqCst);
    let seconds = word >> 32 | rest >> 32 << 32;
    let nanoseconds = rest & 0xffff_ffff;
    check!("wall-clock-version-even", word & 1 == 0 && word as u32 != 0, "{word:#x}");
    check!("wall-clock-nanoseconds", nanoseconds < 1_000_000_000, "{nanoseconds}");
    let wall = || seconds + (nanoseconds + time::now()) / 1_000_000_000;
    let (real, ours) = (real_time_clock(), wall());
    check!("wall-clock-right", ours.abs_diff(real) <= 2, "{ours}, the real-time clock says {real}");
    // Two seconds of one are two seconds of the other.
    let edge = || {
        let start = cmos(0);
        while cmos(0) == start {}
        time::now()
    };
    let start = edge();
    edge();
    let pace = edge() - start;
    check!("system-time-pace", pace.abs_diff(2000 * MS) < 100 * MS, "two seconds took {pace} ns");
}

fn arm(deadline: u64, flags: u64) -> i64 {
    vcpu_op(SET_SINGLESHOT, 0, &mut [deadline, flags])
}

/// Waits at most `limit` ns for `wanted` events at `port`; returns how many came.
fn wait(port: u32, wanted: u64, limit: u64) -> u64 {
    let (start, before) = (time::now(), events::count(port));
    events::enable();
    while events::count(port) - before < wanted && time::now() - start < limit {
        core::hint::spin_loop();
    }
    events::disable();
    events::count(port) - before
}

/// Every vCPU starts with a tick of 100 Hz.
fn initial_tick(port: u32) {
    let start = time::now();
    let came = wait(port, 6, 1000 * MS);
    let took = time::now() - start;
    check!("initial-tick", came >= 6 && took > 35 * MS, "{came} events in {took} ns");
    errno!("stop-periodic", hypercall3(nr::VCPU_OP, STOP_PERIODIC, 0, 0), 0);
    wait(port, 1, MS);
    equal!("stopped-tick", wait(port, 1, 50 * MS), 0);
}

fn single_shot(port: u32) {
    for delay in [200_000, MS, 10 * MS, 100 * MS] {
        let deadline = time::now() + delay;
        errno!(["single-shot-{delay}"], arm(deadline, 0), 0);
        let came = wait(port, 1, 2000 * MS);
        let now = time::now();
        check!(["single-shot-{delay}-came"], came == 1 && now >= deadline, "{came} at {now}, deadline {deadline}");
        check!(["single-shot-{delay}-soon"], now < deadline + 50 * MS, "{} ns late", now - deadline);
    }
    equal!("single-shot-once", wait(port, 1, 20 * MS), 0);
    errno!("single-shot-past", arm(1, 0), 0);
    equal!("single-shot-past-fires", wait(port, 1, 100 * MS), 1);
    // The flag "only if it is in the future" is no longer heeded.
    errno!("single-shot-past-future-flag", arm(1, 1), 0);
    equal!("single-shot-past-future-flag-fires", wait(port, 1, 100 * MS), 1);
    errno!("single-shot-future", arm(time::now() + 2 * MS, 1), 0);
    equal!("single-shot-future-fires", wait(port, 1, 500 * MS), 1);
    errno!("single-shot-to-stop", arm(time::now() + 20 * MS, 0), 0);
    errno!("single-shot-stop", hypercall3(nr::VCPU_OP, STOP_SINGLESHOT, 0, 0), 0);
    equal!("single-shot-stopped", wait(port, 1, 50 * MS), 0);
    errno!("single-shot-long", arm(time::now() + 500 * MS, 0), 0);
    errno!("single-shot-replaced", arm(time::now() + 5 * MS, 0), 0);
    equal!("single-shot-replaced-fires", wait(port, 1, 200 * MS), 1);
    errno!("single-shot-stop-again", hypercall3(nr::VCPU_OP, STOP_SINGLESHOT, 0, 0), 0);
}

fn periodic(port: u32) {
    errno!("periodic", vcpu_op(SET_PERIODIC, 0, &mut { 5 * MS }), 0);
    let start = time::now();
    let came = wait(port, 20, 2000 * MS);
    let took = time::now() - start;
    check!("periodic-pace", came == 20 && took > 80 * MS, "{came} events in {took} ns");
    errno!("periodic-too-short", vcpu_op(SET_PERIODIC, 0, &mut 100_000u64), EINVAL);
    errno!("periodic-stop", hypercall3(nr::VCPU_OP, STOP_PERIODIC, 0, 0), 0);
    wait(port, 1, MS);
    equal!("periodic-stopped", wait(port, 1, 30 * MS), 0);
}

fn timer_op(port: u32) {
    let set = |deadline| hypercall1(nr::SET_TIMER_OP, deadline);
    let deadline = time::now() + 3 * MS;
    errno!("timer-op", set(deadline), 0);
    let came = wait(port, 1, 500 * MS);
    let now = time::now();
    check!("timer-op-fires", came == 1 && now >= deadline, "{came} at {now}, deadline {deadline}");
    errno!("timer-op-set", set(now + 10 * MS), 0);
    errno!("timer-op-cancel", set(0), 0);
    equal!("timer-op-cancelled", wait(port, 1, 40 * MS), 0);
}

fn run_state() {
    let area = mem::alloc();
    errno!("register-runstate", vcpu_op(REGISTER_RUNSTATE, 0, &mut { area }), 0);
    let times = || [2, 3, 4, 5].map(|i| mem::entry(area, i).load(SeqCst));
    equal!("runstate-running", mem::entry(area, 0).load(SeqCst) & 0xffff_ffff, 0);
    let (start, before) = (time::now(), times());
    errno!("runstate-arm", arm(start + 20 * MS, 0), 0);
    errno!("runstate-block", hypercall2(nr::SCHED_OP, 1, 0), 0);
    let (gone, after) = (time::now() - start, times());
    let blocked = after[2] - before[2];
    check!("runstate-blocked", (15 * MS..=gone).contains(&blocked), "{blocked} of {gone} ns");
    let entered = mem::entry(area, 1).load(SeqCst) & !(1 << 63);
    check!("runstate-entry-time", entered > start && entered <= time::now(), "{entered}");
    let sum: u64 = after.iter().sum();
    let now = time::now();
    check!("runstate-sum", sum <= now && now - sum < 3000 * MS, "{after:?} at {now}");
    let mut info = [0u64; 6];
    errno!("get-runstate", vcpu_op(4, 0, &mut info), 0);
    check!("get-runstate-agrees", info[0] & 0xffff_ffff == 0 && info[4] >= after[2], "{info:?}");
}

/// A second copy of the time information at a place of the guest's choice.
fn time_area() {
    let area = mem::alloc();
    errno!("register-time-area", vcpu_op(REGISTER_TIME, 0, &mut { area }), 0);
    let info = time::info();
    let mul = mem::entry(area, 3).load(SeqCst) & 0xffff_ffff;
    equal!("time-area-filled", mul, u64::from(info.mul));
}

fn refused() {
    errno!("single-shot-other-vcpu", vcpu_op(SET_SINGLESHOT, 77, &mut [0u64; 2]), ENOENT);
    errno!("single-shot-bad-pointer", hypercall3(nr::VCPU_OP, SET_SINGLESHOT, 0, pv::user::NOWHERE), EFAULT);
    errno!("periodic-bad-pointer", hypercall3(nr::VCPU_OP, SET_PERIODIC, 0, pv::abi::HOLE.0), EFAULT);
    errno!("runstate-bad-address", vcpu_op(REGISTER_RUNSTATE, 0, &mut { pv::abi::HOLE.0 }), EFAULT);
    let frame = probe!("ud2");
    check!("still-alive", frame.is_some_and(|frame| frame.vector == 6));
    equal!("vcpu-number", vcpu::current().id.get(), 0);
}
