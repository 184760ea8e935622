// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stopping all other CPUs before the machine's end.
//!
//! They are asked by an interrupt, which leaves each in a state that can be looked at; those that do not take it (a CPU
//! that spins with interrupts off) get an NMI. Once [`others`] has begun, a CPU that comes by [`here_if_asked`] goes no further.

use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

use arch::{AtomicCpuMask, cpu, machine};

static ASKED: AtomicBool = AtomicBool::new(false);
static STOPPED: AtomicCpuMask = AtomicCpuMask::new();

/// How long each way of asking may take, in steps of [`STEP_NS`].
const STEPS: u32 = 1000;
const STEP_NS: u64 = 100_000;

/// Stops this CPU for good if another one asked for it.
pub fn here_if_asked() {
    if ASKED.load(SeqCst) {
        here();
    }
}

/// Stops this CPU for good, as the one that ends the machine wants it.
pub fn here() -> ! {
    STOPPED.insert(cpu::this_cpu());
    machine::halt()
}

/// Stops all other CPUs. Returns how many of how many did so; the rest cannot be reached.
pub fn others() -> (u32, u32) {
    // Early at boot not even this CPU counts.
    let others = (cpu::online().count() as u32).saturating_sub(1);
    let stopped = || STOPPED.load().count() as u32;
    if others == 0 || ASKED.swap(true, SeqCst) {
        return (stopped(), others);
    }
    for ask in [machine::stop_others, machine::stop_others_now] {
        ask();
        for _ in 0..STEPS {
            if stopped() >= others {
                return (stopped(), others);
            }
            arch::time::delay_ns(STEP_NS);
        }
    }
    (stopped(), others)
}

/// Forgets that anybody asked, for a new machine.
#[cfg(not(target_os = "none"))]
pub fn forget_all() {
    ASKED.store(false, SeqCst);
    cpu::online().iter().for_each(|cpu| STOPPED.remove(cpu));
}
