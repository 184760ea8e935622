// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames of devices that guests map read-only, because some of their registers are the hypervisor's to write:
//! configuration space, and the tables of MSI-X with their pending bits.
//!
//! A guest's write to such a frame faults and comes here ([`write`]): to configuration space it goes by [`super::watch`], to a
//! table it has no effect, and beside a table, in the same frame, it is carried out.
#![expect(unsafe_code, reason = "maps device registers")]

use alloc::vec::Vec;
use core::ops::{Range, RangeInclusive};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arch::registers::Registers;
use hypercalls::{Errno, Maddr, Mfn, Result};
use spin::rwlock::RwLock;

use super::{config, watch};
use crate::emulate::Width;
use crate::{create, domain};

const PAGE: u64 = 4096;
/// How many different ranges are ever mapped: a mapping stays for ever, to be used again.
const MOST_MAPPED: usize = 4096;

#[derive(Clone, Debug)]
enum Kind {
    Config,
    /// The bytes that are not to be written.
    Table(Range<u64>),
}

/// A range of frames that is guarded.
#[derive(Clone, Debug)]
pub struct Guarded {
    frames: RangeInclusive<u64>,
    kind: Kind,
    registers: Registers,
}

static GUARDED: RwLock<Vec<Guarded>, arch::sync::Relax> = RwLock::new(Vec::new());
/// How many there are: most machines' writes need not take the lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static MAPPED: RwLock<Vec<(RangeInclusive<u64>, Registers)>, arch::sync::Relax> = RwLock::new(Vec::new());

/// Maps whole frames of device registers, or finds the mapping that there is.
fn map(frames: &RangeInclusive<u64>) -> Result<Registers> {
    let mut mapped = MAPPED.write();
    if let Some((_, registers)) = mapped.iter().find(|(range, _)| range == frames) {
        return Ok(*registers);
    }
    let in_reach = *frames.end() < 1 << (arch::phys::maddr_bits() - 12);
    if !in_reach || frames.clone().any(|mfn| mm::frame::get(Mfn(mfn)).is_some_and(|frame| frame.is_ram())) {
        return Err(Errno::EINVAL);
    }
    if mapped.len() == MOST_MAPPED {
        return Err(Errno::ENOMEM);
    }
    mapped.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    let bytes = (frames.end() - frames.start() + 1) * PAGE;
    // SAFETY: none of it is RAM, as just checked. It is configuration space, which the firmware's tables describe, or a frame
    // that dom0 may map anyway.
    let registers = unsafe { Registers::map(Maddr(frames.start() * PAGE), bytes as usize, &mut create::table_frame) };
    let registers = registers.ok_or(Errno::ENOMEM)?;
    mapped.push((frames.clone(), registers));
    Ok(registers)
}

fn frames_of(bytes: &Range<u64>) -> RangeInclusive<u64> {
    bytes.start / PAGE..=(bytes.end - 1) / PAGE
}

impl Guarded {
    /// A window of configuration space.
    ///
    /// # Errors
    /// `EINVAL` when it cannot be one, `ENOMEM`.
    pub(super) fn config_space(maddr: u64, bytes: u64) -> Result<Self> {
        let frames = frames_of(&(maddr..maddr.checked_add(bytes).ok_or(Errno::EINVAL)?));
        Ok(Self { registers: map(&frames)?, frames, kind: Kind::Config })
    }

    /// A table or its pending bits.
    ///
    /// # Errors
    /// `EINVAL` when they cannot lie there, `ENOMEM`.
    pub(super) fn table(bytes: Range<u64>) -> Result<Self> {
        if bytes.is_empty() {
            return Err(Errno::EINVAL);
        }
        let frames = frames_of(&bytes);
        // A register that points at what is the hypervisor's own leads nowhere.
        let dom0 = domain::hardware().ok_or(Errno::EINVAL)?;
        if !dom0.io.with_memory(|memory| frames.clone().all(|mfn| memory.contains(Mfn(mfn)))) {
            return Err(Errno::EINVAL);
        }
        Ok(Self { registers: map(&frames)?, frames, kind: Kind::Table(bytes) })
    }

    /// The registers, from the first frame's start on.
    pub(super) fn registers(&self) -> Registers {
        self.registers
    }

    fn protects(&self, bytes: &Range<u64>) -> bool {
        matches!(&self.kind, Kind::Table(table) if bytes.start < table.end && table.start < bytes.end)
    }
}

/// Guards a range from now on.
///
/// # Errors
/// `ENOMEM`.
pub(super) fn add(guarded: Guarded) -> Result<()> {
    let mut all = GUARDED.write();
    all.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    all.push(guarded);
    COUNT.store(all.len(), Relaxed);
    Ok(())
}

/// Does not guard a table at these bytes any more.
pub(super) fn remove_table(bytes: &Range<u64>) {
    let mut all = GUARDED.write();
    if let Some(at) = all.iter().position(|g| matches!(&g.kind, Kind::Table(table) if table == bytes)) {
        all.swap_remove(at);
    }
    COUNT.store(all.len(), Relaxed);
}

/// True when guests may only read the frame.
pub fn is_read_only(mfn: Mfn) -> bool {
    COUNT.load(Relaxed) != 0 && GUARDED.read().iter().any(|g| g.frames.contains(&mfn.0))
}

/// Carries out what may be carried out of the hardware domain's write to a frame that it may only read. False when the frame
/// is none of those.
pub fn write(maddr: u64, width: Width, value: u32) -> bool {
    let bytes = maddr..maddr + u64::from(width.bytes());
    let all = GUARDED.read();
    let mut here = all.iter().filter(|g| g.frames.contains(&(maddr / PAGE)));
    let Some(first) = here.next() else { return false };
    if matches!(first.kind, Kind::Config) {
        drop(all);
        if let Some((place, at)) = config::place_at(maddr) {
            watch::write(place, at, width, value);
        }
        return true;
    }
    if first.protects(&bytes) || here.any(|g| g.protects(&bytes)) {
        return true;
    }
    let at = (maddr - first.frames.start() * PAGE) as usize;
    match width {
        Width::Byte => first.registers.write8(at, value as u8),
        Width::Word => first.registers.write16(at, value as u16),
        _ => first.registers.write32(at, value),
    }
    true
}

/// Forgets all, for a new machine.
#[cfg(not(target_os = "none"))]
pub(super) fn forget_all() {
    GUARDED.write().clear();
    MAPPED.write().clear();
    COUNT.store(0, Relaxed);
}
