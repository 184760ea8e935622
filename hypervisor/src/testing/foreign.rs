// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the player's guests do to each other: one of them controls the other and may, the other tries.

use alloc::vec::Vec;

use hypercalls::memory::*;
use hypercalls::mmu::{MmuUpdate, MmuextOp};
use hypercalls::{DomId, GuestPtr, HypercallNr, Mfn};
use mm::flags::{P, RW, US, entry_for};

use super::calls::Call;
use super::guest::{FRAMES, POOL, TABLES};
use super::player::Player;
use super::world::World;
use crate::vcpu::Vcpu;

impl Player<'_> {
    /// Makes up an operation on the other domain's memory.
    pub(super) fn foreign(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let who = usize::from(vcpu.domid.0 & 1);
        let other = 1 - who;
        match self.source.below(12) {
            0..=4 => self.map_foreign(world, who),
            5 => {
                let list: Vec<_> = (0..1 + self.source.below(4)).map(|_| self.change(world, other)).collect();
                self.list_for(HypercallNr::MMU_UPDATE, list.as_slice(), (other as u64 + 1) << 16 | other as u64)
            }
            6..=8 => {
                let list: Vec<MmuextOp> = (0..1 + self.source.below(3)).map(|_| self.mmuext_op(world, other)).collect();
                self.list_for(HypercallNr::MMUEXT_OP, list.as_slice(), other as u64)
            }
            9 => {
                let ptr = self.frame(world, other, 0).maddr().0 | 1;
                let update = MmuUpdate { ptr, val: self.small(FRAMES as u64) };
                self.list_for(HypercallNr::MMU_UPDATE, &[update], other as u64)
            }
            10 => self.change_reservation(world, other),
            _ => self.steer(other),
        }
    }

    fn list_for<T>(&mut self, number: HypercallNr, list: &[T], foreigndom: u64) -> Call
    where
        T: zerocopy::IntoBytes + zerocopy::Immutable,
    {
        let at = self.put(list);
        let done = if self.source.one_in(3) { self.put(&0u64) } else { 0 };
        Call::new(number, [at, list.len() as u64, done, foreigndom])
    }

    /// Maps frames of the other's, whatever they are used for, or ends such mappings.
    fn map_foreign(&mut self, world: &World, who: usize) -> Call {
        let other = 1 - who;
        let list: Vec<MmuUpdate> = (0..1 + self.source.below(6))
            .map(|_| {
                // So few places and frames that mappings of one meet each other.
                let pfn = if self.source.one_in(4) { self.pfn(0) } else { FRAMES - 1 - self.source.below(4) as usize };
                let kind = self.source.pick(&[0, 0, 2, 3]);
                let ptr = (world.guests[who].p2m[TABLES[3]].maddr().0 + pfn as u64 * 8) | kind;
                let flags = P | US | self.source.pick(&[0, RW]);
                let val = if self.source.one_in(4) { 0 } else { entry_for(self.any_frame_of(world, other), flags) };
                MmuUpdate { ptr, val }
            })
            .collect();
        let owner = if self.source.one_in(16) { self.source.pick(&[0x7ff0, 0x7ff1, 0x7ff2, 9]) } else { other as u64 };
        self.list_for(HypercallNr::MMU_UPDATE, list.as_slice(), owner)
    }

    fn any_frame_of(&mut self, world: &World, who: usize) -> Mfn {
        match self.source.below(10) {
            0 => world.guests[who].domain.shared_info().mfn(),
            1 => world.guests[who].domain.grants.frame(0).unwrap_or(Mfn(0)),
            2..=5 => world.guests[who].p2m[POOL[1].start + self.source.below(3) as usize],
            _ => {
                let level = self.source.below(5) as usize;
                self.frame(world, who, level)
            }
        }
    }

    fn change_reservation(&mut self, world: &World, other: usize) -> Call {
        let op = self.source.pick(&[MemoryOp::DECREASE_RESERVATION, MemoryOp::POPULATE_PHYSMAP]);
        let list: Vec<u64> = (0..1 + self.source.below(3))
            .map(|_| {
                if op == MemoryOp::POPULATE_PHYSMAP { self.small(FRAMES as u64) } else { self.frame(world, other, 0).0 }
            })
            .collect();
        let args = MemoryReservation {
            extent_start: GuestPtr::new(self.put(list.as_slice())),
            nr_extents: list.len() as u64,
            domid: DomId(other as u16),
            ..MemoryReservation::default()
        };
        let at = self.put(&args);
        Call::new(HypercallNr::MEMORY_OP, [u64::from(op.0), at])
    }

    /// What tools say and ask of a domain that they build.
    fn steer(&mut self, other: usize) -> Call {
        let domid = DomId(other as u16);
        let (op, at) = match self.source.below(3) {
            0 => {
                let nr_extents = if self.source.one_in(3) { 0 } else { FRAMES as u64 + self.source.below(10) };
                let args = MemoryReservation { nr_extents, domid, ..MemoryReservation::default() };
                (MemoryOp::CLAIM_PAGES, self.put(&args))
            }
            1 => {
                let buffer = GuestPtr::new(self.put(&[0u64; 10]));
                let map = MemoryMap { nr_entries: self.small(4) as u32, buffer, ..MemoryMap::default() };
                let args = ForeignMemoryMap { domid, map, ..ForeignMemoryMap::default() };
                (MemoryOp::SET_MEMORY_MAP, self.put(&args))
            }
            _ => {
                let frame_list = GuestPtr::new(self.put(&[0u64; 4]));
                let args = AcquireResource {
                    domid,
                    kind: ResourceType::GRANT_TABLE,
                    id: self.small(2) as u32,
                    nr_frames: self.small(4) as u32,
                    frame: self.small(4),
                    frame_list,
                    ..AcquireResource::default()
                };
                (MemoryOp::ACQUIRE_RESOURCE, self.put(&args))
            }
        };
        Call::new(HypercallNr::MEMORY_OP, [u64::from(op.0), at])
    }
}
