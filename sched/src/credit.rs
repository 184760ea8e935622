// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual time: nanoseconds of running, scaled so that the weight decides how fast they pass.

/// The weight at which virtual time is real time.
pub const DEFAULT_WEIGHT: u32 = 256;

/// A point or a length of virtual time. Wide enough that nothing here can overflow.
pub(crate) type Vtime = i128;

/// Returns how much virtual time passes in `ns` of running.
pub(crate) fn charge(ns: u64, weight: u32) -> Vtime {
    Vtime::from(ns) * Vtime::from(DEFAULT_WEIGHT) / Vtime::from(weight.max(1))
}

/// Returns how long a unit must run for `vtime` to pass, rounded up; 0 when it has passed already.
pub(crate) fn time_for(vtime: Vtime, weight: u32) -> u64 {
    let scaled = vtime.max(0) * Vtime::from(weight.max(1));
    let ns = (scaled + Vtime::from(DEFAULT_WEIGHT) - 1) / Vtime::from(DEFAULT_WEIGHT);
    u64::try_from(ns).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_for_the_time_needed_passes_the_virtual_time() {
        for weight in [1, 3, 64, 255, 256, 257, 1000, 65535] {
            for vtime in [0, 1, 7, 1_000, 2_500_000, 10_000_001] {
                assert!(charge(time_for(vtime, weight), weight) >= vtime);
            }
        }
        assert_eq!(time_for(-5, 256), 0);
    }
}
