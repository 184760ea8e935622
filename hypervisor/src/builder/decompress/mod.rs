// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unpacking a kernel as a stream.
//!
//! [`Stream`] yields the unpacked bytes piece by piece and ends only when the format's own check sum (CRC32, CRC64, SHA-256 or
//! XXH64, as the file has it) and the size the file states were found right. Memory is bounded: [`memory_needed`] says how much
//! before anything is allocated, never more than [`MAX_MEMORY`]; running out of it is an error, not a panic. Output is bounded by
//! [`MAX_UNPACKED`].

mod crc32;
mod gzip;
mod xz;
mod zstd;

use super::image::{Format, ImageError, Payload};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Bytes that a kernel may unpack to: what one boot mapping can hold.
pub const MAX_UNPACKED: u64 = 1 << 30;
/// The largest window accepted, for XZ and for zstd (what `zstd --ultra -22` asks for).
pub const MAX_WINDOW: u64 = 128 << 20;
/// The most that any decoder allocates: one and a half windows (XZ grows its window by doubling) and its tables.
pub const MAX_MEMORY: u64 = MAX_WINDOW + MAX_WINDOW / 2 + SMALL;
/// Tables and buffers beside the window.
const SMALL: u64 = 1 << 20;

#[derive(Debug)]
enum Decoder<'a> {
    Plain(&'a [u8]),
    Xz(Box<xz::Decoder<'a>>),
    Gzip(Box<gzip::Decoder<'a>>),
    Zstd(Box<zstd::Decoder<'a>>),
}

/// The unpacked bytes of a payload, in order.
#[derive(Debug)]
pub struct Stream<'a> {
    decoder: Decoder<'a>,
    expected: Option<u64>,
    produced: u64,
}

/// Returns the blocks of memory that unpacking holds at one time, the largest first.
fn blocks(payload: &Payload<'_>) -> Result<[u64; 3], ImageError> {
    Ok(match payload.format {
        Format::Elf => [0; 3],
        Format::Gzip => [SMALL, 0, 0],
        Format::Xz => {
            let dictionary = xz::dictionary(payload.bytes)?;
            [dictionary, dictionary / 2, SMALL]
        }
        Format::Zstd => [zstd::memory(payload.bytes, payload.unpacked)?, SMALL, 0],
    })
}

/// Returns the most memory (bytes of heap at one time) that unpacking will take.
///
/// # Errors
/// When the payload's own header is damaged or asks for more than is accepted.
pub fn memory_needed(payload: &Payload<'_>) -> Result<u64, ImageError> {
    Ok(blocks(payload)?.iter().sum())
}

impl<'a> Stream<'a> {
    /// Starts unpacking.
    ///
    /// # Errors
    /// When the payload's header is damaged, or when there is no memory for the window.
    pub fn open(payload: &Payload<'a>) -> Result<Self, ImageError> {
        let blocks = blocks(payload)?;
        if payload.unpacked.is_some_and(|size| size > MAX_UNPACKED) {
            return Err(ImageError::TooLarge);
        }
        probe(blocks)?;
        let decoder = match payload.format {
            Format::Elf => Decoder::Plain(payload.bytes),
            Format::Xz => Decoder::Xz(Box::new(xz::Decoder::new(payload.bytes))),
            Format::Gzip => Decoder::Gzip(Box::new(gzip::Decoder::new(payload.bytes)?)),
            Format::Zstd => Decoder::Zstd(Box::new(zstd::Decoder::new(payload.bytes, payload.unpacked)?)),
        };
        Ok(Self { decoder, expected: payload.unpacked, produced: 0 })
    }

    /// Fills the start of `buf` with the next bytes; 0 means the end, all checks passed (`buf` must not be empty).
    ///
    /// # Errors
    /// When the data are damaged or truncated, or unpack to another size than stated.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize, ImageError> {
        let n = match &mut self.decoder {
            Decoder::Plain(rest) => {
                let (now, later) = rest.split_at(rest.len().min(buf.len()));
                buf[..now.len()].copy_from_slice(now);
                *rest = later;
                now.len()
            }
            Decoder::Xz(decoder) => decoder.read(buf)?,
            Decoder::Gzip(decoder) => decoder.read(buf)?,
            Decoder::Zstd(decoder) => decoder.read(buf)?,
        };
        self.produced += n as u64;
        if self.produced > MAX_UNPACKED {
            return Err(ImageError::TooLarge);
        }
        match self.expected {
            Some(expected) if self.produced > expected || (n == 0 && self.produced != expected) => {
                Err(ImageError::WrongSize { expected, found: self.produced })
            }
            _ => Ok(n),
        }
    }

    /// Returns the number of bytes unpacked so far.
    pub const fn position(&self) -> u64 {
        self.produced
    }
}

/// Sees whether the heap has these blocks, because some decoders allocate without a way to fail. Nothing else allocates between
/// this and them: images are read by one CPU while the machine boots.
fn probe(blocks: [u64; 3]) -> Result<(), ImageError> {
    let bytes = blocks.iter().sum();
    let held = blocks.map(|block| {
        let mut buffer: Vec<u8> = Vec::new();
        let done = usize::try_from(block).is_ok_and(|len| buffer.try_reserve_exact(len).is_ok());
        // Without this an optimizer may drop the allocation, and with it the answer.
        core::hint::black_box(buffer.as_ptr());
        (done, buffer)
    });
    if held.iter().all(|(done, _)| *done) { Ok(()) } else { Err(ImageError::OutOfMemory { bytes }) }
}
