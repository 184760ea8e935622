// SPDX-License-Identifier: MIT OR Apache-2.0
//! The decoder of page-table writes against an independent one, in both directions.

use arch::Regs;
use hypervisor::emulate::ptwr::{WriteOp, decode};
use hypervisor::emulate::{Gpr, Reject, Segment};
use iced_x86::{
    Code, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use mm::hosted::Source;

/// Makes up registers.
pub(crate) fn regs(rng: &mut Source<'_>) -> Regs {
    let mut regs = Regs { rip: rng.word() >> 17, rflags: 0x202, ..Regs::default() };
    for gpr in Gpr::ALL {
        gpr.set(&mut regs, rng.edge());
    }
    regs
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x} ")).collect()
}

/// True for what is meant to be emulated, by the other decoder's account.
fn listed(i: &Instruction) -> bool {
    use Mnemonic::*;
    let writes = matches!(
        i.mnemonic(),
        Mov | Xchg
            | Add
            | Or
            | Adc
            | Sbb
            | And
            | Sub
            | Xor
            | Inc
            | Dec
            | Not
            | Neg
            | Bts
            | Btr
            | Btc
            | Cmpxchg
            | Xadd
            | Movnti
            | Stosb
            | Stosw
            | Stosd
            | Stosq
            | Movsb
            | Movsw
            | Movsd
            | Movsq
    );
    let string = matches!(i.mnemonic(), Stosb | Stosw | Stosd | Stosq | Movsb | Movsw | Movsq)
        || matches!(i.code(), Code::Movsd_m32_m32);
    let memory = string || i.op0_kind() == OpKind::Memory;
    let segment_register = matches!(i.code(), Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg);
    writes && memory && !segment_register && (string || i.mnemonic() != Movsd)
}

/// Where the other decoder sees the write, without what a register's bit offset adds.
fn written_at(i: &Instruction, regs: &Regs, fs: u64, gs: u64) -> Option<(u64, u32)> {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(i);
    let memory = info.used_memory().iter().find(|m| {
        matches!(m.access(), OpAccess::Write | OpAccess::ReadWrite | OpAccess::ReadCondWrite | OpAccess::CondWrite)
    })?;
    let address = memory.virtual_address(0, |register, _, _| {
        Some(match register {
            Register::FS => fs,
            Register::GS => gs,
            Register::ES | Register::CS | Register::SS | Register::DS => 0,
            _ => {
                let whole = Gpr::new(register.full_register() as u8 - Register::RAX as u8).get(regs);
                if register.size() == 4 { whole & 0xffff_ffff } else { whole }
            }
        })
    })?;
    Some((address, i.memory_size().size() as u32))
}

/// Checks that both decoders make the same of the bytes; true if they are a write to be emulated.
///
/// # Panics
/// When they do not.
pub(crate) fn check(bytes: &[u8], regs: &Regs, fs: u64, gs: u64) -> bool {
    let theirs = Decoder::with_ip(64, bytes, regs.rip, DecoderOptions::NONE).decode();
    let string = theirs.is_string_instruction();
    let wanted = !theirs.is_invalid() && listed(&theirs);
    let got = decode(bytes, regs, |segment| if segment == Segment::Fs { fs } else { gs });
    let what = || format!("{} {:?} {got:?}", hex(bytes), theirs.code());
    match got {
        Ok(ours) => {
            assert!(wanted, "{}", what());
            assert_eq!(u32::from(ours.len), theirs.len() as u32, "{}", what());
            let by_register = matches!(ours.op, WriteOp::Bit(..)) && theirs.op1_kind() == OpKind::Register;
            let (address, size) = written_at(&theirs, regs, fs, gs).unwrap_or_else(|| panic!("{}", what()));
            assert_eq!(ours.width.bytes(), size, "{}", what());
            assert!(by_register || string || address == ours.addr, "{address:x} {}", what());
        }
        Err(Reject::Misaligned) => assert!(wanted, "{}", what()),
        Err(Reject::Unlisted) if wanted => assert!(string && regs.rcx as u32 == 0, "{}", what()),
        Err(_) => assert!(!wanted, "{}", what()),
    }
    got.is_ok()
}
