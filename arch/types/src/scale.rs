// SPDX-License-Identifier: MIT OR Apache-2.0
//! Between ticks of a counter and nanoseconds, in the form that guests are told it in.

/// From TSC ticks to nanoseconds, as the ABI has it: `ns = ((ticks << shift) * mul) >> 32`, a negative
/// shift going right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TscScale {
    /// The factor.
    pub mul: u32,
    /// The shift.
    pub shift: i8,
    /// The frequency in kHz.
    pub khz: u32,
}

impl TscScale {
    /// Returns the scale of a frequency; `hz` must not be 0.
    pub fn from_hz(hz: u64) -> Self {
        // The factor has most digits between 2^31 and 2^32.
        let (mut dividend, mut divisor, mut shift) = (1_000_000_000u128 << 32, u128::from(hz.max(1)), 0i8);
        while dividend / divisor > u128::from(u32::MAX) {
            divisor <<= 1;
            shift += 1;
        }
        while dividend / divisor <= u128::from(u32::MAX / 2) {
            dividend <<= 1;
            shift -= 1;
        }
        let saturating = |value: u128| u32::try_from(value).unwrap_or(u32::MAX);
        Self { mul: saturating(dividend / divisor), shift, khz: saturating(u128::from(hz + 500) / 1000) }
    }

    /// Converts ticks to nanoseconds.
    #[inline]
    pub fn ns(&self, ticks: u64) -> u64 {
        if self.shift < 0 {
            ((u128::from(ticks >> -self.shift) * u128::from(self.mul)) >> 32) as u64
        } else {
            // A TSC that is so slow that it needs a shift does not reach the bits that are lost here.
            ((u128::from(ticks << self.shift) * u128::from(self.mul)) >> 32) as u64
        }
    }
}
