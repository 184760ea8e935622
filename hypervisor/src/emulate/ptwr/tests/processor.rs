// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same instruction run on the processor: memory, registers and flags must come out alike.
#![cfg(target_arch = "x86_64")]
#![expect(unsafe_code, reason = "runs generated code in the test process")]

use super::super::super::std::{format, mem::transmute, ptr, vec::Vec};
use super::*;
use core::ffi::c_void;
use iced_x86::code_asm::*;
use iced_x86::{Decoder, DecoderOptions, IcedError, InstructionInfoFactory, Register};

const PAGE: usize = 4096;
/// Flags that arithmetic changes.
const ARITHMETIC: u64 = 0x8d5;

unsafe extern "C" {
    fn mmap(addr: *mut c_void, len: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> *mut c_void;
}

/// A page for code and two for data.
struct Machine {
    code: *mut u8,
    data: *mut u8,
}

fn pages(n: usize, protection: i32) -> *mut u8 {
    // SAFETY: an anonymous private mapping at an address of the system's choice touches nothing that exists.
    let at = unsafe { mmap(ptr::null_mut(), n * PAGE, protection, 0x22, -1, 0) };
    assert!(at as isize != -1);
    at.cast()
}

impl Machine {
    fn new() -> Self {
        Self { code: pages(1, 7), data: pages(2, 3) }
    }

    /// Runs the instruction with these registers (all but RSP) and the arithmetic flags and DF of RFLAGS.
    fn run(&mut self, insn: &[u8], regs: &mut Regs) {
        let stub = stub(insn).unwrap();
        assert!(stub.len() < PAGE);
        // SAFETY: the stub fits the page, which is writable and executable and belongs to this test alone; the stub
        // keeps what the calling convention asks for, and the instruction writes to the data pages only.
        unsafe {
            ptr::copy_nonoverlapping(stub.as_ptr(), self.code, stub.len());
            let run: extern "C" fn(*mut Regs) = transmute(self.code);
            run(regs);
        }
    }

    fn data(&mut self) -> &mut [u64; 2 * PAGE / 8] {
        // SAFETY: the two pages are mapped, aligned and reached only through this reference.
        unsafe { &mut *self.data.cast() }
    }
}

/// Loads the registers from where RDI points, runs the instruction, stores them there.
fn stub(insn: &[u8]) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let at = |gpr: Gpr| {
        let mut marked = Regs::default();
        gpr.set(&mut marked, 1);
        let words: &[u64; WORDS] = zerocopy::transmute_ref!(&marked);
        words.iter().position(|&w| w == 1).unwrap() * 8
    };
    let all = [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
    let others = || (0..16).filter(|n| ![4, 7].contains(n)).map(|n| (all[n], at(Gpr::new(n as u8))));
    let kept = [rbx, rbp, r12, r13, r14, r15];
    for register in kept {
        a.push(register)?;
    }
    a.push(rdi)?;
    a.push(qword_ptr(rdi + core::mem::offset_of!(Regs, rflags)))?;
    a.popfq()?;
    for (register, offset) in others() {
        a.mov(register, qword_ptr(rdi + offset))?;
    }
    a.mov(rdi, qword_ptr(rdi + at(Gpr::Rdi)))?;
    a.db(insn)?;
    a.push(rdi)?;
    a.mov(rdi, qword_ptr(rsp + 8))?;
    for (register, offset) in others() {
        a.mov(qword_ptr(rdi + offset), register)?;
    }
    a.pushfq()?;
    a.cld()?;
    a.pop(qword_ptr(rdi + core::mem::offset_of!(Regs, rflags)))?;
    a.pop(qword_ptr(rdi + at(Gpr::Rdi)))?;
    a.pop(rdi)?;
    for register in kept.into_iter().rev() {
        a.pop(register)?;
    }
    a.ret()?;
    a.assemble(0)
}

const WORDS: usize = size_of::<Regs>() / 8;

/// Opcode, kind of its register field (8: a register, 9: a string instruction, others: a range of numbers), bytes of
/// its immediate.
const FORMS: [(&[u8], u8, u8); 48] = [
    (&[0x00], 8, 0),
    (&[0x01], 8, 0),
    (&[0x08], 8, 0),
    (&[0x09], 8, 0),
    (&[0x10], 8, 0),
    (&[0x11], 8, 0),
    (&[0x18], 8, 0),
    (&[0x19], 8, 0),
    (&[0x20], 8, 0),
    (&[0x21], 8, 0),
    (&[0x28], 8, 0),
    (&[0x29], 8, 0),
    (&[0x30], 8, 0),
    (&[0x31], 8, 0),
    (&[0x80], 7, 1),
    (&[0x81], 7, 4),
    (&[0x83], 7, 1),
    (&[0x81], 7, 4),
    (&[0x86], 8, 0),
    (&[0x87], 8, 0),
    (&[0x88], 8, 0),
    (&[0x89], 8, 0),
    (&[0xc6], 1, 1),
    (&[0xc7], 1, 4),
    (&[0xfe], 2, 0),
    (&[0xff], 2, 0),
    (&[0xf6], 12, 0),
    (&[0xf7], 12, 0),
    (&[0x0f, 0xab], 8, 0),
    (&[0x0f, 0xb3], 8, 0),
    (&[0x0f, 0xbb], 8, 0),
    (&[0x0f, 0xba], 13, 1),
    (&[0x0f, 0xb0], 8, 0),
    (&[0x0f, 0xb1], 8, 0),
    (&[0x0f, 0xc0], 8, 0),
    (&[0x0f, 0xc1], 8, 0),
    (&[0x0f, 0xc3], 8, 0),
    (&[0xaa], 9, 0),
    (&[0xab], 9, 0),
    (&[0xa4], 9, 0),
    (&[0xa5], 9, 0),
    (&[0x0f, 0xb1], 8, 0),
    (&[0x0f, 0xb1], 8, 0),
    (&[0x0f, 0xb0], 8, 0),
    (&[0x81], 7, 4),
    (&[0x80], 7, 1),
    (&[0xf7], 12, 0),
    (&[0x19], 8, 0),
];

/// An instruction with a memory operand at `target`; the registers are set so that it lies there.
fn random_insn(rng: &mut Rng, regs: &mut Regs, target: u64) -> Vec<u8> {
    let (opcode, kind, immediate) = rng.pick(&FORMS);
    let rex = if rng.below(3) == 0 { 0 } else { 0x40 | rng.next() as u8 & 15 };
    let narrow = rng.below(3) == 0 && opcode != [0x0f, 0xc3];
    let mut bytes = Vec::new();
    if narrow {
        bytes.push(0x66);
    }
    if rex != 0 {
        bytes.push(rex);
    }
    bytes.extend(opcode);
    if kind == 9 {
        regs.rdi = target;
        regs.rsi = target ^ 0x40;
        return bytes;
    }
    let reg = match kind {
        1 | 2 => rng.below(u64::from(kind)) as u8,
        7 => rng.below(7) as u8,
        12 => 2 + rng.below(2) as u8,
        13 => 5 + rng.below(3) as u8,
        _ => rng.next() as u8 & 7,
    };
    let by_register = matches!(opcode, [0x0f, 0xab | 0xb3 | 0xbb]);
    let source = Gpr::new(reg | (rex & 4) << 1);
    if by_register {
        source.set(regs, rng.next() as u16 as i8 as i64 as u64 & if narrow { 0xffff } else { u64::MAX });
    }
    memory_operand(rng, regs, target, (reg, rex), &mut bytes);
    let wide = rex & 8 != 0;
    let n = if immediate == 4 && narrow && !wide { 2 } else { immediate };
    bytes.extend_from_slice(&rng.edge().to_le_bytes()[..usize::from(n)]);
    bytes
}

/// Appends ModRM, SIB and displacement, and sets the base register.
fn memory_operand(rng: &mut Rng, regs: &mut Regs, target: u64, (reg, rex): (u8, u8), bytes: &mut Vec<u8>) {
    let mode = 1 + rng.below(2) as u8;
    let displacement = if mode == 1 { rng.next() as i8 as i64 } else { i64::from(rng.next() as i32) };
    let rm = rng.next() as u8 & 7;
    let base = |low: u8| Gpr::new(low | (rex & 1) << 3);
    bytes.push(mode << 6 | reg << 3 | rm);
    let mut offset = displacement as u64;
    let mut low = rm;
    if rm == 4 {
        let (index, scale) = (rng.next() as u8 & 7, rng.next() as u8 & 3);
        low = rng.next() as u8 & 7;
        let index_gpr = Gpr::new(index | (rex & 2) << 2);
        let indexed = index_gpr != Gpr::Rsp && index_gpr != base(low);
        let index = if indexed { index } else { 4 };
        bytes.push(scale << 6 | index << 3 | low);
        if indexed {
            offset = offset.wrapping_add(index_gpr.get(regs) << scale);
        } else if rex & 2 != 0 {
            // Index 4 with REX.X is R12.
            if base(low) == Gpr::R12 {
                regs.r12 = 0;
            }
            offset = offset.wrapping_add(regs.r12 << scale);
        }
    }
    base(low).set(regs, target.wrapping_sub(offset));
    match mode {
        1 => bytes.push(displacement as u8),
        _ => bytes.extend_from_slice(&(displacement as i32).to_le_bytes()),
    }
}

#[test]
fn outcomes_are_the_processors() {
    let mut rng = Rng::new();
    let mut machine = Machine::new();
    let data = machine.data as u64;
    let (mut tried, mut wanted) = (0, 0);
    for _ in 0..20_000 {
        let mut regs = random_regs(&mut rng);
        regs.rflags = rng.next() & (ARITHMETIC | DF) | 0x202;
        let target = data + PAGE as u64 + rng.below(8) * 8 + rng.below(2) * rng.below(8);
        let insn = random_insn(&mut rng, &mut regs, target);
        wanted += 1;
        let Ok(write) = decode(&insn, &regs, flat) else {
            continue;
        };
        let reach = data + 64..data + 2 * PAGE as u64 - 64;
        if insn_uses_rsp(&insn) || !reach.contains(&write.addr) {
            continue;
        }
        tried += 1;
        for word in machine.data()[PAGE / 8 - 64..PAGE / 8 + 80].iter_mut() {
            *word = rng.edge();
        }
        one(&mut machine, &mut rng, &insn, regs, write);
    }
    assert!(tried * 3 > wanted, "{tried} of {wanted}");
}

fn insn_uses_rsp(insn: &[u8]) -> bool {
    let theirs = Decoder::new(64, insn, DecoderOptions::NONE).decode();
    let mut factory = InstructionInfoFactory::new();
    factory.info(&theirs).used_registers().iter().any(|used| used.register().full_register() == Register::RSP)
}

fn one(machine: &mut Machine, rng: &mut Rng, insn: &[u8], mut regs: Regs, mut write: Write) {
    let index = (write.entry_addr() - machine.data as u64) as usize / 8;
    let shift = (write.addr & 7) * 8;
    if matches!(write.op, WriteOp::CompareExchange(_)) && rng.below(2) == 0 {
        // Make it succeed, unless the accumulator is part of the address.
        let old = machine.data()[index] >> shift & write.width.mask();
        let equal = Regs { rax: regs.rax & !write.width.mask() | old, ..regs };
        if decode(insn, &equal, flat).is_ok_and(|again| again.addr == write.addr) {
            regs = equal;
            write = decode(insn, &regs, flat).unwrap();
        }
    }
    if let Some(from) = write.load() {
        let at = (from & !7).wrapping_sub(machine.data as u64) as usize / 8;
        let word = machine.data()[at];
        write = write.loaded(word >> ((from & 7) * 8) & write.width.mask());
    }
    let before = machine.data()[index];
    let outcome = write.apply(before, &regs).unwrap();
    let mut ours = regs;
    outcome.commit(&mut ours);
    let mut expected = *machine.data();
    expected[index] = outcome.entry.unwrap_or(before);

    let mut theirs = regs;
    machine.run(insn, &mut theirs);
    let what = || format!("{}: {write:x?} on {before:x} with {regs:x?}", hex(insn));
    assert!(*machine.data() == expected, "memory {:x} not {:x}: {}", machine.data()[index], expected[index], what());
    let defined = match write.op {
        WriteOp::Bit(..) => 1,
        WriteOp::Alu(Alu::And | Alu::Or | Alu::Xor, _) => ARITHMETIC & !0x10,
        _ => ARITHMETIC,
    };
    assert_eq!(ours.rflags & (defined | DF), theirs.rflags & (defined | DF), "flags of {}", what());
    assert_eq!(ours.rip, regs.rip.wrapping_add(insn.len() as u64), "{}", what());
    for gpr in Gpr::ALL.into_iter().filter(|&gpr| gpr != Gpr::Rsp) {
        assert_eq!(gpr.get(&ours), gpr.get(&theirs), "{gpr:?} of {}", what());
    }
}
