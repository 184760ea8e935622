// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start of the machine.
#![expect(
    unsafe_code,
    reason = "the entry from assembly, and the first serial port"
)]

use core::fmt::{self, Write};

/// The first serial port by plain port writes.
struct Com1;

fn outb(port: u16, value: u8) {
    // SAFETY: only the ports of the first serial port are passed, whose device touches no memory.
    unsafe {
        core::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack))
    };
}

fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: as in `outb`.
    unsafe {
        core::arch::asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack))
    };
    value
}

impl Com1 {
    fn new() -> Self {
        for (reg, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
            outb(0x3f8 + reg, value);
        }
        Self
    }

    fn put(byte: u8) {
        while inb(0x3fd) & 0x20 == 0 {}
        outb(0x3f8, byte);
    }
}

impl Write for Com1 {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            if byte == b'\n' {
                Self::put(b'\r');
            }
            Self::put(byte);
        }
        Ok(())
    }
}

fn halt() -> ! {
    loop {
        // SAFETY: interrupts are off: this waits for ever, which is the intention.
        unsafe { core::arch::asm!("cli; hlt", options(nomem, nostack)) };
    }
}

/// Where the boot entry ends. See `boot::entry` for the state of the machine.
#[unsafe(no_mangle)]
extern "C" fn xenith_start(magic: u32, info_maddr: u32) -> ! {
    let mut out = Com1::new();
    let _ = writeln!(
        out,
        "Xenith {} magic {magic:#x} info {info_maddr:#x} cr3 {:#x}",
        env!("CARGO_PKG_VERSION"),
        boot::boot_cr3()
    );
    halt()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Com1, "{info}");
    halt()
}
