// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kicks between CPUs: only recorded.

use arch_types::{AtomicCpuMask, CpuId, CpuMask};

static KICKED: AtomicCpuMask = AtomicCpuMask::new();

/// Makes a CPU look at its run queue before it returns to a guest.
pub fn reschedule(cpu: CpuId) {
    KICKED.insert(cpu);
}

/// Returns the CPUs kicked since the last call.
pub fn take_kicked() -> CpuMask {
    let mask = KICKED.load();
    mask.iter().for_each(|cpu| KICKED.remove(cpu));
    mask
}
