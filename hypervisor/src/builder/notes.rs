// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Xen ELF notes: what a PV kernel says of itself.
//!
//! Numbers and meanings are those of [`hypercalls::elfnote`]. A note that is there twice counts with its last value; notes of other
//! owners and of unknown types are skipped. [`XenNotes::read`] accepts only a kernel that the PV builder can start as dom0.

use super::elf::{NoteSegment, PhysRange};
use arrayvec::ArrayString;
use core::fmt;
use hypercalls::addr::{HOLE_END, HOLE_START, PAGE_SIZE};
use hypercalls::elfnote::ElfNote;

/// Bit of the feature "dom0" (`XENFEAT_dom0`).
const FEATURE_DOM0: u32 = 11;
/// Features that a kernel may demand: the names, and whether a PV dom0 has them here.
const FEATURE_NAMES: &[(&str, bool)] = &[
    ("writable_page_tables", true),
    ("writable_descriptor_tables", false),
    ("auto_translated_physmap", false),
    ("supervisor_mode_kernel", false),
    ("pae_pgdir_above_4gb", true),
    ("mmu_pt_update_preserve_ad", true),
    ("highmem_assist", true),
    ("gnttab_map_avail_bits", true),
    ("hvm_callback_vector", false),
    ("hvm_safe_pvclock", false),
    ("hvm_pirqs", false),
    ("dom0", true),
    ("grant_map_identity", false),
    ("memory_op_vnode_supported", true),
];
/// Longest text kept of a note; longer ones are cut.
const TEXT: usize = 64;

/// A short text out of a note.
pub type Text = ArrayString<TEXT>;

/// Why the notes do not let the kernel be started as a PV dom0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteError {
    /// No note of the owner "Xen".
    Missing,
    /// A note whose sizes reach beyond its segment.
    Damaged,
    /// `XEN_VERSION` does not start with "xen-3.".
    XenVersion(Text),
    /// `LOADER` is not "generic".
    Loader(Text),
    /// `SUPPORTED_FEATURES` is there without the dom0 bit.
    NotForDom0,
    /// A feature is demanded that is not offered.
    Feature(Text),
    /// `PADDR_OFFSET` without `VIRT_BASE`.
    NoVirtBase,
    /// Addresses that wrap, are not canonical, or lie in the hypervisor's hole; the note concerned.
    BadAddress(&'static str, u64),
    /// An address that should lie within the kernel and does not; the note concerned.
    OutsideKernel(&'static str, u64),
    /// `HV_START_LOW` lies above the start of the hole.
    HoleTooLow(u64),
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no Xen ELF notes: the kernel was built without PV support (CONFIG_XEN_PV)"),
            Self::Damaged => f.write_str("damaged ELF notes"),
            Self::XenVersion(found) => write!(f, "the kernel is for Xen version \"{found}\", not \"xen-3.\""),
            Self::Loader(found) => write!(f, "the kernel needs the loader \"{found}\", not \"generic\""),
            Self::NotForDom0 => f.write_str("the kernel does not support running as dom0 (CONFIG_XEN_DOM0)"),
            Self::Feature(name) => write!(f, "the kernel demands the feature \"{name}\", which is not offered"),
            Self::NoVirtBase => f.write_str("the kernel has the note PADDR_OFFSET without VIRT_BASE"),
            Self::BadAddress(note, value) => {
                write!(f, "the note {note} has the impossible address {value:#x}")
            }
            Self::OutsideKernel(note, value) => {
                write!(f, "the note {note} points to {value:#x}, outside the kernel")
            }
            Self::HoleTooLow(start) => {
                write!(f, "the kernel wants the hypervisor to start at {start:#x}, above {HOLE_START:#x}")
            }
        }
    }
}

/// What the notes say, with the defaults for those that are absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XenNotes {
    /// The first instruction.
    pub entry: u64,
    /// A page to fill with call stubs, if the kernel has one.
    pub hypercall_page: Option<u64>,
    /// The linear address of PFN 0.
    pub virt_base: u64,
    /// What to take off a segment's physical address to get its guest-physical one.
    pub paddr_offset: u64,
    /// Where the P2M array is to be mapped, outside the boot mapping.
    pub init_p2m: Option<u64>,
    /// True when the initrd is given as a PFN and need not be mapped.
    pub unmapped_initrd: bool,
    /// True when page directories may lie above 4 GiB (the assist `pae_extended_cr3`).
    pub extended_cr3: bool,
    /// True when the guest looks at what the suspend call returns.
    pub suspend_cancel: bool,
    /// The feature bits of `SUPPORTED_FEATURES`.
    pub supported_features: Option<u32>,
    /// The guest's name.
    pub guest_os: Text,
    /// The guest's version.
    pub guest_version: Text,
    /// First linear address of the kernel.
    pub kernel_start: u64,
    /// One beyond the last linear address of the kernel.
    pub kernel_end: u64,
}

