// SPDX-License-Identifier: MIT OR Apache-2.0
//! The local APIC of the CPU that runs: as device memory (xAPIC) or as MSRs (x2APIC), one form for the
//! whole machine.
//!
//! [`setup`] chooses the form once, then each CPU calls [`init_cpu`] before anything else here.
//! All calls want interrupts off: a message is sent in two steps.
#![expect(unsafe_code, reason = "device memory and MSRs")]

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

use arch_types::CpuId;

use super::{VECTOR_APIC_ERROR, VECTOR_SPURIOUS, VECTOR_TIMER, timer};
use crate::features::cpuid;
use crate::msr;

/// The form of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Device memory; APIC numbers of 8 bits.
    XApic,
    /// MSRs; APIC numbers of 32 bits.
    X2Apic,
}

/// The local APIC of this machine cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicError {
    /// The CPU has none.
    Absent,
    /// The registers could not be mapped.
    Unmapped,
}

const BASE_ENABLE: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;
const IA32_TSC_DEADLINE: u32 = 0x6e0;

const ID: u32 = 0x20;
const VERSION: u32 = 0x30;
const TASK_PRIORITY: u32 = 0x80;
const EOI: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const ISR: u32 = 0x100;
const IRR: u32 = 0x200;
const ERROR_STATUS: u32 = 0x280;
const LVT_CMCI: u32 = 0x2f0;
const ICR_LOW: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_THERMAL: u32 = 0x330;
const LVT_COUNTERS: u32 = 0x340;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const MASKED: u32 = 1 << 16;
const TIMER_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0b1011;
const ICR_PENDING: u32 = 1 << 12;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_SELF: u32 = 1 << 18;
const ICR_ALL_BUT_SELF: u32 = 3 << 18;
const DELIVERY: u32 = 7 << 8;
const DELIVERY_SMI: u32 = 2 << 8;
const DELIVERY_NMI: u32 = 4 << 8;
const DELIVERY_INIT: u32 = 5 << 8;
const DELIVERY_STARTUP: u32 = 6 << 8;

/// 0 before [`setup`], 1 for device memory, 2 for MSRs.
static MODE: AtomicU8 = AtomicU8::new(0);
static BASE: AtomicUsize = AtomicUsize::new(0);
/// What the firmware left in the boot CPU's thermal entry, if its own handler gets those interrupts; else 0.
static FIRMWARE_THERMAL: AtomicU32 = AtomicU32::new(0);

#[inline]
fn read(register: u32) -> u32 {
    match MODE.load(Ordering::Relaxed) {
        2 => msr::read(0x800 + (register >> 4)) as u32,
        // SAFETY: `setup` stored where the registers are mapped; `register` is below 4 KiB.
        1 => unsafe { ((BASE.load(Ordering::Relaxed) + register as usize) as *const u32).read_volatile() },
        _ => 0,
    }
}

#[inline]
fn write(register: u32, value: u32) {
    match MODE.load(Ordering::Relaxed) {
        2 => msr::write(0x800 + (register >> 4), value.into()),
        // SAFETY: as in `read`.
        1 => unsafe { ((BASE.load(Ordering::Relaxed) + register as usize) as *mut u32).write_volatile(value) },
        _ => {}
    }
}

/// Returns the form in use, None before [`setup`].
pub fn mode() -> Option<Mode> {
    match MODE.load(Ordering::Relaxed) {
        1 => Some(Mode::XApic),
        2 => Some(Mode::X2Apic),
        _ => None,
    }
}

/// Decides the form. MSRs when the firmware has already chosen them, when some CPU's number needs
/// them, or below another hypervisor, where they cost less and need no interrupt remapping.
fn choose(has_x2apic: bool, already: bool, highest_id: u32, virtual_machine: bool) -> Mode {
    if has_x2apic && (already || highest_id >= 0xff || virtual_machine) { Mode::X2Apic } else { Mode::XApic }
}

/// Returns the machine address of the registers, as the CPU has it.
pub fn machine_base() -> u64 {
    msr::read(msr::APIC_BASE) & 0x000f_ffff_ffff_f000
}

/// Chooses the form for the whole machine. `mmio` is where the registers' page is mapped uncached;
/// `highest_id` the highest APIC number that the firmware lists.
///
/// # Safety
/// `mmio` must stay mapped to the local APIC's registers, unless it is null.
pub unsafe fn setup(mmio: *mut u8, highest_id: u32) -> Result<Mode, ApicError> {
    let [_, _, c, d] = cpuid(1, 0);
    if d & 1 << 9 == 0 {
        return Err(ApicError::Absent);
    }
    let already = msr::read(msr::APIC_BASE) & BASE_X2APIC != 0;
    let mode = choose(c & 1 << 21 != 0, already, highest_id, c & 1 << 31 != 0);
    if mode == Mode::XApic && mmio.is_null() {
        return Err(ApicError::Unmapped);
    }
    BASE.store(mmio as usize, Ordering::Relaxed);
    MODE.store(if mode == Mode::X2Apic { 2 } else { 1 }, Ordering::Release);
    Ok(mode)
}

