// SPDX-License-Identifier: MIT OR Apache-2.0
//! The null policy: one unit a CPU, without a timer.

use crate::simulation::Random;
use sched::{Affinity, Cpu, CpuSet, GroupId, Kind, Params, Place, PoolId, Scheduler, UnitId};

const A: UnitId = UnitId(1);
const B: UnitId = UnitId(2);
const C: UnitId = UnitId(3);

fn machine(cpus: u16) -> Scheduler {
    let mut sched = Scheduler::new(Kind::Null, Params::default());
    (0..cpus).for_each(|cpu| sched.cpu_online(0, Cpu(cpu)));
    [A, B, C].into_iter().for_each(|id| sched.add(id, GroupId(1), PoolId::DEFAULT, Affinity::ANY));
    sched
}

/// What a CPU runs from now on, for ever.
fn runs(sched: &mut Scheduler, now: u64, cpu: u16) -> Option<UnitId> {
    let decision = sched.schedule(now, Cpu(cpu));
    assert_eq!((decision.until, decision.poke), (None, CpuSet::EMPTY));
    decision.next
}

#[test]
fn a_unit_keeps_its_cpu_while_it_sleeps() {
    let mut sched = machine(2);
    assert_eq!(sched.wake(0, A), Some(Cpu(0)));
    assert_eq!(sched.wake(0, B), Some(Cpu(1)));
    assert_eq!(sched.wake(0, C), None);
    assert_eq!(sched.whereabouts(C), Some(Place::Stranded));
    assert_eq!((runs(&mut sched, 0, 0), runs(&mut sched, 0, 1)), (Some(A), Some(B)));
    assert!(!sched.is_wanted(Cpu(0)));
    assert_eq!(sched.sleep(50, A), Some(Cpu(0)));
    assert_eq!(runs(&mut sched, 60, 0), None, "others wait, but not for this CPU");
    assert_eq!((sched.runtime(100, A), sched.runtime(100, B)), (50, 100));
    assert_eq!(sched.wake(100, A), Some(Cpu(0)));
    assert_eq!(runs(&mut sched, 100, 0), Some(A));
    assert_eq!(sched.weight_cap(GroupId(1)), None);
}

#[test]
fn a_cpu_that_is_given_up_goes_to_who_waits() {
    let mut sched = machine(1);
    sched.wake(0, A);
    assert_eq!((sched.wake(0, B), sched.wake(0, C)), (None, None));
    assert_eq!(runs(&mut sched, 0, 0), Some(A));
    assert_eq!(sched.release(1, A), None, "it is awake");
    assert_eq!(sched.sleep(1, A), Some(Cpu(0)));
    assert_eq!(sched.release(1, A), Some(Cpu(0)));
    assert_eq!(runs(&mut sched, 1, 0), Some(B));
    assert_eq!(sched.wake(2, A), None, "it is the last in the line now");
    assert_eq!(sched.remove(B), Some(Cpu(0)));
    assert_eq!(runs(&mut sched, 3, 0), Some(C));
    assert_eq!(sched.sleep(4, A), None, "who waits may sleep, too");
    assert_eq!(sched.remove(C), Some(Cpu(0)));
    assert_eq!(runs(&mut sched, 5, 0), None);
}

#[test]
fn affinity_and_cpus_that_come_and_go() {
    let mut sched = machine(2);
    let only = |cpu| Affinity::pinned(Cpu(cpu));
    let soft = Affinity { hard: CpuSet::ALL, soft: CpuSet::of(Cpu(1)) };
    assert!(sched.set_affinity(0, A, soft).is_empty());
    assert_eq!(sched.wake(0, A), Some(Cpu(1)));
    assert_eq!(runs(&mut sched, 0, 1), Some(A));
    // It must go, and who waits for its CPU gets that.
    sched.set_affinity(0, B, only(1));
    assert_eq!(sched.wake(0, B), None);
    assert_eq!(sched.set_affinity(1, A, only(0)), [0, 1].into_iter().map(Cpu).collect());
    assert_eq!((runs(&mut sched, 1, 0), runs(&mut sched, 1, 1)), (Some(A), Some(B)));
    // Its CPU goes, and it may use no other.
    assert!(sched.cpu_offline(2, Cpu(0)).is_empty());
    assert_eq!(runs(&mut sched, 2, 0), None);
    assert_eq!(sched.whereabouts(A), Some(Place::Stranded));
    sched.cpu_online(3, Cpu(0));
    assert_eq!(runs(&mut sched, 3, 0), Some(A));
    // Its CPU goes, and it may use another.
    sched.set_affinity(3, B, Affinity::ANY);
    sched.cpu_online(3, Cpu(2));
    assert_eq!(sched.cpu_offline(4, Cpu(1)), CpuSet::of(Cpu(2)));
    assert_eq!(runs(&mut sched, 4, 2), Some(B));
    assert_eq!(sched.runtime(4, A), 3);
}

/// What holds whatever happened, once every CPU has done what it was told.
fn check(sched: &Scheduler, units: u32) {
    let mut taken = CpuSet::EMPTY;
    let (mut waits_for, mut asleep) = (CpuSet::EMPTY, 0);
    for id in (0..units).map(UnitId) {
        let hard = sched.affinity(id).unwrap().hard;
        match sched.whereabouts(id).unwrap() {
            Place::Running(cpu) => {
                assert!(hard.contains(cpu) && sched.online().contains(cpu) && !taken.contains(cpu));
                assert_eq!(sched.current(cpu), Some(id));
                taken.insert(cpu);
            }
            Place::Stranded => waits_for.extend(hard.and(&sched.online()).iter()),
            Place::Blocked => asleep += 1,
            place => panic!("{id:?} is {place:?}"),
        }
    }
    // Each CPU that somebody waits for is another's, who may be asleep.
    let idle = waits_for.iter().filter(|cpu| !taken.contains(*cpu)).count();
    assert!(idle <= asleep, "some wait for {idle} idle CPUs, and only {asleep} are asleep");
}

#[test]
fn one_unit_a_cpu_whatever_happens() {
    let mut random = Random::for_test("one_unit_a_cpu_whatever_happens");
    for (cpus, units, steps) in [(1, 3, 2000), (8, 12, 4000), (128, 1000, 2000)] {
        let mut sched = Scheduler::new(Kind::Null, Params::default());
        (0..cpus).for_each(|cpu| sched.cpu_online(0, Cpu(cpu)));
        (0..units).for_each(|id| sched.add(UnitId(id), GroupId(id as u16 % 7), PoolId::DEFAULT, Affinity::ANY));
        for now in 1..=steps {
            let (id, cpu) = (UnitId(random.below(units.into()) as u32), Cpu(random.below(cpus.into()) as u16));
            let some = |random: &mut Random| (0..cpus).filter(|_| random.below(2) == 0).map(Cpu).collect();
            let mut poke: CpuSet = match random.below(10) {
                0..=4 => sched.wake(now, id).into_iter().collect(),
                5 => sched.sleep(now, id).into_iter().collect(),
                6 => sched.sleep(now, id).into_iter().chain(sched.release(now, id)).collect(),
                7 => sched.set_affinity(now, id, Affinity { hard: some(&mut random), soft: some(&mut random) }),
                8 => sched.cpu_offline(now, cpu),
                _ => {
                    sched.cpu_online(now, cpu);
                    CpuSet::of(cpu)
                }
            };
            poke.insert(cpu);
            for cpu in poke.iter() {
                runs(&mut sched, now, cpu.0);
            }
            check(&sched, units);
        }
    }
}
