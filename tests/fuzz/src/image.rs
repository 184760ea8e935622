// SPDX-License-Identifier: MIT OR Apache-2.0
//! A domain's kernel, from the boot module to the layout of its first address space.

use hypercalls::Maddr;
use hypervisor::builder::decompress::{MAX_MEMORY, Stream, memory_needed};
use hypervisor::builder::elf::{LoadError, Loader, PhysRange, Sink};
use hypervisor::builder::image::{ImageError, find};
use hypervisor::builder::layout::{ENTRIES, Entry, Layout, Request};
use hypervisor::builder::notes::XenNotes;
use hypervisor::builder::start_info::{self, Role};

/// Bytes that are written before the rest is not worth the time.
const ENOUGH: u64 = 4 << 20;

/// Takes bytes and sees whether they belong there.
struct Memory {
    range: PhysRange,
    written: u64,
}

impl Sink for Memory {
    type Error = ();

    fn write(&mut self, paddr: u64, bytes: &[u8]) -> Result<(), ()> {
        assert!(self.range.start <= paddr && paddr + bytes.len() as u64 <= self.range.end, "a write beyond the image");
        self.written += bytes.len() as u64;
        if self.written > ENOUGH { Err(()) } else { Ok(()) }
    }
}

/// The bytes are the module.
pub fn run(bytes: &[u8]) {
    if let Err(error) = load(bytes) {
        assert!(!error.to_string().is_empty());
    }
}

/// Does with a module what is done with dom0's, but for the memory.
///
/// # Errors
/// What is wrong with it.
pub fn load(module: &[u8]) -> Result<(), ImageError> {
    let payload = find(module)?;
    assert!(memory_needed(&payload)? <= MAX_MEMORY);
    let loader = Loader::open(Stream::open(&payload)?)?;
    let (range, entry) = (loader.range(), loader.entry());
    assert!(range.start < range.end);
    let segments = match loader.load(&mut Memory { range, written: 0 }) {
        Ok(segments) => segments,
        Err(LoadError::Image(error)) => return Err(error),
        Err(LoadError::Sink(())) => return Ok(()),
    };
    let notes = XenNotes::read(&segments, range, entry)?;
    for (nr_pages, has_ring) in [(1, false), (1000, true), (1 << 16, true), (1 << 22, false)] {
        let request = Request { notes: &notes, initrd_bytes: module.len() as u64, nr_pages, cmdline_len: 40, has_ring };
        place(&Request { nr_pages: Layout::clip(&request), ..request });
    }
    Ok(())
}

/// Computes a layout and sees whether its tables lead where they may.
fn place(request: &Request<'_>) {
    let layout = match Layout::compute(request) {
        Ok(layout) => layout,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let tables = layout.page_tables;
    for table in layout.tables().take(64) {
        assert!(table.pfn.0 < layout.nr_pages);
        for index in 0..ENTRIES {
            match layout.entry(&table, index) {
                Entry::Empty => {}
                Entry::Table(pfn) => assert!(pfn.0 < layout.nr_pages),
                Entry::Page { pfn, writable } => {
                    assert!(pfn.0 < layout.nr_pages && !(writable && tables.contains(pfn)), "{pfn:?} in {table:?}");
                }
            }
        }
    }
    let _ = start_info::page(&layout, request.notes, Maddr(0x1000), &[b'x'; 40], &Role::Dom0(None));
}
