// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries of frames that another domain lent: whose references they hold, and what is stale when.

mod world;

use hypercalls::{DomId, Errno, GuestVa, Maddr, Mfn};
use mm::flags::{A, AVAIL, D, GUEST_KERNEL, NX, PSE};
use mm::invariants::{self, Foreign, Held};
use mm::{EntryRef, PageType, RootUse};
use world::*;

/// Two domains; the second has a tree whose L4 this CPU has loaded, and whose L1 table maps nothing.
fn borrower() -> (World, [Mfn; 4]) {
    let mut w = World::new(2, 48);
    let d = &mut w.domains[1];
    let tables = tree(d, 0);
    d.root(tables[0], RootUse::Kernel).unwrap();
    d.account.dirty.insert(arch::cpu::this_cpu());
    arch::guest::set_root(tables[0]);
    (w, tables)
}

/// The second domain maps a frame of the first one's.
fn map(w: &mut World, at: Maddr, flags: u64, frame: usize, writable: bool) -> Result<(), Errno> {
    let lender = &w.domains[0];
    let lent = EntryRef::get(lender.frames[frame], lender.id(), writable).unwrap();
    w.domains[1].once(|t, c| t.map_lent(c, at, flags, lent))
}

fn unmap(w: &mut World, at: Maddr, mfn: Mfn, writable: bool) -> Result<EntryRef, Errno> {
    w.domains[1].once(|t, c| t.unmap_lent(c, at, mfn, writable))
}

#[test]
fn an_entry_holds_what_it_was_given_and_gives_it_back() {
    let (mut w, [_, _, _, l1]) = borrower();
    let f = w.domains[0].frames[9];
    map(&mut w, slot(l1, 0), A | D | NX | AVAIL, 9, true).unwrap();
    assert_eq!(read(l1, 0), to(f, P | RW | A | D | NX | AVAIL | US | GUEST_KERNEL));
    assert_eq!(kind(f), (PageType::Writable, 1));
    map(&mut w, slot(l1, 1), US, 9, false).unwrap();
    assert_eq!(read(l1, 1) & (P | RW | US), P | US);
    w.check();
    assert_eq!(unmap(&mut w, slot(l1, 0), f, false).unwrap_err(), Errno::EINVAL, "other rights");
    assert_eq!(unmap(&mut w, slot(l1, 0), Mfn(f.0 + 1), true).unwrap_err(), Errno::EINVAL, "another frame");
    let elsewhere = slot(w.domains[1].frames[20], 0);
    assert_eq!(unmap(&mut w, slot(l1, 2), f, true).unwrap_err(), Errno::EINVAL, "nothing there");
    assert_eq!(unmap(&mut w, elsewhere, f, true).unwrap_err(), Errno::EINVAL, "no table");
    let back = unmap(&mut w, slot(l1, 0), f, true).unwrap();
    w.check_with(&[Held::typed(f)]);
    drop(back);
    assert_eq!(kind(f).1, 0);
    w.check();
}

#[test]
fn what_was_there_is_dropped_and_what_is_refused_changes_nothing() {
    let (mut w, [_, _, _, l1]) = borrower();
    let own = w.domains[1].frames[20];
    w.domains[1].set(l1, 0, to(own, P | RW)).unwrap();
    let before = read(l1, 0);
    for flags in [PSE, 1 << 50] {
        assert_eq!(map(&mut w, slot(l1, 0), flags, 9, true), Err(Errno::EINVAL));
    }
    assert_eq!(map(&mut w, Maddr(slot(l1, 0).0 + 4), 0, 9, true), Err(Errno::EINVAL));
    let elsewhere = slot(w.domains[0].frames[3], 0);
    assert_eq!(map(&mut w, elsewhere, 0, 9, true), Err(Errno::EINVAL));
    assert_eq!(read(l1, 0), before);
    w.check();
    map(&mut w, slot(l1, 0), 0, 9, false).unwrap();
    assert_eq!(kind(own).1, 0);
    w.check();
}

#[test]
fn an_entry_moves_into_the_place_of_a_lent_one() {
    let (mut w, [_, _, _, l1]) = borrower();
    let (f, own) = (w.domains[0].frames[9], w.domains[1].frames[20]);
    map(&mut w, slot(l1, 0), 0, 9, true).unwrap();
    w.domains[1].set(l1, 1, to(own, P | RW)).unwrap();
    let moved = read(l1, 1);
    let replace = |w: &mut World, from| w.domains[1].once(|t, c| t.replace_lent(c, slot(l1, 0), f, true, from));
    assert_eq!(replace(&mut w, slot(l1, 0)).unwrap_err(), Errno::EINVAL, "itself");
    assert_eq!(replace(&mut w, slot(own, 0)).unwrap_err(), Errno::EINVAL, "no table");
    w.check();
    let back = replace(&mut w, slot(l1, 1)).unwrap();
    assert_eq!((read(l1, 0), read(l1, 1)), (moved, 0));
    w.check_with(&[Held::typed(f)]);
    drop(back);
    // What is moved may be nothing at all.
    map(&mut w, slot(l1, 0), 0, 9, true).unwrap();
    drop(replace(&mut w, slot(l1, 7)).unwrap());
    assert_eq!(read(l1, 0), 0);
    w.check();
}

