// SPDX-License-Identifier: MIT OR Apache-2.0
//! The small forms that values are made of: numbers, sizes, booleans.

/// Why a value was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed,
    NotImplemented,
}

/// A boolean; nothing at all is true.
pub(crate) fn boolean(value: &str) -> Result<bool, Refusal> {
    match value {
        "" | "1" | "on" | "yes" | "true" | "enable" => Ok(true),
        "0" | "off" | "no" | "false" | "disable" => Ok(false),
        _ => Err(Refusal::Malformed),
    }
}

/// A number at the start of `text`, and the rest: `0x` before it makes it hexadecimal, another 0 octal.
pub(crate) fn number(text: &str) -> Result<(u64, &str), Refusal> {
    let (radix, digits) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if text.starts_with('0') => (8, text),
        None => (10, text),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    let value = u64::from_str_radix(digits, radix).map_err(|_| Refusal::Malformed)?;
    Ok((value, rest))
}

/// A number and nothing else.
pub(crate) fn whole_number(text: &str) -> Result<u64, Refusal> {
    match number(text)? {
        (value, "") => Ok(value),
        _ => Err(Refusal::Malformed),
    }
}

/// A number with a unit at the start of `text`, and the rest. No unit means KiB.
pub(crate) fn size(text: &str) -> Result<(u64, &str), Refusal> {
    let (value, rest) = number(text)?;
    let mut chars = rest.chars();
    let shift = match chars.next().map(|c| c.to_ascii_uppercase()) {
        Some('B') => 0,
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        _ => {
            chars = rest.chars();
            10
        }
    };
    let bytes = value.checked_mul(1 << shift).ok_or(Refusal::Malformed)?;
    Ok((bytes, chars.as_str()))
}
