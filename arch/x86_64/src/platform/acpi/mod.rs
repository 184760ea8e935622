// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the firmware's ACPI tables say of the machine.
//!
//! Tables come from firmware and may be wrong in any way: all reading is from byte slices whose bounds
//! and checksums are checked first. A broken table costs what it would have told, and is named in
//! [`Platform::problems`]; the rest is still found.
#![expect(unsafe_code, reason = "the layouts of the `acpi` crate are read from bytes; maps machine memory")]

mod fadt;
mod madt;
mod mcfg;
mod s5;

use core::fmt;
use core::mem::MaybeUninit;

use acpi::madt::{
    InterruptSourceOverrideEntry, IoApicEntry, LocalApicAddressOverrideEntry, LocalApicEntry, LocalX2ApicEntry,
};
use acpi::rsdp::Rsdp;
use arch_types::LineMode;
use arrayvec::ArrayVec;

use super::Map;
pub use fadt::{Power, Register};

/// A CPU that the firmware lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuEntry {
    /// Number of its local APIC.
    pub apic_id: u32,
    /// Its number in the ACPI namespace.
    pub acpi_id: u32,
    /// False for a slot without a CPU, or one not to be used.
    pub enabled: bool,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApicInfo {
    /// Its number.
    pub id: u8,
    /// Machine address of its registers.
    pub maddr: u64,
    /// The first global interrupt that is connected to it.
    pub gsi_base: u32,
}

/// A legacy interrupt that is not connected one to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsaOverride {
    /// The legacy interrupt.
    pub irq: u8,
    /// Where it is connected.
    pub gsi: u32,
    /// How it behaves.
    pub mode: LineMode,
}

/// The ACPI power-management timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmTimer {
    /// Its I/O port.
    pub port: u16,
    /// Width of the counter: 24 or 32 bits.
    pub bits: u32,
}

/// A range of buses whose configuration space is mapped into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcamInfo {
    /// Machine address of bus 0's, whether or not the range has it.
    pub maddr: u64,
    /// The segment.
    pub segment: u16,
    /// First bus of the range.
    pub first_bus: u8,
    /// Last one.
    pub last_bus: u8,
}

/// What the tables say.
#[derive(Clone, Debug)]
pub struct Platform {
    /// The CPUs, used ones first; empty when the tables do not tell, and then there is only this one.
    pub cpus: ArrayVec<CpuEntry, 256>,
    /// Used CPUs for which there was no room.
    pub cpus_left_out: usize,
    /// Machine address of the local APICs.
    pub lapic_base: u64,
    /// The I/O APICs.
    pub ioapics: ArrayVec<IoApicInfo, 64>,
    /// Legacy interrupts that are not connected one to one.
    pub overrides: ArrayVec<IsaOverride, 32>,
    /// Where PCI configuration space is mapped.
    pub ecams: ArrayVec<EcamInfo, 32>,
    /// The power-management timer.
    pub pm_timer: Option<PmTimer>,
    /// Machine address of the HPET.
    pub hpet_base: Option<u64>,
    /// How to sleep and to reset.
    pub power: Power,
    /// The tables of IOMMUs: name and machine address.
    pub iommus: ArrayVec<([u8; 4], u64), 2>,
    /// CMOS register of the century, 0 when there is none.
    pub rtc_century: u8,
    /// Machine address of the root pointer, where the legacy scan found it.
    pub rsdp_maddr: Option<u64>,
    /// What was missing or broken.
    pub problems: ArrayVec<AcpiError, 8>,
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            cpus: ArrayVec::new(),
            cpus_left_out: 0,
            lapic_base: 0xfee0_0000,
            ioapics: ArrayVec::new(),
            overrides: ArrayVec::new(),
            ecams: ArrayVec::new(),
            pm_timer: None,
            hpet_base: None,
            power: Power::default(),
            iommus: ArrayVec::new(),
            rtc_century: 0,
            rsdp_maddr: None,
            problems: ArrayVec::new(),
        }
    }
}

impl Platform {
    /// Returns the global interrupt and behaviour of a legacy interrupt.
    pub fn isa_irq(&self, irq: u8) -> (u32, LineMode) {
        let found = self.overrides.iter().find(|o| o.irq == irq);
        found.map_or((irq.into(), LineMode::default()), |o| (o.gsi, o.mode))
    }

    /// Returns how a global interrupt behaves as far as the tables tell: a legacy one as they say or as ISA has it, others as PCI
    /// has it.
    pub fn line_mode(&self, gsi: u32) -> LineMode {
        if let Some(found) = self.overrides.iter().find(|o| o.gsi == gsi) {
            found.mode
        } else if gsi < 16 {
            LineMode::default()
        } else {
            LineMode { level: true, active_low: true }
        }
    }

    fn problem(&mut self, error: AcpiError) {
        // When there are more, the first ones tell enough.
        let _ = self.problems.try_push(error);
    }
}

