// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks two-level event channels: ports are bound, sent to, masked, unmasked and closed, and an upcall comes exactly
//! when a port that is not masked becomes pending and the vCPU does not mask upcalls.
//!
//! A port's pending bit is set by each send; its bit in the vCPU's selector and the pending byte follow only when the port is
//! not masked. Unmasking a pending port by hypercall raises it. A masked vCPU gets its upcall when it unmasks and looks,
//! blocks, or returns from a trap. `block` unmasks; `poll` waits for masked ports too, delivers nothing, and ends at its
//! timeout.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::nr;
use pv::hypercall::*;
use pv::{check, equal, errno, events, time, vcpu};

pv::guest!(main);

const BIND_INTERDOMAIN: u64 = 0;
const BIND_VIRQ: u64 = 1;
const CLOSE: u64 = 3;
const SEND: u64 = 4;
const STATUS: u64 = 5;
const ALLOC_UNBOUND: u64 = 6;
const BIND_IPI: u64 = 7;
const BIND_VCPU: u64 = 8;
const UNMASK: u64 = 9;
const SELF: u32 = 0x7ff0;

fn main() {
    errno!("stop-periodic-timer", hypercall3(nr::VCPU_OP, 7, 0, 0), 0);
    check!("upcalls-masked-at-start", events::mask().load(SeqCst) == 1);
    let port = bind_ipi();
    sends(port);
    masked_port(port);
    masked_vcpu(port);
    loopback();
    virqs();
    blocking(port);
    polling(port);
    closing();
    refused(port);
}

fn send(port: u32) -> i64 {
    event_channel_op(SEND, &mut { port })
}

fn bind_ipi() -> u32 {
    let mut argument = [0u32, u32::MAX];
    errno!("bind-ipi", event_channel_op(BIND_IPI, &mut argument), 0);
    let port = argument[1];
    check!("bind-ipi-port", port > 0 && port < 64, "port {port}");
    port
}

/// Returns the number of upcalls that `work` causes.
fn upcalls(work: impl FnOnce()) -> u64 {
    let before = vcpu::current().upcalls.get();
    work();
    vcpu::current().upcalls.get() - before
}

/// Sent to an open port with upcalls on: one upcall each, on the way back from the call.
fn sends(port: u32) {
    events::unmask_port(port);
    events::enable();
    let before = events::count(port);
    let calls = upcalls(|| {
        for _ in 0..10 {
            errno!("send", send(port), 0);
        }
    });
    equal!("send-upcalls", calls, 10);
    equal!("send-seen", events::count(port) - before, 10);
    check!("send-consumed", !events::is_pending(port));
    equal!("upcall-mask-restored", events::mask().load(SeqCst), 0);
}

/// A masked port becomes pending silently; the unmask call raises it, a plain store does not.
fn masked_port(port: u32) {
    events::mask_port(port);
    let before = events::count(port);
    let calls = upcalls(|| errno!("send-masked-port", send(port), 0));
    equal!("masked-port-no-upcall", calls, 0);
    check!("masked-port-pending", events::is_pending(port));
    equal!("masked-port-selector", events::selector().load(SeqCst), 0);
    equal!("masked-port-not-signalled", events::pending().load(SeqCst), 0);
    equal!("masked-port-twice", upcalls(|| errno!("send-masked-port-again", send(port), 0)), 0);
    let calls = upcalls(|| errno!("unmask-port", event_channel_op(UNMASK, &mut { port }), 0));
    equal!("unmask-raises", calls, 1);
    equal!("unmask-once", events::count(port) - before, 1);
    equal!("unmask-cleared-mask", events::port_mask(port).load(SeqCst) & events::bit(port), 0);
    equal!("unmask-idle", upcalls(|| errno!("unmask-again", event_channel_op(UNMASK, &mut { port }), 0)), 0);
}

/// With upcalls masked the words are set and nothing is called until the vCPU unmasks.
fn masked_vcpu(port: u32) {
    events::disable();
    let calls = upcalls(|| errno!("send-masked-vcpu", send(port), 0));
    equal!("masked-vcpu-no-upcall", calls, 0);
    equal!("masked-vcpu-pending", events::pending().load(SeqCst), 1);
    equal!("masked-vcpu-selector", events::selector().load(SeqCst), 1 << (port / 64));
    check!("masked-vcpu-port", events::is_pending(port));
    equal!("still-masked", events::mask().load(SeqCst), 1);
    equal!("unmasked-and-looked", upcalls(events::enable), 1);
    check!("masked-vcpu-consumed", !events::is_pending(port));
    // A trap that comes back with events on delivers too.
    events::disable();
    errno!("send-before-trap", send(port), 0);
    vcpu::current().hook.set(Some(|frame| {
        let trap = frame.vector == 6;
        if trap {
            frame.rip += 2;
            frame.rflags |= 0x200;
        } else {
            let cpu = vcpu::current();
            cpu.upcalls.set(cpu.upcalls.get() + 1);
            events::pending().store(0, SeqCst);
            pv::trap::record(frame);
        }
        true
    }));
    pv::trap::arm();
    // SAFETY: the hook skips it.
    let calls = upcalls(|| unsafe { core::arch::asm!("ud2") });
    let frame = pv::trap::caught().unwrap_or_default();
    vcpu::current().hook.set(None);
    equal!("upcall-on-iret", calls, 1);
    check!("upcall-frame", frame.cs_mask == 0xe030 && frame.rflags & 0x200 != 0, "{frame:x?}");
    events::selector().store(0, SeqCst);
    events::port_pending(port).fetch_and(!events::bit(port), SeqCst);
}

