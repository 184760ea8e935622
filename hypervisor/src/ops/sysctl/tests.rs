// SPDX-License-Identifier: MIT OR Apache-2.0
//! `sysctl` as dom0's tools call it, on the hosted machine.

use hypercalls::domctl::DomctlCmd;
use hypercalls::domctl_args::{Bitmap, DomctlSchedOp, DomctlSchedulerOp, GetDomainInfo, SchedulerId};
use hypercalls::sysctl::{Sysctl, SysctlCmd};
use hypercalls::sysctl_args::*;
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr};
use zerocopy::{FromBytes, IntoBytes};

use crate::console;
use crate::testing::guest;
use crate::testing::tools::{BUFFER, as_domain, domctl, raw, read, sysctl, world};
use crate::testing::world::World;

fn read_buffer<T: FromBytes + IntoBytes>() -> T {
    read(BUFFER)
}

#[test]
fn versions_come_before_rights_and_rights_before_the_rest() {
    let mut world = world();
    let op = |version| Sysctl { cmd: SysctlCmd(77), interface_version: version, ..Sysctl::default() };
    assert_eq!(raw(&mut world, HypercallNr::SYSCTL, &op(0x14)).0, Errno::EACCES.to_ret());
    assert_eq!(raw(&mut world, HypercallNr::SYSCTL, &op(0x15)).0, Errno::ENOSYS.to_ret());
    as_domain(&mut world, 1);
    assert_eq!(raw(&mut world, HypercallNr::SYSCTL, &op(0x14)).0, Errno::EACCES.to_ret());
    assert_eq!(raw(&mut world, HypercallNr::SYSCTL, &op(0x15)).0, Errno::EPERM.to_ret());
    assert_eq!(world.call(HypercallNr::SYSCTL, [0x10, 0, 0, 0, 0]), Errno::EFAULT.to_ret());
    world.finish();
}

#[test]
fn messages_are_read_in_parts_and_forgotten() {
    let mut world = world();
    console::forget_log(console::log_range().1);
    console::print(format_args!("one"));
    console::print(format_args!("two"));
    let from = console::log_range().0;
    let ask = |incremental, clear, index, count| ReadConsole {
        buffer: GuestPtr::new(BUFFER),
        incremental,
        clear,
        index,
        count,
        ..ReadConsole::default()
    };
    let read = |world: &mut World, a| sysctl(world, SysctlCmd::READCONSOLE, &a).expect("privileged");
    let all = read(&mut world, ask(0, 0, 7, 4000));
    assert_eq!((all.count, all.index), (26, from.wrapping_add(26)));
    assert_eq!(&read_buffer::<[u8; 26]>(), b"(xenith) one\n(xenith) two\n");
    let part = read(&mut world, ask(0, 0, 0, 13));
    assert_eq!((part.count, part.index), (13, from.wrapping_add(13)));
    let rest = read(&mut world, ask(1, 0, part.index, 4000));
    assert_eq!(rest.count, 13);
    assert_eq!(&read_buffer::<[u8; 13]>(), b"(xenith) two\n");
    assert_eq!(read(&mut world, ask(1, 0, rest.index, 4000)).count, 0);
    // What was never written is no place to go on from.
    assert_eq!(read(&mut world, ask(1, 0, rest.index.wrapping_add(1), 4000)).count, 26);
    // Only what was read is forgotten.
    assert_eq!(read(&mut world, ask(0, 1, 0, 13)).count, 13);
    assert_eq!(read(&mut world, ask(0, 0, 0, 4000)).count, 13);
    let bad = ReadConsole { buffer: GuestPtr::new(0x10), count: 10, ..ReadConsole::default() };
    assert_eq!(sysctl(&mut world, SysctlCmd::READCONSOLE, &bad), Err(Errno::EFAULT));
    world.finish();
}