/// Turns this CPU's local APIC on, with every local source but its timer masked and all interrupts
/// admitted.
pub fn init_cpu() {
    let base = msr::read(msr::APIC_BASE) | BASE_ENABLE;
    let x2apic = if mode() == Some(Mode::X2Apic) { BASE_X2APIC } else { 0 };
    // From "off" to MSRs leads only through "on".
    msr::write(msr::APIC_BASE, base);
    msr::write(msr::APIC_BASE, base | x2apic);
    let entries = last_entry();
    let masked = MASKED | u32::from(VECTOR_SPURIOUS);
    let thermal = firmware_thermal().unwrap_or(masked);
    write(LVT_TIMER, MASKED | u32::from(VECTOR_TIMER));
    write(LVT_LINT0, masked);
    write(LVT_LINT1, masked);
    for (least, register, value) in [(4, LVT_COUNTERS, masked), (5, LVT_THERMAL, thermal), (6, LVT_CMCI, masked)] {
        if entries >= least {
            write(register, value);
        }
    }
    write(LVT_ERROR, VECTOR_APIC_ERROR.into());
    write(SPURIOUS, 1 << 8 | u32::from(VECTOR_SPURIOUS));
    write(TASK_PRIORITY, 0);
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    write(TIMER_INITIAL, 0);
    drain();
    take_errors();
    timer::init_cpu();
}

/// Lets the machine's NMIs through to this CPU: they come by the second local line.
pub fn admit_nmi() {
    write(LVT_LINT1, DELIVERY_NMI);
}

/// Ends the interrupts that the firmware has left in service.
fn drain() {
    for _ in 0..256 {
        if (0..8).all(|word| read(ISR + word * 0x10) == 0) {
            return;
        }
        end_of_interrupt();
    }
}

/// Returns the number of this CPU's local APIC.
pub fn id() -> u32 {
    match mode() {
        Some(Mode::X2Apic) => read(ID),
        Some(Mode::XApic) => read(ID) >> 24,
        None => cpuid(1, 0)[1] >> 24,
    }
}

/// Ends the interrupt in service.
#[inline]
pub fn end_of_interrupt() {
    write(EOI, 0);
}

/// Returns and clears the errors since the last call, as the bits of the error status register.
pub fn take_errors() -> u32 {
    write(ERROR_STATUS, 0);
    read(ERROR_STATUS)
}

/// True when the vector's interrupt is in service: tells a real interrupt from a spurious one.
pub fn in_service(vector: u8) -> bool {
    read(ISR + u32::from(vector >> 5) * 0x10) >> (vector & 31) & 1 != 0
}

/// True when the vector's interrupt has come to this CPU and was not taken yet.
pub fn is_requested(vector: u8) -> bool {
    read(IRR + u32::from(vector >> 5) * 0x10) >> (vector & 31) & 1 != 0
}

/// True when lines and messages can be sent to a CPU: they name it by 8 bits.
pub fn can_target(cpu: CpuId) -> bool {
    crate::cpu::apic_id(cpu) < 0x100
}

/// Sends an interrupt command.
#[inline]
fn command(destination: u32, low: u32) {
    if mode() == Some(Mode::X2Apic) {
        // Writes to this MSR are not ordered behind earlier stores, which the receiver must see.
        // SAFETY: fences touch nothing.
        unsafe {
            core::arch::x86_64::_mm_mfence();
            core::arch::x86_64::_mm_lfence();
        }
        msr::write(0x830, u64::from(destination) << 32 | u64::from(low));
        return;
    }
    wait_sent();
    write(ICR_HIGH, destination << 24);
    write(ICR_LOW, low);
}

/// Returns the number of the last entry of the local vector table.
fn last_entry() -> u32 {
    read(VERSION) >> 16 & 0xff
}

/// The thermal entry of a firmware that gets thermal interrupts. The boot CPU's is noted: the entries of the other CPUs, which
/// the firmware has not set, are to be like that one.
fn firmware_thermal() -> Option<u32> {
    let is_first = crate::cpu::this_cpu() == CpuId(0);
    let left = if last_entry() >= 5 { read(LVT_THERMAL) } else { 0 };
    if is_first && left & DELIVERY == DELIVERY_SMI {
        FIRMWARE_THERMAL.store(left, Ordering::Relaxed);
    }
    Some(FIRMWARE_THERMAL.load(Ordering::Relaxed)).filter(|kept| *kept != 0)
}

