// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time from the TSC: its frequency, measured once at boot, and nanoseconds since boot.
//!
//! [`now`] never goes back on one CPU. Across CPUs it is as good as the TSCs are in step, which the
//! hardware of the last fifteen years promises by the invariant-TSC bit.
#![expect(unsafe_code, reason = "reads the TSC between fences")]

use core::fmt;
use core::sync::atomic::{AtomicI8, AtomicU32, AtomicU64, Ordering};

pub use arch_types::TscScale;
use arrayvec::ArrayVec;

use super::acpi::Platform;
use super::reference::Reference;
pub use super::reference::Source;
use super::{Map, apic};
use crate::features::cpuid;

/// Reads the TSC, not before earlier instructions are done.
#[inline]
pub fn tsc() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: every x86-64 CPU has both instructions, and the hypervisor leaves the TSC readable. (The intrinsics are calls
    // on a target without SSE.)
    unsafe {
        core::arch::asm!("lfence", "rdtsc", out("rax") low, out("rdx") high, options(nomem, nostack, preserves_flags));
    }
    low | high << 32
}

/// True when the TSC runs at one rate in every power state.
pub fn tsc_is_invariant() -> bool {
    cpuid(0x8000_0000, 0)[0] >= 0x8000_0007 && cpuid(0x8000_0007, 0)[3] & 1 << 8 != 0
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// TSC ticks a second.
    pub tsc_hz: u64,
    /// Local APIC timer ticks a second, 0 when it does not run.
    pub lapic_hz: u64,
    /// How far off they may be at most, in parts per million.
    pub error_ppm: u64,
    /// By what.
    pub by: &'static str,
}

impl Calibration {
    /// The TSC is not measured by itself: it has the frequency that was told, and a crystal's error.
    fn corrected(self, reference: Reference) -> Self {
        match reference {
            Reference::Tsc { hz } => Self { tsc_hz: hz, error_ppm: 1000, ..self },
            _ => self,
        }
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mhz = |hz: u64| (hz / 1_000_000, hz / 1000 % 1000);
        let ((t, tf), (l, lf)) = (mhz(self.tsc_hz), mhz(self.lapic_hz));
        write!(f, "TSC {t}.{tf:03} MHz, APIC timer {l}.{lf:03} MHz, by {} to {} ppm", self.by, self.error_ppm)
    }
}

/// There is nothing to measure the TSC by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoReference;

/// One moment on all clocks. The counters have been made to go up without wrapping.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    tsc: u64,
    /// How long the reading took, in TSC ticks: the moment is uncertain by half of it.
    width: u64,
    reference: u64,
    lapic: u64,
}

const STAMPS: usize = 6;
/// Stamps are a hundredth of a second apart.
const INTERVALS_A_SECOND: u64 = 100;
/// TSC ticks after which a reference that has not moved on is dead: a fifth of a second at the least.
const DEAD: u64 = 1 << 31;

/// Reads all clocks as close together as it can be had.
fn stamp(reference: Reference) -> Stamp {
    let one = || {
        let before = tsc();
        let (counted, left) = (reference.read(), apic::timer_count());
        let width = tsc().saturating_sub(before);
        Stamp { tsc: before + width / 2, width, reference: counted, lapic: u64::from(u32::MAX - left) }
    };
    (0..8).map(|_| one()).min_by_key(|s| s.width).unwrap_or_else(one)
}

/// Takes stamps at regular distances by the reference.
fn measure(reference: Reference) -> Result<ArrayVec<Stamp, STAMPS>, NoReference> {
    let (mask, step) = (reference.mask(), reference.hz() / INTERVALS_A_SECOND);
    let mut stamps = ArrayVec::<Stamp, STAMPS>::new();
    let mut last = stamp(reference);
    let mut total = last.reference;
    stamps.push(last);
    while !stamps.is_full() {
        while reference.read().wrapping_sub(last.reference) & mask < step {
            if tsc().saturating_sub(last.tsc) > DEAD {
                return Err(NoReference);
            }
            core::hint::spin_loop();
        }
        let next = stamp(reference);
        total += next.reference.wrapping_sub(last.reference) & mask;
        last = next;
        stamps.push(Stamp { reference: total, ..next });
    }
    Ok(stamps)
}

