// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lending of frames, and of parts of frames, to be copied from or to.
//!
//! An entry of version 2 may pass on what another domain granted to its owner. Such a use is two: of the entry, and of
//! that other entry in the owner's name. The other table is asked while ours is not locked, so ours is looked at again then.

use alloc::sync::Arc;
use core::ops::Range;

use hypercalls::grant::GrantStatus;
use hypercalls::{DomId, Mfn};
use mm::PageRef;

use super::Grants;
use super::active::{Active, NOT_THROUGH, Use};
use super::entry::{Claim, Entry, What};
use super::map::{Locked, Pin, settle};
use crate::domain;

/// A frame that is lent to be copied from or to. Dropping it ends the use.
#[derive(Debug)]
pub struct Lease {
    /// First, so that uses end before the reference goes.
    _pin: Pin,
    /// The use of the entry that it passes on.
    _through: Option<Pin>,
    /// The frame.
    pub page: PageRef,
    /// Which bytes of it.
    pub part: Range<u16>,
}

/// Why a frame is not lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This is wrong.
    For(GrantStatus),
    /// Somebody else used the entry meanwhile: to be tried again.
    Again,
}

impl From<GrantStatus> for Refused {
    fn from(status: GrantStatus) -> Self {
        Self::For(status)
    }
}

/// Where a use leads, as far as one look at the table can tell.
enum Step {
    /// To this part of this frame, and the use is counted.
    Here(PageRef, Range<u16>),
    /// To what another domain granted.
    Through(DomId, u32),
}

/// What is asked for.
#[derive(Clone, Copy)]
struct Wish {
    gref: u32,
    user: DomId,
    writable: bool,
}

impl Wish {
    const fn claim(&self, in_use: bool) -> Claim {
        Claim { user: self.user, writable: self.writable, whole: false, in_use }
    }
}

impl Grants {
    /// Lends a frame to be copied from, or to if `writable`. `pass_on`: entries may pass on what was granted to their owner.
    ///
    /// # Errors
    /// As [`Grants::lend`]; and `Again`.
    #[inline]
    pub fn lease(self: &Arc<Self>, gref: u32, user: DomId, writable: bool, pass_on: bool) -> Result<Lease, Refused> {
        let wish = Wish { gref, user, writable };
        let ((page, part), through) = match self.first_look(wish)? {
            Step::Here(page, part) => ((page, part), None),
            Step::Through(domid, there) => {
                if !pass_on || domid == self.owner {
                    return Err(GrantStatus::GENERAL_ERROR.into());
                }
                let other = domain::find(domid).ok_or(GrantStatus::GENERAL_ERROR)?;
                let Lease { _pin: pin, page, part, .. } = other.grants.lease(there, self.owner, writable, false)?;
                (self.second_look(wish, (domid, there), page, part)?, Some(pin))
            }
        };
        Ok(Lease { _pin: Pin::new(self.clone(), gref, Use::host(writable)), _through: through, page, part })
    }

    #[inline]
    fn first_look(&self, wish: Wish) -> Result<Step, Refused> {
        let table = self.table.read();
        if table.is_retired() {
            return Err(GrantStatus::BAD_DOMAIN.into());
        }
        let (entry, slot) = table.find(wish.gref).ok_or(GrantStatus::BAD_GNTREF)?;
        let mut active = slot.lock();
        if active.pins.is_empty() {
            entry.claim(wish.claim(false))?;
            match entry.what() {
                What::Through { domid, gref } => {
                    settle(&entry, &active);
                    return Ok(Step::Through(domid, gref));
                }
                What::Frame { frame, start, end } => match PageRef::get(Mfn(frame), self.owner) {
                    Some(page) => active.begin(wish.user, page, start..end, NOT_THROUGH),
                    None => {
                        settle(&entry, &active);
                        return Err(GrantStatus::BAD_PAGE.into());
                    }
                },
            }
        } else {
            active.check_user(wish.user)?;
            if active.through != NOT_THROUGH {
                let (domid, gref) = active.through;
                return Ok(Step::Through(domid, gref));
            }
        }
        join(wish, &entry, &mut active).map(|(page, part)| Step::Here(page, part))
    }

    /// Counts a use of an entry that passes on another one, of which `page` and `part` are lent already.
    fn second_look(
        &self,
        wish: Wish,
        through: (DomId, u32),
        page: PageRef,
        part: Range<u16>,
    ) -> Result<(PageRef, Range<u16>), Refused> {
        let table = self.table.read();
        if table.is_retired() {
            return Err(GrantStatus::BAD_DOMAIN.into());
        }
        // The version may be another one by now.
        let (entry, slot) = table.find(wish.gref).ok_or(GrantStatus::BAD_GNTREF)?;
        let mut active = slot.lock();
        if active.pins.is_empty() {
            entry.claim(wish.claim(false))?;
            if entry.what() != (What::Through { domid: through.0, gref: through.1 }) {
                settle(&entry, &active);
                return Err(GrantStatus::GENERAL_ERROR.into());
            }
            active.begin(wish.user, page, part, through);
        } else if !is_same(&active, wish.user, through, &page, &part) {
            // Only the same user can have done that.
            return Err(Refused::Again);
        }
        join(wish, &entry, &mut active)
    }
}

/// Adds a use to what the record says. An error leaves nothing of a first one.
#[inline]
fn join(wish: Wish, entry: &Entry, active: &mut Locked<'_>) -> Result<(PageRef, Range<u16>), Refused> {
    let joined = try_join(wish, entry, active);
    if joined.is_err() {
        settle(entry, active);
        if active.pins.is_empty() {
            active.page = None;
        }
    }
    Ok(joined?)
}

fn try_join(wish: Wish, entry: &Entry, active: &mut Locked<'_>) -> Result<(PageRef, Range<u16>), GrantStatus> {
    let mut pins = active.pins;
    if !pins.add(Use::host(wish.writable)) {
        return Err(GrantStatus::GENERAL_ERROR);
    }
    if !active.pins.is_empty() && wish.writable && !active.pins.is_writable() {
        entry.claim(wish.claim(true))?;
    }
    let page = active.page.as_ref().and_then(PageRef::again).ok_or(GrantStatus::GENERAL_ERROR)?;
    active.pins = pins;
    Ok((page, active.part()))
}

fn is_same(active: &Active, user: DomId, through: (DomId, u32), page: &PageRef, part: &Range<u16>) -> bool {
    let same_page = active.page.as_ref().is_some_and(|held| held.mfn() == page.mfn());
    active.user == user && active.through == through && same_page && active.part() == *part
}
