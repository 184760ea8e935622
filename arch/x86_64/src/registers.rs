// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device registers that are mapped while the machine runs: PCI configuration space, tables of interrupt messages.
#![expect(unsafe_code, reason = "device memory")]

use hypercalls::Maddr;

use crate::paging::{self, TableAlloc};

/// Device registers, mapped uncached for ever.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    base: usize,
    len: usize,
}

macro_rules! accessors {
    ($($read:ident, $write:ident: $word:ty;)*) => {$(
        #[doc = concat!("Reads a `", stringify!($word), "` at an offset; all ones beyond the end or unaligned.")]
        pub fn $read(&self, at: usize) -> $word {
            match self.place(at, size_of::<$word>()) {
                // SAFETY: `map` was promised device registers here; the access is aligned and within them.
                Some(address) => unsafe { (address as *const $word).read_volatile() },
                None => <$word>::MAX,
            }
        }
        #[doc = concat!("Writes a `", stringify!($word), "` at an offset; nothing happens beyond the end or unaligned.")]
        pub fn $write(&self, at: usize, value: $word) {
            if let Some(address) = self.place(at, size_of::<$word>()) {
                // SAFETY: as for reading.
                unsafe { (address as *mut $word).write_volatile(value) };
            }
        }
    )*};
}

impl Registers {
    /// Maps registers; `None` when there is no memory for tables.
    ///
    /// # Safety
    /// No part of the range is RAM, nor are there devices whose registers make the hypervisor unsafe to run.
    pub unsafe fn map(maddr: Maddr, len: usize, alloc: TableAlloc<'_>) -> Option<Self> {
        let base = paging::map_device(maddr, len as u64, alloc).ok()? as usize;
        Some(Self { base, len })
    }

    fn place(&self, at: usize, bytes: usize) -> Option<usize> {
        let end = at.checked_add(bytes)?;
        (end <= self.len && at.is_multiple_of(bytes)).then(|| self.base + at)
    }

    accessors! {
        read8, write8: u8;
        read16, write16: u16;
        read32, write32: u32;
    }
}
