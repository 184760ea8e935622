// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptor windows: which frames a vCPU's GDT and LDT consist of.
//!
//! Pages 0 to 13 of the GDT half are the guest's; the caller holds a segment-descriptor reference for each frame.
#![expect(unsafe_code, reason = "reads descriptors from machine memory")]

use crate::phys;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use hypercalls::Mfn;

/// Pages of a GDT that belong to the guest.
pub const GDT_PAGES: usize = 14;
/// Pages of an LDT.
pub const LDT_PAGES: usize = 16;

/// Gives a zeroed frame for a hypervisor page table; none is needed here.
pub type TableAlloc<'a> = &'a mut dyn FnMut() -> Option<Mfn>;

/// There is no memory for page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTables;

const NOTHING: u64 = u64::MAX;
/// Where the machine has its windows, and how large one is.
const WINDOWS: u64 = 0xffff_8180_0000_0000;
const WINDOW_SIZE: u64 = 128 * 1024;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One vCPU's window.
#[derive(Debug)]
pub struct Window {
    base: u64,
    pages: [AtomicU64; 32],
}

impl Window {
    /// Makes a window with nothing mapped.
    ///
    /// # Errors
    /// Never here: on the machine [`NoTables`] when memory is used up.
    pub fn new(_alloc: TableAlloc<'_>) -> Result<Self, NoTables> {
        let index = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { base: WINDOWS + u64::from(index) * WINDOW_SIZE, pages: [const { AtomicU64::new(NOTHING) }; 32] })
    }

    fn set(&self, index: usize, frame: Option<Mfn>) {
        self.pages[index].store(frame.map_or(NOTHING, |f| f.0), Ordering::SeqCst);
    }

    fn get(&self, index: usize) -> Option<Mfn> {
        let word = self.pages.get(index)?.load(Ordering::SeqCst);
        (word != NOTHING).then_some(Mfn(word))
    }

    /// Maps a GDT page, or nothing, for the vCPU.
    pub fn set_gdt_page(&self, page: usize, frame: Option<Mfn>) {
        if page < GDT_PAGES {
            self.set(page, frame);
        }
    }

    /// Maps an LDT page, or nothing, for the vCPU.
    pub fn set_ldt_page(&self, page: usize, frame: Option<Mfn>) {
        if page < LDT_PAGES {
            self.set(16 + page, frame);
        }
    }

    /// Returns the frame of a GDT page that is mapped.
    pub fn gdt_page(&self, page: usize) -> Option<Mfn> {
        self.get(page).filter(|_| page < GDT_PAGES)
    }

    /// Returns the frame of an LDT page that is mapped.
    pub fn ldt_page(&self, page: usize) -> Option<Mfn> {
        self.get(16 + page)
    }

    /// Returns where the LDT half is mapped.
    pub fn ldt_base(&self) -> u64 {
        self.base + WINDOW_SIZE / 2
    }

    /// Reads the descriptor that a selector names; `None` beyond the table's limit or where nothing is mapped.
    pub fn descriptor(&self, selector: u16, gdt_entries: u32, ldt_entries: u32) -> Option<u64> {
        let index = usize::from(selector >> 3);
        let (first, limit) = if selector & 4 == 0 { (0, gdt_entries) } else { (16, ldt_entries) };
        let frame = self.get(first + index / 512).filter(|_| index < limit as usize)?;
        // SAFETY: the caller of `set_*_page` keeps the frame, which is RAM; descriptors are only seen as atomics.
        Some(unsafe { phys::entry(frame, index % 512) }.load(Ordering::Relaxed))
    }

    /// Returns the byte offset into the LDT if the address lies in this window's LDT half.
    pub fn ldt_offset(&self, va: u64) -> Option<u64> {
        va.checked_sub(self.ldt_base()).filter(|o| *o < WINDOW_SIZE / 2)
    }
}

pub(crate) fn reset() {
    NEXT.store(0, Ordering::Relaxed);
}
