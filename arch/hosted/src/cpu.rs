// SPDX-License-Identifier: MIT OR Apache-2.0
//! Simulated CPUs. A thread says which CPU it is; one that never did gets a number of its own from the top of the
//! range, so that per-CPU bookkeeping of unrelated tests never meets.
#![expect(unsafe_code, reason = "finds the event mask in machine memory")]

use crate::area::{self, area};
use crate::{ipi, timer, tlb};
use arch_types::{CpuId, CpuMask, CpuState, MAX_CPUS};
use core::cell::Cell;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

bitflags::bitflags! {
    /// What a CPU has to do before it returns to a guest.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Work: u32 {
        /// Choose again which vCPU runs.
        const SCHEDULE = 1;
        /// Look at the timers.
        const TIMER = 1 << 1;
        /// The current vCPU has something to be delivered, or must not go on.
        const VCPU = 1 << 2;
        /// Read the console.
        const CONSOLE = 1 << 3;
        /// Say that nothing found before is in use any more.
        const GRACE = 1 << 4;
        /// See whether a domain that has died is gone for good.
        const BURY = 1 << 5;
        /// Tell of what the machine has reported of itself.
        const HARDWARE = 1 << 6;
    }
}

static ONLINE: AtomicU16 = AtomicU16::new(1);
static NEXT_ANONYMOUS: AtomicU16 = AtomicU16::new(0);
/// Questions left until preemption is wanted; `u64::MAX`: never.
static PREEMPT_AFTER: AtomicU64 = AtomicU64::new(u64::MAX);
/// What [`reset_budget`] sets that to.
static BUDGET: AtomicU64 = AtomicU64::new(u64::MAX);

std::thread_local! {
    static CURRENT: Cell<Option<CpuId>> = const { Cell::new(None) };
}

/// Returns the CPU that this thread plays.
pub fn this_cpu() -> CpuId {
    CURRENT.with(|c| {
        c.get().unwrap_or_else(|| {
            let n = NEXT_ANONYMOUS.fetch_add(1, Ordering::Relaxed) % (MAX_CPUS as u16 / 2);
            let id = CpuId(MAX_CPUS as u16 - 1 - n);
            c.set(Some(id));
            id
        })
    })
}

/// Makes this thread play another CPU.
pub fn set_this_cpu(cpu: CpuId) {
    CURRENT.with(|c| c.set(Some(cpu)));
}

/// Makes this thread anonymous again.
pub(crate) fn unset_this_cpu() {
    CURRENT.with(|c| c.set(None));
}

/// Returns the CPUs of the machine.
pub fn online() -> CpuMask {
    let mut mask = CpuMask::EMPTY;
    (0..ONLINE.load(Ordering::Relaxed)).for_each(|n| mask.insert(CpuId(n)));
    mask
}

pub(crate) fn set_online(count: usize) {
    assert!((1..=MAX_CPUS).contains(&count));
    ONLINE.store(count as u16, Ordering::Relaxed);
}

/// Returns the latest time before which the one-shot timer is known to fire: here none.
pub const fn deadline() -> u64 {
    0
}

/// Notes for what time the one-shot timer is to be programmed; here it is programmed each time.
pub fn change_deadline(_deadline: u64) -> bool {
    true
}

/// Bytes of a CPU's stack: here it is the process's, which watches over it.
pub const STACK_BYTES: u64 = 128 << 10;

/// Returns how many bytes of its stack a CPU has ever used.
pub fn deepest_stack(_cpu: CpuId) -> u64 {
    0
}

/// Notes that this CPU has nothing to do from now on.
pub fn enter_idle(now: u64) {
    area().idle.enter(now);
}

/// Notes that this CPU has something to do from now on.
pub fn leave_idle(now: u64) {
    area().idle.leave(now);
}

/// Returns how long a CPU has had nothing to do so far, in ns.
pub fn idle_time(cpu: CpuId, now: u64) -> u64 {
    area::of(cpu).idle.total(now)
}

/// True when long work should stop at a continuation now: as [`preempt_after`] says.
pub fn preempt_pending() -> bool {
    let left = PREEMPT_AFTER.load(Ordering::Relaxed);
    if left == u64::MAX {
        return false;
    }
    PREEMPT_AFTER.store(left.saturating_sub(1), Ordering::Relaxed);
    left == 0
}

/// Wants preemption from the question after the next `questions` on, until told otherwise; `None`: never. A call that
/// starts ([`reset_budget`]) gets as many questions again.
pub fn preempt_after(questions: Option<u64>) {
    BUDGET.store(questions.unwrap_or(u64::MAX), Ordering::Relaxed);
    reset_budget();
}