#[test]
fn keys_are_pressed_and_told_about() {
    let mut world = world();
    arch::console::take_output();
    assert!(guest::write(BUFFER, b"hm"));
    let press = |nr_keys| DebugKeys { keys: GuestPtr::new(BUFFER), nr_keys, ..DebugKeys::default() };
    sysctl(&mut world, SysctlCmd::DEBUG_KEYS, &press(2)).expect("privileged");
    world.go_back();
    let text = alloc::string::String::from_utf8(arch::console::take_output()).expect("text");
    assert!(text.contains("'h' pressed") && text.contains("'m' pressed"), "{text}");
    assert_eq!(sysctl(&mut world, SysctlCmd::DEBUG_KEYS, &press(1 << 20)), Err(Errno::EBUSY));
    let unmapped = DebugKeys { keys: GuestPtr::new(0x10), nr_keys: 2, ..DebugKeys::default() };
    assert_eq!(sysctl(&mut world, SysctlCmd::DEBUG_KEYS, &unmapped), Err(Errno::EFAULT));
    world.finish();
}

#[test]
fn the_machine_is_described() {
    let mut world = world();
    let info = sysctl(&mut world, SysctlCmd::PHYSINFO, &Physinfo::default()).expect("privileged");
    assert_eq!((info.nr_cpus, info.max_cpu_id, info.nr_nodes), (1, 0, 1));
    assert_eq!((info.total_pages, info.free_pages), (mm::buddy::total_frames(), mm::buddy::free_frames()));
    assert_eq!(info.cpu_khz, 1_000_000);
    assert_ne!(info.capabilities & XEN_SYSCTL_PHYSCAP_PV, 0);
    assert_ne!(info.capabilities & XEN_SYSCTL_PHYSCAP_GNTTAB_V1, 0);
    let heap = |world: &mut World, node, from, to| {
        let a = AvailHeap { node, min_bitwidth: from, max_bitwidth: to, ..AvailHeap::default() };
        sysctl(world, SysctlCmd::AVAILHEAP, &a).expect("privileged").avail_bytes
    };
    let all = heap(&mut world, -1, 0, 0);
    assert_eq!(all, mm::buddy::free_frames() << 12);
    assert_eq!(heap(&mut world, 0, 0, 20) + heap(&mut world, 0, 21, 0), all);
    assert_eq!(heap(&mut world, 1, 0, 0), 0);
    let idle = GetCpuInfo { max_cpus: 8, info: GuestPtr::new(BUFFER), ..GetCpuInfo::default() };
    assert_eq!(sysctl(&mut world, SysctlCmd::GETCPUINFO, &idle).expect("privileged").nr_cpus, 1);
    assert_eq!(sysctl(&mut world, SysctlCmd::GET_PMSTAT, &[0u64; 2]), Err(Errno::ENODEV));
    world.finish();
}

#[test]
fn sizes_are_told_before_lists() {
    let mut world = world();
    let count = sysctl(&mut world, SysctlCmd::CPUTOPOINFO, &CpuTopoInfo::default()).expect("privileged").num_cpus;
    assert_eq!(count, 1);
    let list = CpuTopoInfo { num_cpus: 9, cputopo: GuestPtr::new(BUFFER), ..CpuTopoInfo::default() };
    assert_eq!(sysctl(&mut world, SysctlCmd::CPUTOPOINFO, &list).expect("privileged").num_cpus, 1);
    assert_eq!(read_buffer::<CpuTopo>(), CpuTopo { core: 0, socket: 0, node: 0 });
    let nodes = NumaInfo { distance: GuestPtr::new(BUFFER), num_nodes: 4, ..NumaInfo::default() };
    assert_eq!(sysctl(&mut world, SysctlCmd::NUMAINFO, &NumaInfo::default()).expect("privileged").num_nodes, 1);
    assert_eq!(sysctl(&mut world, SysctlCmd::NUMAINFO, &nodes).expect("privileged").num_nodes, 1);
    assert_eq!(read_buffer::<u32>(), 10);
    world.finish();
}

#[test]
fn domains_are_listed_from_a_number_on() {
    let mut world = world();
    let list = |world: &mut World, first, max_domains| {
        let buffer = GuestPtr::new(BUFFER);
        let a = GetDomainInfoList { first_domain: DomId(first), max_domains, buffer, ..GetDomainInfoList::default() };
        sysctl(world, SysctlCmd::GETDOMAININFOLIST, &a).expect("privileged").num_domains
    };
    assert_eq!(list(&mut world, 0, 10), 2);
    let [first, second] = read_buffer::<[GetDomainInfo; 2]>();
    assert_eq!((first.domain, second.domain), (DomId(0), DomId(1)));
    assert_eq!((first.max_vcpu_id, first.nr_online_vcpus, first.tot_pages), (1, 2, guest::FRAMES as u64));
    assert_eq!((list(&mut world, 0, 1), list(&mut world, 1, 5), list(&mut world, 2, 5)), (1, 1, 0));
    world.finish();
}

