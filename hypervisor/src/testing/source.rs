// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where decisions come from: a random generator, or bytes that a fuzzer made up.

use mm::hosted::Random;

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

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == n - 1
    }

    /// Picks one.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
