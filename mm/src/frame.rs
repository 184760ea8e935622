// SPDX-License-Identifier: MIT OR Apache-2.0
//! The frame table: what each machine frame is, who owns it, and how often it is referenced.
//!
//! Each frame has two words, changed by compare-exchange in this module only.
//!
//! **Count word**: `owner (16) | flags (16) | general count (32)`. A frame lives while its count is above 0; being
//! allocated to a domain is itself one reference, and goes away in the same step as the flag that says so.
//!
//! ```text
//!   not RAM (all zero)                   never anything else
//!   free    owner INVALID, count 0  --alloc--> hypervisor's  owner IDLE, ALLOCATED, count 1
//!   hypervisor's  --assign--> domain's   owner = domid, ALLOCATED, count >= 1
//!   hypervisor's  --share-->  shared     owner = domid, SPECIAL, ALLOCATED, count >= 1, one type reference held
//!   domain's  --deallocate--> lingering  owner = domid, count >= 0: still mapped somewhere
//!   domain's  --steal (count 1)--> hypervisor's
//!   any owned, count 1 --put--> free
//! ```
//!
//! **Type word**: `flags | type (4) | type count (32)`. The type changes only at type count 0.
//!
//! ```text
//!   count 0               no use now; the type field names the last use, whose stale translations may survive
//!                         (VALIDATED may be set for Writable and SegDesc: the content still fits the type)
//!   count 1, !V, !X       being validated or devalidated now, by the holder of the owner's page-table lock;
//!                         for Writable: the flush that comes with the change of type is under way
//!   count 1, !V,  X       table whose validation or devalidation was interrupted: `progress` entries hold
//!                         references. X itself owns this type count and one general count, so anybody may take
//!                         the work up again, in either direction (XSA-299, XSA-310)
//!   count n,  V           valid, n references; PINNED says that one of them is the pin
//! ```
//!
//! None → T needs no flush; T → U flushes what may be stale since the count became 0 (`stamp`). The old type decides
//! (XSA-408), the new one is published first (XSA-401), and the frame never goes back to None while it is owned. The flush is
//! for the CPUs of the owner, and for all others too when LENT says that another domain's tables mapped it writable since
//! the last such flush: that domain need not have flushed when it dropped its entry.
//!
//! # Locking
//! None: words are atomic. Table types (L1–L4) and segment-descriptor types are taken and dropped under the owner's
//! page-table lock; Writable needs no lock. `next`/`prev`/`order` belong to whoever holds the list the frame is on.
#![expect(unsafe_code, reason = "the frame table is an array at an address given at start")]

mod types;

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use hypercalls::{DomId, Mfn};

/// What a frame is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageType {
    /// Nothing that matters yet.
    None = 0,
    /// Page table, level 1.
    L1 = 1,
    /// Page table, level 2.
    L2 = 2,
    /// Page table, level 3.
    L3 = 3,
    /// Page table, level 4.
    L4 = 4,
    /// Segment descriptors.
    SegDesc = 5,
    /// Guest-writable memory.
    Writable = 6,
}

impl PageType {
    /// Returns the type of a table of this level, 1 to 4.
    #[inline]
    pub const fn table(level: u8) -> Self {
        match level {
            1 => Self::L1,
            2 => Self::L2,
            3 => Self::L3,
            _ => Self::L4,
        }
    }
    /// Returns the level of a page table.
    pub const fn level(self) -> Option<u8> {
        match self {
            Self::L1 => Some(1),
            Self::L2 => Some(2),
            Self::L3 => Some(3),
            Self::L4 => Some(4),
            _ => None,
        }
    }
    const fn bits(self) -> u64 {
        (self as u64) << TYPE_SHIFT
    }
    #[inline]
    const fn of(word: u64) -> Self {
        match (word & TYPE) >> TYPE_SHIFT {
            1 => Self::L1,
            2 => Self::L2,
            3 => Self::L3,
            4 => Self::L4,
            5 => Self::SegDesc,
            6 => Self::Writable,
            _ => Self::None,
        }
    }
}

// Type word.
const TYPE_SHIFT: u32 = 32;
const TYPE: u64 = 0xf << TYPE_SHIFT;
const VALIDATED: u64 = 1 << 36;
const PINNED: u64 = 1 << 37;
const PARTIAL: u64 = 1 << 38;
const NONCOHERENT: u64 = 1 << 39;
const LENT: u64 = 1 << 40;
const WRITABLE: u64 = PageType::Writable.bits();
// Count word.
const ALLOCATED: u64 = 1 << 32;
const SPECIAL: u64 = 1 << 33;
const RAM: u64 = 1 << 34;
const FREE_HEAD: u64 = 1 << 35;
const STALE: u64 = 1 << 36;
const DIRTY: u64 = 1 << 37;
const OWNER_SHIFT: u32 = 48;

/// No neighbour in a list.
pub(crate) const NONE: u32 = u32::MAX;

const fn owned(owner: DomId) -> u64 {
    (owner.0 as u64) << OWNER_SHIFT
}

