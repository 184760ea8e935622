// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory at boot: from the loader's map to page tables, then to allocators.
#![expect(unsafe_code, reason = "hands raw memory to the allocators")]

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arch::{CpuId, layout, paging, phys};
use boot::BootInfo;
use boot::memory_map::{MemRegion, RegionKind};
use hypercalls::{Maddr, Mfn};
use mm::boot_alloc;
use mm::{BootAllocator, Tables};
use spin::Mutex;

/// Why there is no memory to work with.
#[derive(Clone, Copy, Debug)]
pub(super) enum MemoryError {
    /// Too little: what there is and what is needed, in MiB.
    TooLittle(u64, u64),
    /// The boot allocator has nothing left.
    Exhausted,
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLittle(have, need) => {
                write!(f, "this machine has {have} MiB of memory, and at least {need} MiB are needed")
            }
            Self::Exhausted => f.write_str("there is no memory for the hypervisor's tables"),
        }
    }
}

impl From<paging::NoTables> for MemoryError {
    fn from(_: paging::NoTables) -> Self {
        Self::Exhausted
    }
}

/// What is needed at the very least, in MiB.
const MINIMUM: u64 = 96;
/// Memory below this is firmware's and the trampoline's.
const LOW: u64 = 1 << 20;
/// What the boot page tables map.
const BOOT_MAPPED: u64 = 4 << 30;
const CHUNK: u64 = 2 << 20;
/// Frames that no domain can have: 4 MiB.
const KEPT: u64 = 1024;

struct Boot {
    allocator: Option<BootAllocator>,
    frames: u64,
    /// Where the M2P is.
    m2p: Range<u64>,
    modules: [Range<u64>; 32],
}

static BOOT: Mutex<Boot> = Mutex::new(Boot { allocator: None, frames: 0, m2p: 0..0, modules: [const { 0..0 }; 32] });
/// End of what the direct map covers.
static MAPPED_END: AtomicU64 = AtomicU64::new(BOOT_MAPPED);

fn ram(info: &BootInfo) -> impl Iterator<Item = Range<u64>> + '_ {
    info.memory.iter().filter(|r| r.kind == RegionKind::Usable).filter_map(|r| {
        let start = r.start.max(LOW).next_multiple_of(4096);
        let end = r.end.min(layout::DIRECT_MAP_SIZE) & !4095;
        (start < end).then_some(start..end)
    })
}

fn has_memory(region: &MemRegion) -> bool {
    matches!(region.kind, RegionKind::Usable | RegionKind::AcpiReclaimable | RegionKind::AcpiNvs)
}

/// Makes the final page tables and CPU 0's area. Nothing is loaded yet.
pub(super) fn make_tables(info: &BootInfo, loader_block: Range<u64>) -> Result<(), MemoryError> {
    log::info!("memory map:");
    for region in &info.memory {
        log::info!("  {region}");
    }
    let total: u64 = ram(info).map(|r| r.end - r.start).sum();
    if total >> 20 < MINIMUM {
        return Err(MemoryError::TooLittle(total >> 20, MINIMUM));
    }
    let end = ram(info).map(|r| r.end).max().unwrap_or(0);
    let frames = end >> 12;
    let mut boot = BOOT.lock();
    boot.frames = frames;
    let range = |r: &Range<u64>| boot_alloc::Range { start: r.start, end: r.end };
    let mut allocator = BootAllocator::new(ram(info).map(|r| range(&r)));
    allocator.reserve(range(&boot::entry::image()));
    allocator.reserve(range(&loader_block));
    for (module, kept) in info.modules.iter().zip(boot.modules.iter_mut()) {
        *kept = module.start & !4095..module.end.next_multiple_of(4096);
        allocator.reserve(range(kept));
    }
    let tables = build(info, &mut allocator, frames);
    boot.allocator = Some(allocator);
    MAPPED_END.store(layout::DIRECT_MAP_SIZE, Relaxed);
    boot.m2p = tables?;
    Ok(())
}

/// Makes the page tables; returns where the M2P is.
fn build(info: &BootInfo, from: &mut BootAllocator, frames: u64) -> Result<Range<u64>, MemoryError> {
    let frame_table = (frames * 32).next_multiple_of(CHUNK);
    let m2p = (frames * 8).next_multiple_of(CHUNK);
    // Tables over all frames come from high memory: below 4 GiB is for devices. They are zeroed when they are mapped.
    let big = |from: &mut BootAllocator, bytes| from.alloc(bytes, CHUNK, u64::MAX).ok_or(MemoryError::Exhausted);
    let frame_table_at = big(from, frame_table)?;
    let m2p_at = big(from, m2p)?;
    let mut table = || {
        let frame = from.alloc(4096, 4096, BOOT_MAPPED)?.mfn();
        // SAFETY: a fresh frame below 4 GiB, which the boot page tables map.
        unsafe { phys::zero(frame) };
        Some(frame)
    };
    paging::init(&mut table)?;
    for region in info.memory.iter().filter(|r| has_memory(r)) {
        let (start, end) = (region.start & !4095, region.end.next_multiple_of(4096).min(layout::DIRECT_MAP_SIZE));
        paging::map(layout::DIRECT_MAP + start, Maddr(start), end.saturating_sub(start), paging::RW, &mut table)?;
    }
    // The first MiB whole: firmware's tables and the trampoline.
    paging::map(layout::DIRECT_MAP, Maddr(0), LOW, paging::RW, &mut table)?;
    paging::map(layout::FRAME_TABLE, frame_table_at, frame_table, paging::RW, &mut table)?;
    paging::map(layout::M2P_RW, m2p_at, m2p, paging::RW, &mut table)?;
    paging::map(layout::M2P_RO, m2p_at, m2p, paging::USER_RO, &mut table)?;
    map_image(&mut table)?;
    arch::cpu::create_area(CpuId(0), 0, &mut table)?;
    Ok(m2p_at.0..m2p_at.0 + m2p)
}

