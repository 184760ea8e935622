// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt lines and the vectors on which they arrive.

/// First vector of interrupt lines and messages.
pub const VECTOR_IRQ_FIRST: u8 = 0x30;
/// Last vector of interrupt lines and messages.
pub const VECTOR_IRQ_LAST: u8 = 0xef;
/// The one vector between them that is no interrupt's: programs of 32 bits call their kernel by it.
pub const VECTOR_INT80: u8 = 0x80;

/// How a line shows an interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineMode {
    /// Level triggered; edge triggered otherwise.
    pub level: bool,
    /// Active low; active high otherwise.
    pub active_low: bool,
}

/// There is no such global interrupt, or the CPU cannot be named in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchLine;
