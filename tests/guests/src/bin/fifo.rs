// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks FIFO event channels: how a domain gets into the form, what words, queues and ready bits say after each step, and
//! the order in which events come. With a second vCPU also what happens to events that move between vCPUs.
//!
//! The first control block switches the form; what was pending then is raised when its word comes. A raised event is
//! pending; unless masked it is linked at the end of the queue of its vCPU and priority, and a queue that was empty
//! becomes ready. A port that is closed while linked is not handed out. An event stays in the queue that it is in when its
//! priority or vCPU changes. A reset closes all ports, gives the pages back and ends the form.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use pv::fifo::{self, bits};
use pv::hypercall::*;
use pv::smp::{self, wait};
use pv::{check, equal, errno, events, mem, vcpu};

pv::guest!(main);

const SELF: u32 = 0x7ff0;

fn main() {
    errno!("stop-periodic-timer", smp::stop_tick(0), 0);
    let before = bind_ipi();
    let masked = bind_ipi();
    refused_before();
    events::mask_port(masked);
    for port in [before, masked] {
        errno!("send-two-level", send(port), 0);
    }
    let (block, array) = (mem::alloc(), mem::alloc());
    enter(block, array, before, masked);
    words(before);
    order();
    masks(before);
    priorities();
    closing();
    polling(before);
    if smp::is_up(1) != pv::Errno::ENOENT.to_ret() {
        moving(block);
    }
    reset(before);
}

fn send(port: u32) -> i64 {
    event_channel_op(4, &mut { port })
}

fn close(port: u32) -> i64 {
    event_channel_op(3, &mut { port })
}

fn unmask(port: u32) -> i64 {
    event_channel_op(9, &mut { port })
}

fn set_priority(port: u32, priority: u32) -> i64 {
    event_channel_op(13, &mut [port, priority])
}

fn bind_ipi_of(vcpu: u32) -> u32 {
    let mut argument = [vcpu, u32::MAX];
    errno!("bind-ipi", event_channel_op(7, &mut argument), 0);
    argument[1]
}

fn bind_ipi() -> u32 {
    bind_ipi_of(0)
}

/// A channel of the domain to itself: what is sent on the first arrives at the second, which can be moved.
fn loopback() -> (u32, u32) {
    let mut unbound = [SELF | SELF << 16, 0u32];
    errno!("alloc-unbound", event_channel_op(6, &mut unbound), 0);
    let mut bind = [SELF, unbound[1], 0u32];
    errno!("bind-interdomain", event_channel_op(0, &mut bind), 0);
    (unbound[1], bind[2])
}

fn refused_before() {
    errno!("expand-two-level", fifo::expand(mem::alloc()), EOPNOTSUPP);
    errno!("priority-two-level", set_priority(1, 3), ENOSYS);
    let page = mem::alloc();
    errno!("init-no-vcpu", fifo::init_control(77, page, 0), ENOENT);
    errno!("init-unaligned", fifo::init_control(0, page, 4), EINVAL);
    errno!("init-across-page", fifo::init_control(0, page, 4096 - 64), EINVAL);
    errno!("init-far-offset", fifo::init_control(0, page, 0xffff_fff8), EINVAL);
    errno!("init-table", fifo::init_control(0, mem::l4(), 0), EINVAL);
    errno!("init-no-frame", event_channel_op(11, &mut [u64::MAX, 0, 0]), EINVAL);
    check!("still-two-level", !fifo::is_on());
}

