// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a vCPU has in hardware, as on the machine: loaded when it is scheduled in, saved when it is scheduled out.
//!
//! While a vCPU is loaded its state is in the simulated CPU's registers; [`Context::save`] leaves nothing of it there.
#![expect(unsafe_code, reason = "reaches the CPU's register frame")]

use crate::area::{Area, area, locked};
use crate::fpu::{self, FpuState};
use crate::window::Window;
use crate::{cpu, guest};
use arch_types::Regs;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use hypercalls::segment::{FLAT_RING3_CS32, FLAT_RING3_CS64, FLAT_RING3_SS64};
use hypercalls::{GuestVa, Maddr, Mfn};
use std::sync::{Arc, OnceLock};

/// CR4 bits that a guest chooses for itself: TSD, DE, FSGSBASE.
const GUEST_CR4: u64 = 1 << 2 | 1 << 3 | 1 << 16;
/// DR6 with nothing recorded.
const DR6_CLEAR: u64 = 0xffff_0ff0;

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
    /// Number of entries of the LDT in the window; 0 when none.
    pub ldt_entries: u32,
}

/// A selector could not be loaded; it was replaced by null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSelector;

/// What maps the page of the LDT at an offset that the CPU has just looked at in vain; false when it cannot.
static MAP_LDT_PAGE: OnceLock<fn(u64) -> bool> = OnceLock::new();

/// Sets what stands for the hypervisor's handling of faults in the LDT: for the process, once.
pub fn on_ldt_fault(handler: fn(u64) -> bool) {
    let _ = MAP_LDT_PAGE.set(handler);
}

/// Returns the selector if ring 3 may load it into a data segment register now.
fn loadable(a: &Area, selector: u16) -> Result<u16, BadSelector> {
    const PRESENT_RING3_SEGMENT: u64 = 0xf << 44;
    const CODE_UNREADABLE: u64 = 1 << 43;
    const CODE: u64 = 1 << 43 | 1 << 41;
    let flat = [FLAT_RING3_CS32, FLAT_RING3_CS64, FLAT_RING3_SS64];
    if selector & !3 == 0 || flat.contains(&selector) {
        return Ok(selector);
    }
    let ldt_entries = a.ldt_entries.load(Relaxed);
    let find = || locked(&a.window).as_ref().and_then(|w| w.descriptor(selector, 16 * 512, ldt_entries));
    let faults = || selector & 4 != 0 && u32::from(selector >> 3) < ldt_entries;
    let map = || MAP_LDT_PAGE.get().is_some_and(|map| map(u64::from(selector & !7)));
    match find().or_else(|| if faults() && map() { find() } else { None }) {
        Some(d) if d & PRESENT_RING3_SEGMENT == PRESENT_RING3_SEGMENT && d & CODE != CODE_UNREADABLE => Ok(selector),
        _ => Err(BadSelector),
    }
}

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
    /// Loads them. No lock may be held.
    ///
    /// # Errors
    /// [`BadSelector`] when DS, ES, FS or GS could not be loaded: the guest's failsafe callback is due.
    pub fn load(self) -> Result<(), BadSelector> {
        let a = area();
        let mut result = Ok(());
        let loaded = self.selectors.map(|s| {
            loadable(a, s).unwrap_or_else(|bad| {
                result = Err(bad);
                0
            })
        });
        *locked(&a.selectors) = loaded;
        a.fs_base.store(self.fs_base, Relaxed);
        a.gs_base.store(self.gs_base, Relaxed);
        a.other_gs_base.store(self.other_gs_base, Relaxed);
        result
    }
}

fn load_root(root: Maddr) {
    assert_ne!(root.0, 0, "CR3 loaded with 0");
    guest::set_root(root.mfn());
}

impl Context {
    /// Loads the vCPU onto this CPU. `vcpu` and `info` are what the entry code needs to know of it.
    ///
    /// Its segments are left, for which the caller must hold no lock. With `resumes`, its translations are to stay if the CPU
    /// still lingers among them.
    pub fn load(&self, vcpu: usize, info: usize, resumes: bool) -> Segments {
        let a = area();
        assert_eq!(a.vcpu.load(Relaxed), 0, "a vCPU is loaded over another one");
        a.vcpu.store(vcpu, Relaxed);
        cpu::set_vcpu_info(Some(info));
        a.kernel_mode.store(self.kernel_mode, Relaxed);
        a.cr3_kernel.store(self.cr3_kernel.0, Relaxed);
        a.cr3_user.store(self.cr3_user.0, Relaxed);
        set_guest_cr4(self.cr4);
        let root = if self.kernel_mode { self.cr3_kernel } else { self.cr3_user };
        if !a.lingers.swap(false, Relaxed) || !resumes || guest::root() != root.mfn() {
            load_root(root);
        }
        *locked(&a.window) = Some(self.window.clone());
        a.ldt_entries.store(self.ldt_entries, Relaxed);
        self.fpu.load();
        fpu::set_ts(self.ts);
        set_tsc_aux(self.tsc_aux);
        if self.debug[7] & 0xff != 0 {
            load_debug(&self.debug);
        }
        // SAFETY: this CPU's frame; nobody reads it between exit work's decisions.
        unsafe { *a.regs.get() = self.regs };
        let (gs_base, other_gs_base) =
            if self.kernel_mode { (self.gs_kernel, self.gs_user) } else { (self.gs_user, self.gs_kernel) };
        Segments { selectors: self.selectors, fs_base: self.fs_base, gs_base, other_gs_base }
    }

