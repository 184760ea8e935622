// SPDX-License-Identifier: MIT OR Apache-2.0
//! L1 tables: entries that map memory.

use super::{IoAccess, PtCtx, Write};
use crate::entry::{self, entry};
use crate::flags::{self, A, CACHE, D, FAST_L1, P, PWT, RW};
use crate::frame;
use crate::refs::EntryRef;
use core::sync::atomic::{AtomicU64, Ordering};
use hypercalls::{Errno, Mfn, Result};

/// Checks the bits of a new present entry, and adjusts it.
#[inline]
fn check(ctx: &PtCtx<'_>, new: u64) -> Result<u64> {
    let bad = new & !flags::allowed_l1();
    if bad != 0 && (bad & !CACHE != 0 || !ctx.io.cache_bits()) {
        return Err(Errno::EINVAL);
    }
    Ok(flags::adjust_l1(new))
}

/// Takes the references of a present, checked entry. Returns the entry to write, which for I/O memory may have fewer
/// rights and other cache bits.
#[inline(always)]
fn get_refs(ctx: &PtCtx<'_>, new: u64) -> Result<u64> {
    let mfn = flags::mfn_of(new);
    match frame::get(mfn) {
        Some(frame) if frame.try_get(ctx.fd) => {
            if new & RW != 0
                && let Err(_) = frame.get_writable()
            {
                frame.put();
                return Err(Errno::EBUSY);
            }
            if new & RW != 0 {
                note_lent(ctx, frame);
            }
            if new & CACHE != 0 { cache_of_ram(frame, new) } else { Ok(new) }
        }
        Some(frame) if frame.is_ram() => Err(Errno::EBUSY),
        _ => io_entry(ctx, mfn, new),
    }
}

/// Notes that tables of another domain than the owner's map a frame writable.
#[inline]
fn note_lent(ctx: &PtCtx<'_>, frame: &frame::Frame) {
    if ctx.fd != ctx.domid() {
        frame.set_lent();
    }
}

/// Deals with cache bits in an entry of RAM, whose references are taken.
#[cold]
fn cache_of_ram(frame: &'static frame::Frame, new: u64) -> Result<u64> {
    if frame.is_special() {
        put_refs(new);
        return Err(Errno::EACCES);
    }
    if new & RW != 0 {
        frame.set_noncoherent();
    }
    Ok(new)
}

/// Decides on an entry of something that is not RAM: uncached unless it says otherwise (XSA-154).
#[cold]
fn io_entry(ctx: &PtCtx<'_>, mfn: Mfn, mut new: u64) -> Result<u64> {
    match ctx.io.mmio(mfn) {
        IoAccess::None => return Err(refuse_io(ctx, mfn)),
        IoAccess::ReadOnly => new &= !RW,
        IoAccess::ReadWrite => {}
    }
    let kind = new & CACHE;
    if kind == 0 {
        new |= PWT | flags::PCD;
    } else if kind & flags::PCD == 0 && kind & PWT != 0 {
        // Write-through and write-protected become uncached; PAT alone is write-combining in the reserved PAT.
        new |= flags::PCD;
    }
    Ok(new)
}

/// Notes, once for each 2 MiB, that a domain wanted what is not for it.
fn refuse_io(ctx: &PtCtx<'_>, mfn: Mfn) -> Errno {
    if ctx.owner.first_time(mfn.0 >> 9 | REFUSED) {
        log::info!("d{}: frame {:#x} is no RAM, and not for this domain to map", ctx.domid().0, mfn.0);
    }
    Errno::EPERM
}

/// Tells these messages from others.
const REFUSED: u64 = 1 << 62;

/// Drops the references of an entry that is no longer in its table.
#[inline]
pub(super) fn put_refs(old: u64) {
    drop(EntryRef::from_entry(old));
}

/// Writes an entry of which only the CPU may change bits meanwhile (A and D).
#[inline]
fn write(slot: &AtomicU64, mut old: u64, new: u64, how: Write) {
    if how == Write::Plain {
        return slot.store(new, Ordering::Release);
    }
    while let Err(now) = slot.compare_exchange_weak(old, new | old & (A | D), Ordering::AcqRel, Ordering::Relaxed) {
        old = now;
    }
}

