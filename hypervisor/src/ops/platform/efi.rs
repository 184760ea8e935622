// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the hardware domain asks about UEFI firmware and of its runtime services.

use alloc::vec::Vec;

use arch::efi;
use hypercalls::platform::FirmwareInfo;
use hypercalls::platform_efi::*;
use hypercalls::{Errno, GuestPtr, Result};
use zerocopy::{FromBytes, IntoBytes, transmute};

use super::{read, write};
use crate::vcpu::Vcpu;
use crate::{firmware, guest};

/// `firmware_info` for UEFI.
pub(super) fn info(a: &FirmwareInfo, arg: u64) -> Result<i64> {
    firmware::with_efi(|efi| match EfiInfo(a.index) {
        EfiInfo::VERSION => write_version(a, arg, efi.revision),
        EfiInfo::RT_VERSION => write_version(a, arg, efi.runtime_revision.ok_or(Errno::EOPNOTSUPP)?),
        EfiInfo::CONFIG_TABLE => {
            let config: FirmwareEfiConfig = transmute!(*a);
            write(arg, &FirmwareEfiConfig { addr: efi.config, nent: efi.config_entries, ..config })
        }
        EfiInfo::VENDOR => {
            let vendor: FirmwareEfiVendor = transmute!(*a);
            if efi.vendor.is_empty() {
                return Err(Errno::EOPNOTSUPP);
            }
            // As much as there is room for.
            for (index, unit) in (0..u64::from(vendor.bufsz) / 2).zip(&efi.vendor) {
                guest::write_at(vendor.name, index, unit)?;
            }
            write(arg, &FirmwareEfiVendor { revision: efi.firmware_revision, ..vendor })
        }
        EfiInfo::MEM_INFO => {
            let mut mem: FirmwareEfiMem = transmute!(*a);
            let region = efi.region(mem.addr).ok_or(Errno::ESRCH)?;
            (mem.memory_type, mem.attr) = (region.kind, region.attributes);
            mem.size = mem.size.min(region.end - mem.addr);
            write(arg, &mem)
        }
        EfiInfo::PCI_ROM => Err(Errno::ESRCH),
        EfiInfo::APPLE_PROPERTIES => Err(Errno::ENODATA),
        _ => Err(Errno::EINVAL),
    })?;
    Ok(0)
}

fn write_version(a: &FirmwareInfo, arg: u64, version: u32) -> Result<()> {
    let old: FirmwareEfiVersion = transmute!(*a);
    write(arg, &FirmwareEfiVersion { version, ..old })
}

/// True for a status that is an error rather than success or a warning.
fn failed(status: u64) -> bool {
    status >> 63 != 0
}

/// Calls a runtime service. What it says goes into `status`; an error of the hypercall means that it was not called.
pub(super) fn runtime_call(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let a: EfiRuntimeCall = read(arg)?;
    let revision = firmware::with_efi(|efi| Ok(efi.runtime_revision))?.filter(|_| efi::available());
    let revision = revision.ok_or(Errno::EOPNOTSUPP)?;
    match a.function {
        EfiFunction::GET_TIME => get_time(vcpu, transmute!(a)).and_then(|a| write(arg, &a)),
        EfiFunction::SET_TIME => set_time(vcpu, transmute!(a)).and_then(|a| write(arg, &a)),
        EfiFunction::GET_WAKEUP_TIME => get_wakeup_time(vcpu, transmute!(a)).and_then(|a| write(arg, &a)),
        EfiFunction::SET_WAKEUP_TIME => set_wakeup_time(vcpu, transmute!(a)).and_then(|a| write(arg, &a)),
        EfiFunction::GET_NEXT_HIGH_MONOTONIC_COUNT => count(vcpu, a).and_then(|a| write(arg, &a)),
        EfiFunction::GET_VARIABLE => get_variable(vcpu, transmute!(a)).and_then(|a| write(arg, &a)),
        EfiFunction::SET_VARIABLE => set_variable(vcpu, transmute!(a)).and_then(|a| write(arg, &a)),
        EfiFunction::GET_NEXT_VARIABLE_NAME => get_next_name(vcpu, transmute!(a)).and_then(|a| write(arg, &a)),
        // The first edition of the specification has no such service.
        EfiFunction::QUERY_VARIABLE_INFO if revision >> 16 < 2 => Err(Errno::EOPNOTSUPP),
        EfiFunction::QUERY_VARIABLE_INFO => query_variable_info(vcpu, transmute!(a)).and_then(|a| write(arg, &a)),
        // Capsules want memory that survives a restart.
        _ => Err(Errno::ENOSYS),
    }?;
    Ok(0)
}

