// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checks on the argument, and exchanges on the hosted machine.

use super::*;

use hypercalls::DomId;
use hypercalls::memory::MemoryReservation;
use mm::hosted::peek;

use crate::ops::memory::testing::{LISTS, World};

fn side(list: u64, extents: u64, order: u32) -> MemoryReservation {
    MemoryReservation {
        extent_start: GuestPtr::new(list),
        nr_extents: extents,
        extent_order: order,
        domid: DomId::SELF,
        ..MemoryReservation::default()
    }
}

fn args(input: MemoryReservation, output: MemoryReservation) -> MemoryExchange {
    MemoryExchange { input, output, nr_exchanged: 0 }
}

#[test]
fn good_numbers() {
    let plan = Plan::new(&args(side(LISTS, 8, 0), side(LISTS, 2, 2)), 9).expect("good");
    assert_eq!((plan.first, plan.chunks), (0, 2));
    assert_eq!((plan.input.per_chunk, plan.output.per_chunk), (4, 1));
    let mut a = args(side(LISTS, 2, 2), side(LISTS, 8, 0));
    a.nr_exchanged = 1;
    let plan = Plan::new(&a, 9).expect("good");
    assert_eq!((plan.first, plan.chunks), (1, 2));
    assert_eq!((plan.input.per_chunk, plan.output.per_chunk), (1, 4));
    assert!(Plan::new(&args(side(LISTS, 0, 0), side(LISTS, 0, 0)), 9).is_ok());
}

#[test]
fn bad_numbers() {
    let bad = |a: &MemoryExchange| Plan::new(a, 9).expect_err("bad");
    for order in [10, 255, 256, u32::MAX] {
        assert_eq!(bad(&args(side(LISTS, 1, order), side(LISTS, 1, 0))), Errno::EPERM);
        assert_eq!(bad(&args(side(LISTS, 1, 0), side(LISTS, 1, order))), Errno::EPERM);
    }
    for extents in [2, 1 << 31, 1 << 63, u64::MAX] {
        assert_eq!(bad(&args(side(LISTS, extents, 1), side(LISTS, 1, 0))), Errno::EINVAL);
        assert_eq!(bad(&args(side(LISTS, 1, 0), side(LISTS, extents, 1))), Errno::EINVAL);
    }
    let mut done = args(side(LISTS, 1, 0), side(LISTS, 1, 0));
    done.nr_exchanged = 2;
    assert_eq!(bad(&done), Errno::EINVAL);
    let mut other = args(side(LISTS, 1, 0), side(LISTS, 1, 0));
    other.output.domid = DomId(1);
    assert_eq!(bad(&other), Errno::EINVAL);
    let hole = hypercalls::addr::HOLE_START;
    for list in [hole, hole - 8, u64::MAX] {
        assert_eq!(bad(&args(side(list, 2, 0), side(LISTS, 2, 0))), Errno::EFAULT);
        assert_eq!(bad(&args(side(LISTS, 2, 0), side(list, 2, 0))), Errno::EFAULT);
    }
    // So many that their bytes overflow.
    assert_eq!(bad(&args(side(LISTS, 1 << 61, 0), side(LISTS, 1 << 61, 0))), Errno::EFAULT);
}

#[test]
fn single_frames_become_an_extent() {
    let w = World::new();
    let free = buddy::free_frames();
    let (input, output) = (w.input(8), w.list(100, &[40, 44]));
    let plan = Plan::new(&args(side(input, 8, 0), side(output, 2, 2)), 9).expect("good");
    let mut done = 0;
    assert_eq!(plan.run(&w.account, &mut done), Ok(true));
    assert_eq!((done, w.account.owned(), buddy::free_frames()), (8, 16, free));
    for extent in 0..2u64 {
        let first = Mfn(peek(w.page, 100 + extent as usize));
        assert!(first.0.is_multiple_of(4));
        for n in 0..4 {
            assert!(w.owns(first.add(n)));
            assert_eq!(m2p::get(first.add(n)), Some(Pfn(40 + extent * 4 + n)));
        }
    }
}

