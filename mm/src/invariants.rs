// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of memory as functions: what tests call after every step, and a debug build may call on the machine.
//!
//! Counts are recomputed from everything that holds references: allocation, valid tables, interrupted tables, pins, and
//! what the caller names (roots of vCPUs, grants, reference values it holds). The world must stand still meanwhile.
//! Numbers in the reports are those of the list "What must always hold" in `docs/architecture.md`.

use crate::entry::entry;
use crate::flags::{self, CACHE, P, RW};
use crate::frame::{self, Frame, FrameState, PageType};
use crate::{buddy, pt};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use hypercalls::{DomId, Mfn};

/// References to a frame that are not found in frames.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// The frame.
    pub mfn: Mfn,
    /// General references.
    pub general: u32,
    /// Type references.
    pub typed: u32,
}

impl Held {
    /// A root table that a vCPU holds, a writable reference, or one to a descriptor page.
    pub fn typed(mfn: Mfn) -> Self {
        Self { mfn, general: 1, typed: 1 }
    }
    /// A general reference.
    pub fn general(mfn: Mfn) -> Self {
        Self { mfn, general: 1, typed: 0 }
    }
}

/// An L1 entry that maps another domain's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// Whose tables hold it.
    pub tables: DomId,
    /// Whose frame it maps.
    pub owner: DomId,
    /// The frame.
    pub mfn: Mfn,
    /// It may be written through it.
    pub writable: bool,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    general: u32,
    typed: u32,
}

struct Audit<'a> {
    tallies: Vec<Tally>,
    may_map: &'a dyn Fn(Foreign) -> bool,
    free: u64,
    ram: u64,
}

macro_rules! ensure {
    ($cond:expr, $($arg:tt)*) => {
        if !$cond {
            return Err(alloc::format!($($arg)*));
        }
    };
}

/// Checks all frames. `may_map` is asked, once for each entry, whether a domain may map a frame that is not its own.
///
/// # Errors
/// The first broken rule, in words.
pub fn check(held: impl IntoIterator<Item = Held>, may_map: &dyn Fn(Foreign) -> bool) -> Result<(), String> {
    let mut audit = Audit { tallies: vec![Tally::default(); frame::end() as usize], may_map, free: 0, ram: 0 };
    for h in held {
        audit.add(h.mfn, h.general, h.typed);
    }
    for frame in (0..frame::end()).filter_map(|n| frame::ram(Mfn(n))) {
        audit.frame(frame)?;
    }
    for (n, want) in audit.tallies.iter().enumerate() {
        if let Some(frame) = frame::ram(Mfn(n as u64)) {
            let s = frame.state();
            ensure!(
                (s.count, s.type_count) == (want.general, want.typed),
                "2: {}: expected {} general and {} type references: {s:?}",
                frame.mfn(),
                want.general,
                want.typed
            );
        }
    }
    ensure!(audit.free == buddy::free_frames(), "7: {} frames look free, {} are", audit.free, buddy::free_frames());
    ensure!(audit.ram == buddy::total_frames(), "7: {} frames of RAM, {} known", audit.ram, buddy::total_frames());
    Ok(())
}

