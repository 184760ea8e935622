// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes to page tables that are mapped read-only: decode one memory write of 64-bit code, compute what it does.
//!
//! The caller checks that the code segment is a 64-bit one and then goes: [`decode`] the bytes fetched once → check
//! that [`Write::addr`] lies in the faulting page → supply the source of a copy ([`Write::load`]) → read the aligned
//! 8-byte entry that holds the operand → [`Write::apply`] → validate [`Outcome::entry`] as an L1 entry → exchange it
//! for the entry read → [`Outcome::commit`]. Until `commit` no register has changed, so that after a lost race the
//! caller applies the same `Write` to the new entry.
//!
//! A `Write` is naturally aligned and at most 8 bytes wide, hence always within one entry.

mod alu;
mod parse;
#[cfg(test)]
mod tests;

use super::reg::Operand;
use super::{Gpr, Reject, Segment, Width};
use arch::Regs;

pub use alu::{Alu, BitOp, Unary};

const RF: u64 = 1 << 16;
const DF: u64 = 1 << 10;

/// A memory write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Linear address of the operand: a multiple of its width.
    pub addr: u64,
    /// Width of the operand.
    pub width: Width,
    /// What happens to it.
    pub op: WriteOp,
    /// Length of the instruction.
    pub len: u8,
}

/// What a write does. Values come from the registers as they were when the instruction was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOp {
    /// MOV, MOVNTI: replaces the operand.
    Store(u64),
    /// XCHG with a register.
    Exchange(Operand),
    /// XADD with a register.
    ExchangeAdd(Operand),
    /// CMPXCHG: the operand becomes this if it equals the accumulator.
    CompareExchange(u64),
    /// Arithmetic with a second operand.
    Alu(Alu, u64),
    /// Arithmetic without one.
    Unary(Unary),
    /// BTS, BTR, BTC of this bit of the operand.
    Bit(BitOp, u8),
    /// One element of STOS, or of MOVS once its source is known.
    String(u64, Step),
    /// One element of MOVS, whose source at this linear address has yet to be read.
    Load(u64, Step),
}

/// How a string instruction goes on after one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// RSI moves too.
    source: bool,
    /// The instruction repeats until the counter is 0.
    rep: bool,
    /// Width of RSI, RDI and RCX as addresses and counter.
    address: Width,
}

/// The result of a write, not yet visible to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the 8-byte entry becomes; nothing for a compare-and-exchange that failed.
    pub entry: Option<u64>,
    flags: u64,
    flags_mask: u64,
    effect: Effect,
    len: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    None,
    Register(Operand, Width, u64),
    String(Width, Step),
}

/// Decodes a memory write. `bytes` is what could be fetched from RIP on, at most 15 bytes. `base` tells the base of FS or
/// GS; it is asked only where the instruction names one of them.
///
/// # Errors
/// [`Reject::Truncated`] when the bytes end before the instruction does, [`Reject::Misaligned`] for an operand that is
/// not naturally aligned, otherwise why the instruction is none of those emulated.
pub fn decode(bytes: &[u8], regs: &Regs, base: impl FnOnce(Segment) -> u64) -> Result<Write, Reject> {
    parse::parse(bytes, regs, base)
}

/// The forms that nearly all trapped page-table writes have: MOV to, and XCHG with, `disp(%reg)`, of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Linear address of the operand.
    pub addr: u64,
    /// What is written.
    pub value: u64,
    /// It is exchanged for what the operand held.
    pub exchanges: bool,
    /// The register that holds the value.
    pub register: Gpr,
    /// Length of the instruction.
    pub len: u8,
}

impl Plain {
    /// Decodes from the first eight bytes at RIP; nothing when they are another form.
    #[inline(always)]
    pub fn decode(code: u64, regs: &Regs) -> Option<Self> {
        let [rex, opcode, modrm, ..] = code.to_le_bytes();
        let (mode, rm) = (modrm >> 6, modrm & 7);
        // No SIB byte, not relative to RIP.
        if rex & 0xf8 != 0x48 || rm == 4 || (mode, rm) == (0, 5) {
            return None;
        }
        let exchanges = match opcode {
            0x87 => true,
            0x89 => false,
            _ => return None,
        };
        let (displacement, len) = match mode {
            0 => (0, 3),
            1 => (i64::from((code >> 24) as i8), 4),
            2 => (i64::from((code >> 24) as i32), 7),
            _ => return None,
        };
        let base = Gpr::new(rm | (rex & 1) << 3).get(regs);
        let register = Gpr::new((modrm >> 3 & 7) | (rex & 4) << 1);
        let addr = base.wrapping_add(displacement.cast_unsigned());
        Some(Self { addr, value: register.get(regs), exchanges, register, len })
    }

    /// As [`Outcome::commit`]; the register is the caller's to set.
    #[inline(always)]
    pub fn commit(&self, regs: &mut Regs) {
        regs.rflags &= !RF;
        regs.rip = regs.rip.wrapping_add(u64::from(self.len));
    }
}

impl Write {
    /// Address of the 8-byte entry that holds the operand.
    pub const fn entry_addr(&self) -> u64 {
        self.addr & !7
    }

