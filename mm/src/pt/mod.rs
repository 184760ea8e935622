// SPDX-License-Identifier: MIT OR Apache-2.0
//! Direct paging: guests' page tables, validated once and kept valid.
//!
//! A guest builds its tables in its own memory; the hypervisor lets hardware walk them only once every entry has been
//! checked, and then makes every change itself. Each present L1 entry of RAM holds one general reference on its
//! frame, and a writable one if it is writable; each present entry above holds one general and one table reference. So
//! a frame that is a table cannot be writable anywhere, and a frame that is mapped cannot be freed.
//!
//! **Restarts.** Validating or tearing down a tree can take long. It stops when [`arch::cpu::preempt_pending`] says so, with
//! the progress kept in the frames ([`crate::frame`]: the partial state), and the operation returns `ERESTART`: issued
//! anew with the same arguments it goes on. A teardown that follows an operation that is itself done is remembered in
//! [`PageTables`] instead, and finished by [`PageTables::drain`], with which every operation begins.
//! Levels strictly decrease from a table to its entries (same-level entries are refused: XSA-240), so nothing here
//! recurses deeper than four.
//!
//! # Locking
//! [`PageTables`] is to be kept in the domain's page-table lock: `&mut` proves that the lock is held. Everything that
//! changes tables of a domain, whoever asks for it, is a method of that domain's `PageTables`.

mod l1;
mod lent;
mod table;

pub(crate) use table::is_hypervisor_slot;
pub use table::{RootUse, set_hypervisor_slots};

use crate::account::Account;
use crate::entry::entry;
use crate::frame::{self, Frame, PageType, Start};
use crate::walk::slot_below;
use crate::{flags, segdesc};
use arch::Flush;
use core::sync::atomic::Ordering;
use hypercalls::{DomId, Errno, GuestVa, Maddr, Mfn, Result};

/// What a domain may do with a frame that is not RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoAccess {
    /// It may not map it.
    None,
    /// It may map it; what it wanted writable becomes read-only, silently.
    ReadOnly,
    /// It may map it.
    ReadWrite,
}

/// The rights of a domain with respect to devices.
pub trait IoPolicy {
    /// Returns what the domain may do with a frame that is not RAM.
    fn mmio(&self, mfn: Mfn) -> IoAccess;
    /// True when its L1 entries may have cache bits.
    fn cache_bits(&self) -> bool;
}

/// The policy of a domain without devices.
#[derive(Clone, Copy, Debug)]
pub struct NoIo;

impl IoPolicy for NoIo {
    fn mmio(&self, _: Mfn) -> IoAccess {
        IoAccess::None
    }
    fn cache_bits(&self) -> bool {
        false
    }
}

/// In whose name page tables are changed.
#[derive(Clone, Copy)]
pub struct PtCtx<'a> {
    /// Account of the domain whose tables these are.
    pub owner: &'a Account,
    /// Owner of the frames that new L1 entries may map; the caller checked that the owner of the tables may do so.
    pub fd: DomId,
    /// What is not RAM.
    pub io: &'a dyn IoPolicy,
}

impl core::fmt::Debug for PtCtx<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PtCtx").field("domid", &self.domid()).field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl<'a> PtCtx<'a> {
    /// Makes the context in which a domain maps its own frames.
    pub fn own(owner: &'a Account, io: &'a dyn IoPolicy) -> Self {
        Self { owner, fd: owner.domid(), io }
    }
    /// Returns the domain whose tables these are.
    #[inline]
    pub fn domid(&self) -> DomId {
        self.owner.domid()
    }
    /// Flushes translations of the frame that are older than its stamp, for a change of its type.
    fn flush_stale(&self, frame: &Frame) {
        frame.flush_stale(|| self.owner.dirty.load());
    }
}

/// How an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// As given.
    Plain,
    /// With the accessed and dirty bits of the old entry added.
    PreserveAd,
}

/// A root table that a vCPU has loaded or will load. To be given back to [`PageTables::put_root`]; dropping it leaks the
/// table until the domain is relinquished.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct RootRef(Mfn);

impl RootRef {
    /// Returns the frame to load.
    #[inline]
    pub fn mfn(&self) -> Mfn {
        self.0
    }
}

/// What is still owed for a domain's page tables; lives in its page-table lock.
#[derive(Debug, Default)]
pub struct PageTables {
    /// A table in the partial state whose teardown is to be finished. Holds no reference: the state does.
    deferred: Option<Mfn>,
    /// An entry above L1 that hardware may have cached was changed.
    flush_owed: bool,
    /// The domain is dying: no frame becomes a table any more.
    closed: bool,
}

