// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plain types of the machine interface that both its providers share.
#![no_std]
#![forbid(unsafe_code)]

pub mod cpumask;
pub mod idle;
pub mod line;
pub mod machine_check;
pub mod regs;
pub mod scale;

pub use cpumask::{AtomicCpuMask, CpuId, CpuMask, MAX_CPUS};
pub use idle::IdleClock;
pub use line::{LineMode, NoSuchLine, VECTOR_INT80, VECTOR_IRQ_FIRST, VECTOR_IRQ_LAST};
pub use regs::Regs;
pub use scale::TscScale;

/// What a TLB flush must drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Every guest translation, global ones included.
    All,
    /// The translations of one linear page, in every address space.
    Page(hypercalls::GuestVa),
}

/// What switches the machine off: the values of the firmware's registers, as whoever interprets its tables has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepValues {
    /// For the two PM1 control registers.
    Pm1(u16, u16),
    /// The sleep type for the sleep control register of hardware-reduced ACPI.
    Reduced(u8),
}

/// What a CPU keeps for the way out of the hypervisor and for shootdowns, as another one sees it: each word may change
/// at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuState {
    /// Bits of the work that waits for it.
    pub work: u32,
    /// The flush clock at its last full flush.
    pub flushed_at: u32,
    /// The time for which its timer is programmed, `u64::MAX` for none.
    pub deadline: u64,
    /// Its local APIC's number.
    pub apic_id: u32,
}

/// A guest address could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestFault;

impl From<GuestFault> for hypercalls::Errno {
    fn from(_: GuestFault) -> Self {
        Self::EFAULT
    }
}