/// What is wrong with the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// There is no root pointer.
    NoRootPointer,
    /// The loader's root pointer is broken.
    BadRootPointer,
    /// There is no such table.
    Missing([u8; 4]),
    /// The bytes do not add up to zero.
    Checksum([u8; 4]),
    /// The table's length is impossible.
    Length([u8; 4]),
    /// The table's address cannot be reached.
    Unreachable([u8; 4], u64),
    /// An entry in the table is cut off or has an impossible length.
    BadEntry([u8; 4]),
    /// The table holds something else than its name says.
    Signature([u8; 4]),
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |s: &[u8; 4]| s.map(|b| if b.is_ascii_graphic() { b as char } else { '?' });
        let (s, what) = match self {
            Self::NoRootPointer => return f.write_str("ACPI: no root pointer"),
            Self::BadRootPointer => {
                return f.write_str("ACPI: the loader's root pointer is broken");
            }
            Self::Unreachable(s, maddr) => {
                let [a, b, c, d] = name(s);
                return write!(f, "ACPI: table {a}{b}{c}{d} at {maddr:#x} cannot be reached");
            }
            Self::Missing(s) => (s, "is missing"),
            Self::Checksum(s) => (s, "has a wrong checksum"),
            Self::Length(s) => (s, "has an impossible length"),
            Self::BadEntry(s) => (s, "has a broken entry"),
            Self::Signature(s) => (s, "is not what its pointer says"),
        };
        let [a, b, c, d] = name(s);
        write!(f, "ACPI: table {a}{b}{c}{d} {what}")
    }
}

/// Reads machine memory: the bytes at an address, None when they cannot be reached.
pub type Memory<'m, 'a> = &'m dyn Fn(u64, usize) -> Option<&'a [u8]>;

/// A structure of integers without padding, of which any bytes are a value.
///
/// # Safety
/// The type must be just that.
unsafe trait Layout: Copy {}

// SAFETY: packed structures of integers, as the ACPI specification lays them out.
unsafe impl Layout for Rsdp {}
// SAFETY: as above; its optional fields are integers too.
unsafe impl Layout for acpi::fadt::Fadt {}
// SAFETY: as above.
unsafe impl Layout for LocalApicEntry {}
// SAFETY: as above.
unsafe impl Layout for LocalX2ApicEntry {}
// SAFETY: as above.
unsafe impl Layout for IoApicEntry {}
// SAFETY: as above.
unsafe impl Layout for InterruptSourceOverrideEntry {}
// SAFETY: as above.
unsafe impl Layout for LocalApicAddressOverrideEntry {}

/// Reads a structure; what lies behind the end of the bytes reads as zero.
fn view<T: Layout>(bytes: &[u8]) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    let len = bytes.len().min(size_of::<T>());
    // SAFETY: `len` bytes can be read and written, and a local variable overlaps nobody's bytes. With
    // all bytes initialised, `Layout` says that they are a value.
    unsafe {
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast(), len);
        value.assume_init()
    }
}

/// Reads a structure that must be there whole.
fn view_whole<T: Layout>(bytes: &[u8]) -> Option<T> {
    (bytes.len() >= size_of::<T>()).then(|| view(bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)) == 0
}

/// Bytes of the header that every table but the root pointer has.
const HEADER: usize = 36;
/// No sane table is longer.
const LONGEST: usize = 16 << 20;

/// Reads a root pointer; None when it is none or its checksum is wrong.
fn root_pointer(bytes: &[u8]) -> Option<Rsdp> {
    let first = bytes.get(..20)?;
    let rsdp: Rsdp = view(bytes);
    if rsdp.signature() != *b"RSD PTR " || !sums_to_zero(first) {
        return None;
    }
    if rsdp.revision() >= 2 {
        let len = u32_at(bytes, 20)? as usize;
        if len < 36 || !sums_to_zero(bytes.get(..len)?) {
            return None;
        }
    }
    Some(rsdp)
}

/// Searches one range for a root pointer.
fn scan_range<'a>(memory: Memory<'_, 'a>, start: u64, len: usize) -> Option<(u64, Rsdp)> {
    let bytes = memory(start, len)?;
    (0..len).step_by(16).find_map(|at| Some((start + at as u64, root_pointer(bytes.get(at..)?)?)))
}

/// Searches the places of a BIOS: the first KiB of the extended BIOS data, which end at 640 KiB, then the BIOS itself.
fn scan(memory: Memory<'_, '_>) -> Option<(u64, Rsdp)> {
    let segment = memory(0x40e, 2).and_then(|b| b.first_chunk().copied()).map_or(0, u16::from_le_bytes);
    let ebda = u64::from(segment) << 4;
    let in_ebda = (0x8_0000..=0xa_0000 - 0x400).contains(&ebda).then(|| scan_range(memory, ebda, 0x400)).flatten();
    in_ebda.or_else(|| scan_range(memory, 0xe_0000, 0x2_0000))
}

/// Reads a table's signature.
fn signature(memory: Memory<'_, '_>, maddr: u64) -> Option<[u8; 4]> {
    memory(maddr, HEADER)?.first_chunk().copied()
}

