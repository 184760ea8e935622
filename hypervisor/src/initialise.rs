// SPDX-License-Identifier: MIT OR Apache-2.0
//! Setting a vCPU's whole state: from a guest's or a tool's `vcpu_guest_context`.
//!
//! Everything is checked before anything is set, but for the page tables and descriptor frames, whose references are taken
//! in order and given back when a later one fails.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use arch::Regs;
use hypercalls::vcpu::*;
use hypercalls::{Errno, GuestPtr, GuestVa, Maddr, Mfn, Result, TrapInfo, VcpuGuestContext};
use mm::pt::RootUse;

use crate::dispatch::Outcome;
use crate::emulate::crdr::{self, DebugRegs};
use crate::ops::registers::set_trap;
use crate::vcpu::Vcpu;
use crate::{guest, registers, time};

const IF: u64 = 1 << 9;
const IOPL: u64 = 3 << 12;

/// `VCPUOP_initialise`.
pub fn from_guest(target: &Vcpu, ptr: GuestPtr<VcpuGuestContext>) -> Outcome {
    let act = || {
        if target.status.initialised.load(SeqCst) {
            return Err(Errno::EEXIST);
        }
        if crate::host::is_dummy_info(target) {
            return Err(Errno::EINVAL);
        }
        let context = alloc::boxed::Box::new(guest::read(ptr)?);
        set(target, &context).map(|()| 0)
    };
    act().into()
}

fn canonical(addresses: &[u64]) -> Result<()> {
    if addresses.iter().all(|a| GuestVa(*a).is_canonical()) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Sets the state of a vCPU that is not running and makes it initialised; it stays down.
///
/// # Errors
/// `EINVAL` for an address that is not canonical, or frames that cannot be what they should be; what
/// [`DebugRegs::write`] says of the debug registers.
pub fn set(target: &Vcpu, from: &VcpuGuestContext) -> Result<()> {
    let user = &from.user_regs;
    canonical(&[from.event_callback_eip, from.failsafe_callback_eip, from.syscall_callback_eip])?;
    canonical(&[from.fs_base, from.gs_base_kernel, from.gs_base_user, user.rip])?;
    if from.gdt_ents > u64::from(registers::MAX_GDT_ENTRIES) || from.ldt_ents > u64::from(registers::MAX_LDT_ENTRIES) {
        return Err(Errno::EINVAL);
    }
    if from.ldt_ents != 0 && from.ldt_base & 4095 != 0 {
        return Err(Errno::EINVAL);
    }
    let cr4 = crdr::guest_cr4(from.ctrlreg[4], &target.domain().cpuid, arch::cpu::host_cr4());
    let debug = debug_registers(from, cr4)?;
    take_roots(target, Maddr(from.ctrlreg[3]).mfn(), Maddr(from.ctrlreg[1]).mfn())?;
    let frames = from.gdt_frames.map(Mfn);
    registers::set_gdt(target, &frames, from.gdt_ents as u32)?;
    for (vector, info) in (0u8..=255).zip(&from.trap_ctxt) {
        set_trap(target, &TrapInfo { vector, ..*info })?;
    }
    target.ldt_base.store(from.ldt_base, Relaxed);
    target.ldt_entries.store(from.ldt_ents as u32, Relaxed);
    target.kernel_ss.store(from.kernel_ss as u16 | 3, Relaxed);
    target.kernel_sp.store(from.kernel_sp, Relaxed);
    target.event.set(from.event_callback_eip, true);
    target.failsafe.set(from.failsafe_callback_eip, from.flags & VGCF_FAILSAFE_DISABLES_EVENTS != 0);
    target.syscall.set(from.syscall_callback_eip, from.flags & VGCF_SYSCALL_DISABLES_EVENTS != 0);
    target.cr4.store(cr4, Relaxed);
    *target.debug.lock() = debug;
    target.ts.store(from.ctrlreg[0] & 8 != 0, Relaxed);
    target.iopl.store((user.rflags >> 12 & 3) as u8, Relaxed);
    set_context(target, from);
    target.status.initialised.store(true, SeqCst);
    time::update(target);
    Ok(())
}

fn debug_registers(from: &VcpuGuestContext, cr4: u64) -> Result<DebugRegs> {
    let mut debug = DebugRegs::default();
    for (number, &value) in (0..).zip(&from.debugreg).filter(|(number, _)| !matches!(number, 4 | 5)) {
        debug.write(number, value, cr4)?;
    }
    Ok(debug)
}

fn take_roots(target: &Vcpu, kernel: Mfn, user: Mfn) -> Result<()> {
    let domain = target.domain();
    let ctx = domain.tables_ctx();
    let mut tables = domain.page_tables.lock();
    let mut get = |mfn, how| loop {
        match tables.get_root(&ctx, mfn, how) {
            // Cut short: the tables are pinned already where Linux and the tools come from, so this is rare and short.
            Err(Errno::ERESTART) => arch::cpu::reset_budget(),
            other => break other,
        }
    };
    let kernel_root = get(kernel, RootUse::Kernel)?;
    let user_root = if user.0 == 0 {
        None
    } else {
        match get(user, RootUse::User) {
            Ok(root) => Some(root),
            Err(error) => {
                tables.put_root(&ctx, kernel_root);
                return Err(error);
            }
        }
    };
    target.kernel_root.store(kernel.0, Relaxed);
    target.user_root.store(if user.0 == 0 { Mfn::INVALID.0 } else { user.0 }, Relaxed);
    let mut roots = target.roots.lock();
    let old = [roots.kernel.replace(kernel_root), core::mem::replace(&mut roots.user, user_root)];
    drop(roots);
    for root in old.into_iter().flatten() {
        tables.put_root(&ctx, root);
    }
    Ok(())
}

fn set_context(target: &Vcpu, from: &VcpuGuestContext) {
    let user = &from.user_regs;
    let mut saved = target.context.lock();
    saved.regs = Regs {
        r15: user.r15,
        r14: user.r14,
        r13: user.r13,
        r12: user.r12,
        rbp: user.rbp,
        rbx: user.rbx,
        r11: user.r11,
        r10: user.r10,
        r9: user.r9,
        r8: user.r8,
        rax: user.rax,
        rcx: user.rcx,
        rdx: user.rdx,
        rsi: user.rsi,
        rdi: user.rdi,
        error_code: 0,
        vector: 0,
        rip: user.rip,
        cs: u64::from(user.cs | 3),
        rflags: user.rflags & !(IOPL | 1 << 17) | IF | 2,
        rsp: user.rsp,
        ss: u64::from(user.ss | 3),
    };
    saved.selectors = [user.ds, user.es, user.fs, user.gs];
    saved.fs_base = from.fs_base;
    saved.gs_kernel = from.gs_base_kernel;
    saved.gs_user = from.gs_base_user;
    saved.kernel_mode = from.flags & VGCF_IN_KERNEL != 0;
    saved.fpu.reset();
    if from.flags & VGCF_I387_VALID != 0 {
        saved.fpu.set_legacy(&from.fpu_ctxt);
    }
}
