// SPDX-License-Identifier: MIT OR Apache-2.0
//! References to frames as values: dropped exactly once, by `Drop`, in O(1).
//!
//! References that live in page-table entries are not values; `pt` takes them when an entry is written and drops them
//! when it is replaced. [`EntryRef`] is the form in which those of one L1 entry enter it and leave it. References to
//! tables above are [`crate::pt::RootRef`] and pins, because dropping one may mean tearing down a tree.

use crate::flags::{self, P, RW};
use crate::frame::{self, Frame};
use core::mem::ManuallyDrop;
use hypercalls::{DomId, Errno, Mfn, Result};

/// A general reference: the frame stays owned by its owner and is not reused.
#[derive(Debug)]
pub struct PageRef(&'static Frame);

impl PageRef {
    /// Takes a reference if `owner` owns the frame.
    pub fn get(mfn: Mfn, owner: DomId) -> Option<Self> {
        frame::ram(mfn).filter(|f| f.try_get(owner)).map(Self)
    }
    /// Returns the frame's number.
    pub fn mfn(&self) -> Mfn {
        self.0.mfn()
    }
    /// Returns the frame.
    pub fn frame(&self) -> &'static Frame {
        self.0
    }
    /// Returns whose frame it is.
    pub fn owner(&self) -> DomId {
        self.0.owner()
    }
    /// Takes another reference, unless there are as many as can be counted.
    #[inline]
    pub fn again(&self) -> Option<Self> {
        self.0.try_get(self.0.owner()).then_some(Self(self.0))
    }
    /// Takes a writable reference in addition.
    ///
    /// # Errors
    /// `EBUSY` if the frame is a page table or a descriptor page.
    pub fn into_writable(self) -> Result<WritableRef> {
        self.0.get_writable().map_err(|_| Errno::EBUSY)?;
        Ok(WritableRef(ManuallyDrop::new(self)))
    }
}

impl Drop for PageRef {
    fn drop(&mut self) {
        self.0.put();
    }
}

/// A general and a writable reference: the frame is plain memory and may be written.
#[derive(Debug)]
pub struct WritableRef(ManuallyDrop<PageRef>);

impl WritableRef {
    /// Takes the references if `owner` owns the frame.
    ///
    /// # Errors
    /// `EINVAL`: not the owner; `EBUSY`: a page table or a descriptor page.
    pub fn get(mfn: Mfn, owner: DomId) -> Result<Self> {
        PageRef::get(mfn, owner).ok_or(Errno::EINVAL)?.into_writable()
    }
    /// Returns the frame's number.
    pub fn mfn(&self) -> Mfn {
        self.0.mfn()
    }
}

impl Drop for WritableRef {
    fn drop(&mut self) {
        self.0.frame().put_writable();
        self.0.frame().put();
    }
}

/// A general and a type reference to a page of checked segment descriptors.
#[derive(Debug)]
pub struct SegDescRef(&'static Frame);

impl SegDescRef {
    pub(crate) fn new(frame: &'static Frame) -> Self {
        Self(frame)
    }
    /// Returns the frame's number.
    pub fn mfn(&self) -> Mfn {
        self.0.mfn()
    }
}

impl Drop for SegDescRef {
    fn drop(&mut self) {
        self.0.put_type_simple();
        self.0.put();
    }
}

/// What a present L1 entry of RAM holds: a general reference, and a writable one if the entry is writable.
#[derive(Debug)]
pub struct EntryRef {
    frame: &'static Frame,
    writable: bool,
}

impl EntryRef {
    /// Takes the references if `owner` owns the frame.
    ///
    /// # Errors
    /// `EINVAL`: not the owner; `EBUSY`: to be writable, but a page table or a descriptor page.
    #[inline]
    pub fn get(mfn: Mfn, owner: DomId, writable: bool) -> Result<Self> {
        let frame = frame::get(mfn).filter(|f| f.try_get(owner)).ok_or(Errno::EINVAL)?;
        if writable && frame.get_writable().is_err() {
            frame.put();
            return Err(Errno::EBUSY);
        }
        Ok(Self { frame, writable })
    }
    /// Returns the frame's number.
    #[inline]
    pub fn mfn(&self) -> Mfn {
        self.frame.mfn()
    }
    /// True when the frame may be written through it.
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.writable
    }
    /// Hands the references to an entry, of which this returns the frame and the rights.
    #[inline]
    pub(crate) fn into_entry(self) -> u64 {
        let this = ManuallyDrop::new(self);
        flags::entry_for(this.frame.mfn(), if this.writable { P | RW } else { P })
    }
    /// Takes the references of an entry that is no longer in its table; `None` when it held none.
    #[inline]
    pub(crate) fn from_entry(entry: u64) -> Option<Self> {
        if entry & P == 0 {
            return None;
        }
        frame::ram(flags::mfn_of(entry)).map(|frame| Self { frame, writable: entry & RW != 0 })
    }
    /// Notes whose tables will hold the references.
    #[inline]
    pub(crate) fn note_tables_of(&self, domain: DomId) {
        if self.writable && self.frame.owner() != domain {
            self.frame.set_lent();
        }
    }
}

impl Drop for EntryRef {
    #[inline]
    fn drop(&mut self) {
        if self.writable {
            self.frame.put_writable();
        }
        self.frame.put();
    }
}
