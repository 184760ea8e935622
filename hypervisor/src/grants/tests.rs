// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables from outside: who gets what lent, what the granting guest sees of it, and what is left when all has ended.

use alloc::sync::Arc;
use alloc::vec::Vec;

use arch::hosted::Machine;
use hypercalls::grant::*;
use hypercalls::{DomId, Errno, Mfn};
use mm::hosted::{peek, poke};
use mm::invariants::Held;
use mm::{Account, PageRef, buddy};

use super::active::Use;
use super::*;

const GRANTER: DomId = DomId(3);
const USER: DomId = DomId(4);
const READ: Use = Use::host(false);
const WRITE: Use = Use::host(true);
const PERMIT: u64 = GTF_PERMIT_ACCESS as u64;

struct World {
    grants: Arc<Grants>,
    frames: Vec<Mfn>,
    account: Arc<Account>,
    free: u64,
    _machine: Machine,
}

impl World {
    fn new(limits: Limits) -> Self {
        let machine = mm::hosted::boot(256, 1);
        let free = buddy::free_frames();
        let account = Account::open(GRANTER, 64).expect("new number");
        let frames = (0..8).map(|_| account.populate(0, buddy::ANYWHERE).expect("memory")).collect();
        let grants = Arc::new(Grants::new(GRANTER, limits).expect("memory"));
        Self { grants, frames, account, free, _machine: machine }
    }

    /// The granter writes a version 1 entry for one of its frames.
    fn grant(&self, gref: u64, frame: usize, flags: u64) {
        self.write(gref, self.frames[frame].0 << 32 | u64::from(USER.0) << 16 | flags);
    }

    fn write(&self, gref: u64, value: u64) {
        let table = self.grants.frame((gref / 512) as u32).expect("a frame");
        poke(table, (gref % 512) as usize, value);
    }

    fn flags(&self, gref: u64) -> u16 {
        peek(self.grants.frame((gref / 512) as u32).expect("a frame"), (gref % 512) as usize) as u16
    }

    /// The granter writes a version 2 entry: flags and domain, the word behind them, the frame.
    fn write_v2(&self, gref: usize, flags: u16, second: u32, frame: u64) {
        let table = self.grants.frame(0).expect("a frame");
        poke(table, 2 * gref, u64::from(second) << 32 | u64::from(USER.0) << 16 | u64::from(flags));
        poke(table, 2 * gref + 1, frame);
    }

    fn status_v2(&self, gref: usize) -> u16 {
        (peek(self.grants.status_frame(0).expect("version 2"), gref / 4) >> (16 * (gref % 4))) as u16
    }

    fn lend(&self, gref: u32, how: Use) -> core::result::Result<Loan, GrantStatus> {
        self.grants.lend(gref, USER, how)
    }

    fn lease(&self, gref: u32, writable: bool) -> core::result::Result<Lease, Refused> {
        self.grants.lease(gref, USER, writable, true)
    }

