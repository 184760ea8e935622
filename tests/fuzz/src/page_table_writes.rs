// SPDX-License-Identifier: MIT OR Apache-2.0
//! The emulation of writes to page tables: decoding against another decoder, then the write itself.

use hypervisor::emulate::{MAX_INSN, ptwr};
use mm::hosted::Source;

#[path = "../../../hypervisor/tests/emulate/writes.rs"]
mod writes;

/// The first bytes are the instruction; the rest decides about registers and the entry's old value.
pub fn run(bytes: &[u8]) {
    let (insn, rest) = bytes.split_at(bytes.len().min(MAX_INSN));
    if insn.is_empty() {
        return;
    }
    let mut source = Source::Bytes(rest);
    let mut regs = writes::regs(&mut source);
    let (fs, gs) = (source.edge(), source.edge());
    writes::check(insn, &regs, fs, gs);
    let base = |segment| if segment == hypervisor::emulate::Segment::Fs { fs } else { gs };
    let Ok(write) = ptwr::decode(insn, &regs, base) else { return };
    let write = write.loaded(source.word());
    assert_eq!(write.load(), None, "what was to be read was read");
    assert_eq!(write.entry_addr() % 8, 0);
    let (entry, before) = (source.word(), regs);
    let outcome = write.apply(entry, &regs).expect("nothing is left to be read");
    let bits = write.width.mask() << (8 * (write.addr % 8));
    assert!(outcome.entry.is_none_or(|new| (new ^ entry) & !bits == 0), "only what the operand covers changes");
    outcome.commit(&mut regs);
    let next = before.rip.wrapping_add(u64::from(write.len));
    assert!(regs.rip == next || regs.rip == before.rip, "on to the next instruction, or the same once more");
    assert_eq!((regs.rflags ^ before.rflags) & !0x1_08d5, 0, "only arithmetic flags and RF change");
}
