// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames of the hypervisor's that a guest may map: shared_info, grant tables, the M2P.
//!
//! Such a frame reads as owned by the one domain that may map it but is marked special: its account only counts it, it cannot
//! be given up or stolen, and a type reference that only the hypervisor drops keeps it what it is, writable or read-only: never a
//! page table (XSA-248). Frames for privileged domains at large are shared with [`DomId::XEN`].

use crate::frame::{self, PageType};
use crate::{account, buddy, m2p};
use alloc::vec::Vec;
use hypercalls::{DomId, Errno, Mfn, Result};

/// How a guest may map a shared frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Writable.
    ReadWrite,
    /// Read-only.
    ReadOnly,
}

/// A frame shared with a guest; dropping it ends that, and the frame is freed when no guest maps it any more.
#[derive(Debug)]
pub struct SharedFrame {
    mfn: Mfn,
    owner: DomId,
}

impl SharedFrame {
    /// Allocates a zeroed frame and shares it.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc(owner: DomId, how: Share) -> Result<Self> {
        let mfn = buddy::alloc(0, buddy::ANYWHERE).ok_or(Errno::ENOMEM)?;
        crate::entry::zero(mfn);
        share(mfn, owner, how);
        Ok(Self { mfn, owner })
    }
    /// Returns the frame's number.
    pub fn mfn(&self) -> Mfn {
        self.mfn
    }
    /// Takes writable frames back from the guest and frees them, if it maps none of them.
    ///
    /// # Errors
    /// It maps one: then all are still shared.
    pub fn withdraw(frames: Vec<Self>) -> core::result::Result<(), Vec<Self>> {
        let recall = |f: &Self| {
            let recalled = frame::ram(f.mfn).is_some_and(|frame| frame.recall(f.owner));
            if recalled {
                account::count_shared(f.owner, false);
            }
            recalled
        };
        let gone = frames.iter().take_while(|f| recall(f)).count();
        if gone < frames.len() {
            frames[..gone].iter().for_each(|f| share(f.mfn, f.owner, Share::ReadWrite));
            return Err(frames);
        }
        for frame in frames {
            buddy::free(frame.mfn, 0);
            core::mem::forget(frame);
        }
        Ok(())
    }
}

impl Drop for SharedFrame {
    fn drop(&mut self) {
        if let Some(frame) = frame::ram(self.mfn) {
            frame.put_type_simple();
            if frame.deallocate(self.owner, true) {
                frame.put();
            }
        }
    }
}

/// Shares a frame of the hypervisor's for ever.
pub fn share(mfn: Mfn, owner: DomId, how: Share) {
    if let Some(frame) = frame::ram(mfn) {
        debug_assert_eq!(frame.owner(), DomId::IDLE, "only the hypervisor's frames can be shared");
        m2p::clear(mfn);
        account::count_shared(owner, true);
        // First what it may become, then who may ask.
        frame.fix_type(match how {
            Share::ReadWrite => PageType::Writable,
            Share::ReadOnly => PageType::None,
        });
        frame.set_owned(owner, true);
    }
}
