// SPDX-License-Identifier: MIT OR Apache-2.0
//! `memory_op`: what a domain owns, and what the machine has.
//!
//! The operations on lists of extents are cut when they take long: [`reservation`] keeps its position in the upper bits of
//! the command, [`exchange`] in the argument. Both are the guest's to change, and are checked each time.

mod exchange;
mod reservation;
#[cfg(test)]
mod testing;

use hypercalls::addr::M2P_VIRT_START;
use hypercalls::memory::*;
use hypercalls::shared_info::shared_offset;
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr, Result};

use crate::dispatch::{Args, Outcome, SubOp, absent, by_family, refused, run_sub, sub};
use crate::domain::Domain;
use crate::machine_map::{self, MACHINE_MAP};
use crate::vcpu::Vcpu;
use crate::{guest, mmu};

/// The sub-operations; those that can be cut short are run by [`memory_op`] itself.
pub static OPS: [SubOp; 29] = [
    by_family("increase_reservation"),
    by_family("decrease_reservation"),
    sub("maximum_ram_page", |_, _| Ok(mm::m2p::entries() as i64)),
    sub("current_reservation", |vcpu, arg| about(vcpu, arg, |d| d.account.owned() as i64)),
    sub("maximum_reservation", |vcpu, arg| about(vcpu, arg, maximum_reservation)),
    absent("machphys_mfn_list"),
    by_family("populate_physmap"),
    refused("add_to_physmap", Errno::EACCES),
    absent(""),
    // No domain has been given a map of its own; its kernel then assumes one.
    refused("memory_map", Errno::ENOSYS),
    sub("machine_memory_map", machine_memory_map),
    by_family("exchange"),
    sub("machphys_mapping", machphys_mapping),
    absent("set_memory_map"),
    sub("maximum_gpfn", |vcpu, arg| about(vcpu, arg, maximum_gpfn)),
    refused("remove_from_physmap", Errno::EACCES),
    // Populating on demand is for translated guests.
    refused("set_pod_target", Errno::EINVAL),
    refused("get_pod_target", Errno::EINVAL),
    // No frame is ever shared between domains behind their backs.
    sub("get_sharing_freed_pages", |_, _| Ok(0)),
    sub("get_sharing_shared_pages", |_, _| Ok(0)),
    absent("paging_op"),
    absent("access_op"),
    absent("sharing_op"),
    refused("add_to_physmap_batch", Errno::EACCES),
    absent("claim_pages"),
    refused("machphys_compat_mfn_list", Errno::EOPNOTSUPP),
    // No domain has a virtual NUMA layout.
    refused("get_vnumainfo", Errno::EOPNOTSUPP),
    absent("reserved_device_memory_map"),
    absent("acquire_resource"),
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
    let max_pfn = domain.shared_info.u64(shared_offset::MAX_PFN);
    max_pfn.load(core::sync::atomic::Ordering::Relaxed).wrapping_sub(1) as i64
}

fn machine_memory_map(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let domain = vcpu.domain();
    if !domain.privileged {
        return Err(Errno::EPERM);
    }
    let ptr = GuestPtr::<MemoryMap>::new(arg);
    let mut args = guest::read(ptr)?;
    let firmware = MACHINE_MAP.get().map_or(&[][..], |map| map);
    let map = machine_map::for_domain(firmware, domain.io.memory())?;
    if !args.buffer.is_null() {
        if (args.nr_entries as usize) < map.len() {
            return Err(Errno::EINVAL);
        }
        for (index, entry) in (0..).zip(&map) {
            guest::write_at(args.buffer, index, entry)?;
        }
    }
    args.nr_entries = map.len() as u32;
    guest::write(ptr, &args)?;
    Ok(0)
}

/// Bytes of linear address space for the M2P.
const M2P_SIZE: u64 = 256 << 30;

fn machphys_mapping(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    // Other domains may come to a machine with more memory; dom0 stays.
    let entries = if vcpu.domain().privileged { mm::m2p::entries() } else { M2P_SIZE / 8 };
    let answer = MachphysMapping {
        v_start: M2P_VIRT_START,
        v_end: M2P_VIRT_START + M2P_SIZE,
        max_mfn: entries.saturating_sub(1),
    };
    guest::write(GuestPtr::new(arg), &answer)?;
    Ok(0)
}
