// SPDX-License-Identifier: MIT OR Apache-2.0
//! The multiboot2 boot information as plain data.
//!
//! [`BootInfo`] owns all it holds: once parsed, the loader's block may be overwritten. It is some 30 KiB big, so it lives in
//! a static and is filled in place. What the loader got wrong is left out and named in `warnings`.

use crate::bytes::{u8_at, u32_at, u64_at};
use crate::cmdline::{split_dom0_part, without_image_name};
use crate::efi_map::{self, EfiMap};
use crate::memory_map::{self, MemRegion, RegionKind, Regions};
use crate::rsdp::Rsdp;
use arrayvec::{ArrayString, ArrayVec};
use core::fmt;
use core::ops::Range;
use multiboot2::TagType;

/// The most modules kept.
pub const MAX_MODULES: usize = 32;
/// The longest command line kept, in bytes.
pub const MAX_LINE: usize = 6 << 10;
const PAGE: u64 = 4096;
/// Room for all strings together.
const TEXT: usize = 16 << 10;
/// The most that boot information may take up; loaders need a few KiB.
const MAX_INFO: usize = 16 << 20;

/// Why there is nothing to boot from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The loader's magic number is not multiboot2's.
    Magic(u32),
    /// The block is shorter than its header says, or absurdly large.
    Size(usize),
    /// Neither a memory map nor the basic memory information is there.
    NoMemoryMap,
    /// The memory map has no usable memory.
    NoMemory,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(found) => {
                write!(f, "not started by a multiboot2 loader: magic {found:#x}, expected {:#x}", multiboot2::MAGIC)
            }
            Self::Size(size) => write!(f, "the loader's boot information is damaged: it claims {size} bytes"),
            Self::NoMemoryMap => write!(f, "the loader gave no memory map"),
            Self::NoMemory => write!(f, "the loader's memory map names no usable memory"),
        }
    }
}

impl core::error::Error for Error {}

/// What the loader got wrong, or there was no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A string was cut at [`MAX_LINE`] bytes (or at what room was left).
    Truncated {
        /// How long it was.
        length: usize,
    },
    /// More than [`MAX_MODULES`] modules: the rest is not seen.
    TooManyModules,
    /// More regions than there is room for: the rest is not seen.
    TooManyRegions,
    /// More entries in UEFI's memory map than there is room for: the rest is not seen.
    TooManyEfiRegions,
    /// A module ends before it starts.
    ModuleBackwards {
        /// Its start.
        start: u32,
        /// Its end.
        end: u32,
    },
    /// No memory map, only its size as old BIOSes give it.
    OnlyBasicMemory,
    /// A tag is too short for what it must hold, or longer than the block.
    BadTag(u32),
    /// The ACPI root pointer's checksum is wrong.
    BadRsdp,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { length } => {
                write!(f, "a command line of {length} bytes is too long and was cut; up to {MAX_LINE} bytes are kept")
            }
            Self::TooManyModules => write!(f, "more than {MAX_MODULES} modules were loaded; the rest is ignored"),
            Self::TooManyRegions => {
                write!(f, "the memory map has more than {} regions; the rest is ignored", memory_map::MAX_REGIONS)
            }
            Self::TooManyEfiRegions => {
                write!(f, "UEFI's memory map has more than {} entries; the rest is ignored", efi_map::MAX_EFI_REGIONS)
            }
            Self::ModuleBackwards { start, end } => {
                write!(f, "a module at {start:#x} ends at {end:#x}, before it starts; it is ignored")
            }
            Self::OnlyBasicMemory => {
                write!(f, "the loader gave no memory map, only the memory's size")
            }
            Self::BadTag(kind) => write!(f, "boot information tag {kind} is damaged"),
            Self::BadRsdp => write!(f, "the loader's copy of the ACPI root pointer is damaged; it is ignored"),
        }
    }
}

/// A stretch of [`BootInfo`]'s text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: usize,
    end: usize,
}

