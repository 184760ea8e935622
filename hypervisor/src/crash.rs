// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a domain that broke a rule, and what a domain's end means for the machine.

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arch::Regs;
use hypercalls::sched::ShutdownReason;
use hypercalls::{GuestVa, Virq};

use crate::domain::Domain;
use crate::events;
use crate::keys::Text;
use crate::snapshot::Snapshot;
use crate::vcpu::Vcpu;

/// The rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An entry was due and its handler was never registered.
    NoHandler,
    /// An exception was due and its trap-table entry is empty.
    NoTrapHandler(u8),
    /// The stack for a bounce frame cannot be written.
    BadStack(u64),
    /// The frame of an `iret` cannot be read.
    BadIretFrame(u64),
    /// A return to user mode without a user page table.
    NoUserTable,
    /// The machine has lost what its code needs.
    MachineCheck,
    /// The guest asked for it.
    Requested,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHandler => f.write_str("no callback is registered for an entry that is due"),
            Self::NoTrapHandler(vector) => write!(f, "exception {vector} and no handler in the trap table"),
            Self::BadStack(at) => write!(f, "the stack for a bounce frame at {at:#x} cannot be written"),
            Self::BadIretFrame(at) => write!(f, "the iret frame at {at:#x} cannot be read"),
            Self::NoUserTable => f.write_str("iret to user mode without a user page table"),
            Self::MachineCheck => f.write_str("an error of the machine's that its code cannot go on after"),
            Self::Requested => f.write_str("the guest says that it crashed"),
        }
    }
}

/// Set by `noreboot`: after a crash the machine stays as it is.
pub static NO_REBOOT: AtomicBool = AtomicBool::new(false);

/// Crashes the vCPU's domain, and it alone. The report follows on the vCPU's way out ([`report`]), when all of its registers
/// are in the frame.
#[cold]
pub fn domain(vcpu: &Vcpu, reason: Reason) {
    let domain = vcpu.domain();
    if let Some(code) = domain.shut_down(ShutdownReason::CRASH) {
        *vcpu.crashed.lock() = Some((reason, code));
    }
}

/// If the current vCPU has crashed its domain, writes all that helps to find out why to the log, and acts on the end.
#[cold]
pub fn report(vcpu: &Vcpu, regs: &Regs) {
    let Some((reason, code)) = vcpu.crashed.lock().take() else { return };
    log::error!("d{}v{} crashes: {reason}", vcpu.domid.0, vcpu.id.0);
    dump(vcpu, regs);
    ended(vcpu.domain(), code);
}

/// Writes a vCPU's registers, stack, code and the page-table walk of what it was doing to the log.
pub fn dump(vcpu: &Vcpu, regs: &Regs) {
    let mut text = Text::new();
    let _ = write!(text, "{}", Snapshot::of_current(vcpu, regs));
    while let Some(line) = text.next_line() {
        log::error!("{line}");
    }
    dump_walk(vcpu, "rip", regs.rip);
    dump_walk(vcpu, "cr2", vcpu.cr2.load(Relaxed));
}

fn dump_walk(vcpu: &Vcpu, name: &str, va: u64) {
    log::error!("page-table walk of {name} {va:#x} from {}:", vcpu.kernel_mfn());
    crate::mmu::describe_walk(vcpu, GuestVa(va), |level, mfn, entry| {
        log::error!("  L{level} frame {mfn}: {entry:016x}");
    });
}

/// Acts on the end of a domain: dom0's is the machine's, another one's is news for the tools.
pub fn ended(domain: &Domain, reason: ShutdownReason) {
    if !domain.privileged {
        log::debug!("d{} has shut down, reason {}", domain.id.0, reason.0);
        domain.console.with(|served| log::info!("static domain {} has shut down, reason {}", served.name(), reason.0));
        let port = domain.suspend_port.load(Relaxed);
        // A port that is not there, or not there any more, tells nobody.
        if reason != ShutdownReason::SUSPEND || port == 0 || events::send(domain, port).is_err() {
            events::send_global_virq(Virq::DOM_EXC);
        }
        return;
    }
    match reason {
        ShutdownReason::POWEROFF => {
            log::info!("dom0 has shut down: powering off");
            crate::console::flush();
            let _ = crate::stop::others();
            arch::machine::power_off()
        }
        ShutdownReason::REBOOT | ShutdownReason::SUSPEND | ShutdownReason::SOFT_RESET | ShutdownReason::WATCHDOG => {
            log::info!("dom0 has shut down, reason {}: resetting the machine", reason.0);
            crate::console::flush();
            let _ = crate::stop::others();
            arch::machine::reset()
        }
        _ => after_crash("dom0 has crashed"),
    }
}

/// Ends the machine's life after a crash that cannot be survived: a reset after five seconds, or a halt with `noreboot`.
pub fn after_crash(what: &str) -> ! {
    crate::console::flush();
    let (stopped, others) = crate::stop::others();
    if others > 0 {
        log::error!("{stopped} of {others} other CPUs stopped");
    }
    if NO_REBOOT.load(Relaxed) {
        log::error!("{what}: the machine is halted because of `noreboot`");
        crate::console::flush();
        arch::machine::halt()
    }
    log::error!("{what}: resetting the machine in five seconds");
    crate::console::flush();
    // Not by the clock, which may not have been started.
    arch::time::delay_ns(5_000_000_000);
    arch::machine::reset()
}
