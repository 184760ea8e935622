// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lock: a spin mutex that serves TLB shootdowns while it waits, with a rank that debug builds check.
//!
//! # Locking
//! A CPU takes locks in ascending rank only, never two of the same rank (but see [`Lock::lock_second`]). Ranks are
//! numbers below 64: the hypervisor crate uses those below [`rank::MM`], this crate those from there on, so that memory
//! may be allocated, and references dropped, under any of the hypervisor's locks.

use core::fmt;
use core::ops::{Deref, DerefMut};
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// Ranks of this crate's locks; the hypervisor's are below [`rank::MM`].
pub mod rank {
    /// Where this crate's ranks begin.
    pub const MM: u8 = 48;
    /// The map from domain to account.
    pub const ACCOUNTS: u8 = 50;
    /// A domain's list of pages.
    pub const PAGES: u8 = 52;
    /// The heap.
    pub const HEAP: u8 = 54;
    /// The buddy allocator.
    pub const BUDDY: u8 = 56;
}

/// A value behind a spin lock of a rank.
pub struct Lock<T: ?Sized> {
    rank: u8,
    inner: SpinMutex<T, arch::sync::Relax>,
}

/// Access to what a [`Lock`] protects; unlocks when dropped.
pub struct LockGuard<'a, T: ?Sized> {
    rank: u8,
    inner: SpinMutexGuard<'a, T>,
}

impl<T> Lock<T> {
    /// Makes an unlocked lock.
    pub const fn new(rank: u8, value: T) -> Self {
        assert!(rank < 64);
        Self { rank, inner: SpinMutex::new(value) }
    }
    /// Returns the value; nobody else can hold the lock.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<T: ?Sized> Lock<T> {
    /// Waits for the lock.
    #[inline]
    pub fn lock(&self) -> LockGuard<'_, T> {
        order::acquire(self.rank, false);
        LockGuard { rank: self.rank, inner: self.inner.lock() }
    }
    /// Waits for the lock while another of the same rank is held: the caller orders the two, by address or number.
    #[inline]
    pub fn lock_second(&self) -> LockGuard<'_, T> {
        order::acquire(self.rank, true);
        LockGuard { rank: order::NESTED, inner: self.inner.lock() }
    }
    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        let inner = self.inner.try_lock()?;
        order::note(self.rank);
        Some(LockGuard { rank: self.rank, inner })
    }
    /// Returns the value; the borrow proves that nobody else can hold the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
    /// True when somebody holds the lock now.
    pub fn is_locked(&self) -> bool {
        self.inner.is_locked()
    }
    /// Unlocks for whoever holds it. For a panic's last words only: what is protected may be half changed.
    ///
    /// # Safety
    /// No other CPU runs any more.
    #[expect(unsafe_code, reason = "breaks the lock of a stopped machine")]
    pub unsafe fn force_unlock(&self) {
        // SAFETY: the caller stopped everybody who could hold a guard.
        unsafe { self.inner.force_unlock() }
    }
}

impl<T: ?Sized> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("rank", &self.rank).field("locked", &self.is_locked()).finish_non_exhaustive()
    }
}

impl<T: ?Sized> fmt::Debug for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("rank", &self.rank).finish_non_exhaustive()
    }
}

impl<T: ?Sized> Deref for LockGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized> DerefMut for LockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: ?Sized> Drop for LockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        order::release(self.rank);
    }
}

/// The order check of debug builds: one word of held ranks a CPU.
#[cfg(debug_assertions)]
pub(crate) mod order {
    use arch::{MAX_CPUS, cpu};
    use core::sync::atomic::{AtomicU64, Ordering};

    pub(crate) const NESTED: u8 = 255;
    static HELD: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

    fn held() -> &'static AtomicU64 {
        &HELD[cpu::this_cpu().0 as usize % MAX_CPUS]
    }
    pub(crate) fn acquire(rank: u8, second: bool) {
        let inner = held().load(Ordering::Relaxed) >> rank;
        let allowed = if second { 1 } else { 0 };
        assert!(inner & !allowed == 0, "lock of rank {rank} wanted under inner ranks {inner:#b}");
        if !second {
            held().fetch_or(1 << rank, Ordering::Relaxed);
        }
    }
    pub(crate) fn note(rank: u8) {
        held().fetch_or(1 << rank, Ordering::Relaxed);
    }
    pub(crate) fn release(rank: u8) {
        if rank != NESTED {
            held().fetch_and(!(1 << rank), Ordering::Relaxed);
        }
    }
}

#[cfg(not(debug_assertions))]
pub(crate) mod order {
    pub(crate) const NESTED: u8 = 255;
    pub(crate) fn acquire(_: u8, _: bool) {}
    pub(crate) fn note(_: u8) {}
    pub(crate) fn release(_: u8) {}
}
