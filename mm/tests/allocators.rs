// SPDX-License-Identifier: MIT OR Apache-2.0
//! The buddy allocator, the heap, the M2P, and locks under several threads.

use hypercalls::{DomId, Mfn, Pfn};
use mm::buddy::{self, ANYWHERE, MAX_ORDER};
use mm::hosted::{self, Random, peek, poke};
use mm::{Account, Heap, Lock, Share, SharedFrame, m2p};
use std::alloc::{GlobalAlloc, Layout};

#[test]
fn random_allocations_never_overlap_and_all_come_back_merged() {
    let _machine = hosted::boot(4096, 1);
    let mut r = Random::from_env(7);
    let largest = (0..=MAX_ORDER).rev().find_map(|o| buddy::alloc(o, ANYWHERE).map(|m| (o, m)));
    let (order, mfn) = largest.expect("memory is free");
    buddy::free(mfn, order);
    let before = buddy::free_frames();
    let mut owner = vec![0u32; 4096];
    let mut live: Vec<(Mfn, u8, u32)> = vec![];
    for tag in 1..4000 {
        if r.one_in(2) || live.is_empty() {
            let order = r.below(7) as u8;
            let bits = if r.one_in(3) { 12 + r.below(13) as u32 } else { ANYWHERE };
            let Some(mfn) = buddy::alloc(order, bits) else {
                continue;
            };
            assert!(mfn.0.is_multiple_of(1 << order), "aligned");
            assert!(
                bits == ANYWHERE || (mfn.0 + (1 << order)) << 12 <= 1 << bits,
                "{mfn} of order {order} above {bits} bits"
            );
            for f in mfn.0..mfn.0 + (1 << order) {
                assert_eq!(std::mem::replace(&mut owner[f as usize], tag), 0, "{f:#x} allocated twice");
            }
            live.push((mfn, order, tag));
        } else {
            let (mfn, order, tag) = live.swap_remove(r.below(live.len() as u64) as usize);
            for f in mfn.0..mfn.0 + (1 << order) {
                assert_eq!(std::mem::replace(&mut owner[f as usize], 0), tag);
            }
            buddy::free(mfn, order);
        }
        let used: u64 = live.iter().map(|l| 1 << l.1).sum();
        assert_eq!(buddy::free_frames() + used, before);
    }
    live.drain(..).for_each(|(mfn, order, _)| buddy::free(mfn, order));
    assert_eq!(buddy::alloc(order, ANYWHERE), Some(mfn), "merged to what it was");
}

#[test]
fn runs_are_exact_and_found_however_they_are_aligned() {
    let _machine = hosted::boot(8192, 1);
    let before = buddy::free_frames();
    let small = buddy::alloc_run(5).unwrap();
    assert_eq!(buddy::free_frames(), before - 5, "no more than asked for");
    buddy::free_range(small, small.add(5));
    // Free frames from 1000 on but for 6000, so that no block of 4096 is free and 4999 frames in a row are.
    let all: Vec<Mfn> = std::iter::from_fn(|| buddy::alloc(0, ANYWHERE)).collect();
    assert_eq!(all.len() as u64, before);
    buddy::free_range(Mfn(1000), Mfn(6000));
    buddy::free_range(Mfn(6001), Mfn(8192));
    assert_eq!(buddy::alloc(12, ANYWHERE), None);
    assert_eq!(buddy::alloc_run(5001), None);
    let run = buddy::alloc_run(4990).unwrap();
    assert_eq!((run, buddy::free_frames()), (Mfn(1000), 10 + 2191));
    assert!(frames_in(run, 4990).all(|mfn| mm::page_info(mfn).unwrap().allocated));
    assert!(frames_in(Mfn(5990), 10).all(|mfn| !mm::page_info(mfn).unwrap().allocated));
    assert_eq!(buddy::alloc_run(2191), Some(Mfn(6001)));
    assert_eq!(buddy::alloc_run(11), None);
    for (start, end) in [(1000, 5990), (6001, 8192), (1, 1000), (6000, 6001)] {
        buddy::free_range(Mfn(start), Mfn(end));
    }
    assert_eq!(buddy::free_frames(), before);
    assert!(buddy::alloc(12, ANYWHERE).is_some(), "merged again");
}

fn frames_in(start: Mfn, count: u64) -> impl Iterator<Item = Mfn> {
    (0..count).map(move |n| start.add(n))
}

#[test]
fn limits_and_exhaustion_are_errors() {
    let _machine = hosted::boot(512, 1);
    assert_eq!(buddy::alloc(MAX_ORDER + 1, ANYWHERE), None);
    assert_eq!(buddy::alloc(200, ANYWHERE), None);
    assert_eq!(buddy::alloc(9, ANYWHERE), None, "frame 0 is not free");
    assert_eq!(buddy::alloc(0, 0), None);
    assert_eq!(buddy::alloc(0, 13), Some(Mfn(1)));
    let all: Vec<Mfn> = std::iter::from_fn(|| buddy::alloc(0, ANYWHERE)).collect();
    assert_eq!(all.len(), 510);
    assert_eq!((buddy::free_frames(), buddy::total_frames()), (0, 512));
    all.into_iter().for_each(|m| buddy::free(m, 0));
}

