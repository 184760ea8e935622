// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which interrupt each vector of each CPU is.
//!
//! A slot is free, an interrupt's, or retired: the interrupt does not come here any more, but one may still be on its way, so
//! the vector is given to nobody else until its own CPU has seen that none is left ([`Vectors::reap`]).
//!
//! No lock: slots are taken by compare-and-exchange, and the interrupt path reads one word that is hardly ever written.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

use arch::{CpuId, MAX_CPUS, VECTOR_INT80, VECTOR_IRQ_FIRST, VECTOR_IRQ_LAST};

/// Vectors from the first to the last that a CPU has for lines and messages; one of them has another use.
pub const COUNT: usize = (VECTOR_IRQ_LAST - VECTOR_IRQ_FIRST) as usize + 1;
/// Where the next search begins after one that was successful: in another priority class (16 vectors).
const STRIDE: usize = 16 + 1;

const FREE: u32 = 0;
const RETIRED: u32 = 1 << 31;

/// The vectors of one CPU.
#[derive(Debug)]
pub struct Vectors {
    /// The interrupt's number plus one.
    slots: [AtomicU32; COUNT],
    next: AtomicU32,
}

/// What a slot that is not free says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Number of the interrupt.
    pub irq: u32,
    /// It has gone elsewhere.
    pub is_retired: bool,
}

impl Vectors {
    /// All free.
    pub const fn new() -> Self {
        Self { slots: [const { AtomicU32::new(FREE) }; COUNT], next: AtomicU32::new(0) }
    }

    /// The slot of a vector that may be an interrupt's.
    fn slot(&self, vector: u8) -> Option<&AtomicU32> {
        self.slots.get(usize::from(vector.checked_sub(VECTOR_IRQ_FIRST)?)).filter(|_| vector != VECTOR_INT80)
    }

    /// Returns what a vector is used for.
    #[inline]
    pub fn lookup(&self, vector: u8) -> Option<Taken> {
        let word = self.slot(vector)?.load(Relaxed);
        let irq = (word & !RETIRED).checked_sub(1)?;
        Some(Taken { irq, is_retired: word & RETIRED != 0 })
    }

    /// Takes a free vector for an interrupt.
    pub fn allocate(&self, irq: u32) -> Option<u8> {
        let start = self.next.load(Relaxed) as usize % COUNT;
        (0..COUNT).map(|n| (start + n) % COUNT).find_map(|at| {
            let vector = VECTOR_IRQ_FIRST + at as u8;
            self.claim(vector, irq).then(|| {
                self.next.store((at + STRIDE) as u32, Relaxed);
                vector
            })
        })
    }

    /// Takes this vector for an interrupt; false when it is not free.
    pub fn claim(&self, vector: u8, irq: u32) -> bool {
        debug_assert!(irq < RETIRED - 1);
        self.slot(vector).is_some_and(|slot| slot.compare_exchange(FREE, irq + 1, SeqCst, Relaxed).is_ok())
    }

    /// Takes consecutive vectors for interrupts, as many as there are, a power of two; the first one is a multiple of that.
    pub fn allocate_block(&self, irqs: impl ExactSizeIterator<Item = u32> + Clone) -> Option<u8> {
        let count = irqs.len();
        let end = usize::from(VECTOR_IRQ_LAST) + 1;
        let fits = |first: &u8| usize::from(*first).is_multiple_of(count) && usize::from(*first) + count <= end;
        for first in (VECTOR_IRQ_FIRST..=VECTOR_IRQ_LAST).filter(fits) {
            let taken = (first..).zip(irqs.clone()).take_while(|(vector, irq)| self.claim(*vector, *irq)).count();
            if taken == count {
                return Some(first);
            }
            // Never told to anybody: free at once.
            (first..).take(taken).filter_map(|vector| self.slot(vector)).for_each(|slot| slot.store(FREE, SeqCst));
        }
        None
    }

    /// Says that an interrupt does not come to this vector any more. False when it was not the interrupt's.
    pub fn retire(&self, vector: u8, irq: u32) -> bool {
        let slot = self.slot(vector);
        slot.is_some_and(|s| s.compare_exchange(irq + 1, (irq + 1) | RETIRED, SeqCst, Relaxed).is_ok())
    }

