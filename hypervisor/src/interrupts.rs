// SPDX-License-Identifier: MIT OR Apache-2.0
//! What interrupts the hypervisor or a guest from the machine's side: interrupts, NMIs, faults in the hypervisor itself.

use arch::cpu::{self, Work};
use arch::platform::{
    VECTOR_APIC_ERROR, VECTOR_CALL, VECTOR_RESCHEDULE, VECTOR_SPURIOUS, VECTOR_THERMAL, VECTOR_TIMER, VECTOR_TLB,
};
use arch::{Regs, VECTOR_IRQ_FIRST, VECTOR_IRQ_LAST, apic, context, entry};

use crate::stuck::{self, Accusation};
use crate::traps::{DEBUG, GENERAL_PROTECTION, MACHINE_CHECK, NMI, PAGE_FAULT};
use crate::{bounce, current, irq, mca, nmi, registers, snapshot, stop, thermal};

/// A fault in the hypervisor itself. Returns what to do next; does not return when it is a defect of ours.
pub fn hypervisor_exception(regs: &mut Regs) -> entry::AfterFault {
    if regs.vector == NMI {
        stop::here_if_asked();
        let asked = snapshot::answer_nmi(regs, false, crate::panic::return_addresses(regs.rbp));
        let accusation = stuck::take_accusation();
        if let Accusation::Holds { seconds } = accusation {
            crate::panic::stuck(regs, seconds);
        }
        nmi::came(regs, asked || accusation != Accusation::None);
        return entry::AfterFault::Resume;
    }
    if regs.vector == MACHINE_CHECK {
        mca::in_hypervisor(regs);
        return entry::AfterFault::Resume;
    }
    if regs.vector == DEBUG {
        // A guest's breakpoint or trace flag that hit on the way in (XSA-260): DR6 is cleared, nothing else is due.
        let _ = context::take_dr6();
        regs.rflags &= !(1 << 8);
        return entry::AfterFault::Resume;
    }
    let address = context::fault_address();
    if regs.vector == PAGE_FAULT
        && let Some(vcpu) = current::vcpu()
        && let Some(offset) = vcpu.window.ldt_offset(address)
        && registers::map_ldt_page(vcpu, offset)
    {
        return entry::AfterFault::Resume;
    }
    if arch::efi::recover(regs) {
        return entry::AfterFault::Resume;
    }
    let (vector, code) = (regs.vector, regs.error_code);
    match entry::recover(regs) {
        Some(entry::AfterFault::ToGuest) => {
            let Some(vcpu) = current::vcpu() else { crate::panic::fault(regs) };
            let frame = crate::panic::guest_frame();
            frame.vector = 0;
            // An LDT that is not there: the guest's own selector is at fault, not an address that it knows of.
            let (vector, code) = if vector == PAGE_FAULT { (GENERAL_PROTECTION, 0) } else { (vector, code) };
            bounce::exception(vcpu, frame, vector as u8, Some(code));
            entry::AfterFault::ToGuest
        }
        Some(after) => after,
        None => crate::panic::fault(regs),
    }
}

/// Handles an interrupt.
#[inline]
pub fn interrupt(regs: &mut Regs) {
    let vector = regs.vector as u8;
    if vector == VECTOR_TIMER {
        apic::end_of_interrupt();
        cpu::raise_here(Work::TIMER);
    } else {
        other_interrupt(vector);
    }
}

#[inline(never)]
fn other_interrupt(vector: u8) {
    match vector {
        VECTOR_IRQ_FIRST..=VECTOR_IRQ_LAST => return irq::interrupt(vector),
        VECTOR_SPURIOUS => return,
        _ => apic::end_of_interrupt(),
    }
    match vector {
        VECTOR_TLB => arch::tlb::serve(),
        VECTOR_RESCHEDULE => {}
        VECTOR_CALL => stop::here_if_asked(),
        VECTOR_THERMAL => thermal::came(cpu::this_cpu(), arch::platform::thermal::is_hot(), arch::time::now()),
        VECTOR_APIC_ERROR => log::warn!("CPU {}: APIC error {:#x}", cpu::this_cpu().0, apic::take_errors()),
        other => log::warn!("unexpected interrupt, vector {other:#x}"),
    }
}
