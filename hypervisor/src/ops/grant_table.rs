// SPDX-License-Identifier: MIT OR Apache-2.0
//! `grant_table_op`: what a domain grants to others, and what it does with others' grants.
//!
//! Most operations come in lists. What is wrong with one element is its status, and the list goes on. A list that takes long
//! is cut between elements and goes on with those that are left.

mod copy;
mod map;

use core::mem::offset_of;

use hypercalls::grant::*;
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr, Result};
use zerocopy::{FromBytes, IntoBytes};

use crate::dispatch::{Args, Outcome, SubOp, by_family, refused, run_sub, sub};
use crate::grants::Grants;
use crate::vcpu::Vcpu;
use crate::{guest, mmu};

/// The sub-operations; those that take lists are run by [`grant_table_op`] itself.
pub static OPS: [SubOp; 13] = [
    by_family("map_grant_ref"),
    by_family("unmap_grant_ref"),
    sub("setup_table", setup_table),
    refused("dump_table", Errno::ENOSYS),
    // What the C hypervisor answers where it is switched off: a frame that is given away is lost to mistakes.
    refused("transfer", Errno::EOPNOTSUPP),
    by_family("copy"),
    sub("query_size", query_size),
    by_family("unmap_and_replace"),
    sub("set_version", set_version),
    sub("get_status_frames", get_status_frames),
    sub("get_version", get_version),
    by_family("swap_grant_ref"),
    // For machines whose devices do not see caches.
    refused("cache_flush", Errno::ENOSYS),
];

/// Bits of the command that hold the sub-operation; those above are nobody's here.
const CMD_MASK: u32 = 0xfff;

/// Hypercall 20.
pub fn grant_table_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    let [cmd, list, count, ..] = *args;
    // C `unsigned int`s in the interface.
    let (cmd, count) = (cmd as u32, count as u32);
    let op = GnttabOp(cmd);
    let only_one = matches!(op, GnttabOp::SETUP_TABLE | GnttabOp::QUERY_SIZE | GnttabOp::GET_STATUS_FRAMES);
    if i32::try_from(count).is_err() || cmd & !CMD_MASK != 0 || only_one && count != 1 {
        return Err(Errno::EINVAL).into();
    }
    match op {
        GnttabOp::MAP_GRANT_REF => batch(op, list, count, |list| map::map(vcpu, list)),
        GnttabOp::UNMAP_GRANT_REF => batch(op, list, count, |list| map::unmap(vcpu, list)),
        GnttabOp::UNMAP_AND_REPLACE => batch(op, list, count, |list| map::replace(vcpu, list)),
        GnttabOp::COPY => batch(op, list, count, |list| copy::copy(vcpu, list)),
        GnttabOp::SWAP_GRANT_REF => batch(op, list, count, |list| swap(vcpu, list)),
        _ => run_sub(vcpu, HypercallNr::GRANT_TABLE_OP, &OPS, u64::from(cmd), list).into(),
    }
}

/// A list of operations in guest memory that neither wraps nor touches the hypervisor's part of the address space.
struct List<T> {
    start: GuestPtr<T>,
    count: u32,
}

impl<T: FromBytes + IntoBytes> List<T> {
    /// Reads an element.
    #[inline]
    fn read(&self, index: u32) -> Result<T> {
        guest::read_at(self.start, u64::from(index))
    }

    /// Writes the status of an element, which is `offset` bytes into it.
    #[inline]
    fn write_status(&self, index: u32, offset: usize, status: GrantStatus) -> Result<()> {
        let at = self.start.va(u64::from(index)).ok_or(Errno::EFAULT)?.0 + offset as u64;
        guest::write(GuestPtr::new(at), &status)
    }
}

/// How a list went.
enum Ran {
    /// To its end.
    All,
    /// So many elements, and it is to be gone on with.
    Part(u32),
}

/// Returns the status for an operation that did or did not succeed.
fn status_from<T>(result: core::result::Result<T, GrantStatus>) -> GrantStatus {
    result.err().unwrap_or(GrantStatus::OKAY)
}

/// Runs a list and makes an outcome of it.
#[inline]
fn batch<T>(op: GnttabOp, start: u64, count: u32, run: impl FnOnce(&List<T>) -> Result<Ran>) -> Outcome {
    let list = List { start: GuestPtr::<T>::new(start), count };
    if !list.start.range_ok(u64::from(count)) {
        return Err(Errno::EFAULT).into();
    }
    match run(&list) {
        Ok(Ran::All) => Outcome::Done(0),
        Ok(Ran::Part(done)) => {
            let rest = list.start.add(u64::from(done)).map_or(0, |p| p.0);
            Outcome::Again([u64::from(op.0), rest, u64::from(count - done), 0, 0])
        }
        Err(error) => Err(error).into(),
    }
}

