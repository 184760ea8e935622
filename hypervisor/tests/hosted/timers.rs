// SPDX-License-Identifier: MIT OR Apache-2.0
//! Timers of one vCPU that several CPUs arm and stop at the same time.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Barrier};
use std::thread;

use arch::{CpuId, cpu};
use hypervisor::timers::{self, Kind};

use crate::pair::Pair;

/// How often each CPU does it.
const ROUNDS: u64 = 20_000;

#[test]
fn timers_that_two_cpus_arm_stay_together() {
    let w = Pair::new();
    let domain = Arc::clone(&w.0.guests[0].domain);
    let far = arch::time::now() + 1_000_000_000_000;
    let together = Arc::new(Barrier::new(2));
    let players = [0, 1].map(|number| {
        let (domain, together) = (Arc::clone(&domain), Arc::clone(&together));
        thread::spawn(move || {
            cpu::set_this_cpu(CpuId(number));
            let vcpu = &domain.vcpus[0];
            for round in 0..ROUNDS {
                together.wait();
                let kind = if number == 0 { Kind::SingleShot } else { Kind::Watchdog };
                match round % 4 {
                    3 => timers::stop(vcpu, kind),
                    _ => timers::arm(vcpu, kind, far + round),
                }
                together.wait();
                // Nobody arms one now.
                assert_eq!(timers::stray(vcpu), None, "round {round}");
            }
        })
    });
    players.into_iter().for_each(|player| player.join().expect("no CPU failed"));
    let vcpu = &domain.vcpus[0];
    timers::stop_all(vcpu);
    assert!(CpuId(vcpu.timer_cpu.load(SeqCst)).0 < 2 && timers::stray(vcpu).is_none());
    w.0.finish();
}