/// Reads a whole table and checks it.
fn table<'a>(memory: Memory<'_, 'a>, maddr: u64, name: &[u8; 4]) -> Result<&'a [u8], AcpiError> {
    let unreachable = AcpiError::Unreachable(*name, maddr);
    let header = memory(maddr, HEADER).filter(|_| maddr != 0).ok_or(unreachable)?;
    if header.get(..4) != Some(name) {
        return Err(AcpiError::Signature(*name));
    }
    let len = u32_at(header, 4).unwrap_or(0) as usize;
    if !(HEADER..=LONGEST).contains(&len) {
        return Err(AcpiError::Length(*name));
    }
    let bytes = memory(maddr, len).ok_or(unreachable)?;
    if sums_to_zero(bytes) { Ok(bytes) } else { Err(AcpiError::Checksum(*name)) }
}

/// The list of all tables: 8-byte addresses in the XSDT, 4-byte ones in the RSDT.
#[derive(Clone, Copy)]
struct Root<'a> {
    entries: &'a [u8],
    width: usize,
}

impl<'a> Root<'a> {
    /// Reads the newer list, or the older one when the newer is missing or broken.
    fn read(memory: Memory<'_, 'a>, rsdp: &Rsdp, out: &mut Platform) -> Option<Self> {
        if rsdp.revision() >= 2 && rsdp.xsdt_address() != 0 {
            match table(memory, rsdp.xsdt_address(), b"XSDT") {
                Ok(bytes) => {
                    return Some(Self { entries: bytes.get(HEADER..)?, width: 8 });
                }
                Err(error) => out.problem(error),
            }
        }
        match table(memory, rsdp.rsdt_address().into(), b"RSDT") {
            Ok(bytes) => Some(Self { entries: bytes.get(HEADER..)?, width: 4 }),
            Err(error) => {
                out.problem(error);
                None
            }
        }
    }

    /// Iterates over the addresses of all tables.
    fn addresses(self) -> impl Iterator<Item = u64> + 'a {
        self.entries
            .chunks_exact(self.width)
            .map(|entry| entry.iter().rev().fold(0, |address, byte| address << 8 | u64::from(*byte)))
    }

    /// Finds a table by its name.
    fn find(self, memory: Memory<'_, 'a>, name: &[u8; 4]) -> Result<&'a [u8], AcpiError> {
        let maddr = self.addresses().find(|a| signature(memory, *a).as_ref() == Some(name));
        table(memory, maddr.ok_or(AcpiError::Missing(*name))?, name)
    }
}

/// Reads all tables. `rsdp` is the loader's copy of the root pointer; without a good one the legacy
/// places are searched.
pub fn discover<'a>(rsdp: Option<&[u8]>, memory: Memory<'_, 'a>) -> Platform {
    let mut out = Platform::default();
    let given = rsdp.and_then(root_pointer);
    if rsdp.is_some() && given.is_none() {
        out.problem(AcpiError::BadRootPointer);
    }
    let rsdp = given.or_else(|| {
        let (maddr, rsdp) = scan(memory)?;
        out.rsdp_maddr = Some(maddr);
        Some(rsdp)
    });
    let Some(rsdp) = rsdp else {
        out.problem(AcpiError::NoRootPointer);
        return out;
    };
    let Some(root) = Root::read(memory, &rsdp, &mut out) else {
        return out;
    };
    match root.find(memory, b"APIC") {
        Ok(bytes) => madt::read(bytes, &mut out),
        Err(error) => out.problem(error),
    }
    match root.find(memory, b"FACP") {
        Ok(bytes) => fadt::read(bytes, memory, root, &mut out),
        Err(error) => out.problem(error),
    }
    match root.find(memory, b"MCFG") {
        Ok(bytes) => mcfg::read(bytes, &mut out),
        Err(AcpiError::Missing(_)) => {}
        Err(error) => out.problem(error),
    }
    for maddr in root.addresses() {
        if let Some(name @ (b"DMAR" | b"IVRS")) = signature(memory, maddr).as_ref() {
            // One of each is all that an operating system looks at.
            let _ = out.iommus.try_push((*name, maddr));
        }
    }
    match root.find(memory, b"HPET") {
        // A generic address: space 0 is memory, the address itself 4 bytes further.
        Ok(bytes) if bytes.get(40) == Some(&0) => out.hpet_base = u64_at(bytes, 44).filter(|a| *a != 0),
        Ok(_) => out.problem(AcpiError::BadEntry(*b"HPET")),
        Err(AcpiError::Missing(_)) => {}
        Err(error) => out.problem(error),
    }
    out
}

/// Reads all tables through a function that maps machine memory.
///
/// # Safety
/// What `map` returns must be readable for the length asked for and must not change.
pub unsafe fn discover_mapped(rsdp: Option<&[u8]>, map: Map) -> Platform {
    discover(rsdp, &move |maddr, len| {
        maddr.checked_add(len as u64)?;
        let bytes = map(maddr, len);
        // SAFETY: the caller's promise.
        (!bytes.is_null()).then(|| unsafe { core::slice::from_raw_parts(bytes.cast_const(), len) })
    })
}

#[cfg(test)]
mod tests;
