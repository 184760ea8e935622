// SPDX-License-Identifier: MIT OR Apache-2.0
//! Integer arithmetic with flags. Operands and results have no bits set beyond their width.

use crate::emulate::Width;

pub(super) const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
/// The flags that arithmetic sets or clears.
pub(super) const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;

/// Arithmetic of two operands that writes the first, in the order of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the instructions they are named after")]
pub enum Alu {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
}

/// Arithmetic of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the instructions they are named after")]
pub enum Unary {
    Inc,
    Dec,
    Not,
    Neg,
}

/// A bit test that changes the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the instructions they are named after")]
pub enum BitOp {
    Bts,
    Btr,
    Btc,
}

impl Alu {
    /// The instruction with this number; 7 would be CMP, which writes nothing.
    pub(super) const fn new(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Add,
            1 => Self::Or,
            2 => Self::Adc,
            3 => Self::Sbb,
            4 => Self::And,
            5 => Self::Sub,
            6 => Self::Xor,
            _ => return None,
        })
    }

    /// Returns the result and the arithmetic flags.
    pub(super) fn compute(self, width: Width, a: u64, b: u64, carry: bool) -> (u64, u64) {
        let carry = u64::from(carry);
        match self {
            Self::Add => add(width, a, b, 0),
            Self::Adc => add(width, a, b, carry),
            Self::Sub => sub(width, a, b, 0),
            Self::Sbb => sub(width, a, b, carry),
            Self::Or => logic(width, a | b),
            Self::And => logic(width, a & b),
            Self::Xor => logic(width, a ^ b),
        }
    }
}

impl Unary {
    /// Returns the result, the flags and which flags change.
    pub(super) fn compute(self, width: Width, a: u64) -> (u64, u64, u64) {
        match self {
            Self::Not => (!a & width.mask(), 0, 0),
            Self::Neg => {
                let (result, flags) = sub(width, 0, a, 0);
                (result, flags, ARITHMETIC)
            }
            Self::Inc => {
                let (result, flags) = add(width, a, 1, 0);
                (result, flags & !CF, ARITHMETIC & !CF)
            }
            Self::Dec => {
                let (result, flags) = sub(width, a, 1, 0);
                (result, flags & !CF, ARITHMETIC & !CF)
            }
        }
    }
}

impl BitOp {
    /// Returns the result and the carry flag; the other flags do not change.
    pub(super) const fn compute(self, a: u64, bit: u8) -> (u64, u64) {
        let mask = 1 << (bit & 63);
        let result = match self {
            Self::Bts => a | mask,
            Self::Btr => a & !mask,
            Self::Btc => a ^ mask,
        };
        (result, if a & mask != 0 { CF } else { 0 })
    }
}

fn add(width: Width, a: u64, b: u64, carry: u64) -> (u64, u64) {
    let r = a.wrapping_add(b).wrapping_add(carry) & width.mask();
    let carries = (a & b) | ((a | b) & !r);
    let overflow = (a ^ r) & (b ^ r);
    (r, of_result(width, r) | of_carries(width, carries, overflow, a ^ b ^ r))
}

fn sub(width: Width, a: u64, b: u64, borrow: u64) -> (u64, u64) {
    let r = a.wrapping_sub(b).wrapping_sub(borrow) & width.mask();
    let borrows = (!a & b) | ((!a | b) & r);
    let overflow = (a ^ b) & (a ^ r);
    (r, of_result(width, r) | of_carries(width, borrows, overflow, a ^ b ^ r))
}

fn logic(width: Width, r: u64) -> (u64, u64) {
    (r, of_result(width, r))
}

fn of_result(width: Width, r: u64) -> u64 {
    let parity = if (r as u8).count_ones().is_multiple_of(2) { PF } else { 0 };
    let zero = if r == 0 { ZF } else { 0 };
    let sign = if r & width.sign() != 0 { SF } else { 0 };
    parity | zero | sign
}

fn of_carries(width: Width, carries: u64, overflow: u64, half: u64) -> u64 {
    let carry = if carries & width.sign() != 0 { CF } else { 0 };
    let overflow = if overflow & width.sign() != 0 { OF } else { 0 };
    carry | overflow | (half & AF)
}
