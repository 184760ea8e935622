// SPDX-License-Identifier: MIT OR Apache-2.0
//! This CPU's one-shot timer, set to a time since boot.
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
/// Ticks a nanosecond of what is counted, with 32 binary places.
static RATE: AtomicU64 = AtomicU64::new(0);

/// No step is longer: four seconds.
const LONGEST_NS: u64 = 4_000_000_000;

/// The timer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTimer;

/// Chooses what to count, for the whole machine, and readies this CPU's timer; the other CPUs ready
/// theirs in [`apic::init_cpu`]. Returns true when it is the TSC itself.
pub fn setup(found: &Calibration) -> Result<bool, NoTimer> {
    let deadline = apic::has_tsc_deadline();
    let hz = if deadline { found.tsc_hz } else { found.lapic_hz };
    if hz == 0 {
        return Err(NoTimer);
    }
    RATE.store(rate(hz), Ordering::Relaxed);
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

fn rate(hz: u64) -> u64 {
    ((u128::from(hz) << 32) / 1_000_000_000) as u64
}

/// Returns the ticks from now until a deadline: at least one, at most a step.
#[inline]
fn ticks(deadline_ns: u64, now_ns: u64, rate: u64) -> u64 {
    let ns = deadline_ns.saturating_sub(now_ns).min(LONGEST_NS);
    // Both roundings go down; two more make sure that it is not early by them.
    ((u128::from(ns) * u128::from(rate)) >> 32) as u64 + 2
}

/// Lets this CPU's timer fire once at a time since boot in nanoseconds, at once if it has passed; None
/// stops it.
#[inline]
pub fn program(deadline_ns: Option<u64>) {
    let mode = MODE.load(Ordering::Relaxed);
    let Some(deadline) = deadline_ns else {
        match mode {
            COUNT => apic::timer_set(0),
            DEADLINE => apic::timer_deadline(0),
            _ => {}
        }
        return;
    };
    let tsc = clock::tsc();
    let ticks = ticks(deadline, clock::ns_at(tsc), RATE.load(Ordering::Relaxed));
    match mode {
        COUNT => apic::timer_set(u32::try_from(ticks).unwrap_or(u32::MAX)),
        DEADLINE => apic::timer_deadline(tsc.saturating_add(ticks)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_bounded_and_not_early() {
        for hz in [24_000_000u64, 1_000_000_000, 3_700_000_123] {
            let rate = rate(hz);
            assert_eq!(ticks(5, 10, rate), 2);
            assert_eq!(ticks(u64::MAX, 10, rate), ticks(10 + LONGEST_NS, 10, rate));
            for ns in [1u64, 999, 1_000_000, 3_999_999_999] {
                let exact = (u128::from(ns) * u128::from(hz)).div_ceil(1_000_000_000) as u64;
                let got = ticks(1_000 + ns, 1_000, rate);
                assert!((exact..=exact + 2).contains(&got), "{hz} Hz {ns} ns: {got} for {exact}");
            }
        }
    }
}
