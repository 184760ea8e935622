// SPDX-License-Identifier: MIT OR Apache-2.0
//! An idle CPU lingers in the address space of the vCPU that it ran last: if that vCPU is the next to run there, it finds its
//! translations as they were, and two full flushes are saved each time that a guest waits.
//!
//! A CPU lingers until it runs another vCPU, or until it is to flush, for whatever reason: then it leaves for the hypervisor's own
//! address space before it says that it has flushed (`arch::tlb`).
//!
//! # What must hold
//! - The CPU is among those that may have translations of the domain ([`mm::Account::dirty`]), so every flush for the domain's
//!   frames reaches it.
//! - The root it has loaded is held by the vCPU. Its roots do not change while it waits, nor does it run elsewhere, before
//!   [`evict`].
//! - A flush that a guest wants of vCPUs need not reach a CPU that lingers: [`Status::stale`](crate::vcpu::Status::stale) has the
//!   vCPU flush when it is loaded. Who asks sets the flag and then looks whether the vCPU runs; who loads it says that it runs and
//!   then looks at the flag.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use arch::{CpuId, CpuMask, Flush, MAX_CPUS, context, tlb};
use hypercalls::DomId;

use crate::domain;
use crate::vcpu::Vcpu;

/// Whose address space each CPU lingers in: the vCPU's unit and one, and its domain; 0 for none.
static LINGERS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

fn of(cpu: CpuId) -> &'static AtomicU64 {
    &LINGERS[cpu.0 as usize % MAX_CPUS]
}

fn word(vcpu: &Vcpu) -> u64 {
    (u64::from(vcpu.domid.0) << 32) | (u64::from(vcpu.unit) + 1)
}

/// Notes that this CPU is about to linger where it ran the vCPU. Whoever loads the vCPU next sees it.
pub(crate) fn begin(here: CpuId, vcpu: &Vcpu) {
    of(here).store(word(vcpu), SeqCst);
}

/// True when the vCPU, which is being loaded on this CPU, may go on with the translations that it left here. If it ran elsewhere
/// last, the CPU where it did has left.
#[inline]
pub(crate) fn may_resume(here: CpuId, vcpu: &Vcpu) -> bool {
    let is_stale = vcpu.status.stale.load(SeqCst) && vcpu.status.stale.swap(false, SeqCst);
    if vcpu.status.cpu.load(Relaxed) != here.0 {
        evict(vcpu);
        return false;
    }
    !is_stale && of(here).load(Relaxed) == word(vcpu)
}

/// Notes that this CPU has loaded a vCPU of the domain, or has found itself to have left.
#[inline]
pub(crate) fn end(here: CpuId, of_domain: Option<DomId>) {
    if of(here).load(Relaxed) != 0 {
        end_for(here, of_domain);
    }
}

fn end_for(here: CpuId, of_domain: Option<DomId>) {
    let before = DomId((of(here).swap(0, SeqCst) >> 32) as u16);
    if of_domain != Some(before) {
        domain::with(before, |domain| domain.account.dirty.remove(here));
    }
}

/// Sees whether this idle CPU has left: then no flush for the domain has to reach it any more.
pub(crate) fn look(here: CpuId) {
    if !context::lingers() {
        end(here, None);
    }
}

/// Has a CPU leave that lingers where it ran the vCPU, which does not run or is about to.
pub fn evict(vcpu: &Vcpu) {
    let cpu = CpuId(vcpu.status.cpu.load(Relaxed));
    if of(cpu).load(SeqCst) == word(vcpu) {
        tlb::flush(&CpuMask::of(cpu), Flush::All);
    }
}

/// Has a vCPU that waits flush before it runs; false when it runs, and the CPU where it does has to flush.
pub(crate) fn flush_if_waiting(vcpu: &Vcpu) -> bool {
    if vcpu.status.running.load(SeqCst) {
        return false;
    }
    vcpu.status.stale.store(true, SeqCst);
    !vcpu.status.running.load(SeqCst)
}

/// Returns the vCPU's unit in whose address space a CPU lingers.
#[cfg(not(target_os = "none"))]
pub fn unit_of(cpu: CpuId) -> Option<u32> {
    (of(cpu).load(SeqCst) as u32).checked_sub(1)
}

/// Forgets everything, for a new machine.
#[cfg(not(target_os = "none"))]
pub fn forget_all() {
    LINGERS.iter().for_each(|lingers| lingers.store(0, Relaxed));
}
