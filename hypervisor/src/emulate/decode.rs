// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decoder of the privileged instructions that are emulated, and of nothing else.
//!
//! It reads bytes that the caller fetched once. An instruction that decodes is one that the processor would have
//! executed at ring 0 with exactly the operands and the length returned.

use super::cursor::Cursor;
use super::prefix::{Prefixes, Rep};
use super::{CodeSize, Gpr, Reject, Segment, Width};

/// Where an instruction has its port number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// In the instruction.
    Imm(u8),
    /// In DX.
    Dx,
}

/// A control register that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the registers they are named after")]
pub enum Cr {
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Cr8,
}

/// A string instruction's addressing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringOp {
    /// Width of one element: at most [`Width::Dword`].
    pub width: Width,
    /// Repeated as often as the counter register says.
    pub rep: bool,
    /// Width of address and counter registers.
    pub address: Width,
    /// Segment of the memory operand: always ES for INS.
    pub segment: Segment,
}

/// An instruction that is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insn {
    /// IN: from a port to AL, AX or EAX.
    In {
        /// Which port.
        port: Port,
        /// How much.
        width: Width,
    },
    /// OUT: from AL, AX or EAX to a port.
    Out {
        /// Which port.
        port: Port,
        /// How much.
        width: Width,
    },
    /// INS: from port DX to memory.
    Ins(StringOp),
    /// OUTS: from memory to port DX.
    Outs(StringOp),
    /// CLTS.
    Clts,
    /// WBINVD.
    Wbinvd,
    /// WBNOINVD.
    Wbnoinvd,
    /// MOV from a control register.
    ReadCr {
        /// From.
        cr: Cr,
        /// To.
        gpr: Gpr,
    },
    /// MOV to a control register.
    WriteCr {
        /// To.
        cr: Cr,
        /// From.
        gpr: Gpr,
    },
    /// MOV from a debug register.
    ReadDr {
        /// Its number, 0 to 7.
        dr: u8,
        /// To.
        gpr: Gpr,
    },
    /// MOV to a debug register.
    WriteDr {
        /// Its number, 0 to 7.
        dr: u8,
        /// From.
        gpr: Gpr,
    },
    /// RDMSR.
    Rdmsr,
    /// WRMSR.
    Wrmsr,
    /// RDTSC.
    Rdtsc,
    /// RDTSCP.
    Rdtscp,
    /// CPUID.
    Cpuid,
    /// XSETBV.
    Xsetbv,
    /// CLI.
    Cli,
    /// STI.
    Sti,
    /// INT n, the two-byte form.
    Int(u8),
    /// IRET, IRETD or IRETQ, by the width of what it pops.
    Iret(Width),
}

impl Insn {
    /// True for what only the guest's kernel may have emulated. The others are decided by I/O privilege (ports, CLI,
    /// STI), by the trap table (INT), or are anybody's.
    pub const fn needs_kernel(self) -> bool {
        match self {
            Self::Clts
            | Self::Wbinvd
            | Self::Wbnoinvd
            | Self::ReadCr { .. }
            | Self::WriteCr { .. }
            | Self::ReadDr { .. }
            | Self::WriteDr { .. }
            | Self::Rdmsr
            | Self::Wrmsr
            | Self::Xsetbv => true,
            Self::In { .. }
            | Self::Out { .. }
            | Self::Ins(_)
            | Self::Outs(_)
            | Self::Rdtsc
            | Self::Rdtscp
            | Self::Cpuid
            | Self::Cli
            | Self::Sti
            | Self::Int(_)
            | Self::Iret(_) => false,
        }
    }
}

/// An instruction and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What it is.
    pub insn: Insn,
    /// How many bytes it has, prefixes included.
    pub len: u8,
}

/// Decodes one instruction. `bytes` is what could be fetched from its address on, at most 15 bytes.
///
/// # Errors
/// [`Reject::Truncated`] when the bytes end before the instruction does.
pub fn decode(bytes: &[u8], code: CodeSize) -> Result<Decoded, Reject> {
    let mut cursor = Cursor::new(bytes);
    let (prefixes, opcode) = Prefixes::parse(&mut cursor, code);
    let insn = match opcode {
        0x0f => two_byte(&mut cursor, &prefixes, code),
        opcode => one_byte(opcode, &mut cursor, &prefixes, code),
    };
    let len = cursor.len()?;
    let insn = insn?;
    if prefixes.lock {
        return Err(Reject::Invalid);
    }
    Ok(Decoded { insn, len })
}

