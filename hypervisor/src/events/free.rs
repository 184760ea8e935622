// SPDX-License-Identifier: MIT OR Apache-2.0
//! A set of port numbers whose lowest member is found in three steps, however many there are.

use alloc::vec::Vec;

use hypercalls::event::FIFO_NR_CHANNELS;
use hypercalls::{Errno, Result};

/// Words of 64 numbers each that one word of the next level stands for.
const FAN: usize = 64;
const SUMMARIES: usize = FIFO_NR_CHANNELS as usize / 64 / FAN;

/// A set of numbers below [`FIFO_NR_CHANNELS`].
///
/// Invariant: a bit of a level is set if and only if the word that it stands for is not 0.
#[derive(Debug, Default)]
pub(super) struct PortSet {
    top: u32,
    summaries: [u64; SUMMARIES],
    words: Vec<u64>,
}

impl PortSet {
    /// Makes room for numbers below `end`, a multiple of 64.
    pub(super) fn make_room(&mut self, end: u32) -> Result<()> {
        let more = (end as usize / 64).saturating_sub(self.words.len());
        self.words.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
        self.words.resize(self.words.len() + more, 0);
        Ok(())
    }

    /// Adds a number for which there is room.
    pub(super) fn insert(&mut self, number: u32) {
        let at = number as usize / 64;
        self.words[at] |= 1 << (number % 64);
        self.summaries[at / FAN] |= 1 << (at % FAN);
        self.top |= 1 << (at / FAN);
    }

    /// Removes a number.
    pub(super) fn remove(&mut self, number: u32) {
        let at = number as usize / 64;
        let Some(word) = self.words.get_mut(at) else { return };
        *word &= !(1 << (number % 64));
        if *word != 0 {
            return;
        }
        let summary = &mut self.summaries[at / FAN];
        *summary &= !(1 << (at % FAN));
        if *summary == 0 {
            self.top &= !(1 << (at / FAN));
        }
    }

    /// Returns the lowest number.
    pub(super) fn lowest(&self) -> Option<u32> {
        let summary = self.top.trailing_zeros();
        let word = summary * FAN as u32 + self.summaries.get(summary as usize)?.trailing_zeros();
        Some(word * 64 + self.words.get(word as usize)?.trailing_zeros())
    }

    /// Removes all numbers.
    pub(super) fn clear(&mut self) {
        (self.top, self.summaries) = (0, [0; SUMMARIES]);
        self.words.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use mm::hosted::Random;

    #[test]
    fn a_set_finds_what_is_lowest() {
        let mut random = Random::from_env(7);
        let (mut set, mut model) = (PortSet::default(), BTreeSet::new());
        assert_eq!(set.lowest(), None);
        set.make_room(FIFO_NR_CHANNELS).expect("memory");
        let edges = [0, 1, 63, 64, 1023, 1024, 4095, 4096, 131_071];
        for step in 0..20_000 {
            let number = match random.below(3) {
                0 => edges[random.below(edges.len() as u64) as usize],
                1 => random.below(200) as u32,
                _ => random.below(u64::from(FIFO_NR_CHANNELS)) as u32,
            };
            if random.below(2) == 0 {
                set.insert(number);
                model.insert(number);
            } else {
                set.remove(number);
                model.remove(&number);
            }
            assert_eq!(set.lowest(), model.first().copied(), "{random:?}");
            if step % 5000 == 4999 {
                set.clear();
                model.clear();
            }
        }
    }
}