/// Makes the branch predictor forget: there is none.
pub const fn forget_branches() {}

/// Returns `index` if it is less than `len`, else 0.
pub const fn bounded(index: usize, len: usize) -> usize {
    if index < len { index } else { 0 }
}

/// Says whether the current vCPU's next `iret` hypercall is to be seen by its handler: here all are.
pub const fn watch_iret(_on: bool) {}

/// Sets flags that frames show of the current vCPU beside its real ones.
pub fn show_flags(flags: u32) {
    area().shown_flags.store(flags, Ordering::Relaxed);
}

/// Returns the flags that frames show of the current vCPU beside its real ones.
pub fn shown_flags() -> u32 {
    area().shown_flags.load(Ordering::Relaxed)
}

/// Starts the work count of a call anew.
pub fn reset_budget() {
    PREEMPT_AFTER.store(BUDGET.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// True when [`preempt_after`] had set a number and it has run out.
pub fn preempt_ran_out() -> bool {
    PREEMPT_AFTER.load(Ordering::Relaxed) == 0
}

/// Gives a CPU work, with a kick if it is another one.
pub fn raise(cpu: CpuId, work: Work) {
    let before = area::of(cpu).work.fetch_or(work.bits(), Ordering::SeqCst);
    if cpu != this_cpu() && before & work.bits() != work.bits() {
        ipi::reschedule(cpu);
    }
}

/// Gives this CPU work.
pub fn raise_here(work: Work) {
    area().work.fetch_or(work.bits(), Ordering::SeqCst);
}

/// Takes all work of this CPU.
pub fn take_work() -> Work {
    Work::from_bits_retain(area().work.swap(0, Ordering::SeqCst))
}

/// True when this CPU has work.
pub fn has_work() -> bool {
    area().work.load(Ordering::SeqCst) != 0
}

/// True once the boot CPU runs on its own area: a process does from the start.
pub const fn started() -> bool {
    true
}

/// Returns what a CPU keeps, as seen from outside.
pub fn state(cpu: CpuId) -> CpuState {
    CpuState {
        work: area::of(cpu).work.load(Ordering::Relaxed),
        flushed_at: tlb::flushed_at(cpu),
        deadline: timer::deadline(cpu).unwrap_or(u64::MAX),
        apic_id: u32::from(cpu.0),
    }
}

/// Interrupts a CPU whatever it is doing: nobody listens.
pub fn send_nmi(_cpu: CpuId) {}

/// Returns the number of a CPU's local APIC.
pub fn apic_id(cpu: CpuId) -> u32 {
    cpu.0.into()
}

/// Interrupts a CPU so that it looks at its work.
pub fn poke(cpu: CpuId) {
    ipi::reschedule(cpu);
}

/// Interrupts this CPU when it next admits interrupts.
pub fn poke_here() {
    ipi::reschedule(this_cpu());
}

/// Returns the event mask of the current vCPU; a dummy that reads 1 when there is none.
pub fn event_mask() -> &'static AtomicU8 {
    static NONE: AtomicU8 = AtomicU8::new(1);
    match area().vcpu_info.load(Ordering::Relaxed) {
        0 => &NONE,
        // SAFETY: the address of a `vcpu_info` in machine memory, which is mapped as long as the process runs; its second
        // byte is the mask, only accessed as an atomic.
        info => unsafe { &*((info + 1) as *const AtomicU8) },
    }
}

/// Points this CPU's exit path at a `vcpu_info`, or at nothing.
pub fn set_vcpu_info(info: Option<usize>) {
    area().vcpu_info.store(info.unwrap_or(0), Ordering::Relaxed);
}

/// Returns what [`set_vcpu_info`] set, 0 for nothing.
pub fn vcpu_info() -> usize {
    area().vcpu_info.load(Ordering::Relaxed)
}

/// Returns CR0 as guests run with it, but for TS.
pub const fn guest_cr0() -> u64 {
    0x8001_0033
}

/// Returns CR4 as the hypervisor chose it at boot.
pub const fn host_cr4() -> u64 {
    1 << 5 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 16 | 1 << 18 | 1 << 20 | 1 << 21
}

/// Writes back and drops all caches of this CPU: they are coherent.
pub fn flush_cache() {}

/// True once a CPU has been brought up.
pub fn is_online(cpu: CpuId) -> bool {
    online().contains(cpu)
}
