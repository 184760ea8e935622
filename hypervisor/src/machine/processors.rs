// SPDX-License-Identifier: MIT OR Apache-2.0
//! The other CPUs: started one by one, each onto its own area, then idle until the scheduler has something for it.
#![expect(unsafe_code, reason = "writes the trampoline and runs on it")]

use alloc::vec::Vec;

use arch::CpuId;
use arch::platform::acpi::Platform;
use arch::platform::thermal::{self, Admission};
use arch::platform::{apic, smp};
use boot::BootInfo;
use boot::trampoline::{self, Params};
use hypervisor::cpus::{self, Present};
use hypervisor::{create, schedule};

/// A stack for the few instructions between the trampoline and the CPU's own area.
#[repr(C, align(16))]
struct Stack([u8; 8192]);
static STACK: spin::Mutex<Stack> = spin::Mutex::new(Stack([0; 8192]));

/// From the trampoline, on the boot page tables.
extern "C" fn first(cpu: u64) -> ! {
    // SAFETY: this is the CPU of that number; its area was created before it was started.
    unsafe { arch::cpu::enter_application_cpu(CpuId(cpu as u16), idle) }
}

extern "C" fn idle() -> ! {
    hypervisor::mca::init_cpu();
    let _ = thermal::admit();
    schedule::cpu_online(arch::cpu::this_cpu());
    arch::entry::start_running()
}

/// Returns the CPUs that the firmware lists, this one first: they are numbered in this order.
fn present(platform: &Platform, here: u32) -> Vec<Present> {
    let all = || platform.cpus.iter().filter(|c| c.enabled).map(|c| Present { apic_id: c.apic_id, acpi_id: c.acpi_id });
    let this = all().find(|c| c.apic_id == here).unwrap_or(Present { apic_id: here, acpi_id: u32::MAX });
    core::iter::once(this).chain(all().filter(|c| c.apic_id != here)).collect()
}

/// Lets the thermal sensor of the boot CPU interrupt it, and says who handles those of all CPUs.
pub(super) fn watch_heat() {
    match thermal::admit() {
        Admission::Ours => log::info!("thermal sensors: CPUs that become too hot are told of"),
        Admission::Firmware => log::info!("thermal sensors: the firmware handles them"),
        Admission::Absent => {}
    }
}

/// Starts the CPUs that the firmware lists, as many as the options allow.
pub(super) fn start_all(platform: &Platform, info: &BootInfo) {
    let here = apic::id();
    arch::cpu::area_of(CpuId(0)).apic_id.store(here, core::sync::atomic::Ordering::Relaxed);
    cpus::note(present(platform, here));
    let enabled = platform.cpus.iter().filter(|c| c.enabled).count().max(1) as u32;
    let limit = super::command_line_options().cpu_limit(enabled);
    log::info!("{enabled} CPUs found, {limit} used");
    if limit < 2 {
        return;
    }
    let Some(page) = info.low_page(&[]) else {
        log::warn!("no free page below 640 KiB: the other CPUs are not started");
        return;
    };
    for number in 1..limit as u16 {
        if let Some(cpu) = cpus::get(number.into()) {
            start_one(CpuId(number), cpu.apic_id, page);
        }
    }
    log::info!("{} CPUs run", arch::cpu::online().count());
}

fn start_one(cpu: CpuId, apic_id: u32, page: u64) {
    if arch::cpu::create_area(cpu, apic_id, &mut create::table_frame).is_err() {
        log::error!("no memory for CPU {}", cpu.0);
        return;
    }
    let mut stack = STACK.lock();
    let top = core::ptr::from_mut(&mut *stack) as u64 + size_of::<Stack>() as u64;
    let params =
        Params { cr3: boot::boot_cr3() as u32, entry: first as *const () as u64, stack: top, arg: u64::from(cpu.0) };
    let to = (arch::layout::DIRECT_MAP + page) as *mut u8;
    // SAFETY: a free page of low memory, mapped by the direct map; no CPU runs on it now.
    unsafe { trampoline::write(to, &params) };
    if smp::start(apic_id, page, || arch::cpu::is_online(cpu)).is_err() {
        log::error!("CPU {} (APIC {apic_id:#x}) does not answer", cpu.0);
    }
}
