// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reservations of memory that the player changes.

use alloc::vec::Vec;

use hypercalls::memory::*;
use hypercalls::mmu::MmuUpdate;
use hypercalls::{DomId, GuestPtr, HypercallNr};

use super::calls::Call;
use super::guest::{FRAMES, TABLES};
use super::player::Player;
use super::world::World;
use crate::vcpu::Vcpu;

impl Player<'_> {
    fn reservation(&mut self, vcpu: &Vcpu, list: &[u64]) -> MemoryReservation {
        let order = if self.source.one_in(6) { self.small(3) as u32 } else { 0 };
        MemoryReservation {
            extent_start: GuestPtr::new(self.put(list)),
            nr_extents: if self.source.one_in(30) { self.source.word() } else { list.len() as u64 },
            extent_order: order,
            mem_flags: if self.source.one_in(10) { self.source.word() as u32 } else { 0 },
            domid: self.domain(vcpu),
            ..MemoryReservation::default()
        }
    }

    fn frames_to_give(&mut self, world: &World, vcpu: &Vcpu) -> Vec<u64> {
        let count = 1 + self.source.below(4);
        (0..count).map(|_| self.frame(world, usize::from(vcpu.domid.0), 0).0).collect()
    }

    /// Unmaps a frame that this CPU has cached, and gives it up at once: one multicall.
    pub(super) fn surrender(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let guest = &world.guests[usize::from(vcpu.domid.0)];
        let cached = arch::tlb::cached();
        let pool = guest
            .p2m
            .iter()
            .enumerate()
            .filter(|(pfn, mfn)| *pfn >= 16 && cached.iter().any(|(_, _, c)| c.mfn == **mfn));
        let pool: Vec<usize> = pool.map(|(pfn, _)| pfn).collect();
        let pfn = if pool.is_empty() { self.pfn(0) } else { self.source.pick(&pool) };
        let at = guest.p2m[TABLES[3]].maddr().0 + pfn as u64 * 8;
        let update = self.put(&MmuUpdate { ptr: at, val: 0 });
        let list = self.put(&[guest.p2m[pfn].0]);
        let reservation = MemoryReservation {
            extent_start: GuestPtr::new(list),
            nr_extents: 1,
            domid: DomId::SELF,
            ..MemoryReservation::default()
        };
        let reservation = self.put(&reservation);
        let own = u64::from(DomId::SELF.0);
        let op = MemoryOp::DECREASE_RESERVATION;
        self.list_of(alloc::vec![
            Call::new(HypercallNr::MMU_UPDATE, [update, 1, 0, own]),
            Call::new(HypercallNr::MEMORY_OP, [u64::from(op.0), reservation]),
        ])
    }

    /// Asks for frames in the place of those that were given up.
    pub(super) fn populate(&mut self, vcpu: &Vcpu) -> Call {
        let count = 1 + self.source.below(4) as usize;
        let list = self.names(count);
        let mut reservation = self.reservation(vcpu, &list);
        reservation.extent_order = 0;
        let at = self.put(&reservation);
        Call::new(HypercallNr::MEMORY_OP, [u64::from(MemoryOp::POPULATE_PHYSMAP.0), at])
    }

    fn names(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.small(FRAMES as u64)).collect()
    }

    pub(super) fn memory(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let (op, at) = match self.source.below(8) {
            0 | 1 => {
                let list = self.frames_to_give(world, vcpu);
                let reservation = self.reservation(vcpu, &list);
                (MemoryOp::DECREASE_RESERVATION, self.put(&reservation))
            }
            2 | 3 => {
                let count = 1 + self.source.below(4) as usize;
                let list = self.names(count);
                let reservation = self.reservation(vcpu, &list);
                let op = self.source.pick(&[MemoryOp::POPULATE_PHYSMAP, MemoryOp::INCREASE_RESERVATION]);
                (op, self.put(&reservation))
            }
            4 | 5 => {
                let list = self.frames_to_give(world, vcpu);
                let names = self.names(list.len());
                let mut exchange = MemoryExchange {
                    input: self.reservation(vcpu, &list),
                    output: self.reservation(vcpu, &names),
                    nr_exchanged: if self.source.one_in(10) { self.small(4) } else { 0 },
                };
                if !self.source.one_in(10) {
                    exchange.output.domid = exchange.input.domid;
                    (exchange.input.extent_order, exchange.output.extent_order) = (0, 0);
                }
                (MemoryOp::EXCHANGE, self.put(&exchange))
            }
            6 => {
                let buffer = self.put(&[0u64; 64]);
                let map = MemoryMap {
                    nr_entries: self.small(20) as u32,
                    buffer: GuestPtr::new(buffer),
                    ..Default::default()
                };
                (self.source.pick(&[MemoryOp::MEMORY_MAP, MemoryOp::MACHINE_MEMORY_MAP]), self.put(&map))
            }
            _ => {
                let id = u64::from(self.domain(vcpu).0);
                (MemoryOp(self.source.below(30) as u32), self.put(&[id, 0, 0, 0, 0]))
            }
        };
        let start = if self.source.one_in(20) { self.small(6) } else { 0 };
        Call::new(HypercallNr::MEMORY_OP, [start << MEMOP_EXTENT_SHIFT | u64::from(op.0), at])
    }
}
