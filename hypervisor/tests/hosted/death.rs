// SPDX-License-Identifier: MIT OR Apache-2.0
//! Domains that are destroyed: at any moment, whoever has what of them mapped, and nothing of them is left.
//! `XENITH_SEED=n` replays a random run.

use std::sync::atomic::Ordering::Relaxed;

use hypercalls::domctl::DomctlCmd;
use hypercalls::domctl_args::*;
use hypercalls::mmu::MmuUpdate;
use hypercalls::{DomId, Errno, HypercallNr, Mfn, VcpuId, Virq};
use hypervisor::domain::{self, Domain};
use hypervisor::events;
use hypervisor::testing::guest::{TABLES, args_of, va};
use hypervisor::testing::tools::{ARGUMENT, as_domain, build, build_as, create, domctl, domctl_op, raw, wanted, world};
use hypervisor::testing::{Player, Source, World};
use mm::flags::{GUEST_KERNEL, P, RW, US, entry_for};
use mm::hosted::Random;

use crate::heap;

fn destroy(world: &mut World, id: u16) -> i64 {
    raw(world, HypercallNr::DOMCTL, &domctl_op(DomctlCmd::DESTROYDOMAIN, id)).0
}

/// What dom0 is told of the domain, if there is one of that number.
fn info(world: &mut World, id: u16) -> Option<GetDomainInfo> {
    let asked = GetDomainInfo::default();
    domctl(world, DomctlCmd::GETDOMAININFO, id, &asked).ok().filter(|info| info.domain == DomId(id))
}

/// Lets everything happen that a domain's last frame sets off.
fn settle(world: &mut World) {
    for _ in 0..3 {
        world.go_back();
        world.let_pass();
    }
}

/// dom0 binds the interrupt that tells of domains; returns its port.
pub(crate) fn bind_news() -> u32 {
    let dom0 = domain::find(DomId(0)).expect("it lives");
    events::bind_virq(&dom0, Virq::DOM_EXC, VcpuId(0)).expect("it is free")
}

/// Says whether there was news since the last time.
pub(crate) fn is_news(port: u32) -> bool {
    let dom0 = domain::find(DomId(0)).expect("it lives");
    let pending = events::is_pending(&dom0, port);
    let (word, bit) = (0x800 + port as usize / 64 * 8, 1u64 << (port % 64));
    dom0.shared_info().u64(word).fetch_and(!bit, Relaxed);
    pending
}

/// dom0 puts an entry into its own L1, for a frame of that domain's.
fn set_entry(world: &mut World, pfn: usize, val: u64, foreign: u16) -> i64 {
    let at = world.guests[0].p2m[TABLES[3]].maddr().0 + pfn as u64 * 8;
    let update = MmuUpdate { ptr: at, val };
    raw_list(world, &update, u64::from(foreign))
}

fn raw_list(world: &mut World, update: &MmuUpdate, foreign: u64) -> i64 {
    use zerocopy::IntoBytes;
    assert!(hypervisor::testing::guest::write(ARGUMENT, update.as_bytes()));
    world.call(HypercallNr::MMU_UPDATE, [ARGUMENT, 1, 0, foreign, 0])
}

fn map(world: &mut World, pfn: usize, mfn: Mfn, id: u16) -> i64 {
    set_entry(world, pfn, entry_for(mfn, P | RW | US | GUEST_KERNEL), id)
}

fn unmap(world: &mut World, pfn: usize) -> i64 {
    set_entry(world, pfn, 0, DomId::SELF.0)
}

/// Destroys the world's last guest, which goes at once.
fn destroy_last(world: &mut World) {
    let id = world.guests.last().expect("there is one").id().0;
    assert_eq!(destroy(world, id), 0);
    world.guests.pop();
    settle(world);
    assert!(info(world, id).is_none(), "it is gone");
}

