// SPDX-License-Identifier: MIT OR Apache-2.0
//! A domain that controls another maps the other's frames: under the same rules as the owner, whose life they may outlast.

mod world;

use hypercalls::{DomId, Errno, GuestVa, Mfn};
use mm::flags::{A, D, PCD, PWT};
use mm::{PageType, RootUse, Share, SharedFrame, Write};
use world::*;

const OTHER: DomId = DomId(1);

/// Two domains; the second has a tree whose L4 this CPU has loaded, and whose L1 table maps nothing.
fn controller() -> (World, Mfn) {
    let mut w = World::new(2, 48);
    let d = &mut w.domains[1];
    let tables = tree(d, 0);
    d.root(tables[0], RootUse::Kernel).unwrap();
    d.account.dirty.insert(arch::cpu::this_cpu());
    arch::guest::set_root(tables[0]);
    (w, tables[3])
}

/// The second domain sets an entry that may map the first one's frames.
fn map(w: &mut World, l1: Mfn, index: usize, value: u64) -> Result<(), Errno> {
    w.domains[1].set_foreign(OTHER, l1, index, value)
}

fn touch() -> bool {
    arch::guest::copy_to(GuestVa(0), &[0; 8]).is_ok()
}

#[test]
fn only_frames_of_the_named_owner() {
    let (mut w, l1) = controller();
    let (theirs, own) = (w.domains[0].frames[9], w.domains[1].frames[20]);
    map(&mut w, l1, 0, to(theirs, P | RW)).unwrap();
    assert_eq!(map(&mut w, l1, 1, to(own, P)), Err(Errno::EBUSY), "the caller's own");
    assert_eq!(w.domains[1].set(l1, 1, to(theirs, P)), Err(Errno::EBUSY), "not the caller's");
    assert_eq!(w.domains[1].set_foreign(DomId(3), l1, 1, to(theirs, P)), Err(Errno::EBUSY), "nobody's");
    assert_eq!(map(&mut w, l1, 1, to(Mfn(1 << 30), P)), Err(Errno::EPERM), "no RAM");
    let hypervisor = mm::buddy::alloc(0, mm::buddy::ANYWHERE).unwrap();
    assert_eq!(map(&mut w, l1, 1, to(hypervisor, P)), Err(Errno::EBUSY), "the hypervisor's");
    mm::buddy::free(hypervisor, 0);
    assert_eq!(map(&mut w, l1, 1, to(hypervisor, P)), Err(Errno::EBUSY), "free");
    let l2 = mm::flags::mfn_of(read(mm::flags::mfn_of(read(w.domains[1].roots[0].mfn(), 0)), 0));
    assert_eq!(map(&mut w, l2, 7, 0), Err(Errno::EINVAL), "tables lead to tables of their own domain");
    w.check();
}

#[test]
fn no_checked_page_of_theirs_is_writable() {
    let (mut w, l1) = controller();
    let (table, descriptors) = (w.domains[0].frames[9], w.domains[0].frames[10]);
    w.domains[0].pin(table, 1).unwrap();
    let held = w.domains[0].once(|t, c| t.get_segdesc(c, descriptors)).unwrap();
    for (index, mfn) in [(0, table), (1, descriptors)] {
        assert_eq!(map(&mut w, l1, index, to(mfn, P | RW)), Err(Errno::EBUSY));
        map(&mut w, l1, index, to(mfn, P)).unwrap();
        assert_eq!(map(&mut w, l1, index, to(mfn, P | RW)), Err(Errno::EBUSY), "not by raising rights either");
        assert_eq!((mm::flags::mfn_of(read(l1, index)), read(l1, index) & RW), (mfn, 0));
    }
    w.check_with(&[mm::invariants::Held::typed(descriptors)]);
    drop(held);
    // While it is mapped writable, it cannot become a table.
    let plain = w.domains[0].frames[11];
    map(&mut w, l1, 2, to(plain, P | RW)).unwrap();
    assert_eq!(w.domains[0].pin(plain, 1), Err(Errno::EINVAL));
    map(&mut w, l1, 2, 0).unwrap();
    w.domains[0].pin(plain, 1).unwrap();
    w.check();
}

