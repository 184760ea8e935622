// SPDX-License-Identifier: MIT OR Apache-2.0
//! `physdev_op`: I/O privilege, interrupts and PCI devices.

mod lines;
mod pci;

use core::sync::atomic::Ordering::Relaxed;

use hypercalls::physdev::{PhysdevSetIobitmap, PhysdevSetIopl};
use hypercalls::{Errno, GuestPtr, HypercallNr, Result};

use crate::dispatch::{Args, Outcome, SubOp, absent, run_sub, sub};
use crate::vcpu::Vcpu;
use crate::{guest, registers};

const UNASSIGNED: SubOp = absent("");

/// The sub-operations; the first ones are those of an interface that ended with Xen 3.
pub static OPS: [SubOp; 32] = [
    UNASSIGNED,
    UNASSIGNED,
    UNASSIGNED,
    UNASSIGNED,
    sub("IRQ_UNMASK_NOTIFY", lines::unmask_notify),
    sub("irq_status_query", lines::status_query),
    sub("set_iopl", set_iopl),
    sub("set_iobitmap", set_iobitmap),
    sub("apic_read", lines::apic_read),
    sub("apic_write", lines::apic_write),
    sub("alloc_irq_vector", lines::alloc_vector),
    sub("free_irq_vector", lines::free_vector),
    sub("eoi", lines::eoi),
    sub("map_pirq", lines::map_pirq),
    sub("unmap_pirq", lines::unmap_pirq),
    sub("manage_pci_add", pci::manage_add),
    sub("manage_pci_remove", pci::manage_remove),
    sub("pirq_eoi_gmfn_v1", lines::eoi_page_v1),
    UNASSIGNED,
    sub("restore_msi", pci::restore_msi),
    sub("manage_pci_add_ext", pci::manage_add_ext),
    sub("setup_gsi", lines::setup_gsi),
    UNASSIGNED,
    sub("get_free_pirq", lines::get_free_pirq),
    sub("pci_mmcfg_reserved", pci::mmcfg_reserved),
    sub("pci_device_add", pci::device_add),
    sub("pci_device_remove", pci::device_remove),
    sub("restore_msi_ext", pci::restore_msi_ext),
    sub("pirq_eoi_gmfn_v2", lines::eoi_page_v2),
    absent("dbgp_op"),
    sub("prepare_msix", pci::prepare_msix),
    sub("release_msix", pci::release_msix),
];

/// Hypercall 33.
pub fn physdev_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    // A C `int` in the interface.
    run_sub(vcpu, HypercallNr::PHYSDEV_OP, &OPS, args[0] & 0xffff_ffff, args[1]).into()
}

/// Only who drives the devices may ask about them.
fn must_be_privileged(vcpu: &Vcpu) -> Result<()> {
    if vcpu.domain().privileged { Ok(()) } else { Err(Errno::EPERM) }
}

fn set_iopl(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevSetIopl = guest::read(GuestPtr::new(arg))?;
    match args.iopl {
        0..=3 => registers::set_iopl(vcpu, args.iopl as u8),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// One bit for each port there is.
const ALL_PORTS: u32 = 1 << 16;

fn set_iobitmap(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevSetIobitmap = guest::read(GuestPtr::new(arg))?;
    // The whole bitmap's place is checked, so that reading one byte of it later needs no check of its own.
    if args.nr_ports > ALL_PORTS || !args.bitmap.range_ok(u64::from(ALL_PORTS) / 8) {
        return Err(Errno::EINVAL);
    }
    vcpu.io_bitmap.store(args.bitmap.0, Relaxed);
    vcpu.io_ports.store(args.nr_ports, Relaxed);
    Ok(0)
}
