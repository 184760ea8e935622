// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page-type system from outside: what is allowed works, what must be refused is refused and changes nothing.

mod world;

use hypercalls::{DomId, Errno, Maddr, Mfn};
use mm::flags::{A, AVAIL, D, G, GUEST_KERNEL, NX, PAT, PCD, PSE, PWT};
use mm::hosted::poke;
use mm::invariants::Held;
use mm::{PageType, RootUse, Share, SharedFrame, WritableRef, Write};
use world::*;

#[test]
fn a_tree_is_validated_once_and_torn_down_whole() {
    let mut w = World::one();
    let data = w.d().frames[10];
    let [l4, l3, l2, l1] = tree(w.d(), to(data, P | RW));
    w.d().pin(l4, 4).unwrap();
    w.check();
    assert_eq!(kind(l4), (PageType::L4, 1));
    assert_eq!(kind(l1), (PageType::L1, 1));
    assert_eq!(kind(data), (PageType::Writable, 1));
    assert_eq!(read(l1, 0), to(data, P | RW | US | GUEST_KERNEL));
    assert_eq!(read(l4, 0), to(l3, TABLE | A));
    assert_ne!(read(l4, 300), 1, "no guest content survives in a hypervisor slot");
    w.d().unpin(l4).unwrap();
    w.check();
    for f in [l4, l3, l2, l1, data] {
        assert_eq!(kind(f).1, 0);
    }
    assert_eq!(w.d().unpin(l4), Err(Errno::EINVAL));
}

#[test]
fn user_entries_become_global_and_kernel_entries_never_are() {
    let mut w = World::one();
    let data = w.d().frames[10];
    let [_, _, _, l1] = tree(w.d(), to(data, P | US));
    poke(l1, 1, to(data, P | G));
    w.d().pin(l1, 1).unwrap();
    assert_eq!(read(l1, 0), to(data, P | US | G));
    assert_eq!(read(l1, 1), to(data, P | US | GUEST_KERNEL));
    w.check();
}

#[test]
fn a_table_cannot_be_mapped_writable_and_a_writable_frame_cannot_be_a_table() {
    let mut w = World::one();
    let [l4, _, _, l1] = tree(w.d(), 0);
    w.d().pin(l4, 4).unwrap();
    assert_eq!(w.d().set(l1, 1, to(l4, P | RW)), Err(Errno::EBUSY));
    w.d().set(l1, 1, to(l4, P)).unwrap();
    assert_eq!(w.d().set(l1, 1, to(l4, P | RW)), Err(Errno::EBUSY), "nor by adding RW to a mapping");
    let other = w.d().frames[20];
    w.d().set(l1, 2, to(other, P | RW)).unwrap();
    assert_eq!(w.d().pin(other, 1), Err(Errno::EINVAL));
    w.d().set(l1, 2, to(other, P)).unwrap();
    w.d().pin(other, 1).unwrap();
    w.check();
}

#[test]
fn xsa_148_no_large_pages_in_any_update_or_validation() {
    let mut w = World::one();
    let [l4, l3, l2, l1] = tree(w.d(), 0);
    w.d().pin(l4, 4).unwrap();
    for (table, next) in [(l4, l3), (l3, l2), (l2, l1)] {
        assert_eq!(w.d().set(table, 0, to(next, TABLE | PSE)), Err(Errno::EINVAL));
        assert_eq!(w.d().set(table, 1, to(Mfn(0), TABLE | PSE)), Err(Errno::EINVAL));
    }
    let fresh = w.d().frames[30];
    poke(fresh, 5, to(Mfn(0), TABLE | PSE));
    for level in 2..=4 {
        assert_eq!(w.d().pin(fresh, level), Err(Errno::EINVAL));
    }
    w.check();
}

