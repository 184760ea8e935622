// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debug keys: what the hypervisor tells, or does, when one key is pressed at its console.
//!
//! The letters are those of the C hypervisor where it has the key. A key is a [`Step`] that is called again and again, each
//! time for a few lines ([`run`]); between two passes guests run. So a dump may be as long as it likes, and the line as
//! slow. A step waits for no lock for long ([`patiently`]) and remembers nothing but a number: what changes meanwhile may
//! be told half.

mod channels;
mod cpus;
mod domains;
mod help;
mod memory;
mod registers;
mod run;
mod settings;
mod text;
mod time;

use hypercalls::DomId;
use mm::{Lock, LockGuard};

pub use self::memory::HEAP_USAGE;
#[cfg(not(target_os = "none"))]
pub use self::run::forget_all;
pub use self::run::{WAITING, due_on, has_room, press, run};
pub use self::text::Text;
pub(crate) use self::text::{line, part};
use crate::{irq, pci};

/// Writes a few lines about what is at `at`, 0 at first. Returns where to go on, `None` at the end; the same place
/// without a line means that there is something to wait for.
pub type Step = fn(at: u64, to: &mut Text) -> Option<u64>;

/// What pressing a key does.
#[derive(Debug)]
pub struct Key {
    /// The key.
    pub letter: u8,
    /// What it does, as a list shows it.
    pub what: &'static str,
    /// Does it.
    pub step: Step,
    /// It only tells, so that it may be pressed together with all others that do.
    pub is_diagnostic: bool,
}

const fn tells(letter: u8, what: &'static str, step: Step) -> Key {
    Key { letter, what, step, is_diagnostic: true }
}

const fn does(letter: u8, what: &'static str, step: Step) -> Key {
    Key { letter, what, step, is_diagnostic: false }
}

/// All keys, in the order in which they are listed.
static KEYS: &[Key] = &[
    does(b'*', "print all diagnostics", help::everything),
    does(b'+', "print more of what the log levels hold back", settings::more),
    does(b'-', "print less", settings::less),
    tells(b'0', "registers of dom0's vCPUs", registers::dom0),
    does(b'A', "toggle alternative handling: ask CPUs by NMI", settings::toggle_nmi),
    does(b'C', "crash the hypervisor", settings::crash),
    does(b'G', "toggle which log level + and - change: the hypervisor's or that of guests", settings::toggle_guest),
    tells(b'H', "heap and free memory", memory::heap),
    tells(b'Q', "PCI functions and their messages", pci::map::describe),
    does(b'R', "reset the machine", settings::reset),
    tells(b'T', "types of the pages of each domain", memory::page_types),
    tells(b'a', "timers of each CPU", time::queues),
    tells(b'd', "registers and stacks of all CPUs", registers::all),
    tells(b'e', "event channels", channels::all),
    tells(b'g', "grant tables", domains::grants),
    does(b'h', "show this list", help::list),
    tells(b'i', "interrupts: where they arrive, and who listens", irq::dump::describe),
    tells(b'k', "state of each CPU: work, timer, TLB flush clock", cpus::state),
    tells(b'm', "memory: the machine's, and each domain's", memory::summary),
    tells(b'q', "domains, their vCPUs, and what their kernels tell (VIRQ_DEBUG)", domains::all),
    tells(b'r', "run queues", cpus::queues),
    tells(b's', "time-stamp counter: the machine's, and as domains see it", time::tsc),
    tells(b't', "clocks of all CPUs", time::clocks),
    tells(b'u', "NUMA nodes", memory::nodes),
    does(b'w', "print the kept messages again", help::messages),
];

/// How often a lock that is taken is asked for before the answer is that it is busy.
const PATIENCE: u32 = 20_000;

/// Takes a lock unless somebody keeps it for long.
pub(crate) fn patiently<T>(lock: &Lock<T>) -> Option<LockGuard<'_, T>> {
    for _ in 0..PATIENCE {
        if let Some(guard) = lock.try_lock() {
            return Some(guard);
        }
        arch::tlb::serve();
        core::hint::spin_loop();
    }
    None
}

/// A place in a walk over domains: the domain, and something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    domain: DomId,
    item: u32,
}

impl Place {
    const fn of(at: u64) -> Self {
        Self { domain: DomId((at >> 32) as u16), item: at as u32 }
    }

    const fn at(domain: DomId, item: u32) -> Option<u64> {
        Some((domain.0 as u64) << 32 | item as u64)
    }

    /// The place behind everything of the domain.
    const fn behind(domain: DomId) -> Option<u64> {
        Some((domain.0 as u64 + 1) << 32)
    }
}

#[cfg(test)]
mod tests;
