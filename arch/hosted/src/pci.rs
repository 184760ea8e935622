// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI functions that a test plugs in: their configuration space behind ports 0xcf8 and 0xcfc, segment 0.

use crate::area::locked;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The configuration space of a function, by words.
pub type Words = [u32; 64];

#[derive(Debug)]
struct Function {
    words: Words,
    /// The bits that a write changes.
    writable: Words,
}

#[derive(Debug)]
struct Bus {
    address: u32,
    functions: BTreeMap<(u8, u8), Function>,
}

static BUS: Mutex<Bus> = Mutex::new(Bus { address: 0, functions: BTreeMap::new() });

/// Plugs a function in.
pub fn plug(bus: u8, devfn: u8, words: Words, writable: Words) {
    locked(&BUS).functions.insert((bus, devfn), Function { words, writable });
}

/// Returns a word of a function's configuration space; all ones when there is no such function.
pub fn peek(bus: u8, devfn: u8, at: u8) -> u32 {
    locked(&BUS).functions.get(&(bus, devfn)).map_or(u32::MAX, |f| f.words[usize::from(at) / 4])
}

pub(crate) fn reset() {
    *locked(&BUS) = Bus { address: 0, functions: BTreeMap::new() };
}

impl Bus {
    /// The function and the word at which the address register points.
    fn target(&mut self) -> Option<(&mut Function, usize)> {
        let at = self.address;
        let function = self.functions.get_mut(&((at >> 16) as u8, (at >> 8) as u8)).filter(|_| at >> 31 != 0)?;
        Some((function, (at as u8 / 4).into()))
    }
}

/// Reads a port if it is one of configuration space and functions are plugged in.
pub(crate) fn read(port: u16, bytes: u8) -> Option<u32> {
    let mut bus = locked(&BUS);
    if bus.functions.is_empty() || !(0xcfc..=0xcff).contains(&port) {
        return None;
    }
    let word = bus.target().map_or(u32::MAX, |(function, at)| function.words[at]);
    Some((word >> (u32::from(port & 3) * 8)) & mask(bytes))
}

/// As [`read`].
pub(crate) fn write(port: u16, bytes: u8, value: u32) -> bool {
    let mut bus = locked(&BUS);
    if bus.functions.is_empty() {
        return false;
    }
    match port {
        0xcf8 if bytes == 4 => bus.address = value,
        0xcfc..=0xcff => {
            let shift = u32::from(port & 3) * 8;
            if let Some((function, at)) = bus.target() {
                let changed = (mask(bytes) << shift) & function.writable[at];
                function.words[at] = function.words[at] & !changed | (value << shift) & changed;
            }
        }
        _ => return false,
    }
    true
}

fn mask(bytes: u8) -> u32 {
    u32::MAX >> (32 - u32::from(bytes) * 8)
}
