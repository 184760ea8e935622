// SPDX-License-Identifier: MIT OR Apache-2.0
//! The decoder against an independent one, in both directions.

use super::super::std::{string::String, vec::Vec};
use super::super::testing::Rng;
use super::*;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

const SIZES: [CodeSize; 3] = [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64];

fn other(bytes: &[u8], code: CodeSize) -> Instruction {
    let bits = match code {
        CodeSize::Bits16 => 16,
        CodeSize::Bits32 => 32,
        CodeSize::Bits64 => 64,
    };
    // The AMD form of CR8 with LOCK is not for us, nor are registers that do not exist.
    Decoder::new(bits, bytes, DecoderOptions::NONE).decode()
}

/// What the other decoder makes of the bytes, as one of ours.
fn expected(i: &Instruction, long: bool) -> Option<Insn> {
    let gpr = |n: u32| Gpr::new(i.op_register(n).full_register() as u8 - Register::RAX as u8);
    Some(match i.mnemonic() {
        Mnemonic::In | Mnemonic::Out => {
            let (acc, port) = if i.mnemonic() == Mnemonic::In { (0, 1) } else { (1, 0) };
            let width = reg_width(i.op_register(acc));
            let port = match i.op_kind(port) {
                OpKind::Immediate8 => Port::Imm(i.immediate8()),
                _ => Port::Dx,
            };
            if i.mnemonic() == Mnemonic::In { Insn::In { port, width } } else { Insn::Out { port, width } }
        }
        Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => Insn::Ins(string_op(i, 0, long)),
        Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => Insn::Outs(string_op(i, 1, long)),
        Mnemonic::Clts => Insn::Clts,
        Mnemonic::Wbinvd => Insn::Wbinvd,
        Mnemonic::Wbnoinvd => Insn::Wbnoinvd,
        Mnemonic::Mov => match i.code() {
            Code::Mov_r32_cr | Code::Mov_r64_cr => Insn::ReadCr { cr: cr(i.op1_register())?, gpr: gpr(0) },
            Code::Mov_cr_r32 | Code::Mov_cr_r64 => Insn::WriteCr { cr: cr(i.op0_register())?, gpr: gpr(1) },
            Code::Mov_r32_dr | Code::Mov_r64_dr => Insn::ReadDr { dr: dr(i.op1_register())?, gpr: gpr(0) },
            Code::Mov_dr_r32 | Code::Mov_dr_r64 => Insn::WriteDr { dr: dr(i.op0_register())?, gpr: gpr(1) },
            _ => return None,
        },
        Mnemonic::Rdmsr if i.code() == Code::Rdmsr => Insn::Rdmsr,
        Mnemonic::Wrmsr => Insn::Wrmsr,
        Mnemonic::Rdtsc => Insn::Rdtsc,
        Mnemonic::Rdtscp => Insn::Rdtscp,
        Mnemonic::Cpuid => Insn::Cpuid,
        Mnemonic::Xsetbv => Insn::Xsetbv,
        Mnemonic::Cli => Insn::Cli,
        Mnemonic::Sti => Insn::Sti,
        Mnemonic::Int => Insn::Int(i.immediate8()),
        Mnemonic::Iret => Insn::Iret(Width::Word),
        Mnemonic::Iretd => Insn::Iret(Width::Dword),
        Mnemonic::Iretq => Insn::Iret(Width::Qword),
        _ => return None,
    })
}

fn reg_width(register: Register) -> Width {
    match register.size() {
        1 => Width::Byte,
        2 => Width::Word,
        4 => Width::Dword,
        _ => Width::Qword,
    }
}

fn string_op(i: &Instruction, memory: u32, long: bool) -> StringOp {
    let width = match i.memory_size().size() {
        1 => Width::Byte,
        2 => Width::Word,
        _ => Width::Dword,
    };
    let address = match i.op_kind(memory) {
        OpKind::MemoryESDI | OpKind::MemorySegSI => Width::Word,
        OpKind::MemoryESEDI | OpKind::MemorySegESI => Width::Dword,
        _ => Width::Qword,
    };
    let segment = match i.memory_segment() {
        Register::ES => Segment::Es,
        Register::CS => Segment::Cs,
        Register::SS => Segment::Ss,
        Register::FS => Segment::Fs,
        Register::GS => Segment::Gs,
        _ => Segment::Ds,
    };
    let segment = match (memory, segment) {
        (0, ..) => Segment::Es,
        (_, Segment::Fs | Segment::Gs) => segment,
        _ if long => Segment::Ds,
        _ => segment,
    };
    StringOp { width, rep: i.has_rep_prefix() || i.has_repne_prefix(), address, segment }
}

