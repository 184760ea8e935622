// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set of ports, as few ranges as possible.
//!
//! The ranges are in ascending order, do not overlap and do not touch.

use super::super::alloc::vec::Vec;
use core::ops::RangeInclusive;
use hypercalls::{Errno, Result};

/// A set of ports.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PortSet {
    /// First and last port.
    ranges: Vec<(u16, u16)>,
}

impl PortSet {
    /// No port.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// What the hardware domain may use from the start: all but the interrupt controllers, the interval timer, the
    /// ACPI timer and PCI configuration data.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn hardware_domain(acpi_timer: Option<u16>) -> Result<Self> {
        let mut set = Self::new();
        set.insert(0..=0xffff)?;
        for denied in [0x20..=0x21, 0xa0..=0xa1, 0x40..=0x43, 0x61..=0x61, 0xcfc..=0xcff] {
            set.remove(denied)?;
        }
        if let Some(port) = acpi_timer {
            set.remove(port..=port.saturating_add(3))?;
        }
        Ok(set)
    }

    /// True when all ports from `first` to `last` are in the set; numbers above 0xffff never are.
    pub fn contains(&self, first: u32, last: u32) -> bool {
        let after = self.ranges.partition_point(|&(start, _)| u32::from(start) <= first);
        let range = after.checked_sub(1).and_then(|n| self.ranges.get(n));
        range.is_some_and(|&(_, end)| first <= last && last <= u32::from(end))
    }

    /// The ranges, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.ranges.iter().map(|&(first, last)| first..=last)
    }

    /// Adds ports.
    ///
    /// # Errors
    /// `ENOMEM`: the set is as it was.
    pub fn insert(&mut self, ports: RangeInclusive<u16>) -> Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        let (mut first, mut last) = ports.into_inner();
        // All ranges that overlap or touch the new one become part of it.
        let from = self.ranges.partition_point(|&(_, end)| u32::from(end) + 1 < u32::from(first));
        let to = self.ranges.partition_point(|&(start, _)| u32::from(start) <= u32::from(last) + 1);
        for &(start, end) in self.ranges.get(from..to).unwrap_or_default() {
            (first, last) = (first.min(start), last.max(end));
        }
        self.replace(from..to.max(from), &[(first, last)])
    }

    /// Removes ports.
    ///
    /// # Errors
    /// `ENOMEM`: the set is as it was.
    pub fn remove(&mut self, ports: RangeInclusive<u16>) -> Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        let (first, last) = ports.into_inner();
        let from = self.ranges.partition_point(|&(_, end)| end < first);
        let to = self.ranges.partition_point(|&(start, _)| start <= last).max(from);
        let cut = self.ranges.get(from..to).unwrap_or_default();
        let below = cut.first().filter(|&&(start, _)| start < first).map(|&(start, _)| (start, first - 1));
        let above = cut.last().filter(|&&(_, end)| end > last).map(|&(_, end)| (last + 1, end));
        match (below, above) {
            (Some(below), Some(above)) => self.replace(from..to, &[below, above]),
            (Some(rest), None) | (None, Some(rest)) => self.replace(from..to, &[rest]),
            (None, None) => self.replace(from..to, &[]),
        }
    }

    /// Puts at most two ranges where others were.
    fn replace(&mut self, old: core::ops::Range<usize>, new: &[(u16, u16)]) -> Result<()> {
        self.ranges.try_reserve(new.len()).map_err(|_| Errno::ENOMEM)?;
        self.ranges.splice(old, new.iter().copied());
        Ok(())
    }
}
