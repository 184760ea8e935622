// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values that CPUs read without a lock, and when they may go.
//!
//! The hypervisor never sleeps and is never interrupted: whatever a CPU has found in a [`Published`] it has let go of by
//! the time it does its work on the way back to a guest, or idles. So what was taken out of one is dropped after each CPU
//! has been there once: one *grace period* later. Readers pay nothing; whoever replaces a value makes every CPU look at its
//! work.
//!
//! Invariant: [`pass`] is called where no reference from [`Published::with`] is alive on its CPU: by the work on the way back
//! to a guest, and by the idle loop.
#![expect(unsafe_code, reason = "hands out references to what a pointer leads to")]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering::SeqCst};

use arch::CpuMask;
use arch::cpu::{self, Work};
use hypercalls::{Errno, Result};
use mm::Lock;

use crate::rank;

/// A value that can be published, with the place by which it waits for its end.
pub struct Node<T: ?Sized> {
    next: Retired,
    value: T,
}

/// A list of what is only kept to be dropped.
type Retired = Option<Box<Node<dyn Send>>>;

impl<T: ?Sized> fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl<T> Node<T> {
    /// Makes one.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(value: T) -> Result<Box<Self>> {
        let mut room = Vec::new();
        room.try_reserve_exact(1).map_err(|_| Errno::ENOMEM)?;
        room.push(Self { next: None, value });
        let only: *mut [Self] = Box::into_raw(room.into_boxed_slice());
        // SAFETY: a slice of one element has that element's layout; the pointer came from a box.
        Ok(unsafe { Box::from_raw(only.cast()) })
    }
}

impl<T> Node<T> {
    /// Returns the value.
    pub const fn value(&self) -> &T {
        &self.value
    }
}

/// A value, or none, that can be read without a lock and replaced at any time.
pub struct Published<T>(AtomicPtr<Node<T>>, PhantomData<Option<Box<T>>>);

// SAFETY: it hands out shared references on any CPU and drops the value on any, as an `Arc` does.
unsafe impl<T: Send + Sync> Sync for Published<T> {}

impl<T> Published<T> {
    /// Makes one that holds nothing.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()), PhantomData)
    }

    /// Makes one that holds a value.
    pub fn holding(value: Box<Node<T>>) -> Self {
        Self(AtomicPtr::new(Box::into_raw(value)), PhantomData)
    }

    /// Calls `f` with the value, if there is one.
    #[inline(always)]
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        // SAFETY: the pointer is null or came from a box that is dropped one grace period after it was replaced here, and
        // this CPU passes no grace period before `f` has returned.
        unsafe { self.0.load(SeqCst).as_ref() }.map(|node| f(&node.value))
    }

    /// True when it holds a value.
    #[inline(always)]
    pub fn is_some(&self) -> bool {
        !self.0.load(SeqCst).is_null()
    }
}

impl<T: Send + Sync + 'static> Published<T> {
    /// Puts another value, or none, into the place. Says when the old one, if there was one, will be gone.
    pub fn replace(&self, new: Option<Box<Node<T>>>) -> Option<Ticket> {
        let old = self.0.swap(new.map_or(null_mut(), Box::into_raw), SeqCst);
        // SAFETY: the pointer came from `Box::into_raw` and is not in the place any more.
        (!old.is_null()).then(|| retire(unsafe { Box::from_raw(old) }))
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        let held = *self.0.get_mut();
        if !held.is_null() {
            // SAFETY: the pointer came from `Box::into_raw`; nobody else has the place any more.
            drop(unsafe { Box::from_raw(held) });
        }
    }
}

impl<T> Default for Published<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|value| value.fmt(f)).unwrap_or_else(|| f.write_str("nothing"))
    }
}

/// When something that was replaced will be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    /// True once it is gone.
    pub fn is_over(self) -> bool {
        STATE.lock().ended >= self.0
    }
}

struct State {
    /// How many periods have ended.
    ended: u64,
    /// One is under way.
    running: bool,
    /// The CPUs that it waits for.
    waiting: CpuMask,
    /// What goes at its end.
    now: Retired,
    /// What came too late for it.
    later: Retired,
}

static STATE: Lock<State> =
    Lock::new(rank::GRACE, State { ended: 0, running: false, waiting: CpuMask::EMPTY, now: None, later: None });

impl State {
    /// Starts a period if something waits for one. Returns the CPUs to be told.
    fn start(&mut self) -> CpuMask {
        self.now = self.later.take();
        self.running = self.now.is_some();
        self.waiting = if self.running { cpu::online() } else { CpuMask::EMPTY };
        self.waiting
    }
}

/// Drops a value after every CPU has let go of what it has found up to now.
fn retire<T: Send + 'static>(mut node: Box<Node<T>>) -> Ticket {
    let mut state = STATE.lock();
    node.next = state.later.take();
    state.later = Some(node);
    if state.running {
        return Ticket(state.ended + 2);
    }
    let (told, ticket) = (state.start(), Ticket(state.ended + 1));
    drop(state);
    tell(told);
    ticket
}

fn tell(cpus: CpuMask) {
    cpus.iter().for_each(|cpu| cpu::raise(cpu, Work::GRACE));
}

/// Notes that this CPU has let go of all that it had found.
#[cold]
pub fn pass() {
    let mut state = STATE.lock();
    let here = cpu::this_cpu();
    if !state.waiting.contains(here) {
        return;
    }
    state.waiting.remove(here);
    if !state.waiting.is_empty() {
        return;
    }
    let mut gone = state.now.take();
    drop(state);
    while let Some(mut node) = gone {
        gone = node.next.take();
    }
    let mut state = STATE.lock();
    state.ended += 1;
    let told = state.start();
    drop(state);
    tell(told);
}

/// Ends all periods, for a new machine. What was kept is the caller's to drop.
#[cfg(not(target_os = "none"))]
pub fn take_all() -> impl Sized {
    let mut state = STATE.lock();
    (state.running, state.waiting) = (false, CpuMask::EMPTY);
    state.ended += 2;
    (state.now.take(), state.later.take())
}