#[test]
fn ranges_of_any_alignment_are_freed_whole() {
    let machine = hosted::boot(512, 1);
    drop(machine);
    let _machine = hosted::boot(777, 1);
    assert_eq!(buddy::free_frames(), 776);
}

#[test]
fn guests_get_zeroed_frames() {
    let _machine = hosted::boot(512, 1);
    let a = Account::open(DomId(1), 100).unwrap();
    let f = buddy::alloc(3, ANYWHERE).unwrap();
    (0..8).for_each(|i| poke(f.add(i), 7, 0x5ec2e7));
    buddy::free(f, 3);
    let again: Vec<Mfn> = (0..8).map(|_| a.populate(3, ANYWHERE)).map_while(Result::ok).collect();
    assert!(again.contains(&f));
    assert!((0..8).all(|i| peek(f.add(i), 7) == 0));
    let shared = SharedFrame::alloc(DomId(1), Share::ReadWrite).unwrap();
    assert!((0..512).all(|i| peek(shared.mfn(), i) == 0));
}

#[test]
fn the_m2p_forgets_frames_that_are_given_up() {
    let _machine = hosted::boot(512, 1);
    let a = Account::open(DomId(1), 10).unwrap();
    let f = a.populate(0, ANYWHERE).unwrap();
    assert_eq!(m2p::get(f), None);
    m2p::set(f, Pfn(77));
    assert_eq!(m2p::get(f), Some(Pfn(77)));
    a.give_up(f).unwrap();
    assert_eq!(m2p::get(f), None);
    m2p::set(Mfn(u64::MAX), Pfn(1));
    assert_eq!((m2p::get(Mfn(u64::MAX)), m2p::entries()), (None, 512));
}

#[test]
fn the_heap_keeps_objects_apart_and_gives_large_ones_back() {
    #![expect(unsafe_code, reason = "calls an allocator by hand")]
    let _machine = hosted::boot(8192, 1);
    let heap = Heap::new();
    let mut r = Random::from_env(11);
    let mut live: Vec<(*mut u8, Layout, u8)> = vec![];
    let mut large = 0u64;
    let free = buddy::free_frames();
    for n in 0..3000u32 {
        if r.one_in(2) || live.is_empty() {
            let size = if r.one_in(20) { 1 + r.below(200_000) } else { 1 + r.below(2000) } as usize;
            let layout = Layout::from_size_align(size, 1 << r.below(8)).unwrap();
            // SAFETY: the layout is not empty.
            let at = unsafe { heap.alloc(layout) };
            assert!(!at.is_null() && (at as usize).is_multiple_of(layout.align()));
            // SAFETY: just allocated with this size.
            unsafe { at.write_bytes(n as u8, size) };
            live.push((at, layout, n as u8));
        } else {
            let (at, layout, tag) = live.swap_remove(r.below(live.len() as u64) as usize);
            // SAFETY: allocated and filled above, freed once.
            unsafe {
                assert!(std::slice::from_raw_parts(at, layout.size()).iter().all(|b| *b == tag));
                heap.dealloc(at, layout);
            }
            large += u64::from(layout.size() >= 32 << 10);
        }
    }
    for (at, layout, _) in live {
        // SAFETY: as above.
        unsafe { heap.dealloc(at, layout) };
    }
    let (used, size) = heap.usage();
    assert!(large > 0 && used == 0, "{used} of {size} bytes left");
    assert_eq!(buddy::free_frames(), free - (size as u64 >> 12), "only the regions stay");
}

#[test]
fn there_is_room_for_small_objects_or_not() {
    let _machine = hosted::boot(1024, 1);
    let heap: &'static Heap = Box::leak(Box::new(Heap::new()));
    assert!(mm::heap::has_spare(usize::MAX), "nobody knows of the heap");
    heap.announce();
    let free = buddy::free_frames();
    assert!(mm::heap::has_spare(1 << 19) && mm::heap::has_spare(1 << 19));
    assert_eq!(free - buddy::free_frames(), 256, "one region is enough");
    assert!(mm::heap::has_spare(3 << 19));
    assert!(!mm::heap::has_spare(4 << 20), "that is all memory there is");
    let left = buddy::free_frames();
    assert!(mm::heap::has_spare(1 << 20));
    assert_eq!(buddy::free_frames(), left);
}

#[test]
fn a_lock_excludes() {
    let lock = Lock::new(3, 0u64);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| (0..20_000).for_each(|_| *lock.lock() += 1));
        }
    });
    assert_eq!(*lock.lock(), 80_000);
    let held = lock.lock();
    assert!(lock.try_lock().is_none());
    drop(held);
    assert!(lock.try_lock().is_some());
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "lock of rank 3 wanted")]
fn locks_out_of_order_are_noticed() {
    let (outer, inner) = (Lock::new(3, ()), Lock::new(5, ()));
    let _second = inner.lock();
    let _first = outer.lock();
}
