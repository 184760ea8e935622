// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changing a table's version, and exchanging entries.
//!
//! What the tools wrote into the first entries survives a change, even in use; everything else is cleared, and may not be
//! in use. Status words go only when nobody maps them (XSA-255).

use alloc::vec::Vec;

use hypercalls::grant::{GNTTAB_NR_RESERVED_ENTRIES, GrantStatus};
use hypercalls::{Errno, Result};
use mm::SharedFrame;

use super::Grants;
use super::table::{Table, Version, share_up_to, status_frames};

/// Entries that the tools use.
const RESERVED: u32 = GNTTAB_NR_RESERVED_ENTRIES;

impl Grants {
    /// Returns the version of the entries.
    pub fn version(&self) -> u32 {
        match self.table.read().version {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }

    /// Changes the version of the entries.
    ///
    /// # Errors
    /// `EINVAL`: no such version; `ENOSYS`: not for this domain; `EBUSY`: an entry is in use, or status words are mapped;
    /// `EAGAIN`: a part of a frame, or what is passed on, is in use; `ERANGE`: a reserved entry says what version 1 cannot;
    /// `ENOMEM`. Nothing is changed then.
    pub fn set_version(&self, version: u32) -> Result<()> {
        let version = match version {
            1 => Version::V1,
            2 if self.limits.version < 2 => return Err(Errno::ENOSYS),
            2 => Version::V2,
            _ => return Err(Errno::EINVAL),
        };
        let mut table = self.table.write();
        if table.is_retired() || table.version == version {
            return Ok(());
        }
        check_unused(&table)?;
        let kept = kept_entries(&table)?;
        table.make_room(version)?;
        let mut status = Vec::new();
        match version {
            Version::V1 => SharedFrame::withdraw(table.take_status()).map_err(|frames| {
                table.set_status(frames);
                Errno::EBUSY
            })?,
            Version::V2 => share_up_to(&mut status, status_frames(table.frames()), self.owner)?,
        }
        table.set_status(status);
        table.clear(version);
        for (gref, value) in (0..).zip(kept) {
            if let Some((entry, _)) = table.find(gref) {
                entry.set_from_v1(value);
            }
        }
        Ok(())
    }

    /// Exchanges two entries that are not in use.
    ///
    /// # Errors
    /// `BAD_GNTREF`: no such entry; `EAGAIN`: one is in use.
    pub fn swap(&self, a: u32, b: u32) -> core::result::Result<(), GrantStatus> {
        let table = self.table.write();
        let (entry_a, slot_a) = table.find(a).ok_or(GrantStatus::BAD_GNTREF)?;
        let (entry_b, slot_b) = table.find(b).ok_or(GrantStatus::BAD_GNTREF)?;
        if a != b {
            // One after the other: nobody can begin a use while the table is ours.
            if !slot_a.lock().pins.is_empty() || !slot_b.lock().pins.is_empty() {
                return Err(GrantStatus::EAGAIN);
            }
            entry_a.swap(&entry_b);
        }
        Ok(())
    }
}

fn check_unused(table: &Table) -> Result<()> {
    let mut result = Ok(());
    table.for_each_active(&mut |gref, active| {
        if gref >= RESERVED {
            result = Err(Errno::EBUSY);
        } else if !active.is_whole() && result.is_ok() {
            result = Err(Errno::EAGAIN);
        }
    });
    result
}

/// Reads the reserved entries in the form of version 1, which can say all that is kept.
fn kept_entries(table: &Table) -> Result<[u64; RESERVED as usize]> {
    let mut kept = [0; RESERVED as usize];
    for (gref, value) in (0..).zip(&mut kept) {
        if let Some((entry, _)) = table.find(gref) {
            *value = entry.to_v1().ok_or(Errno::ERANGE)?;
        }
    }
    Ok(kept)
}
