// SPDX-License-Identifier: MIT OR Apache-2.0
//! `exchange`: frames of a domain for as many others, contiguous ones or at lower addresses.
//!
//! Work goes by chunks: the smallest number of frames that is whole extents on both sides. A chunk is exchanged as a whole
//! or not at all, and how many input extents are done is written to the argument, where a resumed call finds it.

use alloc::vec::Vec;
use core::mem::offset_of;

use hypercalls::memory::MemoryExchange;
use hypercalls::{Errno, GuestPtr, Mfn, Pfn, Result};
use mm::{Account, buddy, m2p};

use super::{address_bits, max_order};
use crate::dispatch::Outcome;
use crate::vcpu::Vcpu;
use crate::{guest, mmu};

/// Runs the operation from where the argument says that it is.
pub(super) fn run(vcpu: &Vcpu, arg: u64) -> Outcome {
    let args: MemoryExchange = match guest::read(GuestPtr::new(arg)) {
        Ok(args) => args,
        Err(error) => return Err(error).into(),
    };
    let mut done = args.nr_exchanged;
    let outcome = Plan::new(&args, max_order(vcpu)).and_then(|plan| match mmu::other_domain(vcpu, args.input.domid)? {
        None => plan.run(&vcpu.domain().account, &mut done),
        Some(other) => plan.run(&other.account, &mut done),
    });
    let at = arg.wrapping_add(offset_of!(MemoryExchange, nr_exchanged) as u64);
    match guest::write(GuestPtr::new(at), &done).and(outcome) {
        Ok(true) => Outcome::Done(0),
        Ok(false) => Outcome::Again([u64::from(hypercalls::memory::MemoryOp::EXCHANGE.0), arg, 0, 0, 0]),
        Err(error) => Err(error).into(),
    }
}

/// One of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Side {
    list: GuestPtr<u64>,
    order: u8,
    /// Extents in a chunk.
    per_chunk: u64,
}

impl Side {
    const fn frames(&self) -> u64 {
        1 << self.order
    }
}

/// An exchange whose numbers have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    input: Side,
    output: Side,
    /// Chunk to go on with.
    first: u64,
    chunks: u64,
    address_bits: u32,
}

impl Plan {
    fn new(args: &MemoryExchange, max_order: u8) -> Result<Self> {
        let (input, output) = (&args.input, &args.output);
        let order = |order: u32| u8::try_from(order).ok().filter(|&o| o <= max_order).ok_or(Errno::EPERM);
        let (in_order, out_order) = (order(input.extent_order)?, order(output.extent_order)?);
        let frames = |extents: u64, order: u8| extents.checked_mul(1 << order).ok_or(Errno::EINVAL);
        if args.nr_exchanged > input.nr_extents
            || input.domid != output.domid
            || frames(input.nr_extents, in_order)? != frames(output.nr_extents, out_order)?
        {
            return Err(Errno::EINVAL);
        }
        if !input.extent_start.range_ok(input.nr_extents) || !output.extent_start.range_ok(output.nr_extents) {
            return Err(Errno::EFAULT);
        }
        let chunk = in_order.max(out_order);
        let side = |list, order: u8| Side { list, order, per_chunk: 1 << (chunk - order) };
        let input_side = side(input.extent_start, in_order);
        Ok(Self {
            input: input_side,
            output: side(output.extent_start, out_order),
            first: args.nr_exchanged / input_side.per_chunk,
            chunks: input.nr_extents / input_side.per_chunk,
            address_bits: address_bits(output.mem_flags),
        })
    }

    /// Exchanges chunks and counts input extents in `done`; false when there are more to do.
    fn run(&self, account: &Account, done: &mut u64) -> Result<bool> {
        for chunk in self.first..self.chunks {
            *done = chunk * self.input.per_chunk;
            if chunk != self.first && arch::cpu::preempt_pending() {
                return Ok(false);
            }
            self.exchange(account, chunk)?;
        }
        *done = self.chunks * self.input.per_chunk;
        Ok(true)
    }

