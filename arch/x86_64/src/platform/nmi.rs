// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chipset's register of reasons for NMIs: port 0x61. The boot CPU alone is sent them.
#![expect(unsafe_code, reason = "the chipset's port")]

use super::port;

const PORT: u16 = 0x61;
/// What is written: the speaker's two bits, and the two that hold a reason back.
const WRITABLE: u8 = 0xf;

/// A device has seen an error on the bus.
pub const SERR: u8 = 1 << 7;
/// An expansion card has.
pub const IOCHK: u8 = 1 << 6;

/// Returns the reasons.
pub fn reasons() -> u8 {
    // SAFETY: reading has no effect.
    unsafe { port::read8(PORT) }
}

/// Takes the reasons back and lets them come again.
pub fn acknowledge(reasons: u8) {
    // Bit 7 is held back by bit 2, bit 6 by bit 3.
    let held = if reasons & SERR != 0 { 1 << 2 } else { 0 } | if reasons & IOCHK != 0 { 1 << 3 } else { 0 };
    // SAFETY: holds reasons back and lets them through again; the speaker stays as it is.
    unsafe {
        let before = port::read8(PORT) & WRITABLE;
        port::write8(PORT, before | held);
        port::write8(PORT, before & !held);
    }
}
