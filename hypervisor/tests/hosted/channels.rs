// SPDX-License-Identifier: MIT OR Apache-2.0
//! Event channels against a model: two domains of two vCPUs do everything that can be done with ports, in both forms, and
//! after each step every port, event word and queue is what the model says. `XENITH_SEED=n` replays a run.

mod guest;
mod model;

use std::sync::Arc;

use arch::hosted::Machine;
use hypercalls::event::{EvtchnStat, FIFO_NR_CHANNELS};
use hypercalls::{DomId, Errno, VcpuId, Virq};
use hypervisor::create::{self, Config, Tools};
use hypervisor::domain::Domain;
use hypervisor::events::{self, State};
use hypervisor::grants::Limits;
use hypervisor::io_rights::IoRights;
use hypervisor::testing::world;
use mm::hosted::Random;

use guest::{Guest, MASKED};
use model::Model;

/// Starts a machine with domains of so many vCPUs, none of which runs, and the highest ports they may have.
fn domains(max_ports: &[u32], vcpus: u32) -> (Machine, Vec<Arc<Domain>>) {
    let machine = world::new_machine(1024, 1);
    let new = |(n, max_port): (u16, &u32)| {
        let (id, max_port) = (DomId(n), *max_port);
        let (io, grants) = (IoRights::none(), Limits::DEFAULT);
        let (privileged, max_pages, tools) = (n == 0, 256, Tools::default());
        create::domain(Config { id, privileged, vcpus, max_pages, max_port, io, grants, tools })
            .expect("the machine has memory")
    };
    let all = (0..).zip(max_ports).map(new).collect();
    (machine, all)
}

fn ipi(domain: &Domain) -> Result<u32, Errno> {
    events::bind_ipi(domain, VcpuId(0))
}

#[test]
fn everything_in_any_order_is_what_the_model_says() {
    for round in 0..12 {
        let mut random = Random::from_env(40 + round);
        let (_machine, domains) = domains(&[u32::MAX, 1023], 2);
        let mut model = Model::new([Guest::new(&domains[0]), Guest::new(&domains[1])]);
        for _ in 0..1500 {
            model.step(&mut random);
            model.check();
        }
        model.finish();
    }
}

#[test]
fn two_level_ports_end_at_4095() {
    let (_machine, domains) = domains(&[u32::MAX, 100], 1);
    for n in 1..4096 {
        assert_eq!(ipi(&domains[0]), Ok(n));
    }
    assert_eq!(ipi(&domains[0]), Err(Errno::ENOSPC));
    for n in [1, 1023, 1024, 4095] {
        events::close(&domains[0], n).expect("it is open");
        assert_eq!(ipi(&domains[0]), Ok(n), "the lowest that is free");
        events::send(&domains[0], n).expect("it is open");
        assert!(events::is_pending(&domains[0], n));
    }
    for n in [0, 4096, u32::MAX] {
        assert_eq!(events::send(&domains[0], n), Err(Errno::EINVAL));
        assert_eq!(events::close(&domains[0], n), Err(Errno::EINVAL));
    }
    // The limit that a domain was created with.
    for n in 1..=100 {
        assert_eq!(ipi(&domains[1]), Ok(n));
    }
    assert_eq!(ipi(&domains[1]), Err(Errno::ENOSPC));
}

