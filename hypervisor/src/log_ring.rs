// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last messages, kept in memory: a ring of bytes in which each byte ever written has a number.
//!
//! Numbers are 32 bits wide and wrap, as in the ABI's `readconsole`. What must hold: `held` bytes before the number
//! `end` can be read, and `held` never exceeds the size, which is a power of two.

use alloc::boxed::Box;

/// How many bytes are kept before there is a heap.
pub const EARLY_SIZE: usize = 32 << 10;

/// A ring of messages.
#[derive(Debug)]
pub struct LogRing {
    early: [u8; EARLY_SIZE],
    /// What is used instead once the ring has been enlarged.
    grown: Option<Box<[u8]>>,
    /// Number of the next byte.
    end: u32,
    held: u32,
}

impl Default for LogRing {
    fn default() -> Self {
        Self::new()
    }
}

impl LogRing {
    /// Returns an empty ring.
    pub const fn new() -> Self {
        Self { early: [0; EARLY_SIZE], grown: None, end: 0, held: 0 }
    }

    /// Returns how many bytes are kept.
    pub fn size(&self) -> usize {
        self.grown.as_ref().map_or(EARLY_SIZE, |grown| grown.len())
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.grown {
            Some(grown) => grown,
            None => &mut self.early,
        }
    }

    /// Keeps as many bytes from now on as the new storage has, which is not smaller than the old one and a power of two; what
    /// is held stays.
    pub fn enlarge(&mut self, mut storage: Box<[u8]>) {
        debug_assert!(storage.len().is_power_of_two() && storage.len() >= self.size());
        let size = storage.len();
        for number in (0..self.held).map(|n| self.start().wrapping_add(n)) {
            let byte = self.byte(number);
            if let Some(slot) = storage.get_mut(number as usize % size) {
                *slot = byte;
            }
        }
        self.grown = Some(storage);
    }

    fn byte(&self, number: u32) -> u8 {
        let bytes = self.grown.as_deref().unwrap_or(&self.early);
        bytes.get(number as usize % bytes.len()).copied().unwrap_or(0)
    }

    /// Adds bytes; the oldest ones make room.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut end = self.end;
        let to = self.bytes_mut();
        let size = to.len();
        for &byte in bytes {
            if let Some(slot) = to.get_mut(end as usize % size) {
                *slot = byte;
            }
            end = end.wrapping_add(1);
        }
        self.end = end;
        let added = bytes.len().min(size) as u32;
        self.held = (self.held + added).min(size as u32);
    }

    /// Forgets everything; numbers go on.
    pub fn clear(&mut self) {
        self.held = 0;
    }

    /// Forgets the bytes before a number; nothing when that was never written or is gone already.
    pub fn forget_before(&mut self, number: u32) {
        self.held = self.held.min(self.end.wrapping_sub(number));
    }

    /// Returns the number of the oldest byte that is held.
    pub fn start(&self) -> u32 {
        self.end.wrapping_sub(self.held)
    }

    /// Returns the number of the oldest byte that is held, and that of the next one to come.
    pub fn range(&self) -> (u32, u32) {
        (self.start(), self.end)
    }

    /// Copies bytes from number `from` on, or from the oldest one when that is gone or was never written. Returns how many,
    /// and the number of the byte behind them.
    pub fn read(&self, from: u32, buffer: &mut [u8]) -> (usize, u32) {
        let left = match self.end.wrapping_sub(from) {
            left if left <= self.held => left,
            _ => self.held,
        };
        let mut at = self.end.wrapping_sub(left);
        let count = buffer.len().min(left as usize);
        for slot in buffer.iter_mut().take(count) {
            *slot = self.byte(at);
            at = at.wrapping_add(1);
        }
        (count, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ring: &LogRing, from: u32) -> (alloc::vec::Vec<u8>, u32) {
        let mut buffer = alloc::vec![0; ring.size() + 10];
        let (count, next) = ring.read(from, &mut buffer);
        buffer.truncate(count);
        (buffer, next)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut ring = LogRing::new();
        ring.push(b"hello ");
        ring.push(b"world");
        assert_eq!(text(&ring, 0), (b"hello world".to_vec(), 11));
        assert_eq!(text(&ring, 6), (b"world".to_vec(), 11));
        assert_eq!(text(&ring, 11), (b"".to_vec(), 11));
        // Never written: from the oldest.
        assert_eq!(text(&ring, 12).0, b"hello world");
        let mut three = [0; 3];
        assert_eq!(ring.read(0, &mut three), (3, 3));
        assert_eq!(&three, b"hel");
        ring.clear();
        assert_eq!(text(&ring, 0), (b"".to_vec(), 11));
        ring.push(b"!");
        assert_eq!(text(&ring, 0), (b"!".to_vec(), 12));
    }

    #[test]
    fn the_oldest_make_room() {
        let mut ring = LogRing::new();
        for n in 0..EARLY_SIZE + 5 {
            ring.push(&[n as u8]);
        }
        let (all, next) = text(&ring, 0);
        assert_eq!(all.len(), EARLY_SIZE);
        assert_eq!(all[0], 5);
        assert_eq!(next as usize, EARLY_SIZE + 5);
        assert_eq!(ring.start(), 5);
        // More than fits at once.
        ring.push(&[7; EARLY_SIZE + 1]);
        assert!(text(&ring, 0).0.iter().all(|&b| b == 7));
    }

    #[test]
    fn a_larger_ring_holds_what_the_smaller_one_did() {
        let mut ring = LogRing::new();
        ring.end = u32::MAX - 100;
        let written: alloc::vec::Vec<u8> = (0..EARLY_SIZE + 300).map(|n| n as u8).collect();
        ring.push(&written);
        ring.enlarge(alloc::vec![0; 4 * EARLY_SIZE].into());
        assert_eq!(text(&ring, 0).0, &written[300..]);
        ring.push(&written);
        let all = text(&ring, 0).0;
        assert_eq!(all.len(), 2 * EARLY_SIZE + 300);
        assert!(all.ends_with(&written) && all.starts_with(&written[300..]));
        ring.push(&alloc::vec![1; 5 * EARLY_SIZE]);
        assert_eq!(text(&ring, 0).0, alloc::vec![1; 4 * EARLY_SIZE]);
    }

    #[test]
    fn what_was_read_can_be_forgotten() {
        let mut ring = LogRing::new();
        ring.push(b"abcdef");
        ring.forget_before(2);
        assert_eq!(text(&ring, 0).0, b"cdef");
        ring.forget_before(1);
        assert_eq!(text(&ring, 0).0, b"cdef", "gone already");
        ring.forget_before(7);
        assert_eq!(text(&ring, 0).0, b"cdef", "never written");
        ring.forget_before(6);
        assert_eq!(text(&ring, 0).0, b"");
    }

    #[test]
    fn numbers_wrap() {
        let mut ring = LogRing::new();
        ring.end = u32::MAX - 2;
        ring.push(b"abcdef");
        assert_eq!(text(&ring, u32::MAX - 2), (b"abcdef".to_vec(), 3));
        assert_eq!(text(&ring, 0), (b"def".to_vec(), 3));
    }
}