#[test]
fn an_extent_becomes_single_frames() {
    let w = World::new();
    let (input, output) = (w.input(4), w.list(100, &[7]));
    let mut done = 0;
    let plan = Plan::new(&args(side(input, 4, 0), side(output, 1, 2)), 9).expect("good");
    assert_eq!(plan.run(&w.account, &mut done), Ok(true));
    // The list that was written is the input now; each new frame gets a number of its own.
    let single = w.list(200, &[70, 71, 72, 73]);
    let plan = Plan::new(&args(side(output, 1, 2), side(single, 4, 0)), 9).expect("good");
    assert_eq!(plan.run(&w.account, &mut done), Ok(true));
    assert_eq!((done, w.account.owned()), (1, 16));
    for n in 0..4 {
        let mfn = Mfn(peek(w.page, 200 + n));
        assert!(w.owns(mfn));
        assert_eq!(m2p::get(mfn), Some(Pfn(70 + n as u64)));
    }
}

#[test]
fn a_frame_in_use_undoes_its_chunk() {
    let w = World::new();
    let free = buddy::free_frames();
    let used = mm::PageRef::get(w.frames[6], DomId(1)).expect("owned");
    let (input, output) = (w.input(8), w.list(100, &[40, 44]));
    let plan = Plan::new(&args(side(input, 8, 0), side(output, 2, 2)), 9).expect("good");
    let mut done = 0;
    assert_eq!(plan.run(&w.account, &mut done), Err(Errno::EINVAL));
    assert_eq!((done, w.account.owned(), buddy::free_frames()), (4, 16, free));
    for (pfn, mfn) in (0..).zip(&w.frames).skip(4) {
        assert!(w.owns(*mfn), "{mfn} was taken");
        assert_eq!(m2p::get(*mfn), Some(Pfn(pfn)));
    }
    drop(used);
    // Twice the same frame, a frame of nobody's, a list that cannot be read.
    for list in [[w.frames[8].0; 4], [1 << 40; 4]] {
        let list = w.list(0, &list);
        let plan = Plan::new(&args(side(list, 4, 0), side(output, 1, 2)), 9).expect("good");
        assert_eq!(plan.run(&w.account, &mut done), Err(Errno::EINVAL));
    }
    let plan = Plan::new(&args(side(0x9000, 4, 0), side(output, 1, 2)), 9).expect("good");
    assert_eq!(plan.run(&w.account, &mut done), Err(Errno::EFAULT));
    assert_eq!((w.account.owned(), buddy::free_frames()), (16, free));
}

#[test]
fn no_memory_low_enough_changes_nothing() {
    let w = World::new();
    w.account.set_maximum(3);
    let (input, output) = (w.input(4), w.list(100, &[40]));
    let mut wanted = side(output, 1, 2);
    wanted.mem_flags = 13;
    let plan = Plan::new(&args(side(input, 4, 0), wanted), 9).expect("good");
    let mut done = 0;
    assert_eq!(plan.run(&w.account, &mut done), Err(Errno::ENOMEM));
    assert_eq!((done, w.account.owned()), (0, 16));
    wanted.mem_flags = 0;
    let plan = Plan::new(&args(side(input, 4, 0), wanted), 9).expect("good");
    assert_eq!(plan.run(&w.account, &mut done), Ok(true), "above its maximum it may still exchange");
    assert_eq!(w.account.owned(), 16);
}

#[test]
fn a_cut_exchange_goes_on() {
    let w = World::new();
    let (input, output) = (w.input(16), w.list(100, &[40, 44, 48, 52]));
    let mut exchange = args(side(input, 16, 0), side(output, 4, 2));
    let mut passes = 0;
    loop {
        arch::cpu::preempt_after(Some(1));
        let plan = Plan::new(&exchange, 9).expect("good");
        passes += 1;
        if plan.run(&w.account, &mut exchange.nr_exchanged).expect("no error") {
            break;
        }
    }
    assert!(passes > 1, "it was cut");
    assert_eq!((exchange.nr_exchanged, w.account.owned()), (16, 16));
    assert_eq!(m2p::get(Mfn(peek(w.page, 103)).add(3)), Some(Pfn(55)));
}