#[test]
fn frames_that_the_hypervisor_shares() {
    let (mut w, l1) = controller();
    let info = SharedFrame::alloc(OTHER, Share::ReadWrite).unwrap();
    let table = SharedFrame::alloc(DomId::XEN, Share::ReadOnly).unwrap();
    map(&mut w, l1, 0, to(info.mfn(), P | RW)).unwrap();
    let mut hypervisors = |index, value| w.domains[1].set_foreign(DomId::XEN, l1, index, value);
    assert_eq!(hypervisors(1, to(table.mfn(), P | RW)), Err(Errno::EBUSY), "read-only for everybody");
    hypervisors(1, to(table.mfn(), P)).unwrap();
    assert_eq!(hypervisors(2, to(info.mfn(), P)), Err(Errno::EBUSY), "one domain's");
    w.domains[1].devices = true;
    assert_eq!(map(&mut w, l1, 2, to(info.mfn(), P | PWT | PCD)), Err(Errno::EACCES), "cached for everybody");
    assert_eq!(kind(info.mfn()), (PageType::Writable, 2));
    w.check();
    // The mapping outlives the sharing.
    let mfn = info.mfn();
    drop((info, table));
    w.check();
    assert_eq!(mm::page_info(mfn).unwrap().owner, OTHER);
    map(&mut w, l1, 0, 0).unwrap();
    w.domains[1].set_foreign(DomId::XEN, l1, 1, 0).unwrap();
    assert_eq!(mm::page_info(mfn).unwrap().owner, DomId::INVALID);
    w.check();
}

#[test]
fn accessed_and_dirty_are_kept_when_asked_for() {
    let (mut w, l1) = controller();
    let theirs = w.domains[0].frames[9];
    map(&mut w, l1, 0, to(theirs, P | RW | A | D)).unwrap();
    let set =
        |value| move |t: &mut mm::PageTables, c: &mm::PtCtx<'_>| t.mod_entry(c, slot(l1, 0), value, Write::PreserveAd);
    w.domains[1].once_foreign(OTHER, set(to(theirs, P))).unwrap();
    assert_eq!(read(l1, 0) & (P | RW | A | D), P | A | D);
    w.check();
}

#[test]
fn rights_that_were_raised_are_flushed_before_the_frame_changes_its_type() {
    let (mut w, l1) = controller();
    let theirs = w.domains[0].frames[9];
    map(&mut w, l1, 0, to(theirs, P)).unwrap();
    assert!(!touch());
    map(&mut w, l1, 0, to(theirs, P | RW)).unwrap();
    assert!(touch());
    map(&mut w, l1, 0, 0).unwrap();
    assert!(touch(), "stale, as on hardware");
    // The owner runs nowhere, so its own CPUs have nothing to flush.
    w.domains[0].pin(theirs, 1).unwrap();
    assert!(!touch());
    w.check();
}

#[test]
fn a_frame_outlives_its_owner_while_it_is_mapped() {
    let (mut w, l1) = controller();
    let theirs = w.domains[0].frames[9];
    map(&mut w, l1, 0, to(theirs, P | RW)).unwrap();
    map(&mut w, l1, 1, to(theirs, P)).unwrap();
    assert!(touch());
    w.domains[0].destroy();
    let account = w.domains[0].account.clone();
    assert_eq!((account.owned(), account.close()), (1, Err(Errno::EBUSY)));
    w.check();
    map(&mut w, l1, 0, 0).unwrap();
    map(&mut w, l1, 2, to(theirs, P)).unwrap();
    map(&mut w, l1, 1, 0).unwrap();
    assert_eq!(account.owned(), 1, "as long as anything maps it");
    map(&mut w, l1, 2, 0).unwrap();
    assert_eq!((account.owned(), account.close()), (0, Ok(())));
    assert_eq!(map(&mut w, l1, 0, to(theirs, P)), Err(Errno::EBUSY));
    w.check();
}

#[test]
fn nothing_is_pinned_in_a_dying_domain() {
    let (mut w, _) = controller();
    let table = w.domains[0].frames[9];
    w.domains[0].account.begin_dying();
    assert_eq!(w.domains[0].pin(table, 1), Err(Errno::EINVAL));
    w.domains[0].destroy();
    assert_eq!(w.domains[0].account.owned(), 0);
    w.check();
}
