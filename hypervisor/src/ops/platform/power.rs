// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sleep states and power states, of which the hardware domain tells: it interprets the firmware's code.

use alloc::vec::Vec;

use arch::SleepValues;
use hypercalls::platform_power::*;
use hypercalls::{Errno, GuestPtr, Result};
use zerocopy::{FromBytes, IntoBytes, transmute};

use super::read;
use crate::guest;
use crate::power::{self, IdleStates, Performance};
use crate::vcpu::Vcpu;

/// The sleep state "off", and suspend to memory.
const S5: u32 = 5;
const S3: u32 = 3;
/// In a PM1 control register: go.
const SLEEP_ENABLE: u16 = 1 << 13;
/// The largest sleep type, and the one that stands for none.
const SLEEP_TYPE_MAX: u16 = 7;
const SLEEP_TYPE_NONE: u16 = 0xff;

/// The kernel calls instead of writing the last registers itself.
pub(super) fn enter_acpi_sleep(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let a: EnterAcpiSleep = read(arg)?;
    let values = sleep_values(&a)?;
    if !arch::machine::has_sleep_registers(&values) {
        return Err(Errno::EPERM);
    }
    match a.sleep_state {
        S5 => power::off_by(&values),
        S3 => {
            log::warn!("d{}: suspend to memory is not implemented: the machine stays on", vcpu.domid.0);
            Err(Errno::EOPNOTSUPP)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn sleep_values(a: &EnterAcpiSleep) -> Result<SleepValues> {
    if a.flags & !XENPF_ACPI_SLEEP_EXTENDED != 0 {
        return Err(Errno::EINVAL);
    }
    if a.flags != 0 {
        let fits = a.val_a <= SLEEP_TYPE_MAX && (a.val_b <= SLEEP_TYPE_MAX || a.val_b == SLEEP_TYPE_NONE);
        return if fits { Ok(SleepValues::Reduced(a.val_a as u8)) } else { Err(Errno::ERANGE) };
    }
    // The second register may be absent; both act together.
    if a.val_b != 0 && (a.val_a ^ a.val_b) & SLEEP_ENABLE != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(SleepValues::Pm1(a.val_a, a.val_b))
}

/// What is told is kept; idle states and frequencies are left to the firmware.
pub(super) fn set_processor_pminfo(_: &Vcpu, arg: u64) -> Result<i64> {
    let a: SetProcessorPminfo = read(arg)?;
    match a.kind {
        PmInfoType::CX => idle_states(transmute!(a)),
        PmInfoType::PX => performance(transmute!(a)),
        // The interface has no form for it.
        PmInfoType::TX => Err(Errno::ENOSYS),
        PmInfoType::PDC => clear_capabilities(a.id, GuestPtr::new(a.u[0])),
        _ => Err(Errno::EINVAL),
    }
}

/// The most states of one kind that a processor is taken to have.
const MOST_STATES: u32 = 256;

fn read_list<T: FromBytes + IntoBytes>(from: GuestPtr<T>, count: u32) -> Result<Vec<T>> {
    if count > MOST_STATES {
        return Err(Errno::EINVAL);
    }
    let mut list = Vec::new();
    list.try_reserve_exact(count as usize).map_err(|_| Errno::ENOMEM)?;
    for index in 0..u64::from(count) {
        list.push(guest::read_at(from, index)?);
    }
    Ok(list)
}

fn idle_states(a: PowerInfo) -> Result<i64> {
    if !a.states.range_ok(a.count.into()) {
        return Err(Errno::EFAULT);
    }
    let cpu = crate::cpus::by_acpi_id(a.id).ok_or(Errno::EINVAL)?;
    let states = read_list(a.states, a.count)?;
    power::keep_idle_states(cpu, IdleStates { flags: a.flags, states });
    Ok(0)
}

fn performance(a: PerformanceInfo) -> Result<i64> {
    let cpu = crate::cpus::by_acpi_id(a.id).ok_or(Errno::EINVAL)?;
    let given = |part| a.flags & part != 0;
    if given(XEN_PX_PCT) && a.control_register.space_id != a.status_register.space_id {
        return Err(Errno::EINVAL);
    }
    if given(XEN_PX_PSS) && a.state_count <= 1 {
        return Err(Errno::EINVAL);
    }
    let shared = XEN_CPUPERF_SHARED_TYPE_HW..=XEN_CPUPERF_SHARED_TYPE_ANY;
    if given(XEN_PX_PSD) && !shared.contains(&a.shared_type) {
        return Err(Errno::EINVAL);
    }
    let states = if given(XEN_PX_PSS) { Some(read_list(a.states, a.state_count)?) } else { None };
    let told = Performance {
        registers: given(XEN_PX_PCT).then_some([a.control_register, a.status_register]),
        states,
        dependency: given(XEN_PX_PSD).then_some((a.shared_type, a.domain_info)),
        limit: given(XEN_PX_PPC).then_some(a.platform_limit),
    };
    power::keep_performance(cpu, told);
    Ok(0)
}

/// The revision of the capabilities buffer: `{revision, count, bits}`.
const PDC_REVISION: u32 = 1;

/// Of the capabilities that the kernel is about to tell the firmware, those that would make it leave idle states and
/// frequencies to whoever runs are taken away.
fn clear_capabilities(acpi_id: u32, buffer: GuestPtr<u32>) -> Result<i64> {
    let revision: u32 = guest::read_at(buffer, 0)?;
    let count: u32 = guest::read_at(buffer, 1)?;
    let runs = || crate::cpus::by_acpi_id(acpi_id).and_then(crate::cpus::online).is_some();
    // All ones stand for the CPU that booted.
    if revision != PDC_REVISION || count == 0 || (acpi_id != u32::MAX && !runs()) {
        return Err(Errno::EINVAL);
    }
    guest::write_at(buffer, 2, &0u32)?;
    Ok(0)
}
