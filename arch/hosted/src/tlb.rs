// SPDX-License-Identifier: MIT OR Apache-2.0
//! Simulated TLBs: what a CPU has translated stays translated until it is flushed, whatever the tables say since.

use crate::{area, guest};
use arch_types::{CpuId, CpuMask, Flush, MAX_CPUS};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hypercalls::{GuestVa, Mfn};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

/// One cached translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The frame it leads to.
    pub mfn: Mfn,
    /// Whether writes are let through.
    pub writable: bool,
    /// Whether instructions are fetched through it.
    pub executable: bool,
    /// Whether it survives a load of CR3.
    pub global: bool,
    /// Which one this is of all that were ever cached.
    pub serial: u64,
}

/// Advances with every full flush; starts above 0 so that frames stamped 0 (never mapped) need none.
static CLOCK: AtomicU32 = AtomicU32::new(1);
static LAST: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(1) }; MAX_CPUS];
static FULL_FLUSHES: AtomicU64 = AtomicU64::new(0);
static SERIAL: AtomicU64 = AtomicU64::new(0);
static CACHE: Mutex<BTreeMap<(CpuId, u64), Cached>> = Mutex::new(BTreeMap::new());

fn cache() -> MutexGuard<'static, BTreeMap<(CpuId, u64), Cached>> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn reset() {
    CLOCK.store(1, Ordering::SeqCst);
    LAST.iter().for_each(|l| l.store(1, Ordering::SeqCst));
    FULL_FLUSHES.store(0, Ordering::SeqCst);
    cache().clear();
}

/// Returns the flush clock at a CPU's last full flush.
pub(crate) fn flushed_at(cpu: CpuId) -> u32 {
    LAST[cpu.0 as usize % MAX_CPUS].load(Ordering::SeqCst)
}

/// Returns the flush clock.
pub fn stamp() -> u32 {
    CLOCK.load(Ordering::SeqCst)
}

/// Flushes a CPU for others: one that lingers where it last ran a vCPU leaves instead, which flushes everything.
fn flush_there(cpu: CpuId, what: Flush) {
    if area::of(cpu).lingers.swap(false, Ordering::SeqCst) {
        guest::leave_root(cpu);
        flush_one(cpu, Flush::All);
    } else {
        flush_one(cpu, what);
    }
}

fn flush_one(cpu: CpuId, what: Flush) {
    match what {
        Flush::All => {
            cache().retain(|(c, _), _| *c != cpu);
            FULL_FLUSHES.fetch_add(1, Ordering::SeqCst);
            let now = CLOCK.fetch_add(1, Ordering::SeqCst) + 1;
            LAST[cpu.0 as usize % MAX_CPUS].store(now, Ordering::SeqCst);
        }
        Flush::Page(va) => {
            cache().remove(&(cpu, va.0 >> 12));
        }
    }
}

/// Flushes this CPU's TLB.
pub fn flush_local(what: Flush) {
    flush_one(crate::cpu::this_cpu(), what);
}

/// Flushes the TLBs of the CPUs in the set.
pub fn flush(cpus: &CpuMask, what: Flush) {
    cpus.iter().for_each(|cpu| flush_there(cpu, what));
}

/// Flushes those CPUs of the set that had no full flush since `stamp` was taken.
pub fn flush_since(cpus: &CpuMask, stamp: u32) {
    cpus.iter()
        .filter(|cpu| LAST[cpu.0 as usize % MAX_CPUS].load(Ordering::SeqCst) <= stamp)
        .for_each(|cpu| flush_there(cpu, Flush::All));
}

/// Drops what a load of CR3 on this CPU drops.
pub(crate) fn flush_not_global() {
    let cpu = crate::cpu::this_cpu();
    cache().retain(|(c, _), cached| *c != cpu || cached.global);
}

/// Does what a shootdown wants of this CPU: flushes of simulated TLBs need no answer.
pub fn serve() {}

/// Returns how many full flushes there were, each CPU counted.
pub fn full_flushes() -> u64 {
    FULL_FLUSHES.load(Ordering::SeqCst)
}

/// Returns everything that some CPU has cached.
pub fn cached() -> Vec<(CpuId, GuestVa, Cached)> {
    cache().iter().map(|(&(cpu, page), &c)| (cpu, GuestVa(page << 12), c)).collect()
}

pub(crate) fn lookup(cpu: CpuId, va: GuestVa) -> Option<Cached> {
    cache().get(&(cpu, va.0 >> 12)).copied()
}

pub(crate) fn insert(cpu: CpuId, va: GuestVa, what: Cached) {
    let serial = SERIAL.fetch_add(1, Ordering::SeqCst);
    cache().insert((cpu, va.0 >> 12), Cached { serial, ..what });
}
