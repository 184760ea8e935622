// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine: x86-64 CPUs, their tables and entry points, page-table hardware, interrupts and timers.
//!
//! Nearly all `unsafe` and all assembly of Xenith is here and in `boot`. Nothing here knows what a domain is: a vCPU
//! is a [`context::Context`] to be loaded and saved, a guest fault is a call to a function that the binary provides.
//! Interrupts are off everywhere but in [`entry::wait_for_interrupt`] and [`entry::take_interrupts`].
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod context;
pub mod cpu;
pub mod cpu_area;
pub mod descriptors;
pub mod efi;
pub mod entry;
pub mod features;
pub mod fixup;
pub mod fpu;
pub mod guest;
pub mod layout;
pub mod machine_check;
pub mod msr;
pub mod paging;
pub mod phys;
pub mod platform;
pub mod port;
pub mod registers;
pub mod sync;
pub mod time;
pub mod tlb;
pub mod window;

pub use platform::{apic, ioapic, machine, nmi, serial as console, timer};

pub use arch_types::{AtomicCpuMask, CpuId, CpuMask, CpuState, Flush, GuestFault, MAX_CPUS, Regs, SleepValues};
pub use arch_types::{LineMode, NoSuchLine, VECTOR_INT80, VECTOR_IRQ_FIRST, VECTOR_IRQ_LAST};
