// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor's heap: small objects from regions of 1 MiB, large ones straight from the buddy allocator.
//!
//! Regions are taken from the buddy allocator as they are needed and never given back. What is at least [`LARGE`] bytes
//! has frames of its own, just as many as it needs, so that it costs nothing when it is gone.
//!
//! # Locking
//! One lock, ranked below the buddy allocator's only, so memory may be allocated under any other.
#![expect(unsafe_code, reason = "GlobalAlloc, and machine frames become Rust memory")]

use crate::buddy;
use crate::lock::{Lock, rank};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use hypercalls::Mfn;
use hypercalls::addr::PAGE_SIZE;
use linked_list_allocator::Heap as Region;

/// From this size on, an object has frames of its own.
const LARGE: usize = 32 << 10;
const REGION_ORDER: u8 = 8;
const REGION_BYTES: usize = PAGE_SIZE << REGION_ORDER;
const MAX_REGIONS: usize = 256;

struct Regions {
    all: [Region; MAX_REGIONS],
    used: usize,
}

/// The heap; to be the binary's `#[global_allocator]`. Works as soon as the buddy allocator has memory.
pub struct Heap {
    regions: Lock<Regions>,
}

impl core::fmt::Debug for Heap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Heap").finish_non_exhaustive()
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    /// Makes an empty heap.
    pub const fn new() -> Self {
        Self { regions: Lock::new(rank::HEAP, Regions { all: [const { Region::empty() }; MAX_REGIONS], used: 0 }) }
    }
    /// Returns how many bytes small objects use, and how many all regions have.
    pub fn usage(&self) -> (usize, usize) {
        let regions = self.regions.lock();
        regions.all[..regions.used].iter().fold((0, 0), |(u, s), r| (u + r.used(), s + r.size()))
    }

    /// Makes this the heap that [`has_spare`] speaks of.
    pub fn announce(&'static self) {
        ANNOUNCED.call_once(|| self);
    }
}

static ANNOUNCED: spin::once::Once<&'static Heap, arch::sync::Relax> = spin::once::Once::new();

/// Makes sure that small objects of so many bytes in all can be allocated; false when memory is too short for that. To be
/// asked before what a guest asked for takes memory that cannot be refused later. True where the heap is another one.
pub fn has_spare(bytes: usize) -> bool {
    ANNOUNCED.get().is_none_or(|heap| heap.regions.lock().make_spare(bytes))
}

impl Regions {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // Newest first: the old ones are full.
        if let Some(at) = self.all[..self.used].iter_mut().rev().find_map(|r| r.allocate_first_fit(layout).ok()) {
            return Some(at);
        }
        self.add()?.allocate_first_fit(layout).ok()
    }
    fn add(&mut self) -> Option<&mut Region> {
        let region = self.all.get_mut(self.used)?;
        let start = buddy::alloc(REGION_ORDER, buddy::ANYWHERE)?;
        // SAFETY: the frames are the hypervisor's, mapped in the direct map, and from now on only this region's.
        unsafe { region.init(arch::phys::frame_ptr(start), REGION_BYTES) };
        self.used += 1;
        Some(region)
    }
    fn make_spare(&mut self, bytes: usize) -> bool {
        while self.all[..self.used].iter().map(Region::free).sum::<usize>() < bytes {
            if self.add().is_none() {
                return false;
            }
        }
        true
    }
    /// # Safety
    /// `at` came from [`Regions::alloc`] with this layout and is not used any more.
    unsafe fn free(&mut self, at: NonNull<u8>, layout: Layout) {
        let owner = self.all[..self.used]
            .iter_mut()
            .find(|r| (r.bottom() as usize..r.top() as usize).contains(&(at.as_ptr() as usize)));
        if let Some(region) = owner {
            // SAFETY: the address lies in this region, so it came from it; the rest is the caller's promise.
            unsafe { region.deallocate(at, layout) }
        }
    }
}

fn frames(layout: Layout) -> Option<NonNull<u8>> {
    let count = frames_of(layout);
    let aligned = layout.align() > PAGE_SIZE;
    let mfn =
        if aligned { buddy::alloc(count.trailing_zeros() as u8, buddy::ANYWHERE) } else { buddy::alloc_run(count) }?;
    // SAFETY: the frames were just allocated to the hypervisor: RAM that nothing else uses.
    NonNull::new(unsafe { arch::phys::frame_ptr(mfn) })
}

/// Frames of an object; alignments above a page's take as many, so that a block of them is aligned.
fn frames_of(layout: Layout) -> u64 {
    let aligned = if layout.align() > PAGE_SIZE { layout.size().max(layout.align()).next_power_of_two() } else { 0 };
    layout.size().max(aligned).max(1).div_ceil(PAGE_SIZE) as u64
}

// SAFETY: objects are disjoint parts of regions or whole blocks of frames, aligned as asked for (see `frames_of`); which of the two is decided by the layout alone, so `dealloc` decides as `alloc` did.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let at = if layout.size() >= LARGE || layout.align() >= PAGE_SIZE {
            frames(layout)
        } else {
            self.regions.lock().alloc(layout)
        };
        at.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if layout.size() >= LARGE || layout.align() >= PAGE_SIZE {
            let mfn = Mfn(((at as usize - arch::phys::directmap()) / PAGE_SIZE) as u64);
            buddy::free_range(mfn, mfn.add(frames_of(layout)));
        } else if let Some(at) = NonNull::new(at) {
            // SAFETY: the caller's promise (`GlobalAlloc::dealloc`), and the layout says that it came from a region.
            unsafe { self.regions.lock().free(at, layout) }
        }
    }
}
