// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the firmware left behind and the hardware domain may ask for.

use core::sync::atomic::AtomicU8;

/// Which of the keyboard's locks and shift keys were on, as a BIOS has them in its data area; nothing on UEFI.
pub static KEYBOARD_FLAGS: AtomicU8 = AtomicU8::new(0);
