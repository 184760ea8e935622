// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mmu_update`, `update_va_mapping` and `mmuext_op`.
//!
//! Batches are cut at a request when the time is up: the count then carries the mark of a resumed call, and `pdone` in
//! guest memory how many requests earlier parts did. Both are the guest's to change, and harm nobody but it.

use arch::{Flush, cpu, tlb};
use hypercalls::mmu::*;
use hypercalls::{DomId, Errno, GuestPtr, GuestVa, HypercallNr, Mfn, Result};
use mm::{IoAccess, IoPolicy, PageRef, PageTables, PtCtx, Write, m2p};

use crate::dispatch::{Args, Outcome, SubOp, absent, find, refused, sub};
use crate::domain::Domain;
use crate::guest;
use crate::io_rights::IoRights;
use crate::mmu::{self, Frames, cpus_of, flush_all_of};
use crate::registers;
use crate::vcpu::Vcpu;

/// A batch under way: where its list is, and how it is resumed.
struct Batch {
    list: u64,
    element: u64,
    count: u64,
    pdone: GuestPtr<u32>,
    foreigndom: u64,
    done_before: u32,
}

impl Batch {
    fn new(args: &Args, element: u64) -> Result<Self> {
        let [list, count, pdone, foreigndom, _] = *args;
        let pdone = GuestPtr::<u32>::new(pdone);
        let (resumed, count) = (count as u32 & MMU_UPDATE_PREEMPTED != 0, count as u32 & !MMU_UPDATE_PREEMPTED);
        let done_before = if resumed && !pdone.is_null() { guest::read(pdone)? } else { 0 };
        let count = u64::from(count);
        if !GuestVa(list).range_ok(count.checked_mul(element).ok_or(Errno::EFAULT)?) {
            return Err(Errno::EFAULT);
        }
        Ok(Self { list, element, count, pdone, foreigndom, done_before })
    }

    fn report(&self, done: u64) {
        if !self.pdone.is_null() {
            // The count is told as well as can be; a bad pointer is the caller's loss.
            let _ = guest::write(self.pdone, &self.done_before.wrapping_add(done as u32));
        }
    }

    /// Runs `each` on the requests in turn, `ready` before each one; `each` says `ERESTART` to be resumed.
    fn run(&self, mut each: impl FnMut(u64) -> Result<()>) -> Outcome {
        let mut done = 0;
        let mut result = Ok(0);
        while done < self.count {
            if done > 0 && cpu::preempt_pending() {
                return self.resume(done);
            }
            match each(done) {
                Ok(()) => done += 1,
                Err(Errno::ERESTART | Errno::EINTR) => return self.resume(done),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.report(done);
        result.into()
    }

    fn resume(&self, done: u64) -> Outcome {
        self.report(done);
        let left = (self.count - done) as u32 | MMU_UPDATE_PREEMPTED;
        Outcome::Again([self.list + done * self.element, u64::from(left), self.pdone.0, self.foreigndom, 0])
    }
}

/// Finishes what a batch left over: flushes, and tables still to be torn down.
fn settle(tables: &mut PageTables, ctx: &PtCtx<'_>, outcome: Outcome, batch: &Batch) -> Outcome {
    tables.finish(ctx);
    if let Outcome::Done(0) = outcome
        && tables.drain(ctx).is_err()
    {
        tables.finish(ctx);
        return Batch { list: batch.list, ..*batch }.resume(batch.count);
    }
    outcome
}

/// Rights to devices that two domains both have: the one whose frames are mapped, and the one whose tables map them.
struct Both<'a> {
    frames: &'a IoRights,
    tables: &'a IoRights,
}

impl Both<'_> {
    /// The policy that says so, by the shorter way where both are one.
    fn policy(&self) -> &dyn IoPolicy {
        if core::ptr::eq(self.frames, self.tables) { self.tables } else { self }
    }
}

impl IoPolicy for Both<'_> {
    fn mmio(&self, mfn: Mfn) -> IoAccess {
        match (self.frames.mmio(mfn), self.tables.mmio(mfn)) {
            (IoAccess::None, _) | (_, IoAccess::None) => IoAccess::None,
            (IoAccess::ReadWrite, IoAccess::ReadWrite) => IoAccess::ReadWrite,
            _ => IoAccess::ReadOnly,
        }
    }

    fn cache_bits(&self) -> bool {
        self.tables.cache_bits()
    }
}

/// Hypercall 1.
pub fn mmu_update(vcpu: &Vcpu, args: &Args) -> Outcome {
    let batch = match Batch::new(args, size_of::<MmuUpdate>() as u64) {
        Ok(batch) => batch,
        Err(error) => return Err(error).into(),
    };
    let (frames, tables) = split_foreigndom(batch.foreigndom as u32);
    let tables = match tables.map_or(Ok(None), |id| mmu::other_domain(vcpu, id)) {
        Ok(tables) => tables,
        Err(error) => return Err(error).into(),
    };
    match mmu::frames_of(vcpu, frames) {
        Ok(frames) => update_tables(vcpu, &batch, tables.as_deref(), &frames),
        Err(error) => Err(error).into(),
    }
}

