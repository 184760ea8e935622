// SPDX-License-Identifier: MIT OR Apache-2.0
//! Domains that shut down, crash or are bitten by their watchdog: that is news for the tools, and nothing happens to others.

use hypercalls::domctl::DomctlCmd;
use hypercalls::domctl_args::*;
use hypercalls::sched::*;
use hypercalls::vcpu::{GetPhysid, VcpuOp};
use hypercalls::{DomId, Errno, HypercallNr, VcpuId};
use hypervisor::testing::World;
use hypervisor::testing::guest;
use hypervisor::testing::tools::{ARGUMENT, as_domain, build, domctl, read, wanted, world};
use hypervisor::{domain, events};
use zerocopy::{Immutable, IntoBytes};

use crate::death::{bind_news, is_news};

fn sched<T: IntoBytes + Immutable>(world: &mut World, op: SchedOp, argument: &T) -> i64 {
    assert!(guest::write(ARGUMENT, argument.as_bytes()));
    world.call(HypercallNr::SCHED_OP, [u64::from(op.0), ARGUMENT, 0, 0, 0])
}

/// As [`sched`], for one after which the caller does not run any more.
fn last_words<T: IntoBytes + Immutable>(world: &mut World, op: SchedOp, argument: &T) {
    assert!(guest::write(ARGUMENT, argument.as_bytes()));
    let vcpu = world.go_back().expect("it runs");
    world.syscall(vcpu, HypercallNr::SCHED_OP.0, [u64::from(op.0), ARGUMENT, 0, 0, 0]);
    assert!(!vcpu.runnable());
    assert!(world.go_back().is_none_or(|now| now.domid != vcpu.domid));
    as_domain(world, 0);
}

/// The flags that tools see, and the reason.
fn seen(world: &mut World, id: u16) -> (u32, u32) {
    let info = domctl(world, DomctlCmd::GETDOMAININFO, id, &GetDomainInfo::default()).expect("it is there");
    assert_eq!(info.domain, DomId(id));
    let interesting = XEN_DOMINF_DYING | XEN_DOMINF_SHUTDOWN | XEN_DOMINF_PAUSED;
    (info.flags & interesting, info.flags >> XEN_DOMINF_SHUTDOWNSHIFT & XEN_DOMINF_SHUTDOWNMASK)
}

#[test]
fn a_domain_shuts_down_and_is_resumed() {
    let mut world = world();
    let port = bind_news();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    assert_eq!(seen(&mut world, id), (0, 0xff));
    for given in [ShutdownReason::SUSPEND, ShutdownReason::POWEROFF, ShutdownReason(77)] {
        as_domain(&mut world, id);
        last_words(&mut world, SchedOp::SHUTDOWN, &SchedShutdown { reason: given });
        assert!(is_news(port));
        assert_eq!(seen(&mut world, id), (XEN_DOMINF_SHUTDOWN, given.0));
        domctl(&mut world, DomctlCmd::RESUMEDOMAIN, id, &0u64).expect("privileged");
        assert_eq!(seen(&mut world, id), (0, 0xff));
    }
    assert_eq!(domctl(&mut world, DomctlCmd::RESUMEDOMAIN, 0, &0u64), Err(Errno::EINVAL));
    as_domain(&mut world, id);
    world.check();
    world.finish();
}

#[test]
fn tools_may_have_their_own_way_to_hear_of_a_suspend() {
    let mut world = world();
    let news = bind_news();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    let one = domain::find(DomId(id)).expect("it runs");
    let dom0 = domain::find(DomId(0)).expect("it lives");
    let port = events::alloc_unbound(&one, DomId(0)).expect("there are ports");
    let end = events::bind_interdomain(&dom0, DomId(id), port).expect("it waits");
    assert!(events::is_pending(&dom0, end), "it begins so");
    domctl(&mut world, DomctlCmd::SUBSCRIBE, id, &Subscribe { port }).expect("privileged");
    let (word, bit) = (0x800 + end as usize / 64 * 8, 1u64 << (end % 64));
    for (reason, own) in [(ShutdownReason::SUSPEND, true), (ShutdownReason::REBOOT, false)] {
        dom0.shared_info().u64(word).fetch_and(!bit, std::sync::atomic::Ordering::SeqCst);
        as_domain(&mut world, id);
        last_words(&mut world, SchedOp::SHUTDOWN, &SchedShutdown { reason });
        assert_eq!((events::is_pending(&dom0, end), is_news(news)), (own, !own), "{reason:?}");
        domctl(&mut world, DomctlCmd::RESUMEDOMAIN, id, &0u64).expect("privileged");
    }
    domctl(&mut world, DomctlCmd::SUBSCRIBE, id, &Subscribe { port: 77 }).expect("privileged");
    as_domain(&mut world, id);
    last_words(&mut world, SchedOp::SHUTDOWN, &SchedShutdown { reason: ShutdownReason::SUSPEND });
    assert!(is_news(news), "a port that is not there tells nobody");
    drop((one, dom0));
    world.finish();
}

#[test]
fn the_first_reason_counts() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    as_domain(&mut world, id);
    let reason = ShutdownReason::REBOOT;
    assert_eq!(sched(&mut world, SchedOp::SHUTDOWN_CODE, &SchedShutdown { reason }), 0);
    last_words(&mut world, SchedOp::SHUTDOWN, &SchedShutdown { reason: ShutdownReason::POWEROFF });
    assert_eq!(seen(&mut world, id), (XEN_DOMINF_SHUTDOWN, reason.0));
    world.finish();
}

