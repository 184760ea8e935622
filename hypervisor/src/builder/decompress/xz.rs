// SPDX-License-Identifier: MIT OR Apache-2.0
//! XZ by `lzma-rust2`.
//!
//! The first block's dictionary size is read here, so that the memory need is known before anything is allocated; the decoder is
//! then held to it, also for the blocks that follow. Its window grows by doubling, so that at the last step one and a half
//! dictionaries are allocated.

use crate::builder::image::{Format, ImageError};
use core::fmt;
use lzma_rust2::{Error, Read, XzReader};

const HEADER: ImageError = ImageError::Truncated("the XZ headers");
const STREAM_HEADER: usize = 12;
/// The filter that every chain ends with.
const LZMA2: u64 = 0x21;
/// What the decoder accounts beside the dictionary is below this.
const STATE_KIB: u64 = 256;

pub(super) struct Decoder<'a>(XzReader<&'a [u8]>);

impl fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xz").finish_non_exhaustive()
    }
}

impl<'a> Decoder<'a> {
    /// The bytes passed [`dictionary`].
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let limit = dictionary(bytes).unwrap_or(0) / 1024 + STATE_KIB;
        Self(XzReader::new_mem_limit(bytes, false, limit as u32))
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize, ImageError> {
        self.0.read(buf).map_err(|error| match error {
            Error::Eof => ImageError::Truncated("the XZ data"),
            Error::OutOfMemory(_) => {
                ImageError::Beyond(Format::Xz, "a block needs more memory than the first, or than there is")
            }
            Error::Unsupported(what) => ImageError::Beyond(Format::Xz, what),
            Error::InvalidData(what) | Error::InvalidInput(what) | Error::Other(what) | Error::WriteZero(what) => {
                ImageError::Corrupt(Format::Xz, what)
            }
            Error::Interrupted => ImageError::Corrupt(Format::Xz, "interrupted"),
        })
    }
}

/// Reads the dictionary size of the first block: what the window is allocated with in the end.
pub(super) fn dictionary(bytes: &[u8]) -> Result<u64, ImageError> {
    let block = bytes.get(STREAM_HEADER..).ok_or(HEADER)?;
    let size = match block.first().ok_or(HEADER)? {
        0 => return Ok(0),
        n => (usize::from(*n) + 1) * 4,
    };
    let flags = *block.get(1).ok_or(HEADER)?;
    let mut rest = block.get(2..size).ok_or(HEADER)?;
    for flag in [0x40, 0x80] {
        if flags & flag != 0 {
            number(&mut rest)?;
        }
    }
    for _ in 0..=flags & 3 {
        let id = number(&mut rest)?;
        let len = usize::try_from(number(&mut rest)?).map_err(|_| DAMAGED)?;
        let properties = rest.get(..len).ok_or(DAMAGED)?;
        if id == LZMA2 {
            return dictionary_size(*properties.first().ok_or(DAMAGED)?);
        }
        rest = rest.get(len..).ok_or(DAMAGED)?;
    }
    Err(ImageError::Beyond(Format::Xz, "a filter chain without LZMA2"))
}

const DAMAGED: ImageError = ImageError::Corrupt(Format::Xz, "a damaged block header");

/// Decodes the one byte that LZMA2 states its dictionary size with.
fn dictionary_size(code: u8) -> Result<u64, ImageError> {
    let bytes = match code {
        0..40 => (2 | u64::from(code & 1)) << (code / 2 + 11),
        40 => u64::from(u32::MAX),
        _ => return Err(DAMAGED),
    };
    let max = super::MAX_WINDOW;
    if bytes > max {
        return Err(ImageError::WindowTooLarge { format: Format::Xz, bytes, max });
    }
    Ok(bytes)
}

/// Reads a number of seven bits a byte, at most nine bytes.
fn number(rest: &mut &[u8]) -> Result<u64, ImageError> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, more) = rest.split_first().ok_or(DAMAGED)?;
        *rest = more;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DAMAGED)
}
