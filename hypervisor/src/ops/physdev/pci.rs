// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI functions that dom0 tells of, and their messages.

use hypercalls::physdev::{
    PhysdevManagePci, PhysdevManagePciExt, PhysdevPciDevice, PhysdevPciDeviceAdd, PhysdevPciMmcfgReserved,
    XEN_PCI_DEV_EXTFN, XEN_PCI_DEV_PXM, XEN_PCI_DEV_VIRTFN,
};
use hypercalls::{Errno, GuestPtr, Result};

use super::must_be_privileged;
use crate::guest;
use crate::pci::device::{self, Info};
use crate::pci::{Place, ecam};
use crate::vcpu::Vcpu;

fn read<T: zerocopy::FromBytes + zerocopy::IntoBytes>(vcpu: &Vcpu, arg: u64) -> Result<T> {
    let args = guest::read(GuestPtr::new(arg))?;
    must_be_privileged(vcpu)?;
    Ok(args)
}

const fn in_first_segment(args: &PhysdevManagePci) -> Place {
    Place { segment: 0, bus: args.bus, devfn: args.devfn }
}

const fn place(args: &PhysdevPciDevice) -> Place {
    Place { segment: args.seg, bus: args.bus, devfn: args.devfn }
}

pub(super) fn manage_add(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevManagePci = read(vcpu, arg)?;
    device::add(in_first_segment(&args), Info::default()).map(|()| 0)
}

pub(super) fn manage_remove(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevManagePci = read(vcpu, arg)?;
    device::remove(in_first_segment(&args)).map(|()| 0)
}

pub(super) fn manage_add_ext(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevManagePciExt = read(vcpu, arg)?;
    if args.is_extfn > 1 || args.is_virtfn > 1 {
        return Err(Errno::EINVAL);
    }
    let physfn = (args.is_virtfn == 1).then_some((args.physfn_bus, args.physfn_devfn));
    let place = Place { segment: 0, bus: args.bus, devfn: args.devfn };
    device::add(place, Info { is_extfn: args.is_extfn == 1, physfn, node: None }).map(|()| 0)
}

pub(super) fn device_add(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevPciDeviceAdd = read(vcpu, arg)?;
    let is = |flag| args.flags & flag != 0;
    // The proximity domain is the first of the words behind the structure.
    let behind = GuestPtr::<u32>::new(arg.wrapping_add(size_of::<PhysdevPciDeviceAdd>() as u64));
    let node = if is(XEN_PCI_DEV_PXM) { Some(guest::read(behind)?) } else { None };
    let physfn = is(XEN_PCI_DEV_VIRTFN).then_some((args.physfn_bus, args.physfn_devfn));
    let place = Place { segment: args.seg, bus: args.bus, devfn: args.devfn };
    device::add(place, Info { is_extfn: is(XEN_PCI_DEV_EXTFN), physfn, node }).map(|()| 0)
}

pub(super) fn device_remove(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevPciDevice = read(vcpu, arg)?;
    device::remove(place(&args)).map(|()| 0)
}

pub(super) fn mmcfg_reserved(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    must_be_privileged(vcpu)?;
    let args: PhysdevPciMmcfgReserved = guest::read(GuestPtr::new(arg))?;
    ecam::reserved(&args).map(|()| 0)
}

pub(super) fn prepare_msix(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    prepare(vcpu, arg, true)
}

pub(super) fn release_msix(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    prepare(vcpu, arg, false)
}

fn prepare(vcpu: &Vcpu, arg: u64, prepared: bool) -> Result<i64> {
    let args: PhysdevPciDevice = read(vcpu, arg)?;
    device::find(place(&args)).ok_or(Errno::ENODEV)?.prepare(prepared).map(|()| 0)
}

pub(super) fn restore_msi(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevManagePci = read(vcpu, arg)?;
    device::find(in_first_segment(&args)).ok_or(Errno::ENODEV)?.restore().map(|()| 0)
}

pub(super) fn restore_msi_ext(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevPciDevice = read(vcpu, arg)?;
    device::find(place(&args)).ok_or(Errno::ENODEV)?.restore().map(|()| 0)
}
