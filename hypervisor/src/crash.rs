// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a domain that broke a rule, and what a domain's end means for the machine.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arch::{Regs, context};
use hypercalls::sched::ShutdownReason;
use hypercalls::{GuestVa, Virq};

use crate::domain::Domain;
use crate::vcpu::Vcpu;
use crate::{events, guest};

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
    if domain.is_shut_down.load(Relaxed) {
        return;
    }
    *vcpu.crashed.lock() = Some(reason);
    domain.shut_down(ShutdownReason::CRASH);
}

/// If the current vCPU has crashed its domain, writes all that helps to find out why to the log, and acts on the end.
#[cold]
pub fn report(vcpu: &Vcpu, regs: &Regs) {
    let Some(reason) = vcpu.crashed.lock().take() else { return };
    log::error!("d{}v{} crashes: {reason}", vcpu.domid.0, vcpu.id.0);
    dump(vcpu, regs);
    ended(vcpu.domain(), ShutdownReason::CRASH);
}

/// Writes a vCPU's registers, stack, code and the page-table walk of what it was doing to the log.
pub fn dump(vcpu: &Vcpu, regs: &Regs) {
    let mode = if context::kernel_mode() { "kernel" } else { "user" };
    log::error!("vector {:#x} error code {:#x} in guest {mode} mode", regs.vector, regs.error_code);
    log::error!(
        "rip {:04x}:{:016x} rflags {:08x} rsp {:04x}:{:016x}",
        regs.cs,
        regs.rip,
        regs.rflags,
        regs.ss,
        regs.rsp
    );
    log::error!("rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", regs.rax, regs.rbx, regs.rcx, regs.rdx);
    log::error!("rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}", regs.rsi, regs.rdi, regs.rbp, regs.r8);
    log::error!("r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}", regs.r9, regs.r10, regs.r11, regs.r12);
    log::error!(
        "r13 {:016x} r14 {:016x} r15 {:016x} cr2 {:016x}",
        regs.r13,
        regs.r14,
        regs.r15,
        vcpu.cr2.load(Relaxed)
    );
    log::error!(
        "fs base {:016x} gs base {:016x} other gs base {:016x} kernel root {} user root {:#x}",
        context::fs_base(),
        context::gs_base(),
        context::other_gs_base(),
        vcpu.kernel_mfn(),
        vcpu.user_root.load(Relaxed),
    );
    dump_code(regs);
    dump_stack(regs);
    dump_walk(vcpu, "rip", regs.rip);
    dump_walk(vcpu, "cr2", vcpu.cr2.load(Relaxed));
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

fn dump_code(regs: &Regs) {
    let mut code = [0; 15];
    let len = guest::fetch(GuestVa(regs.rip), &mut code);
    log::error!("code at rip:{}", Hex(code.get(..len).unwrap_or(&[])));
}

fn dump_stack(regs: &Regs) {
    for line in 0..8u64 {
        let mut words = [0u64; 4];
        for (n, word) in (0u64..).zip(words.iter_mut()) {
            let at = regs.rsp.wrapping_add(line * 32 + n * 8);
            match arch::guest::read_u64(GuestVa(at)) {
                Ok(value) => *word = value,
                Err(_) => {
                    log::error!("stack: {at:#x} cannot be read");
                    return;
                }
            }
        }
        log::error!("stack: {:016x} {:016x} {:016x} {:016x}", words[0], words[1], words[2], words[3]);
    }
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
        log::info!("d{} has shut down, reason {}", domain.id.0, reason.0);
        events::send_global_virq(Virq::DOM_EXC);
        return;
    }
    match reason {
        ShutdownReason::POWEROFF => {
            log::info!("dom0 has shut down: powering off");
            crate::console::flush();
            let _ = crate::stop::others();
            arch::machine::power_off()
        }
        ShutdownReason::REBOOT | ShutdownReason::SUSPEND | ShutdownReason::SOFT_RESET => {
            log::info!("dom0 asks for a reboot: resetting the machine");
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
