// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading an ELF64 kernel from a stream.
//!
//! The file is never held as a whole. [`Loader::open`] reads the headers, after which the range of physical addresses is known and
//! frames can be found for it; [`Loader::load`] then passes the file once, hands the bytes of each `PT_LOAD` segment to a [`Sink`]
//! by physical address, and keeps the `PT_NOTE` ranges, wherever they lie. What a segment has in memory beyond its file bytes
//! is not written: the sink starts from zeroed frames.
//!
//! Bounds: [`MAX_PROGRAM_HEADERS`], headers within the first [`MAX_HEADER_BYTES`], [`MAX_NOTE_BYTES`] of notes, segments within
//! [`MAX_PHYSICAL`], no two of them overlapping in memory. So every byte given to the sink lies within [`Loader::range`] and is
//! given once.

use super::decompress::{MAX_UNPACKED, Stream};
use super::image::ImageError;
use alloc::vec;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::fmt;

/// Program headers that a file may have.
pub const MAX_PROGRAM_HEADERS: usize = 32;
/// The program headers lie within this many bytes from the start of the file.
pub const MAX_HEADER_BYTES: usize = 16 << 10;
/// Bytes of notes that are read, all `PT_NOTE` segments together.
pub const MAX_NOTE_BYTES: u64 = 64 << 10;
/// The highest physical address (exclusive) that a segment may reach.
pub const MAX_PHYSICAL: u64 = 1 << 46;
/// Bytes read from the stream at a time.
const CHUNK: usize = 64 << 10;

const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Why the headers are not those of a kernel that can be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfError {
    /// What was unpacked does not start with the ELF magic.
    NotElf,
    /// Not 64-bit.
    NotElf64,
    /// Not little-endian, or an unknown ELF version.
    BadEncoding,
    /// Not an executable; its `e_type`.
    NotExecutable(u16),
    /// Not for x86-64; its `e_machine`.
    WrongMachine(u16),
    /// Program headers of a wrong size, too many, or too far from the start of the file.
    BadProgramHeaders,
    /// No `PT_LOAD` segment with anything in it.
    NothingToLoad,
    /// A segment whose numbers contradict each other or exceed the bounds; its index.
    BadSegment(usize),
    /// Two segments that overlap in memory; the index of one.
    Overlap(usize),
    /// More notes than [`MAX_NOTE_BYTES`].
    NotesTooLarge,
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("the unpacked kernel is not an ELF file"),
            Self::NotElf64 => f.write_str("not a 64-bit ELF file"),
            Self::BadEncoding => f.write_str("not a little-endian ELF file of version 1"),
            Self::NotExecutable(kind) => write!(f, "not an executable ELF file (type {kind})"),
            Self::WrongMachine(machine) => write!(f, "an ELF file for another machine ({machine}, x86-64 is 62)"),
            Self::BadProgramHeaders => write!(
                f,
                "ELF program headers of a wrong size, more than {MAX_PROGRAM_HEADERS}, or beyond the first {} KiB",
                MAX_HEADER_BYTES >> 10
            ),
            Self::NothingToLoad => f.write_str("an ELF file with nothing to load"),
            Self::BadSegment(index) => {
                write!(f, "ELF program header {index} has impossible numbers")
            }
            Self::Overlap(index) => write!(f, "ELF segment {index} overlaps another one in memory"),
            Self::NotesTooLarge => write!(f, "more than {} KiB of ELF notes", MAX_NOTE_BYTES >> 10),
        }
    }
}

/// Where the bytes of the kernel go.
pub trait Sink {
    /// Why a write failed.
    type Error;

    /// Takes the bytes of the kernel that belong at this physical address. The addresses of one segment ascend.
    ///
    /// # Errors
    /// The sink's own; loading stops.
    fn write(&mut self, paddr: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Is told now and then how many bytes of the file have been unpacked.
    fn progress(&mut self, _unpacked: u64) {}
}

/// Why loading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError<E> {
    /// The image is bad.
    Image(ImageError),
    /// The sink refused.
    Sink(E),
}

impl<E> From<ImageError> for LoadError<E> {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => error.fmt(f),
            Self::Sink(error) => error.fmt(f),
        }
    }
}

/// A half-open range of the kernel's physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysRange {
    /// The first byte.
    pub start: u64,
    /// One beyond the last byte.
    pub end: u64,
}

/// A part of the file that goes to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where its bytes start in the file.
    pub offset: u64,
    /// How many bytes the file has of it.
    pub file_size: u64,
    /// Where it goes.
    pub memory: PhysRange,
}

