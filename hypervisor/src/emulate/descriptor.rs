// SPDX-License-Identifier: MIT OR Apache-2.0
//! Code and data segment descriptors.
//!
//! The caller reads the 8 bytes once, after it has checked the selector against the table's limit; a read that failed
//! must not come here as a zero, which is a descriptor that is not present.

use super::CodeSize;

const ACCESSED_TO_TYPE: u32 = 40;
const CODE: u64 = 1 << 43;
const DOWN_OR_CONFORMING: u64 = 1 << 42;
const WRITE_OR_READ: u64 = 1 << 41;
const CODE_OR_DATA: u64 = 1 << 44;
const PRESENT: u64 = 1 << 47;
const LONG: u64 = 1 << 53;
const BIG: u64 = 1 << 54;
const PAGES: u64 = 1 << 55;

/// A code or data segment that is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentDesc {
    /// Linear address of its first byte.
    pub base: u64,
    /// Offset of its last byte; the first one below the segment when it grows down.
    pub limit: u64,
    /// What kind it is.
    pub kind: Kind,
    /// Data may be read from it.
    pub readable: bool,
    /// Data may be written to it.
    pub writable: bool,
}

/// Kinds of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Code of this size.
    Code(CodeSize),
    /// Data.
    Data,
    /// Data whose offsets lie above the limit, up to the number given.
    DataDown(u64),
}

impl SegmentDesc {
    /// Reads a descriptor. `None`: not present, or neither code nor data, or long and big at once.
    pub const fn parse(raw: u64) -> Option<Self> {
        if raw & PRESENT == 0 || raw & CODE_OR_DATA == 0 {
            return None;
        }
        let code = raw & CODE != 0;
        let kind = match (code, raw & LONG != 0, raw & BIG != 0) {
            (true, true, true) => return None,
            (true, true, false) => Kind::Code(CodeSize::Bits64),
            (true, false, true) => Kind::Code(CodeSize::Bits32),
            (true, false, false) => Kind::Code(CodeSize::Bits16),
            (false, _, big) if raw & DOWN_OR_CONFORMING != 0 => Kind::DataDown(if big { 0xffff_ffff } else { 0xffff }),
            (false, ..) => Kind::Data,
        };
        let permitted = raw & WRITE_OR_READ != 0;
        let (base, limit) = match kind {
            Kind::Code(CodeSize::Bits64) => (0, u64::MAX),
            _ => (base(raw), limit(raw)),
        };
        Some(Self { base, limit, kind, readable: !code || permitted, writable: !code && permitted })
    }

    /// How code in this segment is read; `None` for data.
    pub const fn code_size(&self) -> Option<CodeSize> {
        match self.kind {
            Kind::Code(size) => Some(size),
            Kind::Data | Kind::DataDown(_) => None,
        }
    }

    /// Returns the linear address of `bytes` bytes at an offset; `None` when they are not all within the segment.
    /// Addresses of segments that are not 64-bit code have 32 bits.
    pub fn linear(&self, offset: u64, bytes: u32) -> Option<u64> {
        let last = offset.checked_add(u64::from(bytes.checked_sub(1)?))?;
        let inside = match self.kind {
            Kind::DataDown(top) => offset > self.limit && last <= top,
            Kind::Code(_) | Kind::Data => last <= self.limit,
        };
        let sum = self.base.wrapping_add(offset);
        let long = matches!(self.kind, Kind::Code(CodeSize::Bits64));
        inside.then_some(if long { sum } else { sum & 0xffff_ffff })
    }
}

const fn base(raw: u64) -> u64 {
    raw >> 16 & 0xff_ffff | raw >> 56 << 24
}

const fn limit(raw: u64) -> u64 {
    let limit = raw & 0xffff | raw >> 32 & 0xf_0000;
    if raw & PAGES != 0 { limit << 12 | 0xfff } else { limit }
}

const _: () = assert!(CODE == 8 << ACCESSED_TO_TYPE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_segments() {
        // 64-bit code, 32-bit code, data: as every descriptor table has them.
        let long = SegmentDesc::parse(0x00af_fa00_0000_ffff).unwrap();
        assert_eq!((long.code_size(), long.base, long.limit), (Some(CodeSize::Bits64), 0, u64::MAX));
        assert_eq!(long.linear(u64::MAX - 1, 1), Some(u64::MAX - 1));
        let flat = SegmentDesc::parse(0x00cf_fa00_0000_ffff).unwrap();
        assert_eq!((flat.code_size(), flat.limit), (Some(CodeSize::Bits32), 0xffff_ffff));
        assert!(flat.readable && !flat.writable);
        let data = SegmentDesc::parse(0x00cf_f200_0000_ffff).unwrap();
        assert_eq!((data.code_size(), data.kind), (None, Kind::Data));
        assert!(data.readable && data.writable);
        assert_eq!(data.linear(0xffff_fffc, 4), Some(0xffff_fffc));
        assert_eq!(data.linear(0xffff_fffd, 4), None);
    }

    #[test]
    fn base_and_limit() {
        // Base 0x12345678, limit 0x9abcd bytes, 16-bit code that can only be executed.
        let small = SegmentDesc::parse(0x1209_f834_5678_abcd).unwrap();
        assert_eq!((small.base, small.limit, small.code_size()), (0x1234_5678, 0x9_abcd, Some(CodeSize::Bits16)));
        assert!(!small.readable && !small.writable);
        for (offset, bytes, at) in [
            (0x9_abcd, 1, Some(0x123e_0245)),
            (0x9_abcd, 2, None),
            (0x9_abce, 1, None),
            (u64::MAX, 2, None),
            (0, 0, None),
        ] {
            assert_eq!(small.linear(offset, bytes), at);
        }
        // The base of a 64-bit segment means nothing.
        assert_eq!(SegmentDesc::parse(0x12af_fa34_5678_ffff).unwrap().base, 0);
    }

    #[test]
    fn segments_that_grow_down() {
        let down = SegmentDesc::parse(0x0040_f600_0000_0fff).unwrap();
        assert_eq!(down.linear(0xfff, 1), None);
        assert_eq!(down.linear(0x1000, 4), Some(0x1000));
        assert_eq!(down.linear(0xffff_fffd, 4), None);
        let short = SegmentDesc::parse(0x0000_f600_0000_0fff).unwrap();
        assert_eq!(short.linear(0xfffd, 4), None);
        assert_eq!(short.linear(0xfffc, 4), Some(0xfffc));
    }

    #[test]
    fn what_is_no_segment() {
        for raw in [
            0,
            0x00af_7a00_0000_ffff, // not present
            0x00af_ea00_0000_ffff, // a gate
            0x0000_8900_0000_0067, // a task state segment
            0x00ef_fa00_0000_ffff, // long and big
        ] {
            assert_eq!(SegmentDesc::parse(raw), None, "{raw:#x}");
        }
    }

    #[test]
    fn addresses_wrap_at_32_bits() {
        let high = SegmentDesc::parse(0xffcf_f2ff_f000_ffff).unwrap();
        assert_eq!(high.base, 0xffff_f000);
        assert_eq!(high.linear(0x2000, 1), Some(0x1000));
    }
}
