// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the hardware domain asks about the machine's CPUs.

use hypercalls::platform::*;
use hypercalls::{Errno, GuestPtr, Result};

use super::{read, write};
use crate::cpus::{self, Model};
use crate::guest;
use crate::vcpu::Vcpu;

/// A CPU that is not there is said to be invalid, not refused: callers find the last one that way.
pub(super) fn get_cpuinfo(_: &Vcpu, arg: u64) -> Result<i64> {
    let mut info: PcpuInfo = read(arg)?;
    match cpus::get(info.xen_cpuid) {
        None => info.flags = XEN_PCPU_FLAGS_INVALID,
        Some(cpu) => {
            (info.apic_id, info.acpi_id) = (cpu.apic_id, cpu.acpi_id);
            info.flags = if cpus::online(info.xen_cpuid).is_some() { XEN_PCPU_FLAGS_ONLINE } else { 0 };
        }
    }
    info.max_present = cpus::count() - 1;
    write(arg, &info)?;
    Ok(0)
}

/// Of a CPU that does not run, nothing is known.
pub(super) fn get_cpu_version(_: &Vcpu, arg: u64) -> Result<i64> {
    let asked: PcpuVersion = read(arg)?;
    let mut version =
        PcpuVersion { xen_cpuid: asked.xen_cpuid, max_present: cpus::count() - 1, ..PcpuVersion::default() };
    if cpus::online(asked.xen_cpuid).is_some() {
        let model = Model::here();
        version.vendor_id = model.vendor;
        (version.family, version.model, version.stepping) = (model.family, model.model, model.stepping);
    }
    write(arg, &version)?;
    Ok(0)
}

/// More CPUs than the interface is ever asked about.
const MOST_CPUS: u32 = 4096;

pub(super) fn getidletime(_: &Vcpu, arg: u64) -> Result<i64> {
    let mut a: GetIdleTime = read(arg)?;
    if a.cpumap_nr_cpus > MOST_CPUS {
        return Err(Errno::EINVAL);
    }
    let now = arch::time::now();
    for byte in 0..a.cpumap_nr_cpus.div_ceil(8) {
        let asked: u8 = guest::read_at(a.cpumap_bitmap, byte.into())?;
        let there = idle_times(asked, byte * 8, a.cpumap_nr_cpus, a.idletime, now)?;
        guest::write_at(a.cpumap_bitmap, byte.into(), &there)?;
    }
    a.now = now;
    write(arg, &a)?;
    Ok(0)
}

/// Writes the idle times of those of eight CPUs that are asked for; returns which of them run.
fn idle_times(asked: u8, first: u32, end: u32, to: GuestPtr<u64>, now: u64) -> Result<u8> {
    let mut there = 0;
    for cpu in (first..end.min(first + 8)).filter(|cpu| asked >> (cpu - first) & 1 != 0) {
        let time = cpus::online(cpu).map(|cpu| arch::cpu::idle_time(cpu, now));
        guest::write_at(to, cpu.into(), &time.unwrap_or(0))?;
        there |= u8::from(time.is_some()) << (cpu - first);
    }
    Ok(there)
}

/// CPUs run from the start or not at all.
pub(super) fn cpu_online(_: &Vcpu, arg: u64) -> Result<i64> {
    let CpuOnlineOffline { cpuid } = read(arg)?;
    match (cpus::get(cpuid), cpus::online(cpuid)) {
        (None, _) => Err(Errno::EINVAL),
        (_, Some(_)) => Ok(0),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// As [`cpu_online`].
pub(super) fn cpu_offline(_: &Vcpu, arg: u64) -> Result<i64> {
    let CpuOnlineOffline { cpuid } = read(arg)?;
    match (cpus::get(cpuid), cpus::online(cpuid)) {
        _ if cpuid == 0 => Err(Errno::EOPNOTSUPP),
        (None, _) => Err(Errno::EINVAL),
        (_, None) => Ok(0),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Forced idleness of whole CPUs, which is not done: none is ever parked.
pub(super) fn core_parking(_: &Vcpu, arg: u64) -> Result<i64> {
    let mut a: CoreParking = read(arg)?;
    match a.kind {
        XEN_CORE_PARKING_SET if a.idle_nums.min(cpus::count() - 1) == 0 => Ok(0),
        XEN_CORE_PARKING_SET => Err(Errno::EOPNOTSUPP),
        XEN_CORE_PARKING_GET => {
            a.idle_nums = 0;
            write(arg, &a)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