/// The notes as they are in the file.
#[derive(Default)]
struct Raw {
    seen: bool,
    entry: Option<u64>,
    hypercall_page: Option<u64>,
    virt_base: Option<u64>,
    paddr_offset: Option<u64>,
    init_p2m: Option<u64>,
    hv_start_low: Option<u64>,
    unmapped_initrd: bool,
    suspend_cancel: bool,
    extended_cr3: bool,
    supported_features: Option<u32>,
    xen_version: Option<Text>,
    loader: Option<Text>,
    guest_os: Text,
    guest_version: Text,
}

/// Returns the text up to its NUL, cut at what fits; bytes that are not printable become '?'.
fn text(bytes: &[u8]) -> Text {
    let mut text = Text::new();
    for byte in bytes.iter().take_while(|byte| **byte != 0).take(TEXT) {
        let shown = if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '?' };
        text.push(shown);
    }
    text
}

/// Returns a number of 1, 2, 4 or 8 bytes; anything else reads as 0.
fn number(bytes: &[u8]) -> u64 {
    let mut value = [0; 8];
    match bytes.len() {
        len @ (1 | 2 | 4 | 8) => value[..len].copy_from_slice(bytes),
        _ => return 0,
    }
    u64::from_le_bytes(value)
}

/// One note of a segment.
struct Note<'a> {
    owner: &'a [u8],
    kind: u32,
    value: &'a [u8],
}

/// Takes one note off the front.
fn next<'a>(rest: &mut &'a [u8], align: usize) -> Result<Option<Note<'a>>, NoteError> {
    let Some((header, mut body)) = rest.split_first_chunk::<12>() else {
        // What is left is padding.
        return if rest.iter().all(|byte| *byte == 0) { Ok(None) } else { Err(NoteError::Damaged) };
    };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let mut at = header.len();
    let owner = part(&mut body, &mut at, word(0), align)?;
    let value = part(&mut body, &mut at, word(4), align)?;
    *rest = body;
    Ok(Some(Note { owner, kind: word(8), value }))
}

/// Takes `len` bytes, which lie `at` bytes behind the note's start, and the padding up to the next place that is aligned from
/// there; it may be missing at the very end.
fn part<'a>(body: &mut &'a [u8], at: &mut usize, len: u32, align: usize) -> Result<&'a [u8], NoteError> {
    let len = usize::try_from(len).map_err(|_| NoteError::Damaged)?;
    let taken = body.get(..len).ok_or(NoteError::Damaged)?;
    let end = (*at + len).next_multiple_of(align);
    *body = body.get(end - *at..).unwrap_or_default();
    *at = end;
    Ok(taken)
}

impl Raw {
    fn note(&mut self, kind: u32, value: &[u8]) -> Result<(), NoteError> {
        match ElfNote(kind) {
            ElfNote::ENTRY => self.entry = Some(number(value)),
            ElfNote::HYPERCALL_PAGE => self.hypercall_page = Some(number(value)),
            ElfNote::VIRT_BASE => self.virt_base = Some(number(value)),
            ElfNote::PADDR_OFFSET => self.paddr_offset = Some(number(value)),
            ElfNote::XEN_VERSION => self.xen_version = Some(text(value)),
            ElfNote::GUEST_OS => self.guest_os = text(value),
            ElfNote::GUEST_VERSION => self.guest_version = text(value),
            ElfNote::LOADER => self.loader = Some(text(value)),
            ElfNote::PAE_MODE => {
                let mode = text(value);
                self.extended_cr3 = mode.as_str() == "yes" || mode.contains("bimodal");
            }
            ElfNote::FEATURES => check_features(value)?,
            ElfNote::HV_START_LOW => self.hv_start_low = Some(number(value)),
            ElfNote::SUSPEND_CANCEL => self.suspend_cancel = number(value) != 0,
            ElfNote::INIT_P2M => self.init_p2m = Some(number(value)),
            ElfNote::MOD_START_PFN => self.unmapped_initrd = number(value) != 0,
            ElfNote::SUPPORTED_FEATURES => {
                let first = value.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
                self.supported_features = Some(self.supported_features.unwrap_or(0) | first);
            }
            _ => {}
        }
        self.seen = true;
        Ok(())
    }

