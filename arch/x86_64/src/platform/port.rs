// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port I/O.
#![expect(unsafe_code, reason = "port I/O reaches devices, and devices reach memory")]

use x86_64::instructions::port::Port;

macro_rules! accessors {
    ($($read:ident, $write:ident: $word:ty;)*) => {$(
        #[doc = concat!("Reads a `", stringify!($word), "` from a port.")]
        ///
        /// # Safety
        /// Reading the port must not change what Rust code relies on.
        #[inline]
        pub unsafe fn $read(port: u16) -> $word {
            // SAFETY: the caller's promise.
            unsafe { Port::new(port).read() }
        }

        #[doc = concat!("Writes a `", stringify!($word), "` to a port.")]
        ///
        /// # Safety
        /// What the device does with it must not change what Rust code relies on.
        #[inline]
        pub unsafe fn $write(port: u16, value: $word) {
            // SAFETY: the caller's promise.
            unsafe { Port::new(port).write(value) }
        }
    )*};
}

accessors! {
    read8, write8: u8;
    read16, write16: u16;
    read32, write32: u32;
}
