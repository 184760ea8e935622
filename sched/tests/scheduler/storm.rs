// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workloads under changes that a source of numbers picks: no rule is ever broken, and the same numbers give the same run.

#[cfg(test)]
use super::simulation::Random;
use super::simulation::{Machine, Work};
use sched::{Affinity, Cpu, CpuSet, Place, UnitId};

const MS: u64 = 1_000_000;
const CPUS: u16 = 6;
const UNITS: u32 = 20;

/// Returns a number below its argument.
pub(crate) type Below<'a> = dyn FnMut(u64) -> u64 + 'a;

fn pick<T: Copy>(below: &mut Below<'_>, from: &[T]) -> T {
    from[below(from.len() as u64) as usize]
}

fn affinity(below: &mut Below<'_>) -> Affinity {
    let mut set = || -> CpuSet { (0..CPUS).filter(|_| below(2) == 0).map(Cpu).collect() };
    let (hard, soft) = (set(), set());
    Affinity { hard: if hard.is_empty() { CpuSet::ALL } else { hard }, soft }
}

fn work(below: &mut Below<'_>) -> Work {
    match below(2) {
        0 => Work::Hog,
        _ => Work::Burst { run: 1 + below(5 * MS), sleep: 1 + below(5 * MS) },
    }
}

/// Makes one change, of any kind.
fn disturb(machine: &mut Machine, below: &mut Below<'_>) {
    let cpu = Cpu(below(CPUS.into()) as u16);
    let unit = below(UNITS.into()) as u32;
    match below(8) {
        0 => machine.online(cpu),
        1 if cpu != Cpu(0) => machine.offline(cpu),
        2 | 3 => machine.set_affinity(unit, affinity(below)),
        4 => {
            let cap = pick(below, &[0, 0, 5, 40, 150]);
            machine.set_weight_cap((unit % 5) as u16, pick(below, &[1, 64, 256, 65535]), cap);
        }
        _ => {
            let now = machine.now;
            machine.sched.yield_now(now, UnitId(unit));
        }
    }
}

/// Every unit that could run and does not has a reason.
fn check_places(machine: &Machine) {
    let online = machine.sched.online();
    for id in (0..UNITS).map(UnitId) {
        let hard = machine.sched.affinity(id).unwrap().hard;
        match machine.sched.whereabouts(id).unwrap() {
            Place::Blocked => {}
            Place::Queued(cpu) | Place::Parked(cpu, _) => {
                assert!(online.contains(cpu) && hard.contains(cpu), "{id:?} at {cpu:?}");
                assert!(
                    machine.sched.current(cpu).is_some()
                        || matches!(machine.sched.whereabouts(id), Some(Place::Parked(..))),
                    "{id:?} waits for an idle {cpu:?}"
                );
            }
            Place::Running(cpu) => assert!(online.contains(cpu) && hard.contains(cpu)),
            Place::Stranded => assert!(online.and(&hard).is_empty()),
        }
    }
}

/// Lets so many changes happen, a few milliseconds apart, with units of all kinds. Returns what came of it, folded into
/// one number, and how many decisions there were.
pub(crate) fn storm(below: &mut Below<'_>, changes: u32) -> (u64, u64) {
    let mut machine = Machine::new(CPUS);
    for id in 0..UNITS {
        let affinity = affinity(below);
        machine.add(id, (id % 5) as u16, work(below), affinity);
    }
    for _ in 0..changes {
        disturb(&mut machine, below);
        let end = machine.now + below(4 * MS);
        machine.run_until(end);
        check_places(&machine);
    }
    (machine.trace, machine.decisions)
}

#[test]
fn rules_hold_under_random_changes() {
    let mut random = Random::for_test("rules_hold_under_random_changes");
    for _ in 0..20 {
        storm(&mut |limit| random.below(limit), 400);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let random = Random::for_test("the_same_seed_gives_the_same_run");
    let run = || {
        let mut random = random.clone();
        storm(&mut |limit| random.below(limit), 400)
    };
    assert_eq!(run(), run());
}

#[test]
fn units_come_and_go() {
    let mut random = Random::for_test("units_come_and_go");
    let mut machine = Machine::new(3);
    for id in 0..50 {
        machine.add(id, (id % 4) as u16, Work::Hog, Affinity::ANY);
        machine.run_until(machine.now + random.below(3 * MS));
    }
    for id in 0..50 {
        let now = machine.now;
        if machine.sched.sleep(now, UnitId(id)).is_some() || random.below(2) == 0 {
            machine.sched.wake(now, UnitId(id));
        }
        machine.sched.remove(UnitId(id));
        assert_eq!(machine.sched.whereabouts(UnitId(id)), None);
    }
    for cpu in (0..3).map(Cpu) {
        let decision = machine.sched.schedule(machine.now, cpu);
        assert_eq!((decision.next, decision.until), (None, None));
    }
}
