// SPDX-License-Identifier: MIT OR Apache-2.0
//! NMIs that the machine sends by itself: errors on its buses, a button, things unknown. The boot CPU takes them.
//!
//! What is done about them is the administrator's choice ([`Policy`]). An NMI may interrupt the hypervisor anywhere: it notes the
//! reason, and [`work`] tells of it later.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use arch::cpu::{self, Work};
use arch::{CpuId, Regs, nmi};
use hypercalls::shared_info::shared_offset;
use hypercalls::trap::{NMIREASON_IO_ERROR, NMIREASON_PCI_SERR, NMIREASON_UNKNOWN};

use crate::{console, domain, schedule};

/// What becomes of an NMI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It is told on the log.
    Ignore,
    /// The hardware domain gets it, too.
    Dom0,
    /// The machine's life ends.
    Fatal,
}

static POLICY: AtomicU8 = AtomicU8::new(Policy::Dom0 as u8);
/// Reasons that were not told yet, as bits of the ABI.
static NEWS: AtomicU64 = AtomicU64::new(0);

/// Sets what becomes of NMIs.
pub fn set_policy(policy: Policy) {
    POLICY.store(policy as u8, Relaxed);
}

fn policy() -> Policy {
    let all = [Policy::Ignore, Policy::Dom0, Policy::Fatal];
    all.into_iter().find(|policy| *policy as u8 == POLICY.load(Relaxed)).unwrap_or(Policy::Dom0)
}

const NAMES: [(u64, &str); 3] = [
    (NMIREASON_PCI_SERR, "a system error on the PCI bus (SERR)"),
    (NMIREASON_IO_ERROR, "an I/O check (IOCHK)"),
    (NMIREASON_UNKNOWN, "no known reason"),
];

/// Handles an NMI. `expected` says that the hypervisor has sent one; another may have come with it.
pub fn came(regs: &Regs, expected: bool) {
    if cpu::this_cpu() != CpuId(0) {
        return;
    }
    let raised = nmi::reasons() & (nmi::SERR | nmi::IOCHK);
    let why = match raised {
        0 if expected => return,
        0 => NMIREASON_UNKNOWN,
        nmi::SERR => NMIREASON_PCI_SERR,
        nmi::IOCHK => NMIREASON_IO_ERROR,
        _ => NMIREASON_PCI_SERR | NMIREASON_IO_ERROR,
    };
    if policy() == Policy::Fatal {
        console::panic_mode();
        tell(why);
        log::error!("rip {:04x}:{:016x} rsp {:04x}:{:016x}", regs.cs, regs.rip, regs.ss, regs.rsp);
        panic!("an NMI, which `nmi=fatal` makes the machine's end");
    }
    if raised != 0 {
        nmi::acknowledge(raised);
    }
    NEWS.fetch_or(why, SeqCst);
    cpu::raise_here(Work::HARDWARE);
    // The interrupted code may be past its last look at the work.
    cpu::poke_here();
}

fn tell(why: u64) {
    for (_, name) in NAMES.iter().filter(|(reason, _)| why & reason != 0) {
        log::error!("NMI: {name}");
    }
}

/// Tells of the NMIs that came.
pub fn work() {
    let why = NEWS.swap(0, SeqCst);
    if why == 0 {
        return;
    }
    tell(why);
    if policy() != Policy::Dom0 {
        return;
    }
    let Some(dom0) = domain::hardware() else { return };
    let Some(vcpu) = dom0.vcpus.first() else { return };
    dom0.shared_info().u64(shared_offset::NMI_REASON).fetch_or(why, SeqCst);
    // A kernel that has not said where NMIs go would be crashed by one.
    if vcpu.traps[usize::from(crate::traps::NMI as u8)].entry.address.load(Relaxed) != 0 {
        vcpu.nmi_pending.store(true, SeqCst);
        schedule::deliver(vcpu);
    }
}
