// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two legacy 8259 interrupt controllers: moved out of the exceptions' way and silenced for good.
#![expect(unsafe_code, reason = "port I/O")]

use super::{VECTOR_PIC, port};

const COMMAND: [u16; 2] = [0x20, 0xa0];
const DATA: [u16; 2] = [0x21, 0xa1];

/// Moves both controllers to [`VECTOR_PIC`] and masks every line.
pub fn disable() {
    // ICW1: edge triggered, cascaded, ICW4 follows. ICW3: the second hangs on line 2 of the first.
    // ICW4: 8086 mode. Last the masks.
    for (chip, cascade) in [(0, 4), (1, 2)] {
        let vector = VECTOR_PIC + chip as u8 * 8;
        // SAFETY: these ports are the 8259s', or nobody's on a machine without them; a masked
        // controller interrupts nobody.
        unsafe {
            port::write8(DATA[chip], 0xff);
            port::write8(COMMAND[chip], 0x11);
            settle();
            port::write8(DATA[chip], vector);
            settle();
            port::write8(DATA[chip], cascade);
            settle();
            port::write8(DATA[chip], 1);
            settle();
            port::write8(DATA[chip], 0xff);
        }
    }
}

/// Gives an old controller the microsecond it needs between two words.
fn settle() {
    // SAFETY: port 0x80 shows boot progress codes and does nothing else.
    unsafe { port::write8(0x80, 0) }
}