fn no_flags(misc: u32) -> Result<()> {
    if misc == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

fn get_time(vcpu: &Vcpu, mut a: EfiTimeCall) -> Result<EfiTimeCall> {
    no_flags(a.misc)?;
    let mut time: [u8; 16] = transmute!(a.time);
    let mut capabilities = [0; 12];
    a.status = firmware::call(vcpu, || efi::get_time(&mut time, &mut capabilities))?;
    if !failed(a.status) {
        a.time = transmute!(time);
        let [resolution, accuracy, clears]: [u32; 3] = transmute!(capabilities);
        (a.resolution, a.accuracy) = (resolution, accuracy);
        a.misc = if clears & 0xff != 0 { XEN_EFI_GET_TIME_SET_CLEARS_NS } else { 0 };
    }
    Ok(a)
}

fn set_time(vcpu: &Vcpu, mut a: EfiTimeCall) -> Result<EfiTimeCall> {
    no_flags(a.misc)?;
    let mut time: [u8; 16] = transmute!(a.time);
    a.status = firmware::call(vcpu, || efi::set_time(&mut time))?;
    Ok(a)
}

fn get_wakeup_time(vcpu: &Vcpu, mut a: EfiTimeCall) -> Result<EfiTimeCall> {
    no_flags(a.misc)?;
    let mut time: [u8; 16] = transmute!(a.time);
    let (mut enabled, mut pending) = (0, 0);
    a.status = firmware::call(vcpu, || efi::get_wakeup_time(&mut enabled, &mut pending, &mut time))?;
    if !failed(a.status) {
        a.time = transmute!(time);
        a.misc = if enabled != 0 { XEN_EFI_GET_WAKEUP_TIME_ENABLED } else { 0 }
            | if pending != 0 { XEN_EFI_GET_WAKEUP_TIME_PENDING } else { 0 };
    }
    Ok(a)
}

fn set_wakeup_time(vcpu: &Vcpu, mut a: EfiTimeCall) -> Result<EfiTimeCall> {
    no_flags(a.misc & !(XEN_EFI_SET_WAKEUP_TIME_ENABLE | XEN_EFI_SET_WAKEUP_TIME_ENABLE_ONLY))?;
    let enable = a.misc & XEN_EFI_SET_WAKEUP_TIME_ENABLE != 0;
    let mut time: [u8; 16] = transmute!(a.time);
    let given = (a.misc & XEN_EFI_SET_WAKEUP_TIME_ENABLE_ONLY == 0).then_some(&mut time);
    a.status = firmware::call(vcpu, || efi::set_wakeup_time(enable, given))?;
    a.misc = 0;
    Ok(a)
}

fn count(vcpu: &Vcpu, mut a: EfiRuntimeCall) -> Result<EfiRuntimeCall> {
    no_flags(a.misc)?;
    let mut count = 0;
    a.status = firmware::call(vcpu, || efi::get_next_high_monotonic_count(&mut count))?;
    a.misc = count;
    Ok(a)
}

/// The longest name of a variable, in units of UTF-16, and the largest value, in bytes.
const LONGEST_NAME: u64 = 4096;
const LARGEST_VALUE: u64 = 1 << 20;

/// Returns room for a list.
fn room<T: Clone + Default>(count: u64) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count as usize).map_err(|_| Errno::ENOMEM)?;
    list.resize(count as usize, T::default());
    Ok(list)
}

