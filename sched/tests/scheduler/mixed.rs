// SPDX-License-Identifier: MIT OR Apache-2.0
//! Crowds and mixtures: a thousand units, hogs among sleepers, and how often units move.

use crate::simulation::{Machine, Random, Work, fair_shares};
use sched::{Affinity, Cpu, CpuSet};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// What each unit runs in the given time from now on, in seconds.
fn measure(machine: &mut Machine, units: u32, time: u64) -> Vec<f64> {
    let before: Vec<u64> = (0..units).map(|id| machine.runtime(id)).collect();
    machine.run_until(machine.now + time);
    before.iter().zip(0..).map(|(ran, id)| (machine.runtime(id) - ran) as f64 / SECOND as f64).collect()
}

/// A thousand units in few groups, on any number of CPUs: what each group gets follows the sum of its units' weights, nobody
/// waits for much longer than a round takes, and moves are rare.
#[test]
fn a_thousand_units_get_what_their_weights_say() {
    let mut random = Random::for_test("a_thousand_units_get_what_their_weights_say");
    for (cpus, seconds) in [(1, 200), (8, 30), (128, 1)] {
        let mut machine = Machine::new(cpus);
        let weights: Vec<u32> = (0..20).map(|_| random.pick(&[128, 256, 512])).collect();
        for id in 0..1000 {
            machine.add(id, (id % 20) as u16, Work::Hog, Affinity::ANY);
        }
        (0..).zip(&weights).for_each(|(group, weight)| machine.set_weight_cap(group, *weight, 0));
        // One round of all units, so that none is ahead by what it began with.
        let round = 1000 * 10 * MS / u64::from(cpus);
        machine.run_until(round);
        machine.measure();
        let moves = machine.moves;
        let ran = measure(&mut machine, 1000, seconds * SECOND);
        let all: f64 = ran.iter().sum();
        let seconds = seconds as f64;
        assert!((all - f64::from(cpus) * seconds).abs() < 1e-6, "a CPU idles while units wait");
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (group, weight) in weights.iter().enumerate() {
            let got: f64 = ran.iter().skip(group).step_by(20).sum();
            let off = got / (all * f64::from(*weight) / total) - 1.0;
            assert!(off.abs() <= 0.02, "{cpus} CPUs: group {group} of weight {weight}: {:+.2} %", off * 100.0);
        }
        let waited = (0..1000).map(|id| machine.longest_wait(id)).max().unwrap_or(0);
        assert!(waited < 2 * round, "{cpus} CPUs: somebody waited {} ms of {}", waited / MS, round / MS);
        let moves = (machine.moves - moves) as f64 / seconds / f64::from(cpus);
        println!("{cpus} CPUs: {moves:.0} moves a second and CPU, longest wait {} ms", waited / MS);
        assert!(moves <= 50.0, "a storm: {moves:.0} moves a second and CPU");
    }
}

/// Two CPUs for a busy dom0 of two vCPUs and busy guests, with vCPUs that mostly sleep among them.
#[test]
fn domains_with_more_vcpus_than_their_share_needs() {
    let mut random = Random::for_test("domains_with_more_vcpus_than_their_share_needs");
    for round in 0..40 {
        let mut machine = Machine::new(2);
        // vCPUs of each domain, all busy; the weights are the domains', and each vCPU has its domain's.
        let domains: Vec<(u32, u32)> =
            (0..3).map(|_| (1 + random.below(2) as u32, random.pick(&[128, 256, 512, 1024]))).collect();
        let mut weights = Vec::new();
        for (group, (vcpus, weight)) in (0..).zip(&domains) {
            for _ in 0..*vcpus {
                // Some of the busy ones wait for a moment now and then.
                let work = match random.below(2) {
                    0 => Work::Hog,
                    _ => Work::Burst { run: 10 * MS + random.below(10 * MS), sleep: MS / 50 + random.below(MS / 20) },
                };
                machine.add(weights.len() as u32, group, work, Affinity::ANY);
                weights.push(*weight);
            }
            machine.set_weight_cap(group, *weight, 0);
        }
        let hogs = weights.len() as u32;
        // Those take a few percent of the CPUs between them.
        for id in 0..random.below(4) as u32 {
            let work = Work::Burst { run: 1 + random.below(MS / 20), sleep: MS + random.below(8 * MS) };
            machine.add(hogs + id, 10 + id as u16, work, Affinity::ANY);
        }
        let due = fair_shares(&weights, 2);
        if due.iter().any(|due| *due > 0.9) {
            // One that is due a whole CPU loses what sleepers take of it: they run at once, wherever they were.
            continue;
        }
        machine.run_until(SECOND);
        let ran = measure(&mut machine, hogs, 2 * SECOND);
        let all: f64 = ran.iter().sum();
        for (id, due) in due.iter().enumerate() {
            let due = due * all / 2.0;
            let off = ran[id] / due - 1.0;
            assert!(off.abs() <= 0.02, "round {round}: {domains:?} unit {id}: {:.3} of {due:.3}", ran[id]);
        }
    }
}

