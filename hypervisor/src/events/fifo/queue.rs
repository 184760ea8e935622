// SPDX-License-Identifier: MIT OR Apache-2.0
//! A queue of events that the guest empties: the protocol of the words that both sides write.
//!
//! An event is in a queue while its word is LINKED; LINK is the next one's port, 0 at the end. The guest takes an event by
//! clearing LINKED and LINK in one step, and so learns the next; at the end of the queue it goes on at the head in its control
//! block as soon as the queue's bit in the ready word is set. Events are added under the queue's lock; the guest is kept out
//! by nothing, so whatever the words say is legal, and every loop is bounded.
//!
//! [`Word`] stands for a word of guest memory, so that this is what models of the protocol run too.

use hypercalls::event::{FIFO_BUSY, FIFO_LINK_MASK, FIFO_LINKED, FIFO_MASKED, FIFO_PENDING};

/// In an event word: the event is pending; it is masked; it is in a queue; its word must not be unmasked just now.
pub const PENDING: u32 = 1 << FIFO_PENDING;
/// See [`PENDING`].
pub const MASKED: u32 = 1 << FIFO_MASKED;
/// See [`PENDING`].
pub const LINKED: u32 = 1 << FIFO_LINKED;
/// See [`PENDING`].
pub const BUSY: u32 = 1 << FIFO_BUSY;

/// Attempts to link with the word marked BUSY. Until it is not any more a guest may clear PENDING, set MASKED and clear LINKED,
/// each once, and may have been about to clear MASKED.
const ATTEMPTS: usize = 4;

/// A word that hypervisor and guest write. All accesses are sequentially consistent.
pub trait Word {
    /// Returns the value.
    fn load(&self) -> u32;
    /// Stores a value.
    fn store(&self, value: u32);
    /// Sets one bit; true when it was set before.
    fn set(&self, bit: u32) -> bool;
    /// Clears one bit.
    fn clear(&self, bit: u32);
    /// Stores `new` if the value is `old`; else says what it is.
    ///
    /// # Errors
    /// The value that was found instead.
    fn replace(&self, old: u32, new: u32) -> Result<(), u32>;
}

/// The hypervisor's side of a queue.
#[derive(Debug)]
pub struct Queue {
    /// The event that was added last, 0 when there is none that another may follow.
    tail: u32,
}

impl Queue {
    /// A queue to which nothing was added yet.
    pub const EMPTY: Self = Self { tail: 0 };

    /// Adds an event if it is in no queue. `old` is the queue that it was in last, unless that is this one; `word_of` finds
    /// events' words, `head` is this queue's in the control block.
    pub fn add<'a, W: Word + 'a>(
        &mut self,
        old: Option<&mut Self>,
        port: u32,
        word_of: impl Fn(u32) -> Option<&'a W>,
        head: &W,
    ) -> Added {
        if word_of(port).is_none_or(|word| word.set(LINKED)) {
            return Added::Not;
        }
        // It may be the last of the queue that it has left, which goes on from its head then; of this one, too.
        for queue in [old, Some(&mut *self)].into_iter().flatten().filter(|queue| queue.tail == port) {
            queue.tail = 0;
        }
        let tail = core::mem::replace(&mut self.tail, port);
        if tail != 0 && word_of(tail).is_some_and(|word| link(word, port)) {
            return Added::Behind;
        }
        head.store(port);
        Added::First
    }
}

/// What came of adding an event to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in a queue already.
    Not,
    /// It is behind another one.
    Behind,
    /// The guest may be at the end of the queue: its ready bit is to be set.
    First,
}

/// Makes `port` follow the event of this word, if that is still in the queue.
fn link<W: Word>(word: &W, port: u32) -> bool {
    let mut seen = word.load();
    if let Some(done) = attempt(word, &mut seen, port) {
        return done;
    }
    // The guest changes the word just now. It does not unmask what is BUSY, so that it runs out of changes.
    word.set(BUSY);
    seen = word.load();
    for _ in 0..ATTEMPTS {
        match attempt(word, &mut seen, port) {
            Some(true) => return true,
            Some(false) => break,
            None => {}
        }
    }
    // Still no luck is the doing of a guest that breaks the rules: the event is at a head that it may or may not look at.
    word.clear(BUSY);
    false
}

fn attempt<W: Word>(word: &W, seen: &mut u32, port: u32) -> Option<bool> {
    if *seen & LINKED == 0 {
        return Some(false);
    }
    match word.replace(*seen, *seen & !(BUSY | FIFO_LINK_MASK) | port) {
        Ok(()) => Some(true),
        Err(found) => {
            *seen = found;
            None
        }
    }
}

/// Makes an event pending. Calls `add` when it is to be added to a queue, which sets LINKED under the queue's lock. Returns
/// true when it was not pending before.
#[inline(always)]
pub fn raise<W: Word>(word: &W, add: impl FnOnce()) -> bool {
    let was_pending = word.set(PENDING);
    if word.load() & (MASKED | LINKED) == 0 {
        add();
    }
    !was_pending
}

/// Unmasks an event, for a guest that found it pending when it tried; calls `add` when it is to be added to a queue.
pub fn unmask<W: Word>(word: &W, add: impl FnOnce()) {
    word.clear(MASKED);
    if word.load() & (PENDING | LINKED) == PENDING {
        add();
    }
}
