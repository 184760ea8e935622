// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far a machine's clock departs from this computer's: from lines `clock SECONDS` and the times at which they came.
//!
//! A line is late by what the machine's processes and the serial line take, never early. So of many lines, what the promptest
//! ones say at the beginning is compared with what the promptest ones say at the end.

use std::time::Duration;

/// The fewest lines from which anything is concluded.
const LEAST: usize = 40;

/// Millionths by which the machine's clock is slow; `None` when there are too few lines.
pub(crate) fn ppm(lines: &[(Duration, f64)]) -> Option<f64> {
    if lines.len() < LEAST {
        return None;
    }
    let quarter = lines.len() / 4;
    let (early, late) = (&lines[..quarter], &lines[lines.len() - quarter..]);
    let span = middle(late) - middle(early);
    (span > 0.0).then(|| (prompt(late) - prompt(early)) / span * 1e6)
}

fn middle(lines: &[(Duration, f64)]) -> f64 {
    lines[lines.len() / 2].0.as_secs_f64()
}

/// By how much this computer's clock is ahead of the machine's, by a line that was prompter than nine in ten.
fn prompt(lines: &[(Duration, f64)]) -> f64 {
    let mut ahead: Vec<f64> = lines.iter().map(|(came, told)| came.as_secs_f64() - told).collect();
    ahead.sort_by(f64::total_cmp);
    ahead[ahead.len() / 10]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines a quarter of a second apart from a clock that is slow by `slow` millionths, each late by up to half a second.
    fn lines(slow: f64) -> Vec<(Duration, f64)> {
        let late = |n: u32| f64::from(n.wrapping_mul(2_654_435_761) >> 16 & 0xff) / 512.0;
        let line = |n: u32| {
            let told = f64::from(n) * 0.25;
            (Duration::from_secs_f64(3.0 + told / (1.0 - slow / 1e6) + late(n)), told)
        };
        (0..2400).map(line).collect()
    }

    #[test]
    fn lateness_is_not_drift() {
        for slow in [0.0, 100.0, -100.0, 5000.0] {
            let found = ppm(&lines(slow)).expect("many lines");
            assert!((found - slow).abs() < 25.0, "{found} for {slow}");
        }
        assert_eq!(ppm(&lines(0.0)[..LEAST - 1]), None);
    }
}
