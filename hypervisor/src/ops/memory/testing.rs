// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests of the operations on lists share.

use alloc::sync::Arc;
use alloc::vec::Vec;

use arch::hosted::Machine;
use hypercalls::{DomId, Mfn, Pfn};
use mm::hosted::poke;
use mm::{Account, buddy, m2p};

const TABLE: u64 = 7;
/// Where the guest's page of lists is in its address space.
pub(super) const LISTS: u64 = 0x1000;

/// A domain with 16 frames, and a page at [`LISTS`] that the hypervisor can reach as a guest's.
pub(super) struct World {
    pub(super) account: Arc<Account>,
    pub(super) frames: Vec<Mfn>,
    pub(super) page: Mfn,
    _machine: Machine,
}

impl World {
    pub(super) fn new() -> Self {
        let machine = mm::hosted::boot(256, 1);
        let account = Account::open(DomId(1), 16).expect("new number");
        let frames: Vec<_> = (0..16).map(|_| account.populate(0, buddy::ANYWHERE).expect("memory")).collect();
        for (pfn, mfn) in (0..).zip(&frames) {
            m2p::set(*mfn, Pfn(pfn));
        }
        let tables: Vec<_> = (0..4).map(|_| buddy::alloc(0, buddy::ANYWHERE).expect("memory")).collect();
        let page = buddy::alloc(0, buddy::ANYWHERE).expect("memory");
        for table in &tables {
            (0..512).for_each(|n| poke(*table, n, 0));
        }
        for pair in tables.windows(2) {
            poke(pair[0], 0, pair[1].maddr().0 | TABLE);
        }
        poke(tables[3], 1, page.maddr().0 | TABLE);
        arch::guest::set_root(tables[0]);
        Self { account, frames, page, _machine: machine }
    }

    pub(super) fn list(&self, at: usize, values: &[u64]) -> u64 {
        for (n, value) in values.iter().enumerate() {
            poke(self.page, at + n, *value);
        }
        LISTS + at as u64 * 8
    }

    pub(super) fn owns(&self, mfn: Mfn) -> bool {
        mm::PageRef::get(mfn, DomId(1)).is_some()
    }

    pub(super) fn input(&self, count: usize) -> u64 {
        let frames: Vec<_> = self.frames.iter().take(count).map(|mfn| mfn.0).collect();
        self.list(0, &frames)
    }
}