    fn exchange(&self, account: &Account, chunk: u64) -> Result<()> {
        let output = self.allocate()?;
        let names = self.read_names(chunk)?;
        self.steal(account, chunk)?.free();
        for ((index, name), mfn) in names.into_iter().zip(output.into_extents()) {
            self.give(account, index, Pfn(name), mfn)?;
        }
        Ok(())
    }

    /// Allocates a chunk of output.
    fn allocate(&self) -> Result<Taken> {
        let mut taken = Taken::new(self.output.order, self.output.per_chunk)?;
        for _ in 0..self.output.per_chunk {
            let mfn = buddy::alloc(self.output.order, self.address_bits).ok_or(Errno::ENOMEM)?;
            buddy::scrub(mfn, self.output.order);
            taken.extents.push(mfn);
        }
        Ok(taken)
    }

    /// Reads at which indices of the output list which frame numbers are wanted.
    fn read_names(&self, chunk: u64) -> Result<Vec<(u64, u64)>> {
        let mut names = Vec::new();
        names.try_reserve(self.output.per_chunk as usize).map_err(|_| Errno::ENOMEM)?;
        for index in chunk * self.output.per_chunk..(chunk + 1) * self.output.per_chunk {
            names.push((index, guest::read_at(self.output.list, index)?));
        }
        Ok(names)
    }

    /// Takes a chunk of input away from the domain; on an error it has all of it again.
    fn steal<'a>(&self, account: &'a Account, chunk: u64) -> Result<Stolen<'a>> {
        let mut stolen = Stolen { account, frames: Vec::new() };
        let count = self.input.per_chunk * self.input.frames();
        stolen.frames.try_reserve(count as usize).map_err(|_| Errno::ENOMEM)?;
        for index in chunk * self.input.per_chunk..(chunk + 1) * self.input.per_chunk {
            let first = guest::read_at(self.input.list, index)?;
            for n in 0..self.input.frames() {
                let mfn = Mfn(first.wrapping_add(n));
                let pfn = m2p::get(mfn);
                account.steal(mfn)?;
                stolen.frames.push((mfn, pfn));
            }
        }
        Ok(stolen)
    }

    /// Gives an extent to the domain. There is no way back: a list that cannot be written any more is the domain's loss.
    fn give(&self, account: &Account, index: u64, pfn: Pfn, mfn: Mfn) -> Result<()> {
        account.adopt_instead(mfn, self.output.order).inspect_err(|_| buddy::free(mfn, self.output.order))?;
        for n in 0..self.output.frames() {
            m2p::set(mfn.add(n), Pfn(pfn.0.wrapping_add(n)));
        }
        guest::write_at(self.output.list, index, &mfn.0)
    }
}

/// Frames of the hypervisor's that nobody has yet; what is left is freed.
struct Taken {
    order: u8,
    extents: Vec<Mfn>,
}

impl Taken {
    fn new(order: u8, extents: u64) -> Result<Self> {
        let mut list = Vec::new();
        list.try_reserve(extents as usize).map_err(|_| Errno::ENOMEM)?;
        Ok(Self { order, extents: list })
    }

    fn into_extents(self) -> impl Iterator<Item = Mfn> {
        let mut taken = self;
        core::iter::from_fn(move || taken.extents.pop())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for mfn in self.extents.drain(..) {
            buddy::free(mfn, self.order);
        }
    }
}

/// Frames that were the domain's, with their numbers there; it gets them back unless they are freed.
struct Stolen<'a> {
    account: &'a Account,
    frames: Vec<(Mfn, Option<Pfn>)>,
}

impl Stolen<'_> {
    fn free(mut self) {
        for (mfn, _) in self.frames.drain(..) {
            buddy::free(mfn, 0);
        }
    }
}

impl Drop for Stolen<'_> {
    fn drop(&mut self) {
        for (mfn, pfn) in self.frames.drain(..) {
            // Only a dying domain does not take them.
            match self.account.adopt_instead(mfn, 0) {
                Err(_) => buddy::free(mfn, 0),
                Ok(()) => {
                    if let Some(pfn) = pfn {
                        m2p::set(mfn, pfn);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
