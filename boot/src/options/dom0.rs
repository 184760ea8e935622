// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dom0_mem=` and `dom0_max_vcpus=`: how big dom0 is.

use super::parse::{Refusal, number, size};

/// What may be written for `dom0_mem`.
pub(super) const MEM_ACCEPTED: &str = "a list of SIZE, min:SIZE, max:SIZE, where SIZE is a number with B, K, M, G or T (none means \
     K), or a percentage of the memory, or SIZE+PERCENT%; with - before it, what is to be left over (like \
     dom0_mem=512M,max:1G)";
/// What may be written for `dom0_max_vcpus`.
pub(super) const VCPUS_ACCEPTED: &str = "a number N, or MIN-MAX, of which either may be left out";

const PAGE_SHIFT: u32 = 12;

/// An amount of memory, in terms of what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemSize {
    /// Pages, in addition to the percentage.
    pub pages: u64,
    /// Percent of what there is.
    pub percent: u8,
    /// That much less than what there is.
    pub minus: bool,
}

impl MemSize {
    /// Pages, if `available` pages are there.
    #[must_use]
    pub fn resolve(&self, available: u64) -> u64 {
        let share = u128::from(available) * u128::from(self.percent) / 100;
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        let pages = self.pages.saturating_add(share);
        if self.minus { available.saturating_sub(pages) } else { pages }
    }
}

/// How much memory dom0 gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dom0Mem {
    /// At the start; by default all but a sixteenth or 128 MiB, whichever is less.
    pub size: Option<MemSize>,
    /// At least that.
    pub min: Option<MemSize>,
    /// At most that, now and later; by default no limit.
    pub max: Option<MemSize>,
}

impl Dom0Mem {
    /// Pages that dom0 starts with, if `available` pages are there.
    #[must_use]
    pub fn initial_pages(&self, available: u64) -> u64 {
        let by_default = available - (available / 16).min((128 << 20) >> PAGE_SHIFT);
        let wanted = self.size.map(|s| s.resolve(available));
        let pages = wanted.filter(|p| *p != 0).unwrap_or(by_default);
        let least = self.min.map_or(0, |m| m.resolve(available));
        pages.max(least).min(self.max_pages(available)).min(available)
    }

    /// Pages that dom0 may ever have; `u64::MAX` is no limit.
    #[must_use]
    pub fn max_pages(&self, available: u64) -> u64 {
        self.max.map_or(u64::MAX, |m| m.resolve(available))
    }
}

/// How many vCPUs dom0 gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dom0Vcpus {
    /// At least that.
    pub min: u32,
    /// At most that.
    pub max: u32,
}

impl Default for Dom0Vcpus {
    fn default() -> Self {
        Self { min: 1, max: u32::MAX }
    }
}

impl Dom0Vcpus {
    /// How many, with `cpus` CPUs online; at least one.
    #[must_use]
    pub fn count(&self, cpus: u32) -> u32 {
        cpus.max(self.min).min(self.max).max(1)
    }
}

/// One amount: `SIZE`, `PERCENT%` or `SIZE+PERCENT%`, maybe with a minus.
fn amount(text: &str) -> Result<MemSize, Refusal> {
    let (text, minus) = match text.strip_prefix('-') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let percent = |text: &str| match number(text)? {
        (value @ 0..100, "%") => u8::try_from(value).map_err(|_| Refusal::Malformed),
        _ => Err(Refusal::Malformed),
    };
    let (first, second) = match text.split_once('+') {
        Some((first, second)) => (first, Some(second)),
        None => (text, None),
    };
    let mut amount = MemSize { minus, ..MemSize::default() };
    if let Some(second) = second {
        amount.percent = percent(second)?;
    } else if first.ends_with('%') {
        amount.percent = percent(first)?;
        return Ok(amount);
    }
    match size(first)? {
        (bytes, "") => amount.pages = bytes >> PAGE_SHIFT,
        _ => return Err(Refusal::Malformed),
    }
    Ok(amount)
}

/// Reads the value of `dom0_mem`; what it does not name stays as in `mem`.
pub(super) fn parse_mem(mut mem: Dom0Mem, value: &str) -> Result<Dom0Mem, Refusal> {
    for part in value.split(',') {
        if let Some(text) = part.strip_prefix("min:") {
            mem.min = Some(amount(text)?);
        } else if let Some(text) = part.strip_prefix("max:") {
            mem.max = Some(amount(text)?);
        } else {
            mem.size = Some(amount(part)?);
        }
    }
    Ok(mem)
}

/// Reads the value of `dom0_max_vcpus`.
pub(super) fn parse_vcpus(value: &str) -> Result<Dom0Vcpus, Refusal> {
    let count = |text: &str, default| match text {
        "" => Ok(default),
        _ => match number(text)? {
            (n, "") => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
            _ => Err(Refusal::Malformed),
        },
    };
    let vcpus = match value.split_once('-') {
        Some((min, max)) => Dom0Vcpus { min: count(min, 1)?.max(1), max: count(max, u32::MAX)? },
        None if value.is_empty() => return Err(Refusal::Malformed),
        None => {
            let n = count(value, 1)?.max(1);
            Dom0Vcpus { min: n, max: n }
        }
    };
    if vcpus.min > vcpus.max {
        return Err(Refusal::Malformed);
    }
    Ok(vcpus)
}
