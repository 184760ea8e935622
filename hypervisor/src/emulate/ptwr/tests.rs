// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page-table writes against what they should be, and against the processor itself.

mod processor;

use super::super::std::{format, string::String};
use super::super::testing::Rng;
use super::*;

pub(super) fn random_regs(rng: &mut Rng) -> Regs {
    let mut regs = Regs { rip: rng.next() >> 17, rflags: 0x202, ..Regs::default() };
    for gpr in Gpr::ALL {
        gpr.set(&mut regs, rng.edge());
    }
    regs
}

/// Segments that all begin at 0.
pub(super) fn flat(_: Segment) -> u64 {
    0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x} ")).collect()
}

fn write(bytes: &[u8], regs: &Regs) -> Write {
    decode(bytes, regs, flat).unwrap_or_else(|why| panic!("{}: {why:?}", hex(bytes)))
}

#[test]
fn the_plain_forms_and_the_general_parser_agree() {
    let mut rng = Rng::new();
    let mut plain = 0;
    for _ in 0..50_000 {
        let mut bytes = rng.next().to_le_bytes();
        bytes[0] = 0x48 | bytes[0] & 7;
        bytes[1] = if bytes[1] & 1 == 0 { 0x87 } else { 0x89 };
        let regs = random_regs(&mut rng);
        let Some(seen) = Plain::decode(u64::from_le_bytes(bytes), &regs) else {
            // A SIB byte, an operand relative to RIP, or no memory operand at all.
            let (mode, rm) = (bytes[2] >> 6, bytes[2] & 7);
            assert!(mode == 3 || rm == 4 || (mode == 0 && rm == 5), "{}", hex(&bytes));
            continue;
        };
        if seen.addr & 7 != 0 {
            assert_eq!(decode(&bytes, &regs, flat), Err(Reject::Misaligned), "{}", hex(&bytes));
            continue;
        }
        plain += 1;
        let general = write(&bytes, &regs);
        assert_eq!((general.addr, general.width, general.len), (seen.addr, Width::Qword, seen.len), "{}", hex(&bytes));
        let (mut ours, mut theirs) = (regs, regs);
        let outcome = general.apply(0x1234, &regs).expect("nothing has to be loaded");
        assert_eq!(outcome.entry, Some(seen.value));
        outcome.commit(&mut theirs);
        if seen.exchanges {
            seen.register.set(&mut ours, 0x1234);
        }
        seen.commit(&mut ours);
        assert_eq!(ours, theirs, "{}", hex(&bytes));
    }
    assert!(plain > 1000, "only {plain} were aligned");
}

/// What Linux does to a page-table entry.
#[test]
fn linux_forms() {
    let mut regs =
        Regs { rdi: 0x1008, rax: 0x77, rsi: 0x8000_0000_1234_5067, rip: 0x100, rflags: 0x1_0202, ..Regs::default() };
    let set_pte = write(&[0x48, 0x89, 0x37], &regs);
    assert_eq!((set_pte.addr, set_pte.width, set_pte.op), (0x1008, Width::Qword, WriteOp::Store(regs.rsi)));
    let outcome = set_pte.apply(1, &regs).unwrap();
    assert_eq!(outcome.entry, Some(regs.rsi));
    outcome.commit(&mut regs);
    assert_eq!((regs.rip, regs.rflags), (0x103, 0x202));

    // xchg %rax,(%rdi): ptep_get_and_clear.
    let outcome = write(&[0x48, 0x87, 0x07], &regs).apply(0x1067, &regs).unwrap();
    assert_eq!(outcome.entry, Some(0x77));
    outcome.commit(&mut regs);
    assert_eq!((regs.rax, regs.rip), (0x1067, 0x106));

    // lock btrl $1,(%rdi): ptep_set_wrprotect.
    let outcome = write(&[0xf0, 0x0f, 0xba, 0x37, 0x01], &regs).apply(0x1067, &regs).unwrap();
    assert_eq!(outcome.entry, Some(0x1065));
    outcome.commit(&mut regs);
    assert_eq!((regs.rflags, regs.rip), (0x203, 0x10b));

    // lock andb $0xfd,(%rdi).
    let outcome = write(&[0xf0, 0x80, 0x27, 0xfd], &regs).apply(0xffff_ffff_ffff_ffff, &regs).unwrap();
    assert_eq!(outcome.entry, Some(0xffff_ffff_ffff_fffd));

    // lock cmpxchg %rsi,(%rdi), once with and once without the expected value.
    let exchange = write(&[0xf0, 0x48, 0x0f, 0xb1, 0x37], &regs);
    assert_eq!(exchange.apply(0x1067, &regs).unwrap().entry, Some(regs.rsi));
    let failed = exchange.apply(0x2067, &regs).unwrap();
    assert_eq!(failed.entry, None);
    failed.commit(&mut regs);
    assert_eq!((regs.rax, regs.rflags & 0x40), (0x2067, 0));
}