fn one_byte(opcode: u8, cursor: &mut Cursor<'_>, prefixes: &Prefixes, code: CodeSize) -> Result<Insn, Reject> {
    let width = io_width(opcode, prefixes, code);
    Ok(match opcode {
        0x6c | 0x6d => Insn::Ins(StringOp { segment: Segment::Es, ..string(width, prefixes, code) }),
        0x6e | 0x6f => Insn::Outs(string(width, prefixes, code)),
        0xe4 | 0xe5 => Insn::In { port: Port::Imm(cursor.byte()), width },
        0xe6 | 0xe7 => Insn::Out { port: Port::Imm(cursor.byte()), width },
        0xec | 0xed => Insn::In { port: Port::Dx, width },
        0xee | 0xef => Insn::Out { port: Port::Dx, width },
        0xcd => Insn::Int(cursor.byte()),
        0xcf => Insn::Iret(prefixes.width(code)),
        0xfa => Insn::Cli,
        0xfb => Insn::Sti,
        _ => return Err(Reject::Unlisted),
    })
}

/// Width of a port access: ports know no 64 bits.
fn io_width(opcode: u8, prefixes: &Prefixes, code: CodeSize) -> Width {
    match (opcode & 1, prefixes.width(code)) {
        (0, _) => Width::Byte,
        (_, Width::Qword) => Width::Dword,
        (_, width) => width,
    }
}

fn string(width: Width, prefixes: &Prefixes, code: CodeSize) -> StringOp {
    StringOp {
        width,
        rep: prefixes.rep.is_some(),
        address: prefixes.address_width(code),
        segment: prefixes.segment.unwrap_or(Segment::Ds),
    }
}

fn two_byte(cursor: &mut Cursor<'_>, prefixes: &Prefixes, code: CodeSize) -> Result<Insn, Reject> {
    Ok(match cursor.byte() {
        0x01 => group_0f01(cursor.byte(), prefixes)?,
        0x06 => Insn::Clts,
        0x09 if prefixes.rep == Some(Rep::Rep) => Insn::Wbnoinvd,
        0x09 => Insn::Wbinvd,
        opcode @ 0x20..=0x23 => {
            let modrm = cursor.byte();
            let reg = (modrm >> 3 & 7) | prefixes.r();
            let gpr = Gpr::new((modrm & 7) | prefixes.b());
            match opcode {
                0x20 => Insn::ReadCr { cr: control(reg, code)?, gpr },
                0x21 => Insn::ReadDr { dr: debug(reg)?, gpr },
                0x22 => Insn::WriteCr { cr: control(reg, code)?, gpr },
                _ => Insn::WriteDr { dr: debug(reg)?, gpr },
            }
        }
        0x30 => Insn::Wrmsr,
        0x31 => Insn::Rdtsc,
        0x32 => Insn::Rdmsr,
        0xa2 => Insn::Cpuid,
        _ => return Err(Reject::Unlisted),
    })
}

fn group_0f01(modrm: u8, prefixes: &Prefixes) -> Result<Insn, Reject> {
    match modrm {
        0xd1 if prefixes.rep.is_some() || prefixes.operand => Err(Reject::Invalid),
        0xd1 => Ok(Insn::Xsetbv),
        0xf9 => Ok(Insn::Rdtscp),
        _ => Err(Reject::Unlisted),
    }
}

fn control(number: u8, code: CodeSize) -> Result<Cr, Reject> {
    match number {
        0 => Ok(Cr::Cr0),
        2 => Ok(Cr::Cr2),
        3 => Ok(Cr::Cr3),
        4 => Ok(Cr::Cr4),
        8 if code == CodeSize::Bits64 => Ok(Cr::Cr8),
        _ => Err(Reject::Invalid),
    }
}

fn debug(number: u8) -> Result<u8, Reject> {
    if number < 8 { Ok(number) } else { Err(Reject::Invalid) }
}