#[test]
fn a_domain_is_shut_down_by_another() {
    let mut world = world();
    let port = bind_news();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    let of = |id| SchedRemoteShutdown {
        domain_id: DomId(id),
        reason: ShutdownReason::CRASH,
        ..SchedRemoteShutdown::default()
    };
    assert_eq!(sched(&mut world, SchedOp::REMOTE_SHUTDOWN, &of(4242)), Errno::ESRCH.to_ret());
    as_domain(&mut world, id);
    assert_eq!(sched(&mut world, SchedOp::REMOTE_SHUTDOWN, &of(0)), Errno::EPERM.to_ret());
    assert_eq!(sched(&mut world, SchedOp::REMOTE_SHUTDOWN, &of(id)), Errno::EPERM.to_ret());
    as_domain(&mut world, 0);
    assert_eq!(sched(&mut world, SchedOp::REMOTE_SHUTDOWN, &of(id)), 0);
    assert!(is_news(port));
    assert_eq!(seen(&mut world, id), (XEN_DOMINF_SHUTDOWN, ShutdownReason::CRASH.0));
    assert_eq!(sched(&mut world, SchedOp::REMOTE_SHUTDOWN, &of(id)), 0);
    assert!(!is_news(port), "it has shut down already");
    world.finish();
}

#[test]
fn a_domain_that_crashes_crashes_alone() {
    let mut world = world();
    let port = bind_news();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    as_domain(&mut world, id);
    let vcpu = world.go_back().expect("it runs");
    arch::entry::with_frame(|regs| regs.rsp = 0x1000);
    world.syscall(vcpu, HypercallNr::IRET.0, [0; 5]);
    assert!(world.go_back().is_none_or(|now| now.domid != DomId(id)));
    assert!(world.end.is_none());
    as_domain(&mut world, 0);
    assert!(is_news(port));
    assert_eq!(seen(&mut world, id), (XEN_DOMINF_SHUTDOWN, ShutdownReason::CRASH.0));
    world.check();
    world.finish();
}

#[test]
fn the_last_vcpu_that_goes_down_shuts_the_domain_down() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    as_domain(&mut world, id);
    let vcpu = world.go_back().expect("it runs");
    world.syscall(vcpu, HypercallNr::VCPU_OP.0, [u64::from(VcpuOp::DOWN.0), 0, 0, 0, 0]);
    as_domain(&mut world, 0);
    assert_eq!(seen(&mut world, id), (XEN_DOMINF_SHUTDOWN, ShutdownReason::POWEROFF.0));
    world.finish();
}

#[test]
fn watchdogs_bite_who_does_not_put_them_off() {
    let mut world = world();
    let port = bind_news();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    as_domain(&mut world, id);
    let mut set = |id, timeout| sched(&mut world, SchedOp::WATCHDOG, &SchedWatchdog { id, timeout });
    assert_eq!(set(u32::MAX, 0), Errno::EINVAL.to_ret());
    assert_eq!(set(1, 5), Errno::EINVAL.to_ret());
    assert_eq!((set(0, 5), set(0, 60)), (1, 2));
    assert_eq!(set(0, 5), Errno::ENOSPC.to_ret());
    assert_eq!(set(3, 5), Errno::EINVAL.to_ret());
    assert_eq!(set(1, 0), 0);
    assert_eq!(set(1, 5), Errno::EINVAL.to_ret());
    assert_eq!((set(0, 600), set(2, 3)), (1, 0));
    for _ in 0..2 {
        arch::time::advance(2_000_000_000);
        arch::entry::take_interrupts();
        as_domain(&mut world, id);
        assert_eq!(sched(&mut world, SchedOp::WATCHDOG, &SchedWatchdog { id: 2, timeout: 3 }), 0);
    }
    arch::time::advance(3_000_000_000);
    arch::entry::take_interrupts();
    as_domain(&mut world, 0);
    assert!(is_news(port));
    assert_eq!(seen(&mut world, id), (XEN_DOMINF_SHUTDOWN, ShutdownReason::WATCHDOG.0));
    world.check();
    world.finish();
}

#[test]
fn pins_for_a_while() {
    let mut world = world();
    let mut pin = |pcpu| sched(&mut world, SchedOp::PIN_OVERRIDE, &SchedPinOverride { pcpu });
    assert_eq!(pin(-1), Errno::EINVAL.to_ret(), "it is not pinned");
    assert_eq!(pin(1), Errno::EINVAL.to_ret(), "no such CPU");
    assert_eq!(pin(i32::MAX), Errno::EINVAL.to_ret());
    assert_eq!(pin(0), 0);
    assert_eq!(pin(0), Errno::EBUSY.to_ret());
    let physical = [u64::from(VcpuOp::GET_PHYSID.0), 0, ARGUMENT, 0, 0];
    assert_eq!(world.call(HypercallNr::VCPU_OP, physical), 0);
    assert_eq!(read::<GetPhysid>(ARGUMENT).phys_id, 1 << 32);
    let mut pin = |pcpu| sched(&mut world, SchedOp::PIN_OVERRIDE, &SchedPinOverride { pcpu });
    assert_eq!(pin(-5), 0);
    assert_eq!(world.call(HypercallNr::VCPU_OP, physical), Errno::EINVAL.to_ret());
    let dom0 = domain::find(DomId(0)).expect("it lives");
    let places = hypervisor::placement::places(dom0.vcpu(VcpuId(0)).expect("it has one"));
    assert!(places.hard.contains(arch::CpuId(7)), "anywhere again");
    drop(dom0);
    as_domain(&mut world, 1);
    let pin = SchedPinOverride { pcpu: 0 };
    assert_eq!(sched(&mut world, SchedOp::PIN_OVERRIDE, &pin), Errno::EPERM.to_ret());
    assert_eq!(world.call(HypercallNr::VCPU_OP, physical), Errno::EINVAL.to_ret());
    world.finish();
}
