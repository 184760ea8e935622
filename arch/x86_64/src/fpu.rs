// SPDX-License-Identifier: MIT OR Apache-2.0
//! FPU and vector state: saved and loaded at every vCPU switch, never lazily.
//!
//! The hypervisor itself uses none of these registers. Lazy switching by #NM leaks them on CPUs that speculate past it
//! and on emulators whose XSAVE ignores CR0.TS.
#![expect(unsafe_code, reason = "XSAVE, XRSTOR, FXSAVE, FXRSTOR and the area's allocation")]

extern crate alloc;

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::arch::asm;
use core::sync::atomic::Ordering;

use crate::cpu_area::area;
use crate::features;

/// A vCPU's FPU state in memory.
#[derive(Debug)]
pub struct FpuState {
    area: *mut u8,
    layout: Layout,
    /// The guest's XCR0.
    pub xcr0: u64,
    /// All bits the guest ever set in XCR0: components that may hold state.
    pub xcr0_accum: u64,
}

// SAFETY: the area is owned by this value alone.
unsafe impl Send for FpuState {}
// SAFETY: the area is only reached through `&mut self`, or copied from under `&self` without being written.
unsafe impl Sync for FpuState {}

impl FpuState {
    /// Makes the state of a CPU after reset; `None` when memory is out.
    pub fn new() -> Option<Self> {
        let f = features::get();
        let layout = Layout::from_size_align(f.xsave_size.max(576), 64).ok()?;
        // SAFETY: the size is not zero.
        let area = unsafe { alloc_zeroed(layout) };
        if area.is_null() {
            return None;
        }
        let mut state = Self { area, layout, xcr0: 1, xcr0_accum: 3 & f.xcr0 };
        state.reset();
        Some(state)
    }

    /// Puts the state of a CPU after reset into memory: FCW 0x37f, MXCSR 0x1f80, all registers zero.
    pub fn reset(&mut self) {
        // SAFETY: the area has at least 576 bytes and is ours.
        unsafe {
            core::ptr::write_bytes(self.area, 0, self.layout.size());
            self.area.cast::<u16>().write(0x37f);
            self.area.add(24).cast::<u32>().write(0x1f80);
        }
        if features::get().xsave {
            // XSTATE_BV: x87 and SSE hold state, everything else is in its initial configuration.
            // SAFETY: as above; the XSAVE header starts at byte 512.
            unsafe { self.area.add(512).cast::<u64>().write(3) };
        }
    }

    /// Replaces the legacy (FXSAVE) part, as `vcpu_guest_context` gives it; MXCSR bits the CPU refuses are dropped.
    pub fn set_legacy(&mut self, image: &[u8; 512]) {
        // SAFETY: the area has at least 576 bytes and is ours; the image cannot overlap it.
        unsafe {
            core::ptr::copy_nonoverlapping(image.as_ptr(), self.area, 512);
            let mxcsr = self.area.add(24).cast::<u32>();
            mxcsr.write(mxcsr.read() & 0xffff);
            core::ptr::write_bytes(self.area.add(464), 0, 48);
        }
    }

    /// Returns the legacy (FXSAVE) part.
    pub fn legacy(&self) -> [u8; 512] {
        let mut image = [0; 512];
        // SAFETY: the area has at least 576 bytes and is ours; the image cannot overlap it.
        unsafe { core::ptr::copy_nonoverlapping(self.area, image.as_mut_ptr(), 512) };
        if features::get().xsave {
            // Of components in their initial state XSAVE may have written nothing.
            // SAFETY: as above; the XSAVE header starts at byte 512.
            let held = unsafe { self.area.add(512).cast::<u64>().read() };
            if held & 1 == 0 {
                image[..24].fill(0);
                image[..2].copy_from_slice(&0x37fu16.to_le_bytes());
                image[32..160].fill(0);
            }
            if held & 2 == 0 {
                image[160..416].fill(0);
            }
        }
        image
    }

    /// Saves the registers of the CPU. CR0.TS must be clear.
    pub fn save(&mut self) {
        let mask = self.xcr0_accum | 3;
        let (lo, hi) = (mask as u32, (mask >> 32) as u32);
        let f = features::get();
        // SAFETY: the area is large enough for all components of XCR0 and 64-byte aligned.
        unsafe {
            if f.xsave {
                set_xcr0(mask);
                if f.xsaveopt {
                    asm!("xsaveopt64 [{}]", in(reg) self.area, in("eax") lo, in("edx") hi, options(nostack));
                } else {
                    asm!("xsave64 [{}]", in(reg) self.area, in("eax") lo, in("edx") hi, options(nostack));
                }
            } else {
                asm!("fxsave64 [{}]", in(reg) self.area, options(nostack));
            }
        }
    }

    /// Loads the registers of the CPU, all components that exist, and the guest's XCR0. CR0.TS must be clear.
    pub fn load(&self) {
        let f = features::get();
        // SAFETY: the area was made by `reset`, `set_legacy` or `save`, so the load cannot fault.
        unsafe {
            if f.xsave {
                // Components beyond the guest's are put into their initial state: nobody else's registers stay.
                set_xcr0(f.xcr0);
                asm!("xrstor64 [{}]", in(reg) self.area, in("eax") f.xcr0 as u32, in("edx") (f.xcr0 >> 32) as u32,
                     options(nostack));
                set_xcr0(self.xcr0);
            } else {
                asm!("fxrstor64 [{}]", in(reg) self.area, options(nostack));
            }
        }
    }
}

impl Drop for FpuState {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.area, self.layout) };
    }
}

/// Loads XCR0 if it differs from what is loaded.
pub fn set_xcr0(value: u64) {
    if area().xcr0.load(Ordering::Relaxed) == value {
        return;
    }
    area().xcr0.store(value, Ordering::Relaxed);
    // SAFETY: CR4.OSXSAVE is set whenever the CPU has XSAVE, and callers pass subsets of what it supports with x87 on.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack, preserves_flags));
    }
}

/// Puts the FPU into its initial state, for code that is not a guest's. CR0.TS must be clear.
pub(crate) fn initialise() {
    const MXCSR: u32 = 0x1f80;
    // SAFETY: whoever calls has kept the registers that are a guest's.
    unsafe { asm!("fninit", "ldmxcsr [{}]", in(reg) &MXCSR, options(readonly, nostack)) };
}

/// Sets or clears CR0.TS.
pub fn set_ts(on: bool) {
    // SAFETY: TS only makes FPU instructions fault.
    unsafe {
        if on {
            let mut cr0: u64;
            asm!("mov {}, cr0", out(reg) cr0, options(nomem, nostack, preserves_flags));
            cr0 |= 8;
            asm!("mov cr0, {}", in(reg) cr0, options(nostack, preserves_flags));
        } else {
            asm!("clts", options(nostack, preserves_flags));
        }
    }
}
