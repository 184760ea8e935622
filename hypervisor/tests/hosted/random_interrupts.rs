// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines that two domains map, bind, close and end in any order, against a model of who owes what.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use arch::{CpuId, ioapic};
use hypercalls::{Errno, VcpuId};
use hypervisor::domain::Domain;
use hypervisor::{events, irq, pirq};

use super::interrupts::{ISA, Machine, PCI, pull};

/// What a test knows of one domain's use of one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    mapped: bool,
    port: u32,
    owes: bool,
}

#[test]
fn random_binds_closes_and_ends() {
    let mut random = mm::hosted::Random::from_env(3);
    let mut below = |n| random.below(n);
    let mut m = Machine::new(2);
    const LINES: [u32; 4] = [ISA, PCI, 20, 33];
    let mut model: BTreeMap<(usize, u32), Use> = BTreeMap::new();
    for gsi in LINES {
        assert!(m.domain(1).pirqs.permit(gsi, true));
    }
    for step in 0..6000 {
        let (n, gsi) = (below(2) as usize, LINES[below(4) as usize]);
        let key = (n, gsi);
        let before = model.get(&key).copied().unwrap_or_default();
        let others =
            model.iter().filter(|((_, g), u)| *g == gsi && u.port != 0).count() - usize::from(before.port != 0);
        let domain = m.domain(n);
        let now = model.entry(key).or_default();
        let legacy = n == 0 && gsi < 16;
        match below(9) {
            0 => {
                domain.pirqs.map(gsi, Some(gsi), true).expect("free or mapped as that");
                now.mapped = true;
            }
            1 | 2 => {
                let fails = vec_exhausted(below(8) == 0);
                match pirq::bind(domain, gsi, true) {
                    Ok(port) => (now.mapped, now.port) = (true, port),
                    Err(Errno::EPERM) => assert!(!before.mapped && !legacy || before == Use::default()),
                    Err(Errno::EEXIST) => assert_ne!(before.port, 0),
                    Err(Errno::ENOSPC) => assert!(fails.is_some() && others == 0),
                    Err(error) => panic!("step {step}: {error:?}"),
                }
                give_back(fails);
            }
            3 if before.port != 0 => {
                events::close(domain, before.port).expect("open");
                (now.port, now.owes) = (0, false);
            }
            4 => {
                let expected = before.mapped || pirq_is_mapped(domain, gsi);
                let port = now.port;
                assert_eq!(pirq::unmap(domain, gsi).is_ok(), expected, "step {step}");
                *now = Use::default();
                if port != 0 {
                    events::close(domain, port).expect("still open");
                }
            }
            5 => {
                let done = pirq::done(domain, gsi);
                assert_eq!(done.is_ok(), pirq_is_mapped(domain, gsi));
                now.owes = false;
            }
            6 if before.port != 0 => {
                let vcpu = VcpuId(below(2) as u32);
                events::bind_vcpu(domain, before.port, vcpu).expect("it can be moved");
                // The second one is down: it can be said to have run anywhere.
                domain.vcpu(VcpuId(1)).expect("two").status.cpu.store(below(2) as u16, Relaxed);
            }
            7 => {
                arch::time::advance(3_000_000);
                for cpu in 0..2 {
                    m.0.go_to(cpu);
                    irq::chores::run(CpuId(cpu), arch::time::now());
                }
                m.0.go_to(0);
            }
            _ => pull(gsi, below(2) == 0),
        }
        for cpu in 0..2 {
            m.take(cpu);
        }
        for gsi in LINES {
            let users: Vec<usize> = (0..2).filter(|n| model.get(&(*n, gsi)).is_some_and(|u| u.port != 0)).collect();
            for n in &users {
                let now = model.get_mut(&(*n, gsi)).expect("just seen");
                now.owes |= m.told(*n, now.port) && gsi >= 16;
            }
            let owed = users.iter().any(|n| model[&(*n, gsi)].owes);
            assert_eq!(ioapic::is_masked(gsi), users.is_empty() || owed, "step {step}: line {gsi}, {model:?}");
        }
        if step % 64 == 0 {
            m.0.check();
        }
    }
    m.0.check();
    m.0.finish();
}

fn pirq_is_mapped(domain: &Domain, pirq: u32) -> bool {
    domain.pirqs.irq(pirq).is_some()
}

/// Takes all vectors of both CPUs, if asked to: a bind then fails.
fn vec_exhausted(wanted: bool) -> Option<Vec<(u16, u8)>> {
    wanted.then(|| {
        let all = (0..2u16).flat_map(|cpu| {
            let vectors = irq::vectors::of(CpuId(cpu));
            std::iter::from_fn(move || vectors.allocate(9999)).map(move |v| (cpu, v))
        });
        all.collect()
    })
}

fn give_back(taken: Option<Vec<(u16, u8)>>) {
    for (cpu, vector) in taken.into_iter().flatten() {
        assert!(irq::vectors::of(CpuId(cpu)).retire(vector, 9999));
    }
    for cpu in 0..2 {
        // As its own chores do: only what is not under way.
        irq::vectors::of(CpuId(cpu)).reap(|_| false);
    }
}