/// A `PT_NOTE` segment's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSegment {
    offset: u64,
    /// Alignment of names and descriptors: 4, or 8 where the header says so.
    pub align: usize,
    /// The notes.
    pub bytes: Vec<u8>,
    filled: u64,
}

impl NoteSegment {
    /// Notes from elsewhere than a file.
    pub const fn new(bytes: Vec<u8>, align: usize) -> Self {
        Self { offset: 0, align, filled: bytes.len() as u64, bytes }
    }
}

/// An ELF file whose headers have been read and found good.
#[derive(Debug)]
pub struct Loader<'a> {
    stream: Stream<'a>,
    /// The bytes read for the headers; segments may lie in them too.
    start: Vec<u8>,
    entry: u64,
    segments: ArrayVec<Segment, MAX_PROGRAM_HEADERS>,
    notes: Vec<NoteSegment>,
    range: PhysRange,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads until `buf` has `len` bytes.
fn read_up_to(stream: &mut Stream<'_>, buf: &mut Vec<u8>, len: usize, what: &'static str) -> Result<(), ImageError> {
    let mut at = buf.len();
    buf.resize(len.max(at), 0);
    while at < len {
        match stream.read(&mut buf[at..])? {
            0 => return Err(ImageError::Truncated(what)),
            n => at += n,
        }
    }
    Ok(())
}

