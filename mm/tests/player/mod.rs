// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody who does everything that changes page tables, from two domains, interrupted anywhere, as a source of numbers
//! says: random ones in tests, a fuzzer's bytes. All rules are checked after each step.

mod lent;

use arch::CpuId;
use hypercalls::{DomId, Errno, GuestVa, Mfn};
use mm::flags::{A, CACHE, D, G, GUEST_KERNEL, NX, PSE};
use mm::hosted::{Source, poke};
use mm::invariants::Held;
use mm::{PageRef, RootUse, SegDescRef, WritableRef, Write};

use super::world::*;

const FRAMES: u64 = 40;
/// Table slots that are used, so that sequences meet each other.
const INDEXES: [usize; 7] = [0, 1, 2, 255, 256, 272, 511];

struct Player<'a> {
    w: World,
    r: Source<'a>,
    pages: Vec<PageRef>,
    writable: Vec<WritableRef>,
    descriptors: Vec<SegDescRef>,
    /// What each of two CPUs has loaded: domain and root.
    loaded: [Option<(usize, Mfn)>; 2],
}

impl<'a> Player<'a> {
    fn new(r: Source<'a>) -> Self {
        let mut w = World::new(2, FRAMES);
        w.domains[0].devices = true;
        Self { w, r, pages: vec![], writable: vec![], descriptors: vec![], loaded: [None; 2] }
    }
    fn who(&mut self) -> usize {
        self.r.below(2) as usize
    }
    /// A frame of the domain's that usually plays the given level (0: data).
    fn frame(&mut self, who: usize, level: u64) -> Mfn {
        let frames = &self.w.domains[who].frames;
        if self.r.one_in(12) {
            return self.r.pick(frames);
        }
        let parts: [u64; 5] = [20, 8, 5, 4, 3];
        let start: u64 = parts[..level as usize].iter().sum();
        frames[((start + self.r.below(parts[level as usize])) % frames.len() as u64) as usize]
    }
    /// An entry that often fits a table of the level.
    fn value(&mut self, who: usize, level: u64) -> u64 {
        if self.r.one_in(5) {
            return self.r.below(u64::MAX) & !P;
        }
        let mut flags = P | (self.r.below(2) * RW) | (self.r.below(2) * US) | (self.r.below(2) * (A | D));
        if self.r.one_in(10) {
            flags |= self.r.pick(&[PSE, G, NX, GUEST_KERNEL, CACHE & (PSE - 1), 1 << 50]);
        }
        let mfn = match self.r.below(30) {
            0 => Mfn(self.r.below(1 << 20)),
            1 => Mfn(0xfee00 + self.r.below(0x200)),
            2 => {
                let other = self.who();
                self.frame(other, 0)
            }
            _ => self.frame(who, level - 1),
        };
        to(mfn, flags)
    }
    fn level(&mut self) -> u64 {
        1 + self.r.below(4)
    }
    fn index(&mut self) -> usize {
        self.r.pick(&INDEXES)
    }