/// Finds the pair of stamps that promises the smallest error.
fn evaluate(stamps: &[Stamp], hz: u64, by: &'static str) -> Option<Calibration> {
    let mut best: Option<Calibration> = None;
    for (i, a) in stamps.iter().enumerate() {
        for b in stamps.iter().skip(i + 1) {
            let (ticks, counted) = (b.tsc.saturating_sub(a.tsc), b.reference.saturating_sub(a.reference));
            if ticks == 0 || counted == 0 {
                continue;
            }
            let rate =
                |n: u64| ((u128::from(n) * u128::from(hz) + u128::from(counted / 2)) / u128::from(counted)) as u64;
            let error_ppm = ((a.width + b.width) / 2).saturating_mul(1_000_000) / ticks + 1_000_000 / counted + 1;
            if best.is_none_or(|c| error_ppm < c.error_ppm) {
                let lapic_hz = rate(b.lapic.saturating_sub(a.lapic));
                best = Some(Calibration { tsc_hz: rate(ticks), lapic_hz, error_ppm, by });
            }
        }
    }
    best.filter(|c| c.tsc_hz >= 1_000_000)
}

/// What CPUID says of the TSC's frequency.
pub(super) fn by_cpuid() -> Option<u64> {
    if cpuid(0, 0)[0] < 0x15 {
        return None;
    }
    let [denominator, numerator, crystal, _] = cpuid(0x15, 0);
    let hz = u64::from(crystal).checked_mul(numerator.into())?.checked_div(denominator.into())?;
    (hz >= 1_000_000).then_some(hz)
}

/// Measures the TSC and the local APIC timer by `wanted`, or else by the first reference that runs; takes 50 ms. This CPU's
/// local APIC must be on if its timer is to be measured too.
pub fn calibrate(platform: &Platform, map: Map, wanted: Option<Source>) -> Result<Calibration, NoReference> {
    for source in Source::in_order(wanted) {
        let Some(reference) = source.start(platform, map) else { continue };
        apic::timer_start_silent();
        let stamps = measure(reference);
        apic::timer_set(0);
        match stamps.map(|s| evaluate(&s, reference.hz(), source.name())) {
            Ok(Some(found)) => {
                if let Some(absent) = wanted.filter(|wanted| *wanted != source) {
                    log::warn!("clocksource: {} does not serve; {} is used instead", absent.name(), source.name());
                }
                return Ok(found.corrected(reference));
            }
            _ => log::warn!("the {} does not run", source.name()),
        }
    }
    Err(NoReference)
}

static MUL: AtomicU32 = AtomicU32::new(0);
static SHIFT: AtomicI8 = AtomicI8::new(0);
static KHZ: AtomicU32 = AtomicU32::new(0);
static BOOT: AtomicU64 = AtomicU64::new(0);
/// The inverse of the factor.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// Notes this moment as the start of time; the first call counts.
pub fn mark_boot() {
    // Someone else's earlier mark stays.
    let _ = BOOT.compare_exchange(0, tsc().max(1), Ordering::Relaxed, Ordering::Relaxed);
}

/// Starts time. Once, before the other CPUs run.
pub fn start(found: &Calibration) {
    mark_boot();
    let scale = TscScale::from_hz(found.tsc_hz);
    SHIFT.store(scale.shift, Ordering::Relaxed);
    KHZ.store(scale.khz, Ordering::Relaxed);
    TICKS.store(inverse(scale.mul), Ordering::Relaxed);
    MUL.store(scale.mul, Ordering::Release);
}

/// Returns the scale; all zeros before [`start`].
#[inline]
pub fn scale() -> TscScale {
    TscScale {
        mul: MUL.load(Ordering::Relaxed),
        shift: SHIFT.load(Ordering::Relaxed),
        khz: KHZ.load(Ordering::Relaxed),
    }
}

/// Returns the time since boot of a TSC value, in nanoseconds.
#[inline]
pub fn ns_at(tsc: u64) -> u64 {
    scale().ns(tsc.saturating_sub(BOOT.load(Ordering::Relaxed)))
}

/// Returns the time since boot, in nanoseconds; 0 before [`start`].
#[inline]
pub fn now() -> u64 {
    ns_at(tsc())
}

/// Times farther away than this (nine years) are as good as this.
const FAR_NS: u64 = 1 << 58;

/// Returns a TSC value at which a time since boot has been reached, two ticks after the first such one at the most.
#[inline]
pub fn tsc_at(ns: u64) -> u64 {
    let ticks = ticks_of(ns, TICKS.load(Ordering::Relaxed), SHIFT.load(Ordering::Relaxed));
    ticks.saturating_add(BOOT.load(Ordering::Relaxed))
}

/// Returns 2^95 / `mul`: with it, multiplying replaces dividing by the factor.
fn inverse(mul: u32) -> u64 {
    u64::try_from((1u128 << 95) / u128::from(mul.max(1 << 31))).unwrap_or(u64::MAX)
}

