// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of a function's MSI-X messages, in its registers.

use core::ops::Range;

use arch::registers::Registers;
use hypercalls::{Errno, Result};

use super::capability::Msix;
use super::guard::{self, Guarded};

/// Words of an entry.
const ADDRESS_LOW: usize = 0;
const ADDRESS_HIGH: usize = 4;
const DATA: usize = 8;
const CONTROL: usize = 12;
/// Vector control: the message is held back.
const MASKED: u32 = 1;

/// A message as the table is to hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) address: u64,
    pub(super) data: u32,
    pub(super) masked: bool,
}

impl Entry {
    /// Not programmed yet.
    pub(super) const EMPTY: Self = Self { address: 0, data: 0, masked: true };
}

/// A table that was found and is guarded.
#[derive(Debug)]
pub(super) struct Table {
    /// The table's bytes in the machine's memory, and its pending bits'.
    bytes: Range<u64>,
    pending: Range<u64>,
    registers: Registers,
    /// Of the table in `registers`.
    start: usize,
}

impl Table {
    /// Takes a table and its pending bits, which lie there, and guards them.
    ///
    /// # Errors
    /// `EINVAL` when they cannot lie there, `ENOMEM`: nothing is guarded then.
    pub(super) fn take(at: u64, pending: u64, capability: &Msix) -> Result<Self> {
        let range = |at: u64, bytes: u64| at.checked_add(bytes).map(|end| at..end).ok_or(Errno::EINVAL);
        let bytes = range(at, capability.table_bytes())?;
        let pending = range(pending, capability.pending_bytes())?;
        let (table, bits) = (Guarded::table(bytes.clone())?, Guarded::table(pending.clone())?);
        let registers = table.registers();
        guard::add(table)?;
        if let Err(error) = guard::add(bits) {
            guard::remove_table(&bytes);
            return Err(error);
        }
        let start = (bytes.start & 0xfff) as usize;
        Ok(Self { bytes, pending, registers, start })
    }

    /// True when the table lies there.
    pub(super) fn is_at(&self, at: u64, pending: u64) -> bool {
        self.bytes.start == at && self.pending.start == pending
    }

    /// The machine addresses of the table and of its pending bits.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.bytes.start, self.pending.start)
    }

    /// Programs an entry. It is masked while its words do not fit together.
    pub(super) fn write(&self, index: u16, entry: &Entry) {
        let at = self.start + usize::from(index) * Msix::ENTRY as usize;
        self.registers.write32(at + CONTROL, MASKED);
        self.registers.write32(at + ADDRESS_LOW, entry.address as u32);
        self.registers.write32(at + ADDRESS_HIGH, (entry.address >> 32) as u32);
        self.registers.write32(at + DATA, entry.data);
        self.mask(index, entry.masked);
    }

    /// Masks an entry or lets it through; it is so on return.
    pub(super) fn mask(&self, index: u16, masked: bool) {
        let at = self.start + usize::from(index) * Msix::ENTRY as usize + CONTROL;
        self.registers.write32(at, if masked { MASKED } else { 0 });
        // What the device has sent arrives before the answer.
        let _ = self.registers.read32(at);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        guard::remove_table(&self.bytes);
        guard::remove_table(&self.pending);
    }
}
