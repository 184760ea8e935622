// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt lines and PIRQs.

use arch::{LineMode, ioapic};
use hypercalls::physdev::{
    MapPirqType, PhysdevApic, PhysdevEoi, PhysdevGetFreePirq, PhysdevIrq, PhysdevIrqStatusQuery, PhysdevMapPirq,
    PhysdevPirqEoiGmfn, PhysdevSetupGsi, PhysdevUnmapPirq,
};
use hypercalls::{Errno, GuestPtr, Mfn, Result};
use mm::WritableRef;

use super::must_be_privileged;
use crate::domain::Domain;
use crate::pci::msi::Wanted;
use crate::pci::{self, Place};
use crate::vcpu::Vcpu;
use crate::{guest, irq, pirq};

pub(super) fn eoi(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevEoi = guest::read(GuestPtr::new(arg))?;
    pirq::done(vcpu.domain(), args.irq).map(|()| 0)
}

pub(super) fn unmask_notify(vcpu: &Vcpu, _arg: u64) -> Result<i64> {
    pirq::done_with_unmasked(vcpu.domain());
    Ok(0)
}

pub(super) fn status_query(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::new(arg);
    let mut args: PhysdevIrqStatusQuery = guest::read(ptr)?;
    args.flags = pirq::status(vcpu.domain(), args.irq)?;
    guest::write(ptr, &args)?;
    Ok(0)
}

/// The first form of the page also unmasks a port whose interrupt is said to be handled.
pub(super) fn eoi_page_v1(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    eoi_page(vcpu, arg, true)
}

pub(super) fn eoi_page_v2(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    eoi_page(vcpu, arg, false)
}

fn eoi_page(vcpu: &Vcpu, arg: u64, auto_unmask: bool) -> Result<i64> {
    let args: PhysdevPirqEoiGmfn = guest::read(GuestPtr::new(arg))?;
    let frame = WritableRef::get(Mfn(args.gmfn), vcpu.domid).map_err(|_| Errno::EINVAL)?;
    vcpu.domain().pirqs.set_eoi_page(frame, auto_unmask).map(|()| 0)
}

pub(super) fn apic_read(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::new(arg);
    let mut args: PhysdevApic = guest::read(ptr)?;
    must_be_privileged(vcpu)?;
    args.value = ioapic::read_register(args.apic_physbase, args.reg).ok_or(Errno::EINVAL)?;
    guest::write(ptr, &args)?;
    Ok(0)
}

/// The lowest half of a line's entry; everything else is the hypervisor's and ignores writes.
const FIRST_ENTRY: u32 = 0x10;

/// Old kernels say by writing a line's entry how it behaves and, in the vector, which PIRQ it is to be.
pub(super) fn apic_write(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevApic = guest::read(GuestPtr::new(arg))?;
    must_be_privileged(vcpu)?;
    let (first, count) = ioapic::lines_at(args.apic_physbase).ok_or(Errno::EINVAL)?;
    let Some(offset) = args.reg.checked_sub(FIRST_ENTRY).filter(|offset| offset.is_multiple_of(2)) else {
        return Ok(0);
    };
    if offset / 2 >= count {
        return Err(Errno::EINVAL);
    }
    // Delivery modes: fixed and lowest priority are interrupts.
    if args.value >> 8 & 7 > 1 {
        return Err(Errno::EINVAL);
    }
    let gsi = first + offset / 2;
    let line = irq::get(gsi).ok_or(Errno::EINVAL)?;
    let mode = LineMode { level: args.value >> 15 & 1 != 0, active_low: args.value >> 13 & 1 != 0 };
    match line.set_up(mode) {
        // In use: it stays as it is.
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error),
    }
    if args.value >> 16 & 1 == 0 {
        let pirq = if gsi >= 256 { gsi } else { args.value & 0xff };
        map_line(vcpu.domain(), vcpu.domain(), gsi, Some(pirq))?;
    }
    Ok(0)
}

/// Vectors are the hypervisor's business: what a domain gets is a name for the interrupt it asked about.
pub(super) fn alloc_vector(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::new(arg);
    let mut args: PhysdevIrq = guest::read(ptr)?;
    must_be_privileged(vcpu)?;
    args.vector = args.irq;
    guest::write(ptr, &args)?;
    Ok(0)
}

pub(super) fn free_vector(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let _: PhysdevIrq = guest::read(GuestPtr::new(arg))?;
    must_be_privileged(vcpu).map(|()| 0)
}

