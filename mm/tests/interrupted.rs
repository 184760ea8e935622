// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interruption at every point: the result is that of an uninterrupted run, and nothing is left half done (XSA-299,
//! XSA-310, XSA-318).

mod world;

use hypercalls::{Errno, Mfn};
use mm::RootUse;
use mm::hosted::poke;
use world::*;

/// Two L3, three L2 and four L1 tables below one L4, some shared, with one bad entry if asked for.
fn forest(d: &Domain, bad: Option<(usize, usize)>) -> Mfn {
    let f = &d.frames;
    for table in &f[..10] {
        (0..512).for_each(|i| poke(*table, i, 0));
    }
    let (l4, l3, l2, l1) = (f[0], &f[1..3], &f[3..6], &f[6..10]);
    for (i, t) in [(0, l3[0]), (5, l3[1]), (272, l3[0]), (511, l3[1])] {
        poke(l4, i, to(t, TABLE));
    }
    for (n, t) in l3.iter().enumerate() {
        poke(*t, 1, to(l2[n], TABLE));
        poke(*t, 511, to(l2[2], TABLE));
    }
    for (n, t) in l2.iter().enumerate() {
        poke(*t, 0, to(l1[n], TABLE));
        poke(*t, 300, to(l1[3], TABLE));
    }
    for t in l1 {
        poke(*t, 7, to(f[20], P | RW));
        poke(*t, 8, to(f[6], P));
    }
    if let Some((table, index)) = bad {
        poke(f[table], index, to(Mfn(1 << 40), TABLE));
    }
    l4
}

fn partial_frames(d: &Domain) -> usize {
    d.frames.iter().filter(|f| mm::page_info(**f).is_some_and(|s| s.partial)).count()
}

fn snapshot(d: &Domain) -> Vec<(mm::PageType, u32, u32, bool)> {
    let of = |s: mm::FrameState| {
        (if s.type_count == 0 { mm::PageType::None } else { s.page_type }, s.type_count, s.count, s.pinned)
    };
    d.frames.iter().filter_map(|f| mm::page_info(*f)).map(of).collect()
}

/// Runs `act` with an interruption after each `every` questions and compares with an uninterrupted run.
fn compare(setup: impl Fn(&mut Domain), act: impl Fn(&mut Domain) -> Result<(), Errno>) {
    let mut want = None;
    for every in [u64::MAX, 0, 1, 2, 3, 5, 8] {
        let mut w = World::one();
        setup(w.d());
        let mut interruptions = 0;
        let result = loop {
            arch::cpu::preempt_after((every != u64::MAX).then_some(every));
            let result = act(w.d());
            arch::cpu::preempt_after(None);
            w.check();
            if result != Err(Errno::ERESTART) {
                break result;
            }
            interruptions += 1;
            assert!(interruptions < 2000, "no progress");
        };
        while w.d().tables.has_deferred() {
            arch::cpu::preempt_after((every != u64::MAX).then_some(every));
            let _ = w.d().once(|t, c| t.drain(c));
            arch::cpu::preempt_after(None);
            w.check();
        }
        assert_eq!(partial_frames(w.d()), 0, "interrupted every {every}: left half done");
        let got = (result, snapshot(w.d()));
        assert_eq!(&got, want.get_or_insert_with(|| got.clone()), "interrupted every {every}");
    }
}

#[test]
fn pinning() {
    compare(|d| _ = forest(d, None), |d| d.once(|t, c| t.pin(c, forest_root(c, 0), 4)));
}

/// The frame with this index in the list of the domain's frames.
fn forest_root(c: &mm::PtCtx<'_>, n: usize) -> Mfn {
    let mut all = Vec::new();
    c.owner.for_each(|f| all.push(f));
    all[n]
}

#[test]
fn pinning_what_is_bad_at_every_place() {
    for table in 0..10 {
        for index in [0, 2, 299, 511] {
            if table == 0 || index != 511 {
                compare(|d| _ = forest(d, Some((table, index))), |d| d.once(|t, c| t.pin(c, forest_root(c, 0), 4)));
            }
        }
    }
}

#[test]
fn unpinning() {
    compare(
        |d| {
            let l4 = forest(d, None);
            d.pin(l4, 4).unwrap();
        },
        |d| d.once(|t, c| t.unpin(c, forest_root(c, 0))),
    );
}

#[test]
fn replacing_a_subtree_and_dropping_the_last_of_another() {
    let setup = |d: &mut Domain| {
        let l4 = forest(d, None);
        let l3 = d.frames[1];
        d.pin(l4, 4).unwrap();
        d.set(l4, 272, 0).unwrap();
        d.set(l4, 511, to(l3, TABLE)).unwrap();
        d.set(l4, 0, 0).unwrap();
    };
    for (index, n) in [(511, None), (5, Some(1)), (5, Some(12)), (5, None)] {
        compare(setup, |d| {
            let (l4, value) = (d.frames[0], n.map_or(0, |n: usize| to(d.frames[n], TABLE)));
            d.once(|t, c| t.mod_entry(c, slot(l4, index), value, mm::Write::Plain))
        });
    }
}

#[test]
fn roots() {
    compare(
        |d| _ = forest(d, None),
        |d| {
            let l4 = d.frames[0];
            if d.roots.is_empty() {
                let root = d.once(|t, c| t.get_root(c, l4, RootUse::Kernel))?;
                d.roots.push(root);
            }
            d.drop_root(0);
            Ok(())
        },
    );
}

#[test]
fn destruction() {
    compare(
        |d| {
            let l4 = forest(d, None);
            d.pin(l4, 4).unwrap();
            let l2 = d.frames[4];
            d.pin(l2, 2).unwrap();
            d.account.begin_dying();
        },
        |d| d.once(|t, c| t.relinquish(c)),
    );
}
