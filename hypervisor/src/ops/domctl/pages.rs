// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a domain's pages are, for tools that save it or look into it.

use hypercalls::domctl_args::*;
use hypercalls::{DomId, Errno, Mfn, Payload, Result};
use mm::PageType;

use crate::domain::Domain;
use crate::guest;
use crate::ops::sysctl::Answer;
use crate::vcpu::Vcpu;

/// Frames in one call.
const MOST: u64 = 1024;

/// Returns what the tools call the frame; one that is not the domain's cannot be looked at.
fn kind(mfn: Mfn, owner: DomId) -> u32 {
    let Some(state) = mm::page_info(mfn).filter(|s| s.ram && s.owner == owner && s.allocated) else {
        return XEN_DOMCTL_PFINFO_XTAB;
    };
    let is_used = state.type_count != 0;
    let table = match state.page_type {
        PageType::L1 if is_used => XEN_DOMCTL_PFINFO_L1TAB,
        PageType::L2 if is_used => XEN_DOMCTL_PFINFO_L2TAB,
        PageType::L3 if is_used => XEN_DOMCTL_PFINFO_L3TAB,
        PageType::L4 if is_used => XEN_DOMCTL_PFINFO_L4TAB,
        _ => XEN_DOMCTL_PFINFO_NOTAB,
    };
    if state.pinned { table | XEN_DOMCTL_PFINFO_LPINTAB } else { table }
}

/// Replaces frame numbers by what the frames are.
pub(super) fn types(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let a: GetPageFrameInfo3 = payload.get();
    if a.num > MOST {
        return Err(Errno::E2BIG);
    }
    for index in 0..a.num {
        let mfn = Mfn(guest::read_at(a.array, index)?);
        guest::write_at(a.array, index, &u64::from(kind(mfn, domain.id)))?;
    }
    Ok(Answer::Nothing)
}
