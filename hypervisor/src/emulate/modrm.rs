// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory operands of 64-bit code: ModRM, SIB, displacement and the address they make.

use super::cursor::{Cursor, Reject};
use super::prefix::Prefixes;
use super::{Gpr, Segment};
use arch::Regs;

#[derive(Clone, Copy, Debug)]
enum Base {
    None,
    Gpr(Gpr),
    NextInsn,
}

/// A memory operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    base: Base,
    index: Option<(Gpr, u8)>,
    displacement: i64,
}

impl Memory {
    /// Takes ModRM and what follows it. Returns the register field, and the memory operand; a register operand in its
    /// place is refused.
    #[inline]
    pub(super) fn parse(cursor: &mut Cursor<'_>, prefixes: &Prefixes) -> Result<(u8, Self), Reject> {
        let modrm = cursor.byte();
        let (mode, rm) = (modrm >> 6, modrm & 7);
        if mode == 3 {
            return Err(Reject::Unlisted);
        }
        let (mut base, mut index) = (Base::Gpr(Gpr::new(rm | prefixes.b())), None);
        if rm == 4 {
            let sib = cursor.byte();
            let number = (sib >> 3 & 7) | prefixes.x();
            index = (number != 4).then(|| (Gpr::new(number), sib >> 6));
            base = match (sib & 7, mode) {
                (5, 0) => Base::None,
                (low, _) => Base::Gpr(Gpr::new(low | prefixes.b())),
            };
        } else if rm == 5 && mode == 0 {
            base = Base::NextInsn;
        }
        let displacement = match (mode, base) {
            (1, _) => cursor.i8(),
            (2, _) | (0, Base::None | Base::NextInsn) => cursor.i32(),
            _ => 0,
        };
        Ok(((modrm >> 3 & 7) | prefixes.r(), Self { base, index, displacement }))
    }

    /// An operand whose address is given in the instruction.
    pub(super) const fn absolute(address: u64) -> Self {
        Self { base: Base::None, index: None, displacement: address as i64 }
    }

    /// Moves the operand.
    pub(super) const fn offset_by(self, bytes: i64) -> Self {
        Self { displacement: self.displacement.wrapping_add(bytes), ..self }
    }

    /// Returns the linear address. `next` is the address of the instruction behind this one, `segment_base` that of the
    /// segment that the prefixes name.
    #[inline]
    pub(super) fn address(&self, regs: &Regs, prefixes: &Prefixes, next: u64, segment_base: u64) -> u64 {
        let base = match self.base {
            Base::None => 0,
            Base::Gpr(gpr) => gpr.get(regs),
            Base::NextInsn => next,
        };
        let index = self.index.map_or(0, |(gpr, shift)| gpr.get(regs) << shift);
        let sum = base.wrapping_add(index).wrapping_add(self.displacement as u64);
        linear(sum, prefixes, segment_base)
    }
}

/// Returns the linear address of an offset into the segment that the prefixes name, and that has this base.
#[inline]
pub(super) fn linear(offset: u64, prefixes: &Prefixes, segment_base: u64) -> u64 {
    let offset = if prefixes.address { offset & 0xffff_ffff } else { offset };
    match prefixes.segment {
        Some(Segment::Fs | Segment::Gs) => offset.wrapping_add(segment_base),
        _ => offset,
    }
}
