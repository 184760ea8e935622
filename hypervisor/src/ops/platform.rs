// SPDX-License-Identifier: MIT OR Apache-2.0
//! `platform_op`: what the hardware domain tells and asks about the machine.

mod cpus;
mod efi;
mod firmware;
mod power;

use core::mem::offset_of;

use hypercalls::platform::*;
use hypercalls::{Errno, GuestPtr, HypercallNr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::dispatch::{Args, Outcome, SubOp, absent, refused, run_sub, sub};
use crate::vcpu::Vcpu;
use crate::{guest, time};

/// The sub-operations; each gets the address of the whole argument.
pub static OPS: [SubOp; 64] = {
    let mut t: [SubOp; 64] = [absent(""); 64];
    t[17] = sub("settime32", |_, arg| {
        let a: Settime32 = read(arg)?;
        set_time(u64::from(a.secs), a.nsecs, a.system_time)
    });
    // The caches' attributes are the firmware's and the hypervisor's.
    t[31] = refused("add_memtype", Errno::ENOSYS);
    t[32] = refused("del_memtype", Errno::ENOSYS);
    t[33] = absent("read_memtype");
    t[35] = absent("microcode_update");
    t[39] = sub("platform_quirk", platform_quirk);
    t[48] = sub("get_cpu_version", cpus::get_cpu_version);
    t[49] = sub("efi_runtime_call", efi::runtime_call);
    t[50] = sub("firmware_info", firmware::firmware_info);
    t[51] = sub("enter_acpi_sleep", power::enter_acpi_sleep);
    // Only for a hardware domain that controls frequencies itself.
    t[52] = refused("change_freq", Errno::ENOSYS);
    t[53] = sub("getidletime", cpus::getidletime);
    t[54] = sub("set_processor_pminfo", power::set_processor_pminfo);
    t[55] = sub("get_cpuinfo", cpus::get_cpuinfo);
    t[56] = sub("cpu_online", cpus::cpu_online);
    t[57] = sub("cpu_offline", cpus::cpu_offline);
    t[58] = refused("cpu_hotadd", Errno::EOPNOTSUPP);
    t[59] = refused("mem_hotadd", Errno::EOPNOTSUPP);
    t[60] = sub("core_parking", cpus::core_parking);
    t[61] = absent("resource_op");
    t[62] = sub("settime64", |_, arg| {
        let a: Settime64 = read(arg)?;
        if a.mbz != 0 {
            return Err(Errno::EINVAL);
        }
        set_time(a.secs, a.nsecs, a.system_time)
    });
    t[63] = sub("get_symbol", get_symbol);
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

/// Returns where the union is.
fn union_of<T>(arg: u64) -> Result<GuestPtr<T>> {
    let union = GuestPtr::<u8>::new(arg).va(offset_of!(PlatformOp, u) as u64);
    Ok(union.ok_or(Errno::EFAULT)?.into())
}

/// Reads the beginning of the union.
fn read<T: FromBytes + IntoBytes>(arg: u64) -> Result<T> {
    guest::read(union_of(arg)?)
}

/// Writes the beginning of the union back.
fn write<T: IntoBytes + Immutable>(arg: u64, value: &T) -> Result<()> {
    guest::write(union_of(arg)?, value)
}

/// Sets the wall clock. A time that 64 bits of nanoseconds cannot hold becomes the latest one that they can.
fn set_time(secs: u64, nsecs: u32, system_time: u64) -> Result<i64> {
    let wall = secs.saturating_mul(1_000_000_000).saturating_add(u64::from(nsecs));
    time::set_wall_clock(wall, system_time);
    Ok(0)
}

/// What the hardware domain knows of odd chipsets. Interrupts are never moved about without being asked, and registers of
/// interrupt controllers are selected anew for each access, so there is nothing to change.
fn platform_quirk(_: &Vcpu, arg: u64) -> Result<i64> {
    let a: PlatformQuirk = read(arg)?;
    match a.quirk_id {
        QUIRK_NOIRQBALANCING | QUIRK_IOAPIC_BAD_REGSEL | QUIRK_IOAPIC_GOOD_REGSEL => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// The image holds no symbols: the list of them ends where it starts.
fn get_symbol(_: &Vcpu, arg: u64) -> Result<i64> {
    let mut a: SymData = read(arg)?;
    if a.symnum != 0 {
        return Err(Errno::ERANGE);
    }
    if a.namelen != 0 {
        guest::write(a.name, &0u8)?;
    }
    (a.namelen, a.address, a.kind) = (1, 0, 0);
    write(arg, &a)?;
    Ok(0)
}
