// SPDX-License-Identifier: MIT OR Apache-2.0
//! Model-specific registers: EFER exists, nothing else does.

/// Extended features.
pub const EFER: u32 = 0xc000_0080;

/// Reads a register that may not exist.
pub fn read_safe(index: u32) -> Option<u64> {
    // SCE, LME, LMA, NXE.
    (index == EFER).then_some(0xd01)
}
