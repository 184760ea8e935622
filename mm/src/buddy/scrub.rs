// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scrubbing of free frames by CPUs that have nothing else to do, so that those who want frames need not.
//!
//! What guests had and gave back lies in a range of frame numbers that grows with each such frame. A step takes a few
//! frames of it, some of them a guest's, out of the allocator, flushes and zeroes them, and puts them back as clean; what is
//! allocated before its turn comes is scrubbed then ([`super::scrub`]). Memory that no guest ever had is left alone.

use super::{BUDDY, Buddy, blocks, flush, frames, zone_of};
use crate::buddy::MAX_ORDER;
use crate::frame::{self, Frame};
use core::sync::atomic::{AtomicU64, Ordering};
use hypercalls::{DomId, Mfn};

/// Frames of a step: 2^5, 128 KiB.
const STEP_ORDER: u8 = 5;
/// Frames, or parts of free blocks, that a step looks at until it finds some that a guest had.
const LOOKS: u32 = 64;

/// Where free frames may be that a guest had.
#[derive(Clone, Copy)]
pub(super) struct Soiled {
    start: u64,
    end: u64,
    /// Frames that were given back since the range was last empty.
    count: u64,
}

impl Soiled {
    pub(super) const NOTHING: Self = Self { start: u64::MAX, end: 0, count: 0 };

    /// Notes frames that a guest had.
    pub(super) fn note(&mut self, mfn: Mfn, frames: u64) {
        self.start = self.start.min(mfn.0);
        self.end = self.end.max(mfn.0 + frames);
        self.count += frames;
    }
}

static SCRUBBED: AtomicU64 = AtomicU64::new(0);

/// Returns how many frames were cleaned so far, those of their blocks that were clean already included.
pub fn scrubbed() -> u64 {
    SCRUBBED.load(Ordering::Relaxed)
}

/// What a step has to do.
enum Step {
    /// Nothing: not enough was given back.
    Nothing,
    /// To look further.
    Look,
    /// To clean 2^order frames.
    Clean(Mfn, u8),
}

/// Cleans a few free frames if guests gave back at least so many; to be called by a CPU without other work and without
/// locks. False: there is nothing to do.
pub fn scrub_some(least: u64) -> bool {
    let step = BUDDY.lock().next_step(least);
    match step {
        Step::Nothing => false,
        Step::Look => true,
        Step::Clean(mfn, order) => {
            // Nobody writes to them any more by a translation of their last life.
            flush(mfn, order);
            super::scrub(mfn, order);
            let mut buddy = BUDDY.lock();
            frames(mfn, order).for_each(Frame::set_free_clean);
            buddy.scrubbing -= 1 << order;
            SCRUBBED.fetch_add(1 << order, Ordering::Relaxed);
            buddy.insert(mfn, order);
            true
        }
    }
}

impl Buddy {
    fn next_step(&mut self, least: u64) -> Step {
        if self.soiled.count < least.max(1) {
            return Step::Nothing;
        }
        for _ in 0..LOOKS {
            let at = Mfn(self.soiled.start);
            if at.0 >= self.soiled.end {
                self.soiled = Soiled::NOTHING;
                return Step::Nothing;
            }
            let Some((head, order)) = block_of(at) else {
                self.soiled.start += 1;
                continue;
            };
            let size = order.min(STEP_ORDER);
            let part = Mfn(at.0 & !((1 << size) - 1));
            self.soiled.start = part.0 + (1 << size);
            if frames(part, size).any(Frame::is_stale) {
                self.carve(head, order, part, size);
                return Step::Clean(part, size);
            }
        }
        Step::Look
    }

    /// Takes a part of a free block out, for a moment.
    fn carve(&mut self, head: Mfn, order: u8, part: Mfn, size: u8) {
        if let Some(frame) = frame::get(head) {
            self.unlink(head, frame, order);
        }
        self.free[zone_of(head)] -= 1 << order;
        frames(part, size).for_each(Frame::set_hypervisor);
        self.scrubbing += 1 << size;
        let before = blocks(head, part);
        let behind = blocks(part.add(1 << size), head.add(1 << order));
        before.chain(behind).for_each(|(mfn, order)| self.insert(mfn, order));
    }
}

/// Returns the start and the order of the free block in which a frame is.
fn block_of(mfn: Mfn) -> Option<(Mfn, u8)> {
    frame::get(mfn).filter(|f| f.is_ram() && f.owner() == DomId::INVALID)?;
    (0..=MAX_ORDER).find_map(|order| {
        let head = Mfn(mfn.0 & !((1 << order) - 1));
        let found = frame::get(head)?.head_order()?;
        (found >= order).then_some((head, found))
    })
}
