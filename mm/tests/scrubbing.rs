// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scrubbing of what guests gave back, by CPUs without other work.

use hypercalls::{DomId, GuestVa, Mfn};
use mm::buddy::{self, ANYWHERE, scrub_some};
use mm::hosted::{self, Random, peek, poke};
use mm::{Account, RootUse, invariants};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

mod world;
use world::*;

const SECRET: u64 = 0x5ec2e7;

fn account(maximum: u64) -> Arc<Account> {
    Account::open(DomId(1), maximum).unwrap()
}

fn soil(mfn: Mfn) {
    for index in [0, 7, 511] {
        poke(mfn, index, SECRET);
    }
}

fn is_zero(mfn: Mfn) -> bool {
    (0..512).all(|index| peek(mfn, index) == 0)
}

#[test]
fn what_a_guest_gave_back_is_zeroed_and_merged() {
    let _machine = hosted::boot(2048, 1);
    let before = buddy::free_frames();
    let a = account(2000);
    let mine: Vec<Mfn> = (0..1000).map(|_| a.populate(0, ANYWHERE).unwrap()).collect();
    mine.iter().copied().for_each(soil);
    for mfn in &mine {
        a.give_up(*mfn).unwrap();
    }
    assert!(!scrub_some(1001), "not enough to begin with");
    let mut steps = 0;
    while scrub_some(1000) {
        steps += 1;
        assert_eq!(buddy::free_frames(), before);
        invariants::check([], &|_| true).unwrap();
    }
    assert!((1000 / 32..200).contains(&steps), "{steps} steps");
    assert!(mine.iter().all(|mfn| is_zero(*mfn)));
    assert!(!scrub_some(0), "there is nothing left");
    assert!(buddy::alloc(10, ANYWHERE).is_some(), "merged again");
}

#[test]
fn frames_that_nobody_had_are_left_alone() {
    let _machine = hosted::boot(1024, 1);
    let a = account(10);
    let mine = [20, ANYWHERE].map(|bits| a.populate(0, bits).unwrap());
    let between = Mfn(400);
    assert!(mine[0] < between && between < mine[1]);
    soil(between);
    mine.iter().for_each(|mfn| soil(*mfn));
    mine.iter().for_each(|mfn| a.give_up(*mfn).unwrap());
    let before = buddy::scrubbed();
    while scrub_some(1) {}
    assert!(mine.iter().all(|mfn| is_zero(*mfn)));
    assert_eq!((peek(between, 7), buddy::scrubbed() - before), (SECRET, 64));
}

#[test]
fn stale_translations_are_flushed_first() {
    let mut w = World::one();
    let d = w.d();
    let data = d.frames[20];
    let [l4, _, _, l1] = tree(d, to(data, TABLE));
    d.root(l4, RootUse::Kernel).unwrap();
    d.account.dirty.insert(arch::cpu::this_cpu());
    arch::guest::set_root(l4);
    let touch = || arch::guest::copy_to(GuestVa(0), &SECRET.to_le_bytes()).is_ok();
    assert!(touch());
    d.set(l1, 0, 0).unwrap();
    d.account.give_up(data).unwrap();
    assert!(touch(), "stale, as on hardware");
    while scrub_some(1) {}
    assert!(!touch() && is_zero(data));
    w.check();
}

#[test]
fn steps_at_any_time_change_nothing_that_can_be_seen() {
    let _machine = hosted::boot(700, 1);
    let a = account(700);
    let mut r = Random::from_env(21);
    let mut mine: Vec<(Mfn, u8)> = vec![];
    for _ in 0..3000 {
        match r.below(5) {
            0 | 1 => {
                let order = r.below(8) as u8;
                let free = buddy::free_frames();
                match a.populate(order, ANYWHERE) {
                    Ok(mfn) => {
                        assert!((0..1 << order).all(|n| is_zero(mfn.add(n))));
                        (0..1 << order).for_each(|n| soil(mfn.add(n)));
                        mine.push((mfn, order));
                        assert_eq!(buddy::free_frames(), free - (1 << order));
                    }
                    Err(_) => assert!(buddy::free_frames() < 600),
                }
            }
            2 if !mine.is_empty() => {
                let (mfn, order) = mine.swap_remove(r.below(mine.len() as u64) as usize);
                (0..1 << order).for_each(|n| a.give_up(mfn.add(n)).unwrap());
            }
            _ => {
                scrub_some(1);
            }
        }
        invariants::check([], &|_| true).unwrap();
    }
}

#[test]
fn others_wait_for_frames_that_are_being_scrubbed() {
    let _machine = hosted::boot(512, 2);
    let a = account(512);
    let rounds = AtomicU32::new(30);
    std::thread::scope(|s| {
        // Ends on its own if the other fails.
        s.spawn(|| {
            arch::cpu::set_this_cpu(arch::CpuId(1));
            for _ in (0..1_000_000).take_while(|_| rounds.load(SeqCst) > 0) {
                scrub_some(1);
            }
        });
        for left in (0..30).rev() {
            // All there is, each time: what is out to be scrubbed must not be missed.
            let all: Vec<Mfn> = (0..511).map(|_| a.populate(0, ANYWHERE).expect("it is free")).collect();
            assert!(a.populate(0, ANYWHERE).is_err());
            assert!(all.iter().all(|mfn| peek(*mfn, 7) == 0));
            for mfn in all {
                poke(mfn, 7, SECRET);
                a.give_up(mfn).unwrap();
            }
            rounds.store(left, SeqCst);
        }
    });
    invariants::check([], &|_| true).unwrap();
}
