// SPDX-License-Identifier: MIT OR Apache-2.0
//! The frames of a grant table and the records that go with them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hypercalls::{DomId, Errno, Mfn, PAGE_SIZE, Result};
use mm::{Share, SharedFrame};
use spin::mutex::SpinMutex;

use super::active::Active;
use super::entry::{Entry, V1_BYTES, V2_BYTES};
use crate::shared;

/// Records are allocated in chunks: as many as a frame of version 2 has entries.
const CHUNK: u32 = PER_FRAME_V2;
const PER_FRAME_V1: u32 = (PAGE_SIZE / V1_BYTES) as u32;
const PER_FRAME_V2: u32 = (PAGE_SIZE / V2_BYTES) as u32;
/// Status words of a frame of them.
const PER_STATUS_FRAME: u32 = (PAGE_SIZE / 2) as u32;

/// A record and its lock.
pub(super) type Slot = SpinMutex<Active, arch::sync::Relax>;

/// Returns how many frames of status words a version 2 table of so many frames has.
pub(super) const fn status_frames(frames: u32) -> u32 {
    (frames * PER_FRAME_V2).div_ceil(PER_STATUS_FRAME)
}

/// Returns how many frames the shortest version 2 table with so many frames of status words has.
pub(super) const fn frames_for_status(count: u32) -> u32 {
    match count.checked_sub(1) {
        Some(others) => others * (PER_STATUS_FRAME / PER_FRAME_V2) + 1,
        None => 0,
    }
}

/// How entries look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// 8 bytes each, our marks among the owner's flags.
    V1,
    /// 16 bytes each, our marks elsewhere.
    V2,
}

impl Version {
    const fn per_frame(self) -> u32 {
        match self {
            Self::V1 => PER_FRAME_V1,
            Self::V2 => PER_FRAME_V2,
        }
    }
}

/// A grant table.
#[derive(Debug)]
pub(super) struct Table {
    owner: DomId,
    pub(super) version: Version,
    /// The owner is dying: nothing can be granted any more.
    retired: bool,
    frames: Vec<SharedFrame>,
    status: Vec<SharedFrame>,
    active: Vec<Box<[Slot]>>,
}

impl Table {
    pub(super) fn new(owner: DomId) -> Result<Self> {
        let (frames, status, active) = (Vec::new(), Vec::new(), Vec::new());
        let mut table = Self { owner, version: Version::V1, retired: false, frames, status, active };
        table.grow(1)?;
        Ok(table)
    }

    pub(super) fn frames(&self) -> u32 {
        self.frames.len() as u32
    }

    pub(super) fn frame(&self, index: u32) -> Option<Mfn> {
        self.frames.get(index as usize).map(SharedFrame::mfn)
    }

    pub(super) fn status_frame(&self, index: u32) -> Option<Mfn> {
        self.status.get(index as usize).map(SharedFrame::mfn)
    }

    /// Returns how many entries there are.
    pub(super) fn entries(&self) -> u32 {
        self.frames() * self.version.per_frame()
    }

    /// Finds an entry and its record; none in a table that is retired.
    #[inline]
    pub(super) fn find(&self, gref: u32) -> Option<(Entry, &Slot)> {
        let per_frame = self.version.per_frame();
        let frame = shared::kept(self.frames.get((gref / per_frame) as usize)?);
        let index = (gref % per_frame) as usize;
        let entry = match self.version {
            Version::V1 => Entry::V1(frame.at(index * V1_BYTES)),
            Version::V2 => {
                let status = shared::kept(self.status.get((gref / PER_STATUS_FRAME) as usize)?);
                Entry::V2(frame.at(index * V2_BYTES), status.at((gref % PER_STATUS_FRAME) as usize * 2))
            }
        };
        Some((entry, self.slot(gref)?))
    }

    /// Finds a record, which outlives the table's frames.
    #[inline]
    pub(super) fn slot(&self, gref: u32) -> Option<&Slot> {
        self.active.get((gref / CHUNK) as usize)?.get((gref % CHUNK) as usize)
    }

