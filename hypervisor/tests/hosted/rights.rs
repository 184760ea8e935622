// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is dom0's: another domain is refused all of it, and dom0 gives of it only what it has.

use hypercalls::domctl::DomctlCmd;
use hypercalls::domctl_args::*;
use hypercalls::event::{EvtchnAllocUnbound, EvtchnOp, EvtchnReset, EvtchnStatus};
use hypercalls::memory::MemoryOp;
use hypercalls::mmu::MmuUpdate;
use hypercalls::physdev::*;
use hypercalls::platform::{PlatformCmd, PlatformOp, XENPF_INTERFACE_VERSION};
use hypercalls::sched::{SchedOp, SchedPinOverride, SchedRemoteShutdown, ShutdownReason};
use hypercalls::sysctl::SysctlCmd;
use hypercalls::{DomId, Errno, HypercallNr, Virq};
use hypervisor::testing::World;
use hypervisor::testing::guest::{self, TABLES};
use hypervisor::testing::tools::{ARGUMENT, as_domain, build, domctl, domctl_op, raw, sysctl_op, wanted, world};
use hypervisor::{domain, events};
use mm::flags::{GUEST_KERNEL, P, US, entry_for};
use zerocopy::{Immutable, IntoBytes};

const EPERM: i64 = Errno::EPERM.to_ret();

/// Makes a call of a family whose sub-operation is a number of its own.
fn sub<T: IntoBytes + Immutable>(world: &mut World, number: HypercallNr, op: u32, argument: &T) -> i64 {
    assert!(guest::write(ARGUMENT, argument.as_bytes()));
    world.call(number, [u64::from(op), ARGUMENT, 0, 0, 0])
}

#[test]
fn tools_calls_are_dom0s() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    as_domain(&mut world, id);
    for cmd in 1..90 {
        for target in [0, 1, id] {
            let op = domctl_op(DomctlCmd(cmd), target);
            assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &op).0, EPERM, "domctl {cmd} on d{target}");
        }
        let op = sysctl_op(SysctlCmd(cmd));
        assert_eq!(raw(&mut world, HypercallNr::SYSCTL, &op).0, EPERM, "sysctl {cmd}");
        let op =
            PlatformOp { cmd: PlatformCmd(cmd), interface_version: XENPF_INTERFACE_VERSION, ..PlatformOp::default() };
        assert_eq!(raw(&mut world, HypercallNr::PLATFORM_OP, &op).0, EPERM, "platform_op {cmd}");
    }
    for op in [0, 1] {
        assert_eq!(world.call(HypercallNr::CONSOLE_IO, [op, 4, ARGUMENT, 0, 0]), EPERM);
    }
    let pin = SchedPinOverride { pcpu: 0 };
    assert_eq!(sub(&mut world, HypercallNr::SCHED_OP, SchedOp::PIN_OVERRIDE.0, &pin), EPERM);
    let end =
        SchedRemoteShutdown { domain_id: DomId(0), reason: ShutdownReason::POWEROFF, ..SchedRemoteShutdown::default() };
    assert_eq!(sub(&mut world, HypercallNr::SCHED_OP, SchedOp::REMOTE_SHUTDOWN.0, &end), EPERM);
    world.finish();
}

#[test]
fn devices_are_dom0s() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    as_domain(&mut world, id);
    let words = [0u64; 16];
    for op in [8, 9, 10, 11, 15, 16, 19, 20, 24, 25, 26, 27, 30, 31] {
        assert_eq!(sub(&mut world, HypercallNr::PHYSDEV_OP, op, &words), EPERM, "physdev_op {op}");
    }
    let gsi = PhysdevSetupGsi { gsi: 9, ..PhysdevSetupGsi::default() };
    assert_eq!(sub(&mut world, HypercallNr::PHYSDEV_OP, 21, &gsi), EPERM);
    let map =
        PhysdevMapPirq { domid: DomId::SELF, kind: MapPirqType::GSI, index: 9, pirq: 9, ..PhysdevMapPirq::default() };
    assert_eq!(sub(&mut world, HypercallNr::PHYSDEV_OP, 13, &map), EPERM);
    assert_eq!(sub(&mut world, HypercallNr::MEMORY_OP, MemoryOp::MACHINE_MEMORY_MAP.0, &words), EPERM);
    // Frames that are not RAM, the hypervisor's and another's.
    let at = world.guests[2].p2m[TABLES[3]].maddr().0 + 44 * 8;
    let others = world.guests[0].p2m[44];
    let mut map = |mfn, foreign: DomId| {
        let update = MmuUpdate { ptr: at, val: entry_for(mfn, P | US | GUEST_KERNEL) };
        assert!(guest::write(ARGUMENT, update.as_bytes()));
        world.call(HypercallNr::MMU_UPDATE, [ARGUMENT, 1, 0, u64::from(foreign.0), 0])
    };
    for owner in [DomId::IO, DomId::XEN, DomId(0)] {
        assert_eq!(map(others, owner), EPERM, "{owner}");
    }
    assert!(map(hypercalls::Mfn(0xf_e000), DomId::SELF) < 0);
    assert!(map(others, DomId::SELF) < 0);
    world.finish();
}

