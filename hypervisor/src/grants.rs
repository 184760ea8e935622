// SPDX-License-Identifier: MIT OR Apache-2.0
//! A domain's grant table: the frames in which it writes what it grants.
//!
//! The frames are the hypervisor's and shared with the domain, which maps them by machine number. The table only grows.

use alloc::vec::Vec;

use hypercalls::{DomId, Errno, Mfn, Result};
use mm::{Lock, Share, SharedFrame};

use crate::rank;

/// How many frames a table may have unless the tools say otherwise.
pub const DEFAULT_MAX_FRAMES: u32 = 64;

/// A domain's grant table.
#[derive(Debug)]
pub struct Grants {
    owner: DomId,
    max_frames: u32,
    frames: Lock<Vec<SharedFrame>>,
}

impl Grants {
    /// Makes an empty table that may grow to `max_frames`.
    pub const fn new(owner: DomId, max_frames: u32) -> Self {
        Self { owner, max_frames, frames: Lock::new(rank::GRANTS, Vec::new()) }
    }

    /// Returns how many frames the table has.
    pub fn frames(&self) -> u32 {
        self.frames.lock().len() as u32
    }

    /// Returns how many it may have.
    pub const fn max_frames(&self) -> u32 {
        self.max_frames
    }

    /// Returns the version of its entries.
    pub const fn version(&self) -> u32 {
        1
    }

    /// Makes the table at least `count` frames long.
    ///
    /// # Errors
    /// `EINVAL` above the maximum, `ENOMEM`; the table may be longer than before.
    pub fn grow(&self, count: u32) -> Result<()> {
        if count > self.max_frames {
            return Err(Errno::EINVAL);
        }
        let mut frames = self.frames.lock();
        let missing = (count as usize).saturating_sub(frames.len());
        frames.try_reserve(missing).map_err(|_| Errno::ENOMEM)?;
        for _ in 0..missing {
            frames.push(SharedFrame::alloc(self.owner, Share::ReadWrite)?);
        }
        Ok(())
    }

    /// Returns a frame of the table.
    pub fn frame(&self, index: u32) -> Option<Mfn> {
        self.frames.lock().get(index as usize).map(SharedFrame::mfn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_grow_to_their_maximum() {
        let _machine = mm::hosted::boot(64, 1);
        let free = mm::buddy::free_frames();
        let grants = Grants::new(DomId(3), 4);
        assert_eq!((grants.frames(), grants.frame(0)), (0, None));
        grants.grow(2).expect("memory");
        let first = grants.frame(0).expect("a frame");
        grants.grow(1).expect("nothing to do");
        grants.grow(4).expect("memory");
        assert_eq!((grants.frames(), grants.frame(0)), (4, Some(first)));
        assert_eq!(grants.grow(5), Err(Errno::EINVAL));
        assert!(mm::PageRef::get(first, DomId(3)).is_some(), "the domain may map it");
        assert!(mm::PageRef::get(first, DomId(4)).is_none());
        drop(grants);
        assert_eq!(mm::buddy::free_frames(), free);
    }
}
