// SPDX-License-Identifier: MIT OR Apache-2.0
//! Domains that tools create, run and destroy.

use core::sync::atomic::Ordering::Relaxed;

use hypercalls::domctl::DomctlCmd;
use hypercalls::domctl_args::*;
use hypercalls::shared_info::shared_offset;
use hypercalls::vcpu::{VGCF_IN_KERNEL, VGCF_ONLINE};
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr, VcpuGuestContext, VcpuId};
use hypervisor::domain;
use hypervisor::testing::World;
use hypervisor::testing::guest::{DESCRIPTORS, Guest, HANDLER, TABLES};
use hypervisor::testing::tools::{
    CONTEXT, as_domain, build, create, domctl, domctl_op, raw, read, set_context, wanted, world,
};
use hypervisor::testing::vcpus;

fn info(world: &mut World, id: u16) -> GetDomainInfo {
    domctl(world, DomctlCmd::GETDOMAININFO, id, &GetDomainInfo::default()).expect("it asks for the next one")
}

#[test]
fn what_tools_may_ask_for() {
    let mut world = world();
    let (frames, heap) = (mm::buddy::free_frames(), domain::count());
    let mut refused = |number, wanted, errno| assert_eq!(create(&mut world, number, &wanted), Err(errno));
    let with_flags = |flags| CreateDomain { flags, ..wanted() };
    for flags in [XEN_DOMCTL_CDF_HVM, XEN_DOMCTL_CDF_HAP, XEN_DOMCTL_CDF_S3_INTEGRITY, XEN_DOMCTL_CDF_IOMMU] {
        refused(0, with_flags(flags), Errno::EINVAL);
    }
    for flags in [XEN_DOMCTL_CDF_NESTED_VIRT, XEN_DOMCTL_CDF_VPMU, 1 << 8, 1 << 31] {
        refused(0, with_flags(flags), Errno::EINVAL);
    }
    refused(0, CreateDomain { iommu_opts: 1, ..wanted() }, Errno::EINVAL);
    refused(0, CreateDomain { vmtrace_size: 4096, ..wanted() }, Errno::EINVAL);
    refused(0, CreateDomain { max_vcpus: 0, ..wanted() }, Errno::EINVAL);
    refused(0, CreateDomain { max_vcpus: 8193, ..wanted() }, Errno::EINVAL);
    refused(0, CreateDomain { grant_opts: 0, ..wanted() }, Errno::EINVAL);
    refused(0, CreateDomain { grant_opts: 3, ..wanted() }, Errno::EINVAL);
    refused(0, CreateDomain { grant_opts: 0x12, ..wanted() }, Errno::EINVAL);
    refused(0, CreateDomain { max_grant_frames: 0, ..wanted() }, Errno::EINVAL);
    refused(0, CreateDomain { max_grant_frames: 65, ..wanted() }, Errno::EINVAL);
    refused(0, CreateDomain { max_maptrack_frames: 1025, ..wanted() }, Errno::EINVAL);
    refused(0, CreateDomain { cpupool_id: 1, ..wanted() }, Errno::ESRCH);
    let emulates = |emulation_flags| ArchDomainConfig { emulation_flags, misc_flags: 0 };
    refused(0, CreateDomain { arch: emulates(0x7ff), ..wanted() }, Errno::EOPNOTSUPP);
    refused(0, CreateDomain { arch: emulates(0x800), ..wanted() }, Errno::EINVAL);
    refused(0, CreateDomain { arch: ArchDomainConfig { misc_flags: 2, ..emulates(0) }, ..wanted() }, Errno::EINVAL);
    refused(1, wanted(), Errno::EEXIST);
    refused(1, CreateDomain { max_vcpus: 0, ..wanted() }, Errno::EEXIST);
    assert_eq!((mm::buddy::free_frames(), domain::count()), (frames, heap), "nothing is left of what was refused");
    as_domain(&mut world, 1);
    assert_eq!(create(&mut world, 0, &wanted()), Err(Errno::EPERM));
    world.finish();
}