/// Checks the file header; returns the entry, the program headers' offset and their number.
fn file_header(start: &[u8]) -> Result<(u64, usize, usize), ElfError> {
    if !start.starts_with(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    if start.get(4) != Some(&2) {
        return Err(ElfError::NotElf64);
    }
    if start.get(5..7) != Some(&[1, 1]) {
        return Err(ElfError::BadEncoding);
    }
    let bad = ElfError::BadProgramHeaders;
    let kind = u16_at(start, 16).ok_or(bad)?;
    // Static position-independent kernels are loaded where their headers say, like the others.
    if kind != 2 && kind != 3 {
        return Err(ElfError::NotExecutable(kind));
    }
    let machine = u16_at(start, 18).ok_or(bad)?;
    if machine != 62 {
        return Err(ElfError::WrongMachine(machine));
    }
    let entry = u64_at(start, 24).ok_or(bad)?;
    let offset = u64_at(start, 32).ok_or(bad)?;
    let size = usize::from(u16_at(start, 54).ok_or(bad)?);
    let count = usize::from(u16_at(start, 56).ok_or(bad)?);
    if count == 0 {
        return Err(ElfError::NothingToLoad);
    }
    let fits = offset <= (MAX_HEADER_BYTES - MAX_PROGRAM_HEADERS * PROGRAM_HEADER) as u64;
    if size != PROGRAM_HEADER || count > MAX_PROGRAM_HEADERS || !fits {
        return Err(bad);
    }
    Ok((entry, offset as usize, count))
}

impl<'a> Loader<'a> {
    /// Reads the headers and checks every number in them.
    ///
    /// # Errors
    /// When the stream is damaged or ends, or the headers are not those of a kernel that can be loaded.
    pub fn open(mut stream: Stream<'a>) -> Result<Self, ImageError> {
        let mut start = Vec::new();
        read_up_to(&mut stream, &mut start, 4, "the ELF header").map_err(|_| ElfError::NotElf)?;
        if !start.starts_with(b"\x7fELF") {
            return Err(ElfError::NotElf.into());
        }
        read_up_to(&mut stream, &mut start, FILE_HEADER, "the ELF header")?;
        let (entry, offset, count) = file_header(&start)?;
        let end = offset + count * PROGRAM_HEADER;
        read_up_to(&mut stream, &mut start, end, "the ELF program headers")?;
        let mut loader = Self {
            stream,
            start,
            entry,
            segments: ArrayVec::new(),
            notes: Vec::new(),
            range: PhysRange { start: u64::MAX, end: 0 },
        };
        for index in 0..count {
            loader.program_header(index, offset + index * PROGRAM_HEADER)?;
        }
        if loader.segments.is_empty() {
            return Err(ElfError::NothingToLoad.into());
        }
        Ok(loader)
    }

    fn program_header(&mut self, index: usize, at: usize) -> Result<(), ElfError> {
        let bad = ElfError::BadSegment(index);
        let header = self.start.get(at..at + PROGRAM_HEADER).ok_or(bad)?;
        let field = |offset| u64_at(header, offset).ok_or(bad);
        let kind = u32_at(header, 0).ok_or(bad)?;
        let (offset, paddr, file_size, memory_size) = (field(8)?, field(24)?, field(32)?, field(40)?);
        let align = field(48)?;
        match kind {
            PT_LOAD if memory_size > 0 => {
                let end = paddr.checked_add(memory_size).filter(|end| *end <= MAX_PHYSICAL).ok_or(bad)?;
                let file_end = offset.checked_add(file_size).ok_or(bad)?;
                if file_size > memory_size || memory_size > MAX_UNPACKED || file_end > MAX_UNPACKED {
                    return Err(bad);
                }
                self.add_segment(index, Segment { offset, file_size, memory: PhysRange { start: paddr, end } })
            }
            PT_LOAD if file_size > 0 => Err(bad),
            PT_NOTE => self.add_notes(bad, offset, file_size, align),
            _ => Ok(()),
        }
    }

    fn add_segment(&mut self, index: usize, segment: Segment) -> Result<(), ElfError> {
        let new = segment.memory;
        if self.segments.iter().any(|s| new.start < s.memory.end && s.memory.start < new.end) {
            return Err(ElfError::Overlap(index));
        }
        self.range.start = self.range.start.min(new.start);
        self.range.end = self.range.end.max(new.end);
        if self.range.end - self.range.start > MAX_UNPACKED {
            return Err(ElfError::BadSegment(index));
        }
        self.segments.try_push(segment).map_err(|_| ElfError::BadProgramHeaders)
    }

    fn add_notes(&mut self, bad: ElfError, offset: u64, size: u64, align: u64) -> Result<(), ElfError> {
        if offset.checked_add(size).is_none_or(|end| end > MAX_UNPACKED) {
            return Err(bad);
        }
        let total: u64 = self.notes.iter().map(|note| note.bytes.len() as u64).sum();
        if size > MAX_NOTE_BYTES - total {
            return Err(ElfError::NotesTooLarge);
        }
        let align = if align == 8 { 8 } else { 4 };
        self.notes.push(NoteSegment { offset, align, bytes: vec![0; size as usize], filled: 0 });
        Ok(())
    }

    /// Returns the physical addresses that the segments lie in, from the lowest to the highest.
    pub const fn range(&self) -> PhysRange {
        self.range
    }

    /// Returns the segments, in the order of their headers.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the entry of the file header (not the one for PV kernels, which is a note).
    pub const fn entry(&self) -> u64 {
        self.entry
    }

    /// Passes the file to its end: the segments go to the sink, the notes are returned.
    ///
    /// # Errors
    /// When the data are damaged or end within a segment or note, or when the sink refuses.
    pub fn load<S: Sink>(mut self, sink: &mut S) -> Result<Vec<NoteSegment>, LoadError<S::Error>> {
        let start = core::mem::take(&mut self.start);
        let mut position = 0;
        self.take(position, &start, sink)?;
        position += start.len() as u64;
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = self.stream.read(&mut chunk)?;
            if n == 0 {
                break;
            }
            self.take(position, &chunk[..n], sink)?;
            position += n as u64;
            sink.progress(position);
        }
        let segments = self.segments.iter().any(|s| s.offset + s.file_size > position && s.file_size > 0);
        if segments {
            return Err(ImageError::Truncated("an ELF segment").into());
        }
        if self.notes.iter().any(|note| note.filled != note.bytes.len() as u64) {
            return Err(ImageError::Truncated("the ELF notes").into());
        }
        Ok(self.notes)
    }

    /// Distributes one piece of the file.
    fn take<S: Sink>(&mut self, position: u64, bytes: &[u8], sink: &mut S) -> Result<(), LoadError<S::Error>> {
        for segment in &self.segments {
            if let Some((skip, part)) = intersect(position, bytes, segment.offset, segment.file_size) {
                sink.write(segment.memory.start + skip, part).map_err(LoadError::Sink)?;
            }
        }
        for note in &mut self.notes {
            let len = note.bytes.len() as u64;
            if let Some((skip, part)) = intersect(position, bytes, note.offset, len) {
                let skip = skip as usize;
                note.bytes[skip..skip + part.len()].copy_from_slice(part);
                note.filled += part.len() as u64;
            }
        }
        Ok(())
    }
}

/// Returns what of `bytes`, which lie at `position` of the file, belongs to the `len` bytes at `offset`, and how far into these
/// it starts. All positions are below 2 * [`MAX_UNPACKED`].
fn intersect(position: u64, bytes: &[u8], offset: u64, len: u64) -> Option<(u64, &[u8])> {
    let start = position.max(offset);
    let end = (position + bytes.len() as u64).min(offset + len);
    if start >= end {
        return None;
    }
    let part = bytes.get((start - position) as usize..(end - position) as usize)?;
    Some((start - offset, part))
}
