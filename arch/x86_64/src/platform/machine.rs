// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ends of the machine: reset, power off, halt.
//!
//! None of these returns, and each tries the next way when one has no effect.
#![expect(unsafe_code, reason = "port I/O and a deliberate triple fault")]

use arch_types::SleepValues;
use spin::Once;
use x86_64::instructions::{hlt, interrupts};

use super::acpi::{Platform, Power, Register};
pub use super::smp::{stop_others, stop_others_now};
use super::{clock, ioapic, port};

static POWER: Once<Power> = Once::new();

const MS: u64 = 1_000_000;
const SLEEP_TYPE: u16 = 7 << 10;
const SLEEP_ENABLE: u16 = 1 << 13;
const SCI_ENABLE: u16 = 1;

/// Notes how the machine is switched; the first call counts.
pub fn setup(platform: &Platform) {
    POWER.call_once(|| platform.power);
}

fn power() -> Power {
    POWER.get().copied().unwrap_or_default()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

fn write_register(register: Register, value: u8) {
    // SAFETY: the firmware's tables name this register for this purpose, and nothing runs afterwards
    // that could rely on anything.
    unsafe {
        match register {
            Register::Io { port, bits: 16 } => port::write16(port, value.into()),
            Register::Io { port, bits: 32 } => port::write32(port, value.into()),
            Register::Io { port, .. } => port::write8(port, value),
            Register::Pci { address } => {
                port::write32(0xcf8, 1 << 31 | address & !3);
                port::write8(0xcfc + (address & 3) as u16, value);
            }
        }
    }
}

/// Asks the keyboard controller to pull the reset line.
fn keyboard_reset() {
    for _ in 0..10 {
        for _ in 0..10_000 {
            // SAFETY: the controller's status.
            if unsafe { port::read8(0x64) } & 2 == 0 {
                break;
            }
        }
        // SAFETY: the machine ends here.
        unsafe { port::write8(0x64, 0xfe) };
        clock::delay_ns(5 * MS);
    }
}

/// Asks the chipset's reset control register, first what it is for, then a full reset.
fn chipset_reset() {
    // SAFETY: the machine ends here.
    unsafe {
        let other = port::read8(0xcf9) & !6;
        port::write8(0xcf9, other | 2);
        clock::delay_ns(MS);
        port::write8(0xcf9, other | 6);
    }
    clock::delay_ns(50 * MS);
}

/// Faults without a table of handlers, which resets a CPU and by it the machine.
fn triple_fault() -> ! {
    let none = [0u16; 5];
    // SAFETY: the machine ends here; the breakpoint finds no handler.
    unsafe {
        core::arch::asm!("lidt [{}]", "int3", in(reg) &raw const none, options(nostack));
    }
    halt()
}

/// Restarts the machine.
pub fn reset() -> ! {
    interrupts::disable();
    ioapic::mask_all();
    if let Some((register, value)) = power().reset {
        write_register(register, value);
        clock::delay_ns(50 * MS);
    }
    keyboard_reset();
    chipset_reset();
    triple_fault()
}

/// Takes the power-management registers over from the firmware.
fn enable_acpi(power: &Power) {
    let (Some(control), Some((command, value))) = (power.pm1a_control, power.enable) else {
        return;
    };
    // SAFETY: the firmware's tables name these ports for this purpose.
    let enabled = || unsafe { port::read16(control) } & SCI_ENABLE != 0;
    if enabled() {
        return;
    }
    // SAFETY: as above.
    unsafe { port::write8(command, value) };
    for _ in 0..300 {
        if enabled() {
            return;
        }
        clock::delay_ns(MS);
    }
    log::warn!("the firmware does not hand over power management");
}

/// Writes the words to both sleep control registers, first without and then with the bit that acts.
fn enter_sleep(power: &Power, a: u16, b: u16) {
    let registers = [(power.pm1a_control, a), (power.pm1b_control, b)];
    for bit in [0, SLEEP_ENABLE] {
        for (port, value) in registers.iter().filter_map(|(p, v)| p.map(|p| (p, *v))) {
            // SAFETY: the firmware's tables name this register for this purpose.
            unsafe { port::write16(port, value & !SLEEP_ENABLE | bit) };
        }
    }
}

/// Returns what a sleep control register must hold for a sleep type.
fn sleep_word(current: u16, kind: u8) -> u16 {
    current & !(SLEEP_TYPE | SLEEP_ENABLE) | u16::from(kind & 7) << 10
}

/// Writes a sleep type to the register of hardware-reduced ACPI, if there is one.
fn reduced_off(power: &Power, kind: u8) {
    if let Some(control) = power.sleep_control {
        // SAFETY: the firmware's tables name this register for this purpose.
        unsafe { port::write8(control, (kind & 7) << 2 | 1 << 5) };
        clock::delay_ns(500 * MS);
    }
}

/// Switches the machine off by the firmware's tables, if it can be.
fn acpi_off() {
    let power = power();
    let Some((a, b)) = power.s5 else { return };
    reduced_off(&power, a);
    enable_acpi(&power);
    // SAFETY: as above.
    let current = |port: Option<u16>| port.map_or(0, |p| unsafe { port::read16(p) });
    let words = (sleep_word(current(power.pm1a_control), a), sleep_word(current(power.pm1b_control), b));
    enter_sleep(&power, words.0, words.1);
    clock::delay_ns(500 * MS);
}

/// True when the machine has the registers for values of this kind.
pub fn has_sleep_registers(values: &SleepValues) -> bool {
    match values {
        SleepValues::Pm1(..) => power().pm1a_control.is_some(),
        SleepValues::Reduced(_) => power().sleep_control.is_some(),
    }
}

/// Switches the machine off by the values that the firmware's tables have for it; when they have no effect, as
/// [`power_off`] does.
pub fn power_off_by(values: &SleepValues) -> ! {
    interrupts::disable();
    let power = power();
    match *values {
        SleepValues::Pm1(a, b) => {
            enter_sleep(&power, a, b);
            clock::delay_ns(500 * MS);
        }
        SleepValues::Reduced(kind) => reduced_off(&power, kind),
    }
    log::warn!("the values for switching off had no effect");
    power_off()
}

/// Switches the machine off.
pub fn power_off() -> ! {
    interrupts::disable();
    if power().acpi {
        acpi_off();
    } else {
        // Without tables: the ports at which emulated machines of old and new design listen.
        for (port, value) in [(0x604, 0x2000), (0xb004, 0x2000)] {
            // SAFETY: the machine ends here.
            unsafe { port::write16(port, value) };
        }
        clock::delay_ns(100 * MS);
    }
    log::error!("this machine does not switch itself off: halted, the power may be cut");
    halt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_words() {
        assert_eq!(sleep_word(0x0001, 5), 0x1401);
        assert_eq!(sleep_word(0xffff, 0), 0xc3ff);
    }
}
