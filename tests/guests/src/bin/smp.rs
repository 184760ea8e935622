// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks further vCPUs: they are initialised once, brought up and down, run with state of their own, and get events and TLB
//! flushes across. Needs two vCPUs (`-smp 2`, or one CPU and `dom0_max_vcpus=2`).
//!
//! A vCPU that goes down goes on behind its hypercall when it is brought up again. An event bound to a vCPU is delivered
//! there and nowhere else. A flush of another vCPU is complete when the hypercall that asked for it returns. Where a
//! selector cannot be loaded when a vCPU is switched in, its failsafe callback gets the values.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use pv::abi::{self, nr, pte};
use pv::hypercall::*;
use pv::smp::{self, context};
use pv::{check, equal, errno, events, mem, probe, report, time, vcpu};

pv::guest!(main);

/// What the second vCPU has seen, and what it shall do next.
static PROGRESS: AtomicU64 = AtomicU64::new(0);
static ORDER: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
static WINDOW: AtomicU64 = AtomicU64::new(0);
static PORT_HERE: AtomicU64 = AtomicU64::new(0);

const GO_DOWN: u64 = 1;
const READ: u64 = 2;
const SEND: u64 = 3;
const BLOCK: u64 = 4;
const SPIN: u64 = 5;

fn main() {
    if smp::is_up(1) == pv::Errno::ENOENT.to_ret() {
        return report::skip("smp", "the domain has one vCPU");
    }
    start();
    second();
    interrupts();
    flushes();
    down_and_up();
    failsafe();
}

/// Runs on the second vCPU: obeys orders for ever.
extern "C" fn follow() -> ! {
    SEEN.store(u64::from(vcpu::current().id.get()), SeqCst);
    PROGRESS.fetch_add(1, SeqCst);
    loop {
        match ORDER.swap(0, SeqCst) {
            GO_DOWN => drop_result(smp::down(1)),
            READ => {
                let address = WINDOW.load(SeqCst);
                let mut value = u64::MAX;
                if probe!("mov {v}, [{p}]"; p = in(reg) address, v = inout(reg) value).is_some() {
                    value = u64::MAX;
                }
                SEEN.store(value, SeqCst);
            }
            SEND => drop_result(event_channel_op(4, &mut (PORT_HERE.load(SeqCst) as u32))),
            BLOCK => drop_result(hypercall2(nr::SCHED_OP, 1, 0)),
            SPIN => {
                let start = time::now();
                while time::now() - start < 200_000_000 {
                    core::hint::spin_loop();
                }
            }
            _ => {
                smp::relax();
                continue;
            }
        }
        PROGRESS.fetch_add(1, SeqCst);
    }
}

fn drop_result(_: i64) {}

fn start() {
    errno!("up-uninitialised", smp::up(1), EINVAL);
    equal!("is-up-self", smp::is_up(0), 1);
    equal!("is-up-other", smp::is_up(1), 0);
    errno!("is-up-none", smp::is_up(77), ENOENT);
    errno!("initialise-bad-pointer", smp::initialise(1, pv::user::NOWHERE), EFAULT);
    let page = smp::context_for(1, follow);
    let spoil = |word: usize, value: u64| {
        let old = mem::entry(page, word).swap(value, SeqCst);
        let result = smp::initialise(1, page);
        mem::entry(page, word).store(old, SeqCst);
        result
    };
    errno!("initialise-event-non-canonical", spoil(context::EVENT, 1 << 63), EINVAL);
    errno!("initialise-rip-non-canonical", spoil(context::RIP, 1 << 62), EINVAL);
    let result = spoil(context::CTRLREG + 3, mem::mfn(page) << 12);
    check!("initialise-cr3-no-table", result < 0, "got {result}");
    errno!("initialise", smp::initialise(1, page), 0);
    errno!("initialise-twice", smp::initialise(1, page), EEXIST);
    equal!("initialised-not-up", smp::is_up(1), 0);
    errno!("up", smp::up(1), 0);
    equal!("is-up", smp::is_up(1), 1);
    check!("started", smp::wait(&PROGRESS, 1), "the second vCPU did not start");
    equal!("started-as-itself", SEEN.load(SeqCst), 1);
    errno!("up-again", smp::up(1), 0);
    errno!("stop-tick-0", smp::stop_tick(0), 0);
    errno!("stop-tick-1", smp::stop_tick(1), 0);
}

/// Gives an order and waits until it is done.
fn order(order: u64) -> bool {
    let next = PROGRESS.load(SeqCst) + 1;
    ORDER.store(order, SeqCst);
    smp::wait(&PROGRESS, next)
}

fn second() {
    let page = mem::alloc();
    mem::entry(page, 0).store(0x4711, SeqCst);
    WINDOW.store(page, SeqCst);
    check!("read-on-second", order(READ));
    equal!("read-on-second-value", SEEN.load(SeqCst), 0x4711);
    WINDOW.store(pv::user::NOWHERE, SeqCst);
    check!("fault-on-second", order(READ));
    equal!("fault-on-second-seen", SEEN.load(SeqCst), u64::MAX);
    let mut info = [9u64; 6];
    errno!("runstate-of-other", vcpu_op(4, 1, &mut info), 0);
    check!("runstate-of-other-state", info[0] & 0xffff_ffff < 4, "{info:x?}");
}

fn bind_ipi(vcpu: u32) -> u32 {
    let mut argument = [vcpu, 0u32];
    errno!("bind-ipi", event_channel_op(7, &mut argument), 0);
    events::unmask_port(argument[1]);
    argument[1]
}

