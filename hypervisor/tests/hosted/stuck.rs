// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUs watch each other: one that does not take its timer is found, and no other.

use arch::{CpuId, cpu};
use hypervisor::stuck::{self, Accusation};
use hypervisor::testing::World;
use hypervisor::timers;

/// Lets seconds pass in which these CPUs take their timers and the others do not.
fn pass(seconds: u64, alive: &[u16]) {
    for _ in 0..seconds {
        arch::time::advance(1_000_000_000);
        for number in alive {
            cpu::set_this_cpu(CpuId(*number));
            timers::run();
        }
    }
    cpu::set_this_cpu(CpuId(0));
}

fn accused() -> Vec<u16> {
    (0..3).filter(|number| stuck::is_accused(CpuId(*number))).collect()
}

/// What a CPU finds out when an NMI comes.
fn accusation(number: u16) -> Accusation {
    cpu::set_this_cpu(CpuId(number));
    let accusation = stuck::take_accusation();
    cpu::set_this_cpu(CpuId(0));
    accusation
}

#[test]
fn a_cpu_that_is_late_is_found() {
    let world = World::new(3);
    stuck::watch(5);
    pass(20, &[0, 1, 2]);
    assert_eq!(accused(), [0; 0]);
    pass(6, &[0, 2]);
    assert_eq!(accused(), [0; 0], "late for the first time");
    pass(1, &[0, 2]);
    assert_eq!(accused(), [1]);
    // It was late, and goes on.
    pass(1, &[0, 1, 2]);
    assert_eq!(accusation(1), Accusation::Refuted);
    assert_eq!(accusation(1), Accusation::None);
    assert_eq!(accused(), [0; 0]);
    pass(20, &[0, 1, 2]);
    assert_eq!(accused(), [0; 0]);
    // It does not go on, nor does who would have watched the next one.
    pass(7, &[2]);
    assert_eq!(accused(), [0]);
    assert_eq!(accusation(0), Accusation::Holds { seconds: 7 });
    drop(world);
}

#[test]
fn a_computer_that_stood_still_accuses_nobody() {
    let world = World::new(2);
    stuck::watch(5);
    for _ in 0..10 {
        arch::time::advance(60_000_000_000);
        pass(1, &[0, 1]);
        assert_eq!(accused(), [0; 0]);
    }
    drop(world);
}

#[test]
fn without_the_option_nobody_beats() {
    let world = World::new(2);
    pass(100, &[0]);
    assert_eq!(accused(), [0; 0]);
    stuck::watch(5);
    pass(7, &[0]);
    assert_eq!(accused(), [1]);
    drop(world);
    let alone = World::new(1);
    stuck::watch(5);
    pass(10, &[]);
    assert_eq!(accused(), [0; 0]);
    drop(alone);
}
