// SPDX-License-Identifier: MIT OR Apache-2.0
//! vCPUs on and off a CPU.
//!
//! What must hold: a vCPU's state is in at most one CPU, which has set [`Status::running`](crate::vcpu::Status::running) to take
//! it and clears that when the state is saved.

use core::sync::atomic::AtomicU16;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use arch::MAX_CPUS;
use arch::context::{self, Segments};
use arch::cpu::{self, Work};
use hypercalls::DomId;
use hypercalls::vcpu::Runstate as State;

use super::with_unit;
use crate::vcpu::Vcpu;
use crate::{bounce, current, lingering, time};

/// The domain whose vCPU each CPU ran last.
static LAST_DOMAIN: [AtomicU16; MAX_CPUS] = [const { AtomicU16::new(DomId::INVALID.0) }; MAX_CPUS];

/// Takes a vCPU off this CPU, which `idles` then or loads another one.
pub(super) fn unload(vcpu: &Vcpu, now: u64, idles: bool) {
    let here = cpu::this_cpu();
    time::update_runstate(vcpu, if vcpu.runnable() { State::RUNNABLE } else { waiting_state(vcpu) }, now);
    {
        let mut saved = vcpu.context.lock();
        crate::registers::sync(vcpu, &mut saved);
        let refused = saved.selectors;
        saved.save(idles);
        if vcpu.failsafe_due.swap(false, Relaxed) {
            // It was not told yet: the next load meets the same selectors and says so again.
            saved.selectors = refused;
        }
    }
    if idles {
        lingering::begin(here, vcpu);
    } else {
        vcpu.domain().account.dirty.remove(here);
    }
    vcpu.status.running.store(false, SeqCst);
}

fn waiting_state(vcpu: &Vcpu) -> State {
    if vcpu.status.down.load(Relaxed) { State::OFFLINE } else { State::BLOCKED }
}

/// Takes the right to run a vCPU; false when this CPU has other work, which may be to choose anew.
///
/// Between the scheduler's choice and this, another CPU may have stopped the vCPU, or even had it run elsewhere. Who does that
/// gives this CPU work, and looks at the flag only then: either it sees the flag, or this CPU sees the work.
fn take(vcpu: &Vcpu) -> bool {
    let running = &vcpu.status.running;
    // The CPU that ran it last may still be saving it.
    while running.compare_exchange(false, true, SeqCst, SeqCst).is_err() {
        if cpu::has_work() {
            return false;
        }
        arch::tlb::serve();
        core::hint::spin_loop();
    }
    let free = !cpu::has_work();
    if !free {
        running.store(false, SeqCst);
    }
    free
}

/// Loads the vCPU of that number; false when there is none any more, or when it is not for this CPU to run it now.
pub(super) fn switch_to(unit: u32, now: u64) -> bool {
    let mut segments = None;
    with_unit(unit, |vcpu| segments = load(vcpu, now));
    let Some(segments) = segments else { return false };
    // Without a lock: a segment of a page of the LDT that is not mapped yet faults, and mapping it takes locks.
    if segments.load().is_err()
        && let Some(vcpu) = current::vcpu()
    {
        vcpu.failsafe_due.store(true, Relaxed);
        cpu::raise_here(Work::VCPU);
    }
    true
}

/// Loads a vCPU but for its segments; `None` when it is not for this CPU to run it now.
fn load(vcpu: &Vcpu, now: u64) -> Option<Segments> {
    let here = cpu::this_cpu();
    if !take(vcpu) {
        return None;
    }
    if LAST_DOMAIN[here.0 as usize % MAX_CPUS].swap(vcpu.domid.0, Relaxed) != vcpu.domid.0 {
        cpu::forget_branches();
    }
    vcpu.domain().account.dirty.insert(here);
    let resumes = lingering::may_resume(here, vcpu);
    let moved = vcpu.status.cpu.swap(here.0, Relaxed) != here.0;
    let address = core::ptr::from_ref(vcpu) as usize;
    let segments = {
        let mut saved = vcpu.context.lock();
        crate::registers::refresh(vcpu, &mut saved);
        saved.load(address, vcpu.vcpu_info().address(), resumes)
    };
    lingering::end(here, Some(vcpu.domid));
    bounce::refresh(vcpu);
    if moved {
        time::update(vcpu);
    } else {
        time::refresh(vcpu, now);
    }
    time::update_runstate(vcpu, State::RUNNING, now);
    debug_assert!(context::current() == address);
    Some(segments)
}
