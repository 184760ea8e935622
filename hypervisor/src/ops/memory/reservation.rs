// SPDX-License-Identifier: MIT OR Apache-2.0
//! `increase_reservation`, `decrease_reservation` and `populate_physmap`: frames to a domain and back.
//!
//! The result is the number of extents that are done, whatever went wrong with the next one.

use hypercalls::addr::PAGE_SHIFT;
use hypercalls::memory::*;
use hypercalls::{GuestPtr, Mfn, Pfn, Result};
use mm::{Account, m2p};

use super::{address_bits, max_order};
use crate::dispatch::Outcome;
use crate::vcpu::Vcpu;
use crate::{guest, mmu};

/// Most extents of one call: more, and a position would not fit into the command.
const MAX_EXTENTS: u64 = (u32::MAX >> MEMOP_EXTENT_SHIFT) as u64;

/// Runs the operation from extent `start` on.
pub(super) fn run(vcpu: &Vcpu, op: MemoryOp, start: u64, arg: u64) -> Outcome {
    let read = guest::read(GuestPtr::new(arg)).ok();
    let Some(call) = read.and_then(|args| Call::check(op, start, arg, args, max_order(vcpu))) else {
        return Outcome::Done(start as i64);
    };
    match mmu::other_domain(vcpu, call.args.domid) {
        Ok(None) => call.run(&vcpu.domain().account),
        Ok(Some(other)) => call.run(&other.account),
        Err(_) => Outcome::Done(start as i64),
    }
}

/// A call whose numbers have been checked.
struct Call {
    op: MemoryOp,
    start: u64,
    arg: u64,
    args: MemoryReservation,
    order: u8,
}

impl Call {
    fn check(op: MemoryOp, start: u64, arg: u64, args: MemoryReservation, max_order: u8) -> Option<Self> {
        let order = u8::try_from(args.extent_order).ok().filter(|&order| order <= max_order)?;
        let bits = memf_address_bits(args.mem_flags);
        let asks_for_too_much = bits != 0 && bits <= PAGE_SHIFT
            || args.mem_flags & MEMF_POPULATE_ON_DEMAND != 0 && op == MemoryOp::POPULATE_PHYSMAP;
        if asks_for_too_much
            || args.nr_extents > MAX_EXTENTS
            || start >= args.nr_extents
            || !args.extent_start.range_ok(args.nr_extents)
        {
            return None;
        }
        Some(Self { op, start, arg, args, order })
    }

    fn run(&self, account: &Account) -> Outcome {
        for index in self.start..self.args.nr_extents {
            if index != self.start && arch::cpu::preempt_pending() {
                let cmd = index << MEMOP_EXTENT_SHIFT | u64::from(self.op.0);
                return Outcome::Again([cmd, self.arg, 0, 0, 0]);
            }
            let done = match self.op {
                MemoryOp::DECREASE_RESERVATION => self.decrease(account, index),
                MemoryOp::POPULATE_PHYSMAP => self.populate(account, index),
                _ => self.increase(account, index),
            };
            if done.is_err() {
                return Outcome::Done(index as i64);
            }
        }
        Outcome::Done(self.args.nr_extents as i64)
    }

    fn allocate(&self, account: &Account) -> Result<Mfn> {
        account.populate(self.order, address_bits(self.args.mem_flags))
    }

    fn frames(&self) -> u64 {
        1 << self.order
    }

    /// Tells the guest what it got; if it cannot be told, it does not get it.
    fn tell(&self, account: &Account, index: u64, mfn: Mfn) -> Result<()> {
        guest::write_at(self.args.extent_start, index, &mfn.0).inspect_err(|_| {
            for n in 0..self.frames() {
                // Another vCPU may have found the frame in the M2P and given it up already.
                let _ = account.give_up(mfn.add(n));
            }
        })
    }

    fn increase(&self, account: &Account, index: u64) -> Result<()> {
        let mfn = self.allocate(account)?;
        if self.args.extent_start.is_null() { Ok(()) } else { self.tell(account, index, mfn) }
    }

    fn populate(&self, account: &Account, index: u64) -> Result<()> {
        let pfn = guest::read_at(self.args.extent_start, index)?;
        let mfn = self.allocate(account)?;
        for n in 0..self.frames() {
            m2p::set(mfn.add(n), Pfn(pfn.wrapping_add(n)));
        }
        self.tell(account, index, mfn)
    }

