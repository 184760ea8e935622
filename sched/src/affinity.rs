// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sets of CPUs, and which CPUs a unit may and would like to run on.

use core::fmt;

use crate::Cpu;

/// The most CPUs there can be.
pub const MAX_CPUS: usize = 256;
const WORDS: usize = MAX_CPUS / 64;

/// A set of CPUs. Numbers from [`MAX_CPUS`] on are never in it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuSet([u64; WORDS]);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self([0; WORDS]);
    /// Every CPU.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    /// Returns the set with these words, CPU 0 in the lowest bit of the first.
    pub const fn from_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }

    /// Returns the words, CPU 0 in the lowest bit of the first.
    pub const fn words(&self) -> [u64; WORDS] {
        self.0
    }

    /// Returns the set of one CPU.
    pub fn of(cpu: Cpu) -> Self {
        let mut set = Self::EMPTY;
        set.insert(cpu);
        set
    }

    /// Adds a CPU.
    pub fn insert(&mut self, cpu: Cpu) {
        if let Some(word) = self.0.get_mut(cpu.index() / 64) {
            *word |= 1 << (cpu.0 % 64);
        }
    }

    /// Removes a CPU.
    pub fn remove(&mut self, cpu: Cpu) {
        if let Some(word) = self.0.get_mut(cpu.index() / 64) {
            *word &= !(1 << (cpu.0 % 64));
        }
    }

    /// True when the CPU is in the set.
    pub fn contains(&self, cpu: Cpu) -> bool {
        self.0.get(cpu.index() / 64).is_some_and(|word| word & (1 << (cpu.0 % 64)) != 0)
    }

    /// True when no CPU is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |all, word| all | word) == 0
    }

    /// Returns how many CPUs are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Returns the CPUs that are in both sets.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// Returns the first CPU of the set from `from` on, starting over at 0.
    pub fn first_from(&self, from: Cpu) -> Option<Cpu> {
        let start = from.index() / 64 % WORDS;
        let low = (1u64 << (from.0 % 64)) - 1;
        // The first word is looked at twice: its high bits first, its low bits last.
        for step in 0..=WORDS {
            let index = (start + step) % WORDS;
            let word = match step {
                0 => self.0[index] & !low,
                WORDS => self.0[index] & low,
                _ => self.0[index],
            };
            if word != 0 {
                return Some(Cpu((index * 64) as u16 + word.trailing_zeros() as u16));
            }
        }
        None
    }

    /// Returns the CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Cpu> + use<> {
        let mut words = self.0;
        let mut index = 0;
        core::iter::from_fn(move || {
            while index < WORDS {
                let bit = words[index].trailing_zeros() as u16;
                if bit < 64 {
                    words[index] &= words[index] - 1;
                    return Some(Cpu((index * 64) as u16 + bit));
                }
                index += 1;
            }
            None
        })
    }
}

impl FromIterator<Cpu> for CpuSet {
    fn from_iter<I: IntoIterator<Item = Cpu>>(cpus: I) -> Self {
        let mut set = Self::EMPTY;
        set.extend(cpus);
        set
    }
}

impl Extend<Cpu> for CpuSet {
    fn extend<I: IntoIterator<Item = Cpu>>(&mut self, cpus: I) {
        cpus.into_iter().for_each(|cpu| self.insert(cpu));
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|cpu| cpu.0)).finish()
    }
}

/// Where a unit may run and where it would like to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// It runs nowhere else.
    pub hard: CpuSet,
    /// It rather runs here, as far as the hard set allows.
    pub soft: CpuSet,
}

impl Affinity {
    /// Anywhere.
    pub const ANY: Self = Self { hard: CpuSet::ALL, soft: CpuSet::ALL };

    /// Returns the affinity to one CPU.
    pub fn pinned(cpu: Cpu) -> Self {
        Self { hard: CpuSet::of(cpu), soft: CpuSet::ALL }
    }

    /// True when it can never move.
    pub(crate) fn is_pinned(&self) -> bool {
        self.hard.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_from_starts_over_once() {
        let set: CpuSet = [3, 64, 200].into_iter().map(Cpu).collect();
        assert_eq!(set.first_from(Cpu(0)), Some(Cpu(3)));
        assert_eq!(set.first_from(Cpu(4)), Some(Cpu(64)));
        assert_eq!(set.first_from(Cpu(201)), Some(Cpu(3)));
        assert_eq!(CpuSet::of(Cpu(3)).first_from(Cpu(5)), Some(Cpu(3)));
        assert_eq!(CpuSet::EMPTY.first_from(Cpu(9)), None);
        assert_eq!(set.iter().collect::<alloc::vec::Vec<_>>(), [Cpu(3), Cpu(64), Cpu(200)]);
        assert!(!set.contains(Cpu(1000)) && set.len() == 3);
    }
}