/// Reads a name up to the zero at its end, which becomes a part of it.
fn read_name(from: GuestPtr<u16>) -> Result<Vec<u16>> {
    let mut name = Vec::new();
    for index in 0..LONGEST_NAME {
        let unit = guest::read_at(from, index)?;
        name.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        name.push(unit);
        if unit == 0 {
            return Ok(name);
        }
    }
    Err(Errno::EINVAL)
}

fn copy_in<T: FromBytes + IntoBytes>(from: GuestPtr<T>, to: &mut [u8]) -> Result<()> {
    Ok(arch::guest::copy_from(to, from.first())?)
}

fn get_variable(vcpu: &Vcpu, mut a: EfiVariableCall) -> Result<EfiVariableCall> {
    no_flags(a.misc)?;
    let mut name = read_name(a.name)?;
    if a.size > LARGEST_VALUE {
        return Err(Errno::ENOMEM);
    }
    let mut data = room::<u8>(a.size)?;
    let mut guid: [u8; 16] = transmute!(a.vendor_guid);
    let (mut attributes, mut size) = (0, 0);
    a.status = firmware::call(vcpu, || efi::get_variable(&mut name, &mut guid, &mut attributes, &mut size, &mut data))?;
    (a.misc, a.size) = (attributes, size);
    if !failed(a.status) {
        let value = data.get(..size as usize).ok_or(Errno::EIO)?;
        arch::guest::copy_to(a.data.first(), value)?;
    }
    Ok(a)
}

fn set_variable(vcpu: &Vcpu, mut a: EfiVariableCall) -> Result<EfiVariableCall> {
    let mut name = read_name(a.name)?;
    if a.size > LARGEST_VALUE {
        return Err(Errno::ENOMEM);
    }
    let mut data = room::<u8>(a.size)?;
    if a.size != 0 {
        copy_in(a.data, &mut data)?;
    }
    let mut guid: [u8; 16] = transmute!(a.vendor_guid);
    a.status = firmware::call(vcpu, || efi::set_variable(&mut name, &mut guid, a.misc, &mut data))?;
    Ok(a)
}

fn get_next_name(vcpu: &Vcpu, mut a: EfiNextNameCall) -> Result<EfiNextNameCall> {
    no_flags(a.misc)?;
    if a.size > LONGEST_NAME * 2 {
        return Err(Errno::ENOMEM);
    }
    let asked = a.size as usize;
    let mut name = room::<u16>(a.size.div_ceil(2))?;
    copy_in(a.name, name.as_mut_bytes().get_mut(..asked).ok_or(Errno::EINVAL)?)?;
    if !name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    let mut guid: [u8; 16] = transmute!(a.vendor_guid);
    let mut size = a.size;
    a.status = firmware::call(vcpu, || efi::get_next_variable_name(&mut size, &mut name, &mut guid))?;
    a.size = size;
    if !failed(a.status) {
        a.vendor_guid = transmute!(guid);
        // All of the caller's buffer: some firmware tells sizes that are too small.
        arch::guest::copy_to(a.name.first(), name.as_bytes().get(..asked).ok_or(Errno::EINVAL)?)?;
    }
    Ok(a)
}

/// Attributes of a variable: kept when the power is off, accessible at boot, accessible at run time; and the one that only says
/// how it is written.
const KEPT_VARIABLE: u32 = 7;
const APPEND_WRITE: u32 = 1 << 6;

fn query_variable_info(vcpu: &Vcpu, mut a: EfiVariableInfoCall) -> Result<EfiVariableInfoCall> {
    no_flags(a.misc & !XEN_EFI_VARINFO_BOOT_SNAPSHOT)?;
    // What was so at boot was not asked then: what is so now is told.
    if a.misc != 0 && a.attr & !APPEND_WRITE != KEPT_VARIABLE {
        return Err(Errno::EINVAL);
    }
    let mut sizes = [0; 3];
    a.status = firmware::call(vcpu, || efi::query_variable_info(a.attr, &mut sizes))?;
    [a.max_store_size, a.remain_store_size, a.max_size] = sizes;
    Ok(a)
}
