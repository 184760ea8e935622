// SPDX-License-Identifier: MIT OR Apache-2.0
//! The MCFG: where the configuration space of PCI devices is mapped (PCI Firmware Specification 3.3, 4.1.2).

use super::{AcpiError, EcamInfo, HEADER, Platform, u64_at};

/// Bytes between the header and the entries.
const RESERVED: usize = 8;
const ENTRY: usize = 16;

/// Reads the table.
pub(super) fn read(bytes: &[u8], out: &mut Platform) {
    let entries = bytes.get(HEADER + RESERVED..).unwrap_or(&[]).chunks(ENTRY);
    for entry in entries {
        match parse(entry) {
            Some(ecam) => {
                let _ = out.ecams.try_push(ecam);
            }
            None => out.problem(AcpiError::BadEntry(*b"MCFG")),
        }
    }
}

fn parse(entry: &[u8]) -> Option<EcamInfo> {
    let maddr = u64_at(entry, 0)?;
    let [a, b, first_bus, last_bus] = *entry.get(8..)?.first_chunk()?;
    let aligned = maddr != 0 && maddr & 0xf_ffff == 0 && maddr < 1 << 52;
    let good = aligned && first_bus <= last_bus;
    good.then(|| EcamInfo { maddr, segment: u16::from_le_bytes([a, b]), first_bus, last_bus })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let mut table = vec![0; HEADER + RESERVED];
        table.extend_from_slice(&0xb000_0000u64.to_le_bytes());
        table.extend_from_slice(&[1, 0, 2, 255, 0, 0, 0, 0]);
        table.extend_from_slice(&0xb000_1000u64.to_le_bytes());
        table.extend_from_slice(&[0; 8]);
        let mut out = Platform::default();
        read(&table, &mut out);
        let good = EcamInfo { maddr: 0xb000_0000, segment: 1, first_bus: 2, last_bus: 255 };
        assert_eq!(out.ecams.as_slice(), [good]);
        assert_eq!(out.problems.as_slice(), [AcpiError::BadEntry(*b"MCFG")], "not aligned");
        read(&table[..HEADER + RESERVED + 7], &mut out);
        read(&table[..3], &mut out);
        assert_eq!((out.ecams.len(), out.problems.len()), (1, 2), "cut off");
    }
}
