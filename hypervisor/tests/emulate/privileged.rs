// SPDX-License-Identifier: MIT OR Apache-2.0
//! The decoder of privileged instructions against an independent one, in both directions.

use hypervisor::emulate::decode::{Cr, Insn, Port, StringOp, decode};
use hypervisor::emulate::{CodeSize, Gpr, Segment, Width};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// The sizes of code.
pub(crate) const SIZES: [CodeSize; 3] = [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64];

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

/// Checks that both decoders make the same of the bytes.
///
/// # Panics
/// When they do not.
pub(crate) fn check(bytes: &[u8], code: CodeSize) {
    let theirs = other(bytes, code);
    let want = if theirs.is_invalid() { None } else { expected(&theirs, code == CodeSize::Bits64) };
    let got = decode(bytes, code);
    let hex: String = bytes.iter().map(|b| format!("{b:02x} ")).collect();
    match (want, got) {
        (Some(insn), Ok(ours)) => {
            assert_eq!((insn, theirs.len() as u8), (ours.insn, ours.len), "{hex} {code:?}");
        }
        (None, Err(_)) => {}
        (want, got) => panic!("{hex} {code:?}: wanted {want:?} ({theirs:?}), got {got:?}"),
    }
}
