// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a vCPU has in hardware: loaded when it is scheduled in, saved when it is scheduled out.
//!
//! While a vCPU is loaded, its FS and both its GS bases are in the registers (the hypervisor uses neither segment),
//! its address space is in CR3, and toggling between guest kernel and guest user is a `swapgs` and a CR3 load.
//! Between [`Context::load`] and [`Context::save`] the saved copies are stale, except where a function says otherwise.
#![expect(unsafe_code, reason = "loads segments, bases, debug registers and address spaces")]

use alloc::sync::Arc;
use core::arch::asm;
use core::sync::atomic::Ordering;

use arch_types::Regs;
use hypercalls::{GuestVa, Maddr};

use crate::cpu_area::area;
use crate::fpu::{self, FpuState};
use crate::window::Window;
use crate::{cpu, descriptors, entry, features, msr, tlb};

/// CR4 bits that a guest chooses for itself: TSD, DE, FSGSBASE.
const GUEST_CR4: u64 = 1 << 2 | 1 << 3 | 1 << 16;

/// The hardware state of a vCPU that is not running.
#[derive(Debug)]
pub struct Context {
    /// General registers and the frame to return to.
    pub regs: Regs,
    /// FPU and vector registers.
    pub fpu: FpuState,
    /// GDT and LDT of the vCPU.
    pub window: Arc<Window>,
    /// Base of FS.
    pub fs_base: u64,
    /// Base of GS in kernel mode.
    pub gs_kernel: u64,
    /// Base of GS in user mode.
    pub gs_user: u64,
    /// Selectors of DS, ES, FS and GS.
    pub selectors: [u16; 4],
    /// True in (virtual) kernel mode.
    pub kernel_mode: bool,
    /// L4 of kernel mode.
    pub cr3_kernel: Maddr,
    /// L4 of user mode, 0 when there is none.
    pub cr3_user: Maddr,
    /// CR4 bits that the guest chose.
    pub cr4: u64,
    /// CR0.TS as the guest sees it.
    pub ts: bool,
    /// DR0-3, DR6 and DR7; [4] and [5] are unused.
    pub debug: [u64; 8],
    /// TSC_AUX.
    pub tsc_aux: u32,
    /// Base and number of entries of the LDT in the window; 0 when none.
    pub ldt_entries: u32,
}

/// A selector could not be loaded; it was replaced by null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSelector;

macro_rules! load_selector {
    ($name:ident, $seg:literal) => {
        fn $name(selector: u16) -> Result<(), BadSelector> {
            let failed: u32;
            // SAFETY: a bad selector faults, and the fix-up loads null instead.
            unsafe {
                asm!(concat!("2: mov ", $seg, ", {sel:x}"), "3:",
                     ".pushsection .text.recover, \"ax\"", "4: xor {sel:e}, {sel:e}",
                     concat!("mov ", $seg, ", {sel:x}"), "mov {failed:e}, 1", "jmp 3b", ".popsection",
                     ".pushsection .fixup, \"a\"", ".quad 2b, 4b", ".popsection",
                     sel = inout(reg) u32::from(selector) => _, failed = inout(reg) 0 => failed,
                     options(nostack));
            }
            if failed == 0 { Ok(()) } else { Err(BadSelector) }
        }
    };
}
load_selector!(load_ds, "ds");
load_selector!(load_es, "es");
load_selector!(load_fs, "fs");
load_selector!(load_gs, "gs");

/// The data segments of a vCPU that is loaded but for them.
#[must_use]
#[derive(Debug)]
pub struct Segments {
    selectors: [u16; 4],
    fs_base: u64,
    gs_base: u64,
    other_gs_base: u64,
}

impl Segments {
    /// Loads them. No lock may be held: an LDT page that is not mapped yet faults.
    ///
    /// # Errors
    /// [`BadSelector`] when DS, ES, FS or GS could not be loaded: the guest's failsafe callback is due.
    pub fn load(self) -> Result<(), BadSelector> {
        let [ds, es, fs, gs] = self.selectors;
        let result = [load_ds(ds), load_es(es), load_fs(fs), load_gs(gs)].into_iter().collect();
        // Loading a selector may have changed the base: bases come last.
        msr::write(msr::FS_BASE, self.fs_base);
        msr::write(msr::GS_BASE, self.gs_base);
        msr::write(msr::KERNEL_GS_BASE, self.other_gs_base);
        result
    }
}

fn selectors() -> [u16; 4] {
    let (ds, es, fs, gs): (u32, u32, u32, u32);
    // SAFETY: reads registers.
    unsafe {
        asm!("mov {0:e}, ds", "mov {1:e}, es", "mov {2:e}, fs", "mov {3:e}, gs",
             out(reg) ds, out(reg) es, out(reg) fs, out(reg) gs, options(nomem, nostack, preserves_flags));
    }
    [ds as u16, es as u16, fs as u16, gs as u16]
}

