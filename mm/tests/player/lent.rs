// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames that the player's domains lend each other.

use hypercalls::Maddr;
use mm::EntryRef;
use mm::flags::{A, D, NX};

use super::super::world::*;
use super::Player;

impl Player<'_> {
    /// An L1 slot, most of the time one that a CPU has loaded.
    fn l1_slot(&mut self, who: usize) -> Maddr {
        let slot = slot(self.frame(who, 1), self.index());
        match arch::tlb::cached() {
            there if !there.is_empty() && !self.r.one_in(4) => {
                let (cpu, va, _) = self.r.pick(&there);
                let walked = self.loaded[cpu.0 as usize].filter(|l| l.0 == who).and_then(|l| mm::walk(l.1, va).l1e);
                walked.unwrap_or(slot)
            }
            _ => slot,
        }
    }

    /// Maps a frame that the other domain lends.
    pub(super) fn lend(&mut self, who: usize) {
        let lender = if self.r.one_in(6) { who } else { 1 - who };
        let (mfn, owner) = (self.frame(lender, 0), self.w.domains[lender].id());
        let (at, writable, flags) = (self.l1_slot(who), self.r.one_in(2), self.r.pick(&[US, A | D, NX, 1 << 50]));
        let id = self.w.domains[who].id();
        self.run(who, id, |t, c| {
            t.drain(c)?;
            t.map_lent(c, at, flags, EntryRef::get(mfn, owner, writable)?)
        });
    }

    /// Ends a loan as it should be done: the flush comes before the references go.
    pub(super) fn end_loan(&mut self, who: usize) {
        let (at, from, wrong) = (self.l1_slot(who), self.l1_slot(who), self.r.one_in(12));
        let replace = self.r.one_in(3);
        let entry = read(at.mfn(), at.offset() / 8);
        let (mfn, writable) = (mm::flags::mfn_of(entry), (entry & RW != 0) != wrong);
        let id = self.w.domains[who].id();
        let mut got = None;
        self.run(who, id, |t, c| {
            t.drain(c)?;
            let lent =
                if replace { t.replace_lent(c, at, mfn, writable, from) } else { t.unmap_lent(c, at, mfn, writable) };
            got = Some(lent?);
            Ok(())
        });
        if let Some(lent) = got {
            assert_eq!((lent.mfn(), lent.is_writable()), (mfn, writable));
            arch::tlb::flush(&self.w.domains[who].account.dirty.load(), arch::Flush::All);
        }
    }
}