/// A file the loader put into memory, at machine addresses `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// First byte.
    pub start: u64,
    /// Behind the last byte.
    pub end: u64,
    cmdline: Span,
}

/// What a framebuffer's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// Indices into a palette.
    Indexed,
    /// Colours: (position, width) in bits of red, green, blue.
    Rgb([(u8, u8); 3]),
    /// Characters with attributes, as EGA text mode has them.
    Text,
}

/// The screen as the loader left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// Machine address.
    pub maddr: u64,
    /// Bytes a line.
    pub pitch: u32,
    /// Pixels (characters) a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bits a pixel (character).
    pub bits: u8,
    /// What they mean.
    pub pixels: Pixels,
}

/// UEFI firmware's traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Efi {
    /// Machine address of the system table.
    pub system_table: u64,
    /// Whether the firmware is 64-bit.
    pub wide: bool,
}

/// All that the loader said.
#[derive(Debug)]
pub struct BootInfo {
    text: ArrayVec<u8, TEXT>,
    loader: Span,
    cmdline: Span,
    /// The memory map, sorted and disjoint.
    pub memory: Regions,
    /// The modules in the order in which they were named.
    pub modules: ArrayVec<Module, MAX_MODULES>,
    /// The ACPI root pointer that the loader found.
    pub rsdp: Option<Rsdp>,
    /// The screen, if it is usable.
    pub framebuffer: Option<Framebuffer>,
    /// Present if the machine was started by UEFI firmware.
    pub efi: Option<Efi>,
    /// Its memory map.
    pub efi_map: EfiMap,
    /// What was wrong but could be lived with.
    pub warnings: ArrayVec<Warning, 16>,
}

/// The size that boot information claims in its first bytes, if it is sane.
///
/// # Errors
/// [`Error::Size`] with what it claims.
pub fn total_size(header: [u8; 4]) -> Result<usize, Error> {
    let size = u32::from_le_bytes(header) as usize;
    if (16..=MAX_INFO).contains(&size) { Ok(size) } else { Err(Error::Size(size)) }
}

impl Default for BootInfo {
    fn default() -> Self {
        Self::new()
    }
}

impl BootInfo {
    /// Nothing known yet.
    #[must_use]
    pub const fn new() -> Self {
        const NOTHING: Span = Span { start: 0, end: 0 };
        Self {
            text: ArrayVec::new_const(),
            loader: NOTHING,
            cmdline: NOTHING,
            memory: ArrayVec::new_const(),
            modules: ArrayVec::new_const(),
            rsdp: None,
            framebuffer: None,
            efi: None,
            efi_map: ArrayVec::new_const(),
            warnings: ArrayVec::new_const(),
        }
    }

    /// Reads the loader's block. `magic` is what the loader left in its register, `info` the block from its first byte.
    ///
    /// # Errors
    /// If nothing can be booted from it. What was read so far stays.
    pub fn parse(&mut self, magic: u32, info: &[u8]) -> Result<(), Error> {
        if magic != multiboot2::MAGIC {
            return Err(Error::Magic(magic));
        }
        let size = total_size(crate::bytes::array(info, 0).unwrap_or_default())?;
        let info = info.get(..size).ok_or(Error::Size(size))?;
        let mut raw = Regions::new();
        let mut basic = None;
        for (kind, payload) in Tags(info.get(8..).unwrap_or_default()) {
            let read = match TagType::from(kind) {
                TagType::Cmdline => self.keep(payload).map(|s| self.cmdline = s),
                TagType::BootLoaderName => self.keep(payload).map(|s| self.loader = s),
                TagType::Module => self.module(payload),
                TagType::Mmap => self.memory_map(payload, &mut raw),
                TagType::BasicMeminfo => basic_memory(payload).map(|b| basic = Some(b)),
                TagType::Framebuffer => framebuffer(payload).map(|fb| self.framebuffer = Some(fb)),
                TagType::Efi32 => u32_at(payload, 0).map(|at| self.efi(at.into(), false)),
                TagType::Efi64 => u64_at(payload, 0).map(|at| self.efi(at, true)),
                TagType::EfiMmap => self.efi_map(payload),
                TagType::AcpiV1 | TagType::AcpiV2 => {
                    self.rsdp(payload);
                    Some(())
                }
                _ => Some(()),
            };
            if read.is_none() {
                self.warn(Warning::BadTag(kind));
            }
        }
        self.settle_memory(raw, basic)
    }