/// The first control block and page; what was pending comes with the page.
fn enter(block: u64, array: u64, before: u32, masked: u32) {
    events::disable();
    errno!("init-control", fifo::init_control(0, block, 4096 - 72), 0);
    errno!("init-control-twice", fifo::init_control(0, mem::alloc(), 0), EINVAL);
    let late = bind_ipi();
    errno!("send-without-word", send(late), 0);
    equal!("nothing-ready", fifo::ready().load(SeqCst), 0);
    // What a guest does with words it does not use yet.
    mem::entry(array, late as usize / 2).store(u64::from(bits::MASKED) << (late % 2 * 32), SeqCst);
    errno!("expand", fifo::expand(array), 0);
    errno!("expand-table", fifo::expand(mem::l4()), EINVAL);
    let word = |port: u32| fifo::word(port).load(SeqCst) & !bits::LINK;
    equal!("pending-before-is-raised", word(before), bits::PENDING | bits::LINKED);
    // The mask of the other form does not count any more.
    equal!("masked-before-is-raised", word(masked), bits::PENDING | bits::LINKED);
    equal!("sent-without-word-stays-masked", word(late), bits::PENDING | bits::MASKED);
    equal!("ready", fifo::ready().load(SeqCst), 1 << 7);
    let taken = fifo::taken();
    events::enable();
    events::disable();
    equal!("both-taken", fifo::taken() - taken, 2);
    check!("both-in-order", fifo::took_last(&[before, masked]), "{} {}", fifo::seen(1), fifo::seen(0));
    equal!("words-clear", word(before) | word(masked), 0);
    for port in [masked, late] {
        errno!("close", close(port), 0);
    }
    equal!("close-clears-pending", word(late), bits::MASKED);
    fifo::word(late).store(0, SeqCst);
}

/// What one event leaves in the words.
fn words(port: u32) {
    events::disable();
    errno!("send", send(port), 0);
    equal!("word", fifo::word(port).load(SeqCst), bits::PENDING | bits::LINKED);
    equal!("head", fifo::head(7).load(SeqCst), port);
    equal!("ready-bit", fifo::ready().load(SeqCst), 1 << 7);
    equal!("vcpu-pending", events::pending().load(SeqCst), 1);
    errno!("send-again", send(port), 0);
    equal!("word-again", fifo::word(port).load(SeqCst), bits::PENDING | bits::LINKED);
    let (taken, calls) = (fifo::taken(), vcpu::current().upcalls.get());
    events::enable();
    equal!("one-upcall", vcpu::current().upcalls.get() - calls, 1);
    equal!("taken-once", fifo::taken() - taken, 1);
    equal!("word-clear", fifo::word(port).load(SeqCst), 0);
    // With upcalls on, each comes at once.
    let calls = vcpu::current().upcalls.get();
    for _ in 0..10 {
        errno!("send-open", send(port), 0);
    }
    equal!("an-upcall-each", vcpu::current().upcalls.get() - calls, 10);
    events::disable();
}

/// Events of a priority come in the order in which they were raised.
fn order() {
    let ports = [(); 6].map(|()| bind_ipi());
    let [a, b, c, d, e, f] = ports;
    let sent = [c, a, f, b, e, d];
    sent.iter().for_each(|port| errno!("send-in-order", send(*port), 0));
    equal!("order-head", fifo::head(7).load(SeqCst), c);
    for pair in sent.windows(2) {
        equal!("order-link", fifo::word(pair[0]).load(SeqCst), bits::PENDING | bits::LINKED | pair[1]);
    }
    events::enable();
    events::disable();
    check!("order", fifo::took_last(&sent), "{} {} {}", fifo::seen(2), fifo::seen(1), fifo::seen(0));
    ports.iter().for_each(|port| errno!("close-in-order", close(*port), 0));
}

