// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shares follow the weights, caps hold, nobody starves.

use crate::simulation::{Machine, Random, Work, fair_shares};
use sched::{Affinity, Cpu, CpuSet};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// Runs hogs of the given weights and returns what each ran in a second, after a second's warm-up.
fn run_hogs(cpus: u16, weights: &[u32]) -> Vec<u64> {
    let mut machine = Machine::new(cpus);
    for (i, weight) in weights.iter().enumerate() {
        machine.add(i as u32, i as u16, Work::Hog, Affinity::ANY);
        machine.set_weight_cap(i as u16, *weight, 0);
    }
    machine.run_until(SECOND);
    let before: Vec<u64> = (0..weights.len()).map(|i| machine.runtime(i as u32)).collect();
    machine.run_until(2 * SECOND);
    println!("{cpus} CPUs, {} units: {} decisions", weights.len(), machine.decisions);
    before.iter().enumerate().map(|(i, ran)| machine.runtime(i as u32) - ran).collect()
}

/// Checks each unit's share of a second: 2% of its due, or two turns on a CPU.
fn check_shares(cpus: u16, weights: &[u32]) {
    let ran = run_hogs(cpus, weights);
    let total: u64 = ran.iter().sum();
    let busy = u64::from(cpus).min(weights.len() as u64) * SECOND;
    assert_eq!(total, busy, "no CPU idles while units wait");
    let mut worst: f64 = 0.0;
    for (i, share) in fair_shares(weights, u64::from(cpus)).into_iter().enumerate() {
        let due = share * SECOND as f64;
        let off = (ran[i] as f64 - due).abs();
        worst = worst.max(off / due);
        let allowed = (due * 0.02).max(4.0 * MS as f64);
        assert!(off <= allowed, "unit {i} of weight {}: {} of {due}", weights[i], ran[i]);
    }
    println!("  worst: {:.2}%", worst * 100.0);
}

#[test]
fn equal_weights_get_equal_shares() {
    for (cpus, units) in [(1, 2), (1, 7), (2, 3), (8, 9), (8, 12), (8, 30), (128, 129), (128, 200)] {
        check_shares(cpus, &vec![256; units]);
    }
}

#[test]
fn shares_follow_the_weights() {
    let mut random = Random::for_test("shares_follow_the_weights");
    for (cpus, units) in [(1, 4), (8, 24), (128, 300)] {
        for _ in 0..if cpus == 128 { 1 } else { 5 } {
            let weights: Vec<u32> = (0..units).map(|_| random.pick(&[128, 256, 384, 512, 1024])).collect();
            check_shares(cpus, &weights);
        }
    }
}

#[test]
fn a_unit_with_more_weight_than_one_cpu_has_keeps_one_cpu() {
    check_shares(2, &[4096, 256, 256]);
    check_shares(8, &[65535, 65535, 256, 256, 256, 256, 256, 256, 256, 256]);
}

#[test]
fn caps_hold() {
    for (cpus, units, cap) in [(1, 1, 10), (1, 1, 50), (4, 2, 130), (8, 8, 400), (8, 4, 25), (4, 1, 3)] {
        let mut machine = Machine::new(cpus);
        (0..units).for_each(|id| machine.add(id, 1, Work::Hog, Affinity::ANY));
        // The others want everything.
        (0..u32::from(cpus)).for_each(|id| machine.add(100 + id, 2, Work::Hog, Affinity::ANY));
        machine.set_weight_cap(1, 2048, cap);
        machine.run_until(SECOND);
        let before: u64 = (0..units).map(|id| machine.runtime(id)).sum();
        machine.run_until(2 * SECOND);
        let ran: u64 = (0..units).map(|id| machine.runtime(id)).sum::<u64>() - before;
        let due = f64::from(cap) / 100.0 * SECOND as f64;
        let off = (ran as f64 - due) / due * 100.0;
        println!("{cpus} CPUs, {units} units, cap {cap}%: {off:+.2}%");
        assert!(off.abs() <= 2.0);
    }
}

#[test]
fn a_lifted_cap_is_gone() {
    let mut machine = Machine::new(1);
    machine.add(1, 1, Work::Hog, Affinity::ANY);
    machine.set_weight_cap(1, 256, 1);
    machine.run_until(SECOND);
    machine.set_weight_cap(1, 256, 0);
    let before = machine.runtime(1);
    machine.run_until(2 * SECOND);
    assert_eq!(machine.runtime(1) - before, SECOND);
}

#[test]
fn nobody_starves() {
    let mut random = Random::for_test("nobody_starves");
    for cpus in [1, 3, 8] {
        let mut machine = Machine::new(cpus);
        for id in 0..u32::from(cpus) * 4 {
            let work = match random.below(3) {
                0 => Work::Burst { run: 1 + random.below(3 * MS), sleep: 1 + random.below(5 * MS) },
                1 => Work::Burst { run: 1 + random.below(MS / 10), sleep: 1 + random.below(MS) },
                _ => Work::Hog,
            };
            machine.add(id, id as u16, work, Affinity::ANY);
            machine.set_weight_cap(id as u16, random.pick(&[64, 256, 1024]), 0);
        }
        machine.run_until(5 * SECOND);
        for id in 0..u32::from(cpus) * 4 {
            let wait = machine.longest_wait(id) / MS;
            assert!(wait < 500, "unit {id} waited {wait} ms");
            assert!(machine.runtime(id) > 0);
        }
    }
}

#[test]
fn a_unit_that_blocks_a_lot_runs_soon_after_it_wakes() {
    for cpus in [1, 4] {
        let mut machine = Machine::new(cpus);
        (0..u32::from(cpus) * 3).for_each(|id| machine.add(id, 1, Work::Hog, Affinity::ANY));
        machine.add(99, 2, Work::Burst { run: MS / 20, sleep: 3 * MS }, Affinity::ANY);
        machine.run_until(SECOND / 10);
        machine.measure();
        machine.run_until(SECOND);
        println!("latency {} us", machine.latency(99) / 1000);
        assert!(machine.latency(99) <= 2 * MS);
    }
}

#[test]
fn pinned_units_share_their_cpu_and_the_rest_goes_round_them() {
    let mut machine = Machine::new(4);
    (0..5).for_each(|id| machine.add(id, 1, Work::Hog, Affinity::pinned(Cpu(0))));
    (5..8).for_each(|id| machine.add(id, 2, Work::Hog, Affinity::ANY));
    machine.run_until(SECOND);
    let before: Vec<u64> = (0..8).map(|id| machine.runtime(id)).collect();
    machine.run_until(2 * SECOND);
    let ran = |id: u32| (machine.runtime(id) - before[id as usize]) as f64 / SECOND as f64;
    assert!((0..5).all(|id| (ran(id) - 0.2).abs() < 0.01));
    assert!((5..8).all(|id| ran(id) > 0.98));
}

#[test]
fn soft_affinity_is_kept_when_there_is_room() {
    let mut machine = Machine::new(4);
    let like = |cpus: [u16; 2]| Affinity { hard: CpuSet::ALL, soft: cpus.into_iter().map(Cpu).collect() };
    machine.add(0, 1, Work::Burst { run: MS, sleep: MS }, like([2, 3]));
    machine.add(1, 1, Work::Burst { run: MS, sleep: 2 * MS }, like([2, 3]));
    for step in 1..200 {
        machine.run_until(step * 5 * MS + step * 1000);
        for cpu in [0, 1] {
            assert_eq!(machine.sched.current(Cpu(cpu)), None);
        }
    }
}
