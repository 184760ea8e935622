// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine around the CPUs: console UART, firmware tables, interrupt controllers, clocks, power.
//!
//! Nothing here knows of page tables: whoever starts the machine hands over functions that map tables
//! and device registers. Everything but [`ioapic`] may run before the heap exists, and all before interrupts are on.

pub mod acpi;
pub mod apic;
pub mod clock;
pub mod efi;
pub mod ioapic;
pub mod machine;
pub mod nmi;
pub mod pic;
pub mod port;
mod reference;
pub mod rtc;
pub mod screen;
pub mod serial;
pub mod smp;
pub mod thermal;
pub mod timer;

/// The local APIC's spurious interrupt; wants no end-of-interrupt.
pub const VECTOR_SPURIOUS: u8 = 0xff;
/// The local APIC found an error in an interrupt message.
pub const VECTOR_APIC_ERROR: u8 = 0xfe;
/// This CPU's one-shot timer.
pub const VECTOR_TIMER: u8 = 0xfd;
/// Another CPU wants this one to look at its run queue.
pub const VECTOR_RESCHEDULE: u8 = 0xfc;
/// Another CPU wants this one to flush its TLB.
pub const VECTOR_TLB: u8 = 0xfb;
/// Another CPU wants this one to run a function, or to stop.
pub const VECTOR_CALL: u8 = 0xfa;
/// The CPU is too hot, or has cooled down.
pub const VECTOR_THERMAL: u8 = 0xf9;
/// Where the masked 8259s would deliver: 16 vectors on which only spurious interrupts can arrive.
pub const VECTOR_PIC: u8 = 0x20;

/// Maps `len` bytes of machine memory or device registers at a machine address; null when it cannot.
/// What it returned stays mapped.
pub type Map = fn(maddr: u64, len: usize) -> *mut u8;