/// For every combination of flag bits, old and new: the result and the entry are what a change by way of "not present"
/// gives, which never takes the fast path.
#[test]
fn xsa_182_the_fast_path_decides_as_the_slow_one_at_every_level() {
    let mut w = World::one();
    let data = w.d().frames[10];
    let tables = tree(w.d(), 0);
    w.d().pin(tables[0], 4).unwrap();
    let bits = [P, RW, US, PWT, PCD, A, D, PSE, G, 1 << 9, 1 << 52, NX];
    let combine = |n: usize| bits.iter().enumerate().filter(|(i, _)| n >> i & 1 != 0).map(|(_, b)| b).sum::<u64>();
    let targets = [tables[1], tables[2], tables[3], data];
    for devices in [false, true] {
        w.d().devices = devices;
        for (table, target) in tables.into_iter().zip(targets) {
            let results: Vec<_> = (0..1 << bits.len())
                .map(|n| {
                    w.d().set(table, 7, 0).unwrap();
                    w.d().set(table, 7, to(target, combine(n))).map(|()| read(table, 7))
                })
                .collect();
            let good: Vec<usize> = (0..results.len()).filter(|n| results[*n].is_ok()).collect();
            for old in good.into_iter().step_by(5) {
                for new in (old % 11..results.len()).step_by(11) {
                    w.d().set(table, 7, to(target, combine(old))).unwrap();
                    let before = read(table, 7);
                    let got = w.d().set(table, 7, to(target, combine(new)));
                    let want = results[new];
                    assert_eq!(got.map(|()| read(table, 7)), want, "{old:#x} -> {new:#x}");
                    if want.is_err() {
                        assert_eq!(read(table, 7), before);
                    }
                }
            }
            w.check();
            w.d().set(table, 7, 0).unwrap();
        }
        w.check();
    }
}

#[test]
fn xsa_240_linear_tables_are_refused() {
    let mut w = World::one();
    let [l4, l3, l2, l1] = tree(w.d(), 0);
    w.d().pin(l4, 4).unwrap();
    for table in [l4, l3, l2] {
        assert_eq!(w.d().set(table, 9, to(table, P)), Err(Errno::EINVAL));
    }
    assert_eq!(w.d().set(l2, 9, to(l4, P)), Err(Errno::EINVAL));
    assert_eq!(w.d().set(l4, 9, to(l1, P)), Err(Errno::EINVAL));
    // And in tables that are validated whole: themselves, each other, cycles.
    let (a, b) = (w.d().frames[30], w.d().frames[31]);
    poke(a, 0, to(a, P));
    poke(b, 0, to(a, P));
    // A table that maps itself read-only as level 1 is no recursion; from level 3 on it would be.
    for level in 3..=4 {
        assert_eq!(w.d().pin(a, level), Err(Errno::EINVAL));
        assert_eq!(w.d().pin(b, level), Err(Errno::EINVAL));
    }
    assert_eq!(w.d().pin(a, 2), Err(Errno::EINVAL));
    poke(a, 0, to(b, P));
    for level in 3..=4 {
        assert_eq!(w.d().pin(a, level), Err(Errno::EINVAL));
    }
    w.check();
}

#[test]
fn a_failed_validation_leaves_no_reference() {
    let mut w = World::one();
    let data = w.d().frames[10];
    let [l4, l3, l2, l1] = tree(w.d(), to(data, P | RW));
    poke(l3, 400, to(Mfn(1 << 30), P));
    assert_eq!(w.d().pin(l4, 4), Err(Errno::EINVAL));
    w.check();
    for f in [l4, l3, l2, l1, data] {
        assert_eq!(kind(f).1, 0);
    }
    poke(l3, 400, 0);
    w.d().pin(l4, 4).unwrap();
    w.check();
}

