// SPDX-License-Identifier: MIT OR Apache-2.0
//! FPU state: a simulated CPU has 512 bytes of it, which [`FpuState::save`] and [`FpuState::load`] move.

use crate::area::{area, locked};
use core::sync::atomic::Ordering::Relaxed;
use std::boxed::Box;

/// A vCPU's FPU state in memory.
#[derive(Debug)]
pub struct FpuState {
    area: Box<[u8; 512]>,
    /// The guest's XCR0.
    pub xcr0: u64,
    /// All bits the guest ever set in XCR0: components that may hold state.
    pub xcr0_accum: u64,
}

impl FpuState {
    /// Makes the state of a CPU after reset; `None` when memory is out, which it never is here.
    pub fn new() -> Option<Self> {
        let mut state = Self { area: Box::new([0; 512]), xcr0: 1, xcr0_accum: 3 };
        state.reset();
        Some(state)
    }

    /// Puts the state of a CPU after reset into memory: FCW 0x37f, MXCSR 0x1f80, all registers zero.
    pub fn reset(&mut self) {
        self.area.fill(0);
        self.area[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        self.area[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    }

    /// Replaces the legacy (FXSAVE) part, as `vcpu_guest_context` gives it; MXCSR bits the CPU refuses are dropped.
    pub fn set_legacy(&mut self, image: &[u8; 512]) {
        *self.area = *image;
        self.area[26..28].fill(0);
        self.area[464..].fill(0);
    }

    /// Returns the legacy (FXSAVE) part.
    pub fn legacy(&self) -> [u8; 512] {
        *self.area
    }

    /// Saves the registers of the CPU. CR0.TS must be clear.
    pub fn save(&mut self) {
        assert!(!area().ts.load(Relaxed), "FPU saved with CR0.TS set");
        *self.area = *locked(&area().fpu);
    }

    /// Loads the registers of the CPU and the guest's XCR0. CR0.TS must be clear.
    pub fn load(&self) {
        set_ts(false);
        *locked(&area().fpu) = *self.area;
        set_xcr0(self.xcr0);
    }
}

/// Loads XCR0.
pub fn set_xcr0(value: u64) {
    assert!(value & 1 != 0, "XSETBV of {value:#x} would fault");
    area().xcr0.store(value, Relaxed);
}

/// Sets or clears CR0.TS.
pub fn set_ts(on: bool) {
    area().ts.store(on, Relaxed);
}

/// Writes one of the FPU registers' bytes, as a guest does.
pub fn guest_write(at: usize, value: u8) {
    locked(&area().fpu)[at % 512] = value;
}

/// Reads one of the FPU registers' bytes, as a guest does.
pub fn guest_read(at: usize) -> u8 {
    locked(&area().fpu)[at % 512]
}
