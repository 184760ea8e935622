// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bounce frames: how a guest kernel is entered.
//!
//! Every entry that Xenith makes on a guest's behalf (exceptions, events, system calls, NMIs, the failsafe callback) is built
//! by [`enter`]: it brings the vCPU to kernel mode, writes the frame onto the guest's stack, lowest address first
//!
//! ```text
//! rcx, r11, [ds, es, fs, gs], [error code], rip, cs | saved event mask << 32, rflags, rsp, ss
//! ```
//!
//! and points the registers at the handler. The stack address is guest input: the frame must lie outside the hole for
//! its whole length (XSA-215), and a fault while writing it crashes the domain, nobody else.

use core::sync::atomic::Ordering::Relaxed;

use arch::cpu::{self, Work};
use arch::{Regs, context, entry};
use hypercalls::GuestVa;
use hypercalls::segment::{FLAT_RING3_CS64, FLAT_RING3_SS64};
use hypercalls::shared_info::vcpu_offset;
use hypercalls::vm_assist::VmAssistType;

use crate::crash::{self, Reason};
use crate::registers;
use crate::vcpu::{Entry, Vcpu};

const TF: u64 = 1 << 8;
const IF: u64 = 1 << 9;
const IOPL: u64 = 3 << 12;
const NT: u64 = 1 << 14;
const RF: u64 = 1 << 16;
const VM: u64 = 1 << 17;
const AC: u64 = 1 << 18;

/// What goes between r11 and rip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Nothing.
    None,
    /// An error code.
    Code(u32),
    /// The data selectors, for the failsafe callback: ds, es, fs, gs.
    Selectors([u16; 4]),
}

/// Enters the guest kernel at `target`, or crashes the domain when that cannot be done.
#[inline(always)]
pub fn enter(vcpu: &Vcpu, regs: &mut Regs, target: &Entry, extra: Extra) {
    let address = target.address.load(Relaxed);
    if address == 0 {
        crash::domain(vcpu, Reason::NoHandler);
        return;
    }
    let masked = u64::from(cpu::event_mask().load(Relaxed) & 1);
    enter_at(vcpu, regs, address, masked, target.mask_events.load(Relaxed), extra);
}

/// As [`enter`], with the handler's address, the event mask (1: masked) as it is, and whether it is to be set given.
#[inline(always)]
fn enter_at(vcpu: &Vcpu, regs: &mut Regs, address: u64, masked: u64, mask_events: bool, extra: Extra) {
    let from_kernel = context::kernel_mode();
    let (top, rpl) = if from_kernel {
        (regs.rsp, 0)
    } else {
        context::to_kernel_mode();
        (vcpu.kernel_sp.load(Relaxed), 3)
    };
    let cs = regs.cs & 0xfffc | rpl | masked << 32;
    let rflags = regs.rflags & !(IF | IOPL) | (masked ^ 1) << 9 | u64::from(cpu::shown_flags());
    // Alignment comes before the error code and the rest: 7 words are 8 mod 16, 8 words 0 mod 16.
    let top = top & !15;
    let &mut Regs { rcx, r11, rip, rsp, ss, .. } = regs;
    let (at, written) = match extra {
        Extra::None => push(top, &[rcx, r11, rip, cs, rflags, rsp, ss]),
        Extra::Code(code) => push(top, &[rcx, r11, u64::from(code), rip, cs, rflags, rsp, ss]),
        Extra::Selectors([ds, es, fs, gs]) => {
            let [ds, es, fs, gs] = [ds, es, fs, gs].map(u64::from);
            push(top, &[rcx, r11, ds, es, fs, gs, rip, cs, rflags, rsp, ss])
        }
    };
    if written.is_err() {
        crash::domain(vcpu, Reason::BadStack(at));
        return;
    }
    if mask_events {
        cpu::event_mask().store(1, Relaxed);
    }
    regs.rsp = at;
    regs.rip = address;
    regs.cs = u64::from(FLAT_RING3_CS64);
    regs.ss = u64::from(FLAT_RING3_SS64);
    regs.rflags = regs.rflags & !(TF | NT | RF | VM | AC | IOPL) | IF;
    // The handler pops rcx and r11: the short way back may clobber them.
    regs.vector = entry::VECTOR_SYSCALL;
}

