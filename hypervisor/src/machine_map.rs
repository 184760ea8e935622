// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's memory map as the hardware domain sees it.
//!
//! It is the firmware's, plus a reserved entry wherever the map has a hole that the domain may not use for
//! devices: its kernel would otherwise place device memory there, or take the interrupt controllers for free space.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use hypercalls::addr::PAGE_SHIFT;
use hypercalls::memory::{E820Entry, E820Type};
use hypercalls::{Errno, Result};

use crate::io_rights::FrameSet;

/// The firmware's map; set once, at boot.
pub static MACHINE_MAP: spin::Once<Vec<E820Entry>> = spin::Once::new();

/// Returns the map for a domain that may use the frames of `allowed` for devices.
///
/// # Errors
/// `ENOMEM`.
pub fn for_domain(machine: &[E820Entry], allowed: &FrameSet) -> Result<Vec<E820Entry>> {
    let mut map = Vec::new();
    map.try_reserve(machine.len()).map_err(|_| Errno::ENOMEM)?;
    map.extend_from_slice(machine);
    map.sort_unstable_by_key(|entry| entry.addr);
    let mut reserved = Vec::new();
    let mut hole = 0;
    for entry in &map {
        let (addr, size) = (entry.addr, entry.size);
        let first = addr >> PAGE_SHIFT;
        if first > hole {
            reserve(&mut reserved, hole..=first - 1, allowed)?;
        }
        let end = addr.saturating_add(size).div_ceil(1 << PAGE_SHIFT);
        hole = hole.max(end);
    }
    reserve(&mut reserved, hole..=u64::MAX, allowed)?;
    map.try_reserve(reserved.len()).map_err(|_| Errno::ENOMEM)?;
    map.append(&mut reserved);
    map.sort_unstable_by_key(|entry| entry.addr);
    Ok(map)
}

/// Adds what of a hole is not allowed, up to the last frame that is: behind it nothing can be addressed.
fn reserve(to: &mut Vec<E820Entry>, hole: RangeInclusive<u64>, allowed: &FrameSet) -> Result<()> {
    let mut next = *hole.start();
    for range in allowed.iter() {
        let end = (*range.start()).min(hole.end().saturating_add(1));
        if end > next {
            to.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            to.push(E820Entry { addr: next << PAGE_SHIFT, size: (end - next) << PAGE_SHIFT, kind: E820Type::RESERVED });
        }
        next = next.max(range.end().saturating_add(1));
        if next > *hole.end() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(addr: u64, size: u64, kind: E820Type) -> E820Entry {
        E820Entry { addr, size, kind }
    }

    fn allowed(ranges: &[RangeInclusive<u64>]) -> FrameSet {
        let mut set = FrameSet::new();
        ranges.iter().for_each(|r| set.insert(r.clone()).expect("memory"));
        set
    }

    #[test]
    fn holes_that_are_denied_become_reserved() {
        let machine = [
            entry(0, 0x9fc00, E820Type::RAM),
            entry(0xf0000, 0x10000, E820Type::RESERVED),
            entry(0x10_0000, 0x7ff0_0000, E820Type::RAM),
            entry(0x1_0000_0000, 0x8000_0000, E820Type::RAM),
        ];
        let set = allowed(&[0..=0xfebff, 0xfec01..=0xfedff, 0xfef00..=0xfff_ffff]);
        let map = for_domain(&machine, &set).expect("memory");
        let expected = [
            machine[0],
            machine[1],
            machine[2],
            entry(0xfec0_0000, 0x1000, E820Type::RESERVED),
            entry(0xfee0_0000, 0x10_0000, E820Type::RESERVED),
            machine[3],
        ];
        assert_eq!(map, expected);
    }

    #[test]
    fn entries_that_cover_what_is_denied_stay() {
        let machine = [entry(0xfec0_0000, 0x100_0000, E820Type::RESERVED), entry(0, 0x1000, E820Type::RAM)];
        let set = allowed(&[0..=0xfebff, 0xff000..=0xfff_ffff]);
        let map = for_domain(&machine, &set).expect("memory");
        assert_eq!(map, [machine[1], machine[0]]);
    }

    #[test]
    fn odd_maps() {
        let set = allowed(&[2..=3]);
        assert_eq!(for_domain(&[], &set), Ok(alloc::vec![entry(0, 0x2000, E820Type::RESERVED)]));
        let all = [entry(0, u64::MAX, E820Type::RAM), entry(0x5000, 0x1000, E820Type::RESERVED)];
        assert_eq!(for_domain(&all, &set), Ok(all.to_vec()));
        // Not whole pages: the rest of a page is no hole.
        let parts = [entry(0x800, 0x1000, E820Type::RAM)];
        assert_eq!(for_domain(&parts, &allowed(&[5..=9])).map(|m| m.len()), Ok(2));
        assert_eq!(for_domain(&parts, &FrameSet::new()), Ok(parts.to_vec()));
    }
}