#[test]
fn the_scheduler_and_its_pool() {
    let mut world = world();
    let id = sysctl(&mut world, SysctlCmd::SCHED_ID, &SchedId::default()).expect("privileged");
    assert_eq!(id.sched_id, SchedulerId::CREDIT2);
    let pool = |op, cpupool_id| CpupoolOp {
        op,
        cpupool_id,
        cpumap: Bitmap { bitmap: GuestPtr::new(BUFFER), nr_bits: 12, ..Bitmap::default() },
        ..CpupoolOp::default()
    };
    assert!(guest::write(BUFFER, &[0xff; 3]));
    let info = sysctl(&mut world, SysctlCmd::CPUPOOL_OP, &pool(CpupoolCmd::INFO, 0)).expect("the pool");
    assert_eq!((info.cpupool_id, info.sched_id, info.n_dom), (0, SchedulerId::CREDIT2, 2));
    assert_eq!(read_buffer::<[u8; 3]>(), [1, 0, 0xff], "two bytes hold twelve bits");
    assert_eq!(sysctl(&mut world, SysctlCmd::CPUPOOL_OP, &pool(CpupoolCmd::INFO, 1)), Err(Errno::ENOENT));
    sysctl(&mut world, SysctlCmd::CPUPOOL_OP, &pool(CpupoolCmd::FREEINFO, 0)).expect("no CPU is free");
    assert_eq!(read_buffer::<[u8; 3]>(), [0, 0, 0xff]);
    let credit2 = |cmd, ratelimit_us| SysctlSchedulerOp {
        sched_id: SchedulerId::CREDIT2,
        cmd,
        ratelimit_us,
        ..SysctlSchedulerOp::default()
    };
    let mut sched = |a: SysctlSchedulerOp| sysctl(&mut world, SysctlCmd::SCHEDULER_OP, &a);
    assert_eq!(sched(credit2(SysctlSchedOp::PUTINFO, 2000)).map(|a| a.ratelimit_us), Ok(2000));
    assert_eq!(sched(credit2(SysctlSchedOp::GETINFO, 7)).map(|a| a.ratelimit_us), Ok(2000));
    assert_eq!(sched(credit2(SysctlSchedOp::PUTINFO, 99)), Err(Errno::EINVAL));
    assert_eq!(sched(credit2(SysctlSchedOp(9), 0)), Err(Errno::EINVAL));
    let other = SysctlSchedulerOp { sched_id: SchedulerId::CREDIT, ..credit2(SysctlSchedOp::GETINFO, 0) };
    assert_eq!(sched(other), Err(Errno::EINVAL));
    world.finish();
}

