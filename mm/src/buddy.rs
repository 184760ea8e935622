// SPDX-License-Identifier: MIT OR Apache-2.0
//! The buddy allocator: free frames in blocks of 2^order, linked through the frame table.
//!
//! Free blocks are kept by zone and order. Zone `z` holds the frames whose number has `z` significant bits, so a limit on
//! address bits is a limit on zones, and blocks never straddle zones. Memory is taken from the highest zone that
//! serves, which spares the low memory that some devices need.
//!
//! What must hold: a frame is in exactly one free block or allocated; two free buddies of one zone are merged.
//! Content is scrubbed on allocation, by those who hand frames to guests ([`scrub()`]), or before, by CPUs without other work
//! ([`scrub_some`]); translations that may survive from the last life are flushed on allocation here (XSA-346, XSA-480).

mod scrub;

pub use scrub::{scrub_some, scrubbed};

use crate::frame::{self, Frame, NONE};
use crate::lock::{Lock, rank};
use core::sync::atomic::Ordering;
use hypercalls::Mfn;

/// The largest order: 2^18 frames, 1 GiB.
pub const MAX_ORDER: u8 = 18;
const ORDERS: usize = MAX_ORDER as usize + 1;
const ZONES: usize = 33;

/// Frames from which on [`alloc_run`] searches: 4 MiB. Only unpacking dom0's kernel wants that much.
pub const MUCH: u64 = 1024;

/// No limit on addresses.
pub const ANYWHERE: u32 = 64;

struct Buddy {
    heads: [[u32; ORDERS]; ZONES],
    /// For each zone, which orders have free blocks.
    present: [u32; ZONES],
    /// For each zone, how many frames are free.
    free: [u64; ZONES],
    total: u64,
    /// How many frames are promised to domains.
    claimed: u64,
    /// How many frames domains cannot have.
    kept: u64,
    /// How many free frames are out of their blocks, to be scrubbed.
    scrubbing: u64,
    soiled: scrub::Soiled,
}

static BUDDY: Lock<Buddy> = Lock::new(rank::BUDDY, Buddy::new());

const fn zone_of(mfn: Mfn) -> usize {
    let bits = (u64::BITS - mfn.0.leading_zeros()) as usize;
    if bits < ZONES { bits } else { ZONES - 1 }
}

impl Buddy {
    const fn new() -> Self {
        Self {
            heads: [[NONE; ORDERS]; ZONES],
            present: [0; ZONES],
            free: [0; ZONES],
            total: 0,
            claimed: 0,
            kept: 0,
            scrubbing: 0,
            soiled: scrub::Soiled::NOTHING,
        }
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
        self.free[zone_of(mfn)] += 1 << order;
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

    fn free(&self) -> u64 {
        self.free.iter().sum::<u64>() + self.scrubbing
    }

    /// Returns how many free frames domains may have.
    fn for_domains(&self) -> u64 {
        self.free().saturating_sub(self.kept)
    }

    /// Takes a block of the hypervisor's for somebody.
    fn alloc(&mut self, order: u8, address_bits: u32) -> Option<Mfn> {
        let mfn = self.take(order, zones_below(address_bits))?;
        // Under the lock, so that no buddy of it is merged into it before it reads as taken.
        frames(mfn, order).for_each(Frame::set_hypervisor);
        Some(mfn)
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
            self.free[zone] -= 1 << order;
            return Some(mfn);
        }
        None
    }

    /// Takes the first `count` free frames in a row, wherever their blocks begin and end. Visits every frame.
    fn take_run(&mut self, count: u64) -> Option<Mfn> {
        let (mut start, mut at) = (0, 0);
        while at - start < count {
            match frame::get(Mfn(at))?.head_order() {
                Some(order) => at += 1 << order,
                None => {
                    at += 1;
                    start = at;
                }
            }
        }
        let mut next = start;
        while next < at {
            let frame = frame::get(Mfn(next))?;
            let order = frame.head_order()?;
            self.unlink(Mfn(next), frame, order);
            self.free[zone_of(Mfn(next))] -= 1 << order;
            next += 1 << order;
        }
        blocks(Mfn(start + count), Mfn(at)).for_each(|(mfn, order)| self.insert(mfn, order));
        Some(Mfn(start))
    }
}

/// Forgets everything: a new machine's memory will be added.
pub(crate) fn reset() {
    *BUDDY.lock() = Buddy::new();
}

fn frames(mfn: Mfn, order: u8) -> impl Iterator<Item = &'static Frame> {
    run(mfn, 1 << order)
}

fn run(mfn: Mfn, count: u64) -> impl Iterator<Item = &'static Frame> {
    (0..count).filter_map(move |i| frame::get(mfn.add(i)))
}

/// Cuts the frames from `start` up to but not including `end` into naturally aligned blocks, as large as they can be.
fn blocks(mut start: Mfn, end: Mfn) -> impl Iterator<Item = (Mfn, u8)> {
    core::iter::from_fn(move || {
        let left = end.0.checked_sub(start.0).filter(|left| *left > 0)?;
        let align = start.0.trailing_zeros().min(u32::from(MAX_ORDER));
        let order = align.min(left.ilog2()) as u8;
        let block = (start, order);
        start = start.add(1 << order);
        Some(block)
    })
}