impl Context {
    /// Loads the vCPU onto this CPU. `vcpu` and `info` are what the entry code needs to know of it.
    ///
    /// Its segments are left: their descriptors may lie in an LDT page that a fault has yet to map, for which the caller
    /// must hold no lock.
    ///
    /// With `resumes`, it was the last to run here, its translations are to stay if the CPU still lingers among them, and the
    /// caller knows that none is stale.
    pub fn load(&self, vcpu: usize, info: usize, resumes: bool) -> Segments {
        let a = area();
        a.vcpu.store(vcpu, Ordering::Relaxed);
        cpu::set_vcpu_info(Some(info));
        a.kernel_mode.store(u32::from(self.kernel_mode), Ordering::Relaxed);
        a.cr3_kernel.store(self.cr3_kernel.0, Ordering::Relaxed);
        a.cr3_user.store(self.cr3_user.0, Ordering::Relaxed);
        set_guest_cr4(self.cr4);
        let root = if self.kernel_mode { self.cr3_kernel } else { self.cr3_user };
        if a.lingers.swap(0, Ordering::Relaxed) != root.0 || !resumes {
            tlb::load_cr3_flush_all(root.0);
        }
        self.window.use_on_this_cpu();
        descriptors::load_ldt(cpu::gdt_page_of(cpu::this_cpu()), self.window.ldt_base(), self.ldt_entries);
        fpu::set_ts(false);
        self.fpu.load();
        fpu::set_ts(self.ts);
        if features::get().rdtscp {
            msr::write(msr::TSC_AUX, u64::from(self.tsc_aux));
        }
        if self.debug[7] & 0xff != 0 {
            load_debug(&self.debug);
        }
        // SAFETY: this CPU's frame; the exit path is not running.
        unsafe { *a.regs.get() = self.regs };
        let (gs_base, other_gs_base) =
            if self.kernel_mode { (self.gs_kernel, self.gs_user) } else { (self.gs_user, self.gs_kernel) };
        Segments { selectors: self.selectors, fs_base: self.fs_base, gs_base, other_gs_base }
    }

    /// Saves the vCPU from this CPU, which is left in the hypervisor's own address space, or `lingers` in the vCPU's.
    ///
    /// A CPU that lingers leaves when it is to flush, whatever the flush is for, and before it says that it has: so nothing
    /// that would wait for a flush of this CPU becomes of the address space's tables.
    pub fn save(&mut self, lingers: bool) {
        let a = area();
        // SAFETY: this CPU's frame; the exit path is not running.
        self.regs = unsafe { *a.regs.get() };
        self.kernel_mode = kernel_mode();
        self.selectors = selectors();
        self.fs_base = msr::read(msr::FS_BASE);
        let (active, other) = (msr::read(msr::GS_BASE), msr::read(msr::KERNEL_GS_BASE));
        (self.gs_kernel, self.gs_user) = if self.kernel_mode { (active, other) } else { (other, active) };
        fpu::set_ts(false);
        self.fpu.save();
        if self.debug[7] & 0xff != 0 {
            // SAFETY: breakpoints off.
            unsafe { asm!("mov dr7, {}", in(reg) 0u64, options(nostack, preserves_flags)) };
        }
        // Null selectors: the descriptors they came from are about to go away.
        for load in [load_ds, load_es, load_fs, load_gs] {
            load(0).expect("the null selector always loads");
        }
        descriptors::load_ldt(cpu::gdt_page_of(cpu::this_cpu()), 0, 0);
        descriptors::load_gdt(cpu::gdt_page_of(cpu::this_cpu()) as u64 - descriptors::RESERVED_BYTE);
        a.vcpu.store(0, Ordering::Relaxed);
        cpu::set_vcpu_info(None);
        if lingers {
            let root = if self.kernel_mode { &a.cr3_kernel } else { &a.cr3_user };
            a.lingers.store(root.load(Ordering::Relaxed), Ordering::Relaxed);
        } else {
            tlb::load_cr3_flush_all(cpu::idle_cr3().0);
        }
    }
}

/// True while this idle CPU is in the address space of the vCPU that it ran last.
pub fn lingers() -> bool {
    area().lingers.load(Ordering::Relaxed) != 0
}

/// Loads the guest's choice of CR4 bits.
pub fn set_guest_cr4(bits: u64) {
    let a = area();
    let old = a.cr4.load(Ordering::Relaxed);
    let mut allowed = GUEST_CR4;
    if !features::get().fsgsbase {
        allowed &= !(1 << 16);
    }
    let new = old & !GUEST_CR4 | bits & allowed;
    if new != old {
        a.cr4.store(new, Ordering::Relaxed);
        // SAFETY: only bits that ring 3 may have on or off.
        unsafe { asm!("mov cr4, {}", in(reg) new, options(nostack, preserves_flags)) };
    }
}

