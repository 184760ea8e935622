// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine checks: errors that the machine finds in itself.
//!
//! There are three ways in. An exception ([`in_guest`], [`in_hypervisor`]) tells of what could not be corrected. Corrected errors
//! are looked for ([`look`]) by CPUs that are awake anyway, so that an idle machine is not woken for them. And at boot each CPU
//! finds what the firmware or the last life of the machine has left ([`init_cpu`]).
//!
//! What is found becomes a record for the hardware domain ([`telemetry`]). It is told on the log and announced by the virtual
//! interrupt later, in [`work`]: an exception may interrupt the hypervisor anywhere and takes no lock that it would wait for.
//!
//! What becomes of an error that was not corrected: the machine ends when the CPU's state is lost, when it must be acted upon and
//! the hypervisor ran, or when no CPU knows what happened; a domain is crashed when its code ran and cannot go on; else it is
//! told and no more.

mod banks;
pub mod interposed;
mod meeting;
pub mod telemetry;
mod words;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use arch::cpu::{self, Work};
use arch::machine_check as registers;
use arch::{CpuId, MAX_CPUS, Regs};
use hypercalls::Virq;
use spin::mutex::SpinMutex;

use crate::crash::{self, Reason};
use crate::vcpu::Vcpu;
use crate::{console, events, stop};
use banks::{Found, Severity, Source};

/// How often a CPU looks for corrected errors, in ns.
const EVERY_NS: u64 = 8_000_000_000;

/// Each CPU's [`registers::CAPABILITIES`]; 0 for one that does not report.
static CAPABILITIES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// When each CPU looks next.
static LOOK_AT: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// Banks may be shared: one CPU reads and clears them at a time. Only exceptions take it.
static SCAN: SpinMutex<()> = SpinMutex::new(());
/// A CPU reports an error that ends the machine.
static ENDS: AtomicBool = AtomicBool::new(false);
/// CPUs that are to behave as if they had taken an exception, because the hardware domain wants to see that.
static FEIGNED: arch::AtomicCpuMask = arch::AtomicCpuMask::new();

/// Returns what a CPU's machine-check registers can do, 0 when it has none.
pub fn capabilities(cpu: CpuId) -> u64 {
    CAPABILITIES[usize::from(cpu.0) % MAX_CPUS].load(Relaxed)
}

/// Returns how many banks a CPU has.
pub fn bank_count(cpu: CpuId) -> u32 {
    (capabilities(cpu) as u32 & 0xff).min(registers::MOST_BANKS)
}

/// Readies this CPU to report, and takes note of what it has to say from before.
pub fn init_cpu() {
    const HAS_CONTROL: u64 = 1 << 8;
    let here = cpu::this_cpu();
    // Exceptions find it made.
    let _ = crate::host::topology();
    if !registers::exists() {
        if here == CpuId(0) {
            log::info!("machine checks: this CPU does not report any");
        }
        return;
    }
    let can = registers::read(registers::CAPABILITIES);
    CAPABILITIES[usize::from(here.0) % MAX_CPUS].store(can, Relaxed);
    if can & HAS_CONTROL != 0 {
        registers::write(registers::CONTROL, u64::MAX);
    }
    if here == CpuId(0) {
        log::info!("machine checks: {} banks, {}", bank_count(here), banks::Rules::here());
    }
    banks::scan_and_keep(Source::Boot, false);
    for bank in banks::numbers(here) {
        registers::write(registers::control(bank), u64::MAX);
    }
    work();
}

/// Looks for corrected errors of this CPU, if it has not for a while.
pub fn look(here: CpuId, now: u64) {
    let next = &LOOK_AT[usize::from(here.0) % MAX_CPUS];
    if now >= next.load(Relaxed) && bank_count(here) != 0 {
        next.store(now + EVERY_NS, Relaxed);
        if banks::scan_and_keep(Source::Polled, false).count > 0 {
            cpu::raise_here(Work::HARDWARE);
        }
    }
}

/// Handles the exception that interrupted a guest.
pub fn in_guest(vcpu: &Vcpu, regs: &Regs) {
    let found = exception(Some(regs), true);
    // The address to return to may be meaningless, or lead back to what caused the error.
    if found.count > 0 && (!found.can_resume() || found.worst >= Severity::ActionRequired) {
        crash::domain(vcpu, Reason::MachineCheck);
    }
    cpu::raise_here(Work::HARDWARE);
}

/// Handles the exception that interrupted the hypervisor.
pub fn in_hypervisor(regs: &Regs) {
    exception(Some(regs), false);
    cpu::raise_here(Work::HARDWARE);
    // The interrupted code may be past its last look at the work.
    cpu::poke_here();
}

/// What both have in common.
fn exception(regs: Option<&Regs>, in_guest: bool) -> Found {
    let found = {
        let _one = SCAN.lock();
        banks::scan_and_keep(Source::Exception, in_guest)
    };
    if found.ends_the_machine(in_guest) {
        end(&found, regs, "an error that cannot be survived");
    }
    let rules = banks::Rules::here();
    if rules.is_broadcast && !found.is_local() {
        if !meeting::hold(found.count > 0) {
            end(&found, regs, "no CPU knows of an error");
        }
    } else if found.count == 0 {
        end(&found, regs, "this CPU does not know of an error");
    }
    interposed::write(registers::STATUS, 0);
    found
}

/// Reports the error and ends the machine's life. The banks keep what they hold, to be found after the reset.
fn end(found: &Found, regs: Option<&Regs>, why: &str) -> ! {
    if ENDS.swap(true, SeqCst) {
        stop::here();
    }
    console::panic_mode();
    log::error!("fatal machine check on CPU {}: {why}; MCG_STATUS {:#x}", cpu::this_cpu().0, found.status);
    banks::for_each_error(|error| log::error!("  {}", words::of(&error)));
    if let Some(regs) = regs {
        log::error!(
            "rip {:04x}:{:016x} rsp {:04x}:{:016x} rflags {:08x}",
            regs.cs,
            regs.rip,
            regs.ss,
            regs.rsp,
            regs.rflags
        );
    }
    panic!("machine check: {why}");
}

/// True when an exception reaches all CPUs.
pub fn is_broadcast() -> bool {
    banks::Rules::here().is_broadcast
}

/// Has a CPU behave as if it had taken the exception, soon.
pub fn feign(cpu: CpuId) {
    FEIGNED.insert(cpu);
    cpu::raise(cpu, Work::HARDWARE);
}

/// Tells of the records that are new, on the log and to the hardware domain.
pub fn work() {
    let here = cpu::this_cpu();
    if FEIGNED.contains(here) {
        FEIGNED.remove(here);
        log::warn!("machine checks: an exception is simulated on CPU {}", here.0);
        exception(None, false);
    }
    let mut any = false;
    while let Some(record) = telemetry::next_untold() {
        any = true;
        words::tell(&record);
    }
    let lost = telemetry::take_lost();
    if lost > 0 {
        log::warn!("machine checks: {lost} records found no room: nobody fetches them");
    }
    if any {
        events::send_global_virq(Virq::MCA);
    }
}

/// Forgets everything, for a new machine.
#[cfg(not(target_os = "none"))]
pub fn forget_all() {
    telemetry::forget_all();
    interposed::forget_all();
    ENDS.store(false, SeqCst);
    for cpu in 0..MAX_CPUS {
        CAPABILITIES[cpu].store(0, Relaxed);
        LOOK_AT[cpu].store(0, Relaxed);
        FEIGNED.remove(CpuId(cpu as u16));
    }
}