#[test]
fn numbers_go_round_and_a_new_domain_is_described() {
    let mut world = world();
    let first = create(&mut world, 0, &wanted()).expect("there is memory");
    let second = create(&mut world, 0x7ff4, &wanted()).expect("there is memory");
    assert!(second != first && ![first, second].contains(&0));
    assert!(second == first + 1 || second < first || first == 0);
    let named = create(&mut world, 0x7fef, &wanted()).expect("the last number is one");
    assert_eq!(named, 0x7fef);
    let seen = info(&mut world, first);
    assert_eq!((seen.domain, seen.handle), (DomId(first), *b"a name for tests"));
    assert_eq!((seen.tot_pages, seen.max_pages, seen.max_vcpu_id, seen.nr_online_vcpus), (0, 0, 1, 0));
    let flags = seen.flags & 0xffff;
    assert_eq!((flags, seen.flags >> XEN_DOMINF_SHUTDOWNSHIFT), (XEN_DOMINF_PAUSED, 0xff));
    domctl(&mut world, DomctlCmd::SETDOMAINHANDLE, first, &SetDomainHandle { handle: [7; 16] }).expect("privileged");
    assert_eq!(info(&mut world, first).handle, [7; 16]);
    for (number, max, result) in [(first, 2, Ok(MaxVcpus { max: 2 })), (first, 3, Err(Errno::EINVAL))] {
        assert_eq!(domctl(&mut world, DomctlCmd::MAX_VCPUS, number, &MaxVcpus { max }), result);
    }
    assert_eq!(domctl(&mut world, DomctlCmd::MAX_VCPUS, 0, &MaxVcpus { max: 2 }), Err(Errno::EINVAL));
    for id in [first, second, named] {
        let domain = domain::find(DomId(id)).expect("it was created");
        world.guests.push(Guest::furnish_nothing(domain));
    }
    world.finish();
}

#[test]
fn a_domain_that_tools_build_runs() {
    let mut world = world();
    hypervisor::time::set_wall_clock(1_800_000_000 << 30, 0);
    let id = build(&mut world, &wanted()).expect("everything is in place");
    as_domain(&mut world, id);
    assert_eq!(world.registers().rip, HANDLER);
    assert_eq!(world.call(HypercallNr::XEN_VERSION, [0; 5]), 0x0004_0011);
    as_domain(&mut world, 0);
    let seen = info(&mut world, id);
    assert_eq!(seen.flags & (XEN_DOMINF_PAUSED | XEN_DOMINF_DYING | XEN_DOMINF_SHUTDOWN), 0);
    assert_eq!((seen.nr_online_vcpus, seen.tot_pages), (1, 64));
    assert!(seen.cpu_time > 0);
    let domain = domain::find(DomId(id)).expect("it was built");
    let seconds = domain.shared_info().u32(shared_offset::WC_SEC).load(Relaxed);
    assert_eq!(u64::from(seconds), (1_800_000_000 << 30) / 1_000_000_000, "the tools cleared the page before");
    drop(domain);
    world.finish();
}

#[test]
fn the_state_of_a_vcpu_is_set_once_and_read_back() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    let ask = |vcpu, at| DomctlVcpuContext { vcpu, ctxt: GuestPtr::new(at), ..DomctlVcpuContext::default() };
    let get =
        |world: &mut World, id, vcpu| domctl(world, DomctlCmd::GETVCPUCONTEXT, id, &ask(vcpu, CONTEXT)).map(|_| ());
    assert_eq!(get(&mut world, id, 1), Err(Errno::ENODATA));
    assert_eq!(get(&mut world, id, 2), Err(Errno::EINVAL));
    assert_eq!(get(&mut world, 0, 0), Err(Errno::EINVAL));
    assert_eq!(get(&mut world, id, 0), Ok(()));
    let mut seen: Box<VcpuGuestContext> = Box::new(read(CONTEXT));
    let tables = world.guests[2].p2m.clone();
    assert_eq!(seen.ctrlreg[3], tables[TABLES[0]].maddr().0);
    assert_eq!(
        (seen.user_regs.rip, seen.flags & (VGCF_IN_KERNEL | VGCF_ONLINE)),
        (HANDLER, VGCF_IN_KERNEL | VGCF_ONLINE)
    );
    assert_eq!((seen.trap_ctxt[14].vector, seen.trap_ctxt[14].address), (14, HANDLER + 14 * 16));
    assert_eq!(seen.event_callback_eip, HANDLER);
    // As a suspend that is called off does: the same state with another result of the call.
    seen.user_regs.rax = 1;
    assert_eq!(set_context(&mut world, id, 0, Some(&seen)), Ok(()));
    as_domain(&mut world, id);
    assert_eq!(world.registers().rax, 1);
    as_domain(&mut world, 0);
    let mut refused = |change: fn(&mut VcpuGuestContext, &[hypercalls::Mfn]), errno| {
        let mut other = seen.clone();
        change(&mut other, &tables);
        assert_eq!(set_context(&mut world, id, 0, Some(&other)), Err(errno));
    };
    refused(|c, p2m| c.ctrlreg[3] = p2m[TABLES[4]].maddr().0, Errno::EOPNOTSUPP);
    refused(|c, p2m| (c.gdt_ents, c.gdt_frames[0]) = (1, p2m[DESCRIPTORS[0]].0), Errno::EOPNOTSUPP);
    refused(|c, _| c.ldt_ents = 4, Errno::EOPNOTSUPP);
    refused(|c, _| c.ldt_ents = 8193, Errno::EINVAL);
    refused(|c, _| c.user_regs.rip = 1 << 47, Errno::EINVAL);
    refused(|c, _| c.kernel_sp = 1 << 50, Errno::EINVAL);
    refused(|c, _| c.trap_ctxt[200].address = 1 << 63, Errno::EINVAL);
    refused(|c, _| c.vm_assist = 1 << 40, Errno::EINVAL);
    refused(|c, _| c.debugreg[0] = 0xffff_8000_0000_0000, Errno::EPERM);
    assert_eq!(set_context(&mut world, id, 9, Some(&seen)), Err(Errno::EINVAL));
    assert_eq!(set_context(&mut world, 0, 1, Some(&seen)), Err(Errno::EINVAL));
    assert_eq!(domctl(&mut world, DomctlCmd::SETVCPUCONTEXT, id, &ask(0, 0x1000)).map(|_| ()), Err(Errno::EFAULT));
    world.finish();
}

