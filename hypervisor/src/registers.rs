// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest sets in its vCPU's registers: descriptor tables, debug registers, segment bases, control registers.
//!
//! Functions with `current` in their contract act on the vCPU that this CPU has loaded; the atomics of [`Vcpu`] hold the
//! truth, the hardware follows at once, and [`refresh`] brings a saved context up to date before it is loaded.

use core::sync::atomic::Ordering::Relaxed;

use arch::context::{self, Context};
use hypercalls::{Errno, GuestVa, Maddr, Mfn, Result};
use mm::SegDescRef;

use crate::vcpu::Vcpu;

/// GDT entries that a guest may have: 14 pages.
pub const MAX_GDT_ENTRIES: u32 = 14 * 512;
/// LDT entries that a guest may have.
pub const MAX_LDT_ENTRIES: u32 = 8192;

fn root(word: u64) -> Maddr {
    if word == Mfn::INVALID.0 { Maddr(0) } else { Mfn(word).maddr() }
}

/// Brings a saved context up to date with what was set while the vCPU was not running.
pub fn refresh(vcpu: &Vcpu, saved: &mut Context) {
    saved.cr3_kernel = root(vcpu.kernel_root.load(Relaxed));
    saved.cr3_user = root(vcpu.user_root.load(Relaxed));
    saved.cr4 = vcpu.domain().tsc.cr4(vcpu.cr4.load(Relaxed));
    saved.ts = vcpu.ts.load(Relaxed);
    saved.tsc_aux = vcpu.tsc_aux.load(Relaxed);
    sync(vcpu, saved);
    saved.ldt_entries = vcpu.ldt_entries.load(Relaxed);
}

/// Tells a context which FPU components and breakpoints its vCPU uses: before it is saved and before it is loaded.
pub fn sync(vcpu: &Vcpu, saved: &mut Context) {
    saved.debug = vcpu.debug.lock().loaded();
    saved.fpu.xcr0 = vcpu.xcr0.load(Relaxed);
    saved.fpu.xcr0_accum = vcpu.xcr0_accum.load(Relaxed);
}

/// Sets the GDT of a vCPU that is current or not running: all new frames are held before the old ones are let go.
///
/// # Errors
/// `EINVAL` for too many entries or a frame that cannot hold descriptors.
pub fn set_gdt(vcpu: &Vcpu, frames: &[Mfn], entries: u32) -> Result<()> {
    let pages = (entries as usize).div_ceil(512);
    if entries > MAX_GDT_ENTRIES || frames.len() < pages {
        return Err(Errno::EINVAL);
    }
    let domain = vcpu.domain();
    let mut tables = domain.page_tables.lock();
    let ctx = domain.tables_ctx();
    let mut taken: [Option<SegDescRef>; 14] = [const { None }; 14];
    for (slot, &frame) in taken.iter_mut().zip(frames).take(pages) {
        *slot = Some(tables.get_segdesc(&ctx, frame)?);
    }
    let mut held = vcpu.descriptors.lock();
    for (page, new) in taken.iter().enumerate() {
        vcpu.window.set_gdt_page(page, new.as_ref().map(SegDescRef::mfn));
    }
    held.gdt = taken;
    vcpu.gdt_entries.store(entries, Relaxed);
    Ok(())
}

/// Drops all mappings of the current vCPU's LDT; they come back when touched. The page-table lock is held.
pub fn drop_ldt(vcpu: &Vcpu) {
    if vcpu.ldt_entries.load(Relaxed) == 0 {
        return;
    }
    let mut held = vcpu.descriptors.lock();
    for (page, slot) in held.ldt.iter_mut().enumerate() {
        if slot.is_some() {
            vcpu.window.set_ldt_page(page, None);
            *slot = None;
        }
    }
}

/// Sets the LDT of the current vCPU. The page-table lock is held.
///
/// # Errors
/// `EINVAL` for an address that is not page-aligned guest memory, or too many entries.
pub fn set_ldt(vcpu: &Vcpu, base: GuestVa, entries: u32) -> Result<()> {
    let bad_base = base.0 & 4095 != 0 || !base.range_ok(u64::from(entries) * 8);
    if entries > MAX_LDT_ENTRIES || (entries != 0 && bad_base) {
        return Err(Errno::EINVAL);
    }
    if vcpu.ldt_base.load(Relaxed) == base.0 && vcpu.ldt_entries.load(Relaxed) == entries {
        return Ok(());
    }
    drop_ldt(vcpu);
    vcpu.ldt_base.store(base.0, Relaxed);
    vcpu.ldt_entries.store(entries, Relaxed);
    context::load_ldt(&vcpu.window, entries);
    Ok(())
}

/// Maps the LDT page that the CPU touched at `offset`; false when the guest must be told of a page fault instead.
pub fn map_ldt_page(vcpu: &Vcpu, offset: u64) -> bool {
    if offset >= u64::from(vcpu.ldt_entries.load(Relaxed)) * 8 {
        return false;
    }
    let va = GuestVa(vcpu.ldt_base.load(Relaxed).wrapping_add(offset));
    let domain = vcpu.domain();
    let mut tables = domain.page_tables.lock();
    let Some(frame) = mm::walk(vcpu.kernel_mfn(), va).mapped() else { return false };
    let Ok(held) = tables.get_segdesc(&domain.tables_ctx(), frame) else { return false };
    let page = (offset / 4096) as usize;
    match vcpu.descriptors.lock().ldt.get_mut(page) {
        Some(slot) => *slot = Some(held),
        None => return false,
    }
    vcpu.window.set_ldt_page(page, Some(frame));
    true
}

/// Sets a debug register of the current vCPU (runtime rules 6.6).
///
/// # Errors
/// `EPERM`, `EINVAL`, `ENODEV` as [`DebugRegs::write`] has them.
pub fn set_debug(vcpu: &Vcpu, register: u64, value: u64) -> Result<()> {
    let mut debug = vcpu.debug.lock();
    let was_active = debug.active();
    debug.write(register, value, vcpu.cr4.load(Relaxed))?;
    if was_active || debug.active() {
        context::load_debug(&debug.loaded());
    }
    Ok(())
}

/// Reads a debug register of the current vCPU.
///
/// # Errors
/// `ENODEV` when there is no such register.
pub fn get_debug(vcpu: &Vcpu, register: u64) -> Result<u64> {
    vcpu.debug.lock().read(register, vcpu.cr4.load(Relaxed))
}

/// Sets the virtual I/O privilege level of a vCPU.
pub fn set_iopl(vcpu: &Vcpu, level: u8) {
    vcpu.iopl.store(level, Relaxed);
    if context::current() == core::ptr::from_ref(vcpu) as usize {
        crate::bounce::refresh(vcpu);
    }
}

/// Sets CR0.TS as the current vCPU sees it.
pub fn set_ts(vcpu: &Vcpu, on: bool) {
    vcpu.ts.store(on, Relaxed);
    arch::fpu::set_ts(on);
}
