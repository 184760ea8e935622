// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copying between frames, granted ones and the caller's own.
//!
//! The frames of an element are kept for the next one, which mostly goes on with one of them.

use core::mem::offset_of;
use core::ops::Range;

use hypercalls::grant::*;
use hypercalls::{DomId, Mfn, PAGE_SIZE, Result};
use mm::{EntryRef, PageRef};

use super::{List, Ran};
use crate::grants::{Lease, Refused};
use crate::vcpu::Vcpu;
use crate::{domain, shared};

/// Which frame an element names, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    domid: DomId,
    /// A grant reference or a frame number.
    number: u64,
    is_grant: bool,
}

impl Name {
    fn new(end: &GnttabCopyPtr, is_grant: bool) -> Self {
        let number = if is_grant { u64::from(end.gref()) } else { end.gmfn };
        Self { domid: end.domid, number, is_grant }
    }
}

/// What keeps a frame.
enum Held {
    /// The use of a grant.
    Lent(Lease),
    /// It is the caller's own.
    Own(PageRef),
}

/// A frame that is held for copying. A use ends before the references that it counts on.
struct End {
    name: Name,
    held: Held,
    /// The references that allow writing.
    writable: Option<EntryRef>,
}

impl End {
    /// Takes hold of a frame. In place: it is large, and new for most elements.
    #[inline(always)]
    fn new(vcpu: &Vcpu, name: Name, writable: bool) -> core::result::Result<Self, Refused> {
        let (held, owner) = if name.is_grant {
            let granter = if name.domid == DomId::SELF { vcpu.domid } else { name.domid };
            let granter = domain::find(granter).ok_or(GrantStatus::BAD_DOMAIN)?;
            // Also a grant that is passed on is a frame of its owner's, whoever that is.
            let lease = granter.grants.lease(name.number as u32, vcpu.domid, writable, true)?;
            let owner = lease.page.owner();
            (Held::Lent(lease), owner)
        } else {
            let page = PageRef::get(Mfn(name.number), vcpu.domid).ok_or(GrantStatus::BAD_PAGE)?;
            (Held::Own(page), vcpu.domid)
        };
        let mut end = Self { name, held, writable: None };
        if writable {
            let refs = EntryRef::get(end.page().mfn(), owner, true).map_err(|_| GrantStatus::GENERAL_ERROR)?;
            end.writable = Some(refs);
        }
        Ok(end)
    }

    const fn page(&self) -> &PageRef {
        match &self.held {
            Held::Lent(lease) => &lease.page,
            Held::Own(page) => page,
        }
    }

    fn part(&self) -> Range<u16> {
        match &self.held {
            Held::Lent(lease) => lease.part.clone(),
            Held::Own(_) => 0..PAGE_SIZE as u16,
        }
    }
}

/// Copies a list of stretches.
pub(super) fn copy(vcpu: &Vcpu, list: &List<GnttabCopy>) -> Result<Ran> {
    let mut ends = Ends { source: None, dest: None };
    for index in 0..list.count {
        if index > 0 && arch::cpu::preempt_pending() {
            return Ok(Ran::Part(index));
        }
        let op = list.read(index)?;
        let status = match ends.copy(vcpu, &op) {
            Ok(()) => GrantStatus::OKAY,
            Err(Refused::Again) => return Ok(Ran::Part(index)),
            Err(Refused::For(status)) => {
                ends = Ends { source: None, dest: None };
                status
            }
        };
        list.write_status(index, offset_of!(GnttabCopy, status), status)?;
    }
    Ok(Ran::All)
}

/// The frames that are at hand.
struct Ends {
    source: Option<End>,
    dest: Option<End>,
}

impl Ends {
    fn copy(&mut self, vcpu: &Vcpu, op: &GnttabCopy) -> core::result::Result<(), Refused> {
        if op.len == 0 {
            // Nothing at all, whatever the rest says (XSA-448).
            return Ok(());
        }
        let source = Name::new(&op.source, op.flags & GNTCOPY_SOURCE_GREF != 0);
        let dest = Name::new(&op.dest, op.flags & GNTCOPY_DEST_GREF != 0);
        for name in [source, dest] {
            if !name.is_grant && name.domid != DomId::SELF {
                return Err(GrantStatus::PERMISSION_DENIED.into());
            }
        }
        // Both may be uses of one entry, so what is not needed any more goes first.
        self.source.take_if(|end| end.name != source);
        self.dest.take_if(|end| end.name != dest);
        let source = match &mut self.source {
            Some(end) => end,
            none => none.insert(End::new(vcpu, source, false)?),
        };
        let dest = match &mut self.dest {
            Some(end) => end,
            none => none.insert(End::new(vcpu, dest, true)?),
        };
        let [from, to] = [op.source.offset, op.dest.offset].map(usize::from);
        let len = usize::from(op.len);
        if from.max(to) + len > PAGE_SIZE {
            return Err(GrantStatus::BAD_COPY_ARG.into());
        }
        if !is_within(from, len, &source.part()) || !is_within(to, len, &dest.part()) {
            return Err(GrantStatus::GENERAL_ERROR.into());
        }
        if let Some(writable) = &dest.writable {
            shared::copy_bytes(writable, to, source.page(), from, len);
        }
        Ok(())
    }
}

fn is_within(at: usize, len: usize, part: &Range<u16>) -> bool {
    at >= usize::from(part.start) && at + len <= usize::from(part.end)
}
