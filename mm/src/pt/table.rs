// SPDX-License-Identifier: MIT OR Apache-2.0
//! L2 to L4 tables: entries that lead to tables, and the taking and dropping of table references at every level.
//!
//! The interrupted state of a table at progress `n`: entries `0..n` hold references, entry `n` holds none but may lead
//! to a table that is itself in the partial state (which owns itself). Whoever finishes a teardown finishes that table first.

use super::{PageTables, PtCtx, Write, cached_part_changed, l1, prepare};
use crate::entry::{self, entry};
use crate::flags::{self, A, D, FAST_TABLE, P};
use crate::frame::{self, Frame, PageType, Start};
use core::sync::atomic::{AtomicU64, Ordering};
use hypercalls::{Errno, Mfn, Result};

/// The L4 slots that are the hypervisor's in every table.
const HYPERVISOR: core::ops::Range<usize> = 256..272;
/// The one of them through which a guest's kernel reads the M2P.
const M2P_SLOT: usize = 256;

static SLOTS: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

/// Sets what L4 slots 256 to 271 of every guest table hold. The entries never change afterwards.
pub fn set_hypervisor_slots(entries: &[u64; 16]) {
    SLOTS.iter().zip(entries).for_each(|(slot, value)| slot.store(*value, Ordering::Release));
}

/// True when L4 slot `index`, one of the hypervisor's, may hold `value`.
pub(crate) fn is_hypervisor_slot(index: usize, value: u64) -> bool {
    let template = SLOTS[index - HYPERVISOR.start].load(Ordering::Relaxed);
    value == template || (index == M2P_SLOT && value == 0)
}

/// Which of its two modes a guest uses a root table for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootUse {
    /// Its kernel, which sees the M2P.
    Kernel,
    /// Its user mode, which does not.
    User,
}

/// Makes the M2P visible through a valid root table or hides it.
pub(super) fn set_m2p_slot(root: Mfn, use_as: RootUse) {
    let value = match use_as {
        RootUse::Kernel => SLOTS[0].load(Ordering::Relaxed),
        RootUse::User => 0,
    };
    entry(root, M2P_SLOT).store(value, Ordering::Release);
}

