// SPDX-License-Identifier: MIT OR Apache-2.0
//! `platform_op`: what the hardware domain tells and asks about the machine.

use core::mem::offset_of;

use hypercalls::platform::*;
use hypercalls::{Errno, GuestPtr, HypercallNr, Result};
use zerocopy::{FromBytes, IntoBytes};

use crate::dispatch::{Args, Outcome, SubOp, absent, run_sub, sub};
use crate::vcpu::Vcpu;
use crate::{guest, time};

/// The sub-operations; each gets the address of the whole argument.
pub static OPS: [SubOp; 64] = {
    let mut t: [SubOp; 64] = [absent(""); 64];
    t[17] = sub("settime32", |_, arg| {
        let a: Settime32 = read(arg)?;
        set_time(u64::from(a.secs), a.nsecs, a.system_time)
    });
    t[31] = absent("add_memtype");
    t[32] = absent("del_memtype");
    t[33] = absent("read_memtype");
    t[35] = absent("microcode_update");
    t[39] = absent("platform_quirk");
    t[48] = absent("get_cpu_version");
    t[49] = absent("efi_runtime_call");
    t[50] = sub("firmware_info", firmware_info);
    t[51] = absent("enter_acpi_sleep");
    t[52] = absent("change_freq");
    t[53] = absent("getidletime");
    t[54] = sub("set_processor_pminfo", set_processor_pminfo);
    t[55] = absent("get_cpuinfo");
    t[56] = absent("cpu_online");
    t[57] = absent("cpu_offline");
    t[58] = absent("cpu_hotadd");
    t[59] = absent("mem_hotadd");
    t[60] = absent("core_parking");
    t[61] = absent("resource_op");
    t[62] = sub("settime64", |_, arg| {
        let a: Settime64 = read(arg)?;
        if a.mbz != 0 {
            return Err(Errno::EINVAL);
        }
        set_time(a.secs, a.nsecs, a.system_time)
    });
    t[63] = absent("get_symbol");
    t
};

/// Hypercall 7.
pub fn platform_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    checked(vcpu, args[0]).into()
}

fn checked(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    // Command and version lie side by side; the union behind them is read by whoever needs it, once.
    let [cmd, version]: [u32; 2] = guest::read(GuestPtr::new(arg))?;
    if version != XENPF_INTERFACE_VERSION {
        return Err(Errno::EACCES);
    }
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM);
    }
    run_sub(vcpu, HypercallNr::PLATFORM_OP, &OPS, u64::from(cmd), arg)
}

/// Reads the beginning of the union.
fn read<T: FromBytes + IntoBytes>(arg: u64) -> Result<T> {
    let union = GuestPtr::<u8>::new(arg).va(offset_of!(PlatformOp, u) as u64);
    guest::read(union.ok_or(Errno::EFAULT)?.into())
}

/// Sets the wall clock. A time that 64 bits of nanoseconds cannot hold becomes the latest one that they can.
fn set_time(secs: u64, nsecs: u32, system_time: u64) -> Result<i64> {
    let wall = secs.saturating_mul(1_000_000_000).saturating_add(u64::from(nsecs));
    time::set_wall_clock(wall, system_time);
    Ok(0)
}

/// Nothing was asked of the firmware before it was gone, so there is nothing to tell.
fn firmware_info(_: &Vcpu, arg: u64) -> Result<i64> {
    let a: FirmwareInfo = read(arg)?;
    Err(match a.kind {
        FirmwareType::DISK_INFO
        | FirmwareType::DISK_MBR_SIGNATURE
        | FirmwareType::VBEDDC_INFO
        | FirmwareType::KBD_SHIFT_FLAGS => Errno::ESRCH,
        FirmwareType::EFI_INFO => Errno::ENOSYS,
        _ => Errno::EINVAL,
    })
}

/// Frequencies, idle states and throttling are left to the firmware; of the capabilities that the kernel is about to tell
/// the firmware, those that would make it control them are taken away.
fn set_processor_pminfo(_: &Vcpu, arg: u64) -> Result<i64> {
    let a: SetProcessorPminfo = read(arg)?;
    match a.kind {
        PmInfoType::CX | PmInfoType::PX | PmInfoType::TX => Err(Errno::ENOSYS),
        PmInfoType::PDC => clear_capabilities(GuestPtr::new(a.u[0])),
        _ => Err(Errno::EINVAL),
    }
}

/// The revision of the capabilities buffer: `{revision, count, bits}`.
const PDC_REVISION: u32 = 1;

fn clear_capabilities(buffer: GuestPtr<u32>) -> Result<i64> {
    let revision: u32 = guest::read_at(buffer, 0)?;
    let count: u32 = guest::read_at(buffer, 1)?;
    if revision != PDC_REVISION || count == 0 {
        return Err(Errno::EINVAL);
    }
    guest::write_at(buffer, 2, &0u32)?;
    Ok(0)
}
