// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rights of a domain with respect to devices: which machine frames that are not RAM it may map, and which ports it
//! may use.
//!
//! What must hold: a frame beyond the processor's physical addresses is nobody's. Whether a frame is RAM is `mm`'s to know,
//! which asks here only about those that are not.

use alloc::vec::Vec;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use hypercalls::addr::PAGE_SHIFT;
use hypercalls::{Errno, Mfn, Result};
use mm::{IoAccess, IoPolicy, RwLock};

use crate::emulate::io::PortSet;
use crate::pci::guard;
use crate::rank;

/// A set of frame numbers, as ranges in ascending order that neither overlap nor touch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FrameSet(Vec<(u64, u64)>);

impl FrameSet {
    /// No frame.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// True when the frame is in the set.
    pub fn contains(&self, mfn: Mfn) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= mfn.0);
        let range = after.checked_sub(1).and_then(|n| self.0.get(n));
        range.is_some_and(|&(_, last)| mfn.0 <= last)
    }

    /// True when all these frames are in the set.
    pub fn contains_all(&self, frames: RangeInclusive<u64>) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= *frames.start());
        let range = after.checked_sub(1).and_then(|n| self.0.get(n));
        range.is_some_and(|&(_, last)| *frames.end() <= last)
    }

    /// True when it holds none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = RangeInclusive<u64>> {
        self.0.iter().map(|&(first, last)| first..=last)
    }

    /// Adds frames.
    ///
    /// # Errors
    /// `ENOMEM`: the set is as it was.
    pub fn insert(&mut self, frames: RangeInclusive<u64>) -> Result<()> {
        if frames.is_empty() {
            return Ok(());
        }
        let (mut first, mut last) = frames.into_inner();
        // All ranges that overlap or touch the new one become part of it.
        let from = self.0.partition_point(|&(_, end)| end < first.saturating_sub(1));
        let to = self.0.partition_point(|&(start, _)| start <= last.saturating_add(1)).max(from);
        for &(start, end) in self.0.get(from..to).unwrap_or_default() {
            (first, last) = (first.min(start), last.max(end));
        }
        self.replace(from..to, &[(first, last)])
    }

    /// Removes frames.
    ///
    /// # Errors
    /// `ENOMEM`: the set is as it was.
    pub fn remove(&mut self, frames: RangeInclusive<u64>) -> Result<()> {
        if frames.is_empty() {
            return Ok(());
        }
        let (first, last) = frames.into_inner();
        let from = self.0.partition_point(|&(_, end)| end < first);
        let to = self.0.partition_point(|&(start, _)| start <= last).max(from);
        let cut = self.0.get(from..to).unwrap_or_default();
        let below = cut.first().filter(|r| r.0 < first).map(|r| (r.0, first - 1));
        let above = cut.last().filter(|r| r.1 > last).map(|r| (last + 1, r.1));
        match (below, above) {
            (Some(below), Some(above)) => self.replace(from..to, &[below, above]),
            (Some(rest), None) | (None, Some(rest)) => self.replace(from..to, &[rest]),
            (None, None) => self.replace(from..to, &[]),
        }
    }

    fn replace(&mut self, old: core::ops::Range<usize>, new: &[(u64, u64)]) -> Result<()> {
        self.0.try_reserve(new.len()).map_err(|_| Errno::ENOMEM)?;
        self.0.splice(old, new.iter().copied());
        Ok(())
    }
}

/// What a domain may do with devices. Tools may change it; what is mapped stays mapped.
#[derive(Debug)]
pub struct IoRights {
    sets: RwLock<Sets>,
    /// It may map some frame.
    any_memory: AtomicBool,
}

#[derive(Debug)]
struct Sets {
    memory: FrameSet,
    /// Of these frames it gets read-only mappings.
    read_only: FrameSet,
    ports: PortSet,
}

impl IoRights {
    fn new(sets: Sets) -> Self {
        let any_memory = AtomicBool::new(!sets.memory.is_empty());
        Self { sets: RwLock::new(rank::IO_RIGHTS, sets), any_memory }
    }

    /// The rights of a domain without devices.
    pub fn none() -> Self {
        Self::new(Sets { memory: FrameSet::new(), read_only: FrameSet::new(), ports: PortSet::new() })
    }

