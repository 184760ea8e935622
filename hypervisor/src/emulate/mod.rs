// SPDX-License-Identifier: MIT OR Apache-2.0
//! Emulation of what a ring-3 kernel may not execute itself, as pure logic.
//!
//! Nothing here touches the machine, a vCPU or guest memory: instruction bytes, registers and the policy come in as
//! arguments, and what is to be done comes out as a value of a closed enum. Two things always hold. Only listed
//! instructions decode, and everything else is refused before it has any effect. What was decided from the bytes that
//! were fetched once is never decided again from a second reading.

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod cpuid;
pub mod crdr;
pub mod decode;
pub mod descriptor;
pub mod io;
pub mod msr;
pub mod ptwr;
pub mod reg;

mod cursor;
mod modrm;
mod prefix;
#[cfg(test)]
mod testing;

pub use cursor::Reject;
pub use decode::{Decoded, Insn, decode};
pub use reg::{Gpr, Width};

/// The longest instruction there is, in bytes; the most that is ever worth fetching.
pub const MAX_INSN: usize = 15;

/// How the processor reads a code segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeSize {
    /// 16-bit operands and addresses unless a prefix says otherwise.
    Bits16,
    /// 32-bit operands and addresses.
    Bits32,
    /// 64-bit addresses, REX prefixes.
    Bits64,
}

/// A segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the registers they are named after")]
pub enum Segment {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}