#[test]
fn a_vcpu_that_is_reset_can_be_set_again() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    let one = domain::find(DomId(id)).expect("it was created");
    assert_eq!(set_context(&mut world, id, 0, None), Ok(()));
    let vcpu = one.vcpu(VcpuId(0)).expect("it has one");
    assert!(!vcpu.runnable() && vcpu.roots.lock().kernel.is_none());
    assert_eq!(info(&mut world, id).nr_online_vcpus, 0);
    let mut context = vcpus::context(&world.guests[2], VcpuId(0));
    context.ctrlreg[3] = world.guests[2].p2m[20].maddr().0;
    context.flags |= VGCF_ONLINE;
    context.ctrlreg[1] = 0;
    world.check();
    assert_eq!(set_context(&mut world, id, 0, Some(&context)), Ok(()), "an empty frame is a table too");
    context.ctrlreg[3] = world.guests[2].p2m[TABLES[0]].maddr().0;
    assert_eq!(set_context(&mut world, id, 0, Some(&context)), Err(Errno::EOPNOTSUPP));
    assert_eq!(set_context(&mut world, id, 0, None), Ok(()));
    context.gdt_ents = 512;
    context.gdt_frames[0] = world.guests[2].p2m[TABLES[1]].0;
    assert_eq!(set_context(&mut world, id, 0, Some(&context)), Err(Errno::EINVAL), "a page table holds no descriptors");
    context.gdt_frames[0] = world.guests[2].p2m[DESCRIPTORS[0]].0;
    context.ctrlreg[3] = 0x7777_0000_0000;
    assert_eq!(set_context(&mut world, id, 0, Some(&context)), Err(Errno::EINVAL));
    assert!(vcpu.descriptors.lock().gdt[0].is_none(), "what was taken is given back");
    context.ctrlreg[3] = world.guests[2].p2m[TABLES[0]].maddr().0;
    assert!(
        set_context(&mut world, id, 0, Some(&context)).is_err(),
        "a frame that is mapped writable holds no descriptors"
    );
    context.gdt_ents = 0;
    assert_eq!(set_context(&mut world, id, 0, Some(&context)), Ok(()));
    world.check();
    as_domain(&mut world, id);
    drop(one);
    world.finish();
}

#[test]
fn a_vcpu_whose_reset_is_cut_short_does_not_run() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    let one = domain::find(DomId(id)).expect("it was created");
    // Another address space, whose end takes long: nothing maps its frames once the first one is gone.
    assert_eq!(set_context(&mut world, id, 0, None), Ok(()));
    let p2m = world.guests[2].p2m.clone();
    (1..4).for_each(|n| mm::hosted::poke(p2m[33], n, mm::flags::entry_for(p2m[28 + n], mm::flags::P | mm::flags::US)));
    let mut context = vcpus::context(&world.guests[2], VcpuId(0));
    (context.ctrlreg[1], context.ctrlreg[3]) = (0, p2m[33].maddr().0);
    context.flags |= VGCF_ONLINE;
    assert_eq!(set_context(&mut world, id, 0, Some(&context)), Ok(()));
    arch::cpu::preempt_after(Some(0));
    let (only_one, vcpu) = (one.initialising.lock(), &one.vcpus[0]);
    assert_eq!(hypervisor::initialise::reset(vcpu), Err(Errno::ERESTART));
    assert!(!vcpu.runnable() && !vcpu.status.initialised.load(std::sync::atomic::Ordering::SeqCst));
    arch::cpu::preempt_after(None);
    drop(only_one);
    world.check();
    assert_eq!(set_context(&mut world, id, 0, None), Ok(()));
    drop(one);
    world.check();
    world.finish();
}

