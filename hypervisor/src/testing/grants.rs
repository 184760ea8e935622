// SPDX-License-Identifier: MIT OR Apache-2.0
//! Grants that the player's guests give, use and take back, whether or not the other side is done with them.

use alloc::vec::Vec;

use hypercalls::grant::*;
use hypercalls::{DomId, GuestPtr, HypercallNr};
use mm::hosted::{peek, poke};

use super::calls::Call;
use super::guest::{FRAMES, TABLES, va};
use super::player::Player;
use super::world::World;
use crate::grants::Mapping;
use crate::vcpu::Vcpu;

/// Entries that are used, so that sequences meet each other; the last is beyond a version 2 table of one frame.
const REFS: u64 = 6;
const ODD_REFS: [u64; 5] = [0, 1, 255, 300, u32::MAX as u64];

impl Player<'_> {
    /// Writes an entry of a grant table as its owner does, at whatever moment.
    pub(super) fn grant(&mut self, world: &World, who: usize) {
        let grants = &world.guests[who].domain.grants;
        let Some(table) = grants.frame(0) else { return };
        let user = if self.source.one_in(6) { who } else { 1 - who };
        let domid = if self.source.one_in(20) { self.source.below(1 << 16) } else { user as u64 };
        let flags = match self.source.below(12) {
            0 => self.source.below(1 << 10),
            1 => u64::from(GTF_INVALID),
            2 => u64::from(GTF_PERMIT_ACCESS | GTF_READONLY),
            3 => u64::from(GTF_PERMIT_ACCESS | GTF_SUB_PAGE),
            4 => u64::from(GTF_TRANSITIVE),
            _ => u64::from(GTF_PERMIT_ACCESS),
        };
        let gref = self.gref() as usize;
        let frame = match self.source.below(16) {
            0 => self.source.word(),
            1 => world.guests[who].domain.shared_info().mfn().0,
            2 => table.0,
            3 => self.gref(),
            _ => self.frame(world, who, 0).0,
        };
        let header = domid << 16 | flags;
        if grants.version() == 1 {
            poke(table, gref % 512, frame << 32 | header);
        } else {
            let second = self.source.below(2) << 48 | (1 - who as u64) << 32 | self.source.below(200) << 48;
            poke(table, 2 * gref % 512, second | header);
            poke(table, (2 * gref + 1) % 512, frame);
        }
    }

    fn gref(&mut self) -> u64 {
        if self.source.one_in(20) { self.source.pick(&ODD_REFS) } else { 8 + self.source.below(REFS) }
    }

    /// The domain whose grants are used: mostly the other one.
    fn granter(&mut self, vcpu: &Vcpu) -> DomId {
        match self.source.below(10) {
            0 => self.domain(vcpu),
            1 | 2 => vcpu.domid,
            _ => DomId(1 - (vcpu.domid.0 & 1)),
        }
    }

    /// Where a page-table entry is, named in either way.
    fn place(&mut self, world: &World, who: usize, by_entry: bool) -> u64 {
        let pfn = self.pfn(0);
        if by_entry { entry_at(world, who, pfn) } else { va(pfn) + self.source.pick(&[0, 0, 8, 4095]) }
    }

    /// Makes up an operation on grants.
    pub(super) fn grants(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        match self.source.below(16) {
            0..=4 => self.map_grants(world, vcpu),
            5..=8 => self.unmap_grants(world, vcpu),
            9..=12 => self.copy_grants(world, vcpu),
            13 => {
                let list = [0; 2].map(|_| {
                    let (a, b) = (self.gref() as u32, self.gref() as u32);
                    GnttabSwapGrantRef { ref_a: a, ref_b: b, ..GnttabSwapGrantRef::default() }
                });
                self.grant_list(GnttabOp::SWAP_GRANT_REF, &list)
            }
            14 => {
                let version = 1 + self.small(2) as u32;
                let at = self.put(&GnttabSetVersion { version });
                self.grant_call(GnttabOp::SET_VERSION, at, 1)
            }
            _ => self.grant_table(vcpu),
        }
    }

    fn grant_call(&mut self, op: GnttabOp, at: u64, count: u64) -> Call {
        let count = if self.source.one_in(40) { self.source.word() } else { count };
        Call::new(HypercallNr::GRANT_TABLE_OP, [u64::from(op.0), at, count])
    }

    fn grant_list<T>(&mut self, op: GnttabOp, list: &[T]) -> Call
    where
        T: zerocopy::IntoBytes + zerocopy::Immutable,
    {
        let at = self.put(list);
        self.grant_call(op, at, list.len() as u64)
    }

    fn map_grants(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let who = usize::from(vcpu.domid.0);
        let list: Vec<GnttabMap> = (0..1 + self.source.below(4))
            .map(|_| {
                let mut flags = GNTMAP_HOST_MAP;
                for (flag, odds) in [
                    (GNTMAP_READONLY, 2),
                    (GNTMAP_DEVICE_MAP, 3),
                    (GNTMAP_CONTAINS_PTE, 3),
                    (GNTMAP_APPLICATION_MAP, 4),
                ] {
                    flags |= if self.source.one_in(odds) { flag } else { 0 };
                }
                flags = if self.source.one_in(12) { self.source.word() as u32 } else { flags };
                let place = self.place(world, who, flags & GNTMAP_CONTAINS_PTE != 0);
                let (gref, dom) = (self.gref() as u32, self.granter(vcpu));
                GnttabMap { host_addr: self.bent(place), flags, gref, dom, ..GnttabMap::default() }
            })
            .collect();
        self.grant_list(GnttabOp::MAP_GRANT_REF, &list)
    }

    /// Mostly ends mappings that there are, where they are.
    fn unmap_grants(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let who = usize::from(vcpu.domid.0);
        let known: Vec<(u32, u64, u64)> = {
            let track = world.guests[who].domain.grants.maptrack.lock();
            let known = track.iter().map(|(handle, m)| (handle, place_of(world, who, m), m.mfn.maddr().0));
            known.collect()
        };
        let replace = self.source.one_in(4);
        let (mut unmaps, mut replaces) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.source.below(40) {
            let (mut handle, mut place, mut bus) = (self.small(6) as u32, 0, 0);
            if !known.is_empty() && !self.source.one_in(12) {
                (handle, place, bus) = self.source.pick(&known);
            }
            let host_addr = match self.source.below(16) {
                0 => 0,
                1 => self.place(world, who, false),
                2 => self.place(world, who, true),
                _ => place,
            };
            let dev_bus_addr = self.source.pick(&[0, bus, bus, bus + 4096]);
            let new_addr = if self.source.one_in(3) { 0 } else { self.place(world, who, false) };
            unmaps.push(GnttabUnmap { host_addr, dev_bus_addr, handle, ..GnttabUnmap::default() });
            replaces.push(GnttabUnmapAndReplace { host_addr, new_addr, handle, ..GnttabUnmapAndReplace::default() });
        }
        if replace {
            self.grant_list(GnttabOp::UNMAP_AND_REPLACE, &replaces)
        } else {
            self.grant_list(GnttabOp::UNMAP_GRANT_REF, &unmaps)
        }
    }

    fn copy_grants(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let list: Vec<GnttabCopy> = (0..1 + self.source.below(5))
            .map(|_| {
                let flags =
                    if self.source.one_in(20) { self.source.below(8) as u16 } else { self.source.below(4) as u16 };
                let source = self.copy_end(world, vcpu, flags & GNTCOPY_SOURCE_GREF != 0);
                let dest = self.copy_end(world, vcpu, flags & GNTCOPY_DEST_GREF != 0);
                let len = self.source.pick(&[0, 1, 8, 64, 100, 4096, u16::MAX]);
                GnttabCopy { source, dest, len, flags, ..GnttabCopy::default() }
            })
            .collect();
        self.grant_list(GnttabOp::COPY, &list)
    }

    fn copy_end(&mut self, world: &World, vcpu: &Vcpu, is_grant: bool) -> GnttabCopyPtr {
        let who = usize::from(vcpu.domid.0);
        let offset = self.source.pick(&[0, 0, 1, 96, 4000, 4095, 4096, u16::MAX]);
        let (gmfn, domid) = if is_grant {
            (self.gref(), if self.source.one_in(8) { DomId::SELF } else { self.granter(vcpu) })
        } else {
            (self.frame(world, who, 0).0, if self.source.one_in(8) { self.domain(vcpu) } else { DomId::SELF })
        };
        GnttabCopyPtr { gmfn, domid, offset, ..GnttabCopyPtr::default() }
    }

    /// The operations on tables as such.
    fn grant_table(&mut self, vcpu: &Vcpu) -> Call {
        let list = GuestPtr::new(self.put(&[0u64; 8]));
        let dom = self.domain(vcpu);
        let nr_frames = self.small(4) as u32;
        let count = if self.source.one_in(8) { self.source.below(3) } else { 1 };
        let (op, at) = match self.source.below(5) {
            0 => (GnttabOp::QUERY_SIZE, self.put(&GnttabQuerySize { dom, ..GnttabQuerySize::default() })),
            1 => {
                let args = GnttabGetStatusFrames { nr_frames, dom, frame_list: list, ..Default::default() };
                (GnttabOp::GET_STATUS_FRAMES, self.put(&args))
            }
            2 => (GnttabOp::GET_VERSION, self.put(&GnttabGetVersion { dom, ..GnttabGetVersion::default() })),
            3 => (GnttabOp(self.small(14) as u32), self.put(&[0u64; 8])),
            _ => {
                let args = GnttabSetupTable { dom, nr_frames, frame_list: list, ..Default::default() };
                (GnttabOp::SETUP_TABLE, self.put(&args))
            }
        };
        self.grant_call(op, at, count)
    }
}

/// Where the kernel's entry for one of its pages is.
fn entry_at(world: &World, who: usize, pfn: usize) -> u64 {
    world.guests[who].p2m[TABLES[3]].maddr().0 + pfn as u64 * 8
}

/// Where the kernel's tables have the frame of a mapping, named as it was when it was made.
fn place_of(world: &World, who: usize, mapping: &Mapping) -> u64 {
    let table = world.guests[who].p2m[TABLES[3]];
    let found = (0..FRAMES).find(|pfn| {
        let entry = if mm::page_info(table).is_some_and(|s| s.ram) { peek(table, *pfn) } else { 0 };
        entry & 1 != 0 && mm::flags::mfn_of(entry) == mapping.mfn
    });
    let pfn = found.unwrap_or(0);
    if mapping.by_entry { entry_at(world, who, pfn) } else { va(pfn) }
}