#[test]
fn channels_of_others_are_dom0s() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    as_domain(&mut world, id);
    let op = |world: &mut World, op: EvtchnOp, argument: &[u8]| {
        assert!(guest::write(ARGUMENT, argument));
        world.call(HypercallNr::EVENT_CHANNEL_OP, [u64::from(op.0), ARGUMENT, 0, 0, 0])
    };
    let unbound = EvtchnAllocUnbound { dom: DomId(0), remote_dom: DomId::SELF, ..EvtchnAllocUnbound::default() };
    assert_eq!(op(&mut world, EvtchnOp::ALLOC_UNBOUND, unbound.as_bytes()), EPERM);
    let status = EvtchnStatus { dom: DomId(0), port: 1, ..EvtchnStatus::default() };
    assert_eq!(op(&mut world, EvtchnOp::STATUS, status.as_bytes()), EPERM);
    assert_eq!(op(&mut world, EvtchnOp::RESET, EvtchnReset { dom: DomId(0) }.as_bytes()), EPERM);
    // It may bind what is the machine's, and hears nothing.
    let one = domain::find(DomId(id)).expect("it runs");
    let port = events::bind_virq(&one, Virq::DOM_EXC, hypercalls::VcpuId(0)).expect("it is free");
    events::send_global_virq(Virq::DOM_EXC);
    assert!(!events::is_pending(&one, port));
    as_domain(&mut world, 0);
    let handler = |virq| SetVirqHandler { virq };
    let mut set = |virq| domctl(&mut world, DomctlCmd::SET_VIRQ_HANDLER, id, &handler(virq)).map(|_| ());
    assert_eq!(set(Virq::TIMER), Err(Errno::EINVAL));
    assert_eq!(set(Virq(99)), Err(Errno::EINVAL));
    assert_eq!(set(Virq::DOM_EXC), Ok(()));
    events::send_global_virq(Virq::DOM_EXC);
    assert!(events::is_pending(&one, port));
    drop(one);
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::DESTROYDOMAIN, id)).0, 0);
    world.guests.pop();
    let set = domctl(&mut world, DomctlCmd::SET_VIRQ_HANDLER, 1, &handler(Virq::CON_RING)).map(|_| ());
    assert_eq!(set, Ok(()));
    events::forget_virq_handler(DomId(1));
    world.finish();
}

#[test]
fn dom0_gives_of_devices_what_it_has() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    let one = domain::find(DomId(id)).expect("it runs");
    let memory = |first_mfn, nr_mfns, allow| IomemPermission {
        first_mfn,
        nr_mfns,
        allow_access: allow,
        ..IomemPermission::default()
    };
    let mut permit = |a: &IomemPermission| domctl(&mut world, DomctlCmd::IOMEM_PERMISSION, id, a).map(|_| ());
    assert_eq!(permit(&memory(0xf0000, 16, 1)), Ok(()));
    assert_eq!(permit(&memory(0xf0008, 1, 0)), Ok(()));
    assert_eq!(permit(&memory(0xfee00, 1, 1)), Err(Errno::EPERM), "interrupt messages");
    assert_eq!(permit(&memory(u64::MAX, 2, 1)), Err(Errno::EINVAL));
    assert!(one.io.may_map(0xf0000..=0xf0007) && !one.io.may_map(0xf0008..=0xf0008));
    let map = |first_mfn, nr_mfns| MemoryMapping { first_mfn, nr_mfns, add_mapping: 1, ..MemoryMapping::default() };
    let mut mapping = |a: &MemoryMapping| domctl(&mut world, DomctlCmd::MEMORY_MAPPING, id, a).map(|_| ());
    assert_eq!(mapping(&map(0xf0000, 8)), Ok(()));
    assert_eq!(mapping(&map(0xf0000, 9)), Err(Errno::EPERM));
    assert_eq!(mapping(&map(0xf0000, 65)), Err(Errno::E2BIG));
    let ports = |first_port, nr_ports, allow| IoportPermission {
        first_port,
        nr_ports,
        allow_access: allow,
        ..IoportPermission::default()
    };
    let mut permit = |a: &IoportPermission| domctl(&mut world, DomctlCmd::IOPORT_PERMISSION, id, a).map(|_| ());
    assert_eq!(permit(&ports(0x3f8, 8, 1)), Ok(()));
    assert_eq!(permit(&ports(0x20, 1, 1)), Err(Errno::EPERM), "the interrupt controller");
    for (first, count) in [(0x3f8, 0), (0xffff, 2), (0x10000, 1), (u32::MAX, 1), (1, u32::MAX)] {
        assert_eq!(permit(&ports(first, count, 1)), Err(Errno::EINVAL));
    }
    assert!(one.io.may_use_port(0x3f8, 8) && !one.io.may_use_port(0x3f8, 9));
    let irq = |pirq, allow| IrqPermission { pirq, allow_access: allow, ..IrqPermission::default() };
    let mut permit = |a: &IrqPermission| domctl(&mut world, DomctlCmd::IRQ_PERMISSION, id, a).map(|_| ());
    assert_eq!(permit(&irq(5, 1)), Ok(()));
    assert_eq!(permit(&irq(0, 1)), Err(Errno::EPERM), "the timer's");
    assert_eq!(permit(&irq(u32::MAX, 1)), Err(Errno::EINVAL));
    assert!(one.pirqs.may_use(5));
    assert_eq!(permit(&irq(5, 0)), Ok(()));
    assert!(!one.pirqs.may_use(5));
    drop(one);
    world.check();
    world.finish();
}