/// Converts nanoseconds back to ticks, by the [`inverse`] of the factor.
#[inline]
fn ticks_of(ns: u64, inverse: u64, shift: i8) -> u64 {
    let shifted = ((u128::from(ns.min(FAR_NS)) * u128::from(inverse)) >> 63) as u64;
    // All roundings go down: by less than two ticks together.
    if shift < 0 { (shifted << (-shift & 63)) + (2 << (-shift & 63)) } else { (shifted >> (shift & 63)) + 2 }
}

/// Waits. Before [`start`] it goes by the TSC at an assumed 4 GHz, which is rather too long than too short.
pub fn delay_ns(ns: u64) {
    let khz = KHZ.load(Ordering::Relaxed);
    let ticks = (u128::from(ns) * u128::from(if khz == 0 { 4_000_000 } else { khz }) / 1_000_000) as u64;
    let start = tsc();
    while tsc().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales() {
        for hz in
            [1_000_000u64, 24_000_000, 999_999_999, 1_000_000_000, 1_000_000_001, 2_596_122_000, 5_700_000_000, 1 << 40]
        {
            let scale = TscScale::from_hz(hz);
            assert!(scale.mul >= 1 << 31, "{hz}: {scale:?}");
            for seconds in [1u64, 3600, 86_400 * 365] {
                let Some(ticks) = hz.checked_mul(seconds) else {
                    continue;
                };
                let (ns, true_ns) = (scale.ns(ticks), seconds * 1_000_000_000);
                assert!(ns.abs_diff(true_ns) <= true_ns / 1_000_000_000 + 2, "{hz} Hz, {seconds} s: {ns}");
            }
        }
        assert_eq!(TscScale::from_hz(2_000_000_000).ns(2_000_000_000), 1_000_000_000);
        assert_eq!(TscScale::from_hz(2_596_122_400).khz, 2_596_122);
    }

    #[test]
    fn ticks_of_a_time_reach_it_and_hardly_more() {
        for hz in [1_000_000u64, 24_000_000, 999_999_999, 1_000_000_000, 2_596_122_000, 5_700_000_000] {
            let scale = TscScale::from_hz(hz);
            let longest = 1u64 << 58;
            for ns in [0, 1, 999, 1_000_000_007, 86_400_000_000_000, longest - 1, longest] {
                let ticks = ticks_of(ns, inverse(scale.mul), scale.shift);
                let reached = scale.ns(ticks);
                let slack = 4 + 4_000_000_000 / hz.min(4_000_000_000);
                assert!(
                    (ns..=ns + slack + ns / (1 << 60)).contains(&reached),
                    "{hz} Hz, {ns} ns: {ticks} are {reached}"
                );
            }
            assert_eq!(
                ticks_of(u64::MAX, inverse(scale.mul), scale.shift),
                ticks_of(longest, inverse(scale.mul), scale.shift)
            );
        }
    }

    #[test]
    fn ns_never_goes_back() {
        let scale = TscScale::from_hz(2_596_122_000);
        let mut last = 0;
        for ticks in (0..10_000).chain(u64::MAX / 3..u64::MAX / 3 + 10_000) {
            let ns = scale.ns(ticks);
            assert!(ns >= last);
            last = ns;
        }
    }

    #[test]
    fn best_pair_wins() {
        let hz = 3_579_545;
        // Ten milliseconds apart at 2.5 GHz; the first two readings were disturbed.
        let at = |i: u64, late: u64, width: u64| Stamp {
            tsc: 1000 + i * 25_000_000 + late,
            width,
            reference: 7 + i * hz / 100,
            lapic: i * 10_000_000,
        };
        let stamps = [
            at(0, 90_000, 200_000),
            at(1, 50_000, 100_000),
            at(2, 0, 2000),
            at(3, 0, 90_000),
            at(4, 0, 2000),
            at(5, 0, 2000),
        ];
        let found = evaluate(&stamps, hz, "test").unwrap();
        assert!(found.tsc_hz.abs_diff(2_500_000_000) < 100_000, "{found}");
        assert!(found.lapic_hz.abs_diff(1_000_000_000) < 40_000, "{found}");
        assert!(found.error_ppm < 50, "{found}");
        assert!(evaluate(&stamps[..1], hz, "test").is_none());
    }

    #[test]
    fn tsc_goes_up() {
        let before = tsc();
        delay_ns(1000);
        assert!(tsc() > before);
    }
}
