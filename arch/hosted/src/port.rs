// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port I/O of guests: nothing is there but what a test [`answer`]s with and the functions that it plugs in ([`pci`]), and
//! what is written is kept for it.

use crate::area::locked;
use crate::pci;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::vec::Vec;

/// How many writes are kept.
const KEPT: usize = 64;

static ANSWERS: Mutex<BTreeMap<u16, u32>> = Mutex::new(BTreeMap::new());
static WRITES: Mutex<VecDeque<(u16, u8, u32)>> = Mutex::new(VecDeque::new());

fn read(port: u16, bytes: u8) -> u32 {
    if let Some(value) = pci::read(port, bytes) {
        return value;
    }
    locked(&ANSWERS).get(&port).copied().unwrap_or(u32::MAX)
}

fn write(port: u16, bytes: u8, value: u32) {
    if pci::write(port, bytes, value) {
        return;
    }
    let mut writes = locked(&WRITES);
    if writes.len() == KEPT {
        writes.pop_front();
    }
    writes.push_back((port, bytes, value));
}

/// Lets a port read as `value` from now on.
pub fn answer(port: u16, value: u32) {
    locked(&ANSWERS).insert(port, value);
}

/// Takes the last writes: port, bytes, value.
pub fn take_writes() -> Vec<(u16, u8, u32)> {
    locked(&WRITES).drain(..).collect()
}

pub(crate) fn reset() {
    locked(&ANSWERS).clear();
    locked(&WRITES).clear();
}

macro_rules! accessors {
    ($($read:ident, $write:ident: $word:ty;)*) => {$(
        #[doc = concat!("Reads a `", stringify!($word), "` from a port that the guest has the right to.")]
        pub fn $read(at: u16) -> $word {
            read(at, size_of::<$word>() as u8) as $word
        }
        #[doc = concat!("Writes a `", stringify!($word), "` to a port that the guest has the right to.")]
        pub fn $write(at: u16, value: $word) {
            write(at, size_of::<$word>() as u8, u32::from(value));
        }
    )*};
}

accessors! {
    guest_read8, guest_write8: u8;
    guest_read16, guest_write16: u16;
    guest_read32, guest_write32: u32;
}
