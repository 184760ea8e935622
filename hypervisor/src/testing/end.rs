// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking vCPUs off CPUs, so that a machine can come to its end.

use core::sync::atomic::Ordering::SeqCst;

use arch::cpu;

use crate::current;

/// Takes the vCPU that this CPU runs off it, for good.
pub(super) fn unload() {
    let Some(vcpu) = current::vcpu() else {
        // An idle CPU leaves where it lingers.
        let me = cpu::this_cpu();
        arch::tlb::flush(&arch::CpuMask::of(me), arch::Flush::All);
        return crate::lingering::look(me);
    };
    vcpu.context.lock().save(false);
    vcpu.domain().account.dirty.remove(cpu::this_cpu());
    vcpu.status.running.store(false, SeqCst);
}
