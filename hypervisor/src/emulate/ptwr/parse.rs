// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every form of a memory write that is emulated.

use super::{Alu, BitOp, Step, Unary, Write, WriteOp};
use crate::emulate::cursor::Cursor;
use crate::emulate::modrm::{Memory, linear};
use crate::emulate::prefix::Prefixes;
use crate::emulate::reg::Operand;
use crate::emulate::{CodeSize, Reject, Segment, Width};
use arch::Regs;

const CODE: CodeSize = CodeSize::Bits64;

struct Parser<'a> {
    cursor: Cursor<'a>,
    prefixes: Prefixes,
    regs: &'a Regs,
    /// Base of the segment that the prefixes name.
    segment_base: u64,
}

pub(super) fn parse(bytes: &[u8], regs: &Regs, base: impl FnOnce(Segment) -> u64) -> Result<Write, Reject> {
    let mut cursor = Cursor::new(bytes);
    let (prefixes, opcode) = Prefixes::parse(&mut cursor, CODE);
    let mut parser = Parser { cursor, prefixes, regs, segment_base: prefixes.segment.map_or(0, base) };
    let write = match opcode {
        0x0f => parser.two_byte(),
        opcode => parser.one_byte(opcode),
    };
    parser.cursor.len()?;
    write
}

impl Parser<'_> {
    fn one_byte(&mut self, opcode: u8) -> Result<Write, Reject> {
        let width = self.width(opcode);
        match opcode {
            0x00..=0x37 if opcode & 6 == 0 => {
                let alu = Alu::new(opcode >> 3).ok_or(Reject::Unlisted)?;
                self.register_form(width, |value, _| WriteOp::Alu(alu, value))
            }
            0x80 | 0x81 | 0x83 => self.alu_immediate(opcode, width),
            0x86 | 0x87 => self.register_form(width, |_, operand| WriteOp::Exchange(operand)),
            0x88 | 0x89 => self.register_form(width, |value, _| WriteOp::Store(value)),
            0xa2 | 0xa3 => self.store_absolute(width),
            0xa4 | 0xa5 | 0xaa | 0xab => self.string(opcode, width),
            0xc6 | 0xc7 => {
                let (0, memory) = self.extended()? else {
                    return Err(Reject::Unlisted);
                };
                let value = self.immediate(width);
                self.finish(memory, width, WriteOp::Store(value))
            }
            0xf6 | 0xf7 | 0xfe | 0xff => self.unary(opcode, width),
            _ => Err(Reject::Unlisted),
        }
    }

    fn two_byte(&mut self) -> Result<Write, Reject> {
        let opcode = self.cursor.byte();
        let width = self.width(opcode);
        match opcode {
            0xab => self.bit_register(BitOp::Bts),
            0xb3 => self.bit_register(BitOp::Btr),
            0xbb => self.bit_register(BitOp::Btc),
            0xba => self.bit_immediate(),
            0xb0 | 0xb1 => self.register_form(width, |value, _| WriteOp::CompareExchange(value)),
            0xc0 | 0xc1 => self.register_form(width, |_, operand| WriteOp::ExchangeAdd(operand)),
            0xc3 if self.prefixes.rep.is_some() || self.prefixes.operand => Err(Reject::Invalid),
            0xc3 => self.register_form(width, |value, _| WriteOp::Store(value)),
            _ => Err(Reject::Unlisted),
        }
    }

    /// Width of the operand: even opcodes are the byte forms.
    fn width(&self, opcode: u8) -> Width {
        if opcode & 1 == 0 { Width::Byte } else { self.prefixes.width(CODE) }
    }

    fn operand(&self, code: u8, width: Width) -> Operand {
        Operand::new(code, width, self.prefixes.rex != 0)
    }

    /// Takes ModRM where its register field tells the instruction.
    fn extended(&mut self) -> Result<(u8, Memory), Reject> {
        let (reg, memory) = Memory::parse(&mut self.cursor, &self.prefixes)?;
        Ok((reg & 7, memory))
    }

    fn immediate(&mut self, width: Width) -> u64 {
        let value = match width {
            Width::Byte => self.cursor.i8(),
            Width::Word => self.cursor.i16(),
            Width::Dword | Width::Qword => self.cursor.i32(),
        };
        value as u64 & width.mask()
    }

    /// Register to memory; `op` gets the register's value and which register it is.
    fn register_form(&mut self, width: Width, op: impl Fn(u64, Operand) -> WriteOp) -> Result<Write, Reject> {
        let (reg, memory) = Memory::parse(&mut self.cursor, &self.prefixes)?;
        let operand = self.operand(reg, width);
        self.finish(memory, width, op(operand.get(self.regs, width), operand))
    }

    fn alu_immediate(&mut self, opcode: u8, width: Width) -> Result<Write, Reject> {
        let (number, memory) = self.extended()?;
        let alu = Alu::new(number).ok_or(Reject::Unlisted)?;
        let value = self.immediate(if opcode == 0x81 { width } else { Width::Byte });
        let value = if opcode == 0x83 { value as i8 as u64 } else { value };
        // A 32-bit immediate of a 64-bit operation is sign-extended by `immediate`.
        self.finish(memory, width, WriteOp::Alu(alu, value & width.mask()))
    }

    fn unary(&mut self, opcode: u8, width: Width) -> Result<Write, Reject> {
        let (number, memory) = self.extended()?;
        let op = match (opcode, number) {
            (0xf6 | 0xf7, 2) => Unary::Not,
            (0xf6 | 0xf7, 3) => Unary::Neg,
            (0xfe | 0xff, 0) => Unary::Inc,
            (0xfe | 0xff, 1) => Unary::Dec,
            _ => return Err(Reject::Unlisted),
        };
        self.finish(memory, width, WriteOp::Unary(op))
    }

    fn store_absolute(&mut self, width: Width) -> Result<Write, Reject> {
        let address = if self.prefixes.address { self.cursor.i32() as u64 } else { self.cursor.u64() };
        let value = self.regs.rax & width.mask();
        self.finish(Memory::absolute(address), width, WriteOp::Store(value))
    }

    fn bit_immediate(&mut self) -> Result<Write, Reject> {
        let (number, memory) = self.extended()?;
        let op = match number {
            5 => BitOp::Bts,
            6 => BitOp::Btr,
            7 => BitOp::Btc,
            _ => return Err(Reject::Unlisted),
        };
        let width = self.prefixes.width(CODE);
        let bit = self.cursor.byte() & (width.bits() - 1) as u8;
        self.finish(memory, width, WriteOp::Bit(op, bit))
    }

    /// The bit offset is a signed number of the operand's width and reaches beyond the operand.
    fn bit_register(&mut self, op: BitOp) -> Result<Write, Reject> {
        let width = self.prefixes.width(CODE);
        let (reg, memory) = Memory::parse(&mut self.cursor, &self.prefixes)?;
        let unused = 64 - width.bits();
        let offset = (self.operand(reg, width).get(self.regs, width) << unused) as i64 >> unused;
        let bit = offset as u8 & (width.bits() - 1) as u8;
        let bytes = (offset >> width.bits().trailing_zeros()) * i64::from(width.bytes());
        self.finish(memory.offset_by(bytes), width, WriteOp::Bit(op, bit))
    }

    fn string(&mut self, opcode: u8, width: Width) -> Result<Write, Reject> {
        let address = self.prefixes.address_width(CODE);
        let rep = self.prefixes.rep.is_some();
        if rep && self.regs.rcx & address.mask() == 0 {
            return Err(Reject::Unlisted);
        }
        let source = opcode < 0xaa;
        let step = Step { source, rep, address };
        let op = if source {
            WriteOp::Load(linear(self.regs.rsi, &self.prefixes, self.segment_base), step)
        } else {
            WriteOp::String(self.regs.rax & width.mask(), step)
        };
        // The destination is always in ES.
        self.prefixes.segment = None;
        self.finish(Memory::absolute(self.regs.rdi), width, op)
    }

    fn finish(&self, memory: Memory, width: Width, op: WriteOp) -> Result<Write, Reject> {
        let lockable = match op {
            WriteOp::Store(_) | WriteOp::String(..) | WriteOp::Load(..) => false,
            WriteOp::Exchange(_)
            | WriteOp::ExchangeAdd(_)
            | WriteOp::CompareExchange(_)
            | WriteOp::Alu(..)
            | WriteOp::Unary(_)
            | WriteOp::Bit(..) => true,
        };
        if self.prefixes.lock && !lockable {
            return Err(Reject::Invalid);
        }
        let len = self.cursor.len()?;
        let next = self.regs.rip.wrapping_add(u64::from(len));
        let addr = memory.address(self.regs, &self.prefixes, next, self.segment_base);
        if addr & u64::from(width.bytes() - 1) != 0 {
            return Err(Reject::Misaligned);
        }
        Ok(Write { addr, width, op, len })
    }
}
