// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptor windows: where a vCPU's GDT and LDT pages are mapped for the CPU to read.
//!
//! Pages 0 to 13 of the GDT half are the guest's frames, page 14 is the GDT page of the CPU the vCPU runs on. LDT pages
//! are mapped when the CPU first touches them. The caller holds a segment-descriptor type reference for each mapped
//! guest frame. Entries are writable: the CPU sets accessed bits.
//!
//! GDT pages that are not the guest's are never unmapped: they show a page of zeros, so that a selector which names nothing
//! is refused as such (#GP with the selector) instead of faulting on the table.
#![expect(unsafe_code, reason = "views the window's page table")]

use core::sync::atomic::{AtomicU64, Ordering};

use arch_types::Flush;
use hypercalls::{GuestVa, Mfn};
use spin::Once;

use crate::paging::{self, NoTables, Pte, TableAlloc};
use crate::{cpu, descriptors, features, layout, tlb};

/// Pages of a GDT that belong to the guest.
pub const GDT_PAGES: usize = 14;
/// Pages of an LDT.
pub const LDT_PAGES: usize = 16;

/// The page of a window that is never mapped. While the window is free, its entry leads to the next free one.
const UNUSED_PAGE: usize = 15;

/// Which windows there are.
struct Windows {
    /// Those that were made.
    made: u32,
    /// The first free one of them.
    free: Option<u32>,
}

static WINDOWS: spin::mutex::SpinMutex<Windows, crate::sync::Relax> =
    spin::mutex::SpinMutex::new(Windows { made: 0, free: None });
/// A frame of zeros, only ever mapped read-only.
static ZEROS: Once<Mfn> = Once::new();

/// One vCPU's window.
#[derive(Debug)]
pub struct Window {
    base: u64,
    entries: &'static [AtomicU64],
}

fn encode(frame: Mfn, more: Pte) -> u64 {
    let nx = if features::get().nx { Pte::NX } else { Pte::empty() };
    frame.maddr().0 | (Pte::PRESENT | Pte::ACCESSED | nx | more).bits()
}

fn writable(frame: Mfn) -> u64 {
    encode(frame, Pte::WRITE | Pte::DIRTY)
}

/// The entry of a GDT page that holds nothing.
fn empty_gdt_page() -> u64 {
    ZEROS.get().map_or(0, |&zeros| encode(zeros, Pte::empty()))
}

impl Drop for Window {
    /// The window is free. No vCPU uses it, so no CPU has translations of it: leaving a vCPU flushes them.
    fn drop(&mut self) {
        self.entries.iter().for_each(|entry| entry.store(0, Ordering::Relaxed));
        let index = ((self.base - layout::WINDOWS) / layout::WINDOW_SIZE) as u32;
        let mut windows = WINDOWS.lock();
        // Even, so not present.
        let next = windows.free.map_or(0, |next| u64::from(next) + 1) << 1;
        self.entries[UNUSED_PAGE].store(next, Ordering::Relaxed);
        windows.free = Some(index);
    }
}

impl Window {
    /// Makes a window with nothing mapped, of one that is free if there is any: their tables are shared, and stay.
    ///
    /// # Errors
    /// [`NoTables`] when memory or the slot's space is used up.
    pub fn new(alloc: TableAlloc<'_>) -> Result<Self, NoTables> {
        ZEROS.try_call_once(|| alloc().ok_or(NoTables))?;
        let mut windows = WINDOWS.lock();
        let index = windows.free.unwrap_or(windows.made);
        if index >= layout::MAX_WINDOWS {
            return Err(NoTables);
        }
        let base = layout::WINDOWS + u64::from(index) * layout::WINDOW_SIZE;
        let first = paging::l1_entry(base, alloc)?;
        // SAFETY: a window is 32 pages, aligned to 32 pages, so its entries are 32 neighbours in one L1 table, which
        // is ours for ever and only accessed as atomics.
        let entries: &[AtomicU64] = unsafe { core::slice::from_raw_parts(first, 32) };
        if windows.free.is_some() {
            windows.free = ((entries[UNUSED_PAGE].swap(0, Ordering::Relaxed) >> 1) as u32).checked_sub(1);
        } else {
            windows.made += 1;
        }
        drop(windows);
        for entry in &entries[..GDT_PAGES] {
            entry.store(empty_gdt_page(), Ordering::Relaxed);
        }
        Ok(Self { base, entries })
    }

    /// Maps a GDT page, or nothing, for the vCPU; it is current on this CPU or nowhere.
    pub fn set_gdt_page(&self, page: usize, frame: Option<Mfn>) {
        if page < GDT_PAGES {
            self.set(page, frame.map_or_else(empty_gdt_page, writable));
        }
    }

    /// Maps an LDT page, or nothing, for the vCPU; it is current on this CPU or nowhere.
    pub fn set_ldt_page(&self, page: usize, frame: Option<Mfn>) {
        if page < LDT_PAGES {
            self.set(16 + page, frame.map_or(0, writable));
        }
    }

    /// Returns the frame of an LDT page that is mapped.
    pub fn ldt_page(&self, page: usize) -> Option<Mfn> {
        let entry = self.entries.get(16 + page)?.load(Ordering::Relaxed);
        (entry & 1 != 0).then_some(Mfn(entry << 12 >> 24))
    }

    fn set(&self, index: usize, new: u64) {
        let old = self.entries[index].swap(new, Ordering::SeqCst);
        if old & 1 != 0 && old != new {
            tlb::flush_local(Flush::Page(GuestVa(self.base + index as u64 * 4096)));
        }
    }

    /// Makes this the GDT of the CPU.
    pub(crate) fn use_on_this_cpu(&self) {
        self.set(14, writable(cpu::gdt_frame_of(cpu::this_cpu())));
        descriptors::load_gdt(self.base);
    }

    /// Returns where the LDT half is mapped.
    pub fn ldt_base(&self) -> u64 {
        self.base + layout::WINDOW_SIZE / 2
    }

    /// Reads the descriptor that a selector names, as the current vCPU's CPU would; `None` beyond the table's limit or where
    /// nothing is mapped.
    pub fn descriptor(&self, selector: u16, gdt_entries: u32, ldt_entries: u32) -> Option<u64> {
        let index = u32::from(selector >> 3);
        let (table, page) = if selector & 4 == 0 { (0, 0) } else { (self.ldt_base() - self.base, 16) };
        let limit = if selector & 4 == 0 { gdt_entries } else { ldt_entries };
        let mapped = self.entries.get(page + index as usize / 512)?.load(Ordering::Relaxed) & 1 != 0;
        if index >= limit || !mapped {
            return None;
        }
        let at = self.base + table + u64::from(index) * 8;
        // SAFETY: the page is mapped in the window, and descriptors are only accessed as atomics.
        Some(unsafe { &*(at as *const AtomicU64) }.load(Ordering::Relaxed))
    }

    /// Returns the byte offset into the LDT if the address lies in this window's LDT half.
    pub fn ldt_offset(&self, va: u64) -> Option<u64> {
        va.checked_sub(self.ldt_base()).filter(|o| *o < layout::WINDOW_SIZE / 2)
    }
}
