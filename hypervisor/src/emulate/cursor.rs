// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading an instruction byte by byte, never past 15 bytes and never past what was fetched.

use super::MAX_INSN;

/// Why an instruction is not emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// More bytes are needed than could be fetched: the next byte of the instruction faults.
    Truncated,
    /// The instruction is longer than 15 bytes.
    TooLong,
    /// The processor would refuse this encoding.
    Invalid,
    /// Not an instruction that is emulated here.
    Unlisted,
    /// The operand is not naturally aligned.
    Misaligned,
}

/// The bytes of one instruction and how many of them are used up.
///
/// Behind the end there are zeros, which are neither prefixes nor long; what was decoded counts only if
/// [`Cursor::len`] says that the end was not passed.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let bytes = bytes.get(..MAX_INSN).unwrap_or(bytes);
        Self { bytes, pos: 0 }
    }

    /// Number of bytes used so far; the reason when there were not as many.
    #[inline]
    pub(super) fn len(&self) -> Result<u8, Reject> {
        if self.pos <= self.bytes.len() {
            Ok(self.pos as u8)
        } else if self.bytes.len() == MAX_INSN {
            Err(Reject::TooLong)
        } else {
            Err(Reject::Truncated)
        }
    }

    /// Takes the next byte.
    #[inline]
    pub(super) fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.pos).copied().unwrap_or(0);
        self.pos += 1;
        byte
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let rest = self.bytes.get(self.pos..).unwrap_or_default();
        self.pos += N;
        rest.first_chunk().copied().unwrap_or([0; N])
    }

    /// Takes a signed byte.
    #[inline]
    pub(super) fn i8(&mut self) -> i64 {
        i64::from(self.byte() as i8)
    }

    /// Takes a signed 16-bit number.
    pub(super) fn i16(&mut self) -> i64 {
        i64::from(i16::from_le_bytes(self.take()))
    }

    /// Takes a signed 32-bit number.
    #[inline]
    pub(super) fn i32(&mut self) -> i64 {
        i64::from(i32::from_le_bytes(self.take()))
    }

    /// Takes an unsigned 64-bit number.
    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