impl PageTables {
    /// Nothing owed.
    pub const fn new() -> Self {
        Self { deferred: None, flush_owed: false, closed: false }
    }

    /// Finishes a teardown that was put off.
    ///
    /// # Errors
    /// `ERESTART`: to be called again.
    #[inline]
    pub fn drain(&mut self, ctx: &PtCtx<'_>) -> Result<()> {
        if self.deferred.is_none() { Ok(()) } else { self.drain_slow(ctx) }
    }
    #[cold]
    fn drain_slow(&mut self, ctx: &PtCtx<'_>) -> Result<()> {
        if let Some(mfn) = self.deferred {
            table::finish_partial(ctx, mfn)?;
            self.deferred = None;
        }
        Ok(())
    }
    /// True when [`PageTables::drain`] has something to do: the hypercall should be continued until it has not.
    pub fn has_deferred(&self) -> bool {
        self.deferred.is_some()
    }
    /// Does the flush that changes above L1 owe. To be called after a batch, before the lock is released.
    #[inline]
    pub fn finish(&mut self, ctx: &PtCtx<'_>) {
        if self.flush_owed {
            self.flush_owed = false;
            arch::tlb::flush(&ctx.owner.dirty.load(), Flush::All);
        }
    }

    /// Lets no pin, root or descriptor page be taken any more, for good: the domain is dying.
    pub fn close(&mut self) {
        self.closed = true;
    }
    fn check_open(&self) -> Result<()> {
        if self.closed { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// Changes the 8 bytes at `at` in a frame of the domain's: an entry, if the frame is a page table, else plain
    /// memory. `at` is aligned to 8 (command bits are the caller's to strip).
    ///
    /// # Errors
    /// `ERESTART`: to be called again, nothing is changed yet. `EINVAL`: not a frame of the domain's, a frame of another
    /// type, a bad flag or a bad table. `EBUSY`: the mapped frame is not `fd`'s or cannot be writable. `EPERM`: I/O
    /// memory that is not the domain's. On any error the entry is unchanged.
    #[inline]
    pub fn mod_entry(&mut self, ctx: &PtCtx<'_>, at: Maddr, value: u64, how: Write) -> Result<()> {
        self.drain(ctx)?;
        let frame = frame::get(at.mfn()).ok_or(Errno::EINVAL)?;
        // Under the lock a valid table of the domain stays one; anything else needs a reference.
        if frame.is_valid(PageType::L1) && frame.owner() == ctx.domid() && at.offset().is_multiple_of(8) {
            return l1::modify(ctx, entry(at.mfn(), at.offset() / 8), value, how);
        }
        self.mod_other(ctx, frame, at, value, how)
    }
    #[inline(never)]
    fn mod_other(&mut self, ctx: &PtCtx<'_>, frame: &'static Frame, at: Maddr, value: u64, how: Write) -> Result<()> {
        if !at.offset().is_multiple_of(8) || !frame.try_get(ctx.domid()) {
            return Err(Errno::EINVAL);
        }
        let result = match frame.valid_type().level() {
            Some(1) => l1::modify(ctx, entry(at.mfn(), at.offset() / 8), value, how),
            Some(level) => table::modify(self, ctx, frame, level, at.offset() / 8, value, how),
            None => frame.get_writable().map_err(|_| Errno::EINVAL).map(|()| {
                entry(at.mfn(), at.offset() / 8).store(value, Ordering::Relaxed);
                frame.put_writable();
            }),
        };
        frame.put();
        result
    }

    /// Changes an L1 entry, where [`crate::walk()`] found one.
    ///
    /// # Errors
    /// As [`PageTables::mod_entry`]; `EINVAL` if `at` is not in a valid L1 table of the domain's.
    #[inline]
    pub fn mod_l1(&mut self, ctx: &PtCtx<'_>, at: Maddr, value: u64, how: Write) -> Result<()> {
        self.drain(ctx)?;
        l1::modify(ctx, l1_slot(ctx, at)?, value, how)
    }

    /// Changes the L1 entry of an address below a root of the domain's.
    ///
    /// # Errors
    /// As [`PageTables::mod_entry`]; `EINVAL` too if the root is none of the domain's, or leads to no L1 table there.
    #[inline]
    pub fn mod_va(&mut self, ctx: &PtCtx<'_>, root: Mfn, va: GuestVa, value: u64, how: Write) -> Result<()> {
        self.drain(ctx)?;
        let frame = frame::get(root).ok_or(Errno::EINVAL)?;
        if !frame.is_valid(PageType::L4) || frame.owner() != ctx.domid() {
            return Err(Errno::EINVAL);
        }
        l1::modify(ctx, slot_below(root, va).ok_or(Errno::EINVAL)?, value, how)
    }

    /// Exchanges an L1 entry for another one, as one instruction would. Returns what it held.
    ///
    /// # Errors
    /// As [`PageTables::mod_l1`].
    #[inline]
    pub fn swap_l1(&mut self, ctx: &PtCtx<'_>, at: Maddr, value: u64) -> Result<u64> {
        self.drain(ctx)?;
        l1::exchange(ctx, l1_slot(ctx, at)?, value)
    }

    /// Reads an L1 entry.
    ///
    /// # Errors
    /// `EINVAL` if `at` is not in a valid L1 table of the domain's.
    #[inline]
    pub fn read_l1(&self, ctx: &PtCtx<'_>, at: Maddr) -> Result<u64> {
        Ok(l1_slot(ctx, at)?.load(Ordering::Acquire))
    }

    /// Changes an L1 entry if it reads `expected`, as one locked instruction would. Returns what it read.
    ///
    /// # Errors
    /// As [`PageTables::mod_l1`].
    pub fn cmpxchg_l1(&mut self, ctx: &PtCtx<'_>, at: Maddr, expected: u64, value: u64) -> Result<u64> {
        self.drain(ctx)?;
        l1::compare_exchange(ctx, l1_slot(ctx, at)?, expected, value)
    }

    /// Validates a tree of tables and keeps it valid until it is unpinned.
    ///
    /// # Errors
    /// `ERESTART`: to be called again. `EINVAL`: not the domain's frame, in other use, a bad entry, pinned already, or the
    /// domain is dying: nobody would end the pin.
    pub fn pin(&mut self, ctx: &PtCtx<'_>, mfn: Mfn, level: u8) -> Result<()> {
        self.drain(ctx)?;
        self.check_open()?;
        if !(1..=4).contains(&level) || ctx.owner.is_dying() {
            return Err(Errno::EINVAL);
        }
        let frame = table::get(self, ctx, mfn, level)?;
        if !frame.set_pinned() {
            self.put_table(ctx, frame, level);
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// Ends a pin. The teardown that may follow may be put off.
    ///
    /// # Errors
    /// `ERESTART`: to be called again. `EINVAL`: not a pinned frame of the domain's.
    pub fn unpin(&mut self, ctx: &PtCtx<'_>, mfn: Mfn) -> Result<()> {
        self.drain(ctx)?;
        let frame = frame::ram(mfn).filter(|f| f.owner() == ctx.domid()).ok_or(Errno::EINVAL)?;
        let level = frame.clear_pinned().ok_or(Errno::EINVAL)?;
        self.put_table(ctx, frame, level);
        Ok(())
    }

    /// Takes the references of a root table that a vCPU will load as its kernel's or its user mode's, validating it if
    /// need be.
    ///
    /// # Errors
    /// As [`PageTables::pin`].
    pub fn get_root(&mut self, ctx: &PtCtx<'_>, mfn: Mfn, use_as: RootUse) -> Result<RootRef> {
        self.drain(ctx)?;
        self.check_open()?;
        table::get(self, ctx, mfn, 4)?;
        table::set_m2p_slot(mfn, use_as);
        Ok(RootRef(mfn))
    }

    /// Gives a root table back. No CPU has it loaded any more. The teardown that may follow may be put off; if one is put
    /// off already, it is finished first, however long it takes, so drain before.
    pub fn put_root(&mut self, ctx: &PtCtx<'_>, root: RootRef) {
        while self.drain(ctx).is_err() {}
        if let Some(frame) = frame::ram(root.0) {
            self.put_table(ctx, frame, 4);
        }
    }

    /// Drops a table's reference and remembers a teardown that is not finished.
    fn put_table(&mut self, ctx: &PtCtx<'_>, frame: &'static Frame, level: u8) {
        if table::put(ctx, frame, level).is_err() {
            debug_assert!(self.deferred.is_none(), "two teardowns at once");
            self.deferred = Some(frame.mfn());
        }
    }

    /// Validates a frame of the domain's as a page of segment descriptors, and takes a general and a type reference.
    ///
    /// # Errors
    /// `EINVAL`: not the domain's frame, in other use, or a bad descriptor.
    pub fn get_segdesc(&mut self, ctx: &PtCtx<'_>, mfn: Mfn) -> Result<crate::refs::SegDescRef> {
        self.check_open()?;
        let frame = frame::ram(mfn).filter(|f| f.try_get(ctx.domid())).ok_or(Errno::EINVAL)?;
        let result = match frame.get_type(PageType::SegDesc) {
            Ok(Start::Valid) => Ok(()),
            Ok(Start::Validate { stale, .. }) => {
                prepare(ctx, frame, stale);
                if segdesc::validate(mfn) {
                    frame.set_valid();
                    Ok(())
                } else {
                    frame.set_unused();
                    Err(Errno::EINVAL)
                }
            }
            Err(e) => Err(e),
        };
        match result {
            Ok(()) => Ok(crate::refs::SegDescRef::new(frame)),
            Err(e) => {
                frame.put();
                Err(e)
            }
        }
    }

    /// Writes one descriptor into a frame of the domain's that holds descriptors or plain memory; `at` is aligned to 8.
    ///
    /// # Errors
    /// `EINVAL`: a bad descriptor, not the domain's frame, or a page table.
    pub fn update_descriptor(&mut self, ctx: &PtCtx<'_>, at: Maddr, mut descriptor: u64) -> Result<()> {
        self.drain(ctx)?;
        if !at.offset().is_multiple_of(8) || !segdesc::check_descriptor(&mut descriptor) {
            return Err(Errno::EINVAL);
        }
        let frame = frame::ram(at.mfn()).filter(|f| f.try_get(ctx.domid())).ok_or(Errno::EINVAL)?;
        let result = if frame.valid_type() == PageType::SegDesc {
            entry(at.mfn(), at.offset() / 8).store(descriptor, Ordering::Release);
            Ok(())
        } else {
            frame.get_writable().map_err(|_| Errno::EINVAL).map(|()| {
                entry(at.mfn(), at.offset() / 8).store(descriptor, Ordering::Release);
                frame.put_writable();
            })
        };
        frame.put();
        result
    }

    /// Gives up everything a dying domain owns: pins and interrupted work first, then the frames. No vCPU of it runs, its
    /// roots were put, its account takes nothing in any more ([`Account::begin_dying`]), and its tables are closed
    /// ([`PageTables::close`]).
    ///
    /// # Errors
    /// `ERESTART`: to be called again.
    pub fn relinquish(&mut self, ctx: &PtCtx<'_>) -> Result<()> {
        self.drain(ctx)?;
        while let Some(frame) = ctx.owner.next_typed() {
            let level = frame.clear_pinned();
            if let Some(level) = level {
                self.put_table(ctx, frame, level);
            } else if table::finish_partial(ctx, frame.mfn()).is_err() {
                self.deferred = Some(frame.mfn());
            }
            frame.put();
            self.drain(ctx)?;
            if arch::cpu::preempt_pending() {
                return Err(Errno::ERESTART);
            }
        }
        while let Some(frame) = ctx.owner.next_owned() {
            if frame.deallocate(ctx.domid(), false) {
                crate::m2p::clear(frame.mfn());
                frame.put();
            }
            frame.put();
            if arch::cpu::preempt_pending() {
                return Err(Errno::ERESTART);
            }
        }
        Ok(())
    }
}

/// Returns the slot at `at` if it lies in a valid L1 table of the domain's.
#[inline]
fn l1_slot(ctx: &PtCtx<'_>, at: Maddr) -> Result<&'static core::sync::atomic::AtomicU64> {
    let frame = frame::get(at.mfn()).ok_or(Errno::EINVAL)?;
    if !frame.is_valid(PageType::L1) || frame.owner() != ctx.domid() || !at.offset().is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    Ok(entry(at.mfn(), at.offset() / 8))
}

/// Before the content of a frame that changes to a checked type is read: no CPU can write it any more, and caches and
/// memory agree.
fn prepare(ctx: &PtCtx<'_>, frame: &Frame, stale: bool) {
    if stale {
        ctx.flush_stale(frame);
    }
    if frame.take_noncoherent() {
        arch::phys::flush_cache(frame.mfn());
    }
}

/// True when two entries, each present or not, differ in what a CPU may have cached of the old one.
fn cached_part_changed(old: u64, new: u64) -> bool {
    use flags::{A, AVAIL, AVAIL_HIGH, D, P};
    old & P != 0 && (old ^ new) & !(A | D | AVAIL | AVAIL_HIGH) != 0
}
