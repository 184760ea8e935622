// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page tables of a [`Layout`]: which there are, and what each entry of them holds.
//!
//! The boot mapping's tables lie in the order L4, L3, L2, L1, those of the P2M mapping in the order L3, L2, L1; the L4 is common.

use super::{Layout, PAGE};
use hypercalls::Pfn;

/// Entries of a page table.
pub const ENTRIES: u64 = 512;

/// Tables of one level: `count` of them from `pfn` on, for consecutive addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Which multiple of what one table spans the first of them covers.
    first: u64,
    count: u64,
    pfn: u64,
}

/// The tables of one mapping: L3, L2, L1 in this order behind each other. The L4 table is common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tables {
    start: u64,
    /// The last byte mapped.
    pub(super) last: u64,
    /// Index 0 for L1.
    runs: [Run; 3],
}

/// Bits of address that one table of the level spans.
pub(super) const fn span_shift(level: u8) -> u32 {
    12 + 9 * level as u32
}

impl Tables {
    /// Lays out the tables for `start..=last` from `pfn` on.
    pub(super) fn new(start: u64, last: u64, pfn: u64) -> Self {
        let mut runs = [Run { first: 0, count: 0, pfn: 0 }; 3];
        let mut pfn = pfn;
        for level in [3u8, 2, 1] {
            let first = start >> span_shift(level);
            let count = (last >> span_shift(level)) - first + 1;
            runs[usize::from(level) - 1] = Run { first, count, pfn };
            pfn += count;
        }
        Self { start, last, runs }
    }

    pub(super) fn count(&self) -> u64 {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Returns the table of this level that covers the address.
    fn covering(&self, level: u8, va: u64) -> Option<Pfn> {
        let run = self.runs.get(usize::from(level).checked_sub(1)?)?;
        let index = (va >> span_shift(level)).checked_sub(run.first)?;
        (index < run.count).then(|| Pfn(run.pfn + index))
    }
}

/// Which of the two mappings a table belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// The one at `VIRT_BASE`; the L4 table counts as part of it.
    Boot,
    /// The one of the P2M array, if it has its own.
    P2m,
}

/// A page table to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// 4 to 1.
    pub level: u8,
    /// Where it lies.
    pub pfn: Pfn,
    /// The first address it covers.
    pub va: u64,
    /// The mapping it belongs to.
    pub mapping: Mapping,
}

/// What a page-table entry is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Empty,
    /// The table one level down.
    Table(Pfn),
    /// A page, read-only where it is a page table.
    Page {
        /// The page.
        pfn: Pfn,
        /// Whether the guest may write to it.
        writable: bool,
    },
}

impl Layout {
    /// Returns all tables to build, the L4 first, and each before those below it.
    pub fn tables(&self) -> impl Iterator<Item = Table> + '_ {
        let top = Table { level: 4, pfn: self.page_tables.pfn, va: 0, mapping: Mapping::Boot };
        let boot = tables_of(&self.boot_tables, Mapping::Boot);
        let p2m = self.p2m_tables.iter().flat_map(|tables| tables_of(tables, Mapping::P2m));
        core::iter::once(top).chain(boot).chain(p2m)
    }

    /// Returns what entry `index` (0 to 511) of a table holds. The hypervisor's own L4 entries read as empty.
    pub fn entry(&self, table: &Table, index: u64) -> Entry {
        let shift = span_shift(table.level - 1);
        let mut va = table.va | (index << shift);
        if table.level == 4 && index >= ENTRIES / 2 {
            va |= 0xffff << 48;
        }
        let last = va | ((1 << shift) - 1);
        let mapped = |tables: &&Tables| va <= tables.last && last >= tables.start;
        let boot =
            Some(&self.boot_tables).filter(|_| table.level == 4 || table.mapping == Mapping::Boot).filter(mapped);
        let p2m = self.p2m_tables.as_ref().filter(|_| table.level == 4 || table.mapping == Mapping::P2m).filter(mapped);
        if table.level > 1 {
            let below = boot.or(p2m).and_then(|tables| tables.covering(table.level - 1, va));
            return below.map_or(Entry::Empty, Entry::Table);
        }
        match (boot, p2m) {
            (Some(_), _) => {
                let pfn = Pfn((va - self.boot.va) / PAGE);
                Entry::Page { pfn, writable: !self.page_tables.contains(pfn) }
            }
            (_, Some(_)) => Entry::Page { pfn: Pfn(self.p2m.pfn.0 + (va - self.p2m.va) / PAGE), writable: true },
            _ => Entry::Empty,
        }
    }
}

fn tables_of(tables: &Tables, mapping: Mapping) -> impl Iterator<Item = Table> + use<> {
    let runs = tables.runs;
    [3u8, 2, 1].into_iter().flat_map(move |level| {
        let run = runs[usize::from(level) - 1];
        (0..run.count).map(move |i| Table {
            level,
            pfn: Pfn(run.pfn + i),
            va: (run.first + i) << span_shift(level),
            mapping,
        })
    })
}
