// SPDX-License-Identifier: MIT OR Apache-2.0
//! `grant_table_op`. Of the calls on grants themselves none is here yet; what a kernel asks at boot is.

use core::mem::offset_of;

use hypercalls::grant::*;
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr, Result};

use crate::dispatch::{Args, Outcome, SubOp, absent, run_sub, sub};
use crate::grants::Grants;
use crate::vcpu::Vcpu;
use crate::{guest, mmu};

/// The sub-operations.
pub static OPS: [SubOp; 13] = [
    absent("map_grant_ref"),
    absent("unmap_grant_ref"),
    sub("setup_table", setup_table),
    absent("dump_table"),
    absent("transfer"),
    absent("copy"),
    sub("query_size", query_size),
    absent("unmap_and_replace"),
    sub("set_version", set_version),
    absent("get_status_frames"),
    sub("get_version", get_version),
    absent("swap_grant_ref"),
    absent("cache_flush"),
];

/// Bits of the command that hold the sub-operation.
const CMD_MASK: u32 = 0x000f_ffff;

/// Hypercall 20.
pub fn grant_table_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    let [cmd, list, count, ..] = *args;
    // C `unsigned int`s in the interface; the bits above the mask belong to an operation that is not here.
    let (cmd, count) = (cmd as u32, count as u32);
    let only_one = matches!(GnttabOp(cmd), GnttabOp::SETUP_TABLE | GnttabOp::QUERY_SIZE);
    if i32::try_from(count).is_err() || cmd & !CMD_MASK != 0 || only_one && count != 1 {
        return Err(Errno::EINVAL).into();
    }
    run_sub(vcpu, HypercallNr::GRANT_TABLE_OP, &OPS, u64::from(cmd), list).into()
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
    let status = with_grants(vcpu, args.dom, |grants| list_frames(grants, &args)).unwrap_or_else(status_of);
    let at = arg.wrapping_add(offset_of!(GnttabSetupTable, status) as u64);
    guest::write(GuestPtr::new(at), &status)?;
    Ok(0)
}

fn list_frames(grants: &Grants, args: &GnttabSetupTable) -> GrantStatus {
    if grants.grow(args.nr_frames).is_err() {
        return GrantStatus::GENERAL_ERROR;
    }
    // At most as many as the table may have.
    for index in 0..args.nr_frames {
        let Some(mfn) = grants.frame(index) else {
            return GrantStatus::GENERAL_ERROR;
        };
        if guest::write_at(args.frame_list, u64::from(index), &mfn.0).is_err() {
            return GrantStatus::BAD_VIRT_ADDR;
        }
    }
    GrantStatus::OKAY
}

fn query_size(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::<GnttabQuerySize>::new(arg);
    let mut args = guest::read(ptr)?;
    match with_grants(vcpu, args.dom, |grants| (grants.frames(), grants.max_frames())) {
        Ok((frames, most)) => {
            (args.nr_frames, args.max_nr_frames, args.status) = (frames, most, GrantStatus::OKAY);
        }
        Err(error) => args.status = status_of(error),
    }
    guest::write(ptr, &args)?;
    Ok(0)
}

/// There is one version; a call for another one tells which.
fn set_version(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::<GnttabSetVersion>::new(arg);
    let wanted = guest::read(ptr)?.version;
    let version = vcpu.domain().grants.version();
    guest::write(ptr, &GnttabSetVersion { version })?;
    match wanted {
        1 => Ok(0),
        2 => Err(Errno::ENOSYS),
        _ => Err(Errno::EINVAL),
    }
}

fn get_version(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: GnttabGetVersion = guest::read(GuestPtr::new(arg))?;
    let version = with_grants(vcpu, args.dom, Grants::version)?;
    let at = arg.wrapping_add(offset_of!(GnttabGetVersion, version) as u64);
    guest::write(GuestPtr::new(at), &version)?;
    Ok(0)
}
