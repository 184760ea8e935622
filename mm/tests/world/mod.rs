// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests of this crate share: a machine, domains, and short names.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(clippy::allow_attributes, reason = "whether the line above is needed differs by test binary")]

use arch::hosted::Machine;
use hypercalls::{DomId, Errno, Maddr, Mfn};
use mm::hosted::{peek, poke};
use mm::invariants::{self, Held};
use mm::{Account, IoAccess, IoPolicy, NoIo, PageTables, PtCtx, RootRef, RootUse, Write};
use std::sync::Arc;

pub const P: u64 = mm::flags::P;
pub const RW: u64 = mm::flags::RW;
pub const US: u64 = mm::flags::US;
pub const TABLE: u64 = P | RW | US;

/// Frames from 0xfee00 on are devices; from 0xfef00 on read-only.
#[derive(Debug)]
pub struct Devices;
impl IoPolicy for Devices {
    fn mmio(&self, mfn: Mfn) -> IoAccess {
        match mfn.0 {
            0xfee00..0xfef00 => IoAccess::ReadWrite,
            0xfef00..0xff000 => IoAccess::ReadOnly,
            _ => IoAccess::None,
        }
    }
    fn cache_bits(&self) -> bool {
        true
    }
}

pub struct Domain {
    pub account: Arc<Account>,
    pub tables: PageTables,
    pub devices: bool,
    pub roots: Vec<RootRef>,
    pub frames: Vec<Mfn>,
}

impl Domain {
    pub fn new(id: u16, frames: u64) -> Self {
        Self::with_rule(id, frames, None)
    }
    /// One that may write only some absent entries.
    pub fn with_rule(id: u16, frames: u64, absent: Option<mm::AbsentRule>) -> Self {
        let account = Account::open_with(DomId(id), frames + 16, absent).expect("new number");
        let frames = (0..frames).map(|_| account.populate(0, mm::buddy::ANYWHERE).expect("enough memory")).collect();
        Self { account, tables: PageTables::new(), devices: false, roots: Vec::new(), frames }
    }
    pub fn id(&self) -> DomId {
        self.account.domid()
    }
    fn with<T>(&mut self, fd: DomId, f: impl FnOnce(&mut PageTables, &PtCtx<'_>) -> T) -> T {
        let io: &dyn IoPolicy = if self.devices { &Devices } else { &NoIo };
        let ctx = PtCtx { owner: &self.account, fd, io };
        let result = f(&mut self.tables, &ctx);
        self.tables.finish(&ctx);
        result
    }
    /// One call, which may be interrupted.
    pub fn once<T>(&mut self, f: impl FnOnce(&mut PageTables, &PtCtx<'_>) -> T) -> T {
        self.with(self.id(), f)
    }
    pub fn once_foreign<T>(&mut self, fd: DomId, f: impl FnOnce(&mut PageTables, &PtCtx<'_>) -> T) -> T {
        self.with(fd, f)
    }
    /// As a guest does it: until it is done.
    pub fn until_done<T>(
        &mut self,
        mut f: impl FnMut(&mut PageTables, &PtCtx<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        loop {
            match self.once(&mut f) {
                Err(Errno::ERESTART) => {}
                other => return other,
            }
        }
    }
    pub fn pin(&mut self, mfn: Mfn, level: u8) -> Result<(), Errno> {
        self.until_done(|t, c| t.pin(c, mfn, level))
    }
    pub fn unpin(&mut self, mfn: Mfn) -> Result<(), Errno> {
        self.until_done(|t, c| t.unpin(c, mfn))
    }
    pub fn set(&mut self, table: Mfn, index: usize, value: u64) -> Result<(), Errno> {
        self.until_done(|t, c| t.mod_entry(c, slot(table, index), value, Write::Plain))
    }
    pub fn set_foreign(&mut self, fd: DomId, table: Mfn, index: usize, value: u64) -> Result<(), Errno> {
        loop {
            match self.with(fd, |t, c| t.mod_entry(c, slot(table, index), value, Write::Plain)) {
                Err(Errno::ERESTART) => {}
                other => return other,
            }
        }
    }
    pub fn root(&mut self, mfn: Mfn, use_as: RootUse) -> Result<(), Errno> {
        let root = self.until_done(|t, c| t.get_root(c, mfn, use_as))?;
        self.roots.push(root);
        Ok(())
    }
    pub fn drop_root(&mut self, index: usize) {
        let root = self.roots.swap_remove(index);
        self.once(|t, c| t.put_root(c, root));
    }
    pub fn drain(&mut self) {
        self.until_done(|t, c| t.drain(c)).expect("draining cannot fail");
    }
    pub fn destroy(&mut self) {
        self.account.begin_dying();
        while let Some(root) = self.roots.pop() {
            self.once(|t, c| t.put_root(c, root));
        }
        self.until_done(|t, c| t.relinquish(c)).expect("relinquishing cannot fail");
    }
    pub fn held(&self) -> impl Iterator<Item = Held> {
        self.roots.iter().map(|r| Held::typed(r.mfn()))
    }
}

pub fn slot(table: Mfn, index: usize) -> Maddr {
    Maddr(table.maddr().0 + index as u64 * 8)
}

pub fn to(mfn: Mfn, flags: u64) -> u64 {
    mm::flags::entry_for(mfn, flags)
}

pub struct World {
    pub domains: Vec<Domain>,
    _machine: Machine,
}

impl World {
    pub fn new(domains: u16, frames_each: u64) -> Self {
        let machine = mm::hosted::boot(512, 4);
        let domains = (0..domains).map(|n| Domain::new(n + 1, frames_each)).collect();
        Self { domains, _machine: machine }
    }
    /// One domain.
    pub fn one() -> Self {
        Self::new(1, 64)
    }
    pub fn d(&mut self) -> &mut Domain {
        &mut self.domains[0]
    }
    pub fn check(&self) {
        self.check_with(&[]);
    }
    pub fn check_with(&self, more: &[Held]) {
        let held = self.domains.iter().flat_map(Domain::held).chain(more.iter().copied());
        invariants::check(held, &|_| true).unwrap_or_else(|e| panic!("{e}"));
        invariants::check_tlb().unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Writes a small tree into frames 0 to 3 (L4 to L1) of the domain's, mapping `data` at address 0.
pub fn tree(d: &Domain, data: u64) -> [Mfn; 4] {
    let [l4, l3, l2, l1] = [d.frames[0], d.frames[1], d.frames[2], d.frames[3]];
    poke(l4, 0, to(l3, TABLE));
    poke(l3, 0, to(l2, TABLE));
    poke(l2, 0, to(l1, TABLE));
    poke(l1, 0, data);
    [l4, l3, l2, l1]
}

pub fn kind(mfn: Mfn) -> (mm::PageType, u32) {
    let s = mm::page_info(mfn).expect("a frame");
    (s.page_type, s.type_count)
}

pub fn read(mfn: Mfn, index: usize) -> u64 {
    peek(mfn, index)
}
