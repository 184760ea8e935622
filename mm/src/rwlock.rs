// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lock for many readers or one writer, with a rank as [`crate::Lock`] has it.
//!
//! A writer that waits keeps new readers out, so readers cannot starve it (XSA-114). So nobody who reads may read the same
//! lock again: the rank forbids it.

use crate::lock::order;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};
use spin::RelaxStrategy;
use spin::rwlock::{RwLock as Inner, RwLockReadGuard, RwLockWriteGuard};

type Relax = arch::sync::Relax;

/// A value that many may read or one may change.
pub struct RwLock<T> {
    rank: u8,
    /// Writers that wait or write.
    writers: AtomicU32,
    inner: Inner<T, Relax>,
}

/// Shared access to what a [`RwLock`] protects.
#[derive(Debug)]
pub struct ReadGuard<'a, T> {
    rank: u8,
    inner: RwLockReadGuard<'a, T>,
}

/// Access to what a [`RwLock`] protects, alone.
#[derive(Debug)]
pub struct WriteGuard<'a, T> {
    lock: &'a RwLock<T>,
    inner: RwLockWriteGuard<'a, T, Relax>,
}

impl<T> RwLock<T> {
    /// Makes an unlocked lock.
    pub const fn new(rank: u8, value: T) -> Self {
        assert!(rank < 64);
        Self { rank, writers: AtomicU32::new(0), inner: Inner::new(value) }
    }
    /// Waits until nobody writes or waits to.
    #[inline]
    pub fn read(&self) -> ReadGuard<'_, T> {
        order::acquire(self.rank, false);
        while self.writers.load(Ordering::Relaxed) != 0 {
            Relax::relax();
        }
        ReadGuard { rank: self.rank, inner: self.inner.read() }
    }
    /// Waits until nobody else reads or writes.
    pub fn write(&self) -> WriteGuard<'_, T> {
        order::acquire(self.rank, false);
        self.writers.fetch_add(1, Ordering::Relaxed);
        WriteGuard { lock: self, inner: self.inner.write() }
    }
    /// True when somebody reads or writes now.
    pub fn is_locked(&self) -> bool {
        self.inner.reader_count() != 0 || self.inner.writer_count() != 0
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("rank", &self.rank).field("locked", &self.is_locked()).finish_non_exhaustive()
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        order::release(self.rank);
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        // A reader that comes before the inner lock is free waits there.
        self.lock.writers.fetch_sub(1, Ordering::Relaxed);
        order::release(self.lock.rank);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_get_in_between_readers() {
        static LOCK: RwLock<u32> = RwLock::new(3, 0);
        extern crate std;
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| while *LOCK.read() < 100 {});
            }
            s.spawn(|| (0..100).for_each(|_| *LOCK.write() += 1));
        });
        assert_eq!(*LOCK.read(), 100);
        assert!(!LOCK.is_locked());
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "wanted under inner ranks")]
    fn reading_twice_is_an_error() {
        let lock = RwLock::new(3, 0);
        let _first = lock.read();
        let _second = lock.read();
    }
}
