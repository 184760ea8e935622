// SPDX-License-Identifier: MIT OR Apache-2.0
//! `domctl` as dom0's tools call it, on the hosted machine.

use core::sync::atomic::Ordering::Relaxed;

use hypercalls::cpuid::CpuidLeaf;
use hypercalls::domctl::{Domctl, DomctlCmd};
use hypercalls::domctl_args::*;
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr};
use zerocopy::IntoBytes;

use crate::testing::guest;
use crate::testing::tools::{BUFFER, as_domain, domctl, domctl_op, raw, read, world};
use crate::testing::world::World;

#[test]
fn the_version_comes_first_then_the_domain_then_the_right() {
    let mut world = world();
    let old = Domctl { interface_version: 0x14, ..domctl_op(DomctlCmd::PAUSEDOMAIN, 9) };
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &old).0, Errno::EACCES.to_ret());
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::PAUSEDOMAIN, 9)).0, Errno::ESRCH.to_ret());
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd(999), 1)).0, Errno::ENOSYS.to_ret());
    as_domain(&mut world, 1);
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &old).0, Errno::EACCES.to_ret());
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::PAUSEDOMAIN, 9)).0, Errno::ESRCH.to_ret());
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::PAUSEDOMAIN, 0)).0, Errno::EPERM.to_ret());
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::GETDOMAININFO, 0)).0, Errno::EPERM.to_ret());
    world.finish();
}

#[test]
fn the_next_domain_is_described() {
    let mut world = world();
    let (result, back) = raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::GETDOMAININFO, 1));
    let info: GetDomainInfo = back.u.get();
    assert_eq!((result, back.domain, info.domain), (0, DomId(1), DomId(1)));
    assert_eq!(info.shared_info_frame, world.guests[1].domain.shared_info().mfn().0);
    assert!(info.max_pages <= u64::from(u32::MAX), "no limit is what xentop knows as such");
    assert_eq!(info.flags >> XEN_DOMINF_SHUTDOWNSHIFT, XEN_DOMINF_SHUTDOWNMASK, "no reason yet");
    assert_eq!(info.flags & (XEN_DOMINF_PAUSED | XEN_DOMINF_SHUTDOWN | XEN_DOMINF_DYING), 0);
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::GETDOMAININFO, 2)).0, Errno::ESRCH.to_ret());
    assert_eq!(
        raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::GETDOMAININFO, 0x7ff0)).0,
        Errno::EINVAL.to_ret()
    );
    world.finish();
}

#[test]
fn pauses_are_counted() {
    let mut world = world();
    let mut pause = |cmd, domain| raw(&mut world, HypercallNr::DOMCTL, &domctl_op(cmd, domain)).0;
    assert_eq!(pause(DomctlCmd::PAUSEDOMAIN, 0), Errno::EINVAL.to_ret());
    assert_eq!(pause(DomctlCmd::UNPAUSEDOMAIN, 1), Errno::EINVAL.to_ret());
    assert_eq!((pause(DomctlCmd::PAUSEDOMAIN, 1), pause(DomctlCmd::PAUSEDOMAIN, 1)), (0, 0));
    assert_eq!(pause(DomctlCmd::UNPAUSEDOMAIN, 1), 0);
    let info: GetDomainInfo = raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::GETDOMAININFO, 1)).1.u.get();
    assert_ne!(info.flags & XEN_DOMINF_PAUSED, 0);
    for _ in 0..20 {
        arch::time::advance(20_000_000);
        arch::entry::take_interrupts();
        let runs = world.go_back().expect("dom0 runs");
        assert_eq!(runs.domid, DomId(0), "a paused domain does not run");
    }
    as_domain(&mut world, 0);
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::UNPAUSEDOMAIN, 1)).0, 0);
    as_domain(&mut world, 1);
    world.finish();
}

