// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where decisions come from: a random generator, or bytes that a fuzzer made up.

extern crate std;

/// A source of numbers.
#[derive(Debug)]
pub enum Source<'a> {
    /// Random ones, for ever.
    Random(Random),
    /// As long as there are bytes; then zeros.
    Bytes(&'a [u8]),
}

impl Source<'_> {
    /// True when nothing is left to decide by.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Bytes([]))
    }

    /// Returns a number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        match self {
            Self::Random(random) => random.below(limit),
            Self::Bytes(bytes) => {
                let width = match limit {
                    0..=0x100 => 1,
                    0x101..=0x1_0000 => 2,
                    _ => 8,
                };
                let (now, later) = bytes.split_at(bytes.len().min(width));
                *bytes = later;
                let mut word = [0; 8];
                for (to, from) in word.iter_mut().zip(now) {
                    *to = *from;
                }
                u64::from_le_bytes(word) % limit.max(1)
            }
        }
    }

    /// Returns any number.
    pub fn word(&mut self) -> u64 {
        self.below(u64::MAX)
    }

    /// Returns a number that often lies at an edge.
    pub fn edge(&mut self) -> u64 {
        let n = self.word();
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

    /// True once in `n` times; never when nothing is left to decide by.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == n - 1
    }

    /// Picks one.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A small generator of random numbers (xorshift*), for tests that print their seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from `XENITH_SEED` in the environment, else from `default`, and prints the seed.
    pub fn from_env(default: u64) -> Self {
        let seed = std::env::var("XENITH_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(default);
        std::println!("XENITH_SEED={seed}");
        Self::new(seed)
    }
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }
    /// Returns a random number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        (word ^ word >> 32) % limit.max(1)
    }
    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    /// Picks one.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
