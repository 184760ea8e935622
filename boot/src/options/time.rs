// SPDX-License-Identifier: MIT OR Apache-2.0
//! `clocksource=`: by what time is measured.

use super::parse::Refusal;

/// What may be written for `clocksource`.
pub(super) const CLOCK_ACCEPTED: &str = "one of acpi, hpet, pit, tsc";

/// By what the TSC's frequency is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockSource {
    /// ACPI's power-management timer.
    Acpi,
    /// The HPET.
    Hpet,
    /// The legacy timer.
    Pit,
    /// What the CPU says of it.
    Tsc,
}

pub(super) fn parse_clock(name: &str) -> Result<ClockSource, Refusal> {
    match name {
        "acpi" => Ok(ClockSource::Acpi),
        "hpet" => Ok(ClockSource::Hpet),
        "pit" => Ok(ClockSource::Pit),
        "tsc" => Ok(ClockSource::Tsc),
        _ => Err(Refusal::Malformed),
    }
}
