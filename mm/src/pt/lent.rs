// SPDX-License-Identifier: MIT OR Apache-2.0
//! L1 entries of frames that another domain lent (granted) to the owner of the tables.
//!
//! The right to map such a frame is in no page table, so the caller brings it: an [`EntryRef`], which the entry then holds like
//! any other. Whoever ends a loan gets it back, and drops it after the flush: until then the lender's frame is neither
//! free nor of another type. An entry that the guest itself overwrites drops its references like any other, unflushed; the
//! frame remembers that it was lent ([`crate::frame`]).

use super::{PageTables, PtCtx, l1, l1_slot};
use crate::flags::{self, P, RW};
use crate::frame::{self, PageType};
use crate::refs::EntryRef;
use crate::walk::place_below;
use core::sync::atomic::Ordering;
use hypercalls::{Errno, GuestVa, Maddr, Mfn, Result};

impl PageTables {
    /// Finds the L1 entry of an address below a root of the domain's; `None` too for another root.
    #[inline]
    pub fn l1_place(&self, ctx: &PtCtx<'_>, root: Mfn, va: GuestVa) -> Option<Maddr> {
        let frame = frame::get(root)?;
        if !frame.is_valid(PageType::L4) || frame.owner() != ctx.domid() {
            return None;
        }
        place_below(root, va)
    }

    /// Makes the L1 entry at `at` map a frame with its references and the given flags, of which P and RW are the
    /// references' to say.
    ///
    /// # Errors
    /// `EINVAL` if `at` is not in a valid L1 table of the domain's, or for a flag that a guest may not set; the references
    /// are dropped then.
    pub fn map_lent(&mut self, ctx: &PtCtx<'_>, at: Maddr, flags: u64, lent: EntryRef) -> Result<()> {
        let slot = l1_slot(ctx, at)?;
        if flags & !flags::allowed_l1() != 0 {
            return Err(Errno::EINVAL);
        }
        lent.note_tables_of(ctx.domid());
        let new = flags::adjust_l1(lent.into_entry() | flags & !(P | RW | flags::ADDR));
        l1::put_refs(slot.swap(new, Ordering::AcqRel));
        Ok(())
    }

    /// Clears the L1 entry at `at` if it maps `mfn`, writable or not as given, and returns its references.
    ///
    /// # Errors
    /// `EINVAL`: it does not, or it is no L1 entry of the domain's; nothing is changed.
    pub fn unmap_lent(&mut self, ctx: &PtCtx<'_>, at: Maddr, mfn: Mfn, writable: bool) -> Result<EntryRef> {
        let slot = l1_slot(ctx, at)?;
        check(slot.load(Ordering::Acquire), mfn, writable)?;
        EntryRef::from_entry(slot.swap(0, Ordering::AcqRel)).ok_or(Errno::EINVAL)
    }

    /// As [`PageTables::unmap_lent`], but moves the entry at `from`, as it is, into the place.
    ///
    /// # Errors
    /// As there; the two must not be one.
    pub fn replace_lent(
        &mut self,
        ctx: &PtCtx<'_>,
        at: Maddr,
        mfn: Mfn,
        writable: bool,
        from: Maddr,
    ) -> Result<EntryRef> {
        let (slot, source) = (l1_slot(ctx, at)?, l1_slot(ctx, from)?);
        check(slot.load(Ordering::Acquire), mfn, writable)?;
        if at == from {
            return Err(Errno::EINVAL);
        }
        let moved = source.swap(0, Ordering::AcqRel);
        EntryRef::from_entry(slot.swap(moved, Ordering::AcqRel)).ok_or(Errno::EINVAL)
    }
}

/// Only the CPU changes an entry under the lock, and of it only bits that do not count here.
fn check(entry: u64, mfn: Mfn, writable: bool) -> Result<()> {
    let right = if writable { P | RW } else { P };
    if flags::mfn_of(entry) == mfn && entry & (P | RW) == right { Ok(()) } else { Err(Errno::EINVAL) }
}
