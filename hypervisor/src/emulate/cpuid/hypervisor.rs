// SPDX-License-Identifier: MIT OR Apache-2.0
//! The leaves by which a guest finds the hypervisor.

use super::features::ExtEdx;
use super::{EMPTY, Leaf, Policy};

const BASE: u32 = 0x4000_0000;
/// The highest of our leaves.
const LAST: u32 = BASE + 5;
/// The leaf that tells of the time-stamp counter.
pub const TIME_LEAF: u32 = BASE + 3;
/// Version 4.17.
const VERSION: u32 = 4 << 16 | 17;
/// `MMU_PT_UPDATE_PRESERVE_AD` is there.
const FEATURES: u32 = 1;

/// What a guest is told of its time stamp counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TscInfo {
    /// Reading it traps.
    pub emulated: bool,
    /// The host's is the same on all CPUs and never stops.
    pub safe: bool,
    /// The mode that the tool stack asked for.
    pub mode: u32,
    /// The guest's rate.
    pub khz: u32,
    /// How often the guest was moved.
    pub incarnation: u32,
    /// What is to be added to the host's counter.
    pub offset: u64,
    /// Scale to nanoseconds: fraction.
    pub mul: u32,
    /// Scale to nanoseconds: shift.
    pub shift: i8,
    /// The host's rate.
    pub host_khz: u32,
}

impl Policy {
    /// Returns the leaf [`TIME_LEAF`] of a domain that sees the counter so.
    pub fn time_leaf(&self, tsc: &TscInfo, subleaf: u32) -> Leaf {
        tsc.leaf(subleaf, self.ext_edx().contains(ExtEdx::RDTSCP))
    }

    pub(super) fn hypervisor_leaf(&self, leaf: u32, subleaf: u32) -> Leaf {
        match (leaf - BASE, subleaf) {
            (0, _) => {
                let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
                [LAST, word(b"XenV"), word(b"MMXe"), word(b"nVMM")]
            }
            (1, _) => [VERSION, 0, 0, 0],
            // One hypercall page, and the register that asks for it.
            (2, _) => [1, BASE, FEATURES, 0],
            (5, 0) => [0, u32::from(self.maddr_width), 0, 0],
            _ => EMPTY,
        }
    }
}

impl TscInfo {
    /// A guest that reads the host's own counter, which runs at this rate; `safe` as in [`TscInfo::safe`].
    pub fn native(scale: &arch::time::TscScale, safe: bool) -> Self {
        Self { safe, khz: scale.khz, host_khz: scale.khz, mul: scale.mul, shift: scale.shift, ..Self::default() }
    }

    fn leaf(&self, subleaf: u32, rdtscp: bool) -> Leaf {
        match subleaf {
            0 => {
                let flags = u32::from(self.emulated) | u32::from(self.safe) << 1 | u32::from(rdtscp) << 2;
                [flags, self.mode, self.khz, self.incarnation]
            }
            1 => {
                // With emulation the offset is in the value read.
                let offset = if self.emulated { 0 } else { self.offset };
                [offset as u32, (offset >> 32) as u32, self.mul, i32::from(self.shift) as u32]
            }
            2 => [self.host_khz, 0, 0, 0],
            _ => EMPTY,
        }
    }
}
