// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine interface served by an ordinary process: an anonymous mapping is machine memory, a software page walk is
//! the MMU, CPUs are numbers that threads put on.
//!
//! There is one machine a process. A test that touches it holds the [`hosted::Machine`] that [`hosted::boot`] returns;
//! that serialises such tests, and each starts with zeroed memory and a fresh clock, TLB and console.
//!
//! What must hold: nothing here is more forgiving than the hardware (a write through a read-only entry fails, a stale
//! TLB entry is used until it is flushed).

#![no_std]

extern crate std;

pub use arch_types::{
    AtomicCpuMask, CpuId, CpuMask, CpuState, Flush, GuestFault, MAX_CPUS, Regs, SleepValues, cpumask, regs,
};
pub use arch_types::{LineMode, NoSuchLine, VECTOR_INT80, VECTOR_IRQ_FIRST, VECTOR_IRQ_LAST};

pub mod apic;
mod area;
pub mod console;
pub mod context;
pub mod cpu;
pub mod efi;
pub mod entry;
pub mod features;
pub mod fpu;
pub mod guest;
pub mod hosted;
pub mod ioapic;
pub mod ipi;
pub mod machine;
pub mod machine_check;
pub mod msr;
pub mod nmi;
pub mod pci;
pub mod phys;
pub mod port;
pub mod registers;
pub mod sync;
pub mod time;
pub mod timer;
pub mod tlb;
pub mod window;