/// An interdomain channel from the domain to itself.
fn loopback() {
    // { dom: u16, remote_dom: u16, port: u32 }.
    let mut unbound = [SELF | SELF << 16, 0u32];
    errno!("alloc-unbound", event_channel_op(ALLOC_UNBOUND, &mut unbound), 0);
    let one = unbound[1];
    errno!("send-unbound", send(one), 0);
    check!("send-unbound-dropped", !events::is_pending(one));
    // { remote_dom: u16, remote_port: u32, local_port: u32 }.
    let mut bind = [SELF, one, 0u32];
    errno!("bind-interdomain", event_channel_op(BIND_INTERDOMAIN, &mut bind), 0);
    let two = bind[2];
    events::disable();
    check!("bind-sets-local-pending", events::is_pending(two) || events::count(two) == 1);
    events::port_pending(two).fetch_and(!events::bit(two), SeqCst);
    check!("bind-leaves-remote", !events::is_pending(one));
    errno!("send-one", send(one), 0);
    check!("send-one-reaches-two", events::is_pending(two) && !events::is_pending(one));
    errno!("send-two", send(two), 0);
    check!("send-two-reaches-one", events::is_pending(one));
    for port in [one, two] {
        events::port_pending(port).fetch_and(!events::bit(port), SeqCst);
    }
    equal!("status-interdomain", status(one)[0], 2);
    errno!("close-two", event_channel_op(CLOSE, &mut { two }), 0);
    equal!("status-peer-unbound", status(one)[0], 1);
    errno!("send-to-closed-peer", send(one), 0);
    errno!("close-one", event_channel_op(CLOSE, &mut { one }), 0);
    equal!("status-closed", status(one)[0], 0);
    events::enable();
}

/// Returns { status, vcpu } of a port; the argument is { dom: u16, port: u32, status: u32, vcpu: u32, union }.
fn status(port: u32) -> [u32; 2] {
    let mut argument = [SELF, port, u32::MAX, u32::MAX, 0, 0];
    errno!("status", event_channel_op(STATUS, &mut argument), 0);
    [argument[2], argument[3]]
}

fn bind_virq(virq: u32, vcpu: u32) -> (i64, u32) {
    let mut argument = [virq, vcpu, u32::MAX];
    (event_channel_op(BIND_VIRQ, &mut argument), argument[2])
}

fn virqs() {
    let (result, timer) = bind_virq(0, 0);
    errno!("bind-virq-timer", result, 0);
    errno!("bind-virq-timer-twice", bind_virq(0, 0).0, EEXIST);
    errno!("bind-virq-unknown", bind_virq(99, 0).0, EINVAL);
    errno!("bind-virq-no-vcpu", bind_virq(1, 77).0, ENOENT);
    equal!("status-virq", status(timer)[0], 4);
    errno!("send-virq", send(timer), EINVAL);
    errno!("virq-timer-not-movable", event_channel_op(BIND_VCPU, &mut [timer, 0]), EINVAL);
    let (result, console) = bind_virq(2, 0);
    errno!("bind-virq-console", result, 0);
    errno!("virq-console-movable", event_channel_op(BIND_VCPU, &mut [console, 0]), 0);
    errno!("virq-to-no-vcpu", event_channel_op(BIND_VCPU, &mut [console, 77]), ENOENT);
    for port in [timer, console] {
        errno!("close-virq", event_channel_op(CLOSE, &mut { port }), 0);
    }
    let (result, again) = bind_virq(0, 0);
    errno!("bind-virq-after-close", result, 0);
    errno!("close-virq-again", event_channel_op(CLOSE, &mut { again }), 0);
}

fn arm_timer(nanoseconds: u64) {
    // VCPUOP_set_singleshot_timer: { deadline, flags }.
    errno!("arm-timer", vcpu_op(8, 0, &mut [time::now() + nanoseconds, 0]), 0);
}

