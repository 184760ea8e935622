// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding the kernel in a boot module.
//!
//! A module is a bzImage (the payload's place is in its boot-protocol header), a compressed kernel, or an ELF as it is.
//! [`find`] says which, without unpacking a byte. A payload's range always lies within the module.

use core::fmt;

/// How a payload is packed, as far as we unpack it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An ELF file, not packed.
    Elf,
    /// XZ (LZMA2, with or without the x86 filter).
    Xz,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Format {
    /// Returns the format's usual name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Elf => "ELF",
            Self::Xz => "XZ",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Why an image cannot be used. Its text names the file's problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// The file ends before the part named here.
    Truncated(&'static str),
    /// A bzImage whose boot protocol has no payload field.
    OldBootProtocol(u16),
    /// A payload that starts with none of the magics known; its first bytes.
    UnknownCompression([u8; 6]),
    /// A file that is neither a bzImage nor an ELF nor packed; its first bytes.
    NotAKernel([u8; 6]),
    /// A known format that is not unpacked here.
    Unsupported(&'static str),
    /// The packed data break the rules of their format: which format, and what is wrong.
    Corrupt(Format, &'static str),
    /// The format is right, a property of the file is beyond what is unpacked here.
    Beyond(Format, &'static str),
    /// The window of the packed data is larger than what is accepted.
    WindowTooLarge {
        /// The format.
        format: Format,
        /// Bytes the file asks for.
        bytes: u64,
        /// Bytes accepted.
        max: u64,
    },
    /// The unpacked kernel is larger than [`MAX_UNPACKED`](super::decompress::MAX_UNPACKED).
    TooLarge,
    /// The unpacked kernel has another size than the file says.
    WrongSize {
        /// What the file says.
        expected: u64,
        /// What came out.
        found: u64,
    },
    /// No memory for the window.
    OutOfMemory {
        /// Bytes that were asked for.
        bytes: u64,
    },
    /// The ELF headers are not those of a kernel that can be loaded.
    Elf(super::elf::ElfError),
    /// The Xen notes are missing or ask for what is not offered.
    Notes(super::notes::NoteError),
}

impl From<super::elf::ElfError> for ImageError {
    fn from(error: super::elf::ElfError) -> Self {
        Self::Elf(error)
    }
}

impl From<super::notes::NoteError> for ImageError {
    fn from(error: super::notes::NoteError) -> Self {
        Self::Notes(error)
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated(what) => write!(f, "the file is truncated: it ends within {what}"),
            Self::OldBootProtocol(version) => write!(
                f,
                "a bzImage of boot protocol {}.{:02}, older than the 2.08 that says where the payload is",
                version >> 8,
                version & 0xff
            ),
            Self::UnknownCompression(start) => {
                write!(f, "unknown compression: the payload starts with {start:02x?}")
            }
            Self::NotAKernel(start) => write!(
                f,
                "not a kernel: neither a bzImage nor an ELF nor XZ, gzip or zstd data (it starts with {start:02x?})"
            ),
            Self::Unsupported(name) => write!(f, "{name} compression is not supported (XZ, gzip and zstd are)"),
            Self::Corrupt(format, what) => write!(f, "corrupt {} data: {what}", format.name()),
            Self::Beyond(format, what) => {
                write!(f, "{} data that cannot be unpacked here: {what}", format.name())
            }
            Self::WindowTooLarge { format, bytes, max } => write!(
                f,
                "{} data need a window of {} KiB, at most {} KiB are accepted",
                format.name(),
                bytes.div_ceil(1024),
                max / 1024
            ),
            Self::TooLarge => {
                write!(f, "the kernel unpacks to more than {} MiB", super::decompress::MAX_UNPACKED >> 20)
            }
            Self::WrongSize { expected, found } => {
                write!(f, "the kernel unpacks to {found} bytes, but the file says {expected}")
            }
            Self::OutOfMemory { bytes } => {
                write!(f, "not enough hypervisor memory to unpack the kernel: {} KiB needed", bytes.div_ceil(1024))
            }
            Self::Elf(error) => error.fmt(f),
            Self::Notes(error) => error.fmt(f),
        }
    }
}

/// The kernel within a boot module.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// The packed or plain bytes; without the size that the kernel's build appends.
    pub bytes: &'a [u8],
    /// How they are packed.
    pub format: Format,
    /// The size after unpacking, where the file says so.
    pub unpacked: Option<u64>,
}

/// Byte offsets within the boot-protocol header.
const SETUP_SECTS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first protocol with the payload fields.
const FIRST_PROTOCOL: u16 = 0x208;
const SECTOR: u64 = 512;

/// Magics of the formats that are named, whether unpacked or not.
const MAGICS: &[(&[u8], Result<Format, &str>)] = &[
    (b"\x7fELF", Ok(Format::Elf)),
    (b"\xfd7zXZ\0", Ok(Format::Xz)),
    (b"\x1f\x8b", Ok(Format::Gzip)),
    (b"\x28\xb5\x2f\xfd", Ok(Format::Zstd)),
    (b"BZh", Err("bzip2")),
    (b"\x5d\x00", Err("LZMA")),
    (b"\x89LZO", Err("LZO")),
    (b"\x02\x21\x4c\x18", Err("LZ4")),
    (b"\x04\x22\x4d\x18", Err("LZ4")),
];

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn first_bytes(bytes: &[u8]) -> [u8; 6] {
    let mut start = [0; 6];
    for (to, from) in start.iter_mut().zip(bytes) {
        *to = *from;
    }
    start
}

fn detect(bytes: &[u8]) -> Option<Result<Format, &'static str>> {
    MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, format)| *format)
}

