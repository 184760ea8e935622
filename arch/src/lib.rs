// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine interface: one list of names, provided by the hardware or by an ordinary process.
#![no_std]

#[cfg(not(target_os = "none"))]
pub use arch_hosted::*;
#[cfg(target_os = "none")]
pub use arch_x86_64::*;