/// Writes a frame below `top`; returns where it starts.
#[inline(always)]
fn push<const N: usize>(top: u64, frame: &[u64; N]) -> (u64, Result<(), arch::GuestFault>) {
    let at = top.wrapping_sub(size_of::<[u64; N]>() as u64);
    (at, arch::guest::write_words(GuestVa(at), frame))
}

/// Delivers exception `vector` to the guest kernel.
pub fn exception(vcpu: &Vcpu, regs: &mut Regs, vector: u8, code: Option<u32>) {
    let trap = &vcpu.traps[usize::from(vector)];
    if trap.entry.address.load(Relaxed) == 0 {
        crash::domain(vcpu, Reason::NoTrapHandler(vector));
        return;
    }
    enter(vcpu, regs, &trap.entry, code.map_or(Extra::None, Extra::Code));
}

/// Delivers a page fault at `address`. The user bit of `code` is recomputed: all guest pages are ring 3's to the CPU.
pub fn page_fault(vcpu: &Vcpu, regs: &mut Regs, address: u64, code: u32) {
    const USER: u32 = 4;
    let user = if context::kernel_mode() { 0 } else { USER };
    vcpu.cr2.store(address, Relaxed);
    vcpu.vcpu_info().u64(vcpu_offset::ARCH_CR2).store(address, Relaxed);
    exception(vcpu, regs, 14, Some(code & !USER | user));
}

/// Delivers the event upcall: events are not masked.
pub fn event(vcpu: &Vcpu, regs: &mut Regs) {
    let address = vcpu.event.address.load(Relaxed);
    if address == 0 {
        crash::domain(vcpu, Reason::NoHandler);
        return;
    }
    enter_at(vcpu, regs, address, 0, true, Extra::None);
}

/// Returns from the guest kernel: the `iret` hypercall (runtime rules 4.4).
///
/// # Errors
/// The reason for which the domain must be crashed.
pub fn iret(vcpu: &Vcpu, regs: &mut Regs) -> Result<(), Reason> {
    use hypercalls::trap::IretContext;
    use hypercalls::vcpu::VGCF_IN_SYSCALL;
    let frame: IretContext =
        crate::guest::read(hypercalls::GuestPtr::new(regs.rsp)).map_err(|_| Reason::BadIretFrame(regs.rsp))?;
    if frame.cs & 3 == 3 && !context::to_user_mode() {
        return Err(Reason::NoUserTable);
    }
    regs.rip = frame.rip;
    regs.cs = frame.cs & 0xffff | 3;
    regs.rflags = frame.rflags & !(IOPL | VM) | IF | 2;
    regs.rsp = frame.rsp;
    regs.ss = frame.ss & 0xffff | 3;
    regs.rax = frame.rax;
    if frame.flags & VGCF_IN_SYSCALL == 0 {
        regs.rcx = frame.rcx;
        regs.r11 = frame.r11;
        entry::want_iret(regs);
    } else {
        regs.cs = u64::from(FLAT_RING3_CS64);
        regs.ss = u64::from(FLAT_RING3_SS64);
        regs.vector = entry::VECTOR_SYSCALL;
    }
    if vcpu.nmi_masked.load(Relaxed) {
        nmi_handled(vcpu);
    }
    if vcpu.domain().assists(VmAssistType::ARCHITECTURAL_IOPL) {
        registers::set_iopl(vcpu, (frame.rflags >> 12 & 3) as u8);
    }
    let mask = u8::from(frame.rflags & IF == 0);
    cpu::event_mask().store(mask, Relaxed);
    Ok(())
}

/// Brings up to date what this CPU knows of the current vCPU: whether there is more to see in an `iret` than the entry code
/// looks at, and what frames show beside the real flags.
pub fn refresh(vcpu: &Vcpu) {
    let shows_iopl = vcpu.domain().assists(VmAssistType::ARCHITECTURAL_IOPL);
    cpu::watch_iret(vcpu.nmi_masked.load(Relaxed) || shows_iopl);
    cpu::show_flags(if shows_iopl { u32::from(vcpu.iopl.load(Relaxed)) << 12 } else { 0 });
}

/// The handler of an NMI has returned: one that came meanwhile is next.
#[cold]
fn nmi_handled(vcpu: &Vcpu) {
    vcpu.nmi_masked.store(false, Relaxed);
    refresh(vcpu);
    if vcpu.nmi_pending.load(Relaxed) {
        cpu::raise_here(Work::VCPU);
    }
}