#[test]
fn pools_are_made_used_and_ended() {
    let mut world = World::new(3);
    // Whoever runs is where this thread is.
    let mut first = arch::CpuMask::EMPTY;
    first.insert(arch::CpuId(0));
    let places = crate::placement::Places { hard: first, soft: first };
    crate::domain::for_each(|d| d.vcpus.iter().for_each(|vcpu| crate::placement::set_places(vcpu, &places)));
    world.boot_kernels();
    world.go_to(0);
    as_domain(&mut world, 0);
    let base = |op, cpupool_id| CpupoolOp {
        op,
        cpupool_id,
        cpumap: Bitmap { bitmap: GuestPtr::new(BUFFER), nr_bits: 8, ..Bitmap::default() },
        ..CpupoolOp::default()
    };
    let mut call = |a: CpupoolOp| sysctl(&mut world, SysctlCmd::CPUPOOL_OP, &a);
    let create = |id, sched_id| CpupoolOp { sched_id, ..base(CpupoolCmd::CREATE, id) };
    let cpu = |op, id, cpu| CpupoolOp { cpu, ..base(op, id) };
    let any = XEN_SYSCTL_CPUPOOL_PAR_ANY;
    assert_eq!(call(create(any, SchedulerId::RTDS)), Err(Errno::ENOENT));
    assert_eq!(call(create(any, SchedulerId::NULL)).map(|a| a.cpupool_id), Ok(1));
    assert_eq!(call(create(1, SchedulerId::CREDIT2)), Err(Errno::EEXIST));
    assert_eq!(call(create(5, SchedulerId::CREDIT2)).map(|a| a.cpupool_id), Ok(5));
    // CPUs come from one pool and go to another.
    assert_eq!(call(cpu(CpupoolCmd::ADDCPU, 1, any)), Err(Errno::ENODEV));
    assert_eq!(call(cpu(CpupoolCmd::ADDCPU, 1, 2)), Err(Errno::ENODEV));
    assert_eq!(call(cpu(CpupoolCmd::RMCPU, 9, 2)), Err(Errno::ENOENT));
    assert_eq!(call(cpu(CpupoolCmd::RMCPU, 0, 3)), Err(Errno::EINVAL));
    assert_eq!(call(cpu(CpupoolCmd::RMCPU, 1, 2)), Err(Errno::ENODEV));
    assert!(call(cpu(CpupoolCmd::RMCPU, 0, any)).is_ok());
    call(base(CpupoolCmd::FREEINFO, 0)).expect("one CPU is free");
    assert_eq!(read_buffer::<u8>(), 1 << 2);
    assert_eq!(call(cpu(CpupoolCmd::ADDCPU, 9, 2)), Err(Errno::ENOENT));
    assert!(call(cpu(CpupoolCmd::ADDCPU, 1, any)).is_ok());
    // A domain moves, but not the caller.
    let mv = |domid, id| CpupoolOp { domid, ..base(CpupoolCmd::MOVEDOMAIN, id) };
    assert_eq!(call(mv(0, 1)), Err(Errno::EPERM));
    assert_eq!(call(mv(9, 1)), Err(Errno::ESRCH));
    assert_eq!(call(mv(1, 5)), Err(Errno::ENOENT), "it has no CPU");
    assert_eq!(call(mv(1, 7)), Err(Errno::ENOENT));
    assert!(call(mv(1, 1)).is_ok());
    let info = call(base(CpupoolCmd::INFO, 1)).expect("the pool");
    assert_eq!((info.cpupool_id, info.sched_id, info.n_dom), (1, SchedulerId::NULL, 1));
    assert_eq!(read_buffer::<u8>(), 1 << 2);
    assert_eq!(call(base(CpupoolCmd::INFO, 2)).map(|a| a.cpupool_id), Ok(5), "the next one");
    assert_eq!(call(base(CpupoolCmd::INFO, 6)), Err(Errno::ENOENT));
    // What is used stays.
    assert_eq!(call(cpu(CpupoolCmd::RMCPU, 1, 2)), Err(Errno::EBUSY));
    assert_eq!(call(base(CpupoolCmd::DESTROY, 1)), Err(Errno::EBUSY));
    assert_eq!(call(base(CpupoolCmd::DESTROY, 0)), Err(Errno::EBUSY));
    assert_eq!(call(base(CpupoolCmd::DESTROY, 9)), Err(Errno::ENOENT));
    assert_eq!(call(base(CpupoolCmd(8), 0)), Err(Errno::ENOSYS));
    let found = crate::domain::find(DomId(1)).expect("a domain");
    assert_eq!(crate::ops::domctl::info::of(&found).cpupool, 1);
    drop(found);
    let mut sched = |cpupool_id, sched_id| {
        let a = SysctlSchedulerOp { cpupool_id, sched_id, cmd: SysctlSchedOp::GETINFO, ..SysctlSchedulerOp::default() };
        sysctl(&mut world, SysctlCmd::SCHEDULER_OP, &a).map(|a| a.ratelimit_us)
    };
    assert_eq!(sched(1, SchedulerId::NULL), Ok(0));
    assert_eq!(sched(1, SchedulerId::CREDIT2), Err(Errno::EINVAL));
    assert_eq!(sched(5, SchedulerId::CREDIT2), Ok(1000));
    assert_eq!(sched(9, SchedulerId::CREDIT2), Err(Errno::ESRCH));
    let weight = |sched_id| DomctlSchedulerOp { sched_id, cmd: DomctlSchedOp::GETINFO, ..DomctlSchedulerOp::default() };
    assert!(domctl(&mut world, DomctlCmd::SCHEDULER_OP, 1, &weight(SchedulerId::NULL)).is_ok());
    assert_eq!(domctl(&mut world, DomctlCmd::SCHEDULER_OP, 1, &weight(SchedulerId::CREDIT2)), Err(Errno::EINVAL));
    // Back again, and all is as before.
    let mut call = |a: CpupoolOp| sysctl(&mut world, SysctlCmd::CPUPOOL_OP, &a);
    assert!(call(mv(1, 0)).is_ok());
    assert!(call(cpu(CpupoolCmd::RMCPU, 1, 2)).is_ok());
    assert!(call(cpu(CpupoolCmd::ADDCPU, 0, 2)).is_ok());
    assert!(call(base(CpupoolCmd::DESTROY, 1)).is_ok() && call(base(CpupoolCmd::DESTROY, 5)).is_ok());
    assert_eq!(call(base(CpupoolCmd::INFO, 0)).map(|a| a.n_dom), Ok(2));
    assert_eq!(read_buffer::<u8>(), 0b111);
    world.finish();
}

