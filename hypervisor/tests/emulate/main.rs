// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions that are emulated, against an independent decoder. `XENITH_SEED=n` replays random ones.

mod privileged;
mod writes;

use hypervisor::emulate::{CodeSize, Reject, decode};
use mm::hosted::{Random, Source};

/// Random numbers from a seed that is printed.
fn source() -> Source<'static> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Source::Random(Random::from_env(now.map_or(1, |now| now.as_nanos() as u64)))
}

/// Up to 15 bytes, most of them likely ones.
fn bytes(rng: &mut Source<'_>, likely: &[u8]) -> Vec<u8> {
    let len = 1 + rng.below(15);
    (0..len).map(|_| if rng.below(3) == 0 { rng.word() as u8 } else { rng.pick(likely) }).collect()
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
    for code in privileged::SIZES {
        for lead in &lead {
            for opcode in 0..512u16 {
                let map = if opcode >= 256 { &[0x0f][..] } else { &[] };
                let tail = [opcode as u8, 0xd1, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde];
                let bytes = [lead, map, &tail].concat();
                privileged::check(&bytes, code);
            }
        }
    }
}

#[test]
fn every_modrm_of_the_moves_and_of_group_0f01() {
    for code in privileged::SIZES {
        for opcode in [0x01, 0x20, 0x21, 0x22, 0x23] {
            for modrm in 0..=255 {
                privileged::check(&[0x0f, opcode, modrm, 0x24, 0, 0, 0, 0, 0, 0], code);
                privileged::check(&[0xf3, 0x0f, opcode, modrm, 0x24, 0, 0, 0, 0, 0, 0], code);
                for rex in 0x40..=0x4f {
                    privileged::check(&[rex, 0x0f, opcode, modrm, 0x24, 0, 0, 0, 0, 0, 0], code);
                }
            }
        }
    }
}

#[test]
fn random_privileged_instructions_agree() {
    let mut rng = source();
    let likely = [
        0x0f, 0x20, 0x22, 0x30, 0x31, 0x32, 0xa2, 0x01, 0xf9, 0xd1, 0x48, 0x66, 0x67, 0xf2, 0xf3, 0x6c, 0x6f, 0xe4,
        0xee, 0xcd, 0xcf, 0xfa, 0x64, 0x2e, 0x09, 0xf0,
    ];
    for _ in 0..100_000 {
        privileged::check(&bytes(&mut rng, &likely), rng.pick(&privileged::SIZES));
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

#[test]
fn all_writes_agree_with_the_other_decoder() {
    let mut rng = source();
    let mut prefixes: Vec<u8> = (0x40..=0x4f).collect();
    prefixes.extend([0x26, 0x2e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3]);
    let mut lead: Vec<Vec<u8>> = Vec::from([Vec::new()]);
    lead.extend(prefixes.iter().map(|&p| Vec::from([p])));
    for &a in &prefixes[16..] {
        lead.extend(prefixes.iter().map(|&b| Vec::from([a, b])));
    }
    let mut accepted = 0;
    for lead in &lead {
        for opcode in 0..512u16 {
            let map = if opcode >= 256 { &[0x0f][..] } else { &[] };
            for modrm in (0..=255).step_by(29) {
                let mut bytes = [lead, map, &[opcode as u8, modrm]].concat();
                while bytes.len() < 15 {
                    bytes.push(rng.word() as u8 & 0xf8);
                }
                let regs = writes::regs(&mut rng);
                accepted += u32::from(writes::check(&bytes, &regs, rng.word() & !7, rng.word() & !7));
            }
        }
    }
    assert!(accepted > 3_000);
}

#[test]
fn random_writes_agree() {
    let mut rng = source();
    let likely = [
        0x0f, 0x48, 0x89, 0x87, 0xab, 0xb3, 0xbb, 0xba, 0xb1, 0xc1, 0xc7, 0xf0, 0x66, 0x67, 0x65, 0xf3, 0x83, 0x81,
        0x21, 0x44, 0x24, 0xa4, 0xa5, 0xaa, 0xa3, 0xff, 0x05, 0x04, 0x2e, 0x01,
    ];
    for _ in 0..100_000 {
        let regs = writes::regs(&mut rng);
        writes::check(&bytes(&mut rng, &likely), &regs, rng.edge(), rng.edge());
    }
}