/// A frame's entry in the table.
#[derive(Debug)]
#[repr(C, align(32))]
pub struct Frame {
    kind: AtomicU64,
    count: AtomicU64,
    stamp: AtomicU32,
    progress: AtomicU16,
    order: AtomicU16,
    pub(crate) next: AtomicU32,
    pub(crate) prev: AtomicU32,
}
const _: () = assert!(size_of::<Frame>() == 32);

/// A snapshot of a frame's words, for checks and dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameState {
    /// Owner.
    pub owner: DomId,
    /// General count.
    pub count: u32,
    /// Allocated to its owner.
    pub allocated: bool,
    /// The hypervisor's own frame, shared with its owner.
    pub special: bool,
    /// RAM at all.
    pub ram: bool,
    /// Current or last type.
    pub page_type: PageType,
    /// Type count.
    pub type_count: u32,
    /// Content fits the type.
    pub validated: bool,
    /// One type reference is a pin.
    pub pinned: bool,
    /// (De)validation was interrupted.
    pub partial: bool,
    /// Entries that hold references, while partial.
    pub progress: u16,
}

static BASE: AtomicUsize = AtomicUsize::new(0);
static END: AtomicU64 = AtomicU64::new(0);

/// Sets where the table is and how many frames it describes.
///
/// # Safety
/// `frames` entries at `base` are mapped, zero, aligned to 32 bytes, used by nothing else, and stay so for ever.
pub(crate) unsafe fn init(base: usize, frames: u64) {
    BASE.store(base, Ordering::Release);
    END.store(frames.min(u64::from(NONE)), Ordering::Release);
}

/// Returns how many frames the table describes: numbers below it may be RAM.
pub fn end() -> u64 {
    END.load(Ordering::Relaxed)
}

/// Returns a frame's entry, if the table covers it (it need not be RAM).
#[inline]
pub fn get(mfn: Mfn) -> Option<&'static Frame> {
    if mfn.0 >= END.load(Ordering::Relaxed) {
        return None;
    }
    let base = BASE.load(Ordering::Relaxed);
    // SAFETY: the end is above 0 only when `init` has set the base, to memory that is mapped: not 0.
    unsafe { core::hint::assert_unchecked(base != 0) };
    // SAFETY: below the end; `init`'s caller promised that many entries for ever, and all fields are atomics.
    Some(unsafe { &*(base as *const Frame).add(mfn.0 as usize) })
}

/// Returns the entry of a frame that is RAM.
#[inline]
pub(crate) fn ram(mfn: Mfn) -> Option<&'static Frame> {
    get(mfn).filter(|f| f.is_ram())
}

/// What [`Frame::get_type`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// A reference to a valid frame was taken.
    Valid,
    /// The frame is ours alone now, to be validated from entry `from` on. `resumed`: from the partial state, whose
    /// general reference came with it. `stale`: the frame had another type whose translations must be flushed first.
    Validate { from: u16, resumed: bool, stale: bool },
}

impl Frame {
    /// Returns the number of the frame.
    #[inline]
    pub fn mfn(&self) -> Mfn {
        Mfn(((core::ptr::from_ref(self) as usize - BASE.load(Ordering::Relaxed)) / size_of::<Self>()) as u64)
    }
    /// True when the frame is RAM.
    #[inline]
    pub fn is_ram(&self) -> bool {
        self.count.load(Ordering::Relaxed) & RAM != 0
    }
    /// Returns the owner; [`DomId::INVALID`] when free, [`DomId::IDLE`] for the hypervisor's own.
    #[inline]
    pub fn owner(&self) -> DomId {
        DomId((self.count.load(Ordering::Acquire) >> OWNER_SHIFT) as u16)
    }
    /// True when it is the hypervisor's frame, shared with its owner.
    #[inline]
    pub fn is_special(&self) -> bool {
        self.count.load(Ordering::Relaxed) & SPECIAL != 0
    }
    /// Returns all there is to know.
    pub fn state(&self) -> FrameState {
        let (c, t) = (self.count.load(Ordering::Acquire), self.kind.load(Ordering::Acquire));
        FrameState {
            owner: DomId((c >> OWNER_SHIFT) as u16),
            count: c as u32,
            allocated: c & ALLOCATED != 0,
            special: c & SPECIAL != 0,
            ram: c & RAM != 0,
            page_type: PageType::of(t),
            type_count: t as u32,
            validated: t & VALIDATED != 0,
            pinned: t & PINNED != 0,
            partial: t & PARTIAL != 0,
            progress: self.progress.load(Ordering::Relaxed),
        }
    }

    // General references.

