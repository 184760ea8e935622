// SPDX-License-Identifier: MIT OR Apache-2.0
//! gzip (RFC 1952): the header and trailer read here, deflate by `miniz_oxide`.
//!
//! One member is read; what follows it is not looked at. Memory: a ring of [`RING`] bytes and the decoder's tables.

use super::crc32::Crc32;
use crate::builder::image::{Format, ImageError};
use alloc::boxed::Box;
use alloc::vec;
use core::fmt;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// Bytes of output kept; deflate looks back 32 KiB.
const RING: usize = 64 << 10;
const FHCRC: u8 = 2;
const FEXTRA: u8 = 4;
const FNAME: u8 = 8;
const FCOMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;
const HEADER: ImageError = ImageError::Truncated("the gzip header");
const BODY: ImageError = ImageError::Truncated("the gzip data");

pub(super) struct Decoder<'a> {
    input: &'a [u8],
    inflate: Box<DecompressorOxide>,
    ring: Box<[u8]>,
    /// Where the ring is written next.
    head: usize,
    /// The part of the ring not yet given out.
    ready: core::ops::Range<usize>,
    crc: Crc32,
    /// Bytes out, modulo 2^32 as the trailer has it.
    size: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Deflate,
    Trailer,
    Done,
}

impl fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip").field("left", &self.input.len()).finish_non_exhaustive()
    }
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, ImageError> {
        Ok(Self {
            input: skip_header(bytes)?,
            inflate: Box::default(),
            ring: vec![0; RING].into_boxed_slice(),
            head: 0,
            ready: 0..0,
            crc: Crc32::new(),
            size: 0,
            state: State::Deflate,
        })
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize, ImageError> {
        while self.ready.is_empty() {
            match self.state {
                State::Deflate => self.inflate()?,
                State::Trailer => self.check_trailer()?,
                State::Done => return Ok(0),
            }
        }
        let n = self.ready.len().min(buf.len());
        buf[..n].copy_from_slice(&self.ring[self.ready.start..self.ready.start + n]);
        self.ready.start += n;
        Ok(n)
    }

    /// Unpacks up to the end of the ring.
    fn inflate(&mut self) -> Result<(), ImageError> {
        if self.head == RING {
            self.head = 0;
        }
        let (status, used, made) = decompress(&mut self.inflate, self.input, &mut self.ring, self.head, 0);
        self.input = self.input.get(used..).unwrap_or_default();
        self.ready = self.head..self.head + made;
        self.head += made;
        let out = &self.ring[self.ready.clone()];
        self.crc.update(out);
        self.size = self.size.wrapping_add(out.len() as u32);
        match status {
            TINFLStatus::Done => self.state = State::Trailer,
            TINFLStatus::HasMoreOutput if made > 0 => {}
            TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => {
                return Err(BODY);
            }
            _ => return Err(ImageError::Corrupt(Format::Gzip, "a bad deflate block")),
        }
        Ok(())
    }

    fn check_trailer(&mut self) -> Result<(), ImageError> {
        let trailer = self.input.first_chunk::<8>().ok_or(BODY)?;
        let trailer = u64::from_le_bytes(*trailer);
        if trailer as u32 != self.crc.value() {
            return Err(ImageError::Corrupt(Format::Gzip, "the check sum is wrong"));
        }
        if (trailer >> 32) as u32 != self.size {
            return Err(ImageError::Corrupt(Format::Gzip, "the size in the trailer is wrong"));
        }
        self.state = State::Done;
        Ok(())
    }
}

fn skip_header(bytes: &[u8]) -> Result<&[u8], ImageError> {
    let (fixed, mut rest) = bytes.split_first_chunk::<10>().ok_or(HEADER)?;
    let flags = fixed[3];
    if fixed[2] != 8 {
        return Err(ImageError::Beyond(Format::Gzip, "the method is not deflate"));
    }
    if flags & RESERVED != 0 {
        return Err(ImageError::Corrupt(Format::Gzip, "reserved header flags are set"));
    }
    if flags & FEXTRA != 0 {
        let (len, more) = rest.split_first_chunk::<2>().ok_or(HEADER)?;
        rest = more.get(usize::from(u16::from_le_bytes(*len))..).ok_or(HEADER)?;
    }
    for flag in [FNAME, FCOMMENT] {
        if flags & flag != 0 {
            let nul = rest.iter().position(|byte| *byte == 0).ok_or(HEADER)?;
            rest = rest.get(nul + 1..).ok_or(HEADER)?;
        }
    }
    if flags & FHCRC != 0 {
        rest = rest.get(2..).ok_or(HEADER)?;
    }
    Ok(rest)
}