#[test]
fn fifo_ports_end_at_131071_and_each_has_its_word() {
    let (_machine, domains) = domains(&[u32::MAX], 2);
    let mut guest = Guest::new(&domains[0]);
    assert_eq!(events::expand_array(&domains[0], guest.frame(0)), Err(Errno::EOPNOTSUPP));
    guest.init_control(VcpuId(0)).expect("a good block");
    assert_eq!(guest.init_control(VcpuId(0)), Err(Errno::EINVAL), "it has one");
    for n in 1..FIFO_NR_CHANNELS {
        assert_eq!(ipi(&domains[0]), Ok(n));
    }
    assert_eq!(ipi(&domains[0]), Err(Errno::ENOSPC));
    let edges = [1, 1023, 1024, 4095, 4096, 131_071];
    // Before they have words: remembered.
    edges.iter().for_each(|n| events::send(&domains[0], *n).expect("it is open"));
    for pages in 0..128 {
        for n in edges {
            let covered = n < pages * 1024;
            assert!(events::is_pending(&domains[0], n));
            assert_eq!(events::is_masked(&domains[0], n), !covered);
        }
        guest.expand().expect("there is room");
    }
    assert_eq!(guest.expand(), Err(Errno::ENOSPC));
    let mut taken = guest.take(VcpuId(0), usize::MAX);
    taken.sort_unstable();
    assert_eq!(taken, edges);
    for n in edges {
        events::close(&domains[0], n).expect("it is open");
        assert_eq!(ipi(&domains[0]), Ok(n), "the lowest that is free");
    }
    for n in [0, FIFO_NR_CHANNELS, u32::MAX] {
        assert_eq!(events::send(&domains[0], n), Err(Errno::EINVAL));
        assert!(events::set_priority(&domains[0], n, 3).is_err());
    }
}

#[test]
fn a_closed_port_that_is_still_queued_is_not_given_out() {
    let (_machine, domains) = domains(&[u32::MAX], 1);
    let mut guest = Guest::new(&domains[0]);
    guest.init_control(VcpuId(0)).expect("a good block");
    guest.expand().expect("there is room");
    let ports: Vec<u32> = (0..20).map(|_| ipi(&domains[0]).expect("there is room")).collect();
    ports.iter().for_each(|n| events::send(&domains[0], *n).expect("it is open"));
    ports.iter().for_each(|n| events::close(&domains[0], *n).expect("it is open"));
    for _ in 0..50 {
        let new = ipi(&domains[0]).expect("there is room");
        assert!(!ports.contains(&new), "{new} is still in a queue");
    }
    assert_eq!(guest.take(VcpuId(0), usize::MAX), [0; 0], "closed ones are not pending any more");
    let again: Vec<u32> = (0..20).map(|_| ipi(&domains[0]).expect("there is room")).collect();
    assert!(again.iter().any(|n| ports.contains(n)), "{again:?}");
}

#[test]
fn a_domain_that_fills_its_words_harms_only_itself() {
    let mut random = Random::from_env(9);
    let (_machine, domains) = domains(&[u32::MAX, 1023], 2);
    let mut bad = Guest::new(&domains[1]);
    let mut good = Guest::new(&domains[0]);
    for guest in [&mut bad, &mut good] {
        guest.init_control(VcpuId(0)).expect("a good block");
        guest.init_control(VcpuId(1)).expect("a good block");
        guest.expand().expect("there is room");
    }
    let theirs = events::alloc_unbound(&domains[0], DomId(1)).expect("there is room");
    let ours = events::bind_interdomain(&domains[1], DomId(0), theirs).expect("it waits");
    for _ in 0..40 {
        let _ = ipi(&domains[1]);
    }
    for _ in 0..20_000 {
        let port = random.below(50) as u32;
        match random.below(8) {
            0..=2 => bad.set_word(port, random.below(1 << 32) as u32),
            3 => {
                bad.set_control(VcpuId(random.below(2) as u32), random.below(17) as usize, random.below(1 << 32) as u32)
            }
            4 => drop(events::set_priority(&domains[1], port, random.below(16) as u32)),
            5 => drop(events::unmask(&domains[1], port)),
            6 => {
                if events::close(&domains[1], port.max(2)).is_ok() {
                    let _ = ipi(&domains[1]);
                }
            }
            _ => drop(events::send(&domains[1], port)),
        }
    }
    good.take(VcpuId(0), usize::MAX);
    if events::send(&domains[1], ours).is_ok() {
        assert_eq!(good.take(VcpuId(0), usize::MAX), [theirs]);
    }
}

