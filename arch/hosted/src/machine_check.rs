// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine-check registers of simulated CPUs: each has ten banks and can tell what may be recovered from. Errors are what
//! [`set`] writes.

pub use arch_types::machine_check::*;

use crate::cpu;
use arch_types::CpuId;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Ten banks, a control register, recovery.
const DEFAULT: u64 = 10 | 1 << 8 | 1 << 24;

static WRITTEN: Mutex<BTreeMap<(CpuId, u32), u64>> = Mutex::new(BTreeMap::new());

/// True: the CPU reports by these registers.
pub const fn exists() -> bool {
    true
}

/// Reads one of the registers of this CPU.
pub fn read(register: u32) -> u64 {
    get(cpu::this_cpu(), register)
}

/// Writes one of the registers of this CPU; false when it does not take the value.
pub fn write(register: u32, value: u64) -> bool {
    let takes = is_register(register) && register != CAPABILITIES;
    if takes {
        set(cpu::this_cpu(), register, value);
    }
    takes
}

/// Returns what a register of a CPU holds.
pub fn get(cpu: CpuId, register: u32) -> u64 {
    let written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    let default = if register == CAPABILITIES { DEFAULT } else { 0 };
    written.get(&(cpu, register)).copied().unwrap_or(default)
}

/// Has a register of a CPU hold this.
pub fn set(cpu: CpuId, register: u32, value: u64) {
    WRITTEN.lock().unwrap_or_else(PoisonError::into_inner).insert((cpu, register), value);
}

/// No errors, for a new machine.
pub(crate) fn forget_all() {
    WRITTEN.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
