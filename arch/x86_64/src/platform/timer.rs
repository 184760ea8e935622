// SPDX-License-Identifier: MIT OR Apache-2.0
//! This CPU's one-shot timer, set to a value of the TSC.
//!
//! It may fire before its time (far deadlines are reached in steps, and a counter of its own may run a
//! little fast), never later than the hardware makes it: whoever handles it looks at the clock and
//! programs it again.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::apic;
use super::clock::{self, Calibration};

const NONE: u8 = 0;
const COUNT: u8 = 1;
const DEADLINE: u8 = 2;

static MODE: AtomicU8 = AtomicU8::new(NONE);
/// Ticks of the counter a tick of the TSC, with 32 binary places.
static RATE: AtomicU64 = AtomicU64::new(0);

/// The timer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTimer;

/// Chooses what to count, for the whole machine, and readies this CPU's timer; the other CPUs ready
/// theirs in [`apic::init_cpu`]. Returns true when it is the TSC itself.
pub fn setup(found: &Calibration) -> Result<bool, NoTimer> {
    let deadline = apic::has_tsc_deadline();
    if found.tsc_hz == 0 || (!deadline && found.lapic_hz == 0) {
        return Err(NoTimer);
    }
    RATE.store(rate(found), Ordering::Relaxed);
    MODE.store(if deadline { DEADLINE } else { COUNT }, Ordering::Release);
    init_cpu();
    Ok(deadline)
}

/// Readies this CPU's timer, stopped, if it is chosen already what to count.
pub(super) fn init_cpu() {
    match MODE.load(Ordering::Relaxed) {
        NONE => {}
        mode => apic::timer_mode(mode == DEADLINE),
    }
}

/// The rate, and as much more as it may be off: a timer that fires early costs a second interrupt.
fn rate(found: &Calibration) -> u64 {
    let exact = (u128::from(found.lapic_hz) << 32) / u128::from(found.tsc_hz.max(1));
    (exact + exact * u128::from(found.error_ppm) / 1_000_000) as u64
}

/// Returns what the counter counts in so many ticks of the TSC: at least one, at most what it can hold.
#[inline]
fn count(ticks: u64, rate: u64) -> u32 {
    // Rounded down; one more makes sure that it is not early by that.
    u32::try_from((u128::from(ticks) * u128::from(rate)) >> 32).map_or(u32::MAX, |count| count.saturating_add(1))
}

/// Lets this CPU's timer fire once when the TSC reads this, at once if it has.
#[inline]
pub fn program_at(tsc: u64) {
    match MODE.load(Ordering::Relaxed) {
        COUNT => {
            let rate = RATE.load(Ordering::Relaxed);
            apic::timer_set(count(tsc.saturating_sub(clock::tsc()), rate));
        }
        // 0 would stop it.
        DEADLINE => apic::timer_deadline(tsc.max(1)),
        _ => {}
    }
}

/// Stops this CPU's timer.
pub fn stop() {
    match MODE.load(Ordering::Relaxed) {
        COUNT => apic::timer_set(0),
        DEADLINE => apic::timer_deadline(0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_bounded_and_not_early() {
        for (lapic_hz, tsc_hz) in
            [(1_000_000_000u64, 1_000_000_000u64), (24_000_000, 3_700_000_123), (62_500_000, 1 << 30)]
        {
            let rate = rate(&Calibration { tsc_hz, lapic_hz, error_ppm: 0, by: "test" });
            assert_eq!(count(0, rate), 1);
            assert_eq!(count(u64::MAX, rate), u32::MAX);
            for ticks in [1u64, 999, 1_000_000, 1 << 32] {
                let exact = (u128::from(ticks) * u128::from(lapic_hz)).div_ceil(u128::from(tsc_hz)) as u64;
                let got = u64::from(count(ticks, rate));
                assert!((exact..=exact + 1).contains(&got) || got == u64::from(u32::MAX), "{ticks}: {got} for {exact}");
            }
        }
    }
}
