// SPDX-License-Identifier: MIT OR Apache-2.0
//! UEFI firmware of the simulated machine: none until a test [`install`]s it. It has a clock that stands still, an alarm, and
//! variables in memory.

use crate::area::locked;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::vec::Vec;

/// What a service returned, or why it was not called.
pub type Answer = Result<u64, Unavailable>;

/// A service cannot be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// Statuses, as the specification numbers them.
pub const SUCCESS: u64 = 0;
/// An argument is not as it should be.
pub const INVALID_PARAMETER: u64 = 1 << 63 | 2;
/// The buffer is too small; the size that it should have is told.
pub const BUFFER_TOO_SMALL: u64 = 1 << 63 | 5;
/// There is no such variable.
pub const NOT_FOUND: u64 = 1 << 63 | 14;

/// Vendor's GUID and name.
type Key = ([u8; 16], Vec<u16>);

#[derive(Debug, Default)]
struct Firmware {
    time: [u8; 16],
    alarm: Option<[u8; 16]>,
    count: u32,
    variables: BTreeMap<Key, (u32, Vec<u8>)>,
}

static FIRMWARE: Mutex<Option<Firmware>> = Mutex::new(None);

/// Gives the machine firmware without variables.
pub fn install() {
    *locked(&FIRMWARE) = Some(Firmware::default());
}

pub(crate) fn reset() {
    *locked(&FIRMWARE) = None;
}

fn call(service: impl FnOnce(&mut Firmware) -> u64) -> Answer {
    locked(&FIRMWARE).as_mut().map(service).ok_or(Unavailable)
}

/// True when runtime services can be called.
pub fn available() -> bool {
    locked(&FIRMWARE).is_some()
}

fn key(guid: &[u8; 16], name: &[u16]) -> Key {
    (*guid, name.iter().copied().take_while(|c| *c != 0).collect())
}

/// Reads the clock and what it can do.
pub fn get_time(time: &mut [u8; 16], capabilities: &mut [u8; 12]) -> Answer {
    call(|firmware| {
        *time = firmware.time;
        *capabilities = [1, 0, 0, 0, 50, 0, 0, 0, 1, 0, 0, 0];
        SUCCESS
    })
}

/// Sets the clock.
pub fn set_time(time: &mut [u8; 16]) -> Answer {
    call(|firmware| {
        firmware.time = *time;
        SUCCESS
    })
}

/// Reads the alarm.
pub fn get_wakeup_time(enabled: &mut u8, pending: &mut u8, time: &mut [u8; 16]) -> Answer {
    call(|firmware| {
        (*enabled, *pending) = (firmware.alarm.is_some().into(), 0);
        *time = firmware.alarm.unwrap_or_default();
        SUCCESS
    })
}

/// Sets the alarm.
pub fn set_wakeup_time(enable: bool, time: Option<&mut [u8; 16]>) -> Answer {
    call(|firmware| {
        firmware.alarm = enable.then(|| time.map_or([0; 16], |t| *t));
        SUCCESS
    })
}

/// Reads a variable.
pub fn get_variable(
    name: &mut [u16],
    guid: &mut [u8; 16],
    attributes: &mut u32,
    size: &mut u64,
    data: &mut [u8],
) -> Answer {
    assert_eq!(name.last(), Some(&0), "the name ends");
    *size = data.len() as u64;
    call(|firmware| {
        let Some((found, value)) = firmware.variables.get(&key(guid, name)) else { return NOT_FOUND };
        *size = value.len() as u64;
        *attributes = *found;
        match data.get_mut(..value.len()) {
            Some(to) => to.copy_from_slice(value),
            None => return BUFFER_TOO_SMALL,
        }
        SUCCESS
    })
}

/// Writes a variable; an empty value removes it.
pub fn set_variable(name: &mut [u16], guid: &mut [u8; 16], attributes: u32, data: &mut [u8]) -> Answer {
    assert_eq!(name.last(), Some(&0), "the name ends");
    call(|firmware| {
        let key = key(guid, name);
        if !data.is_empty() {
            firmware.variables.insert(key, (attributes, data.to_vec()));
        } else if firmware.variables.remove(&key).is_none() {
            return NOT_FOUND;
        }
        SUCCESS
    })
}

/// Replaces the name of a variable by that of the next one.
pub fn get_next_variable_name(size: &mut u64, name: &mut [u16], guid: &mut [u8; 16]) -> Answer {
    *size = (*size).min(size_of_val(name) as u64);
    call(|firmware| {
        let current = key(guid, name);
        let next = if current.1.is_empty() {
            firmware.variables.keys().next()
        } else if firmware.variables.contains_key(&current) {
            firmware.variables.keys().find(|key| **key > current)
        } else {
            return INVALID_PARAMETER;
        };
        let Some((vendor, next)) = next else { return NOT_FOUND };
        let room = *size;
        *size = (next.len() as u64 + 1) * 2;
        if *size > room {
            return BUFFER_TOO_SMALL;
        }
        *guid = *vendor;
        let end = next.iter().chain(&[0]);
        name.iter_mut().zip(end).for_each(|(to, from)| *to = *from);
        SUCCESS
    })
}

/// Counts on.
pub fn get_next_high_monotonic_count(count: &mut u32) -> Answer {
    call(|firmware| {
        firmware.count += 1;
        *count = firmware.count;
        SUCCESS
    })
}

/// Tells the room for variables.
pub fn query_variable_info(_attributes: u32, sizes: &mut [u64; 3]) -> Answer {
    call(|_| {
        *sizes = [0x1_0000, 0x8000, 0x400];
        SUCCESS
    })
}