/// Runs a batch on the tables of another domain (`None`: the caller's) that map `frames`.
fn update_tables(vcpu: &Vcpu, batch: &Batch, other: Option<&Domain>, frames: &Frames) -> Outcome {
    let domain = other.unwrap_or_else(|| vcpu.domain());
    let both = Both { frames: frames.rights(vcpu), tables: &domain.io };
    let ctx = PtCtx { fd: frames.owner(vcpu), io: both.policy(), ..domain.tables_ctx() };
    let requests = GuestPtr::<MmuUpdate>::new(batch.list);
    let mut tables = domain.page_tables.lock();
    let outcome = batch.run(|index| {
        let request = guest::read_at(requests, index)?;
        let (at, how) = (request.maddr(), request.kind());
        match how {
            MmuUpdateKind::NORMAL_PT_UPDATE | MmuUpdateKind::PT_UPDATE_NO_TRANSLATE => {
                tables.mod_entry(&ctx, at, request.val, Write::Plain)
            }
            MmuUpdateKind::PT_UPDATE_PRESERVE_AD => tables.mod_entry(&ctx, at, request.val, Write::PreserveAd),
            MmuUpdateKind::MACHPHYS_UPDATE if other.is_some() => Err(Errno::EPERM),
            MmuUpdateKind::MACHPHYS_UPDATE => {
                let page = PageRef::get(at.mfn(), ctx.fd).ok_or(Errno::EINVAL)?;
                m2p::set(page.mfn(), hypercalls::Pfn(request.val));
                Ok(())
            }
            _ => Err(Errno::ENOSYS),
        }
    });
    settle(&mut tables, &ctx, outcome, batch)
}

/// Hypercall 14.
pub fn update_va_mapping(vcpu: &Vcpu, args: &Args) -> Outcome {
    let ctx = vcpu.domain().tables_ctx();
    update(vcpu, &ctx, args)
}

/// Hypercall 22.
pub fn update_va_mapping_otherdomain(vcpu: &Vcpu, args: &Args) -> Outcome {
    let frames = match mmu::frames_of(vcpu, DomId(args[3] as u16)) {
        Ok(frames) => frames,
        Err(error) => return Err(error).into(),
    };
    let both = Both { frames: frames.rights(vcpu), tables: &vcpu.domain().io };
    let ctx = PtCtx { fd: frames.owner(vcpu), io: both.policy(), ..vcpu.domain().tables_ctx() };
    update(vcpu, &ctx, args)
}

#[inline(always)]
fn update(vcpu: &Vcpu, ctx: &PtCtx<'_>, args: &Args) -> Outcome {
    let [va, value, flags, ..] = *args;
    let va = GuestVa(va);
    let result = {
        let mut tables = vcpu.domain().page_tables.lock();
        tables.mod_va(ctx, vcpu.kernel_mfn(), va, value, Write::Plain)
    };
    match result {
        Ok(()) => flush_for(vcpu, va, flags).map(|()| 0).into(),
        Err(Errno::ERESTART | Errno::EINTR) => Outcome::Again(*args),
        Err(error) => Err(error).into(),
    }
}

/// Does the flush that the flags of `update_va_mapping` ask for.
fn flush_for(vcpu: &Vcpu, va: GuestVa, flags: u64) -> Result<()> {
    let what = match flags & UVMF_FLUSHTYPE_MASK {
        UVMF_TLB_FLUSH => Flush::All,
        UVMF_INVLPG => Flush::Page(va),
        _ => return Ok(()),
    };
    match flags & !UVMF_FLUSHTYPE_MASK {
        UVMF_LOCAL => tlb::flush_local(what),
        UVMF_ALL => flush_all_of(vcpu.domain(), what),
        bitmap => tlb::flush(&cpus_of(vcpu.domain(), GuestPtr::new(bitmap))?, what),
    }
    Ok(())
}

/// Hypercall 26.
pub fn mmuext_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    let batch = match Batch::new(args, size_of::<MmuextOp>() as u64) {
        Ok(batch) => batch,
        Err(error) => return Err(error).into(),
    };
    let named = DomId(batch.foreigndom as u16);
    if named == vcpu.domid {
        // A domain's own number is no name for itself here.
        return Err(Errno::ESRCH).into();
    }
    let other = match mmu::other_domain(vcpu, named) {
        Ok(other) => other,
        Err(error) => return Err(error).into(),
    };
    let target: &Domain = other.as_deref().unwrap_or_else(|| vcpu.domain());
    let ctx = target.tables_ctx();
    let list = GuestPtr::<MmuextOp>::new(batch.list);
    let mut tables = target.page_tables.lock();
    let outcome = batch.run(|index| {
        tables.drain(&ctx)?;
        let op = guest::read_at(list, index)?;
        let run = find(vcpu, HypercallNr::MMUEXT_OP, &EXTENDED, u64::from(op.cmd.0))?;
        if other.is_some() && !may_be_foreign(op.cmd) {
            return Err(Errno::EPERM);
        }
        run(vcpu, &mut tables, &ctx, &op)
    });
    settle(&mut tables, &ctx, outcome, &batch)
}