fn cr(register: Register) -> Option<Cr> {
    Some(match register {
        Register::CR0 => Cr::Cr0,
        Register::CR2 => Cr::Cr2,
        Register::CR3 => Cr::Cr3,
        Register::CR4 => Cr::Cr4,
        Register::CR8 => Cr::Cr8,
        _ => return None,
    })
}

fn dr(register: Register) -> Option<u8> {
    let number = register as u8 - Register::DR0 as u8;
    (number < 8).then_some(number)
}

fn check(bytes: &[u8], code: CodeSize) {
    let theirs = other(bytes, code);
    let want = if theirs.is_invalid() { None } else { expected(&theirs, code == CodeSize::Bits64) };
    let got = decode(bytes, code);
    let hex: String = bytes.iter().map(|b| super::super::std::format!("{b:02x} ")).collect();
    match (want, got) {
        (Some(insn), Ok(ours)) => {
            assert_eq!((insn, theirs.len() as u8), (ours.insn, ours.len), "{hex} {code:?}");
        }
        (None, Err(_)) => {}
        (want, got) => panic!("{hex} {code:?}: wanted {want:?} ({theirs:?}), got {got:?}"),
    }
}

/// Every listed opcode, and every other opcode of its map, behind every one and every two prefixes.
#[test]
fn all_prefixes_with_all_opcodes() {
    let mut prefixes: Vec<u8> = (0x40..=0x4f).collect();
    prefixes.extend([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3]);
    let mut lead: Vec<Vec<u8>> = Vec::from([Vec::new()]);
    lead.extend(prefixes.iter().map(|&p| Vec::from([p])));
    let few = [&[0x40, 0x48, 0x4f], &prefixes[16..]].concat();
    for &a in &few {
        lead.extend(few.iter().map(|&b| Vec::from([a, b])));
    }
    for code in SIZES {
        for lead in &lead {
            for opcode in 0..512u16 {
                let map = if opcode >= 256 { &[0x0f][..] } else { &[] };
                let tail = [opcode as u8, 0xd1, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde];
                let bytes = [lead, map, &tail].concat();
                check(&bytes, code);
            }
        }
    }
}

#[test]
fn every_modrm_of_the_moves_and_of_group_0f01() {
    for code in SIZES {
        for opcode in [0x01, 0x20, 0x21, 0x22, 0x23] {
            for modrm in 0..=255 {
                check(&[0x0f, opcode, modrm, 0x24, 0, 0, 0, 0, 0, 0], code);
                check(&[0xf3, 0x0f, opcode, modrm, 0x24, 0, 0, 0, 0, 0, 0], code);
                for rex in 0x40..=0x4f {
                    check(&[rex, 0x0f, opcode, modrm, 0x24, 0, 0, 0, 0, 0, 0], code);
                }
            }
        }
    }
}

#[test]
fn random_bytes_agree_with_the_other_decoder() {
    let mut rng = Rng::new();
    let likely = [
        0x0f, 0x20, 0x22, 0x30, 0x31, 0x32, 0xa2, 0x01, 0xf9, 0xd1, 0x48, 0x66, 0x67, 0xf2, 0xf3, 0x6c, 0x6f, 0xe4,
        0xee, 0xcd, 0xcf, 0xfa, 0x64, 0x2e, 0x09, 0xf0,
    ];
    for _ in 0..100_000 {
        let len = 1 + rng.below(15) as usize;
        let bytes: Vec<u8> =
            (0..len).map(|_| if rng.below(3) == 0 { rng.next() as u8 } else { rng.pick(&likely) }).collect();
        check(&bytes, rng.pick(&SIZES));
    }
}

/// Any cut of an instruction is reported as such, and 15 bytes are the limit.
#[test]
fn ends_are_told_apart() {
    for whole in [&[0x66, 0x48, 0x0f, 0x22, 0xd8][..], &[0xe4, 0x70], &[0x0f, 0x01, 0xd1], &[0x48, 0xcf]] {
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut], CodeSize::Bits64), Err(Reject::Truncated));
        }
        assert_eq!(decode(whole, CodeSize::Bits64).map(|d| usize::from(d.len)), Ok(whole.len()));
    }
    let mut long = [0x66; 16];
    long[15] = 0xfa;
    assert_eq!(decode(&long, CodeSize::Bits64), Err(Reject::TooLong));
    assert_eq!(decode(&long[1..], CodeSize::Bits64).map(|d| d.len), Ok(15));
    assert_eq!(decode(&[0xf0, 0x0f, 0x32], CodeSize::Bits64), Err(Reject::Invalid));
}
