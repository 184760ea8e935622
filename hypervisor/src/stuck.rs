// SPDX-License-Identifier: MIT OR Apache-2.0
//! The watchdog of CPUs (`watchdog`): one that has not taken its timer for too long is stuck in the hypervisor, and the machine
//! ends with a report of where.
//!
//! Once in [`EVERY_NS`] each CPU notes a beat, idle ones too, and looks at the beat of the next one. That one gets an NMI when it
//! has been late twice in a row, so that a computer which stood still as a whole accuses nobody; the NMI's handler
//! reports where it is. Without `watchdog` no CPU is woken for this.
//!
//! Nothing here takes a lock or waits: an NMI may have interrupted anything.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use arch::cpu;
use arch::{CpuId, MAX_CPUS};

use crate::irq::chores;

/// How often a CPU beats and looks.
const EVERY_NS: u64 = 1_000_000_000;
/// No CPU beats at this time.
const NEVER: u64 = 0;

/// How old a beat may become, in ns; 0 when nobody watches.
static TIMEOUT: AtomicU64 = AtomicU64::new(0);
/// When each CPU took its timer last.
static BEATS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(NEVER) }; MAX_CPUS];
/// The beat after which each CPU was found late.
static LATE: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(NEVER) }; MAX_CPUS];
/// The beat after which each CPU was sent an NMI that it has not taken.
static ACCUSED: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(NEVER) }; MAX_CPUS];

fn of(words: &'static [AtomicU64; MAX_CPUS], cpu: CpuId) -> &'static AtomicU64 {
    &words[usize::from(cpu.0) % MAX_CPUS]
}

/// Begins to watch the CPUs that are online: each has to take its timer within `seconds`.
pub fn watch(seconds: u32) {
    let cpus = cpu::online();
    if cpus.count() < 2 {
        log::warn!("watchdog: nobody watches a CPU that is alone");
        return;
    }
    let now = arch::time::now().max(1);
    cpus.iter().for_each(|cpu| of(&BEATS, cpu).store(now, SeqCst));
    TIMEOUT.store(u64::from(seconds) * 1_000_000_000, SeqCst);
    cpus.iter().for_each(|cpu| chores::want(cpu, now));
    log::info!("watchdog: {} CPUs watch each other, each must be seen within {seconds} s", cpus.count());
}

/// Notes that this CPU takes its timer, and looks at its neighbour. Returns when it is to do so again.
pub(crate) fn beat(here: CpuId, now: u64) -> Option<u64> {
    let timeout = TIMEOUT.load(Relaxed);
    if timeout == 0 {
        return None;
    }
    of(&BEATS, here).store(now, SeqCst);
    look(neighbour(here), now, timeout);
    Some(now + EVERY_NS)
}

/// The next CPU that is online; the first one after the last.
fn neighbour(here: CpuId) -> CpuId {
    let cpus = cpu::online();
    let next = cpus.iter().find(|cpu| *cpu > here).or_else(|| cpus.iter().next());
    next.unwrap_or(here)
}

fn look(cpu: CpuId, now: u64, timeout: u64) {
    let beat = of(&BEATS, cpu).load(SeqCst);
    if beat == NEVER || now.saturating_sub(beat) <= timeout {
        return;
    }
    if of(&LATE, cpu).swap(beat, SeqCst) == beat && of(&ACCUSED, cpu).swap(beat, SeqCst) != beat {
        cpu::send_nmi(cpu);
    }
}

/// What an NMI has to do with the watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accusation {
    /// Nothing.
    None,
    /// This CPU was late, and has taken its timer since.
    Refuted,
    /// This CPU has not taken its timer for so long.
    Holds {
        /// For how long.
        seconds: u64,
    },
}

/// Takes up the accusation with which an NMI came to this CPU.
pub fn take_accusation() -> Accusation {
    let here = cpu::this_cpu();
    let accused = of(&ACCUSED, here).swap(NEVER, SeqCst);
    if accused == NEVER {
        Accusation::None
    } else if of(&BEATS, here).load(SeqCst) == accused {
        Accusation::Holds { seconds: arch::time::now().saturating_sub(accused) / 1_000_000_000 }
    } else {
        Accusation::Refuted
    }
}

/// True when a CPU was sent an NMI that it has not taken.
#[cfg(not(target_os = "none"))]
pub fn is_accused(cpu: CpuId) -> bool {
    of(&ACCUSED, cpu).load(SeqCst) != NEVER
}

/// Forgets everything, for a new machine.
#[cfg(not(target_os = "none"))]
pub fn forget_all() {
    TIMEOUT.store(0, SeqCst);
    [&BEATS, &LATE, &ACCUSED].into_iter().flatten().for_each(|word| word.store(NEVER, SeqCst));
}
