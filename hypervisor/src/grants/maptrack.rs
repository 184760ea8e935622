// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handles: a domain's mappings of grants by number.
//!
//! The lock around all of it is held for a batch; a mapping of a PV domain holds the lock of its page tables anyway.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hypercalls::{Errno, Mfn, Result};
use mm::EntryRef;

use super::Pin;

/// Handles by which the table grows.
const CHUNK: u32 = 256;
/// No handle.
const NONE: u32 = u32::MAX;

/// What a handle stands for. Dropping it ends what is left of the mapping.
#[derive(Debug)]
pub struct Mapping {
    /// The frame.
    pub mfn: Mfn,
    /// The page-table entry was named by its machine address.
    pub by_entry: bool,
    /// The use behind the page-table entry, which holds the references itself.
    pub host: Option<Pin>,
    /// The use by devices, with its references.
    pub device: Option<(Pin, EntryRef)>,
}

impl Mapping {
    /// True when nothing is left of it.
    pub const fn is_over(&self) -> bool {
        self.host.is_none() && self.device.is_none()
    }
}

#[derive(Debug)]
enum Slot {
    /// Free; the next free one.
    Free(u32),
    Used(Mapping),
}

/// A domain's handles.
#[derive(Debug)]
pub struct Maptrack {
    /// The most that there may be.
    limit: u32,
    /// First of the free ones.
    free: u32,
    chunks: Vec<Box<[Slot]>>,
}

impl Maptrack {
    /// Makes a table that may grow to so many chunks.
    pub const fn new(max_chunks: u32) -> Self {
        Self { limit: max_chunks.saturating_mul(CHUNK), free: NONE, chunks: Vec::new() }
    }

    fn slot(&mut self, handle: u32) -> Option<&mut Slot> {
        self.chunks.get_mut((handle / CHUNK) as usize)?.get_mut((handle % CHUNK) as usize)
    }

    /// Returns a handle for the next mapping, which is not taken yet; `None` when there are too many or memory is.
    pub fn vacant(&mut self) -> Option<u32> {
        if self.free == NONE {
            self.grow()?;
        }
        Some(self.free)
    }

    fn grow(&mut self) -> Option<()> {
        let first = self.chunks.len() as u32 * CHUNK;
        if first >= self.limit {
            return None;
        }
        self.chunks.try_reserve(1).ok()?;
        let mut chunk = Vec::new();
        chunk.try_reserve_exact(CHUNK as usize).ok()?;
        chunk.extend((1..=CHUNK).map(|n| Slot::Free(if n == CHUNK { NONE } else { first + n })));
        self.chunks.push(chunk.into_boxed_slice());
        self.free = first;
        Some(())
    }

    /// Takes the handle that [`Maptrack::vacant`] returned last.
    pub fn put(&mut self, handle: u32, mapping: Mapping) {
        let free = self.free;
        if let Some(slot) = self.slot(handle)
            && let Slot::Free(next) = *slot
            && handle == free
        {
            *slot = Slot::Used(mapping);
            self.free = next;
        }
    }

    /// Finds a mapping.
    pub fn get(&mut self, handle: u32) -> Option<&mut Mapping> {
        match self.slot(handle)? {
            Slot::Used(mapping) => Some(mapping),
            Slot::Free(_) => None,
        }
    }

    /// Frees a handle and ends its mapping.
    pub fn remove(&mut self, handle: u32) {
        let free = self.free;
        if let Some(slot) = self.slot(handle).filter(|slot| matches!(slot, Slot::Used(_))) {
            *slot = Slot::Free(free);
            self.free = handle;
        }
    }

    /// Ends all mappings, for good.
    ///
    /// # Errors
    /// `ERESTART`: to be called again.
    pub(super) fn release(&mut self) -> Result<()> {
        (self.limit, self.free) = (0, NONE);
        while let Some(chunk) = self.chunks.pop() {
            drop(chunk);
            if !self.chunks.is_empty() && arch::cpu::preempt_pending() {
                return Err(Errno::ERESTART);
            }
        }
        Ok(())
    }

    /// Iterates over the mappings and their handles.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Mapping)> {
        (0..).zip(self.chunks.iter().flatten()).filter_map(|(handle, slot)| match slot {
            Slot::Used(mapping) => Some((handle, mapping)),
            Slot::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(n: u64) -> Mapping {
        Mapping { mfn: Mfn(n), by_entry: false, host: None, device: None }
    }

    #[test]
    fn handles_are_given_out_once_and_used_again() {
        let mut track = Maptrack::new(2);
        for n in 0..512 {
            let handle = track.vacant().expect("room");
            assert_eq!(handle, track.vacant().expect("the same until it is taken"));
            track.put(handle, mapping(n));
            assert_eq!(track.get(handle).map(|m| m.mfn), Some(Mfn(n)));
        }
        assert_eq!(track.iter().count(), 512);
        assert_eq!(track.vacant(), None);
        for handle in [7, 300] {
            track.remove(handle);
            track.remove(handle);
            assert!(track.get(handle).is_none());
        }
        let again = [track.vacant(), track.vacant()];
        assert_eq!(again, [Some(300); 2]);
        track.put(300, mapping(1));
        assert_eq!(track.vacant(), Some(7));
        track.put(7, mapping(2));
        assert_eq!(track.vacant(), None);
    }

    #[test]
    fn numbers_out_of_range_are_nobodys() {
        let mut track = Maptrack::new(1);
        for handle in [0, 255, 256, u32::MAX] {
            assert!(track.get(handle).is_none());
            track.remove(handle);
        }
        assert_eq!(Maptrack::new(0).vacant(), None);
        assert_eq!(Maptrack::new(u32::MAX).vacant(), Some(0));
    }

    #[test]
    fn a_dying_domain_gets_no_more() {
        let mut track = Maptrack::new(4);
        for n in 0..600 {
            let handle = track.vacant().expect("room");
            track.put(handle, mapping(n));
        }
        assert_eq!(track.release(), Ok(()));
        assert_eq!((track.vacant(), track.iter().count()), (None, 0));
    }
}
