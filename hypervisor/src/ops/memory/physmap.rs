// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is for translated guests, or for machines with an IOMMU or several nodes: refused, but only after what is wrong with
//! the call itself was found wrong.

use hypercalls::memory::*;
use hypercalls::{DomId, Errno, GuestPtr, Result};

use crate::vcpu::Vcpu;
use crate::{guest, mmu};

/// A domain has the memory that it has: there is no map of it to be changed from outside.
fn refuse(vcpu: &Vcpu, id: DomId) -> Result<i64> {
    mmu::existing(vcpu, id)?;
    Err(Errno::EACCES)
}

pub(super) fn add(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: AddToPhysmap = guest::read(GuestPtr::new(arg))?;
    if args.space == XENMAPSPACE_GMFN_FOREIGN {
        return Err(Errno::ENOSYS);
    }
    refuse(vcpu, args.domid)
}

pub(super) fn add_batch(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: AddToPhysmapBatch = guest::read(GuestPtr::new(arg))?;
    if u32::from(args.space) == XENMAPSPACE_GMFN_RANGE {
        return Err(Errno::EOPNOTSUPP);
    }
    refuse(vcpu, args.domid)
}

pub(super) fn remove(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: RemoveFromPhysmap = guest::read(GuestPtr::new(arg))?;
    refuse(vcpu, args.domid)
}

/// No domain has a layout of virtual nodes.
pub(super) fn virtual_nodes(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: VnumaTopologyInfo = guest::read(GuestPtr::new(arg))?;
    if args.pad != 0 {
        return Err(Errno::EINVAL);
    }
    mmu::other_domain(vcpu, args.domid)?;
    Err(Errno::EOPNOTSUPP)
}

/// Without an IOMMU no device has memory that must be mapped for it.
pub(super) fn reserved_for_devices(_: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::<ReservedDeviceMemoryMap>::new(arg);
    let mut args = guest::read(ptr)?;
    if !args.buffer.range_ok(u64::from(args.nr_entries)) {
        return Err(Errno::EFAULT);
    }
    if args.flags & !XENMEM_RDM_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    args.nr_entries = 0;
    guest::write(ptr, &args)?;
    Ok(0)
}