unsafe extern "C" {
    static __image_start: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __image_end: u8;
}

/// Maps the image part by part, none both writable and executable.
fn map_image(table: paging::TableAlloc<'_>) -> Result<(), MemoryError> {
    let parts = [
        (&raw const __image_start, &raw const __text_start, paging::RO),
        (&raw const __text_start, &raw const __text_end, paging::RX),
        (&raw const __rodata_start, &raw const __rodata_end, paging::RO),
        (&raw const __data_start, &raw const __image_end, paging::RW),
    ];
    for (start, end, flags) in parts {
        let (start, end) = (start as u64 & !4095, (end as u64).next_multiple_of(4096));
        let maddr = Maddr(start - boot::entry::VIRT_OFFSET);
        paging::map(start, maddr, end.saturating_sub(start), flags, table)?;
    }
    Ok(())
}

/// Takes over the tables and gives all free memory to the allocators. Runs on the final page tables.
pub(super) fn start_allocators() {
    let boot = BOOT.lock();
    let frame_table = layout::FRAME_TABLE as usize;
    let bytes = (boot.frames as usize) * 32;
    // SAFETY: `build` mapped that much there, and nothing uses it yet.
    unsafe { core::ptr::write_bytes(frame_table as *mut u8, 0, bytes) };
    // SAFETY: both tables are mapped for `frames` frames for ever; the frame table is zeroed.
    unsafe { mm::init(Tables { frame_table, m2p: layout::M2P_RW as usize, frames: boot.frames }) };
    for range in ram(&super::INFO.lock()) {
        mm::buddy::add_ram(Mfn(range.start >> 12), Mfn(range.end >> 12));
    }
    if let Some(allocator) = &boot.allocator {
        for range in allocator.ranges() {
            mm::buddy::free_range(Mfn(range.start.div_ceil(4096)), Mfn(range.end / 4096));
        }
    }
    mm::buddy::keep(KEPT);
    mm::m2p::publish(Mfn(boot.m2p.start >> 12), (boot.m2p.end - boot.m2p.start) >> 12);
    mm::pt::set_hypervisor_slots(&paging::hypervisor_slots());
    log::info!("{} MiB of memory, {} MiB free", mm::buddy::total_frames() >> 8, mm::buddy::free_frames() >> 8);
}

/// Frees the boot modules: what dom0 needs of them was copied.
pub(super) fn free_modules() {
    let boot = BOOT.lock();
    let mut done = 0;
    for module in boot.modules.iter().filter(|m| m.end > m.start) {
        let (start, end) = (module.start.max(LOW).max(done) >> 12, module.end >> 12);
        if start < end {
            mm::buddy::free_range(Mfn(start), Mfn(end));
        }
        done = done.max(module.end);
    }
}

/// Returns where machine memory can be read: RAM and firmware tables by the direct map, all else by a new mapping.
pub(super) fn map(maddr: u64, len: usize) -> *mut u8 {
    let end = maddr.saturating_add(len as u64);
    let first_mib = end <= LOW;
    let va = layout::DIRECT_MAP.wrapping_add(maddr);
    let mapped = |at: u64| paging::translate(layout::DIRECT_MAP.wrapping_add(at)).is_some();
    if first_mib || (end <= MAPPED_END.load(Relaxed) && mapped(maddr) && mapped(end.saturating_sub(1))) {
        return va as *mut u8;
    }
    map_uncached(maddr, len)
}

/// Maps a device's memory, uncached, wherever it lies; null without memory for page tables.
pub(super) fn map_uncached(maddr: u64, len: usize) -> *mut u8 {
    match paging::map_device(Maddr(maddr), len as u64, &mut hypervisor::create::table_frame) {
        Ok(va) => va as *mut u8,
        Err(_) => core::ptr::null_mut(),
    }
}

/// Returns a boot module's bytes.
pub(super) fn module(range: Range<u64>) -> &'static [u8] {
    let len = (range.end - range.start) as usize;
    // SAFETY: the loader put the module into RAM that the direct map covers; it was reserved and is not written until
    // `free_modules`, after its last use.
    unsafe { core::slice::from_raw_parts((layout::DIRECT_MAP + range.start) as *const u8, len) }
}
