// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ways through the house, one at a time: an event to another domain, a timer, a store to a page table, a crash.

use std::sync::atomic::Ordering::Relaxed;

use arch::guest::Access;
use arch::machine::MachineEnd;
use arch::{CpuId, entry, timer};
use hypercalls::event::{EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnBindVirq, EvtchnOp, EvtchnSend};
use hypercalls::sched::{SchedOp, SchedPoll, SchedShutdown, ShutdownReason};
use hypercalls::shared_info::vcpu_offset;
use hypercalls::{DomId, GuestPtr, GuestVa, HypercallNr, VcpuId, Virq};
use hypervisor::testing::World;
use hypervisor::testing::guest::{self, CODE, HANDLER, TABLES, args_of, va};
use hypervisor::vcpu::Vcpu;
use mm::flags::{GUEST_KERNEL, P, US, entry_for};
use zerocopy::IntoBytes;

use crate::pair::Pair;

/// True when the kernel of the vCPU on this CPU was entered for an event.
fn upcall(vcpu: &Vcpu) -> bool {
    let info = vcpu.vcpu_info();
    let regs = entry::with_frame(|regs| *regs);
    regs.rip == HANDLER && info.u8(vcpu_offset::EVTCHN_UPCALL_MASK).load(Relaxed) == 1
}

#[test]
fn an_event_wakes_the_vcpu_of_another_domain() {
    let mut w = Pair::new();
    w.on(1);
    let unbound = EvtchnAllocUnbound { dom: DomId::SELF, remote_dom: DomId(0), port: 0 };
    assert_eq!(w.channel(EvtchnOp::ALLOC_UNBOUND, &unbound), 0);
    let there = w.answer(4);
    let vcpu = w.on(1);
    w.block();
    w.on(0);
    let bind = EvtchnBindInterdomain { remote_dom: DomId(1), remote_port: there, ..EvtchnBindInterdomain::default() };
    assert_eq!(w.channel(EvtchnOp::BIND_INTERDOMAIN, &bind), 0);
    let here = w.answer(8);
    w.0.go_to(1);
    assert!(w.0.go_back().is_none(), "binding says nothing to the other end");
    w.on(0);
    assert_eq!(w.channel(EvtchnOp::SEND, &EvtchnSend { port: here }), 0);
    assert!(arch::ipi::take_kicked().contains(CpuId(1)));
    assert!(core::ptr::eq(w.on(1), vcpu) && upcall(vcpu));
    w.0.finish();
}

#[test]
fn a_timer_wakes_a_blocked_vcpu_when_its_time_has_come() {
    let mut w = Pair::new();
    let vcpu = w.on(0);
    let virq = EvtchnBindVirq { virq: Virq::TIMER, ..EvtchnBindVirq::default() };
    assert_eq!(w.channel(EvtchnOp::BIND_VIRQ, &virq), 0);
    let deadline = arch::time::now() + 5_000_000;
    assert_eq!(w.call(HypercallNr::SET_TIMER_OP, [deadline, 0, 0, 0, 0]), 0);
    w.block();
    assert_eq!(timer::deadline(CpuId(0)), Some(deadline));
    arch::time::advance(4_999_999);
    entry::take_interrupts();
    assert!(w.0.go_back().is_none(), "not yet");
    arch::time::advance(1);
    assert!(core::ptr::eq(w.on(0), vcpu) && upcall(vcpu));
    w.0.finish();
}

#[test]
fn a_poll_ends_by_its_port_or_its_time() {
    for by_port in [true, false] {
        let mut w = Pair::new();
        let vcpu = w.on(0);
        let virq = EvtchnBindVirq { virq: Virq::DEBUG, ..EvtchnBindVirq::default() };
        assert_eq!(w.channel(EvtchnOp::BIND_VIRQ, &virq), 0);
        let port = w.answer(8);
        // A poller does not look at upcalls.
        vcpu.vcpu_info().u8(vcpu_offset::EVTCHN_UPCALL_MASK).store(1, Relaxed);
        let list = va(args_of(VcpuId(0))) + 64;
        assert!(guest::write(list, &port.to_le_bytes()));
        let timeout = arch::time::now() + 1_000_000;
        let poll = SchedPoll { ports: GuestPtr::new(list), nr_ports: 1, timeout, ..SchedPoll::default() };
        let at = va(args_of(VcpuId(0)));
        assert!(guest::write(at, poll.as_bytes()));
        w.0.syscall(vcpu, HypercallNr::SCHED_OP.0, [u64::from(SchedOp::POLL.0), at, 0, 0, 0]);
        assert!(w.0.go_back().is_none(), "it waits");
        w.0.check();
        if by_port {
            hypervisor::events::send_vcpu_virq(vcpu, Virq::DEBUG);
        } else {
            arch::time::advance(1_000_000);
        }
        assert!(core::ptr::eq(w.on(0), vcpu));
        assert_eq!(entry::with_frame(|regs| regs.rax), 0);
        w.0.check();
        w.0.finish();
    }
}

