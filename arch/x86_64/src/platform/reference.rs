// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counters of known frequency, by which the TSC is measured.
#![expect(unsafe_code, reason = "port I/O and device memory")]

use super::acpi::Platform;
use super::{Map, clock, port};

/// A running counter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reference {
    /// The ACPI power-management timer.
    Pm { port: u16, bits: u32 },
    /// The HPET's main counter.
    Hpet { base: usize, hz: u64 },
    /// Channel 2 of the legacy timer, which counts down and is gated by the speaker port.
    Pit,
    /// The TSC itself, of a frequency that CPUID tells.
    Tsc { hz: u64 },
}

/// By what the TSC is to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// ACPI's power-management timer.
    Pm,
    /// The HPET.
    Hpet,
    /// The legacy timer.
    Pit,
    /// Not at all: CPUID tells its frequency.
    Tsc,
}

impl Source {
    /// All of them, the best first.
    const ALL: [Self; 4] = [Self::Pm, Self::Hpet, Self::Pit, Self::Tsc];

    /// All of them, `wanted` first.
    pub(super) fn in_order(wanted: Option<Self>) -> impl Iterator<Item = Self> {
        wanted.into_iter().chain(Self::ALL.into_iter().filter(move |source| Some(*source) != wanted))
    }

    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pm => "PM timer",
            Self::Hpet => "HPET",
            Self::Pit => "PIT",
            Self::Tsc => "CPUID",
        }
    }

    /// Starts it, if the machine has it.
    pub(super) fn start(self, platform: &Platform, map: Map) -> Option<Reference> {
        match self {
            Self::Pm => Reference::pm(platform),
            Self::Hpet => Reference::hpet(platform, map),
            Self::Pit => Some(Reference::pit()),
            Self::Tsc => clock::by_cpuid().map(|hz| Reference::Tsc { hz }),
        }
    }
}

const HPET_CAPABILITIES: usize = 0;
const HPET_PERIOD: usize = 4;
const HPET_CONFIG: usize = 0x10;
const HPET_COUNTER: usize = 0xf0;

/// # Safety
/// `address` must be that of a mapped 32-bit register.
unsafe fn read32(address: usize) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { (address as *const u32).read_volatile() }
}

impl Reference {
    /// The timer of the ACPI tables.
    fn pm(platform: &Platform) -> Option<Self> {
        platform.pm_timer.map(|t| Self::Pm { port: t.port, bits: t.bits })
    }

    /// The HPET of the ACPI tables, started.
    fn hpet(platform: &Platform, map: Map) -> Option<Self> {
        let base = map(platform.hpet_base?, 0x400) as usize;
        if base == 0 {
            return None;
        }
        // SAFETY: the tables say that an HPET is here, and it is mapped; starting the main counter
        // raises no interrupt.
        let (capabilities, period) = unsafe {
            let config = (base + HPET_CONFIG) as *mut u32;
            config.write_volatile(config.read_volatile() | 1);
            (read32(base + HPET_CAPABILITIES), read32(base + HPET_PERIOD))
        };
        // The specification bounds the period to 100 ns.
        let sane = capabilities != u32::MAX && (1_000..=100_000_000).contains(&period);
        sane.then(|| Self::Hpet { base, hz: 1_000_000_000_000_000 / u64::from(period) })
    }

    /// The legacy timer's channel 2, started with the speaker off.
    fn pit() -> Self {
        // SAFETY: nothing else uses this channel; ports of a machine without it are nobody's.
        unsafe {
            port::write8(0x61, port::read8(0x61) & !2 | 1);
            port::write8(0x43, 0b1011_0100);
            port::write8(0x42, 0);
            port::write8(0x42, 0);
        }
        Self::Pit
    }

    /// Ticks a second.
    pub(super) fn hz(self) -> u64 {
        match self {
            Self::Pm { .. } => 3_579_545,
            Self::Hpet { hz, .. } => hz,
            Self::Pit => 1_193_182,
            Self::Tsc { hz } => hz,
        }
    }

    /// The bits that the counter has.
    pub(super) fn mask(self) -> u64 {
        match self {
            Self::Pm { bits, .. } => (1 << bits) - 1,
            Self::Hpet { .. } => 0xffff_ffff,
            Self::Pit => 0xffff,
            Self::Tsc { .. } => u64::MAX,
        }
    }

    /// Reads the counter, which goes up and wraps at [`Self::mask`].
    pub(super) fn read(self) -> u64 {
        match self {
            // SAFETY: the tables name this port; reading it changes nothing.
            Self::Pm { port, .. } => u64::from(unsafe { port::read32(port) }) & self.mask(),
            // SAFETY: mapped by `hpet`.
            Self::Hpet { base, .. } => unsafe { read32(base + HPET_COUNTER) }.into(),
            Self::Pit => {
                // SAFETY: latches and reads the channel that `pit` has started.
                let count = unsafe {
                    port::write8(0x43, 0b1000_0000);
                    u64::from(port::read8(0x42)) | u64::from(port::read8(0x42)) << 8
                };
                0u64.wrapping_sub(count) & 0xffff
            }
            Self::Tsc { .. } => clock::tsc(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_tried_first() {
        let order = |wanted| Source::in_order(wanted).collect::<Vec<_>>();
        assert_eq!(order(None), Source::ALL);
        assert_eq!(order(Some(Source::Pit)), [Source::Pit, Source::Pm, Source::Hpet, Source::Tsc]);
        assert_eq!(order(Some(Source::Tsc)), [Source::Tsc, Source::Pm, Source::Hpet, Source::Pit]);
    }
}