    /// Saves the vCPU from this CPU, which is left in the hypervisor's own address space, or `lingers` in the vCPU's until it
    /// is to flush.
    pub fn save(&mut self, lingers: bool) {
        let a = area();
        // SAFETY: as in `load`.
        self.regs = unsafe { *a.regs.get() };
        self.kernel_mode = kernel_mode();
        self.selectors = current_selectors();
        self.fs_base = fs_base();
        let (active, other) = (gs_base(), other_gs_base());
        (self.gs_kernel, self.gs_user) = if self.kernel_mode { (active, other) } else { (other, active) };
        fpu::set_ts(false);
        self.fpu.save();
        a.debug[7].store(0, Relaxed);
        *locked(&a.selectors) = [0; 4];
        *locked(&a.window) = None;
        a.ldt_entries.store(0, Relaxed);
        a.vcpu.store(0, Relaxed);
        cpu::set_vcpu_info(None);
        a.lingers.store(lingers, Relaxed);
        if !lingers {
            guest::set_root(Mfn::INVALID);
        }
    }
}

/// True while this idle CPU is in the address space of the vCPU that it ran last.
pub fn lingers() -> bool {
    area().lingers.load(Relaxed)
}

/// Loads the guest's choice of CR4 bits.
pub fn set_guest_cr4(bits: u64) {
    area().cr4.store(cpu::host_cr4() & !GUEST_CR4 | bits & GUEST_CR4, Relaxed);
}

/// Loads debug registers that the hypervisor has checked.
pub fn load_debug(dr: &[u64; 8]) {
    for (to, from) in area().debug.iter().zip(dr) {
        to.store(*from, Relaxed);
    }
}

/// Returns the debug registers as they are loaded.
pub fn loaded_debug() -> [u64; 8] {
    core::array::from_fn(|n| area().debug[n].load(Relaxed))
}

/// Reads DR6 and clears it for the next debug exception.
pub fn take_dr6() -> u64 {
    area().debug[6].swap(DR6_CLEAR, Relaxed)
}

/// Reads CR2, the address of the last page fault.
pub fn fault_address() -> u64 {
    area().cr2.load(Relaxed)
}

/// True while the current vCPU is in (virtual) kernel mode.
pub fn kernel_mode() -> bool {
    area().kernel_mode.load(Relaxed)
}

/// The hypervisor's object for the current vCPU, 0 when idle.
pub fn current() -> usize {
    area().vcpu.load(Relaxed)
}

fn swapgs(a: &Area) {
    let old = a.gs_base.swap(a.other_gs_base.load(Relaxed), Relaxed);
    a.other_gs_base.store(old, Relaxed);
}

fn switch_root(root: &AtomicU64) {
    guest::switch_root(Maddr(root.load(Relaxed)).mfn());
}

/// Takes the current vCPU from user to kernel mode.
pub fn to_kernel_mode() {
    let a = area();
    assert!(!a.kernel_mode.swap(true, Relaxed), "in kernel mode already");
    swapgs(a);
    switch_root(&a.cr3_kernel);
}

/// Takes the current vCPU from kernel to user mode; false, with nothing done, when it has no user address space.
#[must_use]
pub fn to_user_mode() -> bool {
    let a = area();
    if a.cr3_user.load(Relaxed) == 0 {
        return false;
    }
    assert!(a.kernel_mode.swap(false, Relaxed), "in user mode already");
    swapgs(a);
    switch_root(&a.cr3_user);
    true
}

/// Makes `root` the current vCPU's kernel address space and flushes everything. The vCPU is in kernel mode.
pub fn set_kernel_root(root: Maddr) {
    area().cr3_kernel.store(root.0, Relaxed);
    load_root(root);
}

/// Makes `root` (0: none) the current vCPU's user address space, from its next switch to user mode on.
pub fn set_user_root(root: Maddr) {
    area().cr3_user.store(root.0, Relaxed);
}

macro_rules! base {
    ($(#[$read_doc:meta] $read:ident, #[$write_doc:meta] $write:ident, $field:ident;)*) => {$(
        #[$read_doc]
        pub fn $read() -> u64 {
            area().$field.load(Relaxed)
        }
        #[$write_doc]
        pub fn $write(base: GuestVa) {
            assert!(base.is_canonical(), "WRMSR of {base} would fault");
            area().$field.store(base.0, Relaxed);
        }
    )*};
}

base! {
    /// Returns the base of FS.
    fs_base,
    /// Sets the base of FS to a canonical address.
    set_fs_base, fs_base;
    /// Returns the base of GS in the current mode.
    gs_base,
    /// Sets the base of GS in the current mode to a canonical address.
    set_gs_base, gs_base;
    /// Returns the base of GS in the other mode.
    other_gs_base,
    /// Sets the base of GS in the other mode to a canonical address.
    set_other_gs_base, other_gs_base;
}

/// Loads a selector (null when it is bad) into the user GS of a vCPU in kernel mode: here only its base is followed.
pub fn set_user_gs_selector(selector: u16) {
    let a = area();
    let loaded = loadable(a, selector).unwrap_or(0);
    locked(&a.selectors)[3] = loaded;
    a.other_gs_base.store(0, Relaxed);
}

/// Loads the LDT of the current vCPU's window.
pub fn load_ldt(_window: &Window, entries: u32) {
    area().ldt_entries.store(entries, Relaxed);
}

/// Loads TSC_AUX.
pub fn set_tsc_aux(value: u32) {
    area().tsc_aux.store(value, Relaxed);
}

/// Returns a copy of the registers of the guest that this CPU has interrupted and goes back to.
pub fn frame() -> Regs {
    // SAFETY: this CPU's frame, which only its own thread touches; it is copied, not kept.
    unsafe { *area().regs.get() }
}

/// Returns the selectors of DS, ES, FS and GS as loaded now.
pub fn current_selectors() -> [u16; 4] {
    *locked(&area().selectors)
}
