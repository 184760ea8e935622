// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a function's configuration space says of its interrupt messages: pure logic over [`Space`].
//!
//! Devices are believed as little as guests: chains of capabilities may be circles, and offsets may lie anywhere.

use crate::emulate::Width;

/// Configuration space that can be read.
pub trait Space {
    /// Reads at an offset.
    fn read(&self, at: u16, width: Width) -> u32;

    /// Reads 2 bytes.
    fn word(&self, at: u16) -> u16 {
        self.read(at, Width::Word) as u16
    }
    /// Reads 4 bytes.
    fn dword(&self, at: u16) -> u32 {
        self.read(at, Width::Dword)
    }
}

/// Command register: the function answers to memory accesses; it is kept from asserting its line.
pub const COMMAND: u16 = 0x04;
/// Memory accesses are decoded.
pub const COMMAND_MEMORY: u16 = 1 << 1;
const STATUS: u16 = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const HEADER: u16 = 0x0e;
/// First base-address register.
pub const BARS: u16 = 0x10;
/// Offset behind the last one.
pub const BARS_END: u16 = 0x28;
const FIRST: u16 = 0x34;
const FIRST_CARDBUS: u16 = 0x14;
const LOWEST: u16 = 0x40;
/// More than fit between [`LOWEST`] and the end, 4 bytes each, is a circle.
const MOST: usize = 48;

const ID_MSI: u8 = 5;
const ID_MSIX: u8 = 0x11;

/// Offset of the control word in both capabilities.
pub const CONTROL: u16 = 2;
/// MSI control: messages are sent.
pub const MSI_ENABLE: u16 = 1;
/// MSI control: logarithm of how many messages may be sent.
pub const MSI_COUNT: u16 = 7 << 4;
const MSI_64: u16 = 1 << 7;
const MSI_MASKABLE: u16 = 1 << 8;
/// MSI-X control: messages are sent.
pub const MSIX_ENABLE: u16 = 1 << 15;
/// MSI-X control: all messages are held back.
pub const MSIX_MASK_ALL: u16 = 1 << 14;

/// Finds a capability; `None` when there is none.
fn find(space: &impl Space, id: u8) -> Option<u16> {
    if space.word(STATUS) == 0xffff || space.word(STATUS) & STATUS_CAPABILITIES == 0 {
        return None;
    }
    let first = if header(space) == 2 { FIRST_CARDBUS } else { FIRST };
    let mut at = (space.read(first, Width::Byte) & 0xfc) as u16;
    for _ in 0..MOST {
        if at < LOWEST {
            return None;
        }
        let word = space.word(at);
        if word as u8 == id {
            return Some(at);
        }
        at = word >> 8 & 0xfc;
    }
    None
}

fn header(space: &impl Space) -> u32 {
    space.read(HEADER, Width::Byte) & 0x7f
}

/// The MSI capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// Where it is.
    pub at: u16,
    /// Addresses have 64 bits.
    pub is_64: bool,
    /// Each message can be masked.
    pub maskable: bool,
    /// How many messages there may be: a power of two, at most 32.
    pub most: u8,
}

impl Msi {
    /// Reads it; `None` when the function has none, or one that does not fit.
    pub fn read(space: &impl Space) -> Option<Self> {
        let at = find(space, ID_MSI)?;
        let control = space.word(at + CONTROL);
        let most = 1u8 << (control >> 1 & 7).min(5);
        let found = Self { at, is_64: control & MSI_64 != 0, maskable: control & MSI_MASKABLE != 0, most };
        (found.end() <= 0x100).then_some(found)
    }

    /// Offset of the data word.
    pub const fn data(&self) -> u16 {
        self.at + if self.is_64 { 12 } else { 8 }
    }

    /// Offset of the mask bits, if there are any.
    pub const fn mask(&self) -> u16 {
        self.data() + 4
    }

    /// Offset behind the capability.
    pub const fn end(&self) -> u16 {
        self.data() + if self.maskable { 12 } else { 4 }
    }
}

/// The MSI-X capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msix {
    /// Where it is.
    pub at: u16,
    /// Entries of its table.
    pub entries: u16,
    /// Base-address register and offset of the table.
    pub table: (u8, u32),
    /// Those of the bits that say what is pending.
    pub pending: (u8, u32),
}

impl Msix {
    /// Bytes of an entry.
    pub const ENTRY: u64 = 16;

    /// Reads it; `None` when the function has none, or one that does not fit.
    pub fn read(space: &impl Space) -> Option<Self> {
        let at = find(space, ID_MSIX).filter(|at| *at <= 0x100 - 12)?;
        let entries = (space.word(at + CONTROL) & 0x7ff) + 1;
        let split = |word: u32| ((word & 7) as u8, word & !7);
        Some(Self { at, entries, table: split(space.dword(at + 4)), pending: split(space.dword(at + 8)) })
    }

    /// Bytes of the table.
    pub const fn table_bytes(&self) -> u64 {
        self.entries as u64 * Self::ENTRY
    }

    /// Bytes of the pending bits.
    pub const fn pending_bytes(&self) -> u64 {
        (self.entries as u64).div_ceil(64) * 8
    }
}

