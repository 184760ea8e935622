// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plain types of the machine interface that both its providers share.
#![no_std]
#![forbid(unsafe_code)]

pub mod cpumask;
pub mod regs;

pub use cpumask::{AtomicCpuMask, CpuId, CpuMask, MAX_CPUS};
pub use regs::Regs;

/// What a TLB flush must drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Every guest translation, global ones included.
    All,
    /// The translations of one linear page, in every address space.
    Page(hypercalls::GuestVa),
}

/// A guest address could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestFault;

impl From<GuestFault> for hypercalls::Errno {
    fn from(_: GuestFault) -> Self {
        Self::EFAULT
    }
}
