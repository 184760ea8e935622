// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values that the hardware domain wants to be read in place of machine-check registers, to feign an error where registers
//! cannot be written. A write to such a register takes the value away.
//!
//! What must hold: whoever reads takes no lock, because an exception may have interrupted whoever writes.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use arch::machine_check as registers;
use arch::{CpuId, cpu};

/// How many there may be.
const ROOM: usize = 50;
const NOTHING: u64 = u64::MAX;

struct Entry {
    /// CPU and register.
    of: AtomicU64,
    value: AtomicU64,
}

static ENTRIES: [Entry; ROOM] = [const { Entry { of: AtomicU64::new(NOTHING), value: AtomicU64::new(0) } }; ROOM];

fn key(cpu: CpuId, register: u32) -> u64 {
    u64::from(cpu.0) << 32 | u64::from(register)
}

fn find(of: u64) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.of.load(SeqCst) == of)
}

/// Has a register of a CPU read as `value`; false when there is no room. Callers are one at a time.
pub fn put(cpu: CpuId, register: u32, value: u64) -> bool {
    let of = key(cpu, register);
    if let Some(entry) = find(of) {
        entry.value.store(value, SeqCst);
        return true;
    }
    let Some(free) = find(NOTHING) else { return false };
    free.value.store(value, SeqCst);
    free.of.store(of, SeqCst);
    true
}

/// Reads a register of this CPU.
pub(super) fn read(register: u32) -> u64 {
    let of = key(cpu::this_cpu(), register);
    find(of).map_or_else(|| registers::read(register), |entry| entry.value.load(SeqCst))
}

/// Writes a register of this CPU.
pub(super) fn write(register: u32, value: u64) {
    if find(key(cpu::this_cpu(), register)).is_some() {
        forget(register);
    } else {
        registers::write(register, value);
    }
}

/// Lets a register of this CPU be read again.
pub(super) fn forget(register: u32) {
    if let Some(entry) = find(key(cpu::this_cpu(), register)) {
        entry.of.store(NOTHING, SeqCst);
    }
}

/// Forgets everything, for a new machine.
#[cfg(not(target_os = "none"))]
pub(super) fn forget_all() {
    ENTRIES.iter().for_each(|entry| entry.of.store(NOTHING, SeqCst));
}
