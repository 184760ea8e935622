// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port I/O on behalf of a guest that has the right to the port.
//!
//! Devices that a guest may drive can write to any memory by DMA: that is what the right to their ports means. The ports of the
//! hypervisor's own devices are in no guest's set.
#![expect(unsafe_code, reason = "port I/O in a guest's name")]

use crate::platform::port;

macro_rules! accessors {
    ($($read:ident, $write:ident, $inner_read:ident, $inner_write:ident: $word:ty;)*) => {$(
        #[doc = concat!("Reads a `", stringify!($word), "` from a port that the guest has the right to.")]
        pub fn $read(at: u16) -> $word {
            // SAFETY: the port is the guest's to use; see the module's description.
            unsafe { port::$inner_read(at) }
        }
        #[doc = concat!("Writes a `", stringify!($word), "` to a port that the guest has the right to.")]
        pub fn $write(at: u16, value: $word) {
            // SAFETY: as above.
            unsafe { port::$inner_write(at, value) }
        }
    )*};
}

accessors! {
    guest_read8, guest_write8, read8, write8: u8;
    guest_read16, guest_write16, read16, write16: u16;
    guest_read32, guest_write32, read32, write32: u32;
}
