// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPU numbers and sets of CPUs.

use core::sync::atomic::{AtomicU64, Ordering};

/// The most CPUs one machine may have.
pub const MAX_CPUS: usize = 256;
const WORDS: usize = MAX_CPUS / 64;

/// A CPU's number: 0 is the one that booted; below [`MAX_CPUS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(pub u16);

impl CpuId {
    const fn place(self) -> (usize, u64) {
        ((self.0 as usize / 64) % WORDS, 1 << (self.0 % 64))
    }
}

/// A set of CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuMask([u64; WORDS]);

impl CpuMask {
    /// No CPU.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Returns the set of one CPU.
    pub fn of(cpu: CpuId) -> Self {
        let mut mask = Self::EMPTY;
        mask.insert(cpu);
        mask
    }
    /// Adds a CPU.
    pub fn insert(&mut self, cpu: CpuId) {
        let (word, bit) = cpu.place();
        self.0[word] |= bit;
    }
    /// Removes a CPU.
    pub fn remove(&mut self, cpu: CpuId) {
        let (word, bit) = cpu.place();
        self.0[word] &= !bit;
    }
    /// True when the CPU is in the set.
    pub fn contains(&self, cpu: CpuId) -> bool {
        let (word, bit) = cpu.place();
        self.0[word] & bit != 0
    }
    /// True when no CPU is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |all, word| all | word) == 0
    }
    /// Returns how many CPUs are in the set.
    pub fn count(&self) -> usize {
        self.0.iter().map(|w| w.count_ones() as usize).sum()
    }
    /// Adds every CPU of the other set.
    pub fn union(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
    }
    /// Keeps only the CPUs that are in the other set too.
    pub fn intersect(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a &= b);
    }
    /// Iterates over the CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> {
        let mut words = self.0;
        let mut first = 0;
        core::iter::from_fn(move || {
            while let Some(word) = words.get_mut(first) {
                if *word != 0 {
                    let bit = word.trailing_zeros() as u16;
                    *word &= *word - 1;
                    return Some(CpuId(first as u16 * 64 + bit));
                }
                first += 1;
            }
            None
        })
    }
}

/// A set of CPUs that several CPUs change at once.
#[derive(Debug, Default)]
pub struct AtomicCpuMask([AtomicU64; WORDS]);

impl AtomicCpuMask {
    /// No CPU.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }
    /// Adds a CPU; a full barrier.
    pub fn insert(&self, cpu: CpuId) {
        let (word, bit) = cpu.place();
        self.0[word].fetch_or(bit, Ordering::SeqCst);
    }
    /// Removes a CPU; a full barrier.
    pub fn remove(&self, cpu: CpuId) {
        let (word, bit) = cpu.place();
        self.0[word].fetch_and(!bit, Ordering::SeqCst);
    }
    /// True when the CPU is in the set.
    pub fn contains(&self, cpu: CpuId) -> bool {
        let (word, bit) = cpu.place();
        self.0[word].load(Ordering::SeqCst) & bit != 0
    }
    /// Returns the set as it is now.
    pub fn load(&self) -> CpuMask {
        CpuMask(core::array::from_fn(|i| self.0[i].load(Ordering::SeqCst)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_members_are_visited_in_order() {
        for members in [&[][..], &[0], &[255], &[0, 1, 63, 64, 127, 191, 192, 254, 255]] {
            let mut mask = CpuMask::EMPTY;
            members.iter().rev().for_each(|&cpu| mask.insert(CpuId(cpu)));
            assert!(mask.iter().map(|cpu| cpu.0).eq(members.iter().copied()), "{members:?}");
        }
    }
}
