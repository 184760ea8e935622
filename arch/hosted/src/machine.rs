// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's end: a panic that says which, so that a test can expect it.

/// Restarts the machine.
pub fn reset() -> ! {
    panic!("machine reset")
}

/// Switches the machine off.
pub fn power_off() -> ! {
    panic!("machine power off")
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    panic!("machine halted")
}

/// Stops every other CPU.
pub fn stop_others() {}
