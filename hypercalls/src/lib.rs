// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Xen PV ABI: numbers, layouts and errors, and nothing that has state.
#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
pub mod errno;

pub use addr::{DomId, GuestVa, Maddr, Mfn, Pfn, VcpuId};
pub use errno::{Errno, Result};
