// SPDX-License-Identifier: MIT OR Apache-2.0
//! The buddy allocator: free frames in blocks of 2^order, linked through the frame table.
//!
//! Free blocks are kept by zone and order. Zone `z` holds the frames whose number has `z` significant bits, so a limit on
//! address bits is a limit on zones, and blocks never straddle zones. Memory is taken from the highest zone that
//! serves, which spares the low memory that some devices need.
//!
//! What must hold: a frame is in exactly one free block or allocated; two free buddies of one zone are merged.
//! Content is scrubbed on allocation, by those who hand frames to guests ([`scrub`]); translations that may survive
//! from the last life are flushed on allocation here (XSA-346, XSA-480).

use crate::frame::{self, Frame, NONE};
use crate::lock::{Lock, rank};
use core::sync::atomic::Ordering;
use hypercalls::Mfn;

/// The largest order: 2^18 frames, 1 GiB.
pub const MAX_ORDER: u8 = 18;
const ORDERS: usize = MAX_ORDER as usize + 1;
const ZONES: usize = 33;

/// No limit on addresses.
pub const ANYWHERE: u32 = 64;

struct Buddy {
    heads: [[u32; ORDERS]; ZONES],
    /// For each zone, which orders have free blocks.
    present: [u32; ZONES],
    free: u64,
    total: u64,
}

static BUDDY: Lock<Buddy> = Lock::new(rank::BUDDY, Buddy::new());

const fn zone_of(mfn: Mfn) -> usize {
    let bits = (u64::BITS - mfn.0.leading_zeros()) as usize;
    if bits < ZONES { bits } else { ZONES - 1 }
}

impl Buddy {
    const fn new() -> Self {
        Self { heads: [[NONE; ORDERS]; ZONES], present: [0; ZONES], free: 0, total: 0 }
    }

    fn link(&mut self, mfn: Mfn, frame: &Frame, order: u8) {
        let zone = zone_of(mfn);
        let head = &mut self.heads[zone][order as usize];
        frame.set_head(Some(order));
        frame.prev.store(NONE, Ordering::Relaxed);
        frame.next.store(*head, Ordering::Relaxed);
        if let Some(first) = frame::get(Mfn(u64::from(*head))) {
            first.prev.store(mfn.0 as u32, Ordering::Relaxed);
        }
        *head = mfn.0 as u32;
        self.present[zone] |= 1 << order;
    }

    fn unlink(&mut self, mfn: Mfn, frame: &Frame, order: u8) {
        let zone = zone_of(mfn);
        let (prev, next) = (frame.prev.load(Ordering::Relaxed), frame.next.load(Ordering::Relaxed));
        if let Some(f) = frame::get(Mfn(u64::from(next))) {
            f.prev.store(prev, Ordering::Relaxed);
        }
        match frame::get(Mfn(u64::from(prev))) {
            Some(f) => f.next.store(next, Ordering::Relaxed),
            None => {
                self.heads[zone][order as usize] = next;
                if next == NONE {
                    self.present[zone] &= !(1 << order);
                }
            }
        }
        frame.set_head(None);
    }

    /// Puts a block of frames, already marked free, back and merges it with its buddies.
    fn insert(&mut self, mut mfn: Mfn, mut order: u8) {
        self.free += 1 << order;
        while order < MAX_ORDER {
            let other = Mfn(mfn.0 ^ 1 << order);
            if zone_of(other) != zone_of(mfn) {
                break;
            }
            match frame::get(other) {
                Some(f) if f.head_order() == Some(order) => self.unlink(other, f, order),
                _ => break,
            }
            mfn = Mfn(mfn.0 & !(1 << order));
            order += 1;
        }
        if let Some(frame) = frame::get(mfn) {
            self.link(mfn, frame, order);
        }
    }

