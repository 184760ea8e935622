// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single decisions, step by step.

use sched::{Affinity, Cpu, CpuSet, GroupId, Kind, Params, Place, PoolId, Scheduler, UnitId};

const MS: u64 = 1_000_000;
const A: UnitId = UnitId(1);
const B: UnitId = UnitId(2);

fn one_cpu() -> Scheduler {
    let mut sched = Scheduler::new(Kind::Fair, Params::default());
    sched.cpu_online(0, Cpu(0));
    sched.schedule(0, Cpu(0));
    sched.add(A, GroupId(1), PoolId::DEFAULT, Affinity::ANY);
    sched.add(B, GroupId(2), PoolId::DEFAULT, Affinity::ANY);
    sched
}

#[test]
fn a_unit_alone_runs_without_a_timer() {
    let mut sched = one_cpu();
    assert_eq!(sched.wake(0, A), Some(Cpu(0)));
    let decision = sched.schedule(0, Cpu(0));
    assert_eq!((decision.next, decision.until), (Some(A), None));
    assert_eq!(sched.runtime(7 * MS, A), 7 * MS);
    assert_eq!(sched.sleep(7 * MS, A), Some(Cpu(0)));
    assert_eq!(sched.schedule(7 * MS, Cpu(0)).next, None);
    assert_eq!(sched.runtime(9 * MS, A), 7 * MS);
}

#[test]
fn a_second_unit_gives_the_first_a_timer() {
    let mut sched = one_cpu();
    sched.wake(0, A);
    sched.schedule(0, Cpu(0));
    assert_eq!(sched.wake(MS / 2, B), Some(Cpu(0)), "the CPU has no timer yet");
    let decision = sched.schedule(MS / 2, Cpu(0));
    assert_eq!(decision.next, Some(A), "it has not run for as long as it may");
    let until = decision.until.expect("somebody waits");
    assert!((MS..=10 * MS).contains(&until));
    assert_eq!(sched.schedule(until, Cpu(0)).next, Some(B));
    assert_eq!(sched.wake(until, A), None, "it is awake already");
}

#[test]
fn a_decision_is_put_off_while_the_running_unit_goes_on_anyway() {
    let mut sched = one_cpu();
    sched.wake(0, A);
    sched.schedule(0, Cpu(0));
    let mut poke = CpuSet::EMPTY;
    assert_eq!(sched.wake(MS / 2, B), Some(Cpu(0)));
    let due = sched.postpone(MS / 2, B, Cpu(0), &mut poke).expect("A has not run for as long as it may");
    assert!(due > MS / 2 && poke.is_empty());
    assert_eq!(sched.schedule(due, Cpu(0)).next, Some(B));
    sched.sleep(50 * MS, A);
    sched.schedule(50 * MS, Cpu(0));
    assert_eq!(sched.wake(100 * MS, A), Some(Cpu(0)));
    assert_eq!(sched.postpone(100 * MS, A, Cpu(0), &mut poke), None, "it is entitled to run now");
}

#[test]
fn a_sleeper_preempts_after_the_ratelimit() {
    let mut sched = one_cpu();
    sched.wake(0, B);
    sched.schedule(0, Cpu(0));
    sched.sleep(MS, B);
    sched.schedule(MS, Cpu(0));
    sched.wake(MS, A);
    sched.schedule(MS, Cpu(0));
    let now = 100 * MS;
    assert_eq!(sched.wake(now, B), Some(Cpu(0)));
    assert_eq!(sched.schedule(now, Cpu(0)).next, Some(B));
    assert_eq!(sched.schedule(now + MS / 2, Cpu(0)).next, Some(B));
}

#[test]
fn who_yields_gives_way_once() {
    let mut sched = one_cpu();
    sched.wake(0, A);
    sched.wake(0, B);
    let first = sched.schedule(0, Cpu(0)).next.expect("two want to run");
    let other = if first == A { B } else { A };
    sched.yield_now(1000, first);
    let decision = sched.schedule(1000, Cpu(0));
    assert_eq!(decision.next, Some(other));
    assert_eq!(sched.schedule(2000, Cpu(0)).next, Some(other));
    // Alone, it goes on.
    sched.sleep(3000, first);
    sched.yield_now(3000, other);
    assert_eq!(sched.schedule(3000, Cpu(0)).next, Some(other));
}

#[test]
fn a_unit_without_a_cpu_waits_for_one() {
    let mut sched = one_cpu();
    let only = |cpu| Affinity { hard: CpuSet::of(Cpu(cpu)), soft: CpuSet::ALL };
    sched.set_affinity(0, A, only(1));
    assert_eq!(sched.wake(0, A), None);
    assert_eq!(sched.whereabouts(A), Some(Place::Stranded));
    assert_eq!(sched.schedule(0, Cpu(0)).next, None);
    sched.cpu_online(5, Cpu(1));
    assert_eq!(sched.schedule(5, Cpu(1)).next, Some(A));
    assert!(sched.cpu_offline(9, Cpu(1)).is_empty());
    assert_eq!(sched.runtime(20, A), 4);
    assert_eq!(sched.set_affinity(20, A, only(0)), CpuSet::of(Cpu(0)));
    assert_eq!(sched.schedule(20, Cpu(0)).next, Some(A));
}

#[test]
fn a_running_unit_that_may_not_stay_moves_at_once() {
    let mut sched = one_cpu();
    sched.cpu_online(0, Cpu(1));
    sched.schedule(0, Cpu(1));
    sched.wake(0, A);
    sched.schedule(0, Cpu(0));
    let elsewhere = Affinity::pinned(Cpu(1));
    assert_eq!(sched.set_affinity(MS, A, elsewhere), CpuSet::of(Cpu(0)));
    let decision = sched.schedule(MS, Cpu(0));
    assert_eq!((decision.next, decision.poke), (None, CpuSet::of(Cpu(1))));
    assert_eq!(sched.schedule(MS, Cpu(1)).next, Some(A));
}

#[test]
fn weight_and_cap_belong_to_the_group() {
    let mut sched = one_cpu();
    assert_eq!(sched.weight_cap(GroupId(1)), Some((256, 0)));
    sched.set_weight_cap(0, GroupId(1), 512, 30);
    assert_eq!(sched.weight_cap(GroupId(1)), Some((512, 30)));
    assert!(sched.set_weight_cap(0, GroupId(9), 1, 1).is_empty());
    sched.remove(A);
    assert_eq!(sched.weight_cap(GroupId(1)), None);
    assert_eq!(sched.wake(0, A), None);
}
