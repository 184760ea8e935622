// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI functions, as far as the hypervisor has a say in them: who told it of which, their interrupt messages, and what dom0
//! may write to their configuration space.
//!
//! dom0 drives the devices and tells of each ([`device`]). Messages are written by the hypervisor alone ([`msi`]): what it
//! needs to know of a device, above all where the table of MSI-X lies, is read while the device is dom0's and kept (XSA-337).
//! Writes to configuration space ([`watch`]) and to the tables' pages ([`guard`]) are looked at first, so that no message
//! leaves a device but those that the hypervisor composed.
//!
//! # Locking
//! A device's lock is taken under an interrupt's; the registry of devices and the guarded frames are innermost.

pub mod capability;
pub mod config;
pub mod device;
pub mod ecam;
pub mod guard;
pub mod map;
pub mod msi;
pub mod place;
mod table;
pub mod watch;

pub use place::Place;

/// Forgets devices and windows, for a new machine.
#[cfg(not(target_os = "none"))]
pub fn forget_all() {
    device::forget_all();
    guard::forget_all();
    config::forget_windows();
}