    /// Frees the retired vectors, but those of which an interrupt is still `underway`. Returns how many are left.
    pub fn reap(&self, underway: impl Fn(u8) -> bool) -> usize {
        let retired = |slot: &AtomicU32| slot.load(Relaxed) & RETIRED != 0;
        let mut left = 0;
        for (vector, slot) in (VECTOR_IRQ_FIRST..).zip(&self.slots).filter(|(_, slot)| retired(slot)) {
            if underway(vector) {
                left += 1;
            } else {
                slot.store(FREE, SeqCst);
            }
        }
        left
    }

    /// Returns how many vectors are free.
    pub fn free(&self) -> usize {
        let free = |vector: &u8| self.slot(*vector).is_some_and(|slot| slot.load(Relaxed) == FREE);
        (VECTOR_IRQ_FIRST..=VECTOR_IRQ_LAST).filter(free).count()
    }

    /// Frees every vector, for a new machine.
    #[cfg(not(target_os = "none"))]
    pub fn forget(&self) {
        self.slots.iter().for_each(|s| s.store(FREE, Relaxed));
        self.next.store(0, Relaxed);
    }
}

impl Default for Vectors {
    fn default() -> Self {
        Self::new()
    }
}

static VECTORS: [Vectors; MAX_CPUS] = [const { Vectors::new() }; MAX_CPUS];

/// Returns the vectors of a CPU.
#[inline]
pub fn of(cpu: CpuId) -> &'static Vectors {
    &VECTORS[cpu.0 as usize % MAX_CPUS]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vector_once() {
        let vectors = Vectors::new();
        let mut given: std::vec::Vec<u8> = (1..COUNT as u32).map(|irq| vectors.allocate(irq).expect("free")).collect();
        assert_eq!((vectors.allocate(1000), vectors.free()), (None, 0));
        assert_ne!(given[0] / 16, given[1] / 16, "neighbours are in different classes");
        given.sort_unstable();
        let all = VECTOR_IRQ_FIRST..=VECTOR_IRQ_LAST;
        assert_eq!(given, all.filter(|vector| *vector != VECTOR_INT80).collect::<std::vec::Vec<_>>());
    }

    #[test]
    fn retired_vectors_wait_for_what_is_underway() {
        let vectors = Vectors::new();
        let vector = vectors.allocate(7).expect("free");
        assert_eq!(vectors.lookup(vector), Some(Taken { irq: 7, is_retired: false }));
        assert!(!vectors.retire(vector, 8), "another interrupt's");
        assert!(vectors.retire(vector, 7) && !vectors.retire(vector, 7));
        assert_eq!(vectors.lookup(vector), Some(Taken { irq: 7, is_retired: true }));
        assert!(!vectors.claim(vector, 9), "not free yet");
        assert_eq!(vectors.reap(|v| v == vector), 1);
        assert_eq!(vectors.reap(|_| false), 0);
        assert_eq!(vectors.lookup(vector), None);
        assert!(vectors.claim(vector, 9));
    }

    #[test]
    fn blocks_are_aligned() {
        let vectors = Vectors::new();
        assert!(vectors.claim(0x31, 1));
        assert_eq!(vectors.allocate_block([10, 11].into_iter()), Some(0x32));
        assert_eq!(vectors.lookup(0x33).map(|t| t.irq), Some(11));
        let mut blocks = std::vec::Vec::new();
        while let Some(first) = vectors.allocate_block(100..132) {
            assert!(first % 32 == 0 && first >= VECTOR_IRQ_FIRST && first + 31 <= VECTOR_IRQ_LAST);
            blocks.push(first);
        }
        // The block with the vector of INT 0x80 in it is nobody's.
        assert_eq!(blocks, [0x40, 0x60, 0xa0, 0xc0]);
        assert_eq!(vectors.free(), COUNT - 1 - 3 - 4 * 32, "what did not fit was given back");
    }

    #[test]
    fn no_vector_outside_the_range() {
        let vectors = Vectors::new();
        for vector in [0, VECTOR_IRQ_FIRST - 1, VECTOR_INT80, VECTOR_IRQ_LAST + 1, 255] {
            assert!(!vectors.claim(vector, 1) && !vectors.retire(vector, 1));
            assert_eq!(vectors.lookup(vector), None);
        }
    }
}
