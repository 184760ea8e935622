// SPDX-License-Identifier: MIT OR Apache-2.0
//! One newtype for each kind of number that names a place: frames, addresses, domains, vCPUs.

use core::fmt;

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// First linear address of the hole that belongs to the hypervisor (L4 slot 256).
pub const HOLE_START: u64 = 0xffff_8000_0000_0000;
/// First linear address behind the hole (L4 slot 272).
pub const HOLE_END: u64 = 0xffff_8800_0000_0000;
/// Where a guest kernel sees the machine-to-physical table.
pub const M2P_VIRT_START: u64 = HOLE_START;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $name(pub $inner);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

number!(/// A machine frame number.
    Mfn(u64));
number!(/// A frame number in a guest's pseudo-physical address space.
    Pfn(u64));
number!(/// A machine (host physical) address, in bytes.
    Maddr(u64));
number!(/// A guest linear address: an allegation, valid only when an accessor says so.
    GuestVa(u64));
number!(/// A domain's number.
    DomId(u16));
number!(/// A vCPU's number within its domain.
    VcpuId(u32));

impl Mfn {
    /// No frame: all ones, as in M2P and P2M entries.
    pub const INVALID: Self = Self(u64::MAX);
    /// Returns the address of the frame's first byte.
    pub const fn maddr(self) -> Maddr {
        Maddr(self.0 << PAGE_SHIFT)
    }
    /// Returns the frame `n` frames further on.
    #[must_use]
    pub const fn add(self, n: u64) -> Self {
        Self(self.0 + n)
    }
}

impl Maddr {
    /// Returns the frame that holds this byte.
    pub const fn mfn(self) -> Mfn {
        Mfn(self.0 >> PAGE_SHIFT)
    }
    /// Returns the offset within the frame, in bytes.
    pub const fn offset(self) -> usize {
        (self.0 & (PAGE_SIZE as u64 - 1)) as usize
    }
}

impl GuestVa {
    /// True when the top 17 bits agree, as the CPU demands of a 48-bit linear address.
    pub const fn is_canonical(self) -> bool {
        ((self.0 << 16) as i64 >> 16) as u64 == self.0
    }
    /// True when an access to `len` bytes from here does not touch the hypervisor's part, in one comparison. One that goes past
    /// the end of the address space goes on at its start, which is a guest's like its end.
    #[inline(always)]
    pub const fn access_ok(self, len: u64) -> bool {
        // Counted from the end of the hole, guests' addresses are one range: the upper part, then the lower one.
        self.0.wrapping_sub(HOLE_END) <= (1u64 << 47).wrapping_sub(HOLE_END) - len
    }
    /// True when `len` bytes from here are canonical, do not wrap, and stay out of the hole.
    pub const fn range_ok(self, len: u64) -> bool {
        match self.0.checked_add(len) {
            None => false,
            Some(end) => end <= 1 << 47 || (self.0 >= HOLE_END),
        }
    }
}

impl DomId {
    /// The caller itself.
    pub const SELF: Self = Self(0x7ff0);
    /// Owner of memory-mapped I/O frames.
    pub const IO: Self = Self(0x7ff1);
    /// Owner of the hypervisor's own shareable frames.
    pub const XEN: Self = Self(0x7ff2);
    /// Owner of shared (copy-on-write) frames.
    pub const COW: Self = Self(0x7ff3);
    /// No domain.
    pub const INVALID: Self = Self(0x7ff4);
    /// The idle domain.
    pub const IDLE: Self = Self(0x7fff);
    /// The first number that no ordinary domain has.
    pub const FIRST_RESERVED: Self = Self(0x7ff0);
}