/// Block returns at once when something is pending, unmasks, and sleeps until an event otherwise.
fn blocking(port: u32) {
    let (_, timer) = bind_virq(0, 0);
    events::unmask_port(timer);
    events::disable();
    errno!("send-before-block", send(port), 0);
    let calls = upcalls(|| errno!("block-pending", hypercall2(nr::SCHED_OP, 1, 0), 0));
    equal!("block-pending-upcall", calls, 1);
    equal!("block-unmasked", events::mask().load(SeqCst), 0);
    events::disable();
    let start = time::now();
    arm_timer(5_000_000);
    let calls = upcalls(|| errno!("block", hypercall2(nr::SCHED_OP, 1, 0), 0));
    let slept = time::now() - start;
    equal!("block-upcall", calls, 1);
    equal!("block-timer", events::count(timer), 1);
    check!("block-slept", (4_900_000..1_000_000_000).contains(&slept), "{slept} ns");
    errno!("yield", hypercall2(nr::SCHED_OP, 0, 0), 0);
    errno!("close-timer", event_channel_op(CLOSE, &mut { timer }), 0);
}

/// SCHEDOP_poll: { ports pointer, nr_ports, timeout }.
fn poll(ports: &[u32], timeout: u64) -> i64 {
    let mut argument = [ports.as_ptr() as u64, ports.len() as u64, timeout];
    sched_op(3, &mut argument)
}

fn polling(port: u32) {
    events::disable();
    events::mask_port(port);
    errno!("poll-send", send(port), 0);
    errno!("poll-pending", poll(&[port], 0), 0);
    check!("poll-leaves-pending", events::is_pending(port));
    events::port_pending(port).fetch_and(!events::bit(port), SeqCst);
    let start = time::now();
    let calls = upcalls(|| errno!("poll-timeout", poll(&[port], start + 3_000_000), 0));
    let slept = time::now() - start;
    equal!("poll-no-upcall", calls, 0);
    check!("poll-slept", (2_900_000..1_000_000_000).contains(&slept), "{slept} ns");
    errno!("poll-past", poll(&[port], 1), 0);
    let (_, timer) = bind_virq(0, 0);
    events::mask_port(timer);
    let start = time::now();
    arm_timer(2_000_000);
    errno!("poll-timer", poll(&[port, timer], 0), 0);
    let slept = time::now() - start;
    check!("poll-woken-by-masked-port", events::is_pending(timer), "not pending");
    check!("poll-woken-in-time", (1_900_000..1_000_000_000).contains(&slept), "{slept} ns");
    errno!("poll-bad-port", poll(&[0x1_0000], 0), EINVAL);
    errno!("poll-too-many", sched_op(3, &mut [(&raw const port) as u64, 129, 0]), EINVAL);
    errno!("poll-bad-pointer", sched_op(3, &mut [pv::user::NOWHERE, 1, 0]), EFAULT);
    errno!("close-poll-timer", event_channel_op(CLOSE, &mut { timer }), 0);
    events::unmask_port(port);
    events::enable();
}

/// A closed port is free, and is given out again.
fn closing() {
    let ports = [(); 8].map(|()| bind_ipi());
    for (i, port) in ports.iter().enumerate() {
        check!("ports-distinct", !ports[..i].contains(port), "{ports:?}");
    }
    errno!("send-before-close", send(ports[3]), 0);
    errno!("close", event_channel_op(CLOSE, &mut { ports[3] }), 0);
    check!("close-clears-pending", !events::is_pending(ports[3]));
    errno!("send-closed", send(ports[3]), EINVAL);
    errno!("close-closed", event_channel_op(CLOSE, &mut { ports[3] }), EINVAL);
    equal!("lowest-port-again", bind_ipi(), ports[3]);
    for port in ports {
        errno!("close-all", event_channel_op(CLOSE, &mut { port }), 0);
    }
}

fn refused(port: u32) {
    for bad in [0u32, 63, 4095, 4096, u32::MAX] {
        errno!(["send-port-{bad:#x}"], send(bad), EINVAL);
        errno!(["close-port-{bad:#x}"], event_channel_op(CLOSE, &mut { bad }), EINVAL);
    }
    errno!("unmask-bad-port", event_channel_op(UNMASK, &mut 0x1_0000u32), EINVAL);
    errno!("bind-ipi-no-vcpu", event_channel_op(BIND_IPI, &mut [77u32, 0]), ENOENT);
    errno!("bind-interdomain-bad-port", event_channel_op(BIND_INTERDOMAIN, &mut [SELF, 50, 0]), EINVAL);
    errno!("bind-interdomain-to-ipi", event_channel_op(BIND_INTERDOMAIN, &mut [SELF, port, 0]), EINVAL);
    errno!("bind-interdomain-no-domain", event_channel_op(BIND_INTERDOMAIN, &mut [77, 1, 0]), ESRCH);
    errno!("alloc-unbound-no-domain", event_channel_op(ALLOC_UNBOUND, &mut [77 | SELF << 16, 0]), ESRCH);
    errno!("status-bad-port", event_channel_op(STATUS, &mut [SELF, 0x1_0000, 0, 0, 0, 0]), EINVAL);
    errno!("status-no-domain", event_channel_op(STATUS, &mut [77, 1, 0, 0, 0, 0]), ESRCH);
    errno!("bind-vcpu-bad-port", event_channel_op(BIND_VCPU, &mut [0x1_0000u32, 0]), EINVAL);
    errno!("priority-two-level", event_channel_op(13, &mut [port, 3]), ENOSYS);
}