    fn warn(&mut self, warning: Warning) {
        // The first sixteen tell the story.
        let _ = self.warnings.try_push(warning);
    }

    /// Copies a NUL-terminated string. Bytes that are not UTF-8 become question marks.
    fn keep(&mut self, payload: &[u8]) -> Option<Span> {
        let length = payload.iter().position(|b| *b == 0).unwrap_or(payload.len());
        let room = MAX_LINE.min(self.text.remaining_capacity());
        if length > room {
            self.warn(Warning::Truncated { length });
        }
        let start = self.text.len();
        let mut left = room;
        for chunk in payload.get(..length)?.utf8_chunks() {
            let bad = chunk.invalid().iter().map(|_| '?');
            for c in chunk.valid().chars().chain(bad) {
                let mut utf8 = [0; 4];
                let utf8 = c.encode_utf8(&mut utf8).as_bytes();
                if utf8.len() > left {
                    left = 0;
                    break;
                }
                left -= utf8.len();
                self.text.try_extend_from_slice(utf8).ok()?;
            }
        }
        let end = self.text.len();
        Some(Span { start, end })
    }

    fn module(&mut self, payload: &[u8]) -> Option<()> {
        let (start, end) = (u32_at(payload, 0)?, u32_at(payload, 4)?);
        if end < start {
            self.warn(Warning::ModuleBackwards { start, end });
            return Some(());
        }
        if self.modules.is_full() {
            if !self.warnings.contains(&Warning::TooManyModules) {
                self.warn(Warning::TooManyModules);
            }
            return Some(());
        }
        let cmdline = self.keep(payload.get(8..)?)?;
        self.modules.push(Module { start: start.into(), end: end.into(), cmdline });
        Some(())
    }

    fn memory_map(&mut self, payload: &[u8], raw: &mut Regions) -> Option<()> {
        let entry = u32_at(payload, 0)? as usize;
        if entry < 20 {
            return None;
        }
        for bytes in payload.get(8..)?.chunks_exact(entry) {
            let start = u64_at(bytes, 0)?;
            let region = MemRegion {
                start,
                end: start.saturating_add(u64_at(bytes, 8)?),
                kind: RegionKind::from_e820(u32_at(bytes, 16)?),
            };
            if raw.is_full() {
                self.warn(Warning::TooManyRegions);
                break;
            }
            raw.push(region);
        }
        Some(())
    }

    fn settle_memory(&mut self, mut raw: Regions, basic: Option<[MemRegion; 2]>) -> Result<(), Error> {
        if raw.is_empty() {
            raw.extend(basic.ok_or(Error::NoMemoryMap)?);
            self.warn(Warning::OnlyBasicMemory);
        }
        let lost;
        (self.memory, lost) = memory_map::sanitise(&raw);
        if lost {
            self.warn(Warning::TooManyRegions);
        }
        match memory_map::usable_bytes(&self.memory) {
            0 => Err(Error::NoMemory),
            _ => Ok(()),
        }
    }

    fn efi(&mut self, system_table: u64, wide: bool) {
        self.efi = Some(Efi { system_table, wide });
    }

    fn efi_map(&mut self, payload: &[u8]) -> Option<()> {
        let (map, whole) = efi_map::parse(payload)?;
        self.efi_map = map;
        if !whole {
            self.warn(Warning::TooManyEfiRegions);
        }
        Some(())
    }

    fn rsdp(&mut self, payload: &[u8]) {
        match (Rsdp::from_bytes(payload), self.rsdp) {
            (None, _) => self.warn(Warning::BadRsdp),
            (Some(new), Some(old)) if new.revision() < old.revision() => {}
            (Some(new), _) => self.rsdp = Some(new),
        }
    }

