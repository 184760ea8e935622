// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys that tell about memory.

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arch::cpu;
use hypercalls::{DomId, Mfn};
use mm::{PageType, buddy, frame};
use spin::once::Once;

use super::text::{line, part};
use super::{Place, Text};
use crate::domain;

/// Tells how many bytes small objects on the heap use, and how many there are for them; set once, at boot.
pub static HEAP_USAGE: Once<fn() -> (usize, usize), arch::sync::Relax> = Once::new();

const fn kib(frames: u64) -> u64 {
    frames * 4
}

/// Tells about the hypervisor's heap and about free memory, by width of its addresses.
pub(super) fn heap(_at: u64, to: &mut Text) -> Option<u64> {
    if let Some(usage) = HEAP_USAGE.get() {
        let (used, size) = usage();
        line!(to, "heap: {} of {} KiB used by small objects", used >> 10, size >> 10);
    }
    if let Some((used, cpu)) = cpu::online().iter().map(|cpu| (cpu::deepest_stack(cpu), cpu.0)).max() {
        line!(to, "stacks: at most {} of {} KiB used, on CPU {cpu}", used.div_ceil(1024), cpu::STACK_BYTES >> 10);
    }
    line!(to, "free: {} of {} KiB", kib(buddy::free_frames()), kib(buddy::total_frames()));
    let mut low = 0;
    for bits in 12..=52 {
        let below = buddy::free_frames_below(bits);
        if below != low {
            line!(to, "  addresses of {bits} bits: {} KiB", kib(below - low));
        }
        low = below;
    }
    line!(
        to,
        "claimed: {} KiB; scrubbed by idle CPUs so far: {} KiB",
        kib(buddy::claimed_frames()),
        kib(buddy::scrubbed())
    );
    None
}

/// Tells what the machine has, and each domain.
pub(super) fn summary(at: u64, to: &mut Text) -> Option<u64> {
    let Place { domain: id, .. } = Place::of(at);
    if at == 0 {
        let (free, total) = (buddy::free_frames(), buddy::total_frames());
        line!(to, "{total} frames of RAM below {}, {free} are free, {} are in use", Mfn(frame::end()), total - free);
        return Place::at(id, 1);
    }
    let domain = domain::next(id)?;
    let (owned, most) = (domain.account.owned(), domain.account.maximum());
    line!(to, "domain {}: {owned} pages ({} MiB), at most {}", domain.id.0, owned >> 8, Limit(most));
    Place::behind(domain.id)
}

/// How much something may be.
pub(super) struct Limit(pub(super) u64);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == u64::MAX { f.write_str("any number") } else { self.0.fmt(f) }
    }
}

/// Tells about NUMA nodes: memory is one.
pub(super) fn nodes(_at: u64, to: &mut Text) -> Option<u64> {
    let (free, total) = (buddy::free_frames(), buddy::total_frames());
    line!(to, "node 0: {total} pages, {free} free, {} CPUs", cpu::online().count());
    None
}

/// Frames that one step looks at.
const FRAMES: u64 = 16 << 10;
/// Domains of which pages are counted at a time.
const KINDS: usize = 10;
/// What has been counted of the domain at hand: pages by type, then pinned and partial ones and those that linger.
static COUNTS: [AtomicU64; KINDS] = [const { AtomicU64::new(0) }; KINDS];
const PINNED: usize = 7;
const PARTIAL: usize = 8;
const LINGERING: usize = 9;

const NAMES: [&str; KINDS] =
    ["no type", "L1", "L2", "L3", "L4", "descriptors", "writable", "pinned", "validated in part", "given up"];

/// Tells what the pages of every domain are used for. A place is a domain and the number of the next lot of frames.
pub(super) fn page_types(at: u64, to: &mut Text) -> Option<u64> {
    let Place { domain: id, item } = Place::of(at);
    let domain = domain::next(id)?;
    let lot = if domain.id == id { item } else { 0 };
    if lot == 0 {
        COUNTS.iter().for_each(|count| count.store(0, Relaxed));
        line!(to, "domain {}:", domain.id.0);
    }
    let first = u64::from(lot) * FRAMES;
    let end = (first + FRAMES).min(frame::end());
    (first..end).map(Mfn).for_each(|mfn| count(mfn, domain.id));
    if end < frame::end() {
        // The place changes, so this is no waiting.
        return Place::at(domain.id, lot + 1);
    }
    let counts = NAMES.iter().zip(&COUNTS).map(|(name, count)| (name, count.load(Relaxed)));
    for (name, count) in counts.filter(|(_, count)| *count != 0) {
        part!(to, "  {name} {count}");
    }
    line!(to, "");
    Place::behind(domain.id)
}

/// Counts a frame if it is the domain's.
fn count(mfn: Mfn, owner: DomId) {
    let Some(state) = mm::page_info(mfn).filter(|state| state.ram && state.owner == owner) else { return };
    let add = |kind: usize| COUNTS[kind % KINDS].fetch_add(1, Relaxed);
    let has_type = state.type_count != 0;
    add(match state.page_type {
        PageType::None => 0,
        _ if !has_type => 0,
        PageType::L1 => 1,
        PageType::L2 => 2,
        PageType::L3 => 3,
        PageType::L4 => 4,
        PageType::SegDesc => 5,
        PageType::Writable => 6,
    });
    for (kind, is_so) in [(PINNED, state.pinned), (PARTIAL, state.partial), (LINGERING, !state.allocated)] {
        if is_so {
            add(kind);
        }
    }
}
