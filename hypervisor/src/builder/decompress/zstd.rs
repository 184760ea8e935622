// SPDX-License-Identifier: MIT OR Apache-2.0
//! Zstandard (RFC 8878) by `ruzstd`.
//!
//! The frame header is read here and handed to the decoder rewritten: kernels are packed from a pipe with `--ultra -22`, which
//! states a window of 128 MiB for whatever comes, and the decoder would allocate just that. No match reaches back further than
//! the content, so a window of the unpacked size serves as well.

use crate::builder::image::{Format, ImageError};
use core::fmt;
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::io::{Error, Read};

const HEADER: ImageError = ImageError::Truncated("the zstd frame header");
/// The ring is a power of two of bytes and this.
const SLACK: u64 = 256 << 10;
/// Magic, descriptor and window: what the rewritten header consists of.
const REWRITTEN: usize = 6;

/// What a frame header says.
struct Frame {
    window: u64,
    content: Option<u64>,
    has_checksum: bool,
    /// Bytes of header.
    len: usize,
}

/// The rewritten header, then the rest of the frame.
struct Source<'a> {
    header: [u8; REWRITTEN],
    given: usize,
    rest: &'a [u8],
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let header = self.header.get(self.given..).unwrap_or_default();
        let from = if header.is_empty() { self.rest } else { header };
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        if header.is_empty() {
            self.rest = &self.rest[n..];
        } else {
            self.given += n;
        }
        Ok(n)
    }
}

pub(super) struct Decoder<'a> {
    frames: FrameDecoder,
    source: Source<'a>,
    content: Option<u64>,
    has_checksum: bool,
    produced: u64,
}

impl fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd").field("produced", &self.produced).finish_non_exhaustive()
    }
}

/// Returns the heap the decoder's window takes.
pub(super) fn memory(bytes: &[u8], unpacked: Option<u64>) -> Result<u64, ImageError> {
    let (_, window) = window_for(&read_header(bytes)?, unpacked)?;
    Ok(window.saturating_sub(SLACK).next_power_of_two() + SLACK + 1)
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8], unpacked: Option<u64>) -> Result<Self, ImageError> {
        let frame = read_header(bytes)?;
        let (code, window) = window_for(&frame, unpacked)?;
        let mut header = [0x28, 0xb5, 0x2f, 0xfd, 0, code];
        if frame.has_checksum {
            header[4] = 4;
        }
        let rest = bytes.get(frame.len..).unwrap_or_default();
        let mut source = Source { header, given: 0, rest };
        let mut frames = FrameDecoder::new();
        frames.set_max_window_size(window);
        // The first time it makes the tables; only the second time it reserves the whole window at once instead of growing.
        frames.init(&header[..]).map_err(|error| explain(&error))?;
        frames.init(&mut source).map_err(|error| explain(&error))?;
        Ok(Self { frames, source, content: frame.content, has_checksum: frame.has_checksum, produced: 0 })
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<usize, ImageError> {
        while self.frames.can_collect() == 0 {
            if self.frames.is_finished() {
                return self.check_end();
            }
            if self.source.rest.is_empty() {
                return Err(ImageError::Truncated("the zstd data"));
            }
            self.frames
                .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(|error| explain(&error))?;
        }
        let n = self.frames.read(buf).map_err(|_| ImageError::Corrupt(Format::Zstd, "the window cannot be read"))?;
        self.produced += n as u64;
        Ok(n)
    }

    fn check_end(&self) -> Result<usize, ImageError> {
        if self.content.is_some_and(|content| content != self.produced) {
            return Err(ImageError::Corrupt(Format::Zstd, "the content size is wrong"));
        }
        if self.has_checksum && self.frames.get_checksum_from_data() != self.frames.get_calculated_checksum() {
            return Err(ImageError::Corrupt(Format::Zstd, "the check sum is wrong"));
        }
        Ok(0)
    }
}

fn explain(error: &FrameDecoderError) -> ImageError {
    match error {
        FrameDecoderError::FailedToReadBlockHeader(_) => {
            ImageError::Corrupt(Format::Zstd, "a damaged or missing block header")
        }
        FrameDecoderError::FailedToReadBlockBody(_) => {
            ImageError::Corrupt(Format::Zstd, "a damaged or truncated block")
        }
        FrameDecoderError::FailedToReadChecksum(_) => ImageError::Truncated("the zstd check sum"),
        _ => ImageError::Corrupt(Format::Zstd, "a damaged frame"),
    }
}

/// Returns the window to decode with, as the header's code byte and in bytes.
fn window_for(frame: &Frame, unpacked: Option<u64>) -> Result<(u8, u64), ImageError> {
    let content = match (frame.content, unpacked) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b).unwrap_or(u64::MAX),
    };
    let wanted = frame.window.min(content);
    let max = super::MAX_WINDOW;
    // The code is an exponent of at least 10 and eighths of the power on top.
    (0..=u8::MAX)
        .map(|code| (code, (8 + u64::from(code & 7)) << (code / 8 + 7)))
        .find(|(_, bytes)| *bytes >= wanted)
        .filter(|(_, bytes)| *bytes <= max)
        .ok_or(ImageError::WindowTooLarge { format: Format::Zstd, bytes: wanted, max })
}

fn read_header(bytes: &[u8]) -> Result<Frame, ImageError> {
    let descriptor = *bytes.get(4).ok_or(HEADER)?;
    if descriptor & 8 != 0 {
        return Err(ImageError::Corrupt(Format::Zstd, "a reserved header bit is set"));
    }
    if descriptor & 3 != 0 {
        return Err(ImageError::Beyond(Format::Zstd, "it needs a dictionary"));
    }
    let single_segment = descriptor & 0x20 != 0;
    let mut at = 5;
    let mut window = 0;
    if !single_segment {
        let code = *bytes.get(at).ok_or(HEADER)?;
        window = (8 + u64::from(code & 7)) << (code / 8 + 7);
        at += 1;
    }
    let field = match (descriptor >> 6, single_segment) {
        (0, false) => 0,
        (0, true) => 1,
        (n, _) => 1 << n,
    };
    let content = content_size(bytes.get(at..at + field).ok_or(HEADER)?);
    if let (true, Some(content)) = (single_segment, content) {
        window = content;
    }
    Ok(Frame { window, content, has_checksum: descriptor & 4 != 0, len: at + field })
}

/// Decodes a content size field of 0, 1, 2, 4 or 8 bytes.
fn content_size(field: &[u8]) -> Option<u64> {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(field) {
        *to = *from;
    }
    let value = u64::from_le_bytes(bytes);
    match field.len() {
        0 => None,
        // The two-byte form starts where the one-byte form ends.
        2 => Some(value + 256),
        _ => Some(value),
    }
}