    fn check_identity(&self) -> Result<(), NoteError> {
        if !self.seen {
            return Err(NoteError::Missing);
        }
        let version = self.xen_version.unwrap_or_default();
        if !version.starts_with("xen-3.") {
            return Err(NoteError::XenVersion(version));
        }
        if let Some(loader) = self.loader.filter(|loader| loader.as_str() != "generic") {
            return Err(NoteError::Loader(loader));
        }
        if self.supported_features.is_some_and(|bits| bits & 1 << FEATURE_DOM0 == 0) {
            return Err(NoteError::NotForDom0);
        }
        match self.hv_start_low {
            Some(start) if start > HOLE_START => Err(NoteError::HoleTooLow(start)),
            _ => Ok(()),
        }
    }
}

/// Checks the names after a '!' in a list like "!a|b".
fn check_features(list: &[u8]) -> Result<(), NoteError> {
    let list = list.split(|byte| *byte == 0).next().unwrap_or_default();
    for feature in list.split(|byte| *byte == b'|') {
        let Some((b'!', name)) = feature.split_first() else {
            continue;
        };
        if !FEATURE_NAMES.iter().any(|(known, offered)| known.as_bytes() == name && *offered) {
            return Err(NoteError::Feature(text(name)));
        }
    }
    Ok(())
}

/// True when all of `start..end` may belong to a guest kernel.
pub(super) fn guest_range(start: u64, end: u64) -> bool {
    let canonical = |va: u64| ((va << 16) as i64 >> 16) as u64 == va;
    let Some(last) = end.checked_sub(1) else {
        return false;
    };
    start <= last
        && canonical(start)
        && canonical(last)
        && start >> 47 == last >> 47
        && (last < HOLE_START || start >= HOLE_END)
}

impl XenNotes {
    /// Reads the notes of a kernel that lies at `image` physically; `file_entry` is the ELF header's entry, used if the notes have
    /// none.
    ///
    /// # Errors
    /// When the notes are missing or damaged, contradict the image, or demand what is not offered.
    pub fn read(segments: &[NoteSegment], image: PhysRange, file_entry: u64) -> Result<Self, NoteError> {
        let mut raw = Raw::default();
        for segment in segments {
            let mut rest = segment.bytes.as_slice();
            while let Some(note) = next(&mut rest, segment.align)? {
                if note.owner == b"Xen\0" {
                    raw.note(note.kind, note.value)?;
                }
            }
        }
        raw.check_identity()?;
        Self::place(raw, image, file_entry)
    }

    fn place(raw: Raw, image: PhysRange, file_entry: u64) -> Result<Self, NoteError> {
        if raw.paddr_offset.is_some() && raw.virt_base.is_none() {
            return Err(NoteError::NoVirtBase);
        }
        let virt_base = raw.virt_base.unwrap_or(0);
        let paddr_offset = raw.paddr_offset.unwrap_or(0);
        if !virt_base.is_multiple_of(PAGE_SIZE as u64) {
            return Err(NoteError::BadAddress("VIRT_BASE", virt_base));
        }
        let bad_offset = NoteError::BadAddress("PADDR_OFFSET", paddr_offset);
        let to_virt = |paddr: u64| paddr.checked_sub(paddr_offset)?.checked_add(virt_base);
        let kernel_start = to_virt(image.start).ok_or(bad_offset)?;
        let kernel_end = to_virt(image.end).ok_or(bad_offset)?;
        if !paddr_offset.is_multiple_of(PAGE_SIZE as u64) || !guest_range(kernel_start, kernel_end) {
            return Err(bad_offset);
        }
        let inside = |name, va: u64, len: u64| {
            let end = va.checked_add(len).ok_or(NoteError::OutsideKernel(name, va))?;
            if va < kernel_start || end > kernel_end { Err(NoteError::OutsideKernel(name, va)) } else { Ok(()) }
        };
        let entry = raw.entry.unwrap_or(file_entry);
        inside("ENTRY", entry, 1)?;
        if let Some(page) = raw.hypercall_page {
            if !page.is_multiple_of(PAGE_SIZE as u64) {
                return Err(NoteError::BadAddress("HYPERCALL_PAGE", page));
            }
            inside("HYPERCALL_PAGE", page, PAGE_SIZE as u64)?;
        }
        Ok(Self {
            entry,
            hypercall_page: raw.hypercall_page,
            virt_base,
            paddr_offset,
            init_p2m: raw.init_p2m,
            unmapped_initrd: raw.unmapped_initrd,
            extended_cr3: raw.extended_cr3,
            suspend_cancel: raw.suspend_cancel,
            supported_features: raw.supported_features,
            guest_os: raw.guest_os,
            guest_version: raw.guest_version,
            kernel_start,
            kernel_end,
        })
    }
}