#[test]
fn vcpus_are_described_and_placed() {
    let mut world = world();
    let info = |world: &mut World, vcpu| {
        domctl(world, DomctlCmd::GETVCPUINFO, 1, &GetVcpuInfo { vcpu, ..GetVcpuInfo::default() })
    };
    assert_eq!(info(&mut world, 1).map(|i| (i.online, i.cpu)), Ok((1, 0)));
    assert_eq!(info(&mut world, 2), Err(Errno::EINVAL));
    let map = |at: u64, nr_bits| Bitmap { bitmap: GuestPtr::new(at), nr_bits, ..Bitmap::default() };
    let both = |vcpu, flags| VcpuAffinity { vcpu, flags, cpumap_hard: map(BUFFER, 8), cpumap_soft: map(BUFFER + 8, 8) };
    let bytes = || {
        let byte = |at| read::<u8>(at);
        (byte(BUFFER), byte(BUFFER + 8))
    };
    let mut affinity = |cmd, a| domctl(&mut world, cmd, 1, &a).map(|_| ());
    assert_eq!(affinity(DomctlCmd::GETVCPUAFFINITY, both(0, 3)), Ok(()));
    assert_eq!(bytes(), (0xff, 0xff), "anywhere");
    // What there is of it is told; what was asked for is kept.
    assert!(guest::write(BUFFER, &[0b11]) && guest::write(BUFFER + 8, &[0b10]));
    assert_eq!(affinity(DomctlCmd::SETVCPUAFFINITY, both(0, 3)), Ok(()));
    assert_eq!(bytes(), (0b01, 0));
    assert_eq!(affinity(DomctlCmd::GETVCPUAFFINITY, both(0, 3)), Ok(()));
    assert_eq!(bytes(), (0b11, 0b10));
    assert!(guest::write(BUFFER, &[0b10]));
    assert_eq!(affinity(DomctlCmd::SETVCPUAFFINITY, both(0, 1)), Err(Errno::EINVAL), "no such CPU");
    assert_eq!(affinity(DomctlCmd::SETVCPUAFFINITY, both(5, 1)), Err(Errno::EINVAL));
    assert_eq!(affinity(DomctlCmd::GETVCPUAFFINITY, both(0, 0)), Err(Errno::EINVAL));
    let nowhere = VcpuAffinity { cpumap_hard: Bitmap::default(), ..both(0, 1) };
    assert_eq!(affinity(DomctlCmd::GETVCPUAFFINITY, nowhere), Err(Errno::EINVAL));
    world.finish();
}

#[test]
fn weights_are_read_and_set() {
    let mut world = world();
    let ask = |cmd, weight, cap| DomctlSchedulerOp {
        sched_id: SchedulerId::CREDIT2,
        cmd,
        weight,
        cap,
        ..DomctlSchedulerOp::default()
    };
    let mut sched =
        |a: DomctlSchedulerOp| domctl(&mut world, DomctlCmd::SCHEDULER_OP, 1, &a).map(|a| (a.weight, a.cap));
    assert_eq!(sched(ask(DomctlSchedOp::GETINFO, 0, 0)), Ok((256, 0)));
    assert!(sched(ask(DomctlSchedOp::PUTINFO, 512, 150)).is_ok());
    assert_eq!(sched(ask(DomctlSchedOp::GETINFO, 0, 0)), Ok((512, 150)));
    assert!(sched(ask(DomctlSchedOp::PUTINFO, 0, 0)).is_ok());
    assert_eq!(sched(ask(DomctlSchedOp::GETINFO, 0, 0)), Ok((512, 0)), "no weight keeps the old one");
    assert_eq!(sched(ask(DomctlSchedOp::PUTINFO, 0, 201)), Err(Errno::EINVAL), "more than its vCPUs can use");
    let other = DomctlSchedulerOp { sched_id: SchedulerId::RTDS, ..ask(DomctlSchedOp::GETINFO, 0, 0) };
    assert_eq!(sched(other), Err(Errno::EINVAL));
    world.finish();
}

#[test]
fn settings_of_a_domain() {
    let mut world = world();
    let one = world.guests[1].domain.clone();
    domctl(&mut world, DomctlCmd::MAX_MEM, 1, &MaxMem { max_memkb: 4096 }).expect("privileged");
    assert_eq!(one.account.maximum(), 1024);
    let offset = SetTimeOffset { time_offset_seconds: -3600 };
    domctl(&mut world, DomctlCmd::SETTIMEOFFSET, 1, &offset).expect("privileged");
    assert_eq!(one.time_offset.load(Relaxed), (-3600i64).cast_unsigned());
    let size = |world: &mut World, cmd, size| domctl(world, cmd, 1, &AddressSize { size }).map(|a| a.size);
    assert_eq!(size(&mut world, DomctlCmd::GET_ADDRESS_SIZE, 0), Ok(64));
    assert_eq!(size(&mut world, DomctlCmd::SET_ADDRESS_SIZE, 64), Ok(64));
    assert_eq!(size(&mut world, DomctlCmd::SET_ADDRESS_SIZE, 32), Err(Errno::EOPNOTSUPP));
    assert_eq!(domctl(&mut world, DomctlCmd::GETTSCINFO, 0, &TscInfo::default()), Err(Errno::EINVAL));
    assert_eq!(domctl(&mut world, DomctlCmd::GETTSCINFO, 1, &TscInfo::default()).map(|i| i.gtsc_khz), Ok(1_000_000));
    let map = Bitmap { bitmap: GuestPtr::new(BUFFER), nr_bits: 9, ..Bitmap::default() };
    assert!(guest::write(BUFFER, &[0xfe, 1]));
    let nodes = NodeAffinity { nodemap: map };
    assert_eq!(domctl(&mut world, DomctlCmd::SETNODEAFFINITY, 1, &nodes), Err(Errno::EINVAL));
    domctl(&mut world, DomctlCmd::GETNODEAFFINITY, 1, &nodes).expect("privileged");
    assert_eq!(read::<[u8; 2]>(BUFFER), [1, 0]);
    domctl(&mut world, DomctlCmd::SETNODEAFFINITY, 1, &nodes).expect("the node is in the set");
    drop(one);
    world.finish();
}