/// Units that sleep and wake all the time, with few of them awake at once: they need not move.
#[test]
fn sleepers_stay_where_they_were() {
    let mut random = Random::for_test("sleepers_stay_where_they_were");
    for cpus in [2, 8, 64] {
        let mut machine = Machine::new(cpus);
        let units = u32::from(cpus) * 2;
        for id in 0..units {
            let run = MS / 10 + random.below(MS / 10);
            machine.add(id, id as u16, Work::Burst { run, sleep: 10 * run + random.below(MS) }, Affinity::ANY);
        }
        machine.run_until(SECOND);
        let (moves, wakes) = (machine.moves, machine.wakes);
        machine.run_until(2 * SECOND);
        let (moves, wakes) = (machine.moves - moves, machine.wakes - wakes);
        println!("{cpus} CPUs: {moves} moves in {wakes} wake-ups");
        assert!(moves * 6 <= wakes, "{cpus} CPUs: {moves} moves in {wakes} wake-ups");
    }
}

/// Caps of groups with many units on many CPUs, some of which sleep.
#[test]
fn caps_hold_in_a_crowd() {
    let mut random = Random::for_test("caps_hold_in_a_crowd");
    for (cpus, units) in [(1, 60), (8, 100), (128, 300)] {
        let mut machine = Machine::new(cpus);
        let caps: Vec<u32> = (0..5).map(|_| (3 + random.below(15) as u32) * u32::from(cpus)).collect();
        for id in 0..units {
            let work = match random.below(4) {
                0 => Work::Burst { run: MS + random.below(MS), sleep: 1 + random.below(MS) },
                _ => Work::Hog,
            };
            machine.add(id, (id % 6) as u16, work, Affinity::ANY);
        }
        // Group 5 takes what is left, so each capped one could have more.
        (0..).zip(&caps).for_each(|(group, cap)| machine.set_weight_cap(group, 2048, *cap));
        machine.set_weight_cap(5, 16, 0);
        machine.run_until(SECOND);
        let ran = measure(&mut machine, units, SECOND);
        for (group, cap) in caps.iter().enumerate() {
            let got: f64 = ran.iter().skip(group).step_by(6).sum();
            let due = f64::from(*cap) / 100.0;
            println!("{cpus} CPUs: group {group}: {got:.3} of {due:.3}");
            assert!((got / due - 1.0).abs() <= 0.02, "{cpus} CPUs: group {group}: {got:.3} of {due:.3}");
        }
    }
}

/// Affinities that leave each group CPUs of its own and some in common: [`Machine`] checks at each step that none is broken.
#[test]
fn everybody_runs_with_overlapping_affinities() {
    let mut random = Random::for_test("everybody_runs_with_overlapping_affinities");
    for cpus in [8u16, 64] {
        let mut machine = Machine::new(cpus);
        for id in 0..u32::from(cpus) * 6 {
            let some: CpuSet = (0..4).map(|_| Cpu(random.below(cpus.into()) as u16)).collect();
            machine.add(id, id as u16, Work::Hog, Affinity { hard: some, soft: CpuSet::ALL });
        }
        machine.run_until(SECOND);
        machine.measure();
        let ran = measure(&mut machine, u32::from(cpus) * 6, SECOND);
        assert!(ran.iter().all(|ran| *ran > 0.02), "{:?}", ran.iter().copied().fold(1.0, f64::min));
    }
}
