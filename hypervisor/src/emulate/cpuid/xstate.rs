// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leaf 0xd: the layout of the saved state, computed for the components that a guest may enable.

use super::features::XsaveEax;
use super::{A, B, C, D, EMPTY, Leaf};

pub(super) const FP_SSE: u64 = 3;
pub(super) const AVX: u64 = 1 << 2;
pub(super) const AVX512: u64 = 7 << 5;

/// Legacy area and header.
const FIXED: u32 = 512 + 64;
/// Number of components looked at.
const COMPONENTS: usize = 8;
/// Size of the component, offset in the standard format, flags.
type Component = Leaf;
/// The compacted format aligns this component to 64 bytes.
const ALIGNED: u32 = 2;

/// The layout.
#[derive(Clone, Debug, Default)]
pub(super) struct Xstate {
    mask: u64,
    instructions: u32,
    component: [Component; COMPONENTS],
}

/// The XCR0 bits that the host has.
pub(super) fn host_mask(host: &impl Fn(u32, u32) -> Leaf) -> u64 {
    if host(0, 0)[A] < 0xd {
        return 0;
    }
    let leaf = host(0xd, 0);
    u64::from(leaf[A]) | u64::from(leaf[D]) << 32
}

impl Xstate {
    pub(super) fn new(host: &impl Fn(u32, u32) -> Leaf, avx: bool, avx512: bool) -> Self {
        let mask = FP_SSE | if avx { AVX } else { 0 } | if avx512 { AVX512 } else { 0 };
        let instructions = XsaveEax::shown(host(0xd, 1)[A]).bits();
        let mut component = [EMPTY; COMPONENTS];
        for (n, slot) in component.iter_mut().enumerate().skip(2) {
            if mask >> n & 1 != 0 {
                let leaf = host(0xd, n as u32);
                *slot = [leaf[A], leaf[B], leaf[C] & ALIGNED, 0];
            }
        }
        Self { mask, instructions, component }
    }

    pub(super) const fn mask(&self) -> u64 {
        self.mask
    }

    /// Size of what XSAVE writes with these components enabled.
    fn standard(&self, xcr0: u64) -> u32 {
        self.enabled(xcr0).map(|c| c[A].saturating_add(c[B])).fold(FIXED, u32::max)
    }

    /// Size of what XSAVEC writes with these components enabled.
    fn compacted(&self, xcr0: u64) -> u32 {
        self.enabled(xcr0).fold(FIXED, |end, c| {
            let start = if c[C] & ALIGNED != 0 { end.next_multiple_of(64) } else { end };
            start.saturating_add(c[A])
        })
    }

    fn enabled(&self, xcr0: u64) -> impl Iterator<Item = &Component> {
        let wanted = xcr0 & self.mask;
        self.component.iter().enumerate().skip(2).filter(move |(n, _)| wanted >> n & 1 != 0).map(|(_, c)| c)
    }

    pub(super) fn leaf(&self, subleaf: u32, xcr0: u64) -> Leaf {
        if self.mask == 0 {
            return EMPTY;
        }
        match subleaf {
            0 => [self.mask as u32, self.standard(xcr0), self.standard(self.mask), (self.mask >> 32) as u32],
            1 => {
                let compacts = self.instructions & XsaveEax::XSAVEC.bits() != 0;
                [self.instructions, if compacts { self.compacted(xcr0) } else { 0 }, 0, 0]
            }
            n => self.component.get(n as usize).copied().unwrap_or(EMPTY),
        }
    }
}