    /// Takes a general reference if the frame lives and `owner` owns it.
    #[inline]
    pub(crate) fn try_get(&self, owner: DomId) -> bool {
        let mut word = self.count.load(Ordering::Relaxed);
        loop {
            // Count 0: dead. One below the maximum: saturated, not wrapped.
            if word >> OWNER_SHIFT != u64::from(owner.0) || (word as u32).wrapping_sub(1) >= u32::MAX - 1 {
                return false;
            }
            match self.count.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }
    /// Drops a general reference; the last one frees the frame.
    #[inline]
    pub(crate) fn put(&'static self) {
        let word = self.count.fetch_sub(1, Ordering::AcqRel);
        debug_assert_ne!(word as u32, 0, "reference count of {} below 0", self.mfn());
        if word as u32 == 1 {
            crate::account::release(self);
        }
    }

    // Ownership.

    /// The hypervisor's frame becomes the domain's, with the reference that being allocated is.
    pub(crate) fn set_owned(&self, owner: DomId, special: bool) {
        let special = if special { SPECIAL } else { 0 };
        self.count.store(owned(owner) | ALLOCATED | RAM | special | 1, Ordering::Release);
    }
    /// Takes the flag "allocated" away; the caller then owns the reference that it was, and puts it.
    pub(crate) fn deallocate(&self, owner: DomId, special: bool) -> bool {
        let want = owned(owner) | ALLOCATED | if special { SPECIAL } else { 0 };
        let mask = 0xffff << OWNER_SHIFT | ALLOCATED | SPECIAL;
        self.count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |w| (w & mask == want).then_some(w & !ALLOCATED))
            .is_ok()
    }
    /// Takes the frame from its owner if being allocated is its only reference: count and owner change in one step
    /// (XSA-287). Its translations may be stale.
    pub(crate) fn steal(&self, owner: DomId) -> bool {
        let alone = owned(owner) | ALLOCATED | RAM | 1;
        let ours = owned(DomId::IDLE) | ALLOCATED | RAM | STALE | DIRTY | 1;
        if self.count.compare_exchange(alone, ours, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        debug_assert_eq!(self.kind.load(Ordering::Relaxed) as u32, 0, "typed frame without references");
        self.clean();
        true
    }
    /// Takes a shared frame back if nothing but the hypervisor refers to it. Its translations may be stale.
    pub(crate) fn recall(&self, owner: DomId) -> bool {
        let alone = owned(owner) | ALLOCATED | SPECIAL | RAM | 1;
        let ours = owned(DomId::IDLE) | ALLOCATED | RAM | STALE | DIRTY | 1;
        let recalled = self.count.compare_exchange(alone, ours, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if recalled {
            self.clean();
        }
        recalled
    }
    /// Forgets the type of a frame that no domain owns any more and stamps it (XSA-214).
    pub(crate) fn clean(&self) {
        self.stamp.store(arch::tlb::stamp(), Ordering::Release);
        self.kind.store(0, Ordering::Release);
    }

    // Life in the buddy allocator; under its lock.

    /// Makes the frame RAM of the hypervisor's, at boot.
    pub(crate) fn make_ram(&self) {
        self.kind.store(0, Ordering::Relaxed);
        self.count.store(owned(DomId::IDLE) | ALLOCATED | RAM | DIRTY | 1, Ordering::Release);
    }
    /// The frame is free. `stale`: translations of it may survive somewhere until [`Frame::stale_since`] is flushed.
    pub(crate) fn set_free(&self, stale: bool) {
        let keep = self.count.load(Ordering::Relaxed) & STALE;
        let stale = if stale { STALE } else { keep };
        self.count.store(owned(DomId::INVALID) | RAM | DIRTY | stale, Ordering::Release);
    }
    /// The frame is free, zeroed, and no translation of it survives.
    pub(crate) fn set_free_clean(&self) {
        self.count.store(owned(DomId::INVALID) | RAM, Ordering::Release);
    }
    /// True when translations of the last life may survive: a guest had the frame.
    pub(crate) fn is_stale(&self) -> bool {
        self.count.load(Ordering::Relaxed) & STALE != 0
    }
    /// The free frame is the first of a free block of this order.
    pub(crate) fn set_head(&self, order: Option<u8>) {
        let word = self.count.load(Ordering::Relaxed) & !FREE_HEAD;
        self.order.store(order.map_or(0, u16::from), Ordering::Relaxed);
        self.count.store(if order.is_some() { word | FREE_HEAD } else { word }, Ordering::Release);
    }
    /// Returns the order of the free block of which this is the first frame.
    pub(crate) fn head_order(&self) -> Option<u8> {
        (self.count.load(Ordering::Relaxed) & FREE_HEAD != 0).then(|| self.order.load(Ordering::Relaxed) as u8)
    }
    /// The free frame becomes the hypervisor's.
    pub(crate) fn set_hypervisor(&self) {
        let keep = self.count.load(Ordering::Relaxed) & (STALE | DIRTY);
        self.count.store(owned(DomId::IDLE) | ALLOCATED | RAM | keep | 1, Ordering::Release);
    }
    /// Returns the stamp after which CPUs must have flushed before the frame is used anew, and forgets the need.
    pub(crate) fn take_stale(&self) -> Option<u32> {
        (self.count.fetch_and(!STALE, Ordering::AcqRel) & STALE != 0).then(|| self.stamp())
    }
    /// True when the content is not known to be harmless; forgets it.
    pub(crate) fn take_dirty(&self) -> bool {
        self.count.fetch_and(!DIRTY, Ordering::AcqRel) & DIRTY != 0
    }
}
