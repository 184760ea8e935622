// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page-table updates that the player asks for.

use alloc::vec::Vec;

use hypercalls::mmu::*;
use hypercalls::{HypercallNr, Mfn};
use mm::flags::{A, CACHE, D, G, GUEST_KERNEL, NX, P, PSE, RW, US, entry_for};
use mm::{FrameState, PageType};

use super::calls::Call;
use super::guest::{self, DESCRIPTORS, FRAMES, SLOT, TABLES, va};
use super::player::Player;
use super::world::World;
use crate::vcpu::Vcpu;

/// Table slots that are used, so that sequences meet each other.
const INDEXES: [u64; 8] = [0, 1, 2, 255, 256, 272, SLOT as u64, 511];

impl Player<'_> {
    fn level(&mut self) -> usize {
        1 + self.source.below(4) as usize
    }

    /// An entry that often fits a table of the level.
    pub(super) fn entry(&mut self, world: &World, who: usize, level: usize) -> u64 {
        if self.source.one_in(6) {
            return self.source.word() & !P;
        }
        let mut flags = P | (self.source.below(2) * RW) | US | (self.source.below(2) * (A | D));
        if self.source.one_in(10) {
            flags |= self.source.pick(&[PSE, G, NX, GUEST_KERNEL, CACHE & (PSE - 1), 1 << 50]);
        }
        let mfn = match self.source.below(40) {
            0 => Mfn(self.source.below(1 << 20)),
            1 => Mfn(self.source.pick(&[0xf0000, 0xfec00, 0xfed00, 0xfee01])),
            2 => self.frame(world, 1 - who, 0),
            3 => world.guests[who].domain.shared_info().mfn(),
            4 => world.guests[1 - who].domain.shared_info().mfn(),
            5 => world.guests[who].domain.grants.frame(0).unwrap_or(Mfn(0)),
            _ => self.frame(world, who, level - 1),
        };
        entry_for(mfn, flags)
    }

    /// One change of an entry: half of the time the mapping of one of the kernel's own frames.
    pub(super) fn change(&mut self, world: &World, who: usize) -> MmuUpdate {
        if self.source.one_in(2) {
            let level = self.source.below(5) as usize;
            let pfn = self.pfn(level);
            let at = world.guests[who].p2m[TABLES[3]].maddr().0 + pfn as u64 * 8;
            let rights = self.source.pick(&[0, RW, RW]);
            let mfn = world.guests[who].p2m[pfn];
            return MmuUpdate { ptr: at | self.kind(), val: entry_for(mfn, P | US | GUEST_KERNEL | rights) };
        }
        let level = self.level();
        let table = self.frame(world, who, level);
        let at = table.maddr().0 + self.source.pick(&INDEXES) * 8;
        MmuUpdate { ptr: at | self.kind(), val: self.entry(world, who, level) }
    }

    fn kind(&mut self) -> u64 {
        self.source.pick(&[0, 0, 0, 2, 3])
    }

    pub(super) fn mmu_update(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let who = usize::from(vcpu.domid.0);
        let count = 1 + self.source.below(6);
        let list: Vec<MmuUpdate> = (0..count)
            .map(|_| {
                if self.source.one_in(12) {
                    let mfn = self.frame(world, who, 0);
                    return MmuUpdate { ptr: mfn.maddr().0 | 1, val: self.small(FRAMES as u64) };
                }
                self.change(world, who)
            })
            .collect();
        self.batch(HypercallNr::MMU_UPDATE, list.as_slice(), count, vcpu)
    }

    fn batch<T>(&mut self, number: HypercallNr, list: &[T], count: u64, vcpu: &Vcpu) -> Call
    where
        T: zerocopy::IntoBytes + zerocopy::Immutable,
    {
        let at = self.put(list);
        let count = if self.source.one_in(60) { self.source.word() } else { count };
        let done = if self.source.one_in(3) { self.put(&0u64) } else { 0 };
        Call::new(number, [at, count, done, u64::from(self.domain(vcpu).0)])
    }

    pub(super) fn update_va_mapping(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let who = usize::from(vcpu.domid.0);
        let level = self.source.below(5) as usize;
        let pfn = self.pfn(level);
        let (at, value) = if self.source.one_in(4) {
            let at = self.source.pick(&[0, 0x1000, 0x7fff_ffff_f000, va(FRAMES + 3)]);
            (at, self.entry(world, who, 1))
        } else {
            let rights = self.source.pick(&[0, RW]);
            (va(pfn), entry_for(world.guests[who].p2m[pfn], P | US | GUEST_KERNEL | rights))
        };
        let flags = match self.source.below(8) {
            0 => UVMF_TLB_FLUSH | UVMF_ALL,
            1 => UVMF_INVLPG | UVMF_LOCAL,
            2 => UVMF_TLB_FLUSH | self.put(&3u64),
            3 => self.source.word(),
            _ => UVMF_INVLPG | UVMF_ALL,
        };
        if self.source.one_in(8) {
            let whose = self.other(who);
            let owner = if self.source.one_in(4) { u64::from(self.domain(vcpu).0) } else { whose as u64 };
            let value = entry_for(self.frame(world, whose, 0), P | US | self.source.pick(&[0, RW]));
            return Call::new(HypercallNr::UPDATE_VA_MAPPING_OTHERDOMAIN, [at, value, flags, owner]);
        }
        Call::new(HypercallNr::UPDATE_VA_MAPPING, [at, value, flags])
    }

    fn other(&mut self, who: usize) -> usize {
        if self.source.one_in(2) { who } else { 1 - who }
    }

    pub(super) fn mmuext(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let who = usize::from(vcpu.domid.0);
        let count = if self.source.one_in(3) { 1 + self.source.below(4) } else { 1 };
        let list: Vec<MmuextOp> = (0..count).map(|_| self.mmuext_op(world, who)).collect();
        self.batch(HypercallNr::MMUEXT_OP, list.as_slice(), count, vcpu)
    }

    pub(super) fn mmuext_op(&mut self, world: &World, who: usize) -> MmuextOp {
        let cmd = match self.source.below(16) {
            n @ 0..=5 => n as u32,
            6..=8 => MmuextCmd::UNPIN_TABLE.0,
            9 => MmuextCmd::NEW_USER_BASEPTR.0,
            10 => MmuextCmd::SET_LDT.0,
            _ => self.source.below(22) as u32,
        };
        let (arg1, arg2) = match MmuextCmd(cmd) {
            MmuextCmd::NEW_BASEPTR | MmuextCmd::NEW_USER_BASEPTR => (self.root(world, who).0, 0),
            MmuextCmd::UNPIN_TABLE => {
                let level = self.level();
                let pinned = self.frame_that(world, who, |s| s.pinned);
                (pinned.unwrap_or_else(|| self.frame(world, who, level)).0, 0)
            }
            MmuextCmd::SET_LDT => {
                let page = self.source.pick(&DESCRIPTORS);
                (va(page), self.small(520))
            }
            MmuextCmd::TLB_FLUSH_MULTI | MmuextCmd::INVLPG_MULTI => (va(self.pfn(0)), self.put(&3u64)),
            MmuextCmd::CLEAR_PAGE | MmuextCmd::COPY_PAGE => {
                let from = self.frame(world, who, 0).0;
                (self.frame(world, who, 0).0, from)
            }
            MmuextCmd(pin @ 0..=3) => {
                let level = pin as usize + 1;
                let table = self.frame_that(world, who, |s| s.page_type == PageType::table(level as u8) && !s.pinned);
                (table.unwrap_or_else(|| self.frame(world, who, level)).0, 0)
            }
            _ => (va(self.pfn(0)), self.source.below(8)),
        };
        MmuextOp { cmd: MmuextCmd(cmd), _pad: 0, arg1, arg2 }
    }

    /// A frame of the guest's in a certain state; most of the time, if there is one.
    fn frame_that(&mut self, world: &World, who: usize, fits: impl Fn(&FrameState) -> bool) -> Option<Mfn> {
        let state = |mfn: &Mfn| mm::page_info(*mfn).is_some_and(|s| fits(&s));
        let all: Vec<Mfn> = world.guests[who].p2m.iter().copied().filter(state).collect();
        if all.is_empty() || self.source.one_in(6) { None } else { Some(self.source.pick(&all)) }
    }

    /// A frame that is, or could be, a root.
    fn root(&mut self, world: &World, who: usize) -> Mfn {
        match self.source.below(6) {
            0 => Mfn(0),
            1 => world.guests[who].p2m[TABLES[4]],
            2 => world.guests[who].p2m[TABLES[0]],
            3 | 4 => {
                let root = self.frame_that(world, who, |s| s.page_type == PageType::L4);
                root.unwrap_or_else(|| self.frame(world, who, 4))
            }
            _ => self.frame(world, who, 4),
        }
    }

    /// Makes pages of descriptors read-only, and tables of them: one multicall.
    pub(super) fn descriptors(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let guest = &world.guests[usize::from(vcpu.domid.0)];
        let mut calls = Vec::new();
        for pfn in DESCRIPTORS {
            let value = entry_for(guest.p2m[pfn], P | US | GUEST_KERNEL);
            calls.push(Call::new(HypercallNr::UPDATE_VA_MAPPING, [va(pfn), value, UVMF_INVLPG | UVMF_ALL]));
        }
        let list = self.put(&DESCRIPTORS.map(|pfn| guest.p2m[pfn].0));
        let entries = self.source.pick(&[0, 1, 512, 513, 1024]);
        calls.push(Call::new(HypercallNr::SET_GDT, [list, entries]));
        let ldt = MmuextOp {
            cmd: MmuextCmd::SET_LDT,
            _pad: 0,
            arg1: va(DESCRIPTORS[0]),
            arg2: self.source.pick(&[0, 1, 600, 1024]),
        };
        let op = self.put(&ldt);
        calls.push(Call::new(HypercallNr::MMUEXT_OP, [op, 1, 0, 0x7ff0]));
        self.list_of(calls)
    }

    /// Builds a tree in plain memory, then makes its frames read-only, pins or loads it: one multicall.
    pub(super) fn scaffold(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let guest = &world.guests[usize::from(vcpu.domid.0)];
        let who = usize::from(vcpu.domid.0);
        let pfns = [4, 3, 2, 1].map(|level| self.pfn(level));
        let mut updates = Vec::new();
        for (n, pfn) in pfns.into_iter().enumerate() {
            let mut words = [0u64; 512];
            for _ in 0..1 + self.source.below(3) {
                let index = self.source.pick(&[0, 1, 2, 255, 511]) as usize;
                words[index] = match pfns.get(n + 1) {
                    Some(next) => entry_for(guest.p2m[*next], P | RW | US),
                    None => entry_for(self.frame(world, who, 0), P | US | (RW * self.source.below(2))),
                };
            }
            if n == 0 {
                // The kernel's own part, so that it can run there.
                words[SLOT] = entry_for(guest.p2m[TABLES[1]], P | RW | US);
            }
            if !guest::write(va(pfn), zerocopy::IntoBytes::as_bytes(&words)) {
                continue;
            }
            let at = guest.p2m[TABLES[3]].maddr().0 + pfn as u64 * 8;
            updates.push(MmuUpdate { ptr: at, val: entry_for(guest.p2m[pfn], P | US | GUEST_KERNEL) });
        }
        let count = updates.len() as u64;
        let list = self.put(updates.as_slice());
        let cmd = self.source.pick(&[MmuextCmd::PIN_L4_TABLE, MmuextCmd::NEW_BASEPTR, MmuextCmd::NEW_USER_BASEPTR]);
        let op = self.put(&MmuextOp { cmd, _pad: 0, arg1: guest.p2m[pfns[0]].0, arg2: 0 });
        self.list_of(alloc::vec![
            Call::new(HypercallNr::MMU_UPDATE, [list, count, 0, 0x7ff0]),
            Call::new(HypercallNr::MMUEXT_OP, [op, 1, 0, 0x7ff0]),
        ])
    }
}