    /// True when the owner is dying.
    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }

    /// Makes the table at least `count` frames long, or changes nothing.
    pub(super) fn grow(&mut self, count: u32) -> Result<()> {
        if self.retired {
            return Err(Errno::EINVAL);
        }
        let before = self.frames();
        if count <= before {
            return Ok(());
        }
        let status = if self.version == Version::V2 { status_frames(count) } else { 0 };
        let chunks = count * self.version.per_frame() / CHUNK;
        let old_status = self.status.len();
        let grown = share_up_to(&mut self.frames, count, self.owner)
            .and_then(|()| share_up_to(&mut self.status, status, self.owner))
            .and_then(|()| self.add_chunks(chunks));
        grown.inspect_err(|_| {
            self.frames.truncate(before as usize);
            self.status.truncate(old_status);
        })
    }

    fn add_chunks(&mut self, count: u32) -> Result<()> {
        let before = self.active.len();
        self.active.try_reserve((count as usize).saturating_sub(before)).map_err(|_| Errno::ENOMEM)?;
        while self.active.len() < count as usize {
            let Some(chunk) = chunk() else {
                self.active.truncate(before);
                return Err(Errno::ENOMEM);
            };
            self.active.push(chunk);
        }
        Ok(())
    }

    /// Makes sure that there are records for all entries of another version.
    pub(super) fn make_room(&mut self, version: Version) -> Result<()> {
        self.add_chunks(self.frames() * version.per_frame() / CHUNK)
    }

    /// Changes the version, for which there is room, and clears all entries. Only the reserved ones may be in use.
    pub(super) fn clear(&mut self, version: Version) {
        self.frames.iter().for_each(shared::clear);
        self.version = version;
        self.active.truncate((self.entries() / CHUNK) as usize);
    }

    pub(super) fn take_status(&mut self) -> Vec<SharedFrame> {
        core::mem::take(&mut self.status)
    }

    pub(super) fn set_status(&mut self, frames: Vec<SharedFrame>) {
        self.status = frames;
    }

    /// Lets go of the frames, and lets nothing be granted from now on.
    pub(super) fn retire(&mut self) {
        self.retired = true;
        self.frames.clear();
        self.status.clear();
    }

    /// Lets go of the frames that are granted, after [`Table::retire`].
    pub(super) fn drop_pages(&self) -> Result<()> {
        for chunk in &self.active {
            let pages = chunk.iter().filter_map(|slot| slot.lock().page.take());
            let dropped = pages.map(drop).count();
            if dropped > 0 && arch::cpu::preempt_pending() {
                return Err(Errno::ERESTART);
            }
        }
        Ok(())
    }

    pub(super) fn for_each_active(&self, f: &mut impl FnMut(u32, &Active)) {
        for (gref, slot) in (0..).zip(self.active.iter().flatten()) {
            let active = slot.lock();
            if !active.pins.is_empty() {
                f(gref, &active);
            }
        }
    }
}

/// Makes the list of frames at least `count` long, or leaves it as it is.
pub(super) fn share_up_to(list: &mut Vec<SharedFrame>, count: u32, owner: DomId) -> Result<()> {
    let before = list.len();
    list.try_reserve((count as usize).saturating_sub(before)).map_err(|_| Errno::ENOMEM)?;
    while list.len() < count as usize {
        match SharedFrame::alloc(owner, Share::ReadWrite) {
            Ok(frame) => list.push(frame),
            Err(error) => {
                list.truncate(before);
                return Err(error);
            }
        }
    }
    Ok(())
}

fn chunk() -> Option<Box<[Slot]>> {
    let mut slots = Vec::new();
    slots.try_reserve_exact(CHUNK as usize).ok()?;
    slots.resize_with(CHUNK as usize, || Slot::new(Active::UNUSED));
    Some(slots.into_boxed_slice())
}
