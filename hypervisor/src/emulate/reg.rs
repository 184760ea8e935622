// SPDX-License-Identifier: MIT OR Apache-2.0
//! General registers and operand widths.
//!
//! A register write follows the processor's rule for its width: 8 and 16 bits leave the rest of the register alone,
//! 32 bits clear the upper half.

use arch::Regs;
use core::mem::offset_of;

/// The width of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Width {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Word = 2,
    /// 32 bits.
    Dword = 4,
    /// 64 bits.
    Qword = 8,
}

impl Width {
    /// Number of bytes.
    pub const fn bytes(self) -> u32 {
        self as u32
    }
    /// Number of bits.
    pub const fn bits(self) -> u32 {
        self as u32 * 8
    }
    /// A number with as many low bits set as the operand has.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }
    /// The operand's highest bit.
    pub const fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }
}

/// A general register, in the order of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the variants are the registers they are named after")]
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

/// Number of 64-bit words in [`Regs`].
const WORDS: usize = size_of::<Regs>() / 8;

/// Where each register lies in [`Regs`], in words.
const SLOT: [u8; 16] = {
    let at = [
        offset_of!(Regs, rax),
        offset_of!(Regs, rcx),
        offset_of!(Regs, rdx),
        offset_of!(Regs, rbx),
        offset_of!(Regs, rsp),
        offset_of!(Regs, rbp),
        offset_of!(Regs, rsi),
        offset_of!(Regs, rdi),
        offset_of!(Regs, r8),
        offset_of!(Regs, r9),
        offset_of!(Regs, r10),
        offset_of!(Regs, r11),
        offset_of!(Regs, r12),
        offset_of!(Regs, r13),
        offset_of!(Regs, r14),
        offset_of!(Regs, r15),
    ];
    let mut slot = [0; 16];
    let mut i = 0;
    while i < 16 {
        slot[i] = (at[i] / 8) as u8;
        i += 1;
    }
    slot
};

impl Gpr {
    /// All of them, in the order of their encoding.
    pub const ALL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// Returns the register with this encoding (its low four bits count).
    pub const fn new(code: u8) -> Self {
        Self::ALL[(code & 15) as usize]
    }

    /// Reads the whole register.
    #[inline]
    pub fn get(self, regs: &Regs) -> u64 {
        let words: &[u64; WORDS] = zerocopy::transmute_ref!(regs);
        words[usize::from(SLOT[self as usize & 15])]
    }

    /// Writes the whole register.
    #[inline]
    pub fn set(self, regs: &mut Regs, value: u64) {
        let words: &mut [u64; WORDS] = zerocopy::transmute_mut!(regs);
        words[usize::from(SLOT[self as usize & 15])] = value;
    }

    /// Writes the register as an instruction with operands of this width does.
    pub fn set_width(self, regs: &mut Regs, width: Width, value: u64) {
        let mask = width.mask();
        let kept = match width {
            Width::Dword | Width::Qword => 0,
            Width::Byte | Width::Word => self.get(regs) & !mask,
        };
        self.set(regs, kept | (value & mask));
    }
}

/// A register as an operand: a whole register's low part, or one of AH, CH, DH, BH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The low bytes of a register.
    Low(Gpr),
    /// Bits 8 to 15 of one of the first four.
    High(Gpr),
}

impl Operand {
    /// The operand that this encoding names for this width; `rex` tells whether there is a REX prefix.
    pub(super) const fn new(code: u8, width: Width, rex: bool) -> Self {
        match (width, rex, code) {
            (Width::Byte, false, 4..=7) => Self::High(Gpr::new(code & 3)),
            _ => Self::Low(Gpr::new(code)),
        }
    }

    pub(super) fn get(self, regs: &Regs, width: Width) -> u64 {
        match self {
            Self::Low(gpr) => gpr.get(regs) & width.mask(),
            Self::High(gpr) => (gpr.get(regs) >> 8) & 0xff,
        }
    }

    pub(super) fn set(self, regs: &mut Regs, width: Width, value: u64) {
        match self {
            Self::Low(gpr) => gpr.set_width(regs, width, value),
            Self::High(gpr) => {
                let kept = gpr.get(regs) & !0xff00;
                gpr.set(regs, kept | (value & 0xff) << 8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_is_the_field_of_its_name() {
        let mut regs = Regs::default();
        for (n, gpr) in Gpr::ALL.into_iter().enumerate() {
            gpr.set(&mut regs, n as u64 + 1);
            assert_eq!(gpr as usize, n);
        }
        let named = [
            regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8, regs.r9, regs.r10,
            regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ];
        for (n, value) in named.into_iter().enumerate() {
            assert_eq!(value, n as u64 + 1);
        }
    }

    #[test]
    fn writes_follow_the_width() {
        let mut regs = Regs { rbx: u64::MAX, ..Regs::default() };
        Operand::new(7, Width::Byte, false).set(&mut regs, Width::Byte, 0x12);
        assert_eq!(regs.rbx, 0xffff_ffff_ffff_12ff);
        assert_eq!(Operand::new(7, Width::Byte, false).get(&regs, Width::Byte), 0x12);
        Operand::new(3, Width::Byte, true).set(&mut regs, Width::Byte, 0x34);
        assert_eq!(regs.rbx, 0xffff_ffff_ffff_1234);
        Operand::new(3, Width::Word, false).set(&mut regs, Width::Word, 0);
        assert_eq!(regs.rbx, 0xffff_ffff_ffff_0000);
        Operand::new(3, Width::Dword, false).set(&mut regs, Width::Dword, 5);
        assert_eq!(regs.rbx, 5);
        assert_eq!(Operand::new(7, Width::Byte, true), Operand::Low(Gpr::Rdi));
    }
}
