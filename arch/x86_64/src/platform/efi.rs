// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tables that UEFI firmware leaves to whoever runs on it.
//!
//! As with ACPI, all reading is from byte slices that were checked first; a table that is not what it should be costs what
//! it would have told.

use super::acpi::Memory;

/// `IBI SYST` and `RUNTSERV`.
const SYSTEM_SIGNATURE: u64 = 0x5453_5953_2049_4249;
const RUNTIME_SIGNATURE: u64 = 0x5652_4553_544e_5552;
/// Bytes of the header that both tables begin with.
const HEADER: usize = 24;
/// Bytes of the tables that are looked at, and the most that one is taken to have.
const SYSTEM_SIZE: usize = 120;
const RUNTIME_SIZE: usize = 136;
const LONGEST: usize = 4096;
/// The first runtime service's place in its table; each is an address.
const FIRST_SERVICE: usize = 24;

/// How many services the table has, by the specification's second edition.
pub const SERVICES: usize = 14;

/// What the firmware says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The specification that the system table follows, as `major << 16 | minor`.
    pub revision: u32,
    /// Machine address of the vendor's name, in UTF-16.
    pub vendor: u64,
    /// The vendor's number of the firmware.
    pub firmware_revision: u32,
    /// Machine address of the configuration tables' list.
    pub config: u64,
    /// How many entries it has.
    pub config_entries: u32,
    /// The runtime services, if their table is there.
    pub runtime: Option<RuntimeTable>,
}

/// The runtime services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeTable {
    /// The specification that they follow.
    pub revision: u32,
    /// Their addresses, in the table's order; 0 where there is none.
    pub services: [u64; SERVICES],
}

/// Why there are no tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EfiError {
    /// The address cannot be reached.
    Unreachable,
    /// It is not the table that it should be.
    Signature,
    /// Its length is impossible.
    Length,
    /// Its checksum is wrong.
    Checksum,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk().copied()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk().copied()).map_or(0, u64::from_le_bytes)
}

/// The checksum of UEFI's tables: CRC-32 with the field itself as zero.
fn crc32(bytes: &[u8]) -> u32 {
    const FIELD: core::ops::Range<usize> = 16..20;
    let bytes = bytes.iter().enumerate().map(|(at, byte)| if FIELD.contains(&at) { 0 } else { *byte });
    !bytes.fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 != 0 { 0xedb8_8320 } else { 0 })
    })
}

/// Reads a table and checks it.
fn table<'a>(memory: Memory<'_, 'a>, maddr: u64, signature: u64, least: usize) -> Result<&'a [u8], EfiError> {
    let header = memory(maddr, HEADER).filter(|_| maddr != 0).ok_or(EfiError::Unreachable)?;
    if u64_at(header, 0) != signature {
        return Err(EfiError::Signature);
    }
    let len = u32_at(header, 12) as usize;
    if !(least..=LONGEST).contains(&len) {
        return Err(EfiError::Length);
    }
    let bytes = memory(maddr, len).ok_or(EfiError::Unreachable)?;
    if u32_at(bytes, 16) != crc32(bytes) {
        return Err(EfiError::Checksum);
    }
    Ok(bytes)
}

/// Reads the tables of 64-bit firmware, from its system table on.
///
/// # Errors
/// What is wrong with the system table. A runtime table that is wrong is left out.
pub fn discover(system_table: u64, memory: Memory<'_, '_>) -> Result<Tables, EfiError> {
    let system = table(memory, system_table, SYSTEM_SIGNATURE, SYSTEM_SIZE)?;
    let runtime = table(memory, u64_at(system, 88), RUNTIME_SIGNATURE, RUNTIME_SIZE).ok();
    Ok(Tables {
        revision: u32_at(system, 8),
        vendor: u64_at(system, 24),
        firmware_revision: u32_at(system, 32),
        config: u64_at(system, 112),
        config_entries: u64_at(system, 104).try_into().unwrap_or(0),
        runtime: runtime.map(|bytes| RuntimeTable {
            revision: u32_at(bytes, 8),
            services: core::array::from_fn(|n| u64_at(bytes, FIRST_SERVICE + 8 * n)),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const SYSTEM: u64 = 0x1000;
    const RUNTIME: u64 = 0x2000;

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = crc32(&bytes);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn put(bytes: &mut [u8], at: usize, word: u64) {
        bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }

    fn system() -> Vec<u8> {
        let mut t = alloc::vec![0; SYSTEM_SIZE];
        put(&mut t, 0, SYSTEM_SIGNATURE);
        put(&mut t, 8, (SYSTEM_SIZE as u64) << 32 | 0x2_0046);
        put(&mut t, 24, 0x7777_0000);
        put(&mut t, 32, 0x1_0000);
        put(&mut t, 88, RUNTIME);
        put(&mut t, 104, 9);
        put(&mut t, 112, 0x8888_0000);
        sealed(t)
    }

    fn runtime() -> Vec<u8> {
        let mut t = alloc::vec![0; RUNTIME_SIZE];
        put(&mut t, 0, RUNTIME_SIGNATURE);
        put(&mut t, 8, (RUNTIME_SIZE as u64) << 32 | 0x2_0046);
        for n in 0..SERVICES {
            put(&mut t, FIRST_SERVICE + 8 * n, 0x9000_0000 + n as u64);
        }
        sealed(t)
    }

    fn read(system: &[u8], runtime: &[u8]) -> Result<Tables, EfiError> {
        discover(SYSTEM, &|at, len| {
            let (bytes, from) = if at >= RUNTIME { (runtime, RUNTIME) } else { (system, SYSTEM) };
            bytes.get((at - from) as usize..)?.get(..len)
        })
    }

    #[test]
    fn whole_tables() {
        let tables = read(&system(), &runtime()).unwrap();
        assert_eq!((tables.revision, tables.firmware_revision), (0x2_0046, 0x1_0000));
        assert_eq!((tables.vendor, tables.config, tables.config_entries), (0x7777_0000, 0x8888_0000, 9));
        assert_eq!(tables.runtime.unwrap().services[13], 0x9000_000d);
    }

    #[test]
    fn broken_tables() {
        for at in (0..8).chain(20..SYSTEM_SIZE) {
            let mut bad = system();
            bad[at] ^= 1;
            assert!(read(&bad, &runtime()).is_err(), "byte {at}");
        }
        for at in (0..8).chain(20..RUNTIME_SIZE) {
            let mut bad = runtime();
            bad[at] ^= 1;
            assert_eq!(read(&system(), &bad).unwrap().runtime, None, "byte {at}");
        }
        assert_eq!(read(&[], &[]), Err(EfiError::Unreachable));
        let mut short = system();
        put(&mut short, 8, 24 << 32);
        assert_eq!(read(&sealed(short), &runtime()), Err(EfiError::Length));
        assert_eq!(discover(0, &|_, _| Some(&[])), Err(EfiError::Unreachable));
    }

    #[test]
    fn checksum() {
        // The check value of CRC-32, whose input is shorter than the field's place.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
