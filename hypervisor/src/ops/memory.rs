// SPDX-License-Identifier: MIT OR Apache-2.0
//! `memory_op`: what a domain owns, and what the machine has.
//!
//! The operations on lists of extents are cut when they take long: [`reservation`] keeps its position in the upper bits of
//! the command, so does [`resource`], [`exchange`] in the argument. Both are the guest's to change, and are checked each time.

mod exchange;
mod maps;
mod physmap;
mod reservation;
mod resource;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use hypercalls::memory::*;
use hypercalls::shared_info::shared_offset;
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr, Result};

use crate::dispatch::{Args, Outcome, SubOp, absent, by_family, refused, run_sub, sub};
use crate::domain::{self, Domain};
use crate::vcpu::Vcpu;
use crate::{guest, mmu};

/// The sub-operations; those that can be cut short are run by [`memory_op`] itself.
pub static OPS: [SubOp; 29] = [
    by_family("increase_reservation"),
    by_family("decrease_reservation"),
    sub("maximum_ram_page", |_, _| Ok(mm::m2p::entries() as i64)),
    sub("current_reservation", |vcpu, arg| about(vcpu, arg, |d| d.account.owned() as i64)),
    sub("maximum_reservation", |vcpu, arg| about(vcpu, arg, maximum_reservation)),
    sub("machphys_mfn_list", maps::machphys_frames),
    by_family("populate_physmap"),
    sub("add_to_physmap", physmap::add),
    absent(""),
    sub("memory_map", maps::own),
    sub("machine_memory_map", maps::machine),
    by_family("exchange"),
    sub("machphys_mapping", maps::machphys_mapping),
    sub("set_memory_map", maps::set),
    sub("maximum_gpfn", |vcpu, arg| about(vcpu, arg, maximum_gpfn)),
    sub("remove_from_physmap", physmap::remove),
    // Populating on demand is for translated guests.
    refused("set_pod_target", Errno::EINVAL),
    refused("get_pod_target", Errno::EINVAL),
    // No frame is ever shared between domains behind their backs.
    sub("get_sharing_freed_pages", |_, _| Ok(0)),
    sub("get_sharing_shared_pages", |_, _| Ok(0)),
    absent("paging_op"),
    absent("access_op"),
    absent("sharing_op"),
    sub("add_to_physmap_batch", physmap::add_batch),
    sub("claim_pages", claim_pages),
    refused("machphys_compat_mfn_list", Errno::EOPNOTSUPP),
    sub("get_vnumainfo", physmap::virtual_nodes),
    sub("reserved_device_memory_map", physmap::reserved_for_devices),
    by_family("acquire_resource"),
];

/// Hypercall 12.
pub fn memory_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    let [cmd, arg, ..] = *args;
    let (op, start) = split_cmd(cmd);
    match op {
        MemoryOp::INCREASE_RESERVATION | MemoryOp::DECREASE_RESERVATION | MemoryOp::POPULATE_PHYSMAP => {
            reservation::run(vcpu, op, start, arg)
        }
        MemoryOp::EXCHANGE if start == 0 => exchange::run(vcpu, arg),
        MemoryOp::ACQUIRE_RESOURCE => resource::run(vcpu, start, arg),
        // The others are done at once.
        _ if start != 0 => Err(Errno::EINVAL).into(),
        _ => run_sub(vcpu, HypercallNr::MEMORY_OP, &OPS, u64::from(op.0), arg).into(),
    }
}

/// Returns the largest order of an extent that the caller may name; it bounds the work between two looks at the time.
fn max_order(vcpu: &Vcpu) -> u8 {
    if vcpu.domain().privileged { 12 } else { 9 }
}

/// Returns the limit on addresses that flags ask for.
fn address_bits(mem_flags: u32) -> u32 {
    match memf_address_bits(mem_flags) {
        0 => mm::buddy::ANYWHERE,
        bits => bits,
    }
}

/// Answers a question about the domain that the argument names.
fn about(vcpu: &Vcpu, arg: u64, answer: impl FnOnce(&Domain) -> i64) -> Result<i64> {
    let id: DomId = guest::read(GuestPtr::<MemoryDomain>::new(arg))?.domid;
    Ok(match mmu::other_domain(vcpu, id)? {
        None => answer(vcpu.domain()),
        Some(other) => answer(&other),
    })
}

fn maximum_reservation(domain: &Domain) -> i64 {
    // A C `unsigned int` in the interface.
    domain.account.maximum().min(u64::from(u32::MAX)) as i64
}

fn maximum_gpfn(domain: &Domain) -> i64 {
    let max_pfn = domain.shared_info().u64(shared_offset::MAX_PFN);
    max_pfn.load(core::sync::atomic::Ordering::Relaxed).wrapping_sub(1) as i64
}

/// Promises a domain that it will be able to own so many frames, or takes the promise back.
fn claim_pages(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: MemoryReservation = guest::read(GuestPtr::new(arg))?;
    if !args.extent_start.is_null() || args.extent_order != 0 || args.mem_flags != 0 {
        return Err(Errno::EINVAL);
    }
    let domain = domain::find(args.domid).ok_or(Errno::EINVAL)?;
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM);
    }
    domain.account.claim(args.nr_extents)?;
    Ok(0)
}