/// Allocates 2^`order` frames for the hypervisor, naturally aligned, with addresses below 2^`address_bits`
/// ([`ANYWHERE`]: no limit). No CPU holds a translation of them. Content is arbitrary.
pub fn alloc(order: u8, address_bits: u32) -> Option<Mfn> {
    if order > MAX_ORDER {
        return None;
    }
    let mfn = take_out(|buddy| buddy.alloc(order, address_bits))?;
    flush(mfn, order);
    Some(mfn)
}

/// Takes frames out of the allocator. When there are none but some are being scrubbed, these are waited for.
fn take_out(mut take: impl FnMut(&mut Buddy) -> Option<Mfn>) -> Option<Mfn> {
    loop {
        let mut buddy = BUDDY.lock();
        let found = take(&mut buddy);
        if found.is_some() || buddy.scrubbing == 0 {
            return found;
        }
        drop(buddy);
        <arch::sync::Relax as spin::RelaxStrategy>::relax();
    }
}

/// As [`alloc`], for a domain, `promised` frames of whose claim this uses up: what others claim stays for them. To be
/// followed by [`flush`], without locks.
pub(crate) fn alloc_claimed(order: u8, address_bits: u32, promised: u64) -> Option<Mfn> {
    if order > MAX_ORDER {
        return None;
    }
    take_out(|buddy| {
        let others = buddy.claimed.saturating_sub(promised);
        if buddy.for_domains().saturating_sub(others) < 1 << order {
            return None;
        }
        let mfn = buddy.alloc(order, address_bits)?;
        buddy.claimed = others;
        Some(mfn)
    })
}

/// Promises frames that are free to a domain, if nobody else has claimed them. What the hypervisor needs for itself goes
/// before promises.
pub(crate) fn claim(frames: u64) -> bool {
    let mut buddy = BUDDY.lock();
    let fits = buddy.for_domains().saturating_sub(buddy.claimed) >= frames;
    if fits {
        buddy.claimed += frames;
    }
    fits
}

/// Keeps so many frames from domains: with none left at all the hypervisor could not do what they ask for.
pub fn keep(frames: u64) {
    BUDDY.lock().kept = frames;
}

/// Returns how many frames are free for domains, claimed ones included.
pub fn frames_for_domains() -> u64 {
    BUDDY.lock().for_domains()
}

/// Takes a promise back.
pub(crate) fn unclaim(frames: u64) {
    let mut buddy = BUDDY.lock();
    buddy.claimed = buddy.claimed.saturating_sub(frames);
}

/// Returns how many frames are promised to domains.
pub fn claimed_frames() -> u64 {
    BUDDY.lock().claimed
}

/// Flushes what CPUs may still hold of the last lives of frames just allocated.
pub(crate) fn flush(mfn: Mfn, order: u8) {
    flush_stale(frames(mfn, order));
}

/// Returns the highest zone in which all addresses have so many bits.
fn zones_below(address_bits: u32) -> usize {
    (address_bits.saturating_sub(hypercalls::addr::PAGE_SHIFT) as usize).min(ZONES - 1)
}

/// Flushes what CPUs may still hold of these frames' last lives.
fn flush_stale(frames: impl Iterator<Item = &'static Frame>) {
    let online = arch::cpu::online();
    frames.filter_map(Frame::take_stale).for_each(|stamp| arch::tlb::flush_since(&online, stamp));
}

/// Allocates `count` frames in a row for the hypervisor, no more; as [`alloc`] otherwise. From [`MUCH`] on it finds them
/// however they are aligned, at the price of a search, so that is for boot.
pub fn alloc_run(count: u64) -> Option<Mfn> {
    let order = count.max(1).checked_next_power_of_two()?.trailing_zeros() as u8;
    if let Some(mfn) = alloc(order, ANYWHERE) {
        free_range(mfn.add(count), mfn.add(1 << order));
        return Some(mfn);
    }
    if count < MUCH {
        return None;
    }
    let mfn = take_out(|buddy| {
        let mfn = buddy.take_run(count)?;
        run(mfn, count).for_each(Frame::set_hypervisor);
        Some(mfn)
    })?;
    flush_stale(run(mfn, count));
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
    if stale {
        buddy.soiled.note(mfn, 1 << order);
    }
}

/// Frees the frames from `start` up to but not including `end`, whatever their alignment.
pub fn free_range(start: Mfn, end: Mfn) {
    blocks(start, end).for_each(|(mfn, order)| free(mfn, order));
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
    BUDDY.lock().free()
}

/// Returns how many frames are free whose addresses have at most so many bits, counting every frame above 2^44 as one of 44
/// bits.
pub fn free_frames_below(address_bits: u32) -> u64 {
    BUDDY.lock().free.iter().take(zones_below(address_bits) + 1).sum()
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
