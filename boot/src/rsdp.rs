// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loader's copy of the ACPI root pointer. Only one with valid checksums counts; without one, `arch` searches the
//! places of a BIOS.

use crate::bytes;

const SIGNATURE: &[u8; 8] = b"RSD PTR ";
const V1_LEN: usize = 20;
const V2_LEN: usize = 36;

/// A copy of the root system description pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rsdp {
    bytes: [u8; V2_LEN],
    len: usize,
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b)) == 0
}

impl Rsdp {
    /// Reads the structure at the start of `bytes`, if one with valid checksums is there.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let first: [u8; V1_LEN] = bytes::array(bytes, 0)?;
        if !first.starts_with(SIGNATURE) || !sums_to_zero(&first) {
            return None;
        }
        let mut copy = [0; V2_LEN];
        let mut len = V1_LEN;
        copy[..V1_LEN].copy_from_slice(&first);
        if first[15] >= 2 {
            let whole: [u8; V2_LEN] = bytes::array(bytes, 0)?;
            let claimed = bytes::u32_at(&whole, 20)? as usize;
            if !sums_to_zero(bytes.get(..claimed.max(V2_LEN))?) {
                return None;
            }
            copy = whole;
            len = V2_LEN;
        }
        Some(Self { bytes: copy, len })
    }

    /// The structure itself: 20 bytes in revision 0, 36 later.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// Its revision: 0 for ACPI 1.0, 2 since.
    #[must_use]
    pub fn revision(&self) -> u8 {
        self.bytes[15]
    }

    /// Machine address of the RSDT, 0 if there is none.
    #[must_use]
    pub fn rsdt(&self) -> u32 {
        bytes::u32_at(&self.bytes, 16).unwrap_or(0)
    }

    /// Machine address of the XSDT, where there is one.
    #[must_use]
    pub fn xsdt(&self) -> Option<u64> {
        if self.len < V2_LEN {
            return None;
        }
        bytes::u64_at(&self.bytes, 24).filter(|a| *a != 0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A valid structure.
    pub(crate) fn sample(revision: u8) -> [u8; V2_LEN] {
        let mut b = [0_u8; V2_LEN];
        b[..8].copy_from_slice(SIGNATURE);
        b[9..15].copy_from_slice(b"XENITH");
        b[15] = revision;
        b[16..20].copy_from_slice(&0x7fe_1234_u32.to_le_bytes());
        b[20..24].copy_from_slice(&36_u32.to_le_bytes());
        b[24..32].copy_from_slice(&0x7fe_5678_u64.to_le_bytes());
        b[8] = 0_u8.wrapping_sub(b[..20].iter().fold(0, |s: u8, x| s.wrapping_add(*x)));
        b[32] = 0_u8.wrapping_sub(b.iter().fold(0, |s: u8, x| s.wrapping_add(*x)));
        b
    }

    #[test]
    fn both_revisions() {
        let old = Rsdp::from_bytes(&sample(0)[..20]).unwrap();
        assert_eq!((old.rsdt(), old.xsdt(), old.bytes().len()), (0x7fe_1234, None, 20));
        let new = Rsdp::from_bytes(&sample(2)).unwrap();
        assert_eq!((new.rsdt(), new.xsdt(), new.revision()), (0x7fe_1234, Some(0x7fe_5678), 2));
    }

    #[test]
    fn damage_is_refused() {
        assert_eq!(Rsdp::from_bytes(&[]), None);
        assert_eq!(Rsdp::from_bytes(&sample(2)[..35]), None);
        for at in 0..36 {
            let mut b = sample(2);
            b[at] ^= 0x10;
            assert_eq!(Rsdp::from_bytes(&b), None, "byte {at}");
        }
        let mut b = sample(2);
        b[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        b[32] = b[32].wrapping_sub(0xff_u8.wrapping_mul(4).wrapping_sub(36));
        assert_eq!(Rsdp::from_bytes(&b), None);
    }
}
