// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exceptions that guests take: ours to repair, ours to emulate, or the guest's own.
//!
//! Everything that is not handled here ends as a bounce frame ([`bounce`]). The order matters: what costs least and
//! happens most comes first.

use core::sync::atomic::Ordering::Relaxed;

use arch::cpu::{self, Work};
use arch::{Regs, context, entry};
use hypercalls::GuestVa;
use hypercalls::addr::{HOLE_END, HOLE_START};
use hypercalls::vm_assist::VmAssistType;

use crate::bounce::{self, Extra};
use crate::vcpu::Vcpu;
use crate::{
    console, crash, current, death, grace, mca, mmu, nmi, privileged, quirks, registers, schedule, snapshot, stop,
    stuck, timers,
};

pub(crate) const DEBUG: u32 = 1;
pub(crate) const NMI: u32 = 2;
const INVALID_OPCODE: u32 = 6;
const DEVICE_NOT_AVAILABLE: u32 = 7;
pub(crate) const GENERAL_PROTECTION: u32 = 13;
pub(crate) const PAGE_FAULT: u32 = 14;
pub(crate) const MACHINE_CHECK: u32 = 18;

/// Page-fault error code: the page was present; it was a write; a reserved bit was set; an instruction was fetched.
const PF_PRESENT: u32 = 1;
const PF_WRITE: u32 = 2;
/// Page-fault error code: ring 3 did it, not the CPU by itself when it looked at a descriptor.
const PF_USER: u32 = 4;
const PF_RESERVED: u32 = 8;
const PF_FETCH: u32 = 16;
/// General-protection error code: the selector is an IDT vector.
const GP_IDT: u32 = 2;

/// Handles an exception that interrupted a guest.
pub fn guest_exception(regs: &mut Regs) {
    let Some(vcpu) = current::vcpu() else { unreachable!("an exception from ring 3 without a vCPU") };
    match regs.vector {
        PAGE_FAULT => page_fault(vcpu, regs),
        GENERAL_PROTECTION => general_protection(vcpu, regs),
        DEVICE_NOT_AVAILABLE => device_not_available(vcpu, regs),
        INVALID_OPCODE => {
            if !privileged::forced_cpuid(vcpu, regs) {
                reflect(vcpu, regs);
            }
        }
        DEBUG => {
            let seen = context::take_dr6();
            vcpu.debug.lock().dr6 |= seen & 0xe00f;
            reflect(vcpu, regs);
        }
        NMI => {
            stop::here_if_asked();
            let asked = snapshot::answer_nmi(regs, true, core::iter::empty());
            // A guest can be interrupted: this CPU is about to take its timer.
            nmi::came(regs, asked || stuck::take_accusation() != stuck::Accusation::None);
        }
        MACHINE_CHECK => mca::in_guest(vcpu, regs),
        entry::VECTOR_SYSENTER => system_call(vcpu, regs, &vcpu.sysenter, GENERAL_PROTECTION),
        entry::VECTOR_SYSCALL32 => system_call(vcpu, regs, &vcpu.syscall32, INVALID_OPCODE),
        _ => reflect(vcpu, regs),
    }
}

/// Hands the exception in `regs` to the guest.
fn reflect(vcpu: &Vcpu, regs: &mut Regs) {
    let code = regs.error_code;
    let has_code = matches!(regs.vector, 8 | 10..=14 | 17 | 21);
    bounce::exception(vcpu, regs, regs.vector as u8, has_code.then_some(code));
}

/// A system call by another way than SYSCALL from 64-bit code; without a callback it is an exception.
fn system_call(vcpu: &Vcpu, regs: &mut Regs, callback: &crate::vcpu::Entry, otherwise: u32) {
    if callback.address.load(Relaxed) != 0 {
        bounce::enter(vcpu, regs, callback, Extra::None);
        return;
    }
    if otherwise == INVALID_OPCODE {
        regs.rip = regs.rip.wrapping_sub(2);
        bounce::exception(vcpu, regs, INVALID_OPCODE as u8, None);
    } else {
        bounce::exception(vcpu, regs, GENERAL_PROTECTION as u8, Some(0));
    }
}

/// Handles SYSCALL in guest user mode.
pub fn guest_syscall(regs: &mut Regs) {
    let Some(vcpu) = current::vcpu() else { unreachable!("a system call without a vCPU") };
    bounce::enter(vcpu, regs, &vcpu.syscall, Extra::None);
}

/// Handles a page fault that is the guest's own, with a frame that need not have the registers which Rust preserves; false,
/// with nothing done, when it may be another one.
#[inline]
pub fn page_fault_only(regs: &mut Regs) -> bool {
    let address = context::fault_address();
    let code = regs.error_code;
    // The entry code has kept back the writes of kernels, which may be to page tables.
    let may_be_ours = code & PF_USER == 0 || (HOLE_START..HOLE_END).contains(&address);
    let Some(vcpu) = current::vcpu().filter(|_| !may_be_ours) else { return false };
    bounce::page_fault(vcpu, regs, address, code);
    true
}

/// Handles a page fault of a guest kernel's write.
pub fn kernel_write_fault(regs: &mut Regs) {
    let Some(vcpu) = current::vcpu() else { unreachable!("an exception from ring 3 without a vCPU") };
    page_fault(vcpu, regs);
}

