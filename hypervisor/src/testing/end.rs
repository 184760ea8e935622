// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking vCPUs off CPUs, so that a machine can come to its end.

use core::sync::atomic::Ordering::SeqCst;

use arch::cpu;

use crate::current;

/// Takes the vCPU that this CPU runs off it, for good.
pub(super) fn unload() {
    let Some(vcpu) = current::vcpu() else { return };
    vcpu.context.lock().save();
    vcpu.domain().account.dirty.remove(cpu::this_cpu());
    vcpu.status.running.store(false, SeqCst);
}