    fn decrease(&self, account: &Account, index: u64) -> Result<()> {
        let mfn = guest::read_at(self.args.extent_start, index)?;
        for n in 0..self.frames() {
            account.give_up(Mfn(mfn.wrapping_add(n)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::memory::testing::{LISTS, World};
    use hypercalls::DomId;
    use mm::hosted::peek;

    fn args(list: u64, extents: u64) -> MemoryReservation {
        MemoryReservation {
            extent_start: GuestPtr::new(list),
            nr_extents: extents,
            domid: DomId::SELF,
            ..MemoryReservation::default()
        }
    }

    fn call(op: MemoryOp, args: MemoryReservation, order: u8) -> Call {
        Call { op, start: 0, arg: 0x77, args, order }
    }

    #[test]
    fn bad_numbers() {
        let check = |op, start, args: MemoryReservation| Call::check(op, start, 0, args, 9).is_some();
        let (populate, increase) = (MemoryOp::POPULATE_PHYSMAP, MemoryOp::INCREASE_RESERVATION);
        assert!(check(populate, 0, args(LISTS, 1)) && check(populate, 2, args(LISTS, 3)));
        assert!(check(populate, 0, args(LISTS, MAX_EXTENTS)));
        for (start, extents) in [(0, 0), (3, 3), (u64::MAX, 3), (0, MAX_EXTENTS + 1), (0, u64::MAX)] {
            assert!(!check(populate, start, args(LISTS, extents)), "{start} of {extents}");
        }
        for order in [10, 256, 1 << 31, u32::MAX] {
            assert!(!check(populate, 0, MemoryReservation { extent_order: order, ..args(LISTS, 1) }));
        }
        for mem_flags in [1, 12, MEMF_POPULATE_ON_DEMAND] {
            assert!(!check(populate, 0, MemoryReservation { mem_flags, ..args(LISTS, 1) }));
        }
        for list in [hypercalls::addr::HOLE_START - 8, u64::MAX - 7] {
            assert!(!check(populate, 0, args(list, 2)));
        }
        assert!(check(increase, 0, args(0, 5)) && check(populate, 0, args(0, 5)));
    }

    #[test]
    fn frames_come_and_go() {
        let w = World::new();
        w.account.set_maximum(20);
        let list = w.list(0, &[100, 104]);
        let populate = call(MemoryOp::POPULATE_PHYSMAP, args(list, 2), 1);
        assert_eq!(populate.run(&w.account), Outcome::Done(2));
        assert_eq!(w.account.owned(), 20);
        let got = [Mfn(peek(w.page, 0)), Mfn(peek(w.page, 1))];
        assert_eq!(m2p::get(got[0].add(1)), Some(Pfn(101)));
        assert_eq!(m2p::get(got[1]), Some(Pfn(104)));
        assert_eq!(populate.run(&w.account), Outcome::Done(0), "the maximum is reached");
        let decrease = call(MemoryOp::DECREASE_RESERVATION, args(list, 2), 1);
        w.list(0, &[got[0].0, got[1].0]);
        assert_eq!(decrease.run(&w.account), Outcome::Done(2));
        assert_eq!(w.account.owned(), 16);
        assert!(!w.owns(got[0]) && m2p::get(got[0]).is_none());
        assert_eq!(decrease.run(&w.account), Outcome::Done(0), "given up already");
    }

    #[test]
    fn frames_that_cannot_be_told_of_are_not_given() {
        let w = World::new();
        w.account.set_maximum(20);
        let lost = call(MemoryOp::INCREASE_RESERVATION, args(0x9000, 1), 0);
        assert_eq!(lost.run(&w.account), Outcome::Done(0));
        assert_eq!(w.account.owned(), 16);
        let unseen = call(MemoryOp::INCREASE_RESERVATION, args(0, 3), 0);
        assert_eq!(unseen.run(&w.account), Outcome::Done(3));
        assert_eq!(w.account.owned(), 19);
    }

    #[test]
    fn a_cut_call_says_where_it_is() {
        let w = World::new();
        let list = w.input(8);
        arch::cpu::preempt_after(Some(2));
        let decrease = call(MemoryOp::DECREASE_RESERVATION, args(list, 8), 0);
        assert_eq!(decrease.run(&w.account), Outcome::Again([3 << 6 | 1, 0x77, 0, 0, 0]));
        assert_eq!(w.account.owned(), 13);
        arch::cpu::preempt_after(None);
        let rest = Call { start: 3, ..decrease };
        assert_eq!(rest.run(&w.account), Outcome::Done(8));
        assert_eq!(w.account.owned(), 8);
    }
}
