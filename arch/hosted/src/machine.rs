// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's end: the stack is unwound with a [`MachineEnd`], which a test may catch. It is no panic.

use arch_types::SleepValues;
use std::boxed::Box;
use std::panic::resume_unwind;

/// How the machine came to its end: what [`std::panic::catch_unwind`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineEnd {
    /// It was restarted.
    Reset,
    /// It was switched off.
    PowerOff,
    /// It stands still.
    Halt,
}

/// Restarts the machine.
pub fn reset() -> ! {
    resume_unwind(Box::new(MachineEnd::Reset))
}

/// Switches the machine off.
pub fn power_off() -> ! {
    resume_unwind(Box::new(MachineEnd::PowerOff))
}

/// True when the machine has the registers for values of this kind: it is not of the hardware-reduced sort.
pub fn has_sleep_registers(values: &SleepValues) -> bool {
    matches!(values, SleepValues::Pm1(..))
}

/// Switches the machine off.
pub fn power_off_by(_values: &SleepValues) -> ! {
    power_off()
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    resume_unwind(Box::new(MachineEnd::Halt))
}

/// Stops every other CPU.
pub fn stop_others() {}

/// Stops every other CPU, whatever it is doing.
pub fn stop_others_now() {}
