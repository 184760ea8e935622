// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLB flushes on this CPU and on others, and the clock that tells which are needless.
//!
//! The flush clock counts full flushes. A frame whose last use ended at stamp `s` needs a flush on a CPU only if that
//! CPU's last full flush is not later than `s`. The clock is moved *before* the flush is done, and a stamp is read
//! *after* the last use, so that a flush is never skipped that was needed (XSA-241).
//!
//! One shootdown is under way at a time. Its initiator waits with interrupts off, and so may everybody who waits for
//! a lock: both keep calling [`serve`].
#![expect(unsafe_code, reason = "INVLPG, INVPCID, CR3 and CR4")]

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arch_types::{AtomicCpuMask, CpuId, CpuMask, Flush};
use hypercalls::GuestVa;

use crate::cpu_area::area;
use crate::{cpu, features};

static CLOCK: AtomicU32 = AtomicU32::new(1);
static BUSY: AtomicBool = AtomicBool::new(false);
/// CPUs that have still to flush in the shootdown under way.
static WANTED: AtomicCpuMask = AtomicCpuMask::new();
/// Address of the page to flush, or [`EVERYTHING`]. Written before [`WANTED`], read after it.
static WHAT: AtomicU64 = AtomicU64::new(EVERYTHING);
const EVERYTHING: u64 = u64::MAX;
const CR4_PGE: u64 = 1 << 7;

/// Returns the flush clock.
#[inline]
pub fn stamp() -> u32 {
    CLOCK.load(Ordering::SeqCst)
}

/// Notes that this CPU is about to flush everything.
fn tick() {
    let now = CLOCK.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
    area().flushed_at.store(now, Ordering::SeqCst);
}

/// Loads CR3 and drops every translation, global ones included.
pub(crate) fn load_cr3_flush_all(cr3: u64) {
    tick();
    let cr4 = area().cr4.load(Ordering::Relaxed);
    if cr4 & CR4_PGE == 0 {
        // SAFETY: the caller names a table that carries the hypervisor's slots.
        unsafe { asm!("mov cr3, {}", in(reg) cr3, options(nostack, preserves_flags)) };
        return;
    }
    // SAFETY: as above; clearing and setting PGE drops global translations (SDM volume 3, 4.10.4.1).
    unsafe {
        asm!("mov cr4, {off}", "mov cr3, {cr3}", "mov cr4, {on}",
             off = in(reg) cr4 & !CR4_PGE, cr3 = in(reg) cr3, on = in(reg) cr4, options(nostack, preserves_flags));
    }
}

/// Loads CR3, keeping global translations.
#[inline(always)]
pub(crate) fn load_cr3(cr3: u64) {
    // SAFETY: callers name a table that carries the hypervisor's slots.
    unsafe { asm!("mov cr3, {}", in(reg) cr3, options(nostack, preserves_flags)) };
}

/// Flushes on this CPU for others. One that lingers where it last ran a vCPU leaves instead, which flushes everything.
fn flush_here(what: Flush) {
    if area().lingers.load(Ordering::Relaxed) == 0 {
        return flush_local(what);
    }
    load_cr3_flush_all(cpu::idle_cr3().0);
    area().lingers.store(0, Ordering::Relaxed);
}

/// Flushes on this CPU.
pub fn flush_local(what: Flush) {
    match what {
        Flush::Page(va) if va.is_canonical() => {
            // SAFETY: INVLPG has no effect but on the TLB; the address is canonical (XSA-279).
            unsafe { asm!("invlpg [{}]", in(reg) va.0, options(nostack, preserves_flags)) };
        }
        Flush::Page(_) => {}
        Flush::All => flush_everything(),
    }
}

fn flush_everything() {
    tick();
    let cr4 = area().cr4.load(Ordering::Relaxed);
    // SAFETY: each of the three ways drops translations and changes nothing else.
    unsafe {
        if features::get().invpcid {
            let descriptor = [0u64; 2];
            asm!("invpcid {0}, [{1}]", in(reg) 2u64, in(reg) &descriptor, options(readonly, nostack, preserves_flags));
        } else if cr4 & CR4_PGE != 0 {
            asm!("mov cr4, {}", "mov cr4, {}", in(reg) cr4 & !CR4_PGE, in(reg) cr4, options(nostack, preserves_flags));
        } else {
            asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags));
        }
    }
}

/// Does what a shootdown wants of this CPU. Called by the IPI's handler and by everybody who waits.
#[inline]
pub fn serve() {
    let me = cpu::this_cpu();
    if WANTED.contains(me) {
        serve_now(me);
    }
}

/// Out of line, for the sake of all who serve while they wait for a lock.
#[cold]
#[inline(never)]
fn serve_now(me: CpuId) {
    match WHAT.load(Ordering::SeqCst) {
        EVERYTHING => flush_here(Flush::All),
        va => flush_here(Flush::Page(GuestVa(va))),
    }
    WANTED.remove(me);
}

/// Flushes on all CPUs of the set and returns when they have.
pub fn flush(cpus: &CpuMask, what: Flush) {
    let me = cpu::this_cpu();
    if cpus.contains(me) {
        flush_here(what);
    }
    let mut others = *cpus;
    others.remove(me);
    others.intersect(&cpu::online());
    if others.is_empty() {
        return;
    }
    if matches!(what, Flush::Page(va) if !va.is_canonical()) {
        return;
    }
    while BUSY.compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        serve();
        core::hint::spin_loop();
    }
    let word = match what {
        Flush::All => EVERYTHING,
        Flush::Page(va) => va.0,
    };
    WHAT.store(word, Ordering::SeqCst);
    for cpu in others.iter() {
        WANTED.insert(cpu);
    }
    for cpu in others.iter() {
        cpu::send_shootdown(cpu);
    }
    while !WANTED.load().is_empty() {
        core::hint::spin_loop();
    }
    BUSY.store(false, Ordering::SeqCst);
}

/// Flushes everything on those CPUs of the set that have not done so since `stamp` was taken.
pub fn flush_since(cpus: &CpuMask, stamp: u32) {
    let mut needed = CpuMask::EMPTY;
    for cpu in cpus.iter() {
        // Not later than the stamp, with room for the clock to wrap.
        if cpu::area_of(cpu).flushed_at.load(Ordering::SeqCst).wrapping_sub(stamp) as i32 <= 0 {
            needed.insert(cpu);
        }
    }
    if !needed.is_empty() {
        flush(&needed, Flush::All);
    }
}