#[test]
fn what_can_be_destroyed() {
    let mut world = world();
    assert_eq!(destroy(&mut world, 0), Errno::EINVAL.to_ret());
    assert_eq!(destroy(&mut world, 7777), Errno::ESRCH.to_ret());
    as_domain(&mut world, 1);
    assert_eq!(destroy(&mut world, 0), Errno::EPERM.to_ret());
    assert_eq!(destroy(&mut world, 1), Errno::EPERM.to_ret());
    as_domain(&mut world, 0);
    let empty = create(&mut world, 0, &wanted()).expect("there is memory");
    assert_eq!(destroy(&mut world, empty), 0);
    settle(&mut world);
    assert_eq!(destroy(&mut world, empty), Errno::ESRCH.to_ret());
    world.check();
    world.finish();
}

#[test]
fn a_thousand_domains_leave_nothing_behind() {
    let mut world = world();
    let ports = |n: u16| CreateDomain { max_evtchn_port: u32::from(n) * 7 + 7, ..wanted() };
    let number = |n: u16| 2 + n % 200;
    // The first ones make room in tables of the machine's, which stay.
    for n in 0..600 {
        build_as(&mut world, number(n), &wanted()).expect("everything is in place");
        destroy_last(&mut world);
    }
    let before = (mm::buddy::free_frames(), heap::used(), domain::count());
    for n in 0..400 {
        let id = build_as(&mut world, number(n), &ports(n)).expect("everything is in place");
        if n.is_multiple_of(4) {
            as_domain(&mut world, id);
            run_a_little(&mut world, u32::from(n));
            as_domain(&mut world, 0);
        }
        destroy_last(&mut world);
        if n.is_multiple_of(100) {
            world.check();
        }
    }
    let after = (mm::buddy::free_frames(), heap::used(), domain::count());
    assert_eq!(before, after, "free frames, bytes of the heap, domains");
    world.finish();
}

/// The current guest does what leaves traces: ports, timers, a wait.
fn run_a_little(world: &mut World, n: u32) {
    let id = world.go_back().expect("it runs").domid;
    let one = domain::find(id).expect("it runs");
    events::bind_virq(&one, Virq::TIMER, VcpuId(0)).expect("it is free");
    if n.is_multiple_of(8) {
        events::init_control(&one, VcpuId(0), world.guests[2].p2m[50], 0).expect("a page of its own");
        events::expand_array(&one, world.guests[2].p2m[51]).expect("a page of its own");
    }
    events::alloc_unbound(&one, DomId(0)).expect("there are ports");
    let far = arch::time::now() + 1_000_000_000_000;
    assert_eq!(world.call(HypercallNr::SET_TIMER_OP, [far, 0, 0, 0, 0]), 0);
    assert_eq!(world.call(HypercallNr::SCHED_OP, [1, 0, 0, 0, 0]), 0);
}

#[test]
fn a_domain_stays_as_long_as_others_have_its_frames() {
    let mut world = world();
    let port = bind_news();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    let free = mm::buddy::free_frames();
    let one = domain::find(DomId(id)).expect("it was built");
    let its = [world.guests[2].p2m[44], one.shared_info().mfn(), one.grants.frame(0).expect("a table")];
    for (n, mfn) in its.into_iter().enumerate() {
        assert_eq!(map(&mut world, 44 + n, mfn, id), 0);
    }
    drop(one);
    assert!(!is_news(port));
    assert_eq!(destroy(&mut world, id), 0);
    assert!(is_news(port), "it is dead");
    world.guests.pop();
    for n in 0..3 {
        settle(&mut world);
        let left = info(&mut world, id).expect("others have frames of it");
        assert_ne!(left.flags & XEN_DOMINF_DYING, 0);
        assert_eq!(left.tot_pages, u64::from(n == 0));
        assert_eq!(create(&mut world, id, &wanted()), Err(Errno::EEXIST));
        assert_eq!(destroy(&mut world, id), 0, "it is done");
        assert!(!is_news(port));
        assert_eq!(unmap(&mut world, 44 + n), 0);
    }
    settle(&mut world);
    assert!(is_news(port), "it is gone");
    assert!(info(&mut world, id).is_none());
    assert!(mm::buddy::free_frames() > free);
    assert_eq!(create(&mut world, id, &wanted()), Ok(id));
    assert_eq!(destroy(&mut world, id), 0);
    settle(&mut world);
    world.check();
    world.finish();
}

