// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ways in and out of the hypervisor: the register frame of the interrupted guest, and waiting for an interrupt.
#![expect(unsafe_code, reason = "hands out the CPU's register frame")]

use crate::area::area;
use crate::cpu::{self, Work};
use crate::timer;
use arch_types::Regs;
use hypercalls::GuestVa;

/// `Regs::vector` of a SYSCALL from 64-bit code; a frame that says so may be left by SYSRET, so whoever wants rcx and
/// r11 restored changes it.
pub const VECTOR_SYSCALL: u32 = 0x100;
/// `Regs::vector` of a SYSENTER.
pub const VECTOR_SYSENTER: u32 = 0x101;
/// `Regs::vector` of a SYSCALL from 32-bit code.
pub const VECTOR_SYSCALL32: u32 = 0x102;

/// Calls `f` with the frame of the guest on this CPU, as the entry stubs call their handlers.
pub fn with_frame<T>(f: impl FnOnce(&mut Regs) -> T) -> T {
    // SAFETY: this CPU's frame. As on the machine, a context switch under way writes it by another way, and only
    // functions that know (`exit_work`) are called so.
    f(unsafe { &mut *area().regs.get() })
}

/// This CPU has nothing to do until something comes from outside: what [`std::panic::catch_unwind`] finds. It is no panic.
/// The CPU goes on by going the way back to a guest again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle;

/// Waits until an interrupt has been handled: this CPU's timer, if its time has come, else none. As long as there is no
/// work the stack is unwound with [`Idle`].
pub fn wait_for_interrupt() {
    take_interrupts();
    if !cpu::has_work() {
        std::panic::resume_unwind(std::boxed::Box::new(Idle));
    }
}

/// Takes the interrupt of this CPU's timer, if its time has come.
pub fn take_interrupts() {
    if timer::expired(cpu::this_cpu()) {
        cpu::raise_here(Work::TIMER);
    }
}

/// Makes a frame return by IRETQ, restoring rcx and r11.
#[inline(always)]
pub fn want_iret(regs: &mut Regs) {
    regs.vector = 0;
}

/// True when a guest may put this address into RIP.
#[inline(always)]
pub const fn rip_ok(rip: GuestVa) -> bool {
    rip.is_canonical()
}