    fn take(&mut self, order: u8, zones: usize) -> Option<Mfn> {
        for zone in (0..=zones).rev() {
            let fitting = self.present[zone] >> order;
            if fitting == 0 {
                continue;
            }
            let mut have = order + fitting.trailing_zeros() as u8;
            let mfn = Mfn(u64::from(self.heads[zone][have as usize]));
            let frame = frame::get(mfn)?;
            self.unlink(mfn, frame, have);
            while have > order {
                have -= 1;
                let upper = mfn.add(1 << have);
                if let Some(f) = frame::get(upper) {
                    self.link(upper, f, have);
                }
            }
            self.free -= 1 << order;
            return Some(mfn);
        }
        None
    }
}

/// Forgets everything: a new machine's memory will be added.
pub(crate) fn reset() {
    *BUDDY.lock() = Buddy::new();
}

fn frames(mfn: Mfn, order: u8) -> impl Iterator<Item = &'static Frame> {
    (0..1u64 << order).filter_map(move |i| frame::get(mfn.add(i)))
}

/// Allocates 2^`order` frames for the hypervisor, naturally aligned, with addresses below 2^`address_bits`
/// ([`ANYWHERE`]: no limit). No CPU holds a translation of them. Content is arbitrary.
pub fn alloc(order: u8, address_bits: u32) -> Option<Mfn> {
    if order > MAX_ORDER {
        return None;
    }
    let zones = (address_bits.saturating_sub(hypercalls::addr::PAGE_SHIFT) as usize).min(ZONES - 1);
    let mfn = {
        let mut buddy = BUDDY.lock();
        let mfn = buddy.take(order, zones)?;
        // Under the lock, so that no buddy of it is merged into it before it reads as taken.
        frames(mfn, order).for_each(Frame::set_hypervisor);
        mfn
    };
    let online = arch::cpu::online();
    frames(mfn, order).filter_map(Frame::take_stale).for_each(|stamp| arch::tlb::flush_since(&online, stamp));
    Some(mfn)
}

/// Frees 2^`order` frames of the hypervisor's that no guest could reach. The start is aligned to the order.
pub fn free(mfn: Mfn, order: u8) {
    give_back(mfn, order, false);
}

/// Frees frames; `stale` says that a CPU may still hold a translation of them, dated by their stamps.
pub(crate) fn give_back(mfn: Mfn, order: u8, stale: bool) {
    debug_assert!(order <= MAX_ORDER && mfn.0.is_multiple_of(1 << order));
    let mut buddy = BUDDY.lock();
    frames(mfn, order).for_each(|f| f.set_free(stale));
    buddy.insert(mfn, order);
}

/// Frees the frames from `start` up to but not including `end`, whatever their alignment.
pub fn free_range(mut start: Mfn, end: Mfn) {
    while start.0 < end.0 {
        let align = start.0.trailing_zeros().min(u32::from(MAX_ORDER));
        let fits = (end.0 - start.0).ilog2();
        let order = align.min(fits) as u8;
        free(start, order);
        start = start.add(1 << order);
    }
}

/// Declares the frames from `start` up to but not including `end` to be RAM, the hypervisor's for now; at boot.
pub fn add_ram(start: Mfn, end: Mfn) {
    let mut added = 0;
    for mfn in start.0..end.0 {
        if let Some(frame) = frame::get(Mfn(mfn)).filter(|f| !f.is_ram()) {
            frame.make_ram();
            added += 1;
        }
    }
    BUDDY.lock().total += added;
}

/// Returns how many frames are free.
pub fn free_frames() -> u64 {
    BUDDY.lock().free
}

/// Returns how many frames of RAM there are.
pub fn total_frames() -> u64 {
    BUDDY.lock().total
}

/// Makes the content of 2^`order` frames harmless before a guest sees it: zeroes those not known to be clean.
/// The frames are the caller's, allocated from here.
pub fn scrub(mfn: Mfn, order: u8) {
    frames(mfn, order).filter(|f| f.take_dirty()).for_each(|f| crate::entry::zero(f.mfn()));
}

/// Forgets that content is unclean: the caller overwrites all of it before a guest sees it.
pub fn assume_clean(mfn: Mfn, order: u8) {
    frames(mfn, order).for_each(|f| {
        f.take_dirty();
    });
}
