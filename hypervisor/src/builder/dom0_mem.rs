// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dom0_mem=[min:AMOUNT,][max:AMOUNT,][AMOUNT]`: how much memory dom0 gets.
//!
//! An amount is `SIZE`, `PERCENT%` or `SIZE+PERCENT%`, with a '-' in front for "all memory but this". A size is a number (decimal,
//! `0x` hexadecimal, leading 0 octal) with the suffix B, K, M, G or T; without one it counts KiB. Without a (positive) amount dom0
//! gets all memory but a sixteenth, at most 128 MiB, which stays for the hypervisor.

use core::fmt;

/// The most that stays with the hypervisor by default, in pages.
const MAX_RESERVE: u64 = (128 << 20) >> 12;

/// A `dom0_mem=` that is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDom0Mem;

impl fmt::Display for BadDom0Mem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "dom0_mem= takes [min:AMOUNT,][max:AMOUNT,][AMOUNT], where AMOUNT is SIZE, PERCENT% or SIZE+PERCENT%, \
             with '-' in front for all memory but this, and SIZE is a number with the suffix B, K (the default), M, G or T",
        )
    }
}

/// One amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    pages: u64,
    percent: u8,
    all_but: bool,
}

/// What the option says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dom0Mem {
    amount: Amount,
    min: Amount,
    max: Option<Amount>,
}

/// What dom0 gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dom0Pages {
    /// Pages at its start.
    pub nr_pages: u64,
    /// The most it may ever have.
    pub max_pages: u32,
}

impl Dom0Mem {
    /// Reads the option's value.
    ///
    /// # Errors
    /// When it is malformed; the error says what is accepted.
    pub fn parse(value: &str) -> Result<Self, BadDom0Mem> {
        let mut this = Self::default();
        for item in value.split(',') {
            if let Some(amount) = item.strip_prefix("min:") {
                this.min = Amount::parse(amount)?;
            } else if let Some(amount) = item.strip_prefix("max:") {
                this.max = Some(Amount::parse(amount)?);
            } else {
                this.amount = Amount::parse(item)?;
            }
        }
        Ok(this)
    }

    /// Returns what dom0 gets of `available` pages: the amount or the default, at least the minimum, at most the maximum and what
    /// there is.
    pub fn pages(&self, available: u64) -> Dom0Pages {
        let reserve = (available / 16).min(MAX_RESERVE);
        let wanted = self
            .amount
            .of(available)
            .filter(|pages| *pages > 0)
            .unwrap_or(available - reserve);
        let min = self.min.of(available).unwrap_or(0);
        let max = self
            .max
            .and_then(|max| max.of(available))
            .unwrap_or(u64::MAX);
        Dom0Pages {
            nr_pages: wanted.max(min).min(max).min(available),
            max_pages: u32::try_from(max).unwrap_or(u32::MAX),
        }
    }
}

impl Amount {
    fn parse(text: &str) -> Result<Self, BadDom0Mem> {
        let (all_but, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (size, percent) = match text.split_once('+') {
            Some((size, percent)) => (
                Some(size),
                Some(percent.strip_suffix('%').ok_or(BadDom0Mem)?),
            ),
            None => match text.strip_suffix('%') {
                Some(percent) => (None, Some(percent)),
                None => (Some(text), None),
            },
        };
        let percent = match percent.map(number).transpose()? {
            Some(percent) => u8::try_from(percent)
                .ok()
                .filter(|p| *p < 100)
                .ok_or(BadDom0Mem)?,
            None => 0,
        };
        let pages = size.map(bytes).transpose()?.unwrap_or(0) >> 12;
        Ok(Self {
            pages,
            percent,
            all_but,
        })
    }

    /// Returns the pages; nothing when more is to be left than there is.
    fn of(&self, available: u64) -> Option<u64> {
        let share = u128::from(available) * u128::from(self.percent) / 100;
        let pages = self.pages.saturating_add(share as u64);
        if self.all_but {
            available.checked_sub(pages)
        } else {
            Some(pages)
        }
    }
}

fn number(text: &str) -> Result<u64, BadDom0Mem> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // A sign is not part of a number here.
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(BadDom0Mem);
    }
    u64::from_str_radix(digits, radix).map_err(|_| BadDom0Mem)
}

fn bytes(text: &str) -> Result<u64, BadDom0Mem> {
    let is_hex = text.starts_with("0x") || text.starts_with("0X");
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'B' | b'b') if !is_hex => (&text[..text.len() - 1], 0),
        _ => (text, 10),
    };
    let value = number(digits)?;
    value.checked_mul(1 << shift).ok_or(BadDom0Mem)
}
