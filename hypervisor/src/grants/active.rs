// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record of how a grant entry is used.

use core::ops::Range;

use hypercalls::grant::GrantStatus;
use hypercalls::{DomId, PAGE_SIZE};
use mm::PageRef;

/// Most uses of one kind.
const MOST: u8 = 128;

/// How an entry is used: as what, and with which right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// It is mapped for CPUs, or copied.
    pub host: bool,
    /// It is mapped for devices.
    pub device: bool,
    /// It may be written.
    pub writable: bool,
}

impl Use {
    /// A use by CPUs.
    pub const fn host(writable: bool) -> Self {
        Self { host: true, device: false, writable }
    }
    /// A use by devices.
    pub const fn device(writable: bool) -> Self {
        Self { host: false, device: true, writable }
    }
}

/// How many uses there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// Writable uses by CPUs and by devices.
    writable: [u8; 2],
    /// Read-only ones.
    readable: [u8; 2],
}

impl Pins {
    const fn kind(&mut self, writable: bool) -> &mut [u8; 2] {
        if writable { &mut self.writable } else { &mut self.readable }
    }
    /// Counts a use; false, and nothing is changed, when there are too many.
    #[must_use]
    pub fn add(&mut self, how: Use) -> bool {
        let [host, device] = self.kind(how.writable);
        let fits = !(how.host && *host >= MOST || how.device && *device >= MOST);
        if fits {
            *host += u8::from(how.host);
            *device += u8::from(how.device);
        }
        fits
    }
    /// Ends a use.
    pub fn remove(&mut self, how: Use) {
        let [host, device] = self.kind(how.writable);
        *host -= u8::from(how.host);
        *device -= u8::from(how.device);
    }
    /// True without any use.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
    /// True when one of them may write.
    pub fn is_writable(&self) -> bool {
        self.writable != [0; 2]
    }
}

/// A record. All but the pins says nothing while there are none.
#[derive(Debug)]
pub struct Active {
    /// The frame, which stays its owner's. Gone when the granting domain is.
    pub page: Option<PageRef>,
    /// How it is used.
    pub pins: Pins,
    /// By whom.
    pub user: DomId,
    /// The grant of another domain that it passes on, [`DomId::INVALID`] if it does not.
    pub through: (DomId, u32),
    start: u16,
    end: u16,
}

impl Active {
    /// A record without uses.
    pub(super) const UNUSED: Self = Self {
        page: None,
        pins: Pins { writable: [0; 2], readable: [0; 2] },
        user: DomId::INVALID,
        through: NOT_THROUGH,
        start: 0,
        end: 0,
    };

    /// Returns which bytes of the frame are granted.
    pub fn part(&self) -> Range<u16> {
        self.start..self.end
    }
    /// True when all of the frame is granted, by its owner himself: the only kind that can be mapped.
    pub fn is_whole(&self) -> bool {
        self.part() == WHOLE && self.through.0 == DomId::INVALID
    }
    /// Notes the first use.
    pub(super) fn begin(&mut self, user: DomId, page: PageRef, part: Range<u16>, through: (DomId, u32)) {
        *self = Self { page: Some(page), pins: self.pins, user, through, start: part.start, end: part.end };
    }
    /// Checks that `user` may use an entry that is in use already.
    pub(super) fn check_user(&self, user: DomId) -> Result<(), GrantStatus> {
        if self.user == user { Ok(()) } else { Err(GrantStatus::GENERAL_ERROR) }
    }
}

/// Passed on from nobody.
pub(super) const NOT_THROUGH: (DomId, u32) = (DomId::INVALID, 0);
/// A frame from end to end.
pub(super) const WHOLE: Range<u16> = 0..PAGE_SIZE as u16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_counted_by_kind_and_do_not_wrap() {
        let mut pins = Pins::default();
        let both = Use { host: true, device: true, writable: true };
        assert!(pins.is_empty() && pins.add(Use::host(false)));
        assert!(!pins.is_empty() && !pins.is_writable());
        for _ in 0..MOST {
            assert!(pins.add(Use::device(true)));
        }
        let full = pins;
        assert!(!pins.add(both) && pins == full, "all or nothing");
        assert!(pins.add(Use::host(true)) && pins.is_writable());
        pins.remove(Use::host(true));
        (0..MOST).for_each(|_| pins.remove(Use::device(true)));
        pins.remove(Use::host(false));
        assert!(pins.is_empty());
    }
}