/// Loads debug registers that the hypervisor has checked.
pub fn load_debug(dr: &[u64; 8]) {
    // SAFETY: breakpoint addresses are the guest's own; DR6 and DR7 have no reserved bit (checked when set).
    unsafe {
        asm!("mov dr0, {}", in(reg) dr[0], options(nostack, preserves_flags));
        asm!("mov dr1, {}", in(reg) dr[1], options(nostack, preserves_flags));
        asm!("mov dr2, {}", in(reg) dr[2], options(nostack, preserves_flags));
        asm!("mov dr3, {}", in(reg) dr[3], options(nostack, preserves_flags));
        asm!("mov dr6, {}", in(reg) dr[6], options(nostack, preserves_flags));
        asm!("mov dr7, {}", in(reg) dr[7], options(nostack, preserves_flags));
    }
}

/// Reads DR6 and clears it for the next debug exception.
pub fn take_dr6() -> u64 {
    let value: u64;
    // SAFETY: DR6 is only a record; 0xffff0ff0 is its cleared state.
    unsafe {
        asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags));
        asm!("mov dr6, {}", in(reg) 0xffff_0ff0u64, options(nostack, preserves_flags));
    }
    value
}

/// Reads CR2, the address of the last page fault.
#[inline]
pub fn fault_address() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// True while the current vCPU is in (virtual) kernel mode.
#[inline(always)]
pub fn kernel_mode() -> bool {
    area().kernel_mode.load(Ordering::Relaxed) != 0
}

/// The hypervisor's object for the current vCPU, 0 when idle.
#[inline(always)]
pub fn current() -> usize {
    area().vcpu.load(Ordering::Relaxed)
}

/// Takes the current vCPU from user to kernel mode.
#[inline(always)]
pub fn to_kernel_mode() {
    let a = area();
    a.kernel_mode.store(1, Ordering::Relaxed);
    entry::swapgs();
    tlb::load_cr3(a.cr3_kernel.load(Ordering::Relaxed));
}

/// Takes the current vCPU from kernel to user mode; false, with nothing done, when it has no user address space.
#[inline(always)]
#[must_use]
pub fn to_user_mode() -> bool {
    let a = area();
    let root = a.cr3_user.load(Ordering::Relaxed);
    if root == 0 {
        return false;
    }
    a.kernel_mode.store(0, Ordering::Relaxed);
    entry::swapgs();
    tlb::load_cr3(root);
    true
}

/// Goes back to the current vCPU's address space after another one was loaded, and flushes everything.
pub(crate) fn reload_root() {
    let a = area();
    let root = if kernel_mode() { &a.cr3_kernel } else { &a.cr3_user };
    tlb::load_cr3_flush_all(root.load(Ordering::Relaxed));
}

/// Makes `root` the current vCPU's kernel address space and flushes everything. The vCPU is in kernel mode.
pub fn set_kernel_root(root: Maddr) {
    area().cr3_kernel.store(root.0, Ordering::Relaxed);
    tlb::load_cr3_flush_all(root.0);
}

/// Makes `root` (0: none) the current vCPU's user address space, from its next switch to user mode on.
pub fn set_user_root(root: Maddr) {
    area().cr3_user.store(root.0, Ordering::Relaxed);
}

/// Returns the base of FS.
pub fn fs_base() -> u64 {
    msr::read(msr::FS_BASE)
}

/// Sets the base of FS to a canonical address.
pub fn set_fs_base(base: GuestVa) {
    debug_assert!(base.is_canonical());
    msr::write(msr::FS_BASE, base.0);
}

/// Returns the base of GS in the current mode.
pub fn gs_base() -> u64 {
    msr::read(msr::GS_BASE)
}

/// Sets the base of GS in the current mode to a canonical address.
pub fn set_gs_base(base: GuestVa) {
    debug_assert!(base.is_canonical());
    msr::write(msr::GS_BASE, base.0);
}

/// Returns the base of GS in the other mode.
pub fn other_gs_base() -> u64 {
    msr::read(msr::KERNEL_GS_BASE)
}

/// Sets the base of GS in the other mode to a canonical address.
pub fn set_other_gs_base(base: GuestVa) {
    debug_assert!(base.is_canonical());
    msr::write(msr::KERNEL_GS_BASE, base.0);
}

/// Loads a selector (null when it is bad) into the user GS of a vCPU in kernel mode.
pub fn set_user_gs_selector(selector: u16) {
    entry::swapgs();
    // A bad selector loads as null: the ABI wants no error for it.
    let _ = load_gs(selector);
    entry::swapgs();
}

/// Loads the LDT of the current vCPU's window.
pub fn load_ldt(window: &Window, entries: u32) {
    descriptors::load_ldt(cpu::gdt_page_of(cpu::this_cpu()), window.ldt_base(), entries);
}

/// Loads TSC_AUX, where the CPU has it.
pub fn set_tsc_aux(value: u32) {
    if features::get().rdtscp {
        msr::write(msr::TSC_AUX, u64::from(value));
    }
}

/// Returns a copy of the registers of the guest that this CPU has interrupted and goes back to.
pub fn frame() -> Regs {
    // SAFETY: this CPU's frame, which only the exit path below this call changes; it is copied, not kept.
    unsafe { *area().regs.get() }
}

/// Returns the selectors of DS, ES, FS and GS as loaded now.
pub fn current_selectors() -> [u16; 4] {
    selectors()
}
