// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last messages, kept in memory: a ring of bytes in which each byte ever written has a number.
//!
//! Numbers are 32 bits wide and wrap, as in the ABI's `readconsole`. What must hold: `held` bytes before the number
//! `end` can be read, and `held` never exceeds [`SIZE`].

/// How many bytes are kept.
pub const SIZE: usize = 32 << 10;

/// A ring of messages.
#[derive(Debug)]
pub struct LogRing {
    bytes: [u8; SIZE],
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
        Self { bytes: [0; SIZE], end: 0, held: 0 }
    }

    /// Adds bytes; the oldest ones make room.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if let Some(slot) = self.bytes.get_mut(self.end as usize % SIZE) {
                *slot = byte;
            }
            self.end = self.end.wrapping_add(1);
        }
        let added = bytes.len().min(SIZE) as u32;
        self.held = (self.held + added).min(SIZE as u32);
    }

    /// Forgets everything; numbers go on.
    pub fn clear(&mut self) {
        self.held = 0;
    }

    /// Returns the number of the oldest byte that is held.
    pub fn start(&self) -> u32 {
        self.end.wrapping_sub(self.held)
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
            *slot = self.bytes.get(at as usize % SIZE).copied().unwrap_or(0);
            at = at.wrapping_add(1);
        }
        (count, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ring: &LogRing, from: u32) -> (alloc::vec::Vec<u8>, u32) {
        let mut buffer = alloc::vec![0; SIZE + 10];
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
        for n in 0..SIZE + 5 {
            ring.push(&[n as u8]);
        }
        let (all, next) = text(&ring, 0);
        assert_eq!(all.len(), SIZE);
        assert_eq!(all[0], 5);
        assert_eq!(next as usize, SIZE + 5);
        assert_eq!(ring.start(), 5);
        // More than fits at once.
        ring.push(&[7; SIZE + 1]);
        assert!(text(&ring, 0).0.iter().all(|&b| b == 7));
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
