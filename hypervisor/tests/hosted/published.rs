// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is read without a lock goes when every CPU has let go of it, not before and not never.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use arch::{CpuId, cpu};
use hypervisor::grace::{self, Node, Published};
use hypervisor::testing::world;

/// Counts when it is dropped.
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn pass_on(n: u16) {
    cpu::set_this_cpu(CpuId(n));
    grace::pass();
}

#[test]
fn a_replaced_value_goes_when_each_cpu_has_passed() {
    let _machine = world::new_machine(64, 3);
    let dropped = Arc::new(AtomicU32::new(0));
    let node = || Node::new(Counted(dropped.clone())).expect("there is memory");
    let count = || dropped.load(SeqCst);
    let place = Published::new();
    assert!(place.replace(Some(node())).is_none());
    assert!(place.with(|_| ()).is_some());
    let first = place.replace(Some(node())).expect("there was a value");
    pass_on(0);
    pass_on(0);
    pass_on(2);
    assert!(!first.is_over() && count() == 0, "CPU 1 may be using it");
    // What is replaced while a period is under way waits for the next one.
    let second = place.replace(None).expect("there was a value");
    pass_on(1);
    assert!(first.is_over() && count() == 1);
    assert!(cpu::has_work(), "CPUs are told of the next period");
    (0..2).for_each(pass_on);
    assert!(!second.is_over() && count() == 1);
    pass_on(2);
    assert!(second.is_over() && count() == 2 && !place.is_some());
    // A place that goes takes its value with it, as nobody has it any more.
    place.replace(Some(node()));
    drop(place);
    assert_eq!(count(), 3);
}
