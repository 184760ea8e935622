// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random numbers for tests: the seed comes from `XENITH_SEED` when it is set, and is always printed.

use super::std;

/// A small generator (SplitMix64).
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new() -> Self {
        let given = std::env::var("XENITH_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |since| since.as_nanos() as u64)
        });
        std::println!("XENITH_SEED={seed}");
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A number that often lies at an edge.
    pub(super) fn edge(&mut self) -> u64 {
        let n = self.next();
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (n & 63),
            3 => (1u64 << (n & 63)).wrapping_sub(1),
            4 => n & 0xff,
            5 => u64::from(n as u32),
            _ => n,
        }
    }
}