fn masks(port: u32) {
    let word = fifo::word(port);
    word.fetch_or(bits::MASKED, SeqCst);
    errno!("send-masked", send(port), 0);
    equal!("masked-word", word.load(SeqCst), bits::PENDING | bits::MASKED);
    equal!("masked-not-ready", fifo::ready().load(SeqCst), 0);
    errno!("unmask", unmask(port), 0);
    equal!("unmasked-word", word.load(SeqCst), bits::PENDING | bits::LINKED);
    // Masked while it is linked: the guest takes it and leaves it pending.
    word.fetch_or(bits::MASKED, SeqCst);
    let taken = fifo::taken();
    events::enable();
    events::disable();
    equal!("masked-not-taken", fifo::taken() - taken, 0);
    equal!("masked-left-pending", word.load(SeqCst), bits::PENDING | bits::MASKED);
    errno!("unmask-left", unmask(port), 0);
    events::enable();
    events::disable();
    equal!("taken-after-unmask", fifo::taken() - taken, 1);
    errno!("unmask-idle", unmask(port), 0);
    equal!("unmask-idle-word", word.load(SeqCst), 0);
}

/// More urgent events come first, whatever order they were raised in; a linked one stays where it is.
fn priorities() {
    let ports = [(); 4].map(|()| bind_ipi());
    let [a, b, c, d] = ports;
    errno!("priority-too-low", set_priority(a, 16), EINVAL);
    errno!("priority-no-port", set_priority(0x2_0000, 3), EINVAL);
    for (port, priority) in [(a, 15), (b, 0), (c, 7), (d, 3)] {
        errno!("set-priority", set_priority(port, priority), 0);
    }
    ports.iter().for_each(|port| errno!("send-by-priority", send(*port), 0));
    equal!("priorities-ready", fifo::ready().load(SeqCst), 1 << 15 | 1 << 7 | 1 << 3 | 1);
    events::enable();
    events::disable();
    check!("by-priority", fifo::took_last(&[b, d, c, a]), "{} {} {}", fifo::seen(2), fifo::seen(1), fifo::seen(0));
    // `c` is linked with priority 7 and moves to 1: this event comes behind `b`, the next before it.
    errno!("set-priority-b", set_priority(b, 5), 0);
    for port in [c, b] {
        errno!("send-before-change", send(port), 0);
    }
    errno!("set-priority-linked", set_priority(c, 1), 0);
    errno!("send-after-change", send(c), 0);
    equal!("linked-stays", fifo::ready().load(SeqCst), 1 << 7 | 1 << 5);
    events::enable();
    events::disable();
    check!("old-queue", fifo::took_last(&[b, c]), "{} {}", fifo::seen(1), fifo::seen(0));
    // It was the last of its old queue: whoever comes there next must not be linked behind it.
    errno!("set-priority-a", set_priority(a, 7), 0);
    for port in [c, a, b] {
        errno!("send-once-changed", send(port), 0);
    }
    equal!("changed-word", fifo::word(c).load(SeqCst), bits::PENDING | bits::LINKED);
    events::enable();
    events::disable();
    check!("new-queues", fifo::took_last(&[c, b, a]), "{} {} {}", fifo::seen(2), fifo::seen(1), fifo::seen(0));
    ports.iter().for_each(|port| errno!("close-by-priority", close(*port), 0));
}

/// A port that was closed while it was in a queue is not handed out again.
fn closing() {
    let port = bind_ipi();
    errno!("send-before-close", send(port), 0);
    errno!("close-linked", close(port), 0);
    equal!("closed-word", fifo::word(port).load(SeqCst), bits::LINKED);
    errno!("priority-closed", set_priority(port, 3), EACCES);
    let others = [(); 8].map(|()| bind_ipi());
    check!("linked-not-handed-out", !others.contains(&port), "{others:?}");
    let taken = fifo::taken();
    events::enable();
    events::disable();
    equal!("closed-not-taken", fifo::taken() - taken, 0);
    equal!("handed-out-again", bind_ipi(), port);
    errno!("close-again", close(port), 0);
    others.iter().for_each(|port| errno!("close-others", close(*port), 0));
}

/// A poll ends when its port becomes pending, masked or not.
fn polling(port: u32) {
    fifo::word(port).fetch_or(bits::MASKED, SeqCst);
    errno!("send-to-poll", send(port), 0);
    // { ports, nr_ports, timeout }.
    errno!("poll", sched_op(3, &mut [(&raw const port) as u64, 1, 0]), 0);
    equal!("poll-leaves-pending", fifo::word(port).load(SeqCst), bits::PENDING | bits::MASKED);
    fifo::word(port).store(0, SeqCst);
    errno!("poll-far-port", sched_op(3, &mut [(&raw const FAR) as u64, 1, 0]), EINVAL);
}

