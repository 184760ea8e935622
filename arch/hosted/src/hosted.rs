// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting the hosted machine, and holding it while a test runs.

use crate::{apic, area, console, cpu, efi, guest, ioapic, ipi, pci, phys, port, registers, time, timer, tlb, window};
use arch_types::CpuId;
use std::sync::{Mutex, MutexGuard, PoisonError};

static HELD: Mutex<()> = Mutex::new(());

/// The machine, held by one test at a time.
#[derive(Debug)]
pub struct Machine {
    _guard: MutexGuard<'static, ()>,
}

/// Starts a fresh machine with `bytes` of RAM at machine address 0 and `cpus` CPUs; this thread plays CPU 0.
/// Waits while another thread has one.
pub fn boot(bytes: usize, cpus: usize) -> Machine {
    let guard = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    phys::init(bytes);
    cpu::set_online(cpus);
    cpu::set_this_cpu(CpuId(0));
    cpu::preempt_after(None);
    area::reset();
    apic::reset();
    ioapic::reset();
    tlb::reset();
    guest::reset();
    time::reset();
    timer::reset();
    console::reset();
    port::reset();
    efi::reset();
    pci::reset();
    registers::reset();
    window::reset();
    ipi::take_kicked();
    crate::machine_check::forget_all();
    crate::nmi::acknowledge(0xff);
    Machine { _guard: guard }
}

impl Drop for Machine {
    fn drop(&mut self) {
        cpu::preempt_after(None);
        cpu::unset_this_cpu();
    }
}