/// Runs `each` on every element until time is up.
fn for_each<T>(list: &List<T>, mut each: impl FnMut(u32) -> Result<()>) -> Result<Ran> {
    for index in 0..list.count {
        if index > 0 && arch::cpu::preempt_pending() {
            return Ok(Ran::Part(index));
        }
        each(index)?;
    }
    Ok(Ran::All)
}

fn swap(vcpu: &Vcpu, list: &List<GnttabSwapGrantRef>) -> Result<Ran> {
    for_each(list, |index| {
        let op = list.read(index)?;
        let status = status_from(vcpu.domain().grants.swap(op.ref_a, op.ref_b));
        list.write_status(index, offset_of!(GnttabSwapGrantRef, status), status)
    })
}

/// Calls `f` with the table of the domain that is named, if the caller may.
fn with_grants<T>(vcpu: &Vcpu, id: DomId, f: impl FnOnce(&Grants) -> T) -> Result<T> {
    match mmu::other_domain(vcpu, id)? {
        None => Ok(f(&vcpu.domain().grants)),
        Some(other) => Ok(f(&other.grants)),
    }
}

/// A domain that cannot be had, as the status of an operation.
fn status_of(error: Errno) -> GrantStatus {
    match error {
        Errno::EPERM => GrantStatus::PERMISSION_DENIED,
        _ => GrantStatus::BAD_DOMAIN,
    }
}

fn setup_table(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: GnttabSetupTable = guest::read(GuestPtr::new(arg))?;
    if !args.frame_list.range_ok(u64::from(args.nr_frames)) {
        return Err(Errno::EFAULT);
    }
    let list = |grants: &Grants| match grants.grow(args.nr_frames) {
        Ok(()) => list_frames(args.frame_list, args.nr_frames, |index| grants.frame(index)),
        Err(_) => GrantStatus::GENERAL_ERROR,
    };
    let status = with_grants(vcpu, args.dom, list).unwrap_or_else(status_of);
    let at = arg.wrapping_add(offset_of!(GnttabSetupTable, status) as u64);
    guest::write(GuestPtr::new(at), &status)?;
    Ok(0)
}

fn get_status_frames(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: GnttabGetStatusFrames = guest::read(GuestPtr::new(arg))?;
    if !args.frame_list.range_ok(u64::from(args.nr_frames)) {
        return Err(Errno::EFAULT);
    }
    let list = |grants: &Grants| match args.nr_frames.checked_sub(1) {
        Some(last) if grants.status_frame(last).is_none() => GrantStatus::GENERAL_ERROR,
        _ => list_frames(args.frame_list, args.nr_frames, |index| grants.status_frame(index)),
    };
    let status = with_grants(vcpu, args.dom, list).unwrap_or_else(status_of);
    let at = arg.wrapping_add(offset_of!(GnttabGetStatusFrames, status) as u64);
    guest::write(GuestPtr::new(at), &status)?;
    Ok(0)
}

/// Tells the numbers of frames of a table, at most as many as it may have.
fn list_frames(to: GuestPtr<u64>, count: u32, frame: impl Fn(u32) -> Option<hypercalls::Mfn>) -> GrantStatus {
    for index in 0..count {
        let Some(mfn) = frame(index) else {
            return GrantStatus::GENERAL_ERROR;
        };
        if guest::write_at(to, u64::from(index), &mfn.0).is_err() {
            return GrantStatus::BAD_VIRT_ADDR;
        }
    }
    GrantStatus::OKAY
}

fn query_size(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::<GnttabQuerySize>::new(arg);
    let mut args = guest::read(ptr)?;
    match with_grants(vcpu, args.dom, |grants| (grants.frames(), grants.limits().frames)) {
        Ok((frames, most)) => {
            (args.nr_frames, args.max_nr_frames, args.status) = (frames, most, GrantStatus::OKAY);
        }
        Err(error) => args.status = status_of(error),
    }
    guest::write(ptr, &args)?;
    Ok(0)
}

/// Answers with the version that the table has then, whatever came of it.
fn set_version(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::<GnttabSetVersion>::new(arg);
    let wanted = guest::read(ptr)?.version;
    let grants = &vcpu.domain().grants;
    let result = grants.set_version(wanted);
    guest::write(ptr, &GnttabSetVersion { version: grants.version() })?;
    result.map(|()| 0)
}

fn get_version(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: GnttabGetVersion = guest::read(GuestPtr::new(arg))?;
    let version = with_grants(vcpu, args.dom, Grants::version)?;
    let at = arg.wrapping_add(offset_of!(GnttabGetVersion, version) as u64);
    guest::write(GuestPtr::new(at), &version)?;
    Ok(0)
}