static FAR: u32 = 0x2_0000;

static PROGRESS: AtomicU64 = AtomicU64::new(0);
static PORT: AtomicU64 = AtomicU64::new(0);
static SENT: AtomicU64 = AtomicU64::new(0);

/// Runs on the second vCPU: sends what it is told to, and takes events.
extern "C" fn follow() -> ! {
    events::enable();
    PROGRESS.store(1, SeqCst);
    loop {
        let port = PORT.swap(0, SeqCst);
        if port != 0 {
            let _ = send(port as u32);
            SENT.fetch_add(1, SeqCst);
        } else {
            smp::relax();
        }
    }
}

/// Events that move between two vCPUs while both send them.
fn moving(block: u64) {
    let page = smp::context_for(1, follow);
    errno!("init-control-of-other", fifo::init_control(1, block, 128), 0);
    errno!("initialise", smp::initialise(1, page), 0);
    errno!("up", smp::up(1), 0);
    errno!("stop-tick-1", smp::stop_tick(1), 0);
    check!("started", wait(&PROGRESS, 1));
    let there = bind_ipi_of(1);
    let (near, far) = loopback();
    events::enable();
    let mut sent = 0;
    for round in 0..200u32 {
        let before = events::count(far);
        errno!("move", event_channel_op(8, &mut [far, round % 2]), 0);
        if round % 3 == 0 {
            errno!("move-priority", set_priority(far, round % 16), 0);
        }
        sent += 1;
        PORT.store(near.into(), SeqCst);
        let result = send(near);
        if result != 0 || !wait(&SENT, sent) || !arrived(far, before) {
            return check!("moved-event", false, "round {round}: {result}, {} {}", events::count(far), before);
        }
        let before = events::count(there);
        if send(there) != 0 || !arrived(there, before) {
            return check!("event-there", false, "round {round}");
        }
    }
    check!("moved-events-arrive", true);
    equal!("moved-word", fifo::word(far).load(SeqCst), 0);
    errno!("down", smp::down(1), 0);
    events::disable();
    [there, near, far].iter().for_each(|port| errno!("close-moved", close(*port), 0));
}

/// True when a port was seen again within a while.
fn arrived(port: u32, before: u64) -> bool {
    (0..1_000_000).any(|_| {
        smp::relax();
        events::count(port) != before
    })
}

/// A reset closes everything and brings the two-level form back.
fn reset(port: u32) {
    errno!("reset-cont-alone", event_channel_op(14, &mut { SELF }), EBUSY);
    errno!("reset", event_channel_op(10, &mut { SELF }), 0);
    errno!("send-after-reset", send(port), EINVAL);
    errno!("expand-after-reset", fifo::expand(mem::alloc()), EOPNOTSUPP);
    fifo::forget();
    let one = bind_ipi();
    // What the other form has left there.
    events::selector().store(0, SeqCst);
    events::port_pending(one).store(0, SeqCst);
    events::unmask_port(one);
    let calls = vcpu::current().upcalls.get();
    events::enable();
    errno!("send-two-level-again", send(one), 0);
    events::disable();
    equal!("two-level-again", vcpu::current().upcalls.get() - calls, 1);
    errno!("init-control-again", fifo::init_control(0, mem::alloc(), 0), 0);
    errno!("expand-again", fifo::expand(mem::alloc()), 0);
    errno!("send-fifo-again", send(one), 0);
    // Behind it may be a closed port that the C hypervisor still remembers as pending.
    equal!("fifo-again", fifo::word(one).load(SeqCst) & !bits::LINK, bits::PENDING | bits::LINKED);
}
