// SPDX-License-Identifier: MIT OR Apache-2.0
//! The prefixes of an instruction.
//!
//! A REX prefix counts only directly before the opcode. In 64-bit code the ES, CS, SS and DS overrides mean nothing.

use super::cursor::Cursor;
use super::{CodeSize, Segment, Width};

/// The repeat prefix that is in force: the last one given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rep {
    /// F2.
    Repne,
    /// F3.
    Rep,
}

/// What the prefixes say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prefixes {
    /// The REX byte, 0 when there is none.
    pub(super) rex: u8,
    pub(super) lock: bool,
    pub(super) rep: Option<Rep>,
    pub(super) operand: bool,
    pub(super) address: bool,
    pub(super) segment: Option<Segment>,
}

impl Prefixes {
    /// Takes all prefixes and the first byte of the opcode, which it returns.
    #[inline]
    pub(super) fn parse(cursor: &mut Cursor<'_>, code: CodeSize) -> (Self, u8) {
        let long = code == CodeSize::Bits64;
        let mut found = Self::default();
        loop {
            let byte = cursor.byte();
            match byte {
                0x40..=0x4f if long => {
                    found.rex = byte;
                    continue;
                }
                0x66 => found.operand = true,
                0x67 => found.address = true,
                0xf0 => found.lock = true,
                0xf2 => found.rep = Some(Rep::Repne),
                0xf3 => found.rep = Some(Rep::Rep),
                0x64 => found.segment = Some(Segment::Fs),
                0x65 => found.segment = Some(Segment::Gs),
                0x26 | 0x2e | 0x36 | 0x3e => found.plain_segment(byte, long),
                opcode => return (found, opcode),
            }
            found.rex = 0;
        }
    }

    fn plain_segment(&mut self, byte: u8, long: bool) {
        if !long {
            self.segment = Some(match byte {
                0x26 => Segment::Es,
                0x2e => Segment::Cs,
                0x36 => Segment::Ss,
                _ => Segment::Ds,
            });
        }
    }

    /// REX.W.
    pub(super) const fn w(&self) -> bool {
        self.rex & 8 != 0
    }
    /// REX.R as bit 3 of a register number.
    pub(super) const fn r(&self) -> u8 {
        (self.rex & 4) << 1
    }
    /// REX.X as bit 3 of a register number.
    pub(super) const fn x(&self) -> u8 {
        (self.rex & 2) << 2
    }
    /// REX.B as bit 3 of a register number.
    pub(super) const fn b(&self) -> u8 {
        (self.rex & 1) << 3
    }

    /// Width of operands that are not bytes.
    pub(super) const fn width(&self, code: CodeSize) -> Width {
        match (code, self.w(), self.operand) {
            (CodeSize::Bits64, true, _) => Width::Qword,
            (CodeSize::Bits16, _, false) | (CodeSize::Bits32 | CodeSize::Bits64, _, true) => Width::Word,
            _ => Width::Dword,
        }
    }

    /// Width of addresses, and of the counter of a repeated instruction.
    pub(super) const fn address_width(&self, code: CodeSize) -> Width {
        match (code, self.address) {
            (CodeSize::Bits64, false) => Width::Qword,
            (CodeSize::Bits64, true) | (CodeSize::Bits32, false) | (CodeSize::Bits16, true) => Width::Dword,
            (CodeSize::Bits32, true) | (CodeSize::Bits16, false) => Width::Word,
        }
    }
}