#[test]
fn hypervisor_slots_are_not_the_guests() {
    let mut w = World::one();
    let [l4, l3, ..] = tree(w.d(), 0);
    for i in 256..272 {
        poke(l4, i, to(Mfn(5), P | RW | US));
    }
    w.d().pin(l4, 4).unwrap();
    w.check();
    for i in [256, 271] {
        assert_eq!(w.d().set(l4, i, to(l3, TABLE)), Err(Errno::EINVAL));
        assert_eq!(w.d().set(l4, i, 0), Err(Errno::EINVAL));
    }
    w.d().set(l4, 255, to(l3, TABLE)).unwrap();
    w.d().set(l4, 272, to(l3, TABLE)).unwrap();
    w.d().root(l4, RootUse::User).unwrap();
    assert_eq!(read(l4, 256), 0, "user mode does not see the M2P");
    w.d().root(l4, RootUse::Kernel).unwrap();
    assert_eq!(read(l4, 256), mm::hosted::FAKE_SLOT);
    w.check();
}

#[test]
fn frames_of_others_and_of_the_hypervisor_cannot_be_mapped_or_used() {
    let mut w = World::new(2, 40);
    let theirs = w.domains[1].frames[0];
    let own = mm::buddy::alloc(0, mm::buddy::ANYWHERE).unwrap();
    let [l4, _, l2, l1] = tree(w.d(), 0);
    w.d().pin(l4, 4).unwrap();
    for frame in [theirs, own] {
        assert_eq!(w.d().set(l1, 1, to(frame, P)), Err(Errno::EBUSY));
        assert_eq!(w.d().set(l2, 1, to(frame, P)), Err(Errno::EINVAL));
        assert_eq!(w.d().pin(frame, 1), Err(Errno::EINVAL));
        assert_eq!(w.d().set(frame, 0, 0), Err(Errno::EINVAL), "not even as plain memory");
    }
    w.domains[0].set_foreign(DomId(2), l1, 1, to(theirs, P | RW)).unwrap();
    assert_eq!(w.domains[0].set_foreign(DomId(2), l2, 1, 0), Err(Errno::EINVAL), "tables are their owner's only");
    assert_eq!(w.domains[1].pin(theirs, 1), Err(Errno::EINVAL), "mapped writable by another");
    w.check();
    w.d().set(l1, 1, to(theirs, P)).unwrap();
    assert_eq!(w.d().set(l1, 1, to(theirs, P | RW)), Err(Errno::EBUSY), "rights do not come back by themselves");
    w.d().set(l1, 1, 0).unwrap();
    mm::buddy::free(own, 0);
    w.check();
}

#[test]
fn device_memory_is_uncached_and_only_for_those_who_may() {
    let mut w = World::one();
    let [_, _, _, l1] = tree(w.d(), 0);
    w.d().pin(l1, 1).unwrap();
    let ram = w.d().frames[9];
    let (device, read_only) = (Mfn(0xfee00), Mfn(0xfef00));
    assert_eq!(w.d().set(l1, 0, to(device, P | RW)), Err(Errno::EPERM));
    assert_eq!(w.d().set(l1, 0, to(ram, P | PCD)), Err(Errno::EINVAL));
    w.d().devices = true;
    w.d().set(l1, 0, to(device, P | RW)).unwrap();
    assert_eq!(read(l1, 0) & (RW | PWT | PCD | PAT), RW | PWT | PCD);
    w.d().set(l1, 0, to(device, P | PWT)).unwrap();
    assert_eq!(read(l1, 0) & (PWT | PCD | PAT), PWT | PCD);
    w.d().set(l1, 0, to(device, P | PAT)).unwrap();
    assert_eq!(read(l1, 0) & (PWT | PCD | PAT), PAT, "write-combining stays");
    w.d().set(l1, 1, to(read_only, P | RW)).unwrap();
    assert_eq!(read(l1, 1) & RW, 0);
    w.d().set(l1, 1, to(read_only, P | RW)).unwrap();
    assert_eq!(read(l1, 1) & RW, 0, "nor on the second try");
    w.check();
}