#[test]
fn nothing_is_taken_in_the_name_of_the_dead() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    let its = world.guests[2].p2m.clone();
    assert_eq!(map(&mut world, 44, its[44], id), 0);
    let one = domain::find(DomId(id)).expect("it was built");
    assert_eq!(destroy(&mut world, id), 0);
    assert_eq!(one.account.populate(0, 64), Err(Errno::EINVAL));
    assert_eq!(one.grants.grow(2), Err(Errno::EINVAL));
    assert_eq!(events::alloc_unbound(&one, DomId(0)), Err(Errno::EINVAL));
    let ctx = one.tables_ctx();
    let mut tables = one.page_tables.lock();
    assert_eq!(tables.pin(&ctx, its[44], 1), Err(Errno::EINVAL));
    assert!(tables.get_segdesc(&ctx, its[44]).is_err());
    drop(tables);
    let context = hypervisor::testing::vcpus::context(&world.guests[2], VcpuId(0));
    let set = hypervisor::testing::tools::set_context(&mut world, id, 1, Some(&context));
    assert_eq!(set, Err(Errno::EINVAL));
    assert_eq!(domctl(&mut world, DomctlCmd::UNPAUSEDOMAIN, id, &0u64), Err(Errno::EINVAL));
    assert!(!one.vcpus[0].runnable());
    world.guests.pop();
    assert_eq!(unmap(&mut world, 44), 0);
    drop(one);
    settle(&mut world);
    assert!(info(&mut world, id).is_none());
    world.finish();
}

#[test]
fn a_domain_dies_in_the_middle_of_a_reset_of_its_channels() {
    let mut world = world();
    let id = build(&mut world, &wanted()).expect("everything is in place");
    let one = domain::find(DomId(id)).expect("it was built");
    let ports = [0; 8].map(|_: u32| events::alloc_unbound(&one, DomId(0)).expect("there are ports"));
    arch::cpu::preempt_after(Some(4));
    assert_eq!(events::reset(&one, false), Err(Errno::ERESTART));
    arch::cpu::preempt_after(None);
    assert_eq!(events::alloc_unbound(&one, DomId(0)), Ok(ports[0]), "behind the reset");
    drop(one);
    destroy_last(&mut world);
    world.check();
    world.finish();
}

#[test]
fn a_domain_is_destroyed_while_it_runs_elsewhere() {
    let mut world = World::new(2);
    world.boot_kernels();
    for cpu in [0, 1] {
        world.go_to(cpu);
        let wants = DomId(cpu);
        for _ in 0..100 {
            if world.go_back().is_some_and(|vcpu| vcpu.domid == wants && vcpu.id == VcpuId(0)) {
                break;
            }
            arch::time::advance(20_000_000);
            arch::entry::take_interrupts();
            arch::cpu::raise_here(arch::cpu::Work::SCHEDULE);
        }
    }
    world.go_to(0);
    let one = world.guests[1].domain.clone();
    assert_eq!(destroy(&mut world, 1), 0);
    assert!(one.vcpus.iter().all(|vcpu| !vcpu.status.running.load(Relaxed)));
    world.guests.pop();
    world.go_to(1);
    assert!(world.go_back().is_none_or(|vcpu| vcpu.domid == DomId(0)));
    world.go_to(0);
    drop(one);
    settle(&mut world);
    world.check();
    world.finish();
}

