// SPDX-License-Identifier: MIT OR Apache-2.0
//! The I/O APICs: every line masked at boot, then routed one by one.
//!
//! Global interrupts are numbered through all I/O APICs. A line's destination is one CPU, in physical mode. Each I/O APIC has
//! a lock of its own, because a register is reached in two steps, and a copy of what its lines are programmed to, because
//! reading is slow.
#![expect(unsafe_code, reason = "device memory")]

use alloc::boxed::Box;

use arch_types::{CpuId, LineMode, NoSuchLine};
use spin::mutex::Mutex;
use spin::once::Once;

use super::Map;
use super::acpi::IoApicInfo;
use crate::cpu;
use crate::sync::Relax;

const SELECT: usize = 0;
const WINDOW: usize = 0x10;
const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
/// More lines than this no I/O APIC has: its registers are numbered by a byte.
const MOST_LINES: u32 = 120;

const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
/// The line's interrupt was accepted and not ended yet.
const REMOTE_IRR: u32 = 1 << 14;
const ACTIVE_LOW: u32 = 1 << 13;

struct Chip {
    maddr: u64,
    gsi_base: u32,
    lines: u32,
    registers: Mutex<Registers, Relax>,
}

struct Registers {
    base: usize,
    /// The low word of each line as it was written last.
    low: Box<[u32]>,
}

static CHIPS: Once<Box<[Chip]>, Relax> = Once::new();

fn chips() -> &'static [Chip] {
    CHIPS.get().map_or(&[], |chips| chips)
}

impl Registers {
    fn read(&self, register: u32) -> u32 {
        // SAFETY: `init` was promised that the registers are mapped here; the lock keeps selection and access together.
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
    fn set_low(&mut self, line: u32, value: u32) {
        if let Some(copy) = self.low.get_mut(line as usize) {
            *copy = value;
            self.write(REDIRECTION + line * 2, value);
        }
    }
    fn mask(&mut self, line: u32) {
        let low = self.low.get(line as usize).copied().unwrap_or(MASKED);
        if low & MASKED == 0 {
            self.set_low(line, low | MASKED);
            // The write has arrived when a read comes back.
            let _ = self.read(REDIRECTION + line * 2);
        }
    }
    fn unmask(&mut self, line: u32) {
        let low = self.low.get(line as usize).copied().unwrap_or(0);
        if low & MASKED != 0 {
            self.set_low(line, low & !MASKED);
        }
    }
}

/// Maps all I/O APICs and masks every line; needs the heap. Returns how many lines there are in all.
///
/// # Safety
/// `map` must map device registers uncached; the addresses must be I/O APICs'.
pub unsafe fn init(found: &[IoApicInfo], map: Map) -> u32 {
    CHIPS.call_once(|| found.iter().filter_map(|info| init_one(info, map)).collect());
    chips().iter().map(|c| c.lines).sum()
}

fn init_one(info: &IoApicInfo, map: Map) -> Option<Chip> {
    let base = map(info.maddr, 0x20) as usize;
    if base == 0 {
        log::warn!("I/O APIC {} at {:#x} cannot be mapped: its interrupts are lost", info.id, info.maddr);
        return None;
    }
    let mut registers = Registers { base, low: Box::default() };
    let version = registers.read(VERSION);
    if version == u32::MAX {
        log::warn!("I/O APIC {} at {:#x} does not answer", info.id, info.maddr);
        return None;
    }
    let lines = ((version >> 16 & 0xff) + 1).min(MOST_LINES);
    registers.low = (0..lines).map(|_| MASKED).collect();
    for line in 0..lines {
        registers.set_low(line, MASKED);
        registers.write(REDIRECTION + line * 2 + 1, 0);
    }
    Some(Chip { maddr: info.maddr, gsi_base: info.gsi_base, lines, registers: Mutex::new(registers) })
}

fn with<T>(gsi: u32, act: impl FnOnce(&mut Registers, u32) -> T) -> Result<T, NoSuchLine> {
    let here = |c: &&Chip| gsi.checked_sub(c.gsi_base).is_some_and(|line| line < c.lines);
    let chip = chips().iter().find(here).ok_or(NoSuchLine)?;
    Ok(act(&mut chip.registers.lock(), gsi - chip.gsi_base))
}

/// True when some I/O APIC has this global interrupt.
pub fn exists(gsi: u32) -> bool {
    chips().iter().any(|c| gsi.checked_sub(c.gsi_base).is_some_and(|line| line < c.lines))
}

/// Returns one more than the highest global interrupt.
pub fn gsi_end() -> u32 {
    chips().iter().map(|c| c.gsi_base.saturating_add(c.lines)).max().unwrap_or(0)
}

fn entry(vector: u8, mode: LineMode, masked: bool) -> u32 {
    u32::from(vector)
        | if mode.level { LEVEL } else { 0 }
        | if mode.active_low { ACTIVE_LOW } else { 0 }
        | if masked { MASKED } else { 0 }
}

/// Lets a global interrupt arrive at one CPU as a vector; it stays masked if it is.
///
/// # Errors
/// [`NoSuchLine`] when there is none, or it cannot name that CPU ([`super::apic::can_target`]).
pub fn route(gsi: u32, vector: u8, cpu: CpuId, mode: LineMode) -> Result<(), NoSuchLine> {
    // Wider numbers need interrupt remapping.
    let destination = u8::try_from(cpu::apic_id(cpu)).map_err(|_| NoSuchLine)?;
    with(gsi, |chip, line| {
        let masked = chip.low.get(line as usize).is_none_or(|low| low & MASKED != 0);
        // Masked while the two halves do not fit together.
        chip.mask(line);
        chip.write(REDIRECTION + line * 2 + 1, u32::from(destination) << 24);
        chip.set_low(line, entry(vector, mode, masked));
    })
}

/// Lets a global interrupt through.
///
/// # Errors
/// [`NoSuchLine`].
pub fn unmask(gsi: u32) -> Result<(), NoSuchLine> {
    with(gsi, Registers::unmask)
}

/// Holds a global interrupt back; none of it is on the way any more on return.
///
/// # Errors
/// [`NoSuchLine`].
pub fn mask(gsi: u32) -> Result<(), NoSuchLine> {
    with(gsi, Registers::mask)
}

/// True when the last interrupt of a level-triggered line was ended: only then its vector may be changed, or the end that
/// names the old one is missed.
pub fn is_settled(gsi: u32) -> bool {
    with(gsi, |chip, line| chip.read(REDIRECTION + line * 2) & REMOTE_IRR == 0).unwrap_or(true)
}

/// Reads a register of the I/O APIC at a machine address; `None` when there is none.
pub fn read_register(maddr: u64, register: u32) -> Option<u32> {
    let chip = chips().iter().find(|c| c.maddr == maddr)?;
    Some(chip.registers.lock().read(register & 0xff))
}

/// Returns the global interrupts of the I/O APIC at a machine address: the first one and how many.
pub fn lines_at(maddr: u64) -> Option<(u32, u32)> {
    chips().iter().find(|c| c.maddr == maddr).map(|c| (c.gsi_base, c.lines))
}

/// Holds every interrupt back: on the way to a reset.
pub fn mask_all() {
    for chip in chips() {
        if let Some(mut registers) = chip.registers.try_lock() {
            (0..chip.lines).for_each(|line| registers.set_low(line, MASKED));
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
        assert_eq!(mask(3), Err(NoSuchLine));
        assert_eq!((exists(0), gsi_end(), read_register(0, 1)), (false, 0, None));
    }
}
