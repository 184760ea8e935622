// SPDX-License-Identifier: MIT OR Apache-2.0
//! The type word of a frame: taking, changing and dropping types. The state space is drawn in [`super`].

use super::{Frame, LENT, NONCOHERENT, PARTIAL, PINNED, PageType, Start, TYPE, VALIDATED, WRITABLE};
use core::sync::atomic::Ordering;
use hypercalls::{Errno, Result};

impl Frame {
    /// Returns the stamp of the moment when the type count last became 0.
    #[inline]
    pub(crate) fn stamp(&self) -> u32 {
        self.stamp.load(Ordering::Acquire)
    }
    /// True when the frame is a valid table of this type now.
    #[inline]
    pub fn is_valid(&self, kind: PageType) -> bool {
        self.kind.load(Ordering::Acquire) & (TYPE | VALIDATED) == kind.bits() | VALIDATED
    }
    /// Returns the type if the type count is above 0 and the content valid.
    #[inline]
    pub fn valid_type(&self) -> PageType {
        let word = self.kind.load(Ordering::Acquire);
        if word & VALIDATED != 0 && word as u32 != 0 { PageType::of(word) } else { PageType::None }
    }
    /// Takes a writable reference.
    #[inline]
    pub(crate) fn get_writable(&self) -> Result<()> {
        let word = self.kind.load(Ordering::Acquire);
        if word & (TYPE | VALIDATED) == WRITABLE | VALIDATED
            && word as u32 != u32::MAX
            && self.kind.compare_exchange(word, word.wrapping_add(1), Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            return Ok(());
        }
        self.get_writable_slow()
    }
    #[cold]
    fn get_writable_slow(&self) -> Result<()> {
        if let Start::Validate { stale, .. } = self.get_type(PageType::Writable)? {
            if stale {
                crate::account::flush_stale(self);
            }
            self.set_valid();
        }
        Ok(())
    }
    /// Drops a writable reference.
    #[inline]
    pub(crate) fn put_writable(&self) {
        debug_assert_eq!(PageType::of(self.kind.load(Ordering::Relaxed)), PageType::Writable);
        self.put_type_simple();
    }
    /// Drops a reference to a type that needs no work at 0 (Writable, SegDesc).
    #[inline]
    pub(crate) fn put_type_simple(&self) {
        let mut word = self.kind.load(Ordering::Relaxed);
        loop {
            debug_assert_ne!(word as u32, 0, "type count of {} below 0", self.mfn());
            if word as u32 == 1 {
                // After the last use, before others can see the count at 0 (XSA-241).
                self.stamp.store(arch::tlb::stamp(), Ordering::Release);
            }
            match self.kind.compare_exchange_weak(word, word - 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }
    /// Takes a reference of a type, or the right and duty to validate the frame for it.
    pub(crate) fn get_type(&self, kind: PageType) -> Result<Start> {
        let mut word = self.kind.load(Ordering::Acquire);
        loop {
            let same = word & TYPE == kind.bits();
            let count = word as u32;
            let (next, start) = if count == 0 {
                let fits = same && word & VALIDATED != 0;
                let flags = word & (NONCOHERENT | LENT) | if fits { VALIDATED } else { 0 };
                let stale = !same && word & TYPE != 0;
                let start = if fits { Start::Valid } else { Start::Validate { from: 0, resumed: false, stale } };
                (kind.bits() | flags | 1, start)
            } else if !same {
                return Err(Errno::EINVAL);
            } else if word & VALIDATED != 0 {
                if count == u32::MAX {
                    return Err(Errno::EINVAL);
                }
                (word + 1, Start::Valid)
            } else if word & PARTIAL != 0 {
                let from = self.progress.load(Ordering::Relaxed);
                (word & !PARTIAL, Start::Validate { from, resumed: true, stale: false })
            } else if kind == PageType::Writable {
                // Another CPU flushes for the change of type; that takes one shootdown.
                <arch::sync::Relax as spin::RelaxStrategy>::relax();
                word = self.kind.load(Ordering::Acquire);
                continue;
            } else {
                // Tables change under the lock that the caller holds: this is an operation on the table itself.
                return Err(Errno::EBUSY);
            };
            match self.kind.compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(start),
                Err(now) => word = now,
            }
        }
    }
    /// Ends a validation: the frame is valid.
    pub(crate) fn set_valid(&self) {
        self.kind.fetch_or(VALIDATED, Ordering::AcqRel);
    }
    /// Ends a validation that failed or a devalidation: the type count becomes 0.
    pub(crate) fn set_unused(&self) {
        self.stamp.store(arch::tlb::stamp(), Ordering::Release);
        self.kind.fetch_sub(1, Ordering::AcqRel);
    }
    /// Interrupts a validation or devalidation with `progress` entries holding references.
    pub(crate) fn suspend(&self, progress: u16) {
        self.progress.store(progress, Ordering::Relaxed);
        self.kind.fetch_or(PARTIAL, Ordering::AcqRel);
    }
    /// Takes up interrupted work on a table: returns its level and progress, and the frame is ours alone.
    pub(crate) fn resume(&self) -> Option<(u8, u16)> {
        let word = self.kind.load(Ordering::Acquire);
        let level = PageType::of(word).level()?;
        if word & PARTIAL == 0 {
            return None;
        }
        let progress = self.progress.load(Ordering::Relaxed);
        self.kind.compare_exchange(word, word & !PARTIAL, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        Some((level, progress))
    }
    /// Drops a reference to a valid table. True: it was the last, the frame is ours alone now and must be devalidated.
    #[must_use]
    pub(crate) fn put_table(&self) -> bool {
        let mut word = self.kind.load(Ordering::Acquire);
        loop {
            debug_assert!(word & VALIDATED != 0 && word as u32 != 0, "{}: put of an invalid table", self.mfn());
            let last = word as u32 == 1;
            let next = if last { word & !VALIDATED } else { word - 1 };
            match self.kind.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return last,
                Err(now) => word = now,
            }
        }
    }
    /// Marks a valid table pinned; false if it is already.
    pub(crate) fn set_pinned(&self) -> bool {
        self.kind.fetch_or(PINNED, Ordering::AcqRel) & PINNED == 0
    }
    /// Takes the mark away; returns the level of the table that was pinned.
    pub(crate) fn clear_pinned(&self) -> Option<u8> {
        let word = self.kind.fetch_and(!PINNED, Ordering::AcqRel);
        if word & PINNED != 0 { PageType::of(word).level() } else { None }
    }
    /// Fixes the type of a frame that the hypervisor shares: one reference that only it drops.
    pub(crate) fn fix_type(&self, kind: PageType) {
        self.kind.store(kind.bits() | VALIDATED | 1, Ordering::Release);
    }
    /// Notes a writable mapping that goes around the caches (XSA-402).
    pub(crate) fn set_noncoherent(&self) {
        self.kind.fetch_or(NONCOHERENT, Ordering::AcqRel);
    }
    /// True when there was one; forgets it.
    pub(crate) fn take_noncoherent(&self) -> bool {
        self.kind.load(Ordering::Acquire) & NONCOHERENT != 0
            && self.kind.fetch_and(!NONCOHERENT, Ordering::AcqRel) & NONCOHERENT != 0
    }
    /// Notes that tables of another domain than the owner map it writable.
    #[inline]
    pub(crate) fn set_lent(&self) {
        if self.kind.load(Ordering::Relaxed) & LENT == 0 {
            self.kind.fetch_or(LENT, Ordering::AcqRel);
        }
    }
    /// True when they did since this was asked last.
    fn take_lent(&self) -> bool {
        self.kind.load(Ordering::Acquire) & LENT != 0 && self.kind.fetch_and(!LENT, Ordering::AcqRel) & LENT != 0
    }
    /// Flushes, for a change of type, what may be stale on the owner's CPUs, and on others if it was lent.
    pub(crate) fn flush_stale(&self, owners: impl FnOnce() -> arch::CpuMask) {
        let cpus = if self.take_lent() { arch::cpu::online() } else { owners() };
        arch::tlb::flush_since(&cpus, self.stamp());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ALLOCATED, OWNER_SHIFT, RAM, get};
    use super::*;
    use crate::hosted;
    use hypercalls::{DomId, Mfn};

    /// Counts that are at their end are an error, never 0 again.
    #[test]
    fn counts_do_not_wrap() {
        let _machine = hosted::boot(16, 1);
        let frame = get(Mfn(3)).expect("a frame of this machine");
        let word = 7 << OWNER_SHIFT | ALLOCATED | RAM;
        for (count, more) in [(1, true), (u32::MAX - 1, true), (u32::MAX, false), (0, false)] {
            frame.count.store(word | u64::from(count), Ordering::SeqCst);
            assert_eq!(frame.try_get(DomId(7)), more, "{count:#x} references");
            assert_eq!(frame.state().count, count + u32::from(more));
            assert_eq!(frame.owner(), DomId(7), "nothing else of the word changes");
        }
        for kind in [PageType::Writable, PageType::L1, PageType::L4, PageType::SegDesc] {
            for (count, more) in [(1, true), (u32::MAX - 1, true), (u32::MAX, false)] {
                frame.kind.store(kind.bits() | VALIDATED | u64::from(count), Ordering::SeqCst);
                let result = if kind == PageType::Writable {
                    frame.get_writable()
                } else {
                    frame.get_type(kind).map(|start| assert_eq!(start, Start::Valid))
                };
                assert_eq!(result, if more { Ok(()) } else { Err(Errno::EINVAL) }, "{count:#x} references of {kind:?}");
                let state = frame.state();
                assert_eq!((state.type_count, state.page_type), (count + u32::from(more), kind));
            }
        }
        // What the machine finds when it ends.
        frame.kind.store(0, Ordering::SeqCst);
    }
}