/// Waits until a port was seen, for at most five seconds.
fn seen(port: u32, count: u64) -> bool {
    let start = time::now();
    while events::count(port) < count && time::now() - start < 5_000_000_000 {
        smp::relax();
    }
    events::count(port) == count
}

fn interrupts() {
    let (here, there) = (bind_ipi(0), bind_ipi(1));
    PORT_HERE.store(here.into(), SeqCst);
    events::enable();
    for round in 1..=20 {
        if !order(SEND) || !seen(here, round) {
            return check!("ipi-to-first", false, "round {round}, {} seen", events::count(here));
        }
    }
    check!("ipi-to-first", true);
    let before = vcpu::current().upcalls.get();
    // The second vCPU blocks with events on, and the event ends that.
    for round in 1..=20 {
        let next = PROGRESS.load(SeqCst) + 1;
        ORDER.store(BLOCK, SeqCst);
        while ORDER.load(SeqCst) != 0 {
            smp::relax();
        }
        let sent = event_channel_op(4, &mut { there });
        if sent != 0 || !seen(there, round) || !smp::wait(&PROGRESS, next) {
            return check!("ipi-to-blocked-second", false, "round {round} {sent} {}", events::count(there));
        }
    }
    check!("ipi-to-blocked-second", true);
    equal!("ipi-not-delivered-here", vcpu::current().upcalls.get(), before);
    // EVTCHNOP_bind_vcpu moves nothing that is an IPI.
    errno!("ipi-not-movable", event_channel_op(8, &mut [there, 0]), EINVAL);
    events::disable();
}

/// The second vCPU uses a mapping, which the first changes with a flush of all.
fn flushes() {
    let (window, one, two) = (mem::alloc(), mem::alloc(), mem::alloc());
    mem::entry(one, 0).store(1, SeqCst);
    mem::entry(two, 0).store(2, SeqCst);
    WINDOW.store(window, SeqCst);
    let mask = 2u64;
    let multi = &raw const mask as u64;
    for (name, flags) in [("all-full", 5), ("all-invlpg", 6), ("mask-full", multi | 1), ("mask-invlpg", multi | 2)] {
        let mut wrong = 0;
        for _ in 0..10 {
            for (page, value) in [(one, 1), (two, 2)] {
                let result = update_va_mapping(window, mem::reference(page, pte::KERNEL_RW), flags);
                wrong += u32::from(result != 0 || !order(READ) || SEEN.load(SeqCst) != value);
            }
        }
        equal!(["remote-flush-{name}"], wrong, 0);
    }
    errno!("remote-unmap", update_va_mapping(window, 0, 5), 0);
    check!("remote-unmap-read", order(READ));
    equal!("remote-unmap-seen", SEEN.load(SeqCst), u64::MAX);
}

fn down_and_up() {
    ORDER.store(GO_DOWN, SeqCst);
    let start = time::now();
    while smp::is_up(1) == 1 && time::now() - start < 5_000_000_000 {
        smp::relax();
    }
    equal!("down", smp::is_up(1), 0);
    let before = PROGRESS.load(SeqCst);
    let mut info = [9u64; 6];
    let start = time::now();
    // The vCPU is marked down before it has left its CPU.
    while info[0] & 0xffff_ffff != 3 && time::now() - start < 1_000_000_000 {
        drop_result(vcpu_op(4, 1, &mut info));
    }
    equal!("runstate-of-down-offline", info[0] & 0xffff_ffff, 3);
    errno!("up-after-down", smp::up(1), 0);
    check!("resumed-behind-down", smp::wait(&PROGRESS, before + 1));
    equal!("up-after-down-is-up", smp::is_up(1), 1);
}

/// A segment that was good when loaded and is not any more when the vCPU is switched in again.
fn failsafe() {
    let gdt = mem::alloc();
    // A flat data segment in entry 1.
    mem::entry(gdt, 1).store(0x00cf_f300_0000_ffff, SeqCst);
    mem::make_ro(gdt);
    let frames = [mem::mfn(gdt)];
    errno!("set-gdt", hypercall2(nr::SET_GDT, frames.as_ptr() as u64, 512), 0);
    // SAFETY: FS is used by nobody here.
    unsafe { core::arch::asm!("mov fs, {:e}", in(reg) 0xb) };
    let descriptor = mem::maddr(gdt) + 8;
    vcpu::current().count.set(0);
    vcpu::current().hook.set(Some(|frame| {
        pv::trap::record(frame);
        true
    }));
    errno!("descriptor-gone", hypercall2(nr::UPDATE_DESCRIPTOR, descriptor, 0), 0);
    ORDER.store(SPIN, SeqCst);
    let start = time::now();
    while time::now() - start < 400_000_000 && vcpu::current().count.get() == 0 {
        smp::relax();
    }
    vcpu::current().hook.set(None);
    let frame = vcpu::current().frames.get()[0];
    if vcpu::current().count.get() == 0 {
        report::skip("failsafe", "the vCPU was never switched out");
    } else {
        let [ds, es, fs, gs] = vcpu::current().failsafe.get();
        equal!("failsafe-vector", frame.vector, pv::trap::FAILSAFE);
        check!("failsafe-selectors", (ds, es, fs & 0xffff, gs) == (0, 0, 0xb, 0), "{ds:x} {es:x} {fs:x} {gs:x}");
        check!("failsafe-frame", frame.cs() == abi::FLAT_CS64 & !3 && frame.ss == abi::FLAT_SS, "{frame:x?}");
    }
    // SAFETY: as above.
    unsafe { core::arch::asm!("mov fs, {:e}", in(reg) 0) };
    errno!("reset-gdt", hypercall2(nr::SET_GDT, frames.as_ptr() as u64, 0), 0);
}
