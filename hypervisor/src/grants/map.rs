// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uses of grant entries as values, and the lending of frames for mappings.

use alloc::sync::Arc;

use hypercalls::grant::GrantStatus;
use hypercalls::{DomId, Mfn};
use mm::{EntryRef, PageRef};
use spin::mutex::SpinMutexGuard;

use super::Grants;
use super::active::{Active, NOT_THROUGH, Use, WHOLE};
use super::entry::{Claim, Entry, What};

/// A use of an entry. Dropping it ends the use: what the guest sees of it goes with the last one of its kind.
#[derive(Debug)]
pub struct Pin {
    granter: Arc<Grants>,
    gref: u32,
    how: Use,
}

/// A frame that is lent to be mapped: the use of the entry, and what the page-table entry and the device are to hold.
#[derive(Debug)]
pub struct Loan {
    /// The frame.
    pub mfn: Mfn,
    /// For CPUs.
    pub host: Option<(Pin, EntryRef)>,
    /// For devices.
    pub device: Option<(Pin, EntryRef)>,
}

impl Pin {
    pub(super) const fn new(granter: Arc<Grants>, gref: u32, how: Use) -> Self {
        Self { granter, gref, how }
    }
    /// Returns whose entry it is, and which.
    pub fn of(&self) -> (DomId, u32) {
        (self.granter.owner, self.gref)
    }
    /// True when the frame may be written.
    pub const fn is_writable(&self) -> bool {
        self.how.writable
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let page = {
            let table = self.granter.table.read();
            let Some(slot) = table.slot(self.gref) else { return };
            let mut active = slot.lock();
            active.pins.remove(self.how);
            if let Some((entry, _)) = table.find(self.gref) {
                settle(&entry, &active);
            }
            if active.pins.is_empty() { active.page.take() } else { None }
        };
        // Last, when nothing relies on it any more; it may free the frame.
        drop(page);
    }
}

/// Takes away what the guest sees of uses that there are not, or no longer.
pub(super) fn settle(entry: &Entry, active: &Active) {
    entry.unmark(active.pins.is_empty(), !active.pins.is_writable());
}

/// A record that is locked, with the entry as the guest sees it.
pub(super) type Locked<'a> = SpinMutexGuard<'a, Active>;

impl Grants {
    /// Lends a frame to be mapped.
    ///
    /// # Errors
    /// `BAD_GNTREF`: no such entry; `BAD_DOMAIN`: the domain is dying; `BAD_PAGE`: the entry names no frame of the domain's;
    /// `GENERAL_ERROR`: it does not allow this to that domain, or is used in too many or other ways, or its frame cannot
    /// be writable. Nothing is changed then.
    pub fn lend(self: &Arc<Self>, gref: u32, user: DomId, how: Use) -> Result<Loan, GrantStatus> {
        let table = self.table.read();
        if table.is_retired() {
            return Err(GrantStatus::BAD_DOMAIN);
        }
        let (entry, slot) = table.find(gref).ok_or(GrantStatus::BAD_GNTREF)?;
        let mut active = slot.lock();
        let refs = self.begin_mapping(&entry, &mut active, user, how);
        match refs {
            Ok((mfn, host, device)) => {
                let pin = |part: Use| Pin::new(self.clone(), gref, Use { writable: how.writable, ..part });
                Ok(Loan {
                    mfn,
                    host: host.map(|refs| (pin(Use::host(true)), refs)),
                    device: device.map(|refs| (pin(Use::device(true)), refs)),
                })
            }
            Err(status) => Err(status),
        }
    }

    fn begin_mapping(
        &self,
        entry: &Entry,
        active: &mut Locked<'_>,
        user: DomId,
        how: Use,
    ) -> Result<(Mfn, Option<EntryRef>, Option<EntryRef>), GrantStatus> {
        let in_use = !active.pins.is_empty();
        if in_use {
            active.check_user(user)?;
        }
        let mut pins = active.pins;
        if in_use && !active.is_whole() || !pins.add(how) {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        if !in_use || how.writable && !active.pins.is_writable() {
            entry.claim(Claim { user, writable: how.writable, whole: true, in_use })?;
        }
        let begun = self.take_refs(entry, active, user, how);
        match begun {
            Ok(_) => active.pins = pins,
            Err(_) => settle(entry, active),
        }
        begun
    }

    /// Takes the references for a mapping, and the record's own if it is the first.
    fn take_refs(
        &self,
        entry: &Entry,
        active: &mut Locked<'_>,
        user: DomId,
        how: Use,
    ) -> Result<(Mfn, Option<EntryRef>, Option<EntryRef>), GrantStatus> {
        let (mfn, first) = match &active.page {
            Some(page) if !active.pins.is_empty() => (page.mfn(), None),
            _ => {
                let page = self.page_of(entry)?;
                (page.mfn(), Some(page))
            }
        };
        let take = |wanted: bool| {
            let refs = wanted.then(|| EntryRef::get(mfn, self.owner, how.writable));
            refs.transpose().map_err(|_| GrantStatus::GENERAL_ERROR)
        };
        let refs = (mfn, take(how.host)?, take(how.device)?);
        if let Some(page) = first {
            active.begin(user, page, WHOLE, NOT_THROUGH);
        }
        Ok(refs)
    }

    /// Takes a reference to the whole frame that an entry names.
    fn page_of(&self, entry: &Entry) -> Result<PageRef, GrantStatus> {
        match entry.what() {
            What::Frame { frame, start, end } if (start..end) == WHOLE => {
                PageRef::get(Mfn(frame), self.owner).ok_or(GrantStatus::BAD_PAGE)
            }
            _ => Err(GrantStatus::GENERAL_ERROR),
        }
    }
}