/// Lets this CPU's thermal interrupts through: false when the firmware gets them, `None` when there are none.
pub fn admit_thermal(vector: u8) -> Option<bool> {
    if last_entry() < 5 {
        return None;
    }
    let ours = FIRMWARE_THERMAL.load(Ordering::Relaxed) == 0;
    if ours {
        write(LVT_THERMAL, vector.into());
    }
    Some(ours)
}

/// Waits until the last message has left, but not for ever.
fn wait_sent() {
    for _ in 0..1_000_000 {
        if read(ICR_LOW) & ICR_PENDING == 0 {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Sends an interrupt to one CPU, named by its APIC number.
#[inline]
pub fn send_ipi(apic_id: u32, vector: u8) {
    command(apic_id, ICR_ASSERT | u32::from(vector));
}

/// Sends an interrupt to this CPU. An NMI may do so in the middle of another command: the word that names another command's
/// destination stays.
pub fn send_to_self(vector: u8) {
    if mode() == Some(Mode::X2Apic) {
        msr::write(0x83f, vector.into());
        return;
    }
    wait_sent();
    write(ICR_LOW, ICR_SELF | ICR_ASSERT | u32::from(vector));
}

/// Sends an interrupt to every CPU but this one, also to those not in use.
pub fn send_all_but_self(vector: u8) {
    command(0, ICR_ALL_BUT_SELF | ICR_ASSERT | u32::from(vector));
}

/// Sends a non-maskable interrupt to one CPU.
pub fn send_nmi(apic_id: u32) {
    command(apic_id, ICR_ASSERT | DELIVERY_NMI);
}

/// Sends a non-maskable interrupt to every CPU but this one.
pub fn send_nmi_all_but_self() {
    command(0, ICR_ALL_BUT_SELF | ICR_ASSERT | DELIVERY_NMI);
}

/// Resets a CPU; it then waits for [`send_startup`].
pub fn send_init(apic_id: u32) {
    command(apic_id, ICR_ASSERT | DELIVERY_INIT);
    if mode() == Some(Mode::XApic) {
        wait_sent();
    }
}

/// Starts a CPU that waits, in real mode at a page below 1 MiB.
pub fn send_startup(apic_id: u32, page: u8) {
    command(apic_id, ICR_ASSERT | DELIVERY_STARTUP | u32::from(page));
    if mode() == Some(Mode::XApic) {
        wait_sent();
    }
}

/// True when the timer can compare with the TSC itself.
pub fn has_tsc_deadline() -> bool {
    cpuid(1, 0)[2] & 1 << 24 != 0
}

/// Readies this CPU's timer, stopped: to count down once, or to wait for a TSC value.
pub fn timer_mode(tsc_deadline: bool) {
    let mode = if tsc_deadline { TIMER_DEADLINE } else { 0 };
    write(LVT_TIMER, mode | u32::from(VECTOR_TIMER));
    if tsc_deadline {
        // The write above must arrive before the first write of the MSR.
        // SAFETY: a fence touches nothing.
        unsafe { core::arch::x86_64::_mm_mfence() }
        timer_deadline(0);
    } else {
        timer_set(0);
    }
}

/// Lets the timer fire once in so many ticks; 0 stops it.
#[inline]
pub fn timer_set(ticks: u32) {
    write(TIMER_INITIAL, ticks);
}

/// Lets the timer fire when the TSC has reached the value; 0 stops it.
#[inline]
pub fn timer_deadline(tsc: u64) {
    // Only after `timer_mode(true)`, whose caller has asked `has_tsc_deadline`.
    msr::write(IA32_TSC_DEADLINE, tsc);
}

/// Starts the timer from its highest count, silent, to be read by [`timer_count`].
pub fn timer_start_silent() {
    write(LVT_TIMER, MASKED | u32::from(VECTOR_TIMER));
    write(TIMER_DIVIDE, DIVIDE_BY_1);
    write(TIMER_INITIAL, u32::MAX);
}

/// Returns how many ticks are left.
#[inline]
pub fn timer_count() -> u32 {
    read(TIMER_CURRENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form() {
        assert_eq!(choose(true, false, 7, false), Mode::XApic);
        assert_eq!(choose(true, true, 7, false), Mode::X2Apic);
        assert_eq!(choose(true, false, 255, false), Mode::X2Apic);
        assert_eq!(choose(true, false, 7, true), Mode::X2Apic);
        assert_eq!(choose(false, false, 7, true), Mode::XApic);
    }
}