#[test]
fn frames_are_named_by_what_they_are() {
    let mut world = world();
    let p2m = world.guests[1].p2m.clone();
    let frames = [p2m[0].0, p2m[1].0, p2m[3].0, p2m[40].0, u64::MAX, world.guests[0].p2m[0].0];
    assert!(guest::write(BUFFER, frames.as_bytes()));
    let list = |num| GetPageFrameInfo3 { num, array: GuestPtr::new(BUFFER) };
    domctl(&mut world, DomctlCmd::GETPAGEFRAMEINFO3, 1, &list(6)).expect("privileged");
    let pinned_root = XEN_DOMCTL_PFINFO_L4TAB | XEN_DOMCTL_PFINFO_LPINTAB;
    let expected = [pinned_root, XEN_DOMCTL_PFINFO_L3TAB, XEN_DOMCTL_PFINFO_L1TAB, XEN_DOMCTL_PFINFO_NOTAB];
    let seen: [u64; 6] = read(BUFFER);
    assert_eq!(seen[..4], expected.map(u64::from));
    assert_eq!(seen[4..], [u64::from(XEN_DOMCTL_PFINFO_XTAB); 2]);
    assert_eq!(domctl(&mut world, DomctlCmd::GETPAGEFRAMEINFO3, 1, &list(1025)), Err(Errno::E2BIG));
    world.finish();
}

#[test]
fn a_policy_is_set_until_the_domain_runs() {
    let mut world = world();
    let policy = |nr_leaves, leaves, nr_msrs, msrs| DomctlCpuPolicy {
        leaves: GuestPtr::new(leaves),
        msrs: GuestPtr::new(msrs),
        nr_leaves,
        nr_msrs,
        ..DomctlCpuPolicy::default()
    };
    let (get, set) = (DomctlCmd::GET_CPU_POLICY, DomctlCmd::SET_CPU_POLICY);
    let sizes = domctl(&mut world, get, 1, &policy(0, 0, 0, 0)).expect("the domain is there");
    assert_eq!((sizes.nr_leaves, sizes.nr_msrs), (120, 2));
    assert_eq!(domctl(&mut world, get, 1, &policy(3, BUFFER, 0, 0)), Err(Errno::ENOBUFS));
    let msrs = BUFFER + 120 * 24;
    let all = domctl(&mut world, get, 1, &policy(120, BUFFER, 2, msrs)).expect("there is room");
    assert_eq!((read::<CpuidLeaf>(BUFFER).leaf, all.nr_msrs), (0, 2));
    assert_eq!(domctl(&mut world, set, 0, &policy(0, 0, 0, 0)), Err(Errno::EINVAL), "not one's own");
    assert_eq!(domctl(&mut world, set, 1, &policy(121, BUFFER, 0, 0)), Err(Errno::E2BIG));
    let again = policy(all.nr_leaves, BUFFER, 2, msrs);
    assert_eq!(domctl(&mut world, set, 1, &again).map(|_| ()), Ok(()), "nothing has looked at it yet");
    // A leaf that there cannot be is named, with the error.
    let wrong = CpuidLeaf { leaf: 0x4000_0001, ..CpuidLeaf::default() };
    assert!(guest::write(BUFFER, wrong.as_bytes()));
    let mut op = domctl_op(set, 1);
    op.u.put(&policy(1, BUFFER, 0, 0));
    let (result, back) = raw(&mut world, HypercallNr::DOMCTL, &op);
    let told: DomctlCpuPolicy = back.u.get();
    assert_eq!((result, told.err_leaf, told.err_subleaf), (Errno::ERANGE.to_ret(), 0x4000_0001, 0));
    assert_eq!(told.err_msr, u32::MAX);
    let pause = domctl_op(DomctlCmd::PAUSEDOMAIN, 1);
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &pause).0, 0);
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::UNPAUSEDOMAIN, 1)).0, 0);
    assert_eq!(domctl(&mut world, set, 1, &policy(0, 0, 0, 0)).map(|_| ()), Err(Errno::EEXIST));
    world.finish();
}
