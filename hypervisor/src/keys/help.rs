// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys that are about keys, and the messages once more.

use core::fmt::Write as _;

use super::text::line;
use super::{KEYS, Text, press};
use crate::console;

/// Lists the keys.
pub(super) fn list(_at: u64, to: &mut Text) -> Option<u64> {
    for key in KEYS {
        line!(to, " {}  {}", char::from(key.letter), key.what);
    }
    None
}

/// Presses every key that only tells something.
pub(super) fn everything(_at: u64, _to: &mut Text) -> Option<u64> {
    KEYS.iter().filter(|key| key.is_diagnostic).for_each(|key| press(key.letter));
    None
}

/// Prints the messages that are kept, on the line only: they are not kept twice.
pub(super) fn messages(at: u64, _to: &mut Text) -> Option<u64> {
    // Up to what there was when the key was pressed, which is in the upper half.
    let (from, end) = if at == 0 { console::log_range() } else { (at as u32, (at >> 32) as u32) };
    let mut buffer = [0; 128];
    let (count, next) = console::read_log(from, &mut buffer);
    // The oldest messages may have made room for others meanwhile.
    let left = end.wrapping_sub(next.wrapping_sub(count as u32)).cast_signed().max(0);
    let count = count.min(left as usize);
    console::print_raw(buffer.get(..count).unwrap_or(&[]));
    (left as usize > count).then(|| u64::from(end) << 32 | u64::from(next))
}
