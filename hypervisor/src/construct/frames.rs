// SPDX-License-Identifier: MIT OR Apache-2.0
//! The frames of a domain while it is built.

use alloc::vec::Vec;

use hypercalls::{Mfn, PAGE_SIZE, Pfn};
use mm::{Account, PageRef};

use super::Failure;
use crate::shared;

/// Frames of the domain that is being built, by PFN.
pub(super) struct Frames<'a> {
    account: &'a Account,
    pub(super) p2m: Vec<u64>,
}

const NONE: u64 = Mfn::INVALID.0;

impl<'a> Frames<'a> {
    /// So many PFNs, none of which has a frame.
    pub(super) fn none(account: &'a Account, pages: u64) -> Self {
        Self { account, p2m: alloc::vec![NONE; pages as usize] }
    }

    /// Gives every PFN below `end` that has none a frame, in blocks as large as fit.
    pub(super) fn fill(&mut self, end: u64) -> Result<(), Failure> {
        let end = end as usize;
        let mut at = 0;
        while at < end {
            if self.p2m[at] != NONE {
                at += 1;
                continue;
            }
            let free = self.p2m[at..end].iter().take(512).take_while(|m| **m == NONE).count();
            let order = if free == 512 { 9 } else { 0 };
            at += self.populate(at, order)?;
        }
        Ok(())
    }

    fn populate(&mut self, at: usize, order: u8) -> Result<usize, Failure> {
        let (mfn, order) = match self.account.populate(order, 64) {
            Ok(mfn) => (mfn, order),
            Err(_) => (self.account.populate(0, 64).map_err(|_| Failure::Memory)?, 0),
        };
        for (n, slot) in (0..1u64 << order).zip(self.p2m.iter_mut().skip(at)) {
            *slot = mfn.0 + n;
        }
        Ok(1 << order)
    }

    /// Returns the frame of a PFN.
    pub(super) fn mfn(&self, pfn: Pfn) -> Result<Mfn, Failure> {
        self.p2m.get(pfn.0 as usize).copied().filter(|m| *m != NONE).map(Mfn).ok_or(Failure::Memory)
    }

    /// Writes bytes into a page.
    pub(super) fn write(&self, pfn: Pfn, offset: usize, bytes: &[u8]) -> Result<(), Failure> {
        let frame = PageRef::get(self.mfn(pfn)?, self.account.domid()).ok_or(Failure::Memory)?;
        shared::write_guest_frame(&frame, offset, bytes);
        Ok(())
    }

    /// Writes bytes over as many pages as they need.
    pub(super) fn write_all(&self, first: Pfn, bytes: &[u8]) -> Result<(), Failure> {
        for (n, page) in (0u64..).zip(bytes.chunks(PAGE_SIZE)) {
            self.write(Pfn(first.0 + n), 0, page)?;
        }
        Ok(())
    }
}
