// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI configuration space: by the pair of ports where they reach, else by the window that maps a segment's buses (ECAM).

use alloc::vec::Vec;

use arch::port;
use arch::registers::Registers;
use hypercalls::{Errno, Result};
use mm::Lock;
use spin::rwlock::RwLock;

use super::{Place, guard};
use crate::emulate::Width;
use crate::rank;

/// Offset and data of the mechanism by ports (PCI Local Bus Specification 3.0, 3.2.2.3.2).
const ADDRESS_PORT: u16 = 0xcf8;
const DATA_PORT: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;
/// What the ports reach of a function.
const BY_PORTS: u16 = 0x100;
/// What a function has.
pub const SIZE: u16 = 0x1000;
/// Bytes of a bus in a window.
const BUS: u64 = 1 << 20;

/// The address port and the data port belong together.
static PORTS: Lock<()> = Lock::new(rank::CONFIG_PORTS, ());

/// A range of buses that is mapped into memory.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// Machine address of its first bus.
    maddr: u64,
    segment: u16,
    first_bus: u8,
    last_bus: u8,
    /// Its registers, while it may be used.
    registers: Option<Registers>,
}

static WINDOWS: RwLock<Vec<Window>, arch::sync::Relax> = RwLock::new(Vec::new());

impl Window {
    fn bytes(&self) -> u64 {
        (u64::from(self.last_bus - self.first_bus) + 1) * BUS
    }

    fn is(&self, segment: u16, bus: u8) -> bool {
        self.segment == segment && (self.first_bus..=self.last_bus).contains(&bus)
    }
}

/// Notes a window that the firmware's tables describe: `base` is where bus 0 of its segment would be. It is used only after
/// [`use_window`].
pub fn note_window(base: u64, segment: u16, first_bus: u8, last_bus: u8) {
    let maddr = base + u64::from(first_bus) * BUS;
    WINDOWS.write().push(Window { maddr, segment, first_bus, last_bus, registers: None });
}

/// Uses a window from now on: the firmware, or dom0, says that its range is nothing else. Its frames become read-only for
/// guests.
///
/// # Errors
/// `ENODEV` when no such window was noted, `ENOMEM`.
pub fn use_window(base: u64, segment: u16, first_bus: u8, last_bus: u8) -> Result<()> {
    let mut windows = WINDOWS.write();
    let at = base.saturating_add(u64::from(first_bus) * BUS);
    let same = |w: &&mut Window| (w.maddr, w.segment, w.first_bus, w.last_bus) == (at, segment, first_bus, last_bus);
    let window = windows.iter_mut().find(same).ok_or(Errno::ENODEV)?;
    if window.registers.is_none() {
        let guarded = guard::Guarded::config_space(window.maddr, window.bytes())?;
        window.registers = Some(guarded.registers());
        guard::add(guarded)?;
    }
    Ok(())
}

/// Does not use a window any more.
///
/// # Errors
/// `ENODEV` when no such window was noted.
pub fn leave_window(base: u64, segment: u16, first_bus: u8, last_bus: u8) -> Result<()> {
    let mut windows = WINDOWS.write();
    let at = base.saturating_add(u64::from(first_bus) * BUS);
    let same = |w: &&mut Window| (w.maddr, w.segment, w.first_bus, w.last_bus) == (at, segment, first_bus, last_bus);
    let window = windows.iter_mut().find(same).ok_or(Errno::ENODEV)?;
    // Its frames stay guarded: guests may have mappings, and writes through them find their way by the ports.
    window.registers = None;
    Ok(())
}

/// Calls `f` with each window: machine address, bytes, segment, first bus.
pub fn for_each_window(mut f: impl FnMut(u64, u64, u16, u8)) {
    for window in WINDOWS.read().iter() {
        f(window.maddr, window.bytes(), window.segment, window.first_bus);
    }
}

/// Returns the function and the offset at a machine address, if it lies in a window.
pub fn place_at(maddr: u64) -> Option<(Place, u16)> {
    let windows = WINDOWS.read();
    let window = windows.iter().find(|w| (w.maddr..w.maddr + w.bytes()).contains(&maddr))?;
    let offset = maddr - window.maddr;
    let bus = window.first_bus + (offset / BUS) as u8;
    Some((Place { segment: window.segment, bus, devfn: (offset >> 12) as u8 }, (offset & 0xfff) as u16))
}

fn by_window(place: Place) -> Option<(Registers, usize)> {
    let windows = WINDOWS.read();
    let window = windows.iter().find(|w| w.is(place.segment, place.bus))?;
    let at = usize::from(place.bus - window.first_bus) << 20 | usize::from(place.devfn) << 12;
    Some((window.registers?, at))
}

fn address(place: Place, at: u16) -> u32 {
    ENABLE | u32::from(place.bus) << 16 | u32::from(place.devfn) << 8 | u32::from(at & 0xfc)
}

/// True when the access lies within one word of the space.
const fn fits(at: u16, width: Width) -> bool {
    at < SIZE && (at & 3) as u32 + width.bytes() <= 4
}

/// Reads configuration space; all ones where nothing is.
pub fn read(place: Place, at: u16, width: Width) -> u32 {
    if !fits(at, width) {
        return u32::MAX;
    }
    if place.segment == 0 && at < BY_PORTS {
        let _both = PORTS.lock();
        port::guest_write32(ADDRESS_PORT, address(place, at));
        let data = DATA_PORT + (at & 3);
        return match width {
            Width::Byte => port::guest_read8(data).into(),
            Width::Word => port::guest_read16(data).into(),
            _ => port::guest_read32(data),
        };
    }
    let Some((registers, base)) = by_window(place) else { return u32::MAX };
    let at = base + usize::from(at);
    match width {
        Width::Byte => registers.read8(at).into(),
        Width::Word => registers.read16(at).into(),
        _ => registers.read32(at),
    }
}

/// Writes configuration space, whatever it is that is written. What guests write goes by [`super::watch`].
pub(super) fn write(place: Place, at: u16, width: Width, value: u32) {
    if !fits(at, width) {
        return;
    }
    if place.segment == 0 && at < BY_PORTS {
        let _both = PORTS.lock();
        port::guest_write32(ADDRESS_PORT, address(place, at));
        let data = DATA_PORT + (at & 3);
        return match width {
            Width::Byte => port::guest_write8(data, value as u8),
            Width::Word => port::guest_write16(data, value as u16),
            _ => port::guest_write32(data, value),
        };
    }
    if let Some((registers, base)) = by_window(place) {
        let at = base + usize::from(at);
        match width {
            Width::Byte => registers.write8(at, value as u8),
            Width::Word => registers.write16(at, value as u16),
            _ => registers.write32(at, value),
        }
    }
}

/// Forgets all windows, for a new machine.
#[cfg(not(target_os = "none"))]
pub(super) fn forget_windows() {
    WINDOWS.write().clear();
}
