// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has gone wrong elsewhere, by the number of its advisory, as far as `page_types` does not have it.

mod world;

use arch::phys::take_flushed_caches;
use hypercalls::{Errno, Maddr};
use mm::flags::{A, D, PAT, PCD, PWT};
use mm::hosted::poke;
use mm::{PageType, Write};
use world::*;

#[test]
fn xsa_402_what_caches_and_memory_may_say_differently_is_written_back_before_it_is_read() {
    let mut w = World::one();
    w.d().devices = true;
    let [_, _, _, l1] = tree(w.d(), 0);
    w.d().pin(l1, 1).unwrap();
    let frames: Vec<_> = w.d().frames[20..26].to_vec();
    take_flushed_caches();
    // Write-combining, uncached, and both through an entry that was read-only first.
    for (n, bits) in [PAT, PCD, PWT | PCD].into_iter().enumerate() {
        w.d().set(l1, n, to(frames[n], P | bits)).unwrap();
        w.d().set(l1, n, to(frames[n], P | RW | bits)).unwrap();
    }
    w.d().set(l1, 3, to(frames[3], P | RW)).unwrap();
    w.d().set(l1, 4, to(frames[4], P | PAT)).unwrap();
    w.d().set(l1, 5, to(frames[5], P | RW | PAT)).unwrap();
    (0..6).for_each(|n| w.d().set(l1, n, 0).unwrap());
    assert_eq!(take_flushed_caches(), [], "while it is plain memory, that is the guest's affair");
    w.d().pin(frames[0], 1).unwrap();
    w.d().pin(frames[1], 4).unwrap();
    assert_eq!(take_flushed_caches(), frames[..2], "before a table is validated");
    drop(w.d().once(|t, c| t.get_segdesc(c, frames[2])).unwrap());
    assert_eq!(take_flushed_caches(), [frames[2]], "before descriptors are");
    for plain in [frames[3], frames[4]] {
        w.d().pin(plain, 1).unwrap();
    }
    assert_eq!(take_flushed_caches(), [], "not if all wrote through caches, or nobody wrote");
    w.d().account.give_up(frames[5]).unwrap();
    assert_eq!(take_flushed_caches(), [frames[5]], "before somebody else gets it");
    w.d().unpin(frames[0]).unwrap();
    w.d().pin(frames[0], 1).unwrap();
    assert_eq!(take_flushed_caches(), [], "once");
    w.check();
}

#[test]
fn xsa_252_a_pinned_table_that_is_given_up_stays_pinned() {
    let mut w = World::one();
    let [l4, _, _, l1] = tree(w.d(), 0);
    w.d().pin(l4, 4).unwrap();
    w.d().pin(l1, 1).unwrap();
    let owned = w.d().account.owned();
    for table in [l1, l4] {
        w.d().account.give_up(table).unwrap();
        let state = mm::page_info(table).expect("a frame");
        assert!(state.pinned && state.type_count > 0 && !state.allocated, "{state:?}");
        assert_eq!(w.d().pin(table, 1), Err(Errno::EINVAL));
    }
    assert_eq!(w.d().account.owned(), owned);
    w.check();
    w.d().unpin(l4).unwrap();
    assert_eq!(w.d().account.owned(), owned - 1, "its last reference was the pin");
    w.d().unpin(l1).unwrap();
    assert_eq!(w.d().account.owned(), owned - 2);
    w.check();
}

#[test]
fn xsa_227_entries_are_whole_words() {
    let mut w = World::one();
    let data = w.d().frames[10];
    let tables = tree(w.d(), to(data, P | RW));
    w.d().pin(tables[0], 4).unwrap();
    for table in tables {
        let before: Vec<_> = (0..3).map(|n| read(table, n)).collect();
        for offset in (1..8).chain([9, 4095]) {
            let at = Maddr(table.maddr().0 + offset);
            for value in [0, read(table, 0) ^ (A | D), to(data, P | RW), u64::MAX] {
                for how in [Write::Plain, Write::PreserveAd] {
                    assert_eq!(w.d().once(|t, c| t.mod_entry(c, at, value, how)), Err(Errno::EINVAL), "{offset}");
                    assert_eq!(w.d().once(|t, c| t.mod_l1(c, at, value, how)), Err(Errno::EINVAL), "{offset}");
                }
                assert_eq!(w.d().once(|t, c| t.swap_l1(c, at, value)), Err(Errno::EINVAL));
                assert_eq!(w.d().once(|t, c| t.cmpxchg_l1(c, at, 0, value)), Err(Errno::EINVAL));
            }
        }
        assert_eq!((0..3).map(|n| read(table, n)).collect::<Vec<_>>(), before);
    }
    w.check();
}

/// A validation that was cut short anywhere: until it is gone on with, no other use of the tables succeeds or changes a count.
#[test]
fn xsa_299_a_table_in_use_is_not_unpinned_twice_nor_pinned_as_another() {
    let mut w = World::one();
    let data = w.d().frames[10];
    let [l4, l3, l2, l1] = tree(w.d(), to(data, P | RW));
    poke(l1, 1, to(data, P));
    for cut in 0..8 {
        arch::cpu::preempt_after(Some(cut));
        let first = w.d().once(|t, c| t.pin(c, l4, 4));
        arch::cpu::preempt_after(None);
        // Whatever was reached, other uses of the tables are refused or wait, and nothing is counted twice.
        for (table, level) in [(l4, 3), (l3, 4), (l2, 3), (l1, 2)] {
            let other = w.d().once(|t, c| t.pin(c, table, level));
            assert!(other.is_err(), "{cut}: {table} as level {level}");
            w.check();
        }
        assert_eq!(w.d().unpin(l3), Err(Errno::EINVAL), "it is not pinned");
        if first.is_err() {
            w.d().pin(l4, 4).unwrap();
        }
        assert_eq!(kind(data), (PageType::Writable, 1));
        w.d().unpin(l4).unwrap();
        assert_eq!(w.d().unpin(l4), Err(Errno::EINVAL));
        w.check();
    }
}