const fn may_be_foreign(cmd: MmuextCmd) -> bool {
    matches!(
        cmd,
        MmuextCmd::PIN_L1_TABLE
            | MmuextCmd::PIN_L2_TABLE
            | MmuextCmd::PIN_L3_TABLE
            | MmuextCmd::PIN_L4_TABLE
            | MmuextCmd::UNPIN_TABLE
            | MmuextCmd::CLEAR_PAGE
            | MmuextCmd::COPY_PAGE
    )
}

/// What runs a sub-operation of `mmuext_op`.
type Extended = fn(&Vcpu, &mut PageTables, &PtCtx<'_>, &MmuextOp) -> Result<()>;

/// The sub-operations of `mmuext_op`.
pub static EXTENDED: [SubOp<Extended>; 21] = [
    sub("pin_l1_table", pin),
    sub("pin_l2_table", pin),
    sub("pin_l3_table", pin),
    sub("pin_l4_table", pin),
    sub("unpin_table", |_, tables, ctx, op| tables.unpin(ctx, op.mfn())),
    sub("new_baseptr", |vcpu, tables, ctx, op| {
        tables.finish(ctx);
        mmu::set_kernel_root(vcpu, tables, op.mfn())
    }),
    sub("tlb_flush_local", |_, _, _, _| {
        tlb::flush_local(Flush::All);
        Ok(())
    }),
    sub("invlpg_local", |_, _, _, op| {
        tlb::flush_local(Flush::Page(op.linear_addr()));
        Ok(())
    }),
    sub("tlb_flush_multi", |vcpu, _, _, op| {
        tlb::flush(&cpus_of(vcpu.domain(), op.vcpumask())?, Flush::All);
        Ok(())
    }),
    sub("invlpg_multi", |vcpu, _, _, op| {
        tlb::flush(&cpus_of(vcpu.domain(), op.vcpumask())?, Flush::Page(op.linear_addr()));
        Ok(())
    }),
    sub("tlb_flush_all", |vcpu, _, _, _| {
        flush_all_of(vcpu.domain(), Flush::All);
        Ok(())
    }),
    sub("invlpg_all", |vcpu, _, _, op| {
        flush_all_of(vcpu.domain(), Flush::Page(op.linear_addr()));
        Ok(())
    }),
    sub("flush_cache", |vcpu, _, _, _| flush_cache(vcpu.domain())),
    sub("set_ldt", |vcpu, _, _, op| registers::set_ldt(vcpu, op.linear_addr(), op.nr_ents())),
    absent(""),
    sub("new_user_baseptr", |vcpu, tables, _, op| mmu::set_user_root(vcpu, tables, op.mfn())),
    sub("clear_page", |_, _, ctx, op| clear_page(ctx, op.mfn())),
    sub("copy_page", |_, _, ctx, op| copy_page(ctx, op.mfn(), op.src_mfn())),
    // Another error than for the local one, as C has it.
    sub("flush_cache_global", |vcpu, _, _, _| flush_cache(vcpu.domain()).map_err(|_| Errno::EINVAL)),
    refused("mark_super", Errno::EOPNOTSUPP),
    refused("unmark_super", Errno::EOPNOTSUPP),
];

fn pin(_: &Vcpu, tables: &mut PageTables, ctx: &PtCtx<'_>, op: &MmuextOp) -> Result<()> {
    tables.pin(ctx, op.mfn(), op.cmd.0 as u8 + 1)
}

fn flush_cache(domain: &Domain) -> Result<()> {
    if !domain.io.any_memory() {
        return Err(Errno::EACCES);
    }
    cpu::flush_cache();
    Ok(())
}

fn clear_page(ctx: &PtCtx<'_>, mfn: Mfn) -> Result<()> {
    let page = mm::WritableRef::get(mfn, ctx.domid()).map_err(|_| Errno::EINVAL)?;
    crate::shared::zero(&page);
    Ok(())
}

fn copy_page(ctx: &PtCtx<'_>, to: Mfn, from: Mfn) -> Result<()> {
    let source = PageRef::get(from, ctx.domid()).ok_or(Errno::EINVAL)?;
    let target = mm::WritableRef::get(to, ctx.domid()).map_err(|_| Errno::EINVAL)?;
    crate::shared::copy(&target, &source);
    Ok(())
}

#[cfg(test)]
mod tests;
