// SPDX-License-Identifier: MIT OR Apache-2.0
//! `acquire_resource`: the frames of a domain's grant table, for the tools that build it.
//!
//! The list is filled in pieces; a call that is cut carries its position in the command, as the reservations do. A frame
//! that is told may be gone before it is mapped: whoever maps it names its owner, and that is checked then.

use hypercalls::memory::*;
use hypercalls::{DomId, Errno, GuestPtr, Mfn, Result};

use crate::dispatch::Outcome;
use crate::domain::{self, Domain};
use crate::grants::Grants;
use crate::guest;
use crate::vcpu::Vcpu;

/// Most frames of one call: more, and a position would not fit into the command.
const MOST_FRAMES: u32 = u32::MAX >> MEMOP_EXTENT_SHIFT;
/// Frames between two looks at the time.
const STRIDE: u64 = 32;

/// What can be acquired here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Grants,
    Status,
}

impl Resource {
    /// Returns what is named.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for what the interface does not know, `EINVAL` for what the domain does not have.
    fn named(args: &AcquireResource) -> Result<Self> {
        match (args.kind, args.id) {
            (ResourceType::GRANT_TABLE, RESOURCE_GRANT_TABLE_ID_SHARED) => Ok(Self::Grants),
            (ResourceType::GRANT_TABLE, RESOURCE_GRANT_TABLE_ID_STATUS) => Ok(Self::Status),
            // Those of translated guests.
            (ResourceType::GRANT_TABLE | ResourceType::IOREQ_SERVER | ResourceType::VMTRACE_BUF, _) => {
                Err(Errno::EINVAL)
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn size(self, grants: &Grants) -> u32 {
        match self {
            Self::Grants => grants.limits().frames,
            Self::Status => grants.max_status_frames(),
        }
    }

    /// Lets the resource grow to so many frames.
    fn grow(self, grants: &Grants, frames: u32) -> Result<()> {
        let grown = match self {
            Self::Grants => grants.grow(frames),
            Self::Status => grants.grow_status(frames),
        };
        grown.map_err(|_| Errno::EINVAL)
    }

    fn frame(self, grants: &Grants, index: u32) -> Option<Mfn> {
        match self {
            Self::Grants => grants.frame(index),
            Self::Status => grants.status_frame(index),
        }
    }
}

/// Runs the operation from position `start` on.
pub(super) fn run(vcpu: &Vcpu, start: u64, arg: u64) -> Outcome {
    match acquire(vcpu, start, arg) {
        Ok(None) => Outcome::Done(0),
        Ok(Some(next)) => {
            let op = u64::from(MemoryOp::ACQUIRE_RESOURCE.0);
            Outcome::Again([next << MEMOP_EXTENT_SHIFT | op, arg, 0, 0, 0])
        }
        Err(error) => Err(error).into(),
    }
}

/// Returns the position to go on from when time is up.
fn acquire(vcpu: &Vcpu, start: u64, arg: u64) -> Result<Option<u64>> {
    let ptr = GuestPtr::<AcquireResource>::new(arg);
    let mut args = guest::read(ptr)?;
    let end = args.frame.saturating_add(u64::from(args.nr_frames));
    if args.pad != 0 || args.frame > u64::from(u32::MAX) || end > u64::from(u32::MAX) {
        return Err(Errno::EINVAL);
    }
    let domain = target(vcpu, args.domid)?;
    let resource = Resource::named(&args)?;
    if args.frame_list.is_null() {
        if args.nr_frames != 0 || start != 0 {
            return Err(Errno::EINVAL);
        }
        args.nr_frames = resource.size(&domain.grants);
        guest::write(ptr, &args)?;
        return Ok(None);
    }
    if start >= u64::from(args.nr_frames) || args.nr_frames > MOST_FRAMES {
        return Err(Errno::EINVAL);
    }
    list(&domain.grants, resource, &args, start)
}

/// Returns a domain other than the caller's, which the caller controls.
fn target(vcpu: &Vcpu, id: DomId) -> Result<alloc::sync::Arc<Domain>> {
    let domain = domain::find(id).ok_or(Errno::ESRCH)?;
    if id != vcpu.domid && vcpu.domain().privileged { Ok(domain) } else { Err(Errno::EPERM) }
}

fn list(grants: &Grants, resource: Resource, args: &AcquireResource, start: u64) -> Result<Option<u64>> {
    let count = u64::from(args.nr_frames);
    let mut at = start;
    while at < count {
        if at != start && arch::cpu::preempt_pending() {
            return Ok(Some(at));
        }
        let end = count.min(at + STRIDE);
        // Both below 2^32, which `acquire` checked of their sum with the whole count.
        resource.grow(grants, (args.frame + end) as u32)?;
        while at < end {
            let mfn = resource.frame(grants, (args.frame + at) as u32).ok_or(Errno::EINVAL)?;
            guest::write_at(args.frame_list, at, &mfn.0)?;
            at += 1;
        }
    }
    Ok(None)
}
