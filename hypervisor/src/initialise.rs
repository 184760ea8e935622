// SPDX-License-Identifier: MIT OR Apache-2.0
//! Setting a vCPU's whole state, from a guest's or a tool's `vcpu_guest_context`, and reading it back.
//!
//! Everything is checked before anything is set, but for the page tables and descriptor frames: their references are taken
//! in order, which can be cut short and goes on where it was, and given back when a later one fails.
//!
//! [`Domain::initialising`] is held from the look at whether a vCPU is initialised until it is.
//!
//! [`Domain::initialising`]: crate::domain::Domain::initialising

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use arch::Regs;
use hypercalls::vcpu::*;
use hypercalls::vm_assist::VmAssistType;
use hypercalls::{CpuUserRegs, Errno, GuestPtr, GuestVa, Maddr, Mfn, Result, TrapInfo, VcpuGuestContext, VcpuId};
use mm::pt::RootUse;
use mm::{PageTables, PtCtx, RootRef};

use crate::emulate::crdr::{self, DebugRegs};
use crate::ops::registers::set_trap;
use crate::vcpu::{Descriptors, Entry, Vcpu};
use crate::{guest, lingering, registers, schedule, time, timers};

const IF: u64 = 1 << 9;
const IOPL: u64 = 3 << 12;
const VM: u64 = 1 << 17;
const CR0_TS: u64 = 1 << 3;

/// `VCPUOP_initialise`.
///
/// # Errors
/// `EEXIST` when it is initialised, `EINVAL` when it has no `vcpu_info`, and what [`set`] says.
#[inline(never)]
pub fn from_guest(target: &Vcpu, ptr: GuestPtr<VcpuGuestContext>) -> Result<i64> {
    let _only_one = target.domain().initialising.lock();
    if target.status.initialised.load(SeqCst) {
        return Err(Errno::EEXIST);
    }
    if crate::host::is_dummy_info(target) {
        return Err(Errno::EINVAL);
    }
    let context = guest::read_boxed(ptr)?;
    context.first().map_or(Err(Errno::EFAULT), |context| set(target, context)).map(|()| 0)
}