#[test]
fn features_and_policies_of_the_machine() {
    let mut world = world();
    let ask = |index, nr_features, at| CpuFeatureset { index, nr_features, features: GuestPtr::new(at) };
    let mut features = |a| {
        let mut op = Sysctl { cmd: SysctlCmd::GET_CPU_FEATURESET, ..crate::testing::tools::sysctl_op(SysctlCmd(0)) };
        op.u.put(&a);
        let (result, back) = raw(&mut world, HypercallNr::SYSCTL, &op);
        (result, back.u.get::<CpuFeatureset>().nr_features)
    };
    assert_eq!(features(ask(FeaturesetIndex::HOST, 0, 0)), (0, 18));
    assert_eq!(features(ask(FeaturesetIndex::HOST, 20, BUFFER)), (0, 18));
    let host = read_buffer::<[u32; 18]>();
    assert_eq!(host[..8], crate::host::capabilities());
    assert_eq!(features(ask(FeaturesetIndex::PV, 2, BUFFER)), (Errno::ENOBUFS.to_ret(), 2));
    let words = read_buffer::<[u32; 3]>();
    assert_eq!(words[0] & !host[0], 0);
    assert_eq!(words[2], host[2], "what there is no room for stays");
    assert_eq!(features(ask(FeaturesetIndex::HVM, 18, BUFFER)).0, Errno::EOPNOTSUPP.to_ret());
    assert_eq!(features(ask(FeaturesetIndex(6), 18, BUFFER)).0, Errno::EINVAL.to_ret());

    let ask = |index, nr_leaves, at| SysctlCpuPolicy {
        index,
        nr_leaves,
        leaves: GuestPtr::new(at),
        ..SysctlCpuPolicy::default()
    };
    let mut policy =
        |a: SysctlCpuPolicy| sysctl(&mut world, SysctlCmd::GET_CPU_POLICY, &a).map(|a| (a.nr_leaves, a.nr_msrs));
    assert_eq!(policy(ask(CpuPolicyIndex::PV_DEFAULT, 0, 0)), Ok((120, 2)));
    let count = policy(ask(CpuPolicyIndex::PV_DEFAULT, 120, BUFFER)).expect("there is room").0;
    assert!((20..120).contains(&count));
    assert_eq!(policy(ask(CpuPolicyIndex::PV_MAX, count - 1, BUFFER)), Err(Errno::ENOBUFS));
    assert_eq!(policy(ask(CpuPolicyIndex::HVM_MAX, 120, BUFFER)), Err(Errno::EOPNOTSUPP));
    assert_eq!(policy(ask(CpuPolicyIndex(6), 120, BUFFER)), Err(Errno::EINVAL));
    assert_eq!(policy(SysctlCpuPolicy { _rsvd: 1, ..ask(CpuPolicyIndex::RAW, 0, 0) }), Err(Errno::EINVAL));
    world.finish();
}
