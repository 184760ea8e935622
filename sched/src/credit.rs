// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual time: nanoseconds of running, scaled so that the weight decides how fast they pass.

/// The weight at which virtual time is real time.
pub const DEFAULT_WEIGHT: u32 = 256;

/// A point or a length of virtual time. Wide enough that nothing here can overflow.
pub(crate) type Vtime = i128;

/// Returns how much virtual time passes in `ns` of running.
pub(crate) fn charge(ns: u64, weight: u32) -> Vtime {
    if weight == DEFAULT_WEIGHT {
        return Vtime::from(ns);
    }
    match ns.checked_mul(u64::from(DEFAULT_WEIGHT)) {
        Some(scaled) => Vtime::from(scaled / u64::from(weight.max(1))),
        None => Vtime::from(ns) * Vtime::from(DEFAULT_WEIGHT) / Vtime::from(weight.max(1)),
    }
}

/// Returns how long a unit must run for `vtime` to pass, rounded up; 0 when it has passed already.
pub(crate) fn time_for(vtime: Vtime, weight: u32) -> u64 {
    match u64::try_from(vtime.max(0)) {
        Ok(vtime) if weight == DEFAULT_WEIGHT => vtime,
        Ok(vtime) if vtime <= u64::from(u32::MAX) => {
            (vtime * u64::from(weight.max(1))).div_ceil(u64::from(DEFAULT_WEIGHT))
        }
        _ => {
            let scaled = vtime.max(0).saturating_mul(Vtime::from(weight.max(1)));
            let ns = scaled / Vtime::from(DEFAULT_WEIGHT) + Vtime::from(scaled % Vtime::from(DEFAULT_WEIGHT) != 0);
            u64::try_from(ns).unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_for_the_time_needed_passes_the_virtual_time() {
        for weight in [1, 3, 64, 255, 256, 257, 1000, 65535] {
            for vtime in [0, 1, 7, 1_000, 2_500_000, 10_000_001, 1 << 32, 1 << 45] {
                let ns = time_for(vtime, weight);
                assert!(charge(ns, weight) >= vtime);
                assert!(ns == 0 || charge(ns - 1, weight) < vtime, "{vtime} {weight}");
            }
        }
        assert_eq!(charge(1 << 60, 128), 1 << 61);
        assert_eq!(charge(1 << 60, 257), (1 << 68) / 257);
        assert_eq!(time_for(1 << 100, 256), u64::MAX);
        assert_eq!(time_for(-5, 256), 0);
    }
}