    /// A page below 640 KiB to start other CPUs from: usable memory, not taken by a module, nor by what is in `taken`
    /// (the loader's own block may lie there, too). The highest one, and never page 0.
    #[must_use]
    pub fn low_page(&self, taken: &[Range<u64>]) -> Option<u64> {
        let modules = self.modules.iter().map(|m| m.start..m.end);
        let free = |page: u64| {
            let page = page..page + PAGE;
            let whole = |r: &MemRegion| r.start <= page.start && page.end <= r.end;
            let usable = |r: &MemRegion| r.kind == RegionKind::Usable && whole(r);
            let clash = |t: &Range<u64>| t.start < page.end && page.start < t.end;
            self.memory.iter().any(usable) && !taken.iter().any(clash) && !modules.clone().any(|m| clash(&m))
        };
        (1..0xa0).rev().map(|n| n * PAGE).find(|p| free(*p))
    }

    fn str(&self, span: Span) -> &str {
        let bytes = self.text.get(span.start..span.end).unwrap_or_default();
        // Only whole characters are ever stored.
        core::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The loader's name and version; empty if it gave none.
    #[must_use]
    pub fn loader(&self) -> &str {
        self.str(self.loader)
    }

    /// The hypervisor's own command line: without the image's name, and without what follows ` -- `.
    #[must_use]
    pub fn cmdline(&self) -> &str {
        split_dom0_part(without_image_name(self.loader(), self.str(self.cmdline))).0
    }

    /// A module's command line, without the file's name.
    #[must_use]
    pub fn module_cmdline(&self, module: &Module) -> &str {
        without_image_name(self.loader(), self.str(module.cmdline))
    }

    /// Dom0's command line: the kernel module's, then what follows ` -- ` on the hypervisor's.
    #[must_use]
    pub fn dom0_cmdline(&self, kernel: &Module) -> ArrayString<{ 2 * MAX_LINE + 1 }> {
        let mut line = ArrayString::new();
        line.push_str(self.module_cmdline(kernel));
        let own = without_image_name(self.loader(), self.str(self.cmdline));
        if let Some(extra) = split_dom0_part(own).1 {
            line.push(' ');
            line.push_str(extra);
        }
        line
    }
}

/// The tags of a block: (type, payload). Ends at the end tag, at the block's end, or at a tag that does not fit.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, size) = (u32_at(self.0, 0)?, u32_at(self.0, 4)? as usize);
        if kind == 0 {
            return None;
        }
        let Some(payload) = self.0.get(8..size) else {
            self.0 = &[];
            // Said once, as an empty tag: each reader finds it too short.
            return Some((kind, &[]));
        };
        self.0 = self.0.get(size.next_multiple_of(8)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// The basic memory information: KiB from 0, and KiB from 1 MiB.
fn basic_memory(payload: &[u8]) -> Option<[MemRegion; 2]> {
    let kind = RegionKind::Usable;
    let low = u64::from(u32_at(payload, 0)?) << 10;
    let high = u64::from(u32_at(payload, 4)?) << 10;
    Some([(0, low.min(0xa_0000)), (1 << 20, (1 << 20) + high)].map(|(start, end)| MemRegion { start, end, kind }))
}

fn framebuffer(payload: &[u8]) -> Option<Framebuffer> {
    let field = |i: usize| Some((u8_at(payload, 24 + 2 * i)?, u8_at(payload, 25 + 2 * i)?));
    Some(Framebuffer {
        maddr: u64_at(payload, 0)?,
        pitch: u32_at(payload, 8)?,
        width: u32_at(payload, 12)?,
        height: u32_at(payload, 16)?,
        bits: u8_at(payload, 20)?,
        pixels: match u8_at(payload, 21)? {
            0 => Pixels::Indexed,
            1 => Pixels::Rgb([field(0)?, field(1)?, field(2)?]),
            2 => Pixels::Text,
            _ => return None,
        },
    })
}

#[cfg(test)]
#[path = "info_tests.rs"]
mod tests;