    /// The source that has to be read first: its address, and as many bytes as [`Write::width`] says.
    pub const fn load(&self) -> Option<u64> {
        match self.op {
            WriteOp::Load(from, _) => Some(from),
            _ => None,
        }
    }

    /// True when the whole entry is replaced whatever it holds, without a lock: an ordinary store will do.
    #[inline]
    pub const fn is_plain_store(&self) -> bool {
        matches!((self.op, self.width), (WriteOp::Store(_) | WriteOp::String(..), Width::Qword))
    }

    /// True when the operand is replaced whatever it holds, and no register but pointers changes.
    pub const fn is_store(&self) -> bool {
        matches!(self.op, WriteOp::Store(_) | WriteOp::String(..))
    }

    /// The same write with its source read.
    #[must_use]
    pub const fn loaded(self, value: u64) -> Self {
        match self.op {
            WriteOp::Load(_, step) => Self { op: WriteOp::String(value, step), ..self },
            _ => self,
        }
    }

    /// Computes what the write does to the entry, which holds `entry` now. Nothing when a source has yet to be read.
    #[inline]
    pub fn apply(&self, entry: u64, regs: &Regs) -> Option<Outcome> {
        match (self.op, self.width) {
            (WriteOp::Store(value), Width::Qword) => Some(self.outcome(Some(value), (0, 0), Effect::None)),
            _ => self.apply_any(entry, regs),
        }
    }

    fn apply_any(&self, entry: u64, regs: &Regs) -> Option<Outcome> {
        let (width, mask) = (self.width, self.width.mask());
        let shift = (self.addr & 7) as u32 * 8;
        let old = entry >> shift & mask;
        let none = (0, 0);
        let (new, flags, effect) = match self.op {
            WriteOp::Store(value) => (Some(value), none, Effect::None),
            WriteOp::Exchange(operand) => (Some(operand.get(regs, width)), none, Effect::Register(operand, width, old)),
            WriteOp::ExchangeAdd(operand) => {
                let (new, flags) = Alu::Add.compute(width, old, operand.get(regs, width), false);
                (Some(new), (flags, alu::ARITHMETIC), Effect::Register(operand, width, old))
            }
            WriteOp::CompareExchange(new) => {
                let accumulator = regs.rax & mask;
                let (difference, flags) = Alu::Sub.compute(width, accumulator, old, false);
                let kept = Effect::Register(Operand::Low(Gpr::Rax), width, old);
                let (new, effect) = if difference == 0 { (Some(new), Effect::None) } else { (None, kept) };
                (new, (flags, alu::ARITHMETIC), effect)
            }
            WriteOp::Alu(op, value) => {
                let (new, flags) = op.compute(width, old, value & mask, regs.rflags & alu::CF != 0);
                (Some(new), (flags, alu::ARITHMETIC), Effect::None)
            }
            WriteOp::Unary(op) => {
                let (new, flags, changed) = op.compute(width, old);
                (Some(new), (flags, changed), Effect::None)
            }
            WriteOp::Bit(op, bit) => {
                let (new, flags) = op.compute(old, bit);
                (Some(new), (flags, alu::CF), Effect::None)
            }
            WriteOp::String(value, step) => (Some(value), none, Effect::String(width, step)),
            WriteOp::Load(..) => return None,
        };
        let merged = new.map(|new| entry & !(mask << shift) | (new & mask) << shift);
        Some(self.outcome(merged, flags, effect))
    }

    #[inline]
    fn outcome(&self, entry: Option<u64>, (flags, flags_mask): (u64, u64), effect: Effect) -> Outcome {
        Outcome { entry, flags, flags_mask, effect, len: self.len }
    }
}

impl Outcome {
    /// Makes the instruction's effect on the registers visible: results, flags, RIP. The resume flag is cleared;
    /// the caller looks after the trap flag.
    #[inline]
    pub fn commit(&self, regs: &mut Regs) {
        regs.rflags = regs.rflags & !(self.flags_mask | RF) | self.flags;
        let finished = match self.effect {
            Effect::None => true,
            Effect::Register(operand, width, value) => {
                operand.set(regs, width, value);
                true
            }
            Effect::String(width, step) => step.advance(regs, width),
        };
        if finished {
            regs.rip = regs.rip.wrapping_add(u64::from(self.len));
        }
    }
}

impl Step {
    /// Moves the registers by one element. Returns true when the instruction is over.
    fn advance(self, regs: &mut Regs, width: Width) -> bool {
        let bytes = u64::from(width.bytes());
        let by = if regs.rflags & DF != 0 { bytes.wrapping_neg() } else { bytes };
        let add = |gpr: Gpr, by: u64, regs: &mut Regs| {
            let value = gpr.get(regs).wrapping_add(by) & self.address.mask();
            gpr.set_width(regs, self.address, value);
            value
        };
        add(Gpr::Rdi, by, regs);
        if self.source {
            add(Gpr::Rsi, by, regs);
        }
        !self.rep || add(Gpr::Rcx, u64::MAX, regs) == 0
    }
}
