// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's pointer to an array of `T`: a number with a type, which nothing here follows. What must
//! always hold: an address computed from it never wraps.

use core::fmt;
use core::marker::PhantomData;

use crate::GuestVa;

/// A guest linear address of an array of `T` (a `XEN_GUEST_HANDLE`); `void` is `u8`.
#[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
#[repr(transparent)]
pub struct GuestPtr<T>(pub u64, PhantomData<T>);

impl<T> GuestPtr<T> {
    /// The null pointer.
    pub const NULL: Self = Self::new(0);

    /// Returns a pointer to the given linear address.
    pub const fn new(va: u64) -> Self {
        Self(va, PhantomData)
    }

    /// True for the null pointer, by which a caller asks for a size or takes something back.
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// Returns the address of element `index`, or None when it lies past the address space.
    pub const fn va(self, index: u64) -> Option<GuestVa> {
        let Some(bytes) = index.checked_mul(size_of::<T>() as u64) else {
            return None;
        };
        match self.0.checked_add(bytes) {
            Some(va) => Some(GuestVa(va)),
            None => None,
        }
    }

    /// Returns the address of the first element.
    pub const fn first(self) -> GuestVa {
        GuestVa(self.0)
    }

    /// Returns the pointer `count` elements further on, or None when that wraps.
    pub const fn add(self, count: u64) -> Option<Self> {
        match self.va(count) {
            Some(va) => Some(Self::new(va.0)),
            None => None,
        }
    }

    /// True when `count` elements from here neither wrap nor touch the hypervisor's hole.
    pub const fn range_ok(self, count: u64) -> bool {
        match count.checked_mul(size_of::<T>() as u64) {
            Some(bytes) => GuestVa(self.0).range_ok(bytes),
            None => false,
        }
    }

    /// Returns the same address as a pointer to another type.
    pub const fn cast<U>(self) -> GuestPtr<U> {
        GuestPtr::new(self.0)
    }
}

impl<T> Clone for GuestPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for GuestPtr<T> {}
impl<T> PartialEq for GuestPtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for GuestPtr<T> {}
impl<T> Default for GuestPtr<T> {
    fn default() -> Self {
        Self::NULL
    }
}
impl<T> From<GuestVa> for GuestPtr<T> {
    fn from(va: GuestVa) -> Self {
        Self::new(va.0)
    }
}
impl<T> fmt::Debug for GuestPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestPtr({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexing_never_wraps() {
        let p = GuestPtr::<u64>::new(0x1000);
        assert_eq!(p.va(2), Some(GuestVa(0x1010)));
        assert_eq!(p.va(u64::MAX), None);
        assert_eq!(p.va(u64::MAX / 8), None);
        assert_eq!(p.add(1), Some(GuestPtr::new(0x1008)));
        assert!(GuestPtr::<u8>::NULL.is_null());
    }

    #[test]
    fn ranges_stay_out_of_the_hole() {
        assert!(GuestPtr::<u64>::new(0x7fff_ffff_fff8).range_ok(1));
        assert!(!GuestPtr::<u64>::new(0x7fff_ffff_fff8).range_ok(2));
        assert!(!GuestPtr::<u64>::new(crate::addr::HOLE_START).range_ok(1));
        assert!(GuestPtr::<u64>::new(crate::addr::HOLE_END).range_ok(1));
        assert!(!GuestPtr::<u64>::new(u64::MAX - 7).range_ok(1 << 61));
    }
}
