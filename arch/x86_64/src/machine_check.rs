// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine-check registers of the CPU that runs.

pub use arch_types::machine_check::*;

use crate::{features, msr};

const AMD_HWCR: u32 = 0xc001_0015;
/// AMD: values other than 0 may be written to a bank's registers.
const WRITABLE: u64 = 1 << 18;

/// True when the CPU reports by these registers.
pub fn exists() -> bool {
    const MCE_AND_MCA: u32 = 1 << 7 | 1 << 14;
    features::cpuid(1, 0)[3] & MCE_AND_MCA == MCE_AND_MCA
}

/// Reads one of the registers; 0 where it does not exist.
pub fn read(register: u32) -> u64 {
    if is_register(register) { msr::read_safe(register).unwrap_or(0) } else { 0 }
}

/// Writes one of the registers; false when it does not take the value.
pub fn write(register: u32, value: u64) -> bool {
    if !is_register(register) || register == CAPABILITIES {
        return false;
    }
    let locked = features::get().amd && value != 0;
    let before = if locked { msr::read_safe(AMD_HWCR) } else { None };
    let unlocked = before.is_some_and(|hwcr| msr::write_safe(AMD_HWCR, hwcr | WRITABLE));
    let done = msr::write_safe(register, value);
    if let (true, Some(hwcr)) = (unlocked, before) {
        msr::write_safe(AMD_HWCR, hwcr);
    }
    done
}
