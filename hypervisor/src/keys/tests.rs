// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys that are pressed on the hosted machine's console, with two domains.

use alloc::string::String;
use arch::CpuId;
use arch::cpu::{self, Work};

use super::{KEYS, run};
use crate::console::{Receiver, give_input, input_to};
use crate::testing::world::World;

const SWITCH: &[u8] = b"\x01\x01\x01";

fn world(cpus: u16) -> World {
    // The world first: it waits until other tests' worlds are gone, whose input this is until then.
    let mut world = World::new(cpus);
    give_input(Receiver::Dom0);
    world.boot_kernels();
    arch::console::take_output();
    world
}

/// Types something and lets CPU 0 work until nothing is left to print; other CPUs come by now and then. Returns what was
/// printed, and how many passes it took.
fn typed(world: &mut World, keys: &[u8]) -> (String, u32) {
    arch::console::type_in(keys);
    cpu::raise_here(Work::CONSOLE);
    let mut passes = 0;
    loop {
        for n in (0..world.cpus).rev() {
            world.go_to(n);
            arch::entry::take_interrupts();
            world.go_back();
        }
        passes += 1;
        // Whichever CPU comes by after a rest goes on.
        match (0..world.cpus).map(|n| run::due_on(CpuId(n))).min() {
            None | Some(u64::MAX) => break,
            Some(due) => arch::time::wait_until(due),
        }
        assert!(passes < 1000, "a key never ends");
    }
    (String::from_utf8(arch::console::take_output()).expect("text"), passes)
}

#[test]
fn the_switch_says_who_gets_the_input() {
    let mut world = world(1);
    let (text, _) = typed(&mut world, b"h");
    assert_eq!(text, "", "the key went to dom0");
    let (text, _) = typed(&mut world, SWITCH);
    assert!(text.contains("serial input to Xenith (type Ctrl-A three times to switch input to dom0)"), "{text}");
    assert_eq!(input_to(), Receiver::Hypervisor);
    let (text, _) = typed(&mut world, b"h");
    for key in KEYS {
        assert!(text.contains(key.what), "{} is not listed", key.what);
    }
    let (text, _) = typed(&mut world, SWITCH);
    assert!(text.contains("serial input to dom0"), "{text}");
    let _ = crate::console::read_input(usize::MAX, |_, _| Ok(()));
    world.finish();
}

#[test]
fn an_unknown_key_does_nothing() {
    let mut world = world(1);
    typed(&mut world, SWITCH);
    assert_eq!(typed(&mut world, b"#\r\n").0, "");
    typed(&mut world, SWITCH);
    world.finish();
}

#[test]
fn everything_at_once_ends_in_passes_and_breaks_nothing() {
    let mut world = world(2);
    typed(&mut world, SWITCH);
    // 115200 bits a second.
    arch::console::set_pace(86_806);
    let (text, passes) = typed(&mut world, b"*");
    for key in KEYS.iter().filter(|key| key.is_diagnostic) {
        assert!(text.contains(&alloc::format!("' pressed -> {}", key.what)), "{}: {text}", key.what);
    }
    assert!(!text.contains("busy"), "{text}");
    assert!(passes >= text.lines().count() as u32, "guests got a turn after each line: {passes}");
    world.check();
    arch::console::set_pace(0);
    typed(&mut world, SWITCH);
    world.finish();
}

#[test]
fn guests_run_while_a_slow_line_is_written() {
    let mut world = world(1);
    typed(&mut world, SWITCH);
    arch::console::set_pace(1_000_000);
    arch::console::type_in(b"h");
    cpu::raise_here(Work::CONSOLE);
    let start = arch::time::now();
    world.go_back();
    let took = arch::time::now() - start;
    let text = String::from_utf8(arch::console::take_output()).expect("text");
    assert_eq!(text.lines().count(), 1, "one line at a time: {text}");
    assert!(run::due_on(CpuId(0)) >= arch::time::now() + took, "then a rest as long");
    arch::console::set_pace(0);
    typed(&mut world, SWITCH);
    world.finish();
}

#[test]
fn dumps_tell_what_is_there() {
    let mut world = world(2);
    typed(&mut world, SWITCH);
    let mut says = |key: &[u8], lines: &[&str]| {
        let (text, _) = typed(&mut world, key);
        for line in lines {
            assert!(text.contains(line), "{line:?} is missing: {text}");
        }
    };
    says(b"q", &["domain 0: privileged pause count 0, 2 vCPUs", "  vCPU 1 (unit 3) on CPU", "domain 1: pause"]);
    says(b"d", &["CPU 0: d", "CPU 1: ", "rip e033:", "stack: 0000", "code at rip:"]);
    says(b"0", &["d0v0 in guest kernel mode", "d0v1 in guest kernel mode"]);
    says(b"T", &["domain 1:\n(xenith)   ", " L4 2", " pinned"]);
    says(b"r", &["unit 0 is d0v0: Some(", "unit 3 is d1v1"]);
    says(b"k", &["CPU 0 (APIC 0x0): ", "CPU 1 (APIC 0x1): "]);
    says(b"H", &["stacks: at most 0 of 128 KiB", "free: ", "claimed: 0 KiB; scrubbed"]);
    typed(&mut world, SWITCH);
    world.finish();
}

#[test]
fn a_cpu_that_never_comes_by_is_given_up() {
    let mut world = world(2);
    typed(&mut world, SWITCH);
    arch::console::take_output();
    arch::console::type_in(b"d");
    cpu::raise_here(Work::CONSOLE);
    // Only CPU 0 ever works.
    world.go_to(0);
    for _ in 0..1000 {
        world.go_back();
        match run::due_on(CpuId(0)) {
            u64::MAX => break,
            due => arch::time::wait_until(due),
        }
        arch::entry::take_interrupts();
    }
    let text = String::from_utf8(arch::console::take_output()).expect("text");
    assert!(text.contains("CPU 1 does not answer"), "{text}");
    typed(&mut world, SWITCH);
    world.finish();
}

#[test]
fn a_lock_that_is_held_is_busy() {
    let mut world = world(1);
    let domain = world.guests[1].domain.clone();
    typed(&mut world, SWITCH);
    // Held by another CPU.
    world.go_to(9);
    let held = domain.vcpus[0].runstate.lock();
    world.go_to(0);
    let (text, _) = typed(&mut world, b"q");
    world.go_to(9);
    drop(held);
    world.go_to(0);
    assert!(text.contains("busy"), "{text}");
    typed(&mut world, SWITCH);
    drop(domain);
    world.finish();
}
