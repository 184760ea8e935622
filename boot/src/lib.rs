// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the loader's hand-over to plain Rust data.
//!
//! On the machine this crate holds the multiboot2 header, the 32-bit entry and the trampoline that starts the other CPUs.
//! Everywhere, it parses what the loader left: boot information, command line, options, modules. The parsers are pure:
//! they see byte slices, allocate nothing, and never panic whatever the bytes are.
#![no_std]

#[cfg(test)]
extern crate std;

mod bytes;
pub mod cmdline;
pub mod efi_map;
#[cfg(target_os = "none")]
pub mod entry;
pub mod info;
pub mod memory_map;
pub mod modules;
pub mod options;
pub mod rsdp;
pub mod static_domain;
#[cfg(target_os = "none")]
pub mod trampoline;

#[cfg(target_os = "none")]
pub use entry::boot_cr3;
pub use info::{BootInfo, Error, Module, Warning};
pub use memory_map::{MemRegion, RegionKind};
pub use options::Options;
pub use rsdp::Rsdp;