#[test]
fn updates_of_plain_memory_are_plain_writes() {
    let mut w = World::one();
    let f = w.d().frames[9];
    w.d().set(f, 3, 0xdead_beef).unwrap();
    assert_eq!(read(f, 3), 0xdead_beef);
    assert_eq!(w.d().once(|t, c| t.mod_entry(c, Maddr(f.maddr().0 + 4), 1, Write::Plain)), Err(Errno::EINVAL));
    assert_eq!(w.d().once(|t, c| t.mod_l1(c, slot(f, 3), 1, Write::Plain)), Err(Errno::EINVAL));
    w.check();
}

#[test]
fn accessed_and_dirty_are_kept_when_asked_for() {
    let mut w = World::one();
    let f = w.d().frames[9];
    let [_, _, _, l1] = tree(w.d(), to(f, P | RW | US | A | D));
    w.d().pin(l1, 1).unwrap();
    for value in [to(f, P | US), to(f, AVAIL)] {
        w.d().once(|t, c| t.mod_entry(c, slot(l1, 0), value, Write::PreserveAd)).unwrap();
        assert_eq!(read(l1, 0) & (A | D), A | D);
    }
    w.check();
}

#[test]
fn compare_exchange_changes_only_what_it_expects() {
    let mut w = World::one();
    let (f, g) = (w.d().frames[9], w.d().frames[10]);
    let [_, _, _, l1] = tree(w.d(), to(f, P | RW | US));
    w.d().pin(l1, 1).unwrap();
    let is = read(l1, 0);
    let mut cas = |expected, new| w.d().once(|t, c| t.cmpxchg_l1(c, slot(l1, 0), expected, new));
    assert_eq!(cas(0, to(g, P)), Ok(is));
    assert_eq!(read(l1, 0), is);
    assert_eq!(cas(is, to(g, P | RW)), Ok(is));
    assert_eq!(kind(f).1, 0);
    assert_eq!(kind(g), (PageType::Writable, 1));
    assert_eq!(cas(read(l1, 0), to(l1, P | RW)), Err(Errno::EBUSY));
    assert_eq!(cas(read(l1, 0), 0).map(|_| ()), Ok(()));
    w.check();
}

#[test]
fn segment_descriptor_pages_are_checked_and_not_writable() {
    let mut w = World::one();
    let f = w.d().frames[9];
    let [_, _, _, l1] = tree(w.d(), 0);
    w.d().pin(l1, 1).unwrap();
    poke(f, 1, 0x00af_9b00_0000_ffff);
    let gdt = w.d().once(|t, c| t.get_segdesc(c, f)).unwrap();
    assert_eq!(read(f, 1), 0x00af_fb00_0000_ffff, "level 3 is forced");
    assert_eq!(w.d().set(l1, 0, to(f, P | RW)), Err(Errno::EBUSY));
    assert_eq!(w.d().set(f, 2, 1), Err(Errno::EINVAL));
    assert_eq!(w.d().once(|t, c| t.update_descriptor(c, slot(f, 2), 0x0000_8900_0000_0000)), Err(Errno::EINVAL));
    w.d().once(|t, c| t.update_descriptor(c, slot(f, 2), 0x00cf_9300_0000_ffff)).unwrap();
    assert_eq!(read(f, 2), 0x00cf_f300_0000_ffff);
    w.check_with(&[Held::typed(f)]);
    drop(gdt);
    w.check();
    let tss = w.d().frames[12];
    poke(tss, 0, 0x0000_8900_0000_0000);
    assert!(w.d().once(|t, c| t.get_segdesc(c, tss)).is_err());
    w.check();
}