    /// The rights of the hardware domain: every frame that the processor can address but the `denied` ones, among them
    /// those `read_only` that it may only look at, and the ports given.
    ///
    /// `denied` names the interrupt controllers, the range of message-signalled interrupts, timers that the hypervisor uses
    /// itself, and what the firmware calls unusable; see [`message_range`]. The first MiB stays its own.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn dom0(denied: &[RangeInclusive<u64>], read_only: &[RangeInclusive<u64>], ports: PortSet) -> Result<Self> {
        let mut sets = Sets { memory: FrameSet::new(), read_only: FrameSet::new(), ports };
        sets.memory.insert(0..=last_frame())?;
        for range in denied {
            sets.memory.remove(range.clone())?;
        }
        for range in read_only {
            sets.read_only.insert(range.clone())?;
        }
        Ok(Self::new(sets))
    }

    /// True when it may map any frame that is not RAM: its L1 entries may then have cache bits.
    pub fn any_memory(&self) -> bool {
        self.any_memory.load(Relaxed)
    }

    /// Calls `f` with the frames that it may map when they are not RAM.
    pub fn with_memory<R>(&self, f: impl FnOnce(&FrameSet) -> R) -> R {
        f(&self.sets.read().memory)
    }

    /// Calls `f` with the ports that it may use.
    pub fn with_ports<R>(&self, f: impl FnOnce(&PortSet) -> R) -> R {
        f(&self.sets.read().ports)
    }

    /// True when it may map all these frames as far as they are not RAM.
    pub fn may_map(&self, frames: RangeInclusive<u64>) -> bool {
        self.with_memory(|memory| memory.contains_all(frames))
    }

    /// True when it may use all `bytes` ports from `port` on.
    pub fn may_use_port(&self, port: u16, bytes: u32) -> bool {
        let first = u32::from(port);
        bytes != 0 && self.with_ports(|ports| ports.contains(first, first.saturating_add(bytes - 1)))
    }

    /// Gives or takes the right to map frames.
    ///
    /// # Errors
    /// `ENOMEM`: nothing has changed.
    pub fn permit_memory(&self, frames: RangeInclusive<u64>, allowed: bool) -> Result<()> {
        let mut sets = self.sets.write();
        if allowed { sets.memory.insert(frames) } else { sets.memory.remove(frames) }?;
        self.any_memory.store(!sets.memory.is_empty(), Relaxed);
        Ok(())
    }

    /// Gives or takes the right to use ports.
    ///
    /// # Errors
    /// `ENOMEM`: nothing has changed.
    pub fn permit_ports(&self, ports: RangeInclusive<u16>, allowed: bool) -> Result<()> {
        let mut sets = self.sets.write();
        if allowed { sets.ports.insert(ports) } else { sets.ports.remove(ports) }
    }
}

impl IoPolicy for IoRights {
    fn mmio(&self, mfn: Mfn) -> IoAccess {
        let sets = self.sets.read();
        if !sets.memory.contains(mfn) {
            IoAccess::None
        } else if sets.read_only.contains(mfn) || guard::is_read_only(mfn) {
            IoAccess::ReadOnly
        } else {
            IoAccess::ReadWrite
        }
    }

    fn cache_bits(&self) -> bool {
        self.any_memory()
    }
}

/// The last frame that the processor can address.
fn last_frame() -> u64 {
    let bits = arch::phys::maddr_bits().clamp(PAGE_SHIFT + 1, 52);
    (1 << (bits - PAGE_SHIFT)) - 1
}

