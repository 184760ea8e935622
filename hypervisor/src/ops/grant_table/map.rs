// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mapping grants and ending mappings.
//!
//! A list holds the lock of the caller's page tables. Ends of mappings are gathered: page-table entries first, then, without
//! the lock, one flush for all, and only then do uses and references end.

use alloc::sync::Arc;
use core::mem::offset_of;

use arch::Flush;
use arrayvec::ArrayVec;
use hypercalls::grant::*;
use hypercalls::{DomId, Errno, GuestVa, Maddr, Mfn, Result};
use mm::{EntryRef, LockGuard, PageTables, PtCtx, flags};

use super::{List, Ran, status_from};
use crate::domain;
use crate::grants::active::Use;
use crate::grants::{Grants, Loan, Mapping, Maptrack, Pin};
use crate::mmu::flush_all_of;
use crate::vcpu::Vcpu;

/// Mappings that end with one flush.
const BATCH: u32 = 32;
/// Of the flags, what goes to the bits of a page-table entry that are left to the guest.
const AVAIL_SHIFT: u32 = 16;
/// Where those bits are.
const AVAIL_BIT: u32 = 9;

type Status<T> = core::result::Result<T, GrantStatus>;

/// The caller's side: its page tables and its handles, locked for a list.
struct Caller<'a> {
    vcpu: &'a Vcpu,
    ctx: PtCtx<'a>,
    tables: LockGuard<'a, PageTables>,
    maptrack: LockGuard<'a, Maptrack>,
}

impl<'a> Caller<'a> {
    /// Locks; `ERESTART` when tables have to be torn down first, and time is up.
    fn new(vcpu: &'a Vcpu) -> Result<Self> {
        let domain = vcpu.domain();
        let ctx = domain.tables_ctx();
        let mut tables = domain.page_tables.lock();
        tables.drain(&ctx)?;
        Ok(Self { vcpu, ctx, tables, maptrack: domain.grants.maptrack.lock() })
    }

    /// Finds the page-table entry that an address names.
    fn entry_at(&self, address: u64, by_entry: bool) -> Status<Maddr> {
        if by_entry {
            return Ok(Maddr(address));
        }
        self.tables.l1_place(&self.ctx, self.vcpu.kernel_mfn(), GuestVa(address)).ok_or(GrantStatus::GENERAL_ERROR)
    }

    /// Maps a grant; returns the handle and the frame.
    fn map(&mut self, granter: &Arc<Grants>, op: &GnttabMap) -> Status<(u32, Mfn)> {
        let handle = self.maptrack.vacant().ok_or(GrantStatus::NO_SPACE)?;
        let Loan { mfn, host, device } = granter.lend(op.gref, self.vcpu.domid, use_of(op.flags))?;
        let by_entry = op.flags & GNTMAP_CONTAINS_PTE != 0;
        let host = match host {
            None => None,
            Some((pin, refs)) => {
                let at = self.entry_at(op.host_addr, by_entry)?;
                let mapped = self.tables.map_lent(&self.ctx, at, entry_flags(op.flags), refs);
                mapped.map_err(|_| GrantStatus::GENERAL_ERROR)?;
                Some(pin)
            }
        };
        self.maptrack.put(handle, Mapping { mfn, by_entry, host, device });
        Ok((handle, mfn))
    }

    /// Ends what `op` names of a mapping; what is over goes to `ended`.
    fn unmap(&mut self, op: &Unmap, ended: &mut Ended) -> Status<()> {
        let Self { vcpu, ctx, tables, maptrack } = self;
        let mapping = maptrack.get(op.handle).ok_or(GrantStatus::BAD_HANDLE)?;
        if op.dev_bus_addr != 0 && mapping.device.is_some() && op.dev_bus_addr != mapping.mfn.maddr().0 {
            return Err(GrantStatus::BAD_DEV_ADDR);
        }
        if op.host_addr != 0
            && let Some(pin) = &mapping.host
        {
            let root = vcpu.kernel_mfn();
            let entry = |tables: &PageTables, address| {
                tables.l1_place(ctx, root, GuestVa(address)).ok_or(GrantStatus::GENERAL_ERROR)
            };
            let at = if mapping.by_entry { Maddr(op.host_addr) } else { entry(tables, op.host_addr)? };
            let writable = pin.is_writable();
            let refs = match op.new_addr {
                0 => tables.unmap_lent(ctx, at, mapping.mfn, writable),
                _ if mapping.by_entry => Err(Errno::EINVAL),
                new => {
                    let from = entry(tables, new)?;
                    tables.replace_lent(ctx, at, mapping.mfn, writable, from)
                }
            };
            let refs = refs.map_err(|_| GrantStatus::GENERAL_ERROR)?;
            ended.mapped |= true;
            ended.uses.extend(mapping.host.take().map(|pin| (pin, refs)));
        }
        if op.dev_bus_addr != 0 {
            ended.uses.extend(mapping.device.take());
        }
        if mapping.is_over() {
            maptrack.remove(op.handle);
        }
        Ok(())
    }
}