pub(super) fn setup_gsi(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevSetupGsi = guest::read(GuestPtr::new(arg))?;
    let line = u32::try_from(args.gsi).ok().filter(|gsi| ioapic::exists(*gsi)).and_then(irq::get);
    let Some(line) = line else {
        log::info!("d{}: setup_gsi: no I/O APIC has GSI {}", vcpu.domid.0, args.gsi);
        return Err(Errno::EINVAL);
    };
    must_be_privileged(vcpu)?;
    line.set_up(LineMode { level: args.triggering != 0, active_low: args.polarity != 0 }).map(|()| 0)
}

pub(super) fn get_free_pirq(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::new(arg);
    let mut args: PhysdevGetFreePirq = guest::read(ptr)?;
    args.pirq = vcpu.domain().pirqs.reserve(args.kind == MapPirqType::GSI)?;
    guest::write(ptr, &args)?;
    Ok(0)
}

pub(super) fn map_pirq(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::new(arg);
    let mut args: PhysdevMapPirq = guest::read(ptr)?;
    let target = pirq::target(vcpu.domain(), args.domid)?;
    let wanted = u32::try_from(args.pirq).ok();
    let done = match args.kind {
        MapPirqType::GSI => {
            let Ok(gsi) = u32::try_from(args.index) else { return Err(Errno::EINVAL) };
            map_line(vcpu.domain(), &target, gsi, wanted).map(|pirq| args.pirq = pirq.cast_signed())
        }
        MapPirqType::MSI | MapPirqType::MSI_SEG | MapPirqType::MULTI_MSI => map_messages(vcpu, &target, &mut args),
        MapPirqType(kind) => {
            log::info!("d{}: map_pirq: there is no type {kind}", vcpu.domid.0);
            Err(Errno::EINVAL)
        }
    };
    guest::write(ptr, &args)?;
    done.map(|()| 0)
}

/// Maps messages of a PCI function. Of several it may be told how many there could be.
fn map_messages(vcpu: &Vcpu, target: &Domain, args: &mut PhysdevMapPirq) -> Result<()> {
    let several = args.kind == MapPirqType::MULTI_MSI;
    // An interrupt made before and mapped now is of an interface that ended with Xen 3.
    if args.index >= 0 || several && args.table_base != 0 {
        return Err(Errno::EINVAL);
    }
    let segment = if args.kind == MapPirqType::MSI { 0 } else { (args.bus >> 16) as u16 };
    let place = Place { segment, bus: args.bus as u8, devfn: args.devfn as u8 };
    let wanted = if several {
        let count = u8::try_from(args.entry_nr).ok().filter(|n| (1..=32).contains(n)).ok_or(Errno::EDOM)?;
        args.entry_nr = count.next_power_of_two().into();
        Wanted::Msi(count.next_power_of_two())
    } else if args.table_base != 0 {
        Wanted::Msix(u16::try_from(args.entry_nr).map_err(|_| Errno::EINVAL)?, args.table_base)
    } else {
        Wanted::Msi(1)
    };
    let mapped = pci::map::map(target, place, wanted, u32::try_from(args.pirq).ok());
    match mapped {
        Ok(pirq) => args.pirq = pirq.cast_signed(),
        Err(error) => {
            log::info!("d{}: map_pirq: {wanted:?} of {place}: {error:?}", vcpu.domid.0);
            if error == Errno::ENFILE {
                args.entry_nr = pci::device::find(place).map_or(0, |device| device.most_msi().into());
            }
        }
    }
    mapped.map(|_| ())
}

/// Maps a line. A domain that does not drive the devices names it by its own PIRQ.
fn map_line(caller: &Domain, target: &Domain, gsi: u32, wanted: Option<u32>) -> Result<u32> {
    let id = caller.id.0;
    let own = caller.pirqs.irq(gsi).map(irq::Irq::number);
    let number = own.or(Some(gsi).filter(|_| caller.privileged)).ok_or(Errno::EINVAL)?;
    if !ioapic::exists(number) || wanted.is_some_and(|pirq| pirq >= target.pirqs.count()) {
        log::info!("d{id}: map_pirq: GSI {gsi} as PIRQ {wanted:?} is out of range");
        return Err(Errno::EINVAL);
    }
    if !caller.pirqs.may_use(number) {
        log::info!("d{id}: map_pirq: GSI {gsi} is not for guests");
        return Err(Errno::EPERM);
    }
    let pirq = target.pirqs.map(number, wanted, true)?;
    target.pirqs.permit(number, true);
    Ok(pirq)
}

pub(super) fn unmap_pirq(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: PhysdevUnmapPirq = guest::read(GuestPtr::new(arg))?;
    let target = pirq::target(vcpu.domain(), args.domid)?;
    let pirq = u32::try_from(args.pirq).map_err(|_| Errno::EINVAL)?;
    pirq::unmap(&target, pirq).map(|()| 0)
}