#[test]
fn a_store_to_a_page_table_is_carried_out() {
    let mut w = Pair::new();
    w.on(1);
    assert_eq!(w.call(HypercallNr::VM_ASSIST, [0, 2, 0, 0, 0]), 0);
    let frames = w.0.guests[1].p2m.clone();
    let (entry_of_40, value) = (va(TABLES[3]) + 40 * 8, entry_for(frames[40], P | US | GUEST_KERNEL));
    // mov [rax], rbx
    assert!(guest::write(va(CODE), b"\x48\x89\x18"));
    for (value, works) in [(value, true), (entry_for(w.0.guests[0].p2m[40], P | US), false)] {
        let fault = arch::guest::access(GuestVa(entry_of_40), Access::Write).expect_err("tables are read-only");
        entry::with_frame(|regs| (regs.rip, regs.rax, regs.rbx) = (va(CODE), entry_of_40, value));
        if works {
            w.0.exception(14, fault.code);
            assert_eq!(entry::with_frame(|regs| regs.rip), va(CODE) + 3);
            // What it had cached is the guest's to flush.
            arch::tlb::flush_local(arch::Flush::All);
            assert!(!guest::write(va(40), &[1]) && guest::read(va(40)) == 0, "read-only now");
        } else {
            w.0.exception(14, fault.code);
            assert!(
                w.0.guests[1].domain.is_shut_down.load(Relaxed),
                "a frame of another's: its own fault, and no handler"
            );
        }
        w.0.check();
    }
    w.0.finish();
}

#[test]
fn a_domain_that_crashes_does_so_alone() {
    let mut w = Pair::new();
    w.on(1);
    w.0.exception(13, 0);
    assert_eq!(w.0.end, None);
    w.0.check();
    let crashed = &w.0.guests[1].domain;
    assert_eq!(crashed.shutdown_code.load(Relaxed), ShutdownReason::CRASH.0);
    assert!(w.0.go_back().is_none(), "nothing of it runs any more");
    w.on(0);
    assert_eq!(w.call(HypercallNr::XEN_VERSION, [0; 5]), 4 << 16 | 17);
    w.0.finish();
}

#[test]
fn the_machine_ends_with_dom0() {
    let ends = [
        (ShutdownReason::POWEROFF, MachineEnd::PowerOff),
        (ShutdownReason::REBOOT, MachineEnd::Reset),
        (ShutdownReason::CRASH, MachineEnd::Reset),
        (ShutdownReason::WATCHDOG, MachineEnd::Reset),
        (ShutdownReason::SOFT_RESET, MachineEnd::Reset),
        (ShutdownReason(77), MachineEnd::Reset),
    ];
    for (reason, end) in ends {
        let mut w = Pair::new();
        let vcpu = w.on(0);
        let at = va(args_of(VcpuId(0)));
        assert!(guest::write(at, SchedShutdown { reason }.as_bytes()));
        w.0.syscall(vcpu, HypercallNr::SCHED_OP.0, [u64::from(SchedOp::SHUTDOWN.0), at, 0, 0, 0]);
        assert_eq!(w.0.end, Some(end));
        w.0.finish();
    }
}

#[test]
fn vector_registers_are_each_vcpus_own() {
    let mut world = World::new(1);
    world.boot_kernels();
    let mut written = std::collections::BTreeMap::new();
    for n in 0..100u8 {
        let vcpu = world.go_back().expect("a vCPU runs");
        let seen = arch::fpu::guest_read(100);
        assert_eq!(seen, written.get(&vcpu.unit).copied().unwrap_or(0), "unit {}", vcpu.unit);
        arch::fpu::guest_write(100, n + 1);
        written.insert(vcpu.unit, n + 1);
        world.call(HypercallNr::SCHED_OP, [0; 5]);
        arch::time::advance(10_000_000);
        entry::take_interrupts();
    }
    assert_eq!(written.len(), 4, "all vCPUs had turns");
    world.finish();
}