#[test]
fn string_instructions_go_one_element_at_a_time() {
    let mut regs = Regs { rax: 5, rcx: 2, rdi: 0x2000, rsi: 0x3000, rip: 0x10, rflags: 0x202, ..Regs::default() };
    let stos = write(&[0xf3, 0x48, 0xab], &regs);
    assert_eq!((stos.addr, stos.load()), (0x2000, None));
    stos.apply(9, &regs).unwrap().commit(&mut regs);
    assert_eq!((regs.rcx, regs.rdi, regs.rip), (1, 0x2008, 0x10));
    write(&[0xf3, 0x48, 0xab], &regs).apply(9, &regs).unwrap().commit(&mut regs);
    assert_eq!((regs.rcx, regs.rdi, regs.rip), (0, 0x2010, 0x13));
    assert_eq!(decode(&[0xf3, 0x48, 0xab], &regs, flat), Err(Reject::Unlisted));

    regs.rflags |= DF;
    let movs = decode(&[0x65, 0x48, 0xa5], &regs, |_| 0x100).unwrap();
    assert_eq!((movs.addr, movs.load()), (0x2010, Some(0x3100)));
    assert_eq!(movs.apply(0, &regs), None);
    let outcome = movs.loaded(0x42).apply(0, &regs).unwrap();
    assert_eq!(outcome.entry, Some(0x42));
    outcome.commit(&mut regs);
    assert_eq!((regs.rsi, regs.rdi, regs.rip), (0x2ff8, 0x2008, 0x16));
}

/// A bit offset in a register is signed and reaches far beyond the operand.
#[test]
fn bit_offsets_are_not_cut() {
    let regs = Regs { rdi: 1 << 40, rsi: 1 << 39, ..Regs::default() };
    let bts = [0x48, 0x0f, 0xab, 0x37];
    assert_eq!(write(&bts, &regs).addr, (1 << 40) + (1 << 36));
    let regs = Regs { rsi: (-1i64) as u64, ..regs };
    assert_eq!((write(&bts, &regs).addr, write(&bts, &regs).op), ((1 << 40) - 8, WriteOp::Bit(BitOp::Bts, 63)));
    assert_eq!(write(&[0x66, 0x0f, 0xab, 0x37], &regs).addr, (1 << 40) - 2);
}

#[test]
fn what_is_not_emulated_is_refused() {
    let regs = Regs { rdi: 0x1000, ..Regs::default() };
    for bytes in [
        &[0x48, 0x0f, 0xc7, 0x0f][..], // cmpxchg16b
        &[0x0f, 0xc7, 0x0f],           // cmpxchg8b
        &[0x48, 0x39, 0x07],           // cmp
        &[0x48, 0x83, 0x3f, 0],        // cmp
        &[0x48, 0x85, 0x07],           // test
        &[0x48, 0x8b, 0x07],           // a load
        &[0x48, 0x89, 0xc7],           // no memory
        &[0x0f, 0xba, 0x27, 1],        // bt
        &[0x8f, 0x07],                 // pop
        &[0x0f, 0x11, 0x07],           // movups
        &[0xc5, 0xfc, 0x11, 0x07],     // vmovups
    ] {
        assert_eq!(decode(bytes, &regs, flat), Err(Reject::Unlisted), "{}", hex(bytes));
    }
    assert_eq!(decode(&[0xf0, 0x48, 0x89, 0x07], &regs, flat), Err(Reject::Invalid));
    assert_eq!(decode(&[0x66, 0x0f, 0xc3, 0x07], &regs, flat), Err(Reject::Invalid));
    assert_eq!(decode(&[0x48, 0x89, 0x47, 0x01], &regs, flat), Err(Reject::Misaligned));
    assert_eq!(decode(&[0x48, 0x89, 0x87, 0x01], &regs, flat), Err(Reject::Truncated));
}