#[test]
fn the_borrower_may_drop_rights_but_not_take_any() {
    let (mut w, [l4, _, _, l1]) = borrower();
    let f = w.domains[0].frames[9];
    map(&mut w, slot(l1, 0), 0, 9, true).unwrap();
    let d = &mut w.domains[1];
    d.set(l1, 0, to(f, P)).unwrap();
    assert_eq!(kind(f), (PageType::Writable, 0));
    assert_eq!(d.set(l1, 0, to(f, P | RW)), Err(Errno::EBUSY));
    assert_eq!(d.set(l1, 1, to(f, P)), Err(Errno::EBUSY), "nor map it a second time");
    // Once out of use as a table, the entry is a number like any other.
    d.set(w_l2(l4), 0, 0).unwrap();
    d.drain();
    assert_eq!(d.pin(l1, 1), Err(Errno::EINVAL));
    w.check();
}

/// The L2 table below the first entries of an L4 table.
fn w_l2(l4: Mfn) -> Mfn {
    mm::flags::mfn_of(read(mm::flags::mfn_of(read(l4, 0)), 0))
}

#[test]
fn an_overwritten_loan_is_flushed_where_it_may_be_stale_before_the_frame_changes_its_type() {
    let (mut w, [_, _, _, l1]) = borrower();
    let f = w.domains[0].frames[9];
    map(&mut w, slot(l1, 0), 0, 9, true).unwrap();
    arch::guest::copy_to(GuestVa(0), &[0; 8]).unwrap();
    w.domains[1].set(l1, 0, 0).unwrap();
    arch::guest::copy_to(GuestVa(0), &[0; 8]).expect("stale, as on hardware");
    // The lender runs nowhere, so its own CPUs have nothing to flush.
    w.domains[0].pin(f, 1).unwrap();
    assert!(arch::guest::copy_to(GuestVa(0), &[0; 8]).is_err());
    w.check();
    // Never lent since: nobody else is disturbed.
    w.domains[0].unpin(f).unwrap();
    let flushes = arch::tlb::full_flushes();
    let back = w.domains[0].once(|t, c| t.get_segdesc(c, f)).unwrap();
    assert_eq!(arch::tlb::full_flushes(), flushes);
    drop(back);
    w.check();
}

#[test]
fn frames_of_a_dead_lender_stay_until_the_last_loan_ends() {
    let (mut w, [_, _, _, l1]) = borrower();
    let f = w.domains[0].frames[9];
    map(&mut w, slot(l1, 0), 0, 9, true).unwrap();
    w.domains[0].destroy();
    assert_eq!(w.domains[0].account.owned(), 1);
    assert_eq!(w.domains[0].account.close(), Err(Errno::EBUSY));
    w.check();
    drop(unmap(&mut w, slot(l1, 0), f, true).unwrap());
    assert_eq!(w.domains[0].account.owned(), 0);
    w.domains[0].account.close().unwrap();
    w.check();
}

#[test]
fn loans_of_a_dead_borrower_end_with_its_tables() {
    let (mut w, [_, _, _, l1]) = borrower();
    map(&mut w, slot(l1, 0), 0, 9, true).unwrap();
    map(&mut w, slot(l1, 1), 0, 10, false).unwrap();
    arch::guest::set_root(Mfn::INVALID);
    w.domains[1].account.dirty.remove(arch::cpu::this_cpu());
    w.domains[1].destroy();
    assert_eq!(w.domains[1].account.owned(), 0);
    w.check();
}

#[test]
fn who_may_map_what_is_asked_for_each_entry() {
    let (mut w, [_, _, _, l1]) = borrower();
    map(&mut w, slot(l1, 0), 0, 9, true).unwrap();
    let seen = std::cell::RefCell::new(vec![]);
    let held: Vec<Held> = w.domains.iter().flat_map(Domain::held).collect();
    let check = |answer| {
        invariants::check(held.iter().copied(), &|f| {
            seen.borrow_mut().push(f);
            answer
        })
    };
    check(true).unwrap();
    let there = Foreign { tables: DomId(2), owner: DomId(1), mfn: w.domains[0].frames[9], writable: true };
    assert_eq!(*seen.borrow(), [there]);
    assert!(check(false).unwrap_err().starts_with("3: "));
}