/// Changes an entry of a valid L1 table. On error it is unchanged.
#[inline]
pub(super) fn modify(ctx: &PtCtx<'_>, slot: &AtomicU64, new: u64, how: Write) -> Result<()> {
    let old = slot.load(Ordering::Relaxed);
    if new & P == 0 {
        ctx.owner.check_absent(new, 1)?;
        // Accessed and dirty are kept here too if asked for: PROT_NONE memory is not present, yet dirty.
        write(slot, old, new, how);
        put_refs(old);
        return Ok(());
    }
    let new = check(ctx, new)?;
    let changed = old ^ new;
    if changed & !FAST_L1 == 0 {
        write(slot, old, new, how);
        return Ok(());
    }
    if changed & !(FAST_L1 | RW) == 0
        && let Some(done) = change_rights(ctx, slot, old, new, how)
    {
        return done;
    }
    let new = get_refs(ctx, new)?;
    write(slot, old, new, how);
    put_refs(old);
    Ok(())
}

/// Changes the writability of a mapping of RAM, which keeps its general reference. `None`: not that simple.
#[inline]
fn change_rights(ctx: &PtCtx<'_>, slot: &AtomicU64, old: u64, new: u64, how: Write) -> Option<Result<()>> {
    let frame = frame::ram(flags::mfn_of(new))?;
    if new & RW == 0 {
        write(slot, old, new, how);
        frame.put_writable();
        return Some(Ok(()));
    }
    // More rights than before: whose frame it is counts again. The old entry keeps the frame and so its owner.
    if frame.owner() != ctx.fd || new & CACHE != 0 {
        return None;
    }
    if frame.get_writable().is_err() {
        return Some(Err(Errno::EBUSY));
    }
    note_lent(ctx, frame);
    write(slot, old, new, how);
    Some(Ok(()))
}

/// Exchanges an entry of a valid L1 table; returns what it held. On error it is unchanged.
#[inline]
pub(super) fn exchange(ctx: &PtCtx<'_>, slot: &AtomicU64, new: u64) -> Result<u64> {
    let new = if new & P == 0 {
        ctx.owner.check_absent(new, 1)?;
        new
    } else {
        get_refs(ctx, check(ctx, new)?)?
    };
    // Whatever the CPU has changed meanwhile holds no reference.
    let old = slot.swap(new, Ordering::AcqRel);
    put_refs(old);
    Ok(old)
}

/// Changes an entry if it reads `expected`; returns what it read.
pub(super) fn compare_exchange(ctx: &PtCtx<'_>, slot: &AtomicU64, expected: u64, new: u64) -> Result<u64> {
    let old = slot.load(Ordering::Acquire);
    if old != expected {
        return Ok(old);
    }
    let exchange = |new| slot.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
    let new = if new & P != 0 {
        check(ctx, new)?
    } else {
        ctx.owner.check_absent(new, 1)?;
        new
    };
    let changed = old ^ new;
    if new & P != 0 && changed & !FAST_L1 == 0 {
        return Ok(exchange(new).unwrap_or_else(|now| now));
    }
    let new = if new & P != 0 { get_refs(ctx, new)? } else { new };
    match exchange(new) {
        Ok(_) => {
            put_refs(old);
            Ok(old)
        }
        Err(now) => {
            put_refs(new);
            Ok(now)
        }
    }
}

/// Takes the references of all entries of a table that nobody can write. On error none is held.
pub(super) fn promote(ctx: &PtCtx<'_>, mfn: Mfn) -> Result<()> {
    // An entry of zero holds nothing and is harmless on every CPU.
    let mut index = entry::next_used(mfn, 0);
    while index < 512 {
        let slot = entry(mfn, index);
        let old = slot.load(Ordering::Relaxed);
        let checked = if old & P == 0 {
            ctx.owner.check_absent(old, 1).map(|()| old)
        } else {
            check(ctx, old).and_then(|new| get_refs(ctx, new))
        };
        match checked {
            Ok(new) if new == old => {}
            Ok(new) => slot.store(new, Ordering::Relaxed),
            Err(e) => {
                demote(mfn, index);
                return Err(e);
            }
        }
        index = entry::next_used(mfn, index + 1);
    }
    Ok(())
}

/// Drops the references of the first `count` entries of a table that no CPU walks any more.
pub(super) fn demote(mfn: Mfn, count: usize) {
    let mut index = entry::next_used(mfn, 0);
    while index < count {
        put_refs(entry(mfn, index).load(Ordering::Relaxed));
        index = entry::next_used(mfn, index + 1);
    }
}
