// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Xen PV ABI: numbers, layouts and errors, and nothing that has state.
//!
//! Structures are `repr(C)` with their padding written out; numbers that a guest chooses are open
//! newtypes, so that a value nobody has defined is still a value. [`layout`] says how both are made.
#![no_std]
#![forbid(unsafe_code)]
#![expect(missing_debug_implementations, reason = "the derive of KnownLayout makes helper types without it")]

pub mod addr;
pub mod console;
pub mod cpuid;
pub mod domctl;
pub mod domctl_args;
pub mod elfnote;
pub mod errno;
pub mod event;
pub mod grant;
pub mod guest_ptr;
pub mod hypfs;
pub mod layout;
pub mod mca;
pub mod memory;
pub mod mmu;
pub mod multicall;
pub mod number;
pub mod payload;
pub mod physdev;
pub mod platform;
pub mod platform_efi;
pub mod platform_power;
pub mod sched;
pub mod segment;
pub mod shared_info;
pub mod start_info;
pub mod sysctl;
pub mod sysctl_args;
pub mod trap;
pub mod vcpu;
pub mod version;
pub mod vm_assist;

pub use addr::{DomId, GuestVa, Maddr, Mfn, PAGE_SHIFT, PAGE_SIZE, Pfn, VcpuId};
pub use errno::{Errno, Result};
pub use event::Virq;
pub use guest_ptr::GuestPtr;
pub use multicall::MulticallEntry;
pub use number::HypercallNr;
pub use payload::Payload;
pub use shared_info::{SharedInfo, VcpuInfo, VcpuTimeInfo};
pub use start_info::StartInfo;
pub use trap::TrapInfo;
pub use vcpu::{CpuUserRegs, VcpuGuestContext};