    /// Counts what is held by records, and by `more`.
    fn check(&self, more: &[Held]) {
        let mut held = more.to_vec();
        self.grants.for_each_active(|_, active| held.extend(active.page.iter().map(|p| Held::general(p.mfn()))));
        mm::invariants::check(held, &|_| false).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Ends it all, and finds every frame free.
    fn finish(self) {
        while self.grants.retire().is_err() {}
        for mfn in self.frames {
            self.account.give_up(mfn).expect("owned");
        }
        assert_eq!(buddy::free_frames(), self.free);
    }
}

#[test]
fn tables_grow_to_their_maximum() {
    let w = World::new(Limits { frames: 4, ..Limits::DEFAULT });
    let first = w.grants.frame(0).expect("a frame from the start");
    assert_eq!((w.grants.frames(), w.grants.frame(1)), (1, None));
    w.grants.grow(0).expect("nothing to do");
    w.grants.grow(4).expect("memory");
    assert_eq!((w.grants.frames(), w.grants.frame(0)), (4, Some(first)));
    assert_eq!(w.grants.grow(5), Err(Errno::EINVAL));
    assert!(PageRef::get(first, GRANTER).is_some(), "the domain may map it");
    assert!(PageRef::get(first, USER).is_none());
    w.finish();
}

#[test]
fn a_table_that_cannot_grow_stays_as_it_is() {
    let w = World::new(Limits::DEFAULT);
    w.grants.set_version(2).expect("unused");
    let taken: Vec<Mfn> = core::iter::from_fn(|| buddy::alloc(0, buddy::ANYWHERE)).collect();
    buddy::free(taken[0], 0);
    assert_eq!(w.grants.grow(9), Err(Errno::ENOMEM));
    assert_eq!((w.grants.frames(), w.grants.status_frame(1)), (1, None));
    assert_eq!(buddy::free_frames(), 1);
    taken[1..].iter().for_each(|mfn| buddy::free(*mfn, 0));
    w.grants.grow(9).expect("memory again");
    assert!(w.grants.status_frame(1).is_some());
    w.finish();
}

#[test]
fn a_loan_is_seen_by_the_granter_as_long_as_it_lasts() {
    let w = World::new(Limits::DEFAULT);
    w.grant(9, 0, PERMIT);
    let (frame, mfn) = (9, w.frames[0]);
    let read = w.lend(frame, READ).expect("granted");
    assert_eq!((read.mfn, w.flags(9)), (mfn, GTF_PERMIT_ACCESS | GTF_READING));
    let both = w.lend(frame, Use { host: true, device: true, writable: true }).expect("granted");
    assert_eq!(w.flags(9), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    w.check(&[Held::general(mfn), Held::typed(mfn), Held::typed(mfn)]);
    drop(both.host);
    assert_eq!(w.flags(9), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    drop(both.device);
    assert_eq!(w.flags(9), GTF_PERMIT_ACCESS | GTF_READING);
    w.check(&[Held::general(mfn)]);
    drop(read);
    assert_eq!(w.flags(9), GTF_PERMIT_ACCESS);
    w.check(&[]);
    w.finish();
}

#[test]
fn what_an_entry_does_not_allow_is_refused_and_leaves_no_mark() {
    let w = World::new(Limits::DEFAULT);
    let refused = |gref, how| w.lend(gref, how).expect_err("refused");
    assert_eq!(refused(512, READ), GrantStatus::BAD_GNTREF);
    assert_eq!(refused(u32::MAX, READ), GrantStatus::BAD_GNTREF);
    w.grant(8, 0, u64::from(GTF_INVALID));
    w.grant(9, 0, u64::from(GTF_ACCEPT_TRANSFER));
    w.grant(10, 0, PERMIT | u64::from(GTF_SUB_PAGE));
    w.grant(11, 0, u64::from(GTF_TRANSITIVE));
    for gref in 8..12 {
        let before = w.flags(gref);
        assert_eq!(refused(gref as u32, READ), GrantStatus::GENERAL_ERROR, "entry {gref}");
        assert_eq!(w.flags(gref), before);
    }
    w.grant(12, 0, PERMIT | u64::from(GTF_READONLY));
    assert_eq!(refused(12, WRITE), GrantStatus::GENERAL_ERROR);
    drop(w.lend(12, READ).expect("that is allowed"));
    assert_eq!(w.grants.lend(12, GRANTER, READ).expect_err("another domain"), GrantStatus::GENERAL_ERROR);
    w.write(13, 0xff_ffff << 32 | u64::from(USER.0) << 16 | PERMIT);
    assert_eq!(refused(13, READ), GrantStatus::BAD_PAGE);
    w.write(14, u64::from(USER.0) << 16 | PERMIT);
    assert_eq!(refused(14, READ), GrantStatus::BAD_PAGE, "the hypervisor's frame");
    assert_eq!((w.flags(12), w.flags(13), w.flags(14)), (PERMIT as u16 | GTF_READONLY, PERMIT as u16, PERMIT as u16));
    w.check(&[]);
    w.finish();
}

#[test]
fn while_an_entry_is_used_its_record_counts_and_not_what_the_granter_writes() {
    let w = World::new(Limits::DEFAULT);
    w.grant(9, 0, PERMIT);
    let first = w.lend(9, READ).expect("granted");
    w.grant(9, 1, PERMIT);
    assert_eq!(w.lend(9, READ).expect("in use").mfn, w.frames[0], "XSA-500");
    assert_eq!(w.lease(9, false).expect("in use").page.mfn(), w.frames[0]);
    // More rights than those of before are for the entry to allow.
    w.grant(9, 1, PERMIT | u64::from(GTF_READONLY));
    assert_eq!(w.lend(9, WRITE).expect_err("read-only now"), GrantStatus::GENERAL_ERROR);
    assert_eq!(w.lease(9, true).expect_err("read-only now"), Refused::For(GrantStatus::GENERAL_ERROR));
    w.write(9, 0);
    let second = w.lend(9, WRITE).expect("flags and domain were checked at the first use");
    assert_eq!(second.mfn, w.frames[0]);
    w.check(&[Held::general(w.frames[0]), Held::typed(w.frames[0])]);
    drop((first, second));
    assert_eq!(w.lend(9, READ).expect_err("not granted"), GrantStatus::GENERAL_ERROR);
    w.check(&[]);
    w.finish();
}

#[test]
fn frames_that_cannot_be_writable_are_lent_to_read() {
    let w = World::new(Limits::DEFAULT);
    let mut tables = mm::PageTables::new();
    let ctx = mm::PtCtx::own(&w.account, &mm::NoIo);
    tables.pin(&ctx, w.frames[2], 1).expect("an empty table");
    w.grant(9, 2, PERMIT);
    assert_eq!(w.lend(9, WRITE).expect_err("a page table"), GrantStatus::GENERAL_ERROR);
    assert_eq!(w.flags(9), GTF_PERMIT_ACCESS);
    w.check(&[]);
    drop(w.lend(9, READ).expect("to read"));
    w.check(&[]);
    tables.unpin(&ctx, w.frames[2]).expect("pinned");
    w.finish();
}

#[test]
fn parts_of_frames_can_be_copied_but_not_mapped() {
    let w = World::new(Limits::DEFAULT);
    w.grants.set_version(2).expect("unused");
    let (flags, mfn) = (GTF_PERMIT_ACCESS | GTF_SUB_PAGE, w.frames[0].0);
    w.write_v2(9, flags, 100 | 50 << 16, mfn);
    assert_eq!(w.lend(9, READ).expect_err("a part"), GrantStatus::GENERAL_ERROR);
    let lease = w.lease(9, false).expect("granted");
    assert_eq!((lease.part.clone(), w.status_v2(9)), (100..150, GTF_READING));
    w.write_v2(9, GTF_PERMIT_ACCESS, 0, mfn);
    assert_eq!(w.lend(9, READ).expect_err("in use as a part"), GrantStatus::GENERAL_ERROR);
    assert_eq!(w.lease(9, true).expect("in use").part, 100..150);
    w.check(&[Held::general(w.frames[0])]);
    drop(lease);
    assert_eq!(w.status_v2(9), 0);
    for (start, length, part) in [(0, 0, 0..0), (4000, 200, 4000..4096), (0xffff, 0xffff, 4096..4096)] {
        w.write_v2(9, flags, start | length << 16, mfn);
        assert_eq!(w.lease(9, false).expect("granted").part, part);
    }
    w.write_v2(9, GTF_PERMIT_ACCESS, 0, mfn);
    assert_eq!(w.lend(9, WRITE).expect("all of it").mfn, w.frames[0]);
    assert_eq!(w.status_v2(9), 0);
    w.check(&[]);
    w.finish();
}

#[test]
fn a_change_of_version_keeps_what_the_tools_wrote() {
    let w = World::new(Limits::DEFAULT);
    w.grant(0, 0, PERMIT);
    w.grant(1, 1, PERMIT);
    w.grant(8, 2, PERMIT);
    let used = w.lend(1, WRITE).expect("granted");
    w.grants.set_version(2).expect("only a reserved entry is in use");
    assert_eq!((w.grants.version(), w.status_v2(1)), (2, GTF_READING | GTF_WRITING));
    assert_eq!(w.lend(0, READ).expect("kept").mfn, w.frames[0]);
    assert_eq!(w.lend(8, READ).expect_err("cleared"), GrantStatus::GENERAL_ERROR);
    assert_eq!(w.lend(256, READ).expect_err("half as many"), GrantStatus::BAD_GNTREF);
    w.grants.set_version(1).expect("back again");
    assert_eq!(w.flags(1), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    w.check(&[Held::typed(w.frames[1])]);
    drop(used);
    assert_eq!(w.flags(1), GTF_PERMIT_ACCESS);
    w.check(&[]);
    w.finish();
}

#[test]
fn a_version_that_cannot_be_changed_stays() {
    let w = World::new(Limits::DEFAULT);
    for bad in [0, 3, u32::MAX] {
        assert_eq!(w.grants.set_version(bad), Err(Errno::EINVAL));
    }
    w.grant(8, 0, PERMIT);
    let used = w.lend(8, READ).expect("granted");
    assert_eq!(w.grants.set_version(2), Err(Errno::EBUSY));
    assert_eq!(w.grants.set_version(1), Ok(()), "that is what it is");
    drop(used);
    w.grants.set_version(2).expect("unused");
    w.write_v2(3, GTF_TRANSITIVE, 0, 0);
    assert_eq!(w.grants.set_version(1), Err(Errno::ERANGE));
    w.write_v2(3, GTF_PERMIT_ACCESS, 0, 1 << 32);
    assert_eq!(w.grants.set_version(1), Err(Errno::ERANGE));
    w.write_v2(3, GTF_PERMIT_ACCESS | GTF_SUB_PAGE, 8 << 16, w.frames[0].0);
    let used = w.lease(3, false).expect("granted");
    assert_eq!(w.grants.set_version(1), Err(Errno::EAGAIN));
    drop(used);
    let status = w.grants.status_frame(0).expect("version 2");
    let mapped = PageRef::get(status, GRANTER).expect("it may map it");
    assert_eq!(w.grants.set_version(1), Err(Errno::EBUSY), "XSA-255");
    assert_eq!(w.grants.status_frame(0), Some(status));
    w.check(&[Held::general(status)]);
    drop(mapped);
    w.grants.set_version(1).expect("nothing is in the way");
    assert!(PageRef::get(status, GRANTER).is_none());
    w.check(&[]);
    w.finish();
    let only_first = World::new(Limits { version: 1, ..Limits::DEFAULT });
    assert_eq!(only_first.grants.set_version(2), Err(Errno::ENOSYS));
    only_first.finish();
}

#[test]
fn entries_that_nobody_uses_change_places() {
    let w = World::new(Limits::DEFAULT);
    w.grant(9, 0, PERMIT);
    w.grant(10, 1, PERMIT | u64::from(GTF_READONLY));
    w.grants.swap(9, 10).expect("unused");
    assert_eq!(w.lend(9, READ).expect("granted").mfn, w.frames[1]);
    let used = w.lend(10, WRITE).expect("granted");
    assert_eq!(used.mfn, w.frames[0]);
    assert_eq!(w.grants.swap(9, 10), Err(GrantStatus::EAGAIN));
    assert_eq!(w.grants.swap(10, 11), Err(GrantStatus::EAGAIN));
    assert_eq!(w.grants.swap(10, 10), Ok(()));
    assert_eq!(w.grants.swap(9, 512), Err(GrantStatus::BAD_GNTREF));
    drop(used);
    w.finish();
}

#[test]
fn a_retired_table_lends_nothing_and_what_it_lent_ends_quietly() {
    let w = World::new(Limits::DEFAULT);
    w.grant(9, 0, PERMIT);
    w.grant(10, 1, PERMIT);
    let loan = w.lend(9, WRITE).expect("granted");
    let lease = w.lease(10, false).expect("granted");
    w.grants.retire().expect("time enough");
    assert_eq!(w.lend(9, READ).expect_err("dying"), GrantStatus::BAD_DOMAIN);
    assert_eq!(w.lease(10, false).expect_err("dying"), Refused::For(GrantStatus::BAD_DOMAIN));
    assert_eq!((w.grants.frames(), w.grants.grow(2)), (0, Err(Errno::EINVAL)));
    // Records hold no frames any more; what was lent does.
    w.check(&[Held::typed(w.frames[0]), Held::general(w.frames[1])]);
    drop((loan, lease));
    w.check(&[]);
    w.finish();
}
