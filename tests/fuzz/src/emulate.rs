// SPDX-License-Identifier: MIT OR Apache-2.0
//! The decoder of privileged instructions, against another decoder.

#[path = "../../../hypervisor/tests/emulate/privileged.rs"]
mod privileged;

/// The first byte says how the code is read, the others are the instruction.
pub fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let insn = &rest[..rest.len().min(hypervisor::emulate::MAX_INSN)];
    if !insn.is_empty() {
        privileged::check(insn, privileged::SIZES[usize::from(*first) % privileged::SIZES.len()]);
    }
}