fn canonical(addresses: &[u64]) -> Result<()> {
    if addresses.iter().all(|a| GuestVa(*a).is_canonical()) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Checks what can be checked without taking anything.
fn check(target: &Vcpu, from: &VcpuGuestContext) -> Result<()> {
    let user = &from.user_regs;
    canonical(&[from.event_callback_eip, from.failsafe_callback_eip, from.syscall_callback_eip])?;
    canonical(&[from.fs_base, from.gs_base_kernel, from.gs_base_user, user.rip, user.rsp, from.kernel_sp])?;
    if !from.trap_ctxt.iter().all(|trap| GuestVa(trap.address).is_canonical()) {
        return Err(Errno::EINVAL);
    }
    if from.gdt_ents > u64::from(registers::MAX_GDT_ENTRIES) || from.ldt_ents > u64::from(registers::MAX_LDT_ENTRIES) {
        return Err(Errno::EINVAL);
    }
    let ldt_ok = from.ldt_base & 4095 == 0 && GuestVa(from.ldt_base).range_ok(from.ldt_ents * 8);
    if from.ldt_ents != 0 && !ldt_ok {
        return Err(Errno::EINVAL);
    }
    if target.id.0 == 0 && (0..64).any(|n| from.vm_assist >> n & 1 != 0 && VmAssistType(n).mask().is_none()) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// What an initialised vCPU keeps.
fn is_unchanged(target: &Vcpu, from: &VcpuGuestContext) -> bool {
    let held = target.descriptors.lock();
    let gdt = held.gdt.iter().zip(&from.gdt_frames).take((from.gdt_ents as usize).div_ceil(512));
    let root = |word: u64| if word == Mfn::INVALID.0 { 0 } else { Mfn(word).maddr().0 };
    let has_user_root = target.user_root.load(Relaxed) != Mfn::INVALID.0;
    root(target.kernel_root.load(Relaxed)) == from.ctrlreg[3]
        && root(target.user_root.load(Relaxed)) == from.ctrlreg[1]
        && (has_user_root || from.flags & VGCF_IN_KERNEL != 0)
        && u64::from(target.gdt_entries.load(Relaxed)) == from.gdt_ents
        && gdt.into_iter().all(|(page, frame)| page.as_ref().map(|p| p.mfn().0) == Some(*frame))
        && u64::from(target.ldt_entries.load(Relaxed)) == from.ldt_ents
        && (from.ldt_ents == 0 || target.ldt_base.load(Relaxed) == from.ldt_base)
}

/// Sets the state of a vCPU that is not running, and makes it initialised. Whether it is up afterwards, the state says. One
/// that is initialised already keeps its address space and its descriptor tables.
///
/// # Errors
/// `ERESTART`: to be called again with the same state. `EINVAL` for an address that is not canonical, or frames that cannot
/// be what they should be; `EOPNOTSUPP` for other tables than an initialised vCPU has; what [`DebugRegs::write`] says of the
/// debug registers.
pub fn set(target: &Vcpu, from: &VcpuGuestContext) -> Result<()> {
    check(target, from)?;
    let cr4 = crdr::guest_cr4(from.ctrlreg[4], &target.domain().cpuid.now(), arch::cpu::host_cr4());
    let debug = debug_registers(from, cr4)?;
    if !target.status.initialised.load(SeqCst) {
        if from.flags & VGCF_IN_KERNEL == 0 && from.ctrlreg[1] == 0 {
            return Err(Errno::EINVAL);
        }
        if let Err(error) = take_tables(target, from) {
            return Err(if error == Errno::ERESTART { error } else { give_up_tables(target).err().unwrap_or(error) });
        }
    } else if !is_unchanged(target, from) {
        return Err(Errno::EOPNOTSUPP);
    }
    for (vector, info) in (0u8..=255).zip(&from.trap_ctxt) {
        set_trap(target, &TrapInfo { vector, ..*info })?;
    }
    target.kernel_ss.store(from.kernel_ss as u16 | 3, Relaxed);
    target.kernel_sp.store(from.kernel_sp, Relaxed);
    target.event.set(from.event_callback_eip, true);
    target.failsafe.set(from.failsafe_callback_eip, from.flags & VGCF_FAILSAFE_DISABLES_EVENTS != 0);
    target.syscall.set(from.syscall_callback_eip, from.flags & VGCF_SYSCALL_DISABLES_EVENTS != 0);
    target.cr4.store(cr4, Relaxed);
    *target.debug.lock() = debug;
    target.ts.store(from.ctrlreg[0] & CR0_TS != 0, Relaxed);
    registers::set_iopl(target, (from.user_regs.rflags >> 12 & 3) as u8);
    set_context(target, from);
    target.status.initialised.store(true, SeqCst);
    time::update(target);
    if target.id == VcpuId(0) {
        // Tools clear the shared page of a domain that they build.
        time::publish_wall_clock(target.domain());
    }
    set_down(target, from.flags & VGCF_ONLINE == 0);
    Ok(())
}

fn set_down(target: &Vcpu, down: bool) {
    target.status.down.store(down, SeqCst);
    if down { schedule::stop(target) } else { schedule::wake(target) }
}

/// Takes the references to the frames of a new vCPU's tables.
fn take_tables(target: &Vcpu, from: &VcpuGuestContext) -> Result<()> {
    registers::set_gdt(target, &from.gdt_frames.map(Mfn), from.gdt_ents as u32)?;
    take_roots(target, Maddr(from.ctrlreg[3]).mfn(), Maddr(from.ctrlreg[1]).mfn())?;
    target.ldt_base.store(from.ldt_base, Relaxed);
    target.ldt_entries.store(from.ldt_ents as u32, Relaxed);
    if target.id.0 == 0 {
        target.domain().assist.store(from.vm_assist, SeqCst);
    }
    Ok(())
}

fn debug_registers(from: &VcpuGuestContext, cr4: u64) -> Result<DebugRegs> {
    let mut debug = DebugRegs::default();
    for (number, &value) in (0..).zip(&from.debugreg).filter(|(number, _)| !matches!(number, 4 | 5)) {
        debug.write(number, value, cr4)?;
    }
    Ok(debug)
}

/// Puts a root table in the place of the one that is held, if it is another one. The table for user mode may be none.
fn exchange(
    tables: &mut PageTables,
    ctx: &PtCtx<'_>,
    held: &mut Option<RootRef>,
    wanted: Option<Mfn>,
    how: RootUse,
) -> Result<()> {
    if held.as_ref().map(RootRef::mfn) == wanted {
        return Ok(());
    }
    let new = wanted.map(|mfn| tables.get_root(ctx, mfn, how)).transpose()?;
    let old = core::mem::replace(held, new);
    old.into_iter().for_each(|old| tables.put_root(ctx, old));
    Ok(())
}

fn take_roots(target: &Vcpu, kernel: Mfn, user: Mfn) -> Result<()> {
    let domain = target.domain();
    let ctx = domain.tables_ctx();
    lingering::evict(target);
    let mut tables = domain.page_tables.lock();
    // A vCPU whose reset was cut short may have some left of its LDT.
    registers::drop_ldt(target);
    let mut roots = target.roots.lock();
    exchange(&mut tables, &ctx, &mut roots.kernel, Some(kernel), RootUse::Kernel)?;
    target.kernel_root.store(kernel.0, Relaxed);
    let user = Some(user).filter(|user| user.0 != 0);
    exchange(&mut tables, &ctx, &mut roots.user, user, RootUse::User)?;
    target.user_root.store(user.unwrap_or(Mfn::INVALID).0, Relaxed);
    Ok(())
}

/// Gives back all references to frames of a vCPU's tables. It does not run.
///
/// # Errors
/// `ERESTART`: to be called again.
pub fn give_up_tables(target: &Vcpu) -> Result<()> {
    let domain = target.domain();
    let ctx = domain.tables_ctx();
    lingering::evict(target);
    let mut tables = domain.page_tables.lock();
    for (root, word) in [(true, &target.kernel_root), (false, &target.user_root)] {
        tables.drain(&ctx)?;
        word.store(Mfn::INVALID.0, Relaxed);
        let mut roots = target.roots.lock();
        let held = if root { roots.kernel.take() } else { roots.user.take() };
        drop(roots);
        held.into_iter().for_each(|held| tables.put_root(&ctx, held));
    }
    for page in 0..arch::window::GDT_PAGES {
        target.window.set_gdt_page(page, None);
    }
    for page in 0..arch::window::LDT_PAGES {
        target.window.set_ldt_page(page, None);
    }
    target.gdt_entries.store(0, Relaxed);
    target.ldt_entries.store(0, Relaxed);
    *target.descriptors.lock() = Descriptors::default();
    tables.finish(&ctx);
    tables.drain(&ctx)
}

/// Makes a vCPU that does not run one that is not initialised, and down.
///
/// # Errors
/// `ERESTART`: to be called again.
pub fn reset(target: &Vcpu) -> Result<()> {
    // First of all: what follows may be cut short, and its domain may run meanwhile.
    target.status.initialised.store(false, SeqCst);
    set_down(target, true);
    give_up_tables(target)?;
    schedule::wake_poller(target);
    target.status.blocked.store(false, SeqCst);
    timers::stop_all(target);
    target.xcr0.store(1, Relaxed);
    target.xcr0_accum.store(1, Relaxed);
    target.context.lock().fpu.reset();
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
        rflags: user.rflags & !(IOPL | VM) | IF | 2,
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

/// Reads the state of a vCPU that is not running.
pub fn get(vcpu: &Vcpu, to: &mut VcpuGuestContext) {
    let set = |condition: bool, flag: u64| if condition { flag } else { 0 };
    let saved = vcpu.context.lock();
    to.fpu_ctxt = saved.fpu.legacy();
    to.flags = VGCF_I387_VALID
        | set(saved.kernel_mode, VGCF_IN_KERNEL)
        | set(!vcpu.status.down.load(SeqCst), VGCF_ONLINE)
        | set(vcpu.failsafe.mask_events.load(Relaxed), VGCF_FAILSAFE_DISABLES_EVENTS)
        | set(vcpu.syscall.mask_events.load(Relaxed), VGCF_SYSCALL_DISABLES_EVENTS);
    to.user_regs = registers_of(&saved, u64::from(vcpu.iopl.load(Relaxed)));
    (to.fs_base, to.gs_base_kernel, to.gs_base_user) = (saved.fs_base, saved.gs_kernel, saved.gs_user);
    drop(saved);
    for ((vector, trap), info) in (0..=255).zip(vcpu.traps.iter()).zip(&mut to.trap_ctxt) {
        let address = trap.entry.address.load(Relaxed);
        if address != 0 {
            let masks = if trap.entry.mask_events.load(Relaxed) { hypercalls::trap::TRAP_MASK_EVENTS } else { 0 };
            let (flags, cs) = (trap.dpl.load(Relaxed) | masks, trap.cs.load(Relaxed));
            *info = TrapInfo { vector, flags, cs, address, ..TrapInfo::default() };
        }
    }
    get_tables(vcpu, to);
    let debug = vcpu.debug.lock();
    to.debugreg = debug.loaded();
    to.debugreg[7] |= debug.ports;
    to.kernel_ss = u64::from(vcpu.kernel_ss.load(Relaxed));
    to.kernel_sp = vcpu.kernel_sp.load(Relaxed);
    let address = |entry: &Entry| entry.address.load(Relaxed);
    to.event_callback_eip = address(&vcpu.event);
    to.failsafe_callback_eip = address(&vcpu.failsafe);
    to.syscall_callback_eip = address(&vcpu.syscall);
    to.vm_assist = vcpu.domain().assist.load(SeqCst);
}

fn get_tables(vcpu: &Vcpu, to: &mut VcpuGuestContext) {
    let root = |word: u64| if word == Mfn::INVALID.0 { 0 } else { Mfn(word).maddr().0 };
    to.ldt_base = vcpu.ldt_base.load(Relaxed);
    to.ldt_ents = u64::from(vcpu.ldt_entries.load(Relaxed));
    for (to, page) in to.gdt_frames.iter_mut().zip(&vcpu.descriptors.lock().gdt) {
        *to = page.as_ref().map_or(0, |page| page.mfn().0);
    }
    to.gdt_ents = u64::from(vcpu.gdt_entries.load(Relaxed));
    to.ctrlreg[0] = arch::cpu::guest_cr0() & !CR0_TS | if vcpu.ts.load(Relaxed) { CR0_TS } else { 0 };
    to.ctrlreg[1] = root(vcpu.user_root.load(Relaxed));
    to.ctrlreg[3] = root(vcpu.kernel_root.load(Relaxed));
    to.ctrlreg[4] = vcpu.cr4.load(Relaxed);
}

fn registers_of(saved: &arch::context::Context, iopl: u64) -> CpuUserRegs {
    let regs = &saved.regs;
    let [ds, es, fs, gs] = saved.selectors;
    CpuUserRegs {
        r15: regs.r15,
        r14: regs.r14,
        r13: regs.r13,
        r12: regs.r12,
        rbp: regs.rbp,
        rbx: regs.rbx,
        r11: regs.r11,
        r10: regs.r10,
        r9: regs.r9,
        r8: regs.r8,
        rax: regs.rax,
        rcx: regs.rcx,
        rdx: regs.rdx,
        rsi: regs.rsi,
        rdi: regs.rdi,
        rip: regs.rip,
        cs: regs.cs as u16,
        rflags: regs.rflags & !IOPL | iopl << 12,
        rsp: regs.rsp,
        ss: regs.ss as u16,
        ds,
        es,
        fs,
        gs,
        ..CpuUserRegs::default()
    }
}
