// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device registers: words that keep what is written, by machine address, 0 to begin with.
#![expect(unsafe_code, reason = "the machine's promise is asked for here too")]

use crate::area::locked;
use hypercalls::{Maddr, Mfn};
use std::collections::BTreeMap;
use std::sync::Mutex;

static WORDS: Mutex<BTreeMap<u64, u32>> = Mutex::new(BTreeMap::new());

/// Device registers, mapped for ever.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    base: u64,
    len: usize,
}

/// Reads the word of registers at a machine address.
pub fn peek(maddr: u64) -> u32 {
    locked(&WORDS).get(&(maddr & !3)).copied().unwrap_or(0)
}

/// Writes the word of registers at a machine address.
pub fn poke(maddr: u64, value: u32) {
    locked(&WORDS).insert(maddr & !3, value);
}

pub(crate) fn reset() {
    locked(&WORDS).clear();
}

macro_rules! accessors {
    ($($read:ident, $write:ident: $word:ty;)*) => {$(
        #[doc = concat!("Reads a `", stringify!($word), "` at an offset; all ones beyond the end or unaligned.")]
        pub fn $read(&self, at: usize) -> $word {
            let place = self.place(at, size_of::<$word>());
            place.map_or(<$word>::MAX, |maddr| (peek(maddr) >> (maddr % 4 * 8)) as $word)
        }
        #[doc = concat!("Writes a `", stringify!($word), "` at an offset; nothing happens beyond the end or unaligned.")]
        pub fn $write(&self, at: usize, value: $word) {
            if let Some(maddr) = self.place(at, size_of::<$word>()) {
                let shift = maddr % 4 * 8;
                let mask = u32::from(<$word>::MAX) << shift;
                poke(maddr, peek(maddr) & !mask | u32::from(value) << shift);
            }
        }
    )*};
}

impl Registers {
    /// Maps registers; `None` when there is no memory for tables.
    ///
    /// # Safety
    /// No part of the range is RAM, nor are there devices whose registers make the hypervisor unsafe to run.
    pub unsafe fn map(maddr: Maddr, len: usize, _alloc: &mut dyn FnMut() -> Option<Mfn>) -> Option<Self> {
        Some(Self { base: maddr.0, len })
    }

    fn place(&self, at: usize, bytes: usize) -> Option<u64> {
        let end = at.checked_add(bytes)?;
        (end <= self.len && at.is_multiple_of(bytes)).then(|| self.base + at as u64)
    }

    accessors! {
        read8, write8: u8;
        read16, write16: u16;
        read32, write32: u32;
    }
}