#[test]
fn triggers_and_other_ways_into_the_kernel() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    let send = |world: &mut World, trigger, vcpu| {
        domctl(world, DomctlCmd::SENDTRIGGER, id, &SendTrigger { trigger, vcpu }).map(|_| ())
    };
    assert_eq!(send(&mut world, Trigger::NMI, 2), Err(Errno::ESRCH));
    assert_eq!(send(&mut world, Trigger::POWER, 0), Err(Errno::EINVAL));
    assert_eq!(send(&mut world, Trigger::RESET, 0), Err(Errno::ENOSYS));
    assert_eq!(send(&mut world, Trigger::NMI, 0), Ok(()));
    let one = domain::find(DomId(id)).expect("it was created");
    assert!(one.vcpus[0].nmi_pending.load(Relaxed));
    let ways = ExtVcpuContext {
        size: 64,
        sysenter_callback_eip: HANDLER + 1,
        sysenter_disables_events: 1,
        syscall32_callback_eip: HANDLER + 2,
        ..ExtVcpuContext::default()
    };
    let set =
        |world: &mut World, ways: &ExtVcpuContext| domctl(world, DomctlCmd::SET_EXT_VCPUCONTEXT, id, ways).map(|_| ());
    assert_eq!(set(&mut world, &ways), Ok(()));
    assert_eq!(set(&mut world, &ExtVcpuContext { size: 31, ..ways }), Err(Errno::EINVAL));
    assert_eq!(set(&mut world, &ExtVcpuContext { sysenter_callback_eip: 1 << 47, ..ways }), Err(Errno::EINVAL));
    let asked = ExtVcpuContext::default();
    let seen = domctl(&mut world, DomctlCmd::GET_EXT_VCPUCONTEXT, id, &asked).expect("privileged");
    assert_eq!((seen.sysenter_callback_eip, seen.syscall32_callback_eip), (HANDLER + 1, HANDLER + 2));
    assert_eq!((seen.sysenter_disables_events, seen.syscall32_disables_events, seen.size), (1, 0, 64));
    drop(one);
    world.finish();
}

#[test]
fn a_page_of_stubs() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    let p2m = world.guests[2].p2m.clone();
    let fill =
        |world: &mut World, gmfn| domctl(world, DomctlCmd::HYPERCALL_INIT, id, &HypercallInit { gmfn }).map(|_| ());
    assert_eq!(fill(&mut world, p2m[41].0), Ok(()));
    assert_eq!(fill(&mut world, p2m[TABLES[0]].0), Err(Errno::EPERM));
    let other = world.guests[0].p2m[41].0;
    assert_eq!(fill(&mut world, other), Err(Errno::EINVAL));
    assert_eq!(fill(&mut world, u64::MAX), Err(Errno::EINVAL));
    let frame = mm::PageRef::get(p2m[41], DomId(id)).expect("its own");
    assert_eq!(hypervisor::shared::read_guest_frame(&frame, 17 * 32) as u32, 0xb853_4151);
    drop(frame);
    world.finish();
}

#[test]
fn memory_that_runs_out_is_no_panic() {
    let mut world = world();
    let mut all = Vec::new();
    let last = loop {
        match create(&mut world, 0, &wanted()) {
            Ok(id) => all.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!(last, Errno::ENOMEM);
    assert!(all.len() > 20);
    let left = mm::buddy::free_frames();
    assert_eq!(create(&mut world, 0, &wanted()), Err(Errno::ENOMEM));
    assert_eq!(mm::buddy::free_frames(), left);
    let op = domctl_op(DomctlCmd::GETDOMAININFO, all[all.len() - 1] + 1);
    assert_eq!(raw(&mut world, HypercallNr::DOMCTL, &op).0, Errno::ESRCH.to_ret());
    for id in all {
        let domain = domain::find(DomId(id)).expect("it was created");
        world.guests.push(Guest::furnish_nothing(domain));
    }
    world.finish();
}
