// SPDX-License-Identifier: MIT OR Apache-2.0
//! The serial console: two buffers.

use crate::time;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

static OUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static IN: Mutex<VecDeque<u8>> = Mutex::new(VecDeque::new());

/// Nanoseconds that a byte takes on the line.
static PACE: AtomicU64 = AtomicU64::new(0);

/// Makes the line so slow that a byte takes this long.
pub fn set_pace(ns_per_byte: u64) {
    PACE.store(ns_per_byte, Ordering::Relaxed);
}

/// Sends bytes.
pub fn write(bytes: &[u8]) {
    time::advance(bytes.len() as u64 * PACE.load(Ordering::Relaxed));
    OUT.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
}

/// Receives what has arrived, up to the buffer's length; returns how much.
pub fn read(buffer: &mut [u8]) -> usize {
    let mut queue = IN.lock().unwrap_or_else(PoisonError::into_inner);
    let count = buffer.len().min(queue.len());
    buffer.iter_mut().zip(queue.drain(..count)).for_each(|(to, from)| *to = from);
    count
}

/// Waits until all bytes are sent: they are.
pub fn flush() {}

/// Takes what was sent since the last call.
pub fn take_output() -> Vec<u8> {
    core::mem::take(&mut *OUT.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Lets bytes arrive.
pub fn type_in(bytes: &[u8]) {
    IN.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
}

pub(crate) fn reset() {
    set_pace(0);
    take_output();
    IN.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