#[test]
fn a_death_can_be_cut_short_anywhere() {
    for budget in 1..40 {
        let mut world = world();
        let id = build(&mut world, &wanted()).expect("everything is in place");
        as_domain(&mut world, id);
        run_a_little(&mut world, 8);
        as_domain(&mut world, 0);
        let one = domain::find(DomId(id)).expect("it was built");
        arch::cpu::preempt_after(Some(budget));
        let mut steps = 0;
        while !one.dead.load(Relaxed) {
            step(&mut world, id);
            world.check();
            steps += 1;
            assert!(steps < 5000, "it gets nowhere");
        }
        arch::cpu::preempt_after(None);
        world.guests.pop();
        drop(one);
        settle(&mut world);
        assert!(info(&mut world, id).is_none());
        world.check();
        world.finish();
    }
}

/// dom0 goes on with a domain's death, once.
fn step(world: &mut World, id: u16) {
    use zerocopy::IntoBytes;
    let vcpu = world.go_back().expect("dom0 runs");
    assert_eq!(vcpu.domid, DomId(0));
    let op = domctl_op(DomctlCmd::DESTROYDOMAIN, id);
    if hypervisor::testing::guest::write(va(args_of(vcpu.id)), op.as_bytes()) {
        world.syscall(vcpu, HypercallNr::DOMCTL.0, [va(args_of(vcpu.id)), 0, 0, 0, 0]);
    }
}

/// Plays two domains for a while, then destroys one of them in steps between which everybody plays on.
fn play(seed: u64) {
    let mut random = Random::new(seed);
    let mut world = World::new(1 + random.below(2) as u16);
    world.boot_kernels();
    let mut player = Player::new(Source::Random(Random::new(seed ^ 0x5555)));
    for _ in 0..random.below(120) {
        if !player.step(&mut world) {
            return world.finish();
        }
    }
    let one = world.guests[1].domain.clone();
    let mut patience = 4000;
    while !one.dead.load(Relaxed) && patience > 0 {
        patience -= 1;
        arch::cpu::preempt_after(Some(random.below(30)));
        destroy_by_hand(&mut world, &one);
        arch::cpu::preempt_after(None);
        world.check();
        if random.one_in(3) && !player.step(&mut world) {
            break;
        }
        world.check();
    }
    assert!(one.dead.load(Relaxed) || world.end.is_some(), "it gets nowhere");
    for _ in 0..random.below(40) {
        if world.end.is_some() || !player.step(&mut world) {
            break;
        }
        world.check();
    }
    drop(one);
    world.finish();
}

/// Does what dom0's call does, without the call: its kernel may be in no state to make one.
fn destroy_by_hand(world: &mut World, one: &Domain) {
    let _ = hypervisor::death::destroy(one);
    world.let_pass();
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_domain_that_plays_is_destroyed_at_any_moment() {
    let first = number("XENITH_SEED").unwrap_or(1);
    for seed in first..first + number("XENITH_ROUNDS").unwrap_or(60) {
        println!("XENITH_SEED={seed}");
        play(seed);
    }
}

#[test]
fn numbers_of_units_are_used_again() {
    let mut world = world();
    let unit = |id| domain::find(DomId(id)).map(|domain| domain.vcpus[0].unit);
    let first = build(&mut world, &wanted()).expect("everything is in place");
    let its = unit(first);
    destroy_last(&mut world);
    let second = build(&mut world, &wanted()).expect("everything is in place");
    assert_eq!(unit(second), its);
    as_domain(&mut world, second);
    as_domain(&mut world, 0);
    let weight = DomctlSchedulerOp {
        sched_id: SchedulerId::CREDIT2,
        cmd: DomctlSchedOp::GETINFO,
        ..DomctlSchedulerOp::default()
    };
    let weight = domctl(&mut world, DomctlCmd::SCHEDULER_OP, second, &weight).expect("it has one");
    assert_eq!(weight.weight, 256);
    destroy_last(&mut world);
    world.finish();
}