/// Returns the machine address in a base-address register of memory; `None` for a port, an empty one or one that is none.
pub fn bar(space: &impl Space, index: u8) -> Option<u64> {
    let count = match header(space) {
        0 => 6,
        1 => 2,
        2 => 1,
        _ => 0,
    };
    let at = |n: u8| BARS + u16::from(n) * 4;
    if index >= count {
        return None;
    }
    let low = space.dword(at(index));
    if low & 1 != 0 {
        return None;
    }
    let is_64 = low >> 1 & 3 == 2;
    let high = match index + 1 {
        _ if !is_64 => 0,
        next if next < count => space.dword(at(next)),
        _ => return None,
    };
    let address = u64::from(high) << 32 | u64::from(low & !0xf);
    (address != 0).then_some(address)
}

/// Composes a message: what a device writes, and where, so that a vector arrives at one CPU (SDM volume 3, 11.11).
pub const fn message(apic_id: u8, vector: u8) -> (u64, u32) {
    (0xfee0_0000 | (apic_id as u64) << 12, vector as u32)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A configuration space of 64 words.
    pub(in crate::pci) struct Words(pub(in crate::pci) [u32; 64]);

    impl Space for Words {
        fn read(&self, at: u16, width: Width) -> u32 {
            assert!(at < 0x100 && u32::from(at) % 4 + width.bytes() <= 4, "an access that is not one: {at:#x}");
            (u64::from(self.0[usize::from(at / 4)]) >> (at % 4 * 8) & width.mask()) as u32
        }
    }

    fn with_capability(at: usize, words: &[u32]) -> Words {
        let mut space = Words([0; 64]);
        space.0[1] = 0x0010_0000;
        space.0[0x34 / 4] = at as u32;
        space.0[at / 4..at / 4 + words.len()].copy_from_slice(words);
        space
    }

    #[test]
    fn messages_of_both_kinds() {
        let msi = Msi::read(&with_capability(0x50, &[0x018a_0005])).expect("there");
        assert_eq!(msi, Msi { at: 0x50, is_64: true, maskable: true, most: 32 });
        assert_eq!((msi.data(), msi.mask(), msi.end()), (0x5c, 0x60, 0x68));
        let msi = Msi::read(&with_capability(0x50, &[0x0000_0005])).expect("there");
        assert_eq!((msi.is_64, msi.maskable, msi.most, msi.data()), (false, false, 1, 0x58));
        let space = with_capability(0x60, &[0x0004_7005, 0, 0, 0, 0x8020_0011, 0x2003, 0x3000]);
        assert_eq!(Msix::read(&space).map(|m| m.at), Some(0x70));
        let msix = Msix::read(&space).expect("there");
        assert_eq!((msix.entries, msix.table, msix.pending), (0x21, (3, 0x2000), (0, 0x3000)));
        assert_eq!((msix.table_bytes(), msix.pending_bytes()), (0x210, 8));
        assert_eq!(message(3, 0x41), (0xfee0_3000, 0x41));
    }

    #[test]
    fn chains_that_lie() {
        assert_eq!(Msi::read(&with_capability(0x40, &[0x4001])), None, "a circle");
        assert_eq!(Msi::read(&with_capability(0xfc, &[0x5])), None, "cut off by the end");
        assert_eq!(Msix::read(&with_capability(0xf8, &[0x11])), None, "cut off by the end");
        assert_eq!(Msi::read(&with_capability(0x10, &[0x5])), None, "in the header");
        let mut space = with_capability(0x40, &[0x5]);
        space.0[1] = 0;
        assert_eq!(Msi::read(&space), None, "no chain");
        assert_eq!(Msi::read(&Words([u32::MAX; 64])), None, "nobody there");
        // Random spaces: every read stays inside, which `Words` checks.
        let mut state = 0x1234_5678_9abc_def1u64;
        for _ in 0..20_000 {
            let words = core::array::from_fn(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 32) as u32
            });
            let mut space = Words(words);
            space.0[1] |= 0x0010_0000;
            for slot in space.0.iter_mut().skip(16).step_by(3) {
                *slot = *slot & !0xff | if *slot & 0x100 == 0 { 5 } else { 0x11 };
            }
            if let Some(msi) = Msi::read(&space) {
                assert!(msi.end() <= 0x100 && msi.most <= 32);
            }
            let _ = Msix::read(&space);
            (0..8).for_each(|n| {
                let _ = bar(&space, n);
            });
        }
    }

    #[test]
    fn base_addresses() {
        let mut space = Words([0; 64]);
        space.0[4..10].copy_from_slice(&[0xfeb0_0000, 0xc001, 0xe000_000c, 0x12, 0, 0x4]);
        let found: [_; 7] = core::array::from_fn(|n| bar(&space, n as u8));
        let expected = [Some(0xfeb0_0000), None, Some(0x12_e000_0000), Some(0x10), None, None, None];
        assert_eq!(found, expected);
        space.0[3] = 0x0001_0000;
        assert_eq!(bar(&space, 2), None, "a bridge has two");
    }
}