    /// Runs a call: interrupted after a random number of questions, and then either gone on with or forgotten.
    fn run(
        &mut self,
        who: usize,
        fd: DomId,
        mut call: impl FnMut(&mut mm::PageTables, &mm::PtCtx<'_>) -> Result<(), Errno>,
    ) {
        let tries = if self.r.one_in(4) { 1 + self.r.below(3) } else { 10_000 };
        for _ in 0..tries {
            let budget = (self.r.below(3) != 0).then(|| self.r.below(4));
            arch::cpu::preempt_after(budget);
            let result = self.w.domains[who].once_foreign(fd, &mut call);
            arch::cpu::preempt_after(None);
            if result != Err(Errno::ERESTART) {
                return;
            }
            self.check();
        }
    }

    fn step(&mut self) {
        let who = self.who();
        let id = self.w.domains[who].id();
        match self.r.below(27) {
            0..=4 => self.update(who, id),
            5 => {
                let other = DomId(2 - who as u16);
                self.update(who, other);
            }
            6..=7 => {
                let level = self.level();
                let mfn = self.frame(who, level);
                self.run(who, id, |t, c| t.pin(c, mfn, level as u8));
            }
            8 => {
                let level = self.level();
                let mfn = self.frame(who, level);
                self.run(who, id, |t, c| t.unpin(c, mfn));
            }
            9 => self.get_root(who),
            10 => self.put_root(who),
            11 => self.own_write(who),
            12..=13 => self.access(),
            14 => self.memory(who),
            15 => self.values(who),
            16 => self.compare_exchange(who),
            17..=19 => self.retype(),
            20..=21 => self.scaffold(who),
            22..=23 => self.lend(who),
            24 => self.end_loan(who),
            _ => {
                // Build in plain memory, as a guest does before it pins.
                for _ in 0..6 {
                    self.own_write(who);
                }
            }
        }
    }

    fn update(&mut self, who: usize, fd: DomId) {
        let level = self.level();
        let (mfn, index, value) = (self.frame(who, level), self.index(), self.value(who, level));
        let value =
            if fd == self.w.domains[who].id() { value } else { to(self.frame(2 - fd.0 as usize, 0), value & 7) };
        let how = if self.r.one_in(2) { Write::Plain } else { Write::PreserveAd };
        self.run(who, fd, |t, c| t.mod_entry(c, slot(mfn, index), value, how));
    }
    fn compare_exchange(&mut self, who: usize) {
        let (mfn, index, value) = (self.frame(who, 1), self.index(), self.value(who, 1));
        let expected = if self.r.one_in(4) { 0 } else { read(mfn, index) };
        let id = self.w.domains[who].id();
        self.run(who, id, |t, c| t.cmpxchg_l1(c, slot(mfn, index), expected, value).map(|_| ()));
    }
    fn get_root(&mut self, who: usize) {
        let (mfn, id) = (self.frame(who, 4), self.w.domains[who].id());
        let use_as = self.r.pick(&[RootUse::Kernel, RootUse::User]);
        let mut got = None;
        self.run(who, id, |t, c| {
            got = Some(t.get_root(c, mfn, use_as)?);
            Ok(())
        });
        self.w.domains[who].roots.extend(got);
    }
    fn put_root(&mut self, who: usize) {
        let count = self.w.domains[who].roots.len() as u64;
        if count == 0 {
            return;
        }
        let n = self.r.below(count) as usize;
        let mfn = self.w.domains[who].roots[n].mfn();
        for cpu in 0..2 {
            if self.loaded[cpu] == Some((who, mfn)) {
                self.load(cpu, None);
            }
        }
        arch::cpu::preempt_after(if self.r.one_in(2) { Some(self.r.below(3)) } else { None });
        let root = self.w.domains[who].roots.swap_remove(n);
        self.w.domains[who]
            .once(|t, c| {
                if t.drain(c).is_ok() {
                    t.put_root(c, root);
                    Ok(())
                } else {
                    Err(root)
                }
            })
            .unwrap_or_else(|root| self.w.domains[who].roots.push(root));
        arch::cpu::preempt_after(None);
    }
    fn load(&mut self, cpu: usize, what: Option<(usize, Mfn)>) {
        arch::cpu::set_this_cpu(CpuId(cpu as u16));
        if let Some((who, _)) = self.loaded[cpu] {
            self.w.domains[who].account.dirty.remove(CpuId(cpu as u16));
        }
        if let Some((who, _)) = what {
            self.w.domains[who].account.dirty.insert(CpuId(cpu as u16));
        }
        arch::guest::set_root(what.map_or(Mfn::INVALID, |w| w.1));
        self.loaded[cpu] = what;
        arch::cpu::set_this_cpu(CpuId(0));
    }
    /// The guest touches its memory through what its CPU has loaded, TLB included.
    fn access(&mut self) {
        let cpu = self.r.below(2) as usize;
        if self.loaded[cpu].is_none() || self.r.one_in(4) {
            let who = self.who();
            let roots: Vec<Mfn> = self.w.domains[who].roots.iter().map(|r| r.mfn()).collect();
            if roots.is_empty() {
                return;
            }
            let root = self.r.pick(&roots);
            self.load(cpu, Some((who, root)));
        }
        let (who, mut table) = self.loaded[cpu].expect("loaded above");
        let mut va = 0;
        for level in (0..4).rev() {
            let present = |i: &usize| !(256..272).contains(i) && read(table, *i) & P != 0;
            let there: Vec<usize> = INDEXES.into_iter().filter(present).collect();
            let index = if there.is_empty() { self.index() } else { self.r.pick(&there) };
            va |= (index as u64) << (12 + 9 * level);
            if there.is_empty() {
                break;
            }
            table = mm::flags::mfn_of(read(table, index));
            if table.0 >= mm::frame::end() {
                break;
            }
        }
        let va = GuestVa(((va << 16) as i64 >> 16) as u64);
        if !va.range_ok(8) {
            return;
        }
        let level = self.level();
        let value = self.value(who, level);
        arch::cpu::set_this_cpu(CpuId(cpu as u16));
        let va = GuestVa(va.0 + self.index() as u64 * 8);
        if self.r.one_in(2) {
            let _ = arch::guest::copy_to(va, &value.to_le_bytes());
        } else {
            let _ = arch::guest::copy_from(&mut [0; 8], va);
        }
        arch::cpu::set_this_cpu(CpuId(0));
    }
    /// Builds a tree that is valid, as far as its frames are plain memory, and loads it.
    fn scaffold(&mut self, who: usize) {
        let id = self.w.domains[who].id();
        while self.w.domains[who].roots.len() > 2 {
            self.put_root(who);
        }
        let tables: [Mfn; 4] = core::array::from_fn(|i| self.frame(who, 4 - i as u64));
        for (n, table) in tables.into_iter().enumerate() {
            if WritableRef::get(table, id).is_err() {
                continue;
            }
            INDEXES.iter().for_each(|i| poke(table, *i, 0));
            for _ in 0..1 + self.r.below(3) {
                let next = tables.get(n + 1).copied().unwrap_or_else(|| self.w.domains[who].frames[0]);
                let next = if n == 3 { self.frame(who, 0) } else { next };
                let index = self.r.pick(&[0, 1, 2, 255, 511]);
                poke(table, index, to(next, P | US | if n == 3 { RW * self.r.below(2) } else { RW }));
            }
        }
        let mut got = None;
        self.run(who, id, |t, c| {
            got = Some(t.get_root(c, tables[0], RootUse::Kernel)?);
            Ok(())
        });
        if let Some(root) = got {
            let cpu = self.r.below(2) as usize;
            self.load(cpu, Some((who, root.mfn())));
            self.w.domains[who].roots.push(root);
            (0..6).for_each(|_| self.access());
        }
    }
    /// Takes a frame that some CPU has cached as writable out of a mapping, and makes something else of it.
    fn retype(&mut self) {
        let there = arch::tlb::cached();
        let there: Vec<_> = there.into_iter().filter(|c| c.2.writable).collect();
        if there.is_empty() {
            return self.access();
        }
        let (cpu, va, cached) = self.r.pick(&there);
        let Some((who, root)) = self.loaded[cpu.0 as usize] else {
            return;
        };
        let id = self.w.domains[who].id();
        if let Some(at) = mm::walk(root, va).l1e {
            let value = self.r.pick(&[0, to(cached.mfn, P), to(self.w.domains[who].frames[22], P | RW)]);
            self.run(who, id, |t, c| t.mod_entry(c, at, value, Write::Plain));
        }
        // Whose frame it is: not theirs whose CPU has it cached, if it was lent.
        let who = if self.w.domains[1 - who].frames.contains(&cached.mfn) { 1 - who } else { who };
        let id = self.w.domains[who].id();
        match self.r.below(3) {
            0 => {
                let got = self.w.domains[who].once(|t, c| t.get_segdesc(c, cached.mfn));
                self.descriptors.extend(got);
            }
            1 => {
                let level = self.level() as u8;
                self.run(who, id, |t, c| t.pin(c, cached.mfn, level));
            }
            _ => {}
        }
    }
    /// A store to a frame that the guest could have mapped writable.
    fn own_write(&mut self, who: usize) {
        let level = self.level();
        let (mfn, index, value) = (self.frame(who, level), self.index(), self.value(who, level));
        if WritableRef::get(mfn, self.w.domains[who].id()).is_ok() {
            poke(mfn, index, value);
        }
    }
    fn memory(&mut self, who: usize) {
        let n = self.r.below(FRAMES) as usize;
        let d = &mut self.w.domains[who];
        let gone = if self.r.one_in(2) {
            d.account.give_up(d.frames[n])
        } else {
            let mfn = d.frames[n];
            d.account.steal(mfn).map(|()| mm::buddy::free(mfn, 0))
        };
        if gone.is_ok()
            && let Ok(new) = d.account.populate(0, mm::buddy::ANYWHERE)
        {
            d.frames[n] = new;
        }
    }
    fn values(&mut self, who: usize) {
        let (id, mfn) = (self.w.domains[who].id(), self.frame(who, 0));
        match self.r.below(6) {
            0 => self.pages.extend(PageRef::get(mfn, id)),
            1 => self.writable.extend(WritableRef::get(mfn, id)),
            2 => {
                let got = self.w.domains[who].once(|t, c| t.get_segdesc(c, mfn));
                self.descriptors.extend(got);
            }
            3 => drop(self.pages.pop()),
            4 => drop(self.writable.pop()),
            _ => drop(self.descriptors.pop()),
        }
    }

    fn check(&self) {
        let held: Vec<Held> = (self.pages.iter().map(|p| Held::general(p.mfn())))
            .chain(self.writable.iter().map(|p| Held::typed(p.mfn())))
            .chain(self.descriptors.iter().map(|p| Held::typed(p.mfn())))
            .collect();
        self.w.check_with(&held);
    }

    fn finish(mut self) {
        (0..2).for_each(|cpu| self.load(cpu, None));
        self.pages.clear();
        self.writable.clear();
        self.descriptors.clear();
        self.check();
        for who in 0..2 {
            self.w.domains[who].account.begin_dying();
            while !self.w.domains[who].roots.is_empty() {
                self.w.domains[who].drop_root(0);
            }
            let id = self.w.domains[who].id();
            let mut done = false;
            while !done {
                self.run(who, id, |t, c| t.relinquish(c).inspect(|()| done = true));
            }
            self.check();
        }
        assert_eq!(mm::buddy::free_frames() + 1, mm::buddy::total_frames(), "every frame is back");
    }
}

/// Plays so many steps in a new world, or until there are no numbers left to decide by, and tears everything down.
pub(crate) fn play(source: Source<'_>, steps: usize) {
    let mut player = Player::new(source);
    for _ in 0..steps {
        if player.r.is_empty() {
            break;
        }
        player.step();
        player.check();
    }
    player.finish();
}