/// The frames whose writes are interrupt messages: of no use to a driver, and never to be written by one.
pub const fn message_range() -> RangeInclusive<u64> {
    0xfee00..=0xfeeff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(set: &FrameSet) -> Vec<(u64, u64)> {
        set.iter().map(RangeInclusive::into_inner).collect()
    }

    #[test]
    fn ranges_merge_and_split() {
        let mut set = FrameSet::new();
        for range in [10..=19, 30..=39, 20..=29, 50..=50, 0..=0, u64::MAX..=u64::MAX] {
            set.insert(range).expect("memory");
        }
        assert_eq!(ranges(&set), [(0, 0), (10, 39), (50, 50), (u64::MAX, u64::MAX)]);
        set.remove(15..=34).expect("memory");
        set.remove(50..=u64::MAX).expect("memory");
        assert_eq!(ranges(&set), [(0, 0), (10, 14), (35, 39)]);
        set.remove(12..=12).expect("memory");
        assert_eq!(ranges(&set), [(0, 0), (10, 11), (13, 14), (35, 39)]);
        set.insert(0..=u64::MAX).expect("memory");
        assert_eq!(ranges(&set), [(0, u64::MAX)]);
        assert!(set.contains(Mfn(0)) && set.contains(Mfn::INVALID));
        set.remove(0..=u64::MAX).expect("memory");
        assert!(set.is_empty() && !set.contains(Mfn(0)));
    }

    #[test]
    fn random_changes_agree_with_a_bitmap() {
        let mut random = mm::hosted::Random::from_env(7);
        let mut below = |n| random.below(n);
        let (mut set, mut model) = (FrameSet::new(), [false; 64]);
        for _ in 0..5000 {
            let (first, last) = (below(64), below(64));
            let add = below(2) == 0;
            let done = if add { set.insert(first..=last) } else { set.remove(first..=last) };
            done.expect("memory");
            (first..=last).for_each(|n| model[n as usize] = add);
            for (n, &expected) in model.iter().enumerate() {
                assert_eq!(set.contains(Mfn(n as u64)), expected, "{set:?} at {n}");
            }
            assert!(set.0.windows(2).all(|w| w[0].1 + 1 < w[1].0), "{set:?} is not minimal");
        }
    }

    #[test]
    fn what_dom0_may_do() {
        let _machine = arch::hosted::boot(4096, 1);
        let ports = PortSet::hardware_domain(Some(0x608)).expect("memory");
        let rights =
            IoRights::dom0(&[message_range(), 0xfec00..=0xfec00], &[0xfed00..=0xfed00], ports).expect("memory");
        assert_eq!(rights.mmio(Mfn(0xf0)), IoAccess::ReadWrite, "the first MiB");
        assert_eq!(rights.mmio(Mfn(0xfebff)), IoAccess::ReadWrite);
        assert_eq!(rights.mmio(Mfn(0xfec00)), IoAccess::None);
        assert_eq!(rights.mmio(Mfn(0xfee00)), IoAccess::None);
        assert_eq!(rights.mmio(Mfn(0xfeeff)), IoAccess::None);
        assert_eq!(rights.mmio(Mfn(0xfed00)), IoAccess::ReadOnly);
        assert_eq!(rights.mmio(Mfn(last_frame())), IoAccess::ReadWrite);
        assert_eq!(rights.mmio(Mfn(last_frame() + 1)), IoAccess::None);
        assert_eq!(rights.mmio(Mfn::INVALID), IoAccess::None);
        assert!(rights.cache_bits());
        assert!(rights.may_use_port(0x3f8, 4) && !rights.may_use_port(0x20, 1));
        assert!(!rights.may_use_port(0x60a, 1) && !rights.may_use_port(0x606, 4));
        assert!(!rights.may_use_port(0xffff, 2) && rights.may_use_port(0xffff, 1));
        assert!(!rights.may_use_port(0x3f8, 0));
    }

    #[test]
    fn rights_are_given_and_taken() {
        let rights = IoRights::none();
        rights.permit_memory(0xf0000..=0xf000f, true).expect("memory");
        assert!(rights.any_memory() && rights.may_map(0xf0000..=0xf000f) && !rights.may_map(0xf0000..=0xf0010));
        assert!(!rights.may_map(0xeffff..=0xf0000));
        rights.permit_memory(0xf0004..=0xf0004, false).expect("memory");
        assert!(rights.may_map(0xf0005..=0xf000f) && !rights.may_map(0xf0003..=0xf0005));
        rights.permit_memory(0..=u64::MAX, false).expect("memory");
        assert!(!rights.any_memory());
        rights.permit_ports(0x3f8..=0x3ff, true).expect("memory");
        assert!(rights.may_use_port(0x3f8, 8) && !rights.may_use_port(0x3f7, 2));
        rights.permit_ports(0..=0xffff, false).expect("memory");
        assert!(!rights.may_use_port(0x3f8, 1));
    }

    #[test]
    fn a_domain_without_devices() {
        let rights = IoRights::none();
        assert_eq!(rights.mmio(Mfn(0xf0)), IoAccess::None);
        assert!(!rights.any_memory() && !rights.cache_bits() && !rights.may_use_port(0x80, 1));
    }
}
