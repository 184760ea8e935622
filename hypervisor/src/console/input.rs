// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was typed and not yet read: a ring of bytes; what does not fit is lost.

const SIZE: usize = 1024;

/// Bytes that wait for a reader.
#[derive(Debug)]
pub(super) struct InputRing {
    bytes: [u8; SIZE],
    first: usize,
    held: usize,
}

impl InputRing {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; SIZE], first: 0, held: 0 }
    }

    /// Adds bytes as far as there is room.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().take(SIZE - self.held) {
            if let Some(slot) = self.bytes.get_mut((self.first + self.held) % SIZE) {
                *slot = byte;
            }
            self.held += 1;
        }
    }

    /// Returns the oldest bytes that lie together.
    pub(super) fn first(&self) -> &[u8] {
        let end = (self.first + self.held).min(SIZE);
        self.bytes.get(self.first..end).unwrap_or(&[])
    }

    /// Forgets the oldest bytes.
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.held);
        self.first = (self.first + count) % SIZE;
        self.held -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out() {
        let mut ring = InputRing::new();
        assert!(ring.first().is_empty());
        ring.push(&[1; SIZE - 2]);
        ring.consume(SIZE - 3);
        ring.push(&[2, 3, 4, 5]);
        assert_eq!(ring.first(), [1, 2, 3]);
        ring.consume(3);
        assert_eq!(ring.first(), [4, 5]);
        ring.consume(9);
        assert!(ring.first().is_empty());
        ring.push(&[9; SIZE + 7]);
        let mut seen = 0;
        while !ring.first().is_empty() {
            let count = ring.first().len();
            seen += count;
            ring.consume(count);
        }
        assert_eq!(seen, SIZE);
    }
}