#[test]
fn xsa_248_shared_frames_stay_the_hypervisors() {
    let mut w = World::one();
    let id = w.d().id();
    let info = SharedFrame::alloc(id, Share::ReadWrite).unwrap();
    let status = SharedFrame::alloc(id, Share::ReadOnly).unwrap();
    let [_, _, _, l1] = tree(w.d(), 0);
    w.d().pin(l1, 1).unwrap();
    w.d().set(l1, 0, to(info.mfn(), P | RW)).unwrap();
    w.d().set(l1, 1, to(status.mfn(), P)).unwrap();
    assert_eq!(w.d().set(l1, 1, to(status.mfn(), P | RW)), Err(Errno::EBUSY));
    for f in [info.mfn(), status.mfn()] {
        assert_eq!(w.d().pin(f, 1), Err(Errno::EINVAL));
        assert_eq!(w.d().account.give_up(f), Err(Errno::EINVAL));
        assert_eq!(w.d().account.steal(f), Err(Errno::EINVAL));
        assert!(w.d().once(|t, c| t.get_segdesc(c, f)).is_err());
    }
    w.check();
    let free = mm::buddy::free_frames();
    drop((info, status));
    assert_eq!(mm::buddy::free_frames(), free, "mapped still");
    w.check();
    w.d().set(l1, 0, 0).unwrap();
    w.d().set(l1, 1, 0).unwrap();
    assert_eq!(mm::buddy::free_frames(), free + 2);
    w.check();
}

#[test]
fn frames_given_up_live_until_unmapped_and_count_until_then() {
    let mut w = World::one();
    let f = w.d().frames[9];
    let [_, _, _, l1] = tree(w.d(), to(f, P | RW));
    w.d().pin(l1, 1).unwrap();
    let owned = w.d().account.owned();
    w.d().account.give_up(f).unwrap();
    assert_eq!(w.d().account.give_up(f), Err(Errno::EINVAL), "only once");
    assert_eq!(w.d().account.owned(), owned);
    w.check();
    w.d().set(l1, 0, 0).unwrap();
    assert_eq!(w.d().account.owned(), owned - 1);
    w.check();
}

#[test]
fn xsa_287_only_frames_without_references_can_be_stolen() {
    let mut w = World::new(2, 16);
    let f = w.d().frames[9];
    let [_, _, _, l1] = tree(w.d(), to(f, P));
    w.d().pin(l1, 1).unwrap();
    assert_eq!(w.d().account.steal(f), Err(Errno::EINVAL));
    assert_eq!(w.d().account.steal(l1), Err(Errno::EINVAL));
    w.d().set(l1, 0, 0).unwrap();
    w.d().account.steal(f).unwrap();
    w.check();
    w.domains[1].account.adopt(f, 0).unwrap();
    assert!(WritableRef::get(f, DomId(1)).is_err());
    assert!(WritableRef::get(f, DomId(2)).is_ok());
    w.check();
}

#[test]
fn xsa_385_an_account_does_not_take_more_than_its_maximum() {
    let w = World::new(1, 16);
    let a = &w.domains[0].account;
    a.set_maximum(u64::MAX);
    assert!(a.populate(3, mm::buddy::ANYWHERE).is_ok());
    a.set_maximum(24);
    assert_eq!(a.populate(0, mm::buddy::ANYWHERE), Err(Errno::ENOMEM));
    a.set_maximum(1);
    assert_eq!(a.populate(0, mm::buddy::ANYWHERE), Err(Errno::ENOMEM));
    a.set_maximum(25);
    a.begin_dying();
    assert_eq!(a.populate(0, mm::buddy::ANYWHERE), Err(Errno::EINVAL));
    w.check();
}

