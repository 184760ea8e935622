// SPDX-License-Identifier: MIT OR Apache-2.0
//! The union behind the header of `platform_op`, `sysctl` and `domctl`, 128 bytes, and of `mca`, 144 bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A union of argument structures: bytes that are read as one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Payload<const WORDS: usize = 16>(pub [u64; WORDS]);

impl<const WORDS: usize> Default for Payload<WORDS> {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl<const WORDS: usize> Payload<WORDS> {
    /// Reads the union as a `T`.
    pub fn get<T: FromBytes + IntoBytes>(&self) -> T {
        const { assert!(size_of::<T>() <= size_of::<Self>()) };
        let mut value = T::new_zeroed();
        for (to, from) in value.as_mut_bytes().iter_mut().zip(self.as_bytes()) {
            *to = *from;
        }
        value
    }

    /// Writes a `T` over the union's beginning; what lies behind stays.
    pub fn put<T: IntoBytes + Immutable>(&mut self, value: &T) {
        const { assert!(size_of::<T>() <= size_of::<Self>()) };
        for (to, from) in self.as_mut_bytes().iter_mut().zip(value.as_bytes()) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_got_and_the_rest_stays() {
        let mut payload = Payload([7; 16]);
        payload.put(&0x1122_3344_u32);
        assert_eq!(payload.get::<u32>(), 0x1122_3344);
        assert_eq!(payload.get::<[u64; 2]>(), [0x1122_3344, 7]);
    }
}
