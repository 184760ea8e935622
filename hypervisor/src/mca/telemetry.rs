// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records of machine checks, kept until the hardware domain has fetched and acknowledged them.
//!
//! There is room for a few: when it is used up, further records are lost, and counted. Some of it is kept for urgent ones.
//!
//! # Locking
//! Each record has a lock of its own, held for a copy. An exception tries only, and passes over one that is taken: what it has
//! interrupted may hold it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use hypercalls::mca::{MCINFO_FLAGS_UNCOMPLETE, McBank, McCommon, McGlobal, McInfo, McKind};
use spin::mutex::SpinMutex;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// How many records there may be, and how many of them only urgent ones take.
const ROOM: usize = 30;
const URGENT_ROOM: usize = 10;

/// A CPU's errors, laid out as they are fetched: first the CPU, then each bank that has something to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record(McInfo);

impl Record {
    /// Starts a record.
    pub fn new(mut global: McGlobal) -> Self {
        global.common = head::<McGlobal>(McKind::GLOBAL);
        let mut record = Self::default();
        record.add(0, &global);
        record
    }

    /// Adds an error, if there is room; the record says if not.
    pub fn push(&mut self, mut bank: McBank) {
        bank.common = head::<McBank>(McKind::BANK);
        let behind = self.0.nentries.saturating_sub(1) as usize * size_of::<McBank>();
        self.add(size_of::<McGlobal>() + behind, &bank);
    }

    fn add<T: IntoBytes + Immutable>(&mut self, at: usize, entry: &T) {
        match self.0.data.as_mut_bytes().get_mut(at..at + size_of::<T>()) {
            Some(room) => {
                room.copy_from_slice(entry.as_bytes());
                self.0.nentries += 1;
            }
            None => self.0.flags |= MCINFO_FLAGS_UNCOMPLETE,
        }
    }

    fn entry<T: FromBytes>(&self, at: usize) -> Option<T> {
        T::read_from_bytes(self.0.data.as_bytes().get(at..at + size_of::<T>())?).ok()
    }

    /// Returns what it says of the CPU.
    pub fn global(&self) -> McGlobal {
        self.entry(0).unwrap_or_default()
    }

    /// Returns the errors.
    pub fn banks(&self) -> impl Iterator<Item = McBank> {
        let at = |n| size_of::<McGlobal>() + n as usize * size_of::<McBank>();
        (0..self.0.nentries.saturating_sub(1)).filter_map(move |n| self.entry(at(n)))
    }

    /// Says how bad it is, in the flags.
    pub fn set_flags(&mut self, flags: u32) {
        let global = McGlobal { flags, ..self.global() };
        if let Some(room) = self.0.data.as_mut_bytes().get_mut(..size_of::<McGlobal>()) {
            room.copy_from_slice(global.as_bytes());
        }
    }

    /// Returns the layout that is fetched.
    pub const fn info(&self) -> &McInfo {
        &self.0
    }
}

fn head<T>(kind: McKind) -> McCommon {
    McCommon { kind, size: size_of::<T>() as u16 }
}

struct Slot {
    /// Its place in the order of all, 0 when it is free.
    number: u64,
    urgent: bool,
    told: bool,
    record: Record,
}

const FREE: Slot =
    Slot { number: 0, urgent: false, told: false, record: Record(McInfo { nentries: 0, flags: 0, data: [0; 95] }) };

static SLOTS: [SpinMutex<Slot, arch::sync::Relax>; ROOM] = [const { SpinMutex::new(FREE) }; ROOM];
static LAST: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU32 = AtomicU32::new(0);

/// Keeps a record.
pub fn keep(urgent: bool, record: &Record) {
    let slots = SLOTS.iter().skip(if urgent { 0 } else { URGENT_ROOM });
    match slots.filter_map(SpinMutex::try_lock).find(|slot| slot.number == 0) {
        Some(mut slot) => {
            *slot = Slot { number: LAST.fetch_add(1, SeqCst) + 1, urgent, told: false, record: *record };
        }
        None => {
            LOST.fetch_add(1, Relaxed);
        }
    }
}

/// Returns the slot of the oldest record for which `wanted` holds, and its number.
fn oldest(wanted: impl Fn(&Slot) -> bool) -> Option<(&'static SpinMutex<Slot, arch::sync::Relax>, u64)> {
    let numbers = SLOTS.iter().map(|slot| {
        let inner = slot.lock();
        (slot, if inner.number != 0 && wanted(&inner) { inner.number } else { u64::MAX })
    });
    numbers.min_by_key(|(_, number)| *number).filter(|(_, number)| *number != u64::MAX)
}

/// Returns the oldest record of its class, and the number by which it is acknowledged. It stays until then.
pub fn fetch(urgent: bool) -> Option<(u64, Record)> {
    let (slot, number) = oldest(|slot| slot.urgent == urgent)?;
    let slot = slot.lock();
    (slot.number == number).then(|| (number, slot.record))
}

/// Drops the oldest record of its class, if that is its number.
pub fn acknowledge(urgent: bool, id: u64) {
    if let Some((slot, number)) = oldest(|slot| slot.urgent == urgent)
        && number == id
    {
        let mut slot = slot.lock();
        if slot.number == id {
            slot.number = 0;
        }
    }
}

/// Returns the oldest record that has not been told on the log, once.
pub(super) fn next_untold() -> Option<Record> {
    let (slot, _) = oldest(|slot| !slot.told)?;
    let mut slot = slot.lock();
    (slot.number != 0 && !core::mem::replace(&mut slot.told, true)).then_some(slot.record)
}

/// Returns how many records found no room since the last call.
pub(super) fn take_lost() -> u32 {
    LOST.swap(0, Relaxed)
}

/// Forgets everything, for a new machine.
#[cfg(not(target_os = "none"))]
pub(super) fn forget_all() {
    SLOTS.iter().for_each(|slot| *slot.lock() = FREE);
    LOST.store(0, Relaxed);
}
