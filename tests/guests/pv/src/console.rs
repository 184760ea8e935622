// SPDX-License-Identifier: MIT OR Apache-2.0
//! Output through `console_io(write)`, a line at a time.

use crate::abi::nr;
use crate::hypercall::hypercall3;
use core::fmt::{self, Write};

const LINE: usize = 240;

/// A line being put together on the stack; written when dropped.
struct Line {
    text: [u8; LINE],
    len: usize,
}

impl Line {
    fn flush(&mut self) {
        let text = &self.text[..self.len];
        // CONSOLEIO_write is command 0; a failure has nowhere to be told.
        let _ = hypercall3(nr::CONSOLE_IO, 0, text.len() as u64, text.as_ptr() as u64);
        self.len = 0;
    }
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for &byte in s.as_bytes() {
            if self.len == LINE {
                self.flush();
            }
            self.text[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// Writes formatted text to the hypervisor's console.
pub fn print(args: fmt::Arguments<'_>) {
    let mut line = Line { text: [0; LINE], len: 0 };
    let _ = line.write_fmt(args);
    line.flush();
}

/// Writes a line to the hypervisor's console.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => {
        $crate::console::print(format_args!("{}\n", format_args!($($arg)*)))
    };
}