#[test]
fn xsa_401_408_a_stale_translation_never_outlives_a_change_of_type() {
    let mut w = World::one();
    let f = w.d().frames[9];
    let [l4, _, _, l1] = tree(w.d(), to(f, P | RW | US));
    w.d().root(l4, RootUse::Kernel).unwrap();
    w.d().account.dirty.insert(arch::cpu::this_cpu());
    arch::guest::set_root(l4);
    arch::guest::copy_to(hypercalls::GuestVa(0), &[0; 8]).unwrap();
    let flushes = arch::tlb::full_flushes();
    w.d().set(l1, 0, to(f, P | US)).unwrap();
    assert_eq!(arch::tlb::full_flushes(), flushes, "L1 changes flush nothing");
    arch::guest::copy_to(hypercalls::GuestVa(0), &[0; 8]).expect("stale, as on hardware");
    w.d().pin(f, 1).unwrap();
    assert_eq!(arch::tlb::full_flushes(), flushes + 1);
    assert!(arch::guest::copy_to(hypercalls::GuestVa(0), &[0; 8]).is_err());
    w.check();
    // A table that becomes writable: what hardware knows of it as a table must go first.
    w.d().unpin(f).unwrap();
    w.d().set(l1, 0, to(f, P | US | RW)).unwrap();
    assert_eq!(arch::tlb::full_flushes(), flushes + 2);
    // Writable again after writable: nothing to flush.
    w.d().set(l1, 0, 0).unwrap();
    w.d().set(l1, 0, to(f, P | US | RW)).unwrap();
    assert_eq!(arch::tlb::full_flushes(), flushes + 2);
    w.check();
}

#[test]
fn xsa_286_changes_above_l1_are_flushed_if_hardware_may_know_the_old() {
    let mut w = World::one();
    let [l4, _, l2, _] = tree(w.d(), 0);
    let new = w.d().frames[20];
    w.d().root(l4, RootUse::Kernel).unwrap();
    w.d().account.dirty.insert(arch::cpu::this_cpu());
    let flushes = arch::tlb::full_flushes();
    w.d().set(l2, 5, to(new, TABLE)).unwrap();
    assert_eq!(arch::tlb::full_flushes(), flushes, "nothing was there");
    w.d().set(l2, 5, 0).unwrap();
    assert_eq!(arch::tlb::full_flushes(), flushes + 1);
}

#[test]
fn freed_frames_are_clean_and_flushed_before_they_are_used_again() {
    let mut w = World::one();
    let f = w.d().frames[9];
    let [l4, _, _, l1] = tree(w.d(), to(f, P | RW | US));
    w.d().root(l4, RootUse::Kernel).unwrap();
    arch::guest::set_root(l4);
    arch::guest::copy_to(hypercalls::GuestVa(0), &[0x55; 8]).unwrap();
    w.d().set(l1, 0, 0).unwrap();
    w.d().account.give_up(f).unwrap();
    let mut got = Vec::new();
    loop {
        let next = w.d().account.populate(0, mm::buddy::ANYWHERE);
        got.push(next.expect("comes back before memory runs out"));
        if got.last() == Some(&f) {
            break;
        }
        w.d().account.set_maximum(u64::MAX);
    }
    assert_eq!(read(f, 0), 0);
    assert!(arch::tlb::cached().iter().all(|(_, _, c)| c.mfn != f));
    w.check();
}

#[test]
fn a_destroyed_domain_leaves_nothing_behind() {
    let mut w = World::new(2, 40);
    let before = mm::buddy::free_frames();
    let theirs = w.domains[1].frames[3];
    let own = w.d().frames[9];
    let [l4, _, _, l1] = tree(w.d(), to(own, P | RW));
    w.d().pin(l4, 4).unwrap();
    w.d().pin(l1, 1).unwrap();
    w.d().root(l4, RootUse::Kernel).unwrap();
    w.domains[0].set_foreign(DomId(2), l1, 1, to(theirs, P | RW)).unwrap();
    w.domains[1].destroy();
    w.check();
    assert_eq!(w.domains[1].account.owned(), 1, "one frame is mapped by the other");
    assert_eq!(w.domains[1].account.close(), Err(Errno::EBUSY));
    w.d().destroy();
    w.check();
    assert_eq!(mm::buddy::free_frames(), before + 80);
    assert_eq!((w.domains[0].account.owned(), w.domains[1].account.owned()), (0, 0));
    w.domains[1].account.close().unwrap();
    w.domains[0].account.close().unwrap();
}
