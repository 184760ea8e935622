// SPDX-License-Identifier: MIT OR Apache-2.0
//! Grants: frames of one domain that another one may map or copy, as the owner's table says.
//!
//! A table is frames in which the owner writes entries ([`entry`]) and, for each entry, a record of ours of how it is used
//! ([`active`]). While an entry is in use the record is the truth: who uses it, which frame it is, which part of it. A use
//! is a value ([`Pin`]); the domain that mapped an entry keeps it with the mapping, under a handle ([`maptrack`]).
//!
//! What must hold: an entry's pins are the [`Pin`]s of it that exist. While there are any the record holds a reference to
//! the frame, and the guest can see that the entry is in use. A mapping ends in the order: page-table entry, flush, pin
//! and what the guest sees of it, references (XSA-218, XSA-236).
//!
//! # Locking
//! A table's lock is held to read while an entry is looked at, and to write when the table grows, changes its version or goes
//! away; a record's lock nests in it. Nobody holds two tables' locks. A domain's handles have a lock of their own, taken
//! inside that of its page tables and outside of any table's.

pub mod active;
mod copy;
mod entry;
mod map;
pub mod maptrack;
mod table;
mod version;

pub use copy::{Lease, Refused};
pub use map::{Loan, Pin};
pub use maptrack::{Mapping, Maptrack};

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use hypercalls::{DomId, Errno, Mfn, Result};
use mm::{Lock, RwLock};

use crate::rank;
use table::Table;

/// How large a domain's table and handles may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Frames of the table.
    pub frames: u32,
    /// Handles, in the interface's unit of 256.
    pub maptrack_frames: u32,
    /// The highest version of the table.
    pub version: u32,
}

/// What `gnttab_max_frames` and `gnttab_max_maptrack_frames` say.
static MOST: [AtomicU32; 2] = [AtomicU32::new(Limits::DEFAULT.frames), AtomicU32::new(Limits::DEFAULT.maptrack_frames)];

impl Limits {
    /// What there is unless the administrator says otherwise.
    pub const DEFAULT: Self = Self { frames: 64, maptrack_frames: 1024, version: 2 };
    /// The most that can be set: growing to it is one step.
    const HIGHEST: Self = Self { frames: 4096, maptrack_frames: 65536, version: 2 };

    /// Returns what a domain gets when its tools do not ask, and the most that they may ask for.
    pub fn most() -> Self {
        let [frames, maptrack_frames] = MOST.each_ref().map(|most| most.load(Relaxed));
        Self { frames, maptrack_frames, ..Self::DEFAULT }
    }

    /// Sets it, for domains that are made from now on.
    ///
    /// # Errors
    /// `ERANGE` beyond what can be; `EINVAL` for tables of no frame.
    pub fn set_most(self) -> Result<()> {
        if self.frames > Self::HIGHEST.frames || self.maptrack_frames > Self::HIGHEST.maptrack_frames {
            return Err(Errno::ERANGE);
        }
        if self.frames == 0 {
            return Err(Errno::EINVAL);
        }
        MOST[0].store(self.frames, Relaxed);
        MOST[1].store(self.maptrack_frames, Relaxed);
        Ok(())
    }
}

/// A domain's grants and its mappings of others'.
#[derive(Debug)]
pub struct Grants {
    owner: DomId,
    limits: Limits,
    table: RwLock<Table>,
    /// Its mappings of others' grants.
    pub maptrack: Lock<Maptrack>,
}

impl Grants {
    /// Makes a table of one frame.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(owner: DomId, limits: Limits) -> Result<Self> {
        Ok(Self {
            owner,
            limits,
            table: RwLock::new(rank::GRANTS, Table::new(owner)?),
            maptrack: Lock::new(rank::MAPTRACK, Maptrack::new(limits.maptrack_frames)),
        })
    }

    /// Returns how many frames the table has.
    pub fn frames(&self) -> u32 {
        self.table.read().frames()
    }

    /// Returns how large it may grow.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns how many frames of status words the longest table has; they are version 2's.
    pub const fn max_status_frames(&self) -> u32 {
        table::status_frames(self.limits.frames)
    }

    /// Makes the table at least `count` frames long.
    ///
    /// # Errors
    /// `EINVAL` above the maximum or when the domain is dying, `ENOMEM`; nothing is changed then.
    pub fn grow(&self, count: u32) -> Result<()> {
        if count > self.limits.frames {
            return Err(Errno::EINVAL);
        }
        if count <= self.frames() { Ok(()) } else { self.table.write().grow(count) }
    }

    /// Makes a table of version 2 so long that it has at least `count` frames of status words.
    ///
    /// # Errors
    /// As [`Grants::grow`]; `EINVAL` for another version.
    pub fn grow_status(&self, count: u32) -> Result<()> {
        if self.version() != 2 || count > self.max_status_frames() {
            return Err(Errno::EINVAL);
        }
        self.grow(table::frames_for_status(count))
    }

    /// Returns a frame of the table.
    pub fn frame(&self, index: u32) -> Option<Mfn> {
        self.table.read().frame(index)
    }

    /// Returns a frame of status words.
    pub fn status_frame(&self, index: u32) -> Option<Mfn> {
        self.table.read().status_frame(index)
    }

    /// Ends the table's life: nothing can be granted any more, and its frames are given back. Uses that are left end by
    /// themselves. To be called until it says that it is done.
    ///
    /// # Errors
    /// `ERESTART`: to be called again.
    pub fn retire(&self) -> Result<()> {
        self.table.write().retire();
        // Handles of others may keep this table for long, but no frames.
        self.table.read().drop_pages()
    }

    /// Ends all mappings of a dying domain, whose page tables are gone.
    ///
    /// # Errors
    /// `ERESTART`: to be called again.
    pub fn release_mappings(&self) -> Result<()> {
        self.maptrack.lock().release()
    }

    /// Calls `f` with every entry in use: its number and its record.
    pub fn for_each_active(&self, mut f: impl FnMut(u32, &active::Active)) {
        self.table.read().for_each_active(&mut f);
    }
}

#[cfg(test)]
mod tests;
