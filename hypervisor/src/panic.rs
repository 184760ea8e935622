// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of the hypervisor: a defect of ours, reported so that it can be found.
//!
//! Addresses of the backtrace are resolved by `cargo xtask` from `xenith-syms`, or by hand with `addr2line`.
#![expect(unsafe_code, reason = "walks the stack, and the register frame of this CPU")]

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use arch::Regs;
use arch::cpu_area::area;

use crate::{console, crash, current, snapshot, stop};

/// The CPU that has failed plus one, 0 while none has; and how many times.
static FAILED: AtomicU32 = AtomicU32::new(0);
static TIMES: AtomicU32 = AtomicU32::new(0);

/// Returns the frame of the guest that this CPU returns to.
pub fn guest_frame() -> &'static mut Regs {
    // SAFETY: called by the fault handler of the abandoned return path, which is this frame's only user then.
    unsafe { &mut *area().regs.get() }
}

/// Reports a fault in the hypervisor and ends the machine's life.
pub fn fault(regs: &Regs) -> ! {
    begin();
    log::error!("fatal: exception {} (error code {:#x}) in the hypervisor", regs.vector, regs.error_code);
    end_at(regs, "failed", "the hypervisor has failed")
}

/// Reports that this CPU has not taken its timer for so many seconds, and ends the machine's life. An NMI has interrupted it.
pub fn stuck(regs: &Regs, seconds: u64) -> ! {
    begin();
    log::error!("fatal: watchdog: the hypervisor is stuck, for {seconds} s");
    end_at(regs, "interrupted", "the hypervisor is stuck")
}

/// Reports where this CPU was, what became of it there, and ends the machine's life.
fn end_at(regs: &Regs, became: &str, why: &str) -> ! {
    where_it_runs();
    registers(regs);
    log::error!("backtrace:");
    log::error!("  {:#x} {became}", regs.rip);
    backtrace(regs.rbp);
    crash::after_crash(why)
}

fn registers(regs: &Regs) {
    let cr2 = arch::context::fault_address();
    log::error!("rip {:016x} rsp {:016x} rflags {:08x} cr2 {cr2:016x}", regs.rip, regs.rsp, regs.rflags);
    log::error!("{}", General(regs));
}

/// The general registers, in lines.
struct General<'a>(&'a Regs);

impl fmt::Display for General<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        snapshot::write_general(f, self.0)
    }
}

/// Reports a panic and ends the machine's life.
pub fn report(info: &core::panic::PanicInfo<'_>) -> ! {
    begin();
    log::error!("fatal: {info}");
    where_it_runs();
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    log::error!("backtrace:");
    backtrace(rbp);
    crash::after_crash("the hypervisor has failed")
}

/// Number of this CPU, also before it knows it.
fn this_cpu() -> u32 {
    if arch::cpu::started() { u32::from(arch::cpu::this_cpu().0) } else { 0 }
}

/// Makes sure that one CPU reports, that its report is seen, and that a failure of the report itself ends too.
fn begin() {
    let me = this_cpu() + 1;
    if FAILED.compare_exchange(0, me, SeqCst, SeqCst).is_err_and(|first| first != me) {
        stop::here();
    }
    console::panic_mode();
    match TIMES.fetch_add(1, SeqCst) {
        0 => {
            // How many it were is told at the end.
            let _ = stop::others();
        }
        1 => crash::after_crash("the hypervisor has failed, and then its report"),
        _ => arch::machine::halt(),
    }
}

fn where_it_runs() {
    if !arch::cpu::started() {
        log::error!("on CPU 0 early at boot");
    } else if let Some(vcpu) = current::vcpu() {
        log::error!("on CPU {}, which runs domain {} vCPU {}", this_cpu(), vcpu.domid.0, vcpu.id.0);
    } else {
        log::error!("on CPU {}, which runs no vCPU", this_cpu());
    }
}

fn backtrace(rbp: u64) {
    return_addresses(rbp).for_each(|rip| log::error!("  {rip:#x}"));
}

/// Follows frame pointers as long as they stay on this CPU's stacks.
pub fn return_addresses(mut rbp: u64) -> impl Iterator<Item = u64> {
    let stacks = if arch::cpu::started() {
        let base = arch::cpu_area::base(arch::cpu::this_cpu());
        base..base + arch::layout::CPU_STRIDE - 16
    } else {
        0..0
    };
    let next = move || {
        if !stacks.contains(&rbp) || rbp & 7 != 0 {
            return None;
        }
        // SAFETY: within this CPU's area and aligned; unmapped guard pages would fault, which ends in `halt`.
        let (next, rip) = unsafe { (*(rbp as *const u64), *((rbp + 8) as *const u64)) };
        rbp = if next > rbp { next } else { 0 };
        Some(rip)
    };
    core::iter::from_fn(next).take(32)
}
