// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registers of an interrupted guest, in the order in which the entry stubs push them.
//!
//! The first 25 words have the layout of the ABI's `cpu_user_regs` up to `ss`.

/// Registers of an interrupted context.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are the registers they are named after")]
pub struct Regs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// Error code of the exception, 0 where the CPU pushes none.
    pub error_code: u32,
    /// Vector of the exception or interrupt; 0x100 for SYSCALL, 0x101 for SYSENTER, 0x102 for SYSCALL from 32-bit code.
    pub vector: u32,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

const _: () = assert!(size_of::<Regs>() == 21 * 8);
