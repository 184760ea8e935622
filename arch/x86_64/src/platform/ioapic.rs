// SPDX-License-Identifier: MIT OR Apache-2.0
//! The I/O APICs: every line masked at boot, then routed one by one.
//!
//! Global interrupts are numbered through all I/O APICs. A line's destination is a CPU's APIC number
//! in physical mode.
#![expect(unsafe_code, reason = "device memory")]

use arrayvec::ArrayVec;
use spin::mutex::Mutex;

use super::Map;
use super::acpi::{IoApicInfo, LineMode};
use crate::sync::Relax;

const SELECT: usize = 0;
const WINDOW: usize = 0x10;
const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;

const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

struct Chip {
    base: usize,
    gsi_base: u32,
    lines: u32,
}

static CHIPS: Mutex<ArrayVec<Chip, 64>, Relax> = Mutex::new(ArrayVec::new_const());

impl Chip {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: `init` was promised that the registers are mapped here; the lock around all chips
        // keeps selection and access together.
        unsafe {
            ((self.base + SELECT) as *mut u32).write_volatile(register);
            ((self.base + WINDOW) as *const u32).read_volatile()
        }
    }
    fn write(&self, register: u32, value: u32) {
        // SAFETY: as in `read`.
        unsafe {
            ((self.base + SELECT) as *mut u32).write_volatile(register);
            ((self.base + WINDOW) as *mut u32).write_volatile(value);
        }
    }
    fn low(&self, line: u32) -> u32 {
        self.read(REDIRECTION + line * 2)
    }
    fn set_low(&self, line: u32, value: u32) {
        self.write(REDIRECTION + line * 2, value);
    }
    fn set_high(&self, line: u32, value: u32) {
        self.write(REDIRECTION + line * 2 + 1, value);
    }
}

/// There is no such global interrupt, or the CPU cannot be named in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchLine;

/// Maps all I/O APICs and masks every line. Returns how many lines there are in all.
///
/// # Safety
/// `map` must map device registers uncached; the addresses must be I/O APICs'.
pub unsafe fn init(found: &[IoApicInfo], map: Map) -> u32 {
    let mut chips = CHIPS.lock();
    chips.clear();
    for info in found {
        let base = map(info.maddr, 0x20) as usize;
        if base == 0 {
            log::warn!("I/O APIC {} at {:#x} cannot be mapped: its interrupts are lost", info.id, info.maddr);
            continue;
        }
        let mut chip = Chip { base, gsi_base: info.gsi_base, lines: 0 };
        let version = chip.read(VERSION);
        if version == u32::MAX {
            log::warn!("I/O APIC {} at {:#x} does not answer", info.id, info.maddr);
            continue;
        }
        chip.lines = (version >> 16 & 0xff) + 1;
        for line in 0..chip.lines {
            chip.set_low(line, MASKED);
            chip.set_high(line, 0);
        }
        let _ = chips.try_push(chip);
    }
    chips.iter().map(|c| c.lines).sum()
}

fn with<T>(gsi: u32, act: impl FnOnce(&Chip, u32) -> T) -> Result<T, NoSuchLine> {
    let chips = CHIPS.lock();
    let chip = chips.iter().find(|c| gsi.checked_sub(c.gsi_base).is_some_and(|line| line < c.lines));
    chip.map(|c| act(c, gsi - c.gsi_base)).ok_or(NoSuchLine)
}

/// True when some I/O APIC has this global interrupt.
pub fn exists(gsi: u32) -> bool {
    with(gsi, |_, _| ()).is_ok()
}

/// Returns one more than the highest global interrupt.
pub fn gsi_end() -> u32 {
    CHIPS.lock().iter().map(|c| c.gsi_base.saturating_add(c.lines)).max().unwrap_or(0)
}

fn entry(vector: u8, mode: LineMode, masked: bool) -> u32 {
    u32::from(vector)
        | if mode.level { LEVEL } else { 0 }
        | if mode.active_low { ACTIVE_LOW } else { 0 }
        | if masked { MASKED } else { 0 }
}

/// Lets a global interrupt arrive at one CPU as a vector.
pub fn route(gsi: u32, vector: u8, apic_id: u32, mode: LineMode, masked: bool) -> Result<(), NoSuchLine> {
    // Wider numbers need interrupt remapping.
    let destination = u8::try_from(apic_id).map_err(|_| NoSuchLine)?;
    with(gsi, |chip, line| {
        // Masked while the two halves do not fit together.
        chip.set_low(line, chip.low(line) | MASKED);
        chip.set_high(line, u32::from(destination) << 24);
        chip.set_low(line, entry(vector, mode, masked));
    })
}

/// Lets a global interrupt through.
pub fn unmask(gsi: u32) -> Result<(), NoSuchLine> {
    with(gsi, |chip, line| chip.set_low(line, chip.low(line) & !MASKED))
}

/// Holds a global interrupt back.
pub fn mask(gsi: u32) -> Result<(), NoSuchLine> {
    with(gsi, |chip, line| chip.set_low(line, chip.low(line) | MASKED))
}

/// Holds every interrupt back: on the way to a reset.
pub fn mask_all() {
    if let Some(chips) = CHIPS.try_lock() {
        for chip in chips.iter() {
            (0..chip.lines).for_each(|line| chip.set_low(line, MASKED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let pci = LineMode { level: true, active_low: true };
        assert_eq!(entry(0x31, LineMode::default(), false), 0x31);
        assert_eq!(entry(0x41, pci, true), 0x1_a041);
        assert_eq!(route(3, 0x31, 0, pci, true), Err(NoSuchLine));
        assert_eq!((exists(0), gsi_end()), (false, 0));
    }
}
