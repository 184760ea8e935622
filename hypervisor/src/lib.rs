// SPDX-License-Identifier: MIT OR Apache-2.0
//! The composition: domains and their vCPUs, what they may call, what happens when they fault.
//!
//! A library that builds for the machine and for a process alike; the binary beside it (`main.rs`, `machine/`) adds the
//! start of the machine. What is pure logic lives in modules that know nothing of a machine: [`builder`], [`emulate`],
//! [`runstate`], the queue of [`timers`].
#![no_std]

extern crate alloc;
#[cfg(not(target_os = "none"))]
extern crate std;

pub mod abi;
pub mod bounce;
pub mod builder;
pub mod console;
pub mod construct;
pub mod cpu_policy;
pub mod cpus;
pub mod crash;
pub mod create;
pub mod current;
pub mod death;
pub mod dispatch;
pub mod domain;
pub mod emulate;
pub mod events;
pub mod firmware;
pub mod grace;
pub mod grants;
pub mod guest;
pub mod host;
pub mod hypercall_page;
pub mod hypfs;
pub mod initialise;
#[cfg(target_os = "none")]
pub mod interrupts;
pub mod io_rights;
pub mod irq;
pub mod keys;
pub mod l1tf;
pub mod lingering;
pub mod log_ring;
pub mod machine_map;
pub mod mca;
pub mod mmu;
pub mod nmi;
pub mod operand;
pub mod ops;
#[cfg(target_os = "none")]
pub mod panic;
pub mod pci;
pub mod pirq;
pub mod placement;
pub mod pools;
pub mod port_io;
pub mod power;
pub mod privileged;
pub mod quirks;
pub mod rank;
pub mod registers;
pub mod runstate;
pub mod schedule;
pub mod shared;
pub mod snapshot;
pub mod stop;
pub mod stuck;
#[cfg(not(target_os = "none"))]
pub mod testing;
pub mod thermal;
pub mod time;
pub mod timers;
pub mod topology;
pub mod traps;
pub mod tsc;
pub mod vcpu;
pub mod watchdog;

pub use abi::table as abi_table;