impl Audit<'_> {
    fn add(&mut self, mfn: Mfn, general: u32, typed: u32) {
        if let Some(t) = self.tallies.get_mut(mfn.0 as usize) {
            t.general += general;
            t.typed += typed;
        }
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), String> {
        let (mfn, s) = (frame.mfn(), frame.state());
        self.ram += 1;
        if s.owner == DomId::INVALID {
            self.free += 1;
            ensure!(!s.allocated && !s.special, "7: {mfn} free yet {s:?}");
        }
        self.add(mfn, u32::from(s.allocated), u32::from(s.special && s.allocated));
        self.add(mfn, u32::from(s.pinned), u32::from(s.pinned));
        self.add(mfn, u32::from(s.partial), u32::from(s.partial));
        ensure!(s.type_count == 0 || s.validated || s.partial, "{mfn} left locked: {s:?}");
        ensure!(!(s.partial && (s.pinned || s.validated)), "{mfn} partial and more: {s:?}");
        if let Some(level) = s.page_type.level() {
            ensure!(s.type_count != 0 || !s.validated, "{mfn} valid without references: {s:?}");
            let entries = if s.partial { usize::from(s.progress) } else { 512 };
            if s.type_count != 0 {
                self.table(mfn, &s, level, entries)?;
            }
        }
        Ok(())
    }

    fn table(&mut self, mfn: Mfn, s: &FrameState, level: u8, entries: usize) -> Result<(), String> {
        for i in 0..entries {
            let value = entry(mfn, i).load(Ordering::Relaxed);
            if level == 4 && (256..272).contains(&i) {
                ensure!(s.partial || pt::is_hypervisor_slot(i, value), "4: L4 {mfn} slot {i} is {value:#x}");
            } else if value & P != 0 {
                if level == 1 { self.l1_entry(mfn, s, i, value)? } else { self.table_entry(mfn, s, level, i, value)? }
            }
        }
        Ok(())
    }

    fn l1_entry(&mut self, mfn: Mfn, s: &FrameState, i: usize, value: u64) -> Result<(), String> {
        ensure!(value & !(flags::allowed_l1() | CACHE) == 0, "4: L1 {mfn} entry {i} is {value:#x}");
        ensure!(flags::adjust_l1(value) == value, "4: L1 {mfn} entry {i} is not adjusted: {value:#x}");
        let target = flags::mfn_of(value);
        let Some(frame) = frame::ram(target) else {
            return Ok(());
        };
        let t = frame.state();
        let writable = value & RW != 0;
        self.add(target, 1, u32::from(writable));
        ensure!(
            !writable || (t.page_type == PageType::Writable && t.validated),
            "1: L1 {mfn} entry {i} maps {target} writable, which is {t:?}"
        );
        ensure!(
            t.owner == s.owner || (self.may_map)(Foreign { tables: s.owner, owner: t.owner, mfn: target, writable }),
            "3: L1 {mfn} entry {i} of {} maps {target} of {}",
            s.owner,
            t.owner
        );
        Ok(())
    }

    fn table_entry(&mut self, mfn: Mfn, s: &FrameState, level: u8, i: usize, value: u64) -> Result<(), String> {
        ensure!(value & !flags::allowed_table() == 0, "4: L{level} {mfn} entry {i} is {value:#x}");
        let target = flags::mfn_of(value);
        let Some(frame) = frame::ram(target) else {
            return Err(alloc::format!("3: L{level} {mfn} entry {i} leads to no RAM: {value:#x}"));
        };
        let t = frame.state();
        self.add(target, 1, 1);
        ensure!(
            t.owner == s.owner && t.page_type == PageType::table(level - 1) && t.validated,
            "3: L{level} {mfn} entry {i} leads to {target}: {t:?}"
        );
        Ok(())
    }
}

/// Checks the simulated TLBs (5): no CPU can write a frame that is a table or a descriptor page, and no CPU reaches a
/// frame of the hypervisor's. Frames that are free may be cached still: they are flushed before they are used anew.
///
/// # Errors
/// The first broken rule, in words.
#[cfg(not(target_os = "none"))]
pub fn check_tlb() -> Result<(), String> {
    for (cpu, va, cached) in arch::tlb::cached() {
        let Some(frame) = frame::ram(cached.mfn) else {
            continue;
        };
        let s = frame.state();
        let checked = s.type_count != 0 && s.page_type != PageType::Writable && s.page_type != PageType::None;
        ensure!(!(cached.writable && checked), "5: CPU {} can write {} at {va}, which is {s:?}", cpu.0, cached.mfn);
        ensure!(s.owner != DomId::IDLE, "5: CPU {} reaches the hypervisor's {} at {va}", cpu.0, cached.mfn);
    }
    Ok(())
}