#[inline]
fn page_fault(vcpu: &Vcpu, regs: &mut Regs) {
    let address = context::fault_address();
    let code = regs.error_code;
    if (HOLE_START..HOLE_END).contains(&address) {
        if let Some(offset) = vcpu.window.ldt_offset(address) {
            return ldt_fault(vcpu, regs, offset);
        }
    } else if context::kernel_mode()
        && code & (PF_PRESENT | PF_WRITE | PF_RESERVED | PF_FETCH) == PF_PRESENT | PF_WRITE
        && vcpu.domain().assists(VmAssistType::WRITABLE_PAGETABLES)
        && mmu::emulate_table_write(vcpu, regs, address)
    {
        entry::want_iret(regs);
        return;
    }
    if quirks::user_iret(vcpu, regs, address) {
        return;
    }
    bounce::page_fault(vcpu, regs, address, code);
}

/// The CPU touched a descriptor of the LDT: map the page, or tell the guest about its own memory.
fn ldt_fault(vcpu: &Vcpu, regs: &mut Regs, offset: u64) {
    if registers::map_ldt_page(vcpu, offset) {
        entry::want_iret(regs);
        return;
    }
    let at = vcpu.ldt_base.load(Relaxed).wrapping_add(offset);
    if GuestVa(at).is_canonical() {
        let code = regs.error_code;
        bounce::page_fault(vcpu, regs, at, code);
    } else {
        bounce::exception(vcpu, regs, GENERAL_PROTECTION as u8, Some((offset as u32 & 0xfff8) | 4));
    }
}

fn device_not_available(vcpu: &Vcpu, regs: &mut Regs) {
    arch::fpu::set_ts(false);
    if vcpu.ts.swap(false, Relaxed) {
        reflect(vcpu, regs);
    } else {
        entry::want_iret(regs);
    }
}

fn general_protection(vcpu: &Vcpu, regs: &mut Regs) {
    if regs.error_code & GP_IDT != 0 {
        if !software_interrupt(vcpu, regs) {
            reflect(vcpu, regs);
        }
        return;
    }
    if regs.error_code == 0 && privileged::emulate(vcpu, regs) {
        return;
    }
    reflect(vcpu, regs);
}

/// INT n: every gate but three is closed to ring 3 by the hardware, and the guest's trap table says what is open.
fn software_interrupt(vcpu: &Vcpu, regs: &mut Regs) -> bool {
    let Some(vector) = quirks::int_vector(vcpu, regs) else { return false };
    let trap = &vcpu.traps[usize::from(vector)];
    let level = if context::kernel_mode() { 1 } else { 3 };
    if trap.dpl.load(Relaxed) < level {
        // What the guest sees must be what hardware says, whatever the machine said.
        regs.error_code = u32::from(vector) << 3 | GP_IDT;
        return false;
    }
    regs.rip = regs.rip.wrapping_add(2);
    bounce::enter(vcpu, regs, &trap.entry, Extra::None);
    true
}

/// What is due before the current vCPU goes on: called by the exit path until nothing is left.
#[inline]
pub fn exit_work(regs: &mut Regs) {
    let work = cpu::take_work();
    if work == Work::TIMER && current::vcpu().is_some() {
        // Who stops a vCPU calls for a decision too: nothing else is to be looked at.
        timers::run();
    } else {
        do_work(regs, work);
    }
}

#[inline(never)]
fn do_work(regs: &mut Regs, work: Work) {
    if work.contains(Work::TIMER) {
        timers::run();
    }
    if work.contains(Work::CONSOLE) {
        console::work();
    }
    if work.contains(Work::GRACE) {
        grace::pass();
    }
    if work.contains(Work::BURY) {
        death::look();
    }
    if work.contains(Work::HARDWARE) {
        mca::work();
        nmi::work();
    }
    let must_choose = match current::vcpu() {
        Some(vcpu) if vcpu.runnable() => false,
        Some(vcpu) => {
            crash::report(vcpu, regs);
            true
        }
        None => true,
    };
    if must_choose || work.contains(Work::SCHEDULE) {
        schedule::run();
    }
    if cpu::has_work() {
        return;
    }
    let Some(vcpu) = current::vcpu() else { return };
    if work.contains(Work::VCPU) {
        bounce::refresh(vcpu);
    }
    if vcpu.failsafe_due.load(Relaxed) || vcpu.nmi_pending.load(Relaxed) {
        deliver_rare(vcpu, regs);
    }
}

/// Delivers what hardly ever is due.
#[cold]
fn deliver_rare(vcpu: &Vcpu, regs: &mut Regs) {
    if vcpu.failsafe_due.swap(false, Relaxed) {
        // The selectors that were to be loaded; the refused ones are null in the registers.
        let selectors = vcpu.context.lock().selectors;
        bounce::enter(vcpu, regs, &vcpu.failsafe, Extra::Selectors(selectors));
    }
    if vcpu.nmi_pending.load(Relaxed) && !vcpu.nmi_masked.swap(true, Relaxed) {
        vcpu.nmi_pending.store(false, Relaxed);
        bounce::refresh(vcpu);
        bounce::exception(vcpu, regs, NMI as u8, None);
    }
}
