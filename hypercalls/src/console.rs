// SPDX-License-Identifier: MIT OR Apache-2.0
//! `console_io` and the ring of a guest's own console.

use crate::layout::{codes, record};

codes! {
    /// A sub-operation of `console_io`.
    pub struct ConsoleIo(u32) {
        WRITE(CONSOLEIO_write) = 0,
        READ(CONSOLEIO_read) = 1,
    }
}

record! {
    /// The page a guest's console and its back end share.
    pub struct ConsoleRing = "struct xencons_interface", 3088 {
        0 input: [u8; 1024] = "in",
        1024 output: [u8; 2048] = "out",
        3072 in_cons: u32,
        3076 in_prod: u32,
        3080 out_cons: u32,
        3084 out_prod: u32,
    }
}