#[test]
fn a_reset_gives_back_ports_and_pages_however_often_it_is_cut_short() {
    let (_machine, domains) = domains(&[u32::MAX, 1023], 2);
    let mut guest = Guest::new(&domains[0]);
    let held = |guest: &Guest| guest.frames().filter(|mfn| mm::page_info(*mfn).expect("RAM").type_count != 0).count();
    for round in 0..3 {
        for vcpu in 0..2 {
            guest.init_control(VcpuId(vcpu)).expect("a good block");
        }
        (0..5).for_each(|_| guest.expand().expect("there is room"));
        assert_ne!(held(&guest), 0);
        for _ in 0..4500 {
            ipi(&domains[0]).expect("there is room");
        }
        let theirs = events::alloc_unbound(&domains[1], DomId(0)).expect("there is room");
        let ours = events::bind_interdomain(&domains[0], DomId(1), theirs).expect("it waits");
        events::bind_virq(&domains[0], Virq::TIMER, VcpuId(1)).expect("it is free");
        events::send(&domains[0], ours).expect("it is open");
        assert_eq!(events::reset(&domains[0], true), Err(Errno::EBUSY), "there is none to go on with");
        let (mut turns, mut result) = (0, None);
        while result != Some(Ok(())) {
            arch::cpu::preempt_after(Some(300));
            result = Some(events::reset(&domains[0], turns != 0));
            arch::cpu::preempt_after(None);
            assert!(matches!(result, Some(Ok(()) | Err(Errno::ERESTART))), "{result:?}");
            if result == Some(Err(Errno::ERESTART)) {
                assert_eq!(events::reset(&domains[0], false), Err(Errno::EBUSY), "one is under way");
            }
            hypervisor::grace::pass();
            turns += 1;
        }
        assert!(turns > 10, "round {round}: {turns}");
        assert_eq!(held(&guest), 0, "the pages are let go");
        guest.forget();
        assert_eq!(domains[0].events.iter().count(), 0);
        let (status, _, remote, _) = events::status(&domains[1], theirs).expect("it exists");
        assert_eq!((status, remote), (EvtchnStat::UNBOUND, 0));
        assert_eq!(ipi(&domains[0]), Ok(1), "two-level again, from the lowest on");
        assert_eq!(events::expand_array(&domains[0], guest.frame(0)), Err(Errno::EOPNOTSUPP));
        events::close(&domains[0], 1).expect("it is open");
        events::close(&domains[1], theirs).expect("it is open");
    }
}

#[test]
fn a_dying_domain_closes_everything_and_opens_nothing() {
    let (_machine, domains) = domains(&[u32::MAX, 1023], 1);
    let waits = events::alloc_unbound(&domains[1], DomId(0)).expect("there is room");
    let ours = events::bind_interdomain(&domains[0], DomId(1), waits).expect("it waits");
    while events::close_all(&domains[1]) == Err(Errno::ERESTART) {
        hypervisor::grace::pass();
    }
    assert_eq!(ipi(&domains[1]), Err(Errno::EINVAL));
    assert_eq!(domains[0].events.get(ours).map(|c| c.state), Some(State::Unbound { remote: DomId(1) }));
    assert_eq!(events::send(&domains[0], ours), Ok(()), "dropped");
}

#[test]
fn the_listing_says_what_is_there() {
    let (_machine, domains) = domains(&[u32::MAX, 1023], 2);
    let mut guest = Guest::new(&domains[0]);
    let text = |domain: &Domain| {
        let lines = domain.events.iter().map(|(port, channel)| events::Listed { domain, port, channel }.to_string());
        lines.collect::<Vec<String>>()
    };
    events::bind_virq(&domains[0], Virq::TIMER, VcpuId(1)).expect("it is free");
    assert_eq!(events::form_name(&domains[0]), "two-level");
    assert_eq!(text(&domains[0]), ["     1 --     -    1    7 TIMER"]);
    guest.init_control(VcpuId(0)).expect("a good block");
    guest.expand().expect("there is room");
    events::alloc_unbound(&domains[0], DomId(1)).expect("there is room");
    for _ in 0..2 {
        let port = ipi(&domains[0]).expect("there is room");
        events::send(&domains[0], port).expect("it is open");
    }
    guest.set_word(2, MASKED);
    assert_eq!(events::form_name(&domains[0]), "FIFO");
    let expected = [
        "     1 --     -    1    7 TIMER",
        "     2 -m     -    0    7 nobody yet; d1 may bind",
        "     3 p-     4    0    7 another vCPU",
        "     4 p-     0    0    7 another vCPU",
    ];
    assert_eq!(text(&domains[0]), expected);
}