/// Reads what use is wanted.
const fn use_of(flags: u32) -> Use {
    Use {
        host: flags & GNTMAP_HOST_MAP != 0,
        device: flags & GNTMAP_DEVICE_MAP != 0,
        writable: flags & GNTMAP_READONLY == 0,
    }
}

/// Returns the flags of the page-table entry beside frame and rights.
fn entry_flags(flags: u32) -> u64 {
    let avail = u64::from(flags >> AVAIL_SHIFT) << AVAIL_BIT & flags::AVAIL;
    let user = if flags & GNTMAP_APPLICATION_MAP != 0 { flags::US } else { 0 };
    let nx = if arch::phys::has_nx() { flags::NX } else { 0 };
    flags::A | flags::D | nx | avail | user
}

/// Maps a list of grants.
pub(super) fn map(vcpu: &Vcpu, list: &List<GnttabMap>) -> Result<Ran> {
    let mut caller = match Caller::new(vcpu) {
        Err(Errno::ERESTART) => return Ok(Ran::Part(0)),
        caller => caller?,
    };
    // Lists are mostly of one domain's grants.
    let mut known: Option<(DomId, Arc<Grants>)> = None;
    super::for_each(list, |index| {
        let mut op = list.read(index)?;
        match map_one(&mut caller, &mut known, &op) {
            Ok((handle, mfn)) => {
                (op.status, op.handle, op.dev_bus_addr) = (GrantStatus::OKAY, handle, mfn.maddr().0);
            }
            Err(status) => op.status = status,
        }
        crate::guest::write_at(list.start, u64::from(index), &op)
    })
}

fn map_one(caller: &mut Caller<'_>, known: &mut Option<(DomId, Arc<Grants>)>, op: &GnttabMap) -> Status<(u32, Mfn)> {
    if op.flags & (GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP) == 0 {
        return Err(GrantStatus::BAD_GNTREF);
    }
    if known.as_ref().is_none_or(|(domid, _)| *domid != op.dom) {
        let granter = domain::find(op.dom).ok_or(GrantStatus::BAD_DOMAIN)?;
        *known = Some((op.dom, granter.grants.clone()));
    }
    match known {
        Some((_, granter)) => caller.map(granter, op),
        None => Err(GrantStatus::BAD_DOMAIN),
    }
}

/// What both ways to end a mapping have in common.
struct Unmap {
    host_addr: u64,
    dev_bus_addr: u64,
    new_addr: u64,
    handle: u32,
}

/// What ends with the next flush.
#[derive(Default)]
struct Ended {
    /// A page-table entry was cleared.
    mapped: bool,
    /// Uses, in front of the references that go after them.
    uses: ArrayVec<(Pin, EntryRef), { 2 * BATCH as usize }>,
}

/// Ends a list of mappings.
pub(super) fn unmap(vcpu: &Vcpu, list: &List<GnttabUnmap>) -> Result<Ran> {
    let status = offset_of!(GnttabUnmap, status);
    end_all(vcpu, list, status, |op| Unmap {
        host_addr: op.host_addr,
        dev_bus_addr: op.dev_bus_addr,
        new_addr: 0,
        handle: op.handle,
    })
}

/// Ends a list of mappings, each by moving another page-table entry into its place.
pub(super) fn replace(vcpu: &Vcpu, list: &List<GnttabUnmapAndReplace>) -> Result<Ran> {
    let status = offset_of!(GnttabUnmapAndReplace, status);
    end_all(vcpu, list, status, |op| Unmap {
        host_addr: op.host_addr,
        dev_bus_addr: 0,
        new_addr: op.new_addr,
        handle: op.handle,
    })
}

fn end_all<T>(vcpu: &Vcpu, list: &List<T>, status_at: usize, decode: impl Fn(T) -> Unmap) -> Result<Ran>
where
    T: zerocopy::FromBytes + zerocopy::IntoBytes,
{
    let mut done = 0;
    while done < list.count {
        if done > 0 && arch::cpu::preempt_pending() {
            return Ok(Ran::Part(done));
        }
        let end = list.count.min(done + BATCH);
        // Not to be moved: it is large.
        let mut ended = Ended::default();
        let result = {
            let mut caller = match Caller::new(vcpu) {
                Err(Errno::ERESTART) => return Ok(Ran::Part(done)),
                caller => caller?,
            };
            (done..end).try_for_each(|index| {
                let status = status_from(caller.unmap(&decode(list.read(index)?), &mut ended));
                list.write_status(index, status_at, status)
            })
        };
        if ended.mapped {
            flush_all_of(vcpu.domain(), Flush::All);
        }
        ended.uses.clear();
        result?;
        done = end;
    }
    Ok(Ran::All)
}