/// Finds the kernel in a boot module.
///
/// # Errors
/// Says what is wrong with the file; see [`ImageError`].
pub fn find(module: &[u8]) -> Result<Payload<'_>, ImageError> {
    if module.get(HEADER_MAGIC..).is_some_and(|rest| rest.starts_with(b"HdrS")) && detect(module).is_none() {
        return in_bzimage(module);
    }
    match detect(module) {
        Some(Ok(format)) => Ok(Payload { bytes: module, format, unpacked: None }),
        Some(Err(name)) => Err(ImageError::Unsupported(name)),
        None if module.len() < 4 => Err(ImageError::Truncated("its first four bytes")),
        None => Err(ImageError::NotAKernel(first_bytes(module))),
    }
}

fn in_bzimage(module: &[u8]) -> Result<Payload<'_>, ImageError> {
    let header = ImageError::Truncated("the boot-protocol header");
    let protocol = u16_at(module, PROTOCOL).ok_or(header)?;
    if protocol < FIRST_PROTOCOL {
        return Err(ImageError::OldBootProtocol(protocol));
    }
    let sectors = match module.get(SETUP_SECTS).copied().ok_or(header)? {
        0 => 4,
        n => u64::from(n),
    };
    let offset = u64::from(u32_at(module, PAYLOAD_OFFSET).ok_or(header)?);
    let length = u64::from(u32_at(module, PAYLOAD_LENGTH).ok_or(header)?);
    // At most 256 sectors and two 32-bit numbers: no overflow.
    let start = (sectors + 1) * SECTOR + offset;
    let payload = usize::try_from(start)
        .ok()
        .zip(usize::try_from(start + length).ok())
        .and_then(|(start, end)| module.get(start..end))
        .ok_or(ImageError::Truncated("the kernel's payload"))?;
    match detect(payload) {
        Some(Ok(Format::Elf)) => Ok(Payload { bytes: payload, format: Format::Elf, unpacked: None }),
        Some(Ok(format)) => packed(payload, format),
        Some(Err(name)) => Err(ImageError::Unsupported(name)),
        None if payload.len() < 6 => Err(ImageError::Truncated("the first bytes of the payload")),
        None => Err(ImageError::UnknownCompression(first_bytes(payload))),
    }
}

/// The build appends the unpacked size to every packed payload; gzip ends with it anyway.
fn packed(payload: &[u8], format: Format) -> Result<Payload<'_>, ImageError> {
    let (bytes, size) = payload.split_last_chunk().ok_or(ImageError::Truncated("the payload's size field"))?;
    let bytes = if format == Format::Gzip { payload } else { bytes };
    Ok(Payload { bytes, format, unpacked: Some(u64::from(u32::from_le_bytes(*size))) })
}
