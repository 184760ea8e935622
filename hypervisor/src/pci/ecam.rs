// SPDX-License-Identifier: MIT OR Apache-2.0
//! Windows of configuration space: which of those that the firmware describes may be used.
//!
//! A window may be used at once when the memory map reserves its range; else when dom0, which reads more of the firmware's
//! tables, says that it is reserved.

use hypercalls::Result;
use hypercalls::physdev::{PhysdevPciMmcfgReserved, XEN_PCI_MMCFG_RESERVED};

use super::config;

/// A window as the firmware describes it.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Machine address of bus 0's, whether or not the window has it.
    pub base: u64,
    /// The segment.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

/// Takes note of the windows; `is_reserved` says of a range of addresses whether the memory map reserves it.
pub fn init(windows: impl Iterator<Item = Window>, is_reserved: impl Fn(core::ops::Range<u64>) -> bool) {
    for w in windows {
        config::note_window(w.base, w.segment, w.first_bus, w.last_bus);
        let bus = |n: u64| w.base + (n << 20);
        let reserved = is_reserved(bus(w.first_bus.into())..bus(u64::from(w.last_bus) + 1));
        let used = reserved && config::use_window(w.base, w.segment, w.first_bus, w.last_bus).is_ok();
        log::info!(
            "PCI segment {:04x}, buses {:02x}-{:02x}: configuration space at {:#x}{}",
            w.segment,
            w.first_bus,
            w.last_bus,
            w.base,
            if used { "" } else { ", not used yet" }
        );
    }
}

/// dom0 says whether a window's range is reserved.
///
/// # Errors
/// `ENODEV` when the firmware describes no such window, `EINVAL` when it lies where none can be, `ENOMEM`.
pub fn reserved(args: &PhysdevPciMmcfgReserved) -> Result<()> {
    let act = if args.flags & XEN_PCI_MMCFG_RESERVED != 0 { config::use_window } else { config::leave_window };
    act(args.address, args.segment, args.start_bus, args.end_bus)
}
