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
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let bytes = bytes.get(..MAX_INSN).unwrap_or(bytes);
        Self { bytes, pos: 0 }
    }

    /// Number of bytes used so far.
    pub(super) fn len(&self) -> u8 {
        self.pos as u8
    }

    /// Looks at the next byte without using it.
    pub(super) fn peek(&self) -> Result<u8, Reject> {
        self.bytes.get(self.pos).copied().ok_or(self.ended())
    }

    /// Takes the next byte.
    pub(super) fn byte(&mut self) -> Result<u8, Reject> {
        let byte = self.peek()?;
        self.pos += 1;
        Ok(byte)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Reject> {
        let rest = self.bytes.get(self.pos..).unwrap_or_default();
        let taken = rest.first_chunk::<N>().ok_or(self.ended())?;
        self.pos += N;
        Ok(*taken)
    }

    /// Takes a signed byte.
    pub(super) fn i8(&mut self) -> Result<i64, Reject> {
        Ok(i64::from(self.byte()? as i8))
    }

    /// Takes a signed 16-bit number.
    pub(super) fn i16(&mut self) -> Result<i64, Reject> {
        Ok(i64::from(i16::from_le_bytes(self.take()?)))
    }

    /// Takes a signed 32-bit number.
    pub(super) fn i32(&mut self) -> Result<i64, Reject> {
        Ok(i64::from(i32::from_le_bytes(self.take()?)))
    }

    /// Takes an unsigned 64-bit number.
    pub(super) fn u64(&mut self) -> Result<u64, Reject> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn ended(&self) -> Reject {
        if self.bytes.len() == MAX_INSN {
            Reject::TooLong
        } else {
            Reject::Truncated
        }
    }
}