/// Takes a general and a table reference on a frame of the domain's, validating it if need be.
///
/// `ERESTART`: no reference is held, the progress is in the frame. Another error: likewise, and what was validated is
/// undone or its undoing put off.
pub(super) fn get(pt: &mut PageTables, ctx: &PtCtx<'_>, mfn: Mfn, level: u8) -> Result<&'static Frame> {
    let frame = frame::get(mfn).filter(|f| f.try_get(ctx.domid())).ok_or(Errno::EINVAL)?;
    match frame.get_type(PageType::table(level)) {
        Ok(Start::Valid) => Ok(frame),
        Ok(Start::Validate { from, resumed, stale }) => {
            prepare(ctx, frame, stale);
            let result = validate(pt, ctx, frame, level, from);
            // The partial state owns a general reference: we came out of one, or went into one, or neither, or both.
            let partial = frame.state().partial;
            if resumed && !partial {
                frame.put();
            }
            if result.is_err() && (resumed || !partial) {
                frame.put();
            }
            result.map(|()| frame)
        }
        Err(e) => {
            frame.put();
            Err(e)
        }
    }
}

/// Validates a frame that is ours alone, from entry `from` on. Leaves it valid, partial, or unused.
fn validate(pt: &mut PageTables, ctx: &PtCtx<'_>, frame: &'static Frame, level: u8, from: u16) -> Result<()> {
    let mfn = frame.mfn();
    if level == 1 {
        return match l1::promote(ctx, mfn) {
            Ok(()) => {
                frame.set_valid();
                Ok(())
            }
            Err(_) => {
                frame.set_unused();
                Err(Errno::EINVAL)
            }
        };
    }
    let mut progress = from;
    match promote(pt, ctx, mfn, level, &mut progress) {
        Ok(()) => {
            if level == 4 {
                install_hypervisor_slots(mfn);
            }
            frame.set_valid();
            Ok(())
        }
        Err(Errno::ERESTART) => {
            frame.suspend(progress);
            Err(Errno::ERESTART)
        }
        Err(e) => {
            if demote(ctx, mfn, level, &mut progress).is_ok() {
                frame.set_unused();
            } else {
                frame.suspend(progress);
                // Tables below whose undoing was put off are reached from this one.
                pt.deferred = Some(mfn);
            }
            Err(e)
        }
    }
}

fn install_hypervisor_slots(mfn: Mfn) {
    for (i, slot) in HYPERVISOR.zip(&SLOTS) {
        entry(mfn, i).store(slot.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Checks the bits of a new present entry, and adjusts it.
fn check(new: u64, level: u8) -> Result<u64> {
    if new & !flags::allowed_table() != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(flags::adjust_table(new, level))
}

/// Takes the references of the entries from `progress` on.
fn promote(pt: &mut PageTables, ctx: &PtCtx<'_>, mfn: Mfn, level: u8, progress: &mut u16) -> Result<()> {
    loop {
        // An entry of zero holds nothing and is harmless on every CPU.
        let index = entry::next_used(mfn, usize::from(*progress));
        *progress = index as u16;
        if index == 512 {
            return Ok(());
        }
        let slot = entry(mfn, index);
        let old = slot.load(Ordering::Relaxed);
        let ours = level == 4 && HYPERVISOR.contains(&index);
        if old & P == 0 || ours {
            if !ours {
                ctx.owner.check_absent(old, level)?;
            }
            *progress += 1;
            continue;
        }
        let new = check(old, level)?;
        get(pt, ctx, flags::mfn_of(new), level - 1)?;
        if new != old {
            slot.store(new, Ordering::Relaxed);
        }
        *progress += 1;
        if *progress < 512 && arch::cpu::preempt_pending() {
            return Err(Errno::ERESTART);
        }
    }
}

/// Drops the references of the entries below `progress`, after finishing with an interrupted table at `progress`.
fn demote(ctx: &PtCtx<'_>, mfn: Mfn, level: u8, progress: &mut u16) -> Result<()> {
    if *progress < 512 {
        let next = entry(mfn, usize::from(*progress)).load(Ordering::Relaxed);
        if next & P != 0 && !(level == 4 && HYPERVISOR.contains(&usize::from(*progress))) {
            finish_partial_level(ctx, flags::mfn_of(next), level - 1)?;
        }
    }
    while let Some(index) = entry::last_used(mfn, usize::from(*progress)) {
        *progress = index as u16;
        let old = entry(mfn, index).load(Ordering::Relaxed);
        if old & P == 0 || (level == 4 && HYPERVISOR.contains(&index)) {
            continue;
        }
        if let Some(frame) = frame::ram(flags::mfn_of(old)) {
            put(ctx, frame, level - 1)?;
        }
        if *progress > 0 && arch::cpu::preempt_pending() {
            return Err(Errno::ERESTART);
        }
    }
    Ok(())
}

/// Drops a general and a table reference. `ERESTART`: they are dropped, or belong to the partial state that the frame
/// is in now, and the rest of the teardown is to be done by [`finish_partial`].
pub(super) fn put(ctx: &PtCtx<'_>, frame: &'static Frame, level: u8) -> Result<()> {
    if frame.put_table() {
        tear_down(ctx, frame, level, 512)?;
    } else {
        frame.put();
    }
    Ok(())
}

/// Devalidates a frame that is ours alone, with one general reference; leaves it unused, or partial and the reference
/// with that state.
fn tear_down(ctx: &PtCtx<'_>, frame: &'static Frame, level: u8, mut progress: u16) -> Result<()> {
    if level == 1 {
        l1::demote(frame.mfn(), 512);
    } else if let Err(e) = demote(ctx, frame.mfn(), level, &mut progress) {
        frame.suspend(progress);
        return Err(e);
    }
    if level == 4 {
        HYPERVISOR.for_each(|i| entry(frame.mfn(), i).store(0, Ordering::Relaxed));
    }
    frame.set_unused();
    frame.put();
    Ok(())
}

/// Finishes the teardown of a table if it is one of the domain's in the partial state.
pub(super) fn finish_partial(ctx: &PtCtx<'_>, mfn: Mfn) -> Result<()> {
    if let Some(frame) = frame::ram(mfn).filter(|f| f.owner() == ctx.domid())
        && let Some((level, progress)) = frame.resume()
    {
        tear_down(ctx, frame, level, progress)?;
    }
    Ok(())
}

fn finish_partial_level(ctx: &PtCtx<'_>, mfn: Mfn, level: u8) -> Result<()> {
    match frame::ram(mfn) {
        Some(frame) if frame.state().page_type == PageType::table(level) => finish_partial(ctx, mfn),
        _ => Ok(()),
    }
}

/// Changes entry `index` of a valid table of level 2 to 4, to which the caller holds a general reference.
pub(super) fn modify(
    pt: &mut PageTables,
    ctx: &PtCtx<'_>,
    table: &'static Frame,
    level: u8,
    index: usize,
    new: u64,
    how: Write,
) -> Result<()> {
    if ctx.fd != ctx.domid() || (level == 4 && HYPERVISOR.contains(&index)) {
        return Err(Errno::EINVAL);
    }
    let slot = entry(table.mfn(), index);
    let old = slot.load(Ordering::Relaxed);
    let mut new = new;
    if new & P != 0 {
        new = check(new, level)?;
        if (old ^ new) & !FAST_TABLE != 0 {
            get(pt, ctx, flags::mfn_of(new), level - 1)?;
        }
    } else {
        ctx.owner.check_absent(new, level)?;
    }
    if how == Write::PreserveAd {
        new |= old & (A | D);
    }
    slot.store(new, Ordering::Release);
    pt.flush_owed |= cached_part_changed(old, new);
    let kept = new & P != 0 && (old ^ new) & !FAST_TABLE == 0;
    if old & P != 0
        && !kept
        && let Some(frame) = frame::ram(flags::mfn_of(old))
    {
        pt.put_table(ctx, frame, level - 1);
    }
    Ok(())
}
