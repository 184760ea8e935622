// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the firmware left behind and the hardware domain may ask for.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use arch::efi::Answer;
use arch::fpu::{self, FpuState};
use hypercalls::{Errno, Result};
use mm::Lock;
use spin::rwlock::RwLock;

use crate::vcpu::Vcpu;
use crate::{port_io, rank};

/// Which of the keyboard's locks and shift keys were on, as a BIOS has them in its data area; nothing on UEFI.
pub static KEYBOARD_FLAGS: AtomicU8 = AtomicU8::new(0);

/// UEFI firmware.
#[derive(Debug, Default)]
pub struct Efi {
    /// The specification that it follows, as `major << 16 | minor`.
    pub revision: u32,
    /// The specification that its runtime services follow, if they can be called.
    pub runtime_revision: Option<u32>,
    /// The vendor's name, with the zero at its end.
    pub vendor: Vec<u16>,
    /// The vendor's number of the firmware.
    pub firmware_revision: u32,
    /// Machine address of the list of configuration tables.
    pub config: u64,
    /// How many entries it has.
    pub config_entries: u32,
    /// The memory map when the boot services ended.
    pub map: Vec<EfiRegion>,
}

/// An entry of UEFI's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EfiRegion {
    /// First machine address.
    pub start: u64,
    /// Behind the last one.
    pub end: u64,
    /// `EFI_MEMORY_TYPE`.
    pub kind: u32,
    /// Attribute bits.
    pub attributes: u64,
}

impl Efi {
    /// Returns the region in which an address lies.
    pub fn region(&self, maddr: u64) -> Option<&EfiRegion> {
        self.map.iter().find(|r| (r.start..r.end).contains(&maddr))
    }
}

static EFI: RwLock<Option<Efi>, arch::sync::Relax> = RwLock::new(None);

/// Notes what UEFI firmware says of itself; once, at boot.
pub fn note_efi(efi: Option<Efi>) {
    *EFI.write() = efi;
}

/// Asks something of what UEFI firmware says of itself.
///
/// # Errors
/// `ENOSYS` when the machine was not started by UEFI, and what `ask` says.
pub fn with_efi<T>(ask: impl FnOnce(&Efi) -> Result<T>) -> Result<T> {
    EFI.read().as_ref().ok_or(Errno::ENOSYS).and_then(ask)
}

/// Where the FPU's registers are kept during a call of the firmware. The lock makes calls one at a time.
static KEPT: Lock<Option<FpuState>> = Lock::new(rank::FIRMWARE, None);

/// Calls one of UEFI's runtime services on the current vCPU's account; returns its status.
///
/// # Errors
/// `ENOMEM`; `EOPNOTSUPP` when there is no such service.
pub fn call(vcpu: &Vcpu, service: impl FnOnce() -> Answer) -> Result<u64> {
    let mut kept = KEPT.lock();
    if kept.is_none() {
        *kept = FpuState::new();
    }
    let registers = kept.as_mut().ok_or(Errno::ENOMEM)?;
    registers.xcr0 = vcpu.xcr0.load(Relaxed);
    registers.xcr0_accum = arch::features::get().xcr0;
    fpu::set_ts(false);
    registers.save();
    // The firmware's clock is the one behind the ports that the domain uses.
    let status = port_io::exclusively(service);
    registers.load();
    fpu::set_ts(vcpu.ts.load(Relaxed));
    status.map_err(|_| Errno::EOPNOTSUPP)
}
