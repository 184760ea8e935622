// SPDX-License-Identifier: MIT OR Apache-2.0
//! A domain's interrupts: what it calls them (PIRQs), which of the machine's they are, and to which port each is bound.
//!
//! A PIRQ is mapped to an interrupt of the machine, then bound to an event channel; closing the port unbinds it, `unmap_pirq`
//! does that too. Rights are to interrupts of the machine, whatever a domain calls them (XSA-46).
//!
//! Invariant: an interrupt has at most one PIRQ in a domain; a PIRQ with a port is mapped, listens ([`Irq::bind`]), and its
//! port is in the state `Pirq`. A port in that state whose PIRQ was unmapped is silent.
//!
//! # Locking
//! Entries change under [`Pirqs::changes`], which is taken before the domain's ports and the interrupt's lock. They are read
//! without.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use arrayvec::ArrayVec;
use hypercalls::physdev::{XENIRQSTAT_NEEDS_EOI, XENIRQSTAT_SHARED};
use hypercalls::{DomId, Errno, Result, VcpuId};
use mm::{Lock, WritableRef};

use crate::domain::{self, Domain};
use crate::events;
use crate::irq::{self, Guest, Irq};
use crate::pci::msi::Wanted;
use crate::{pci, rank, shared};

/// PIRQs that fit the page of [`Pirqs::set_eoi_page`].
const MOST: u32 = 4096 * 8;
/// The legacy interrupts, which every domain that drives devices finds mapped.
const LEGACY: u32 = 16;

/// What a PIRQ is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// The interrupt plus one; 0 when it is not mapped.
    mapped: u32,
    /// Its port, 0 when it is not bound.
    port: u32,
}

impl Entry {
    const NONE: Self = Self { mapped: 0, port: 0 };
    /// Given out by `get_free_pirq`, to be mapped.
    const RESERVED: Self = Self { mapped: u32::MAX, port: 0 };

    const fn of(irq: u32) -> Self {
        Self { mapped: irq + 1, port: 0 }
    }
    const fn irq(self) -> Option<u32> {
        if self.mapped == Self::RESERVED.mapped { None } else { self.mapped.checked_sub(1) }
    }
    const fn unpack(word: u64) -> Self {
        Self { mapped: word as u32, port: (word >> 32) as u32 }
    }
    const fn pack(self) -> u64 {
        self.mapped as u64 | (self.port as u64) << 32
    }
}

/// A domain's PIRQs.
#[derive(Debug)]
pub struct Pirqs {
    entries: Box<[AtomicU64]>,
    /// Interrupts that it may map: one bit each.
    rights: Box<[AtomicU64]>,
    changes: Lock<()>,
    eoi_page: Lock<Option<WritableRef>>,
    /// Saying that an interrupt is handled unmasks its port too.
    auto_unmask: AtomicBool,
}

fn zeros(count: usize) -> Result<Box<[AtomicU64]>> {
    let mut words = alloc::vec::Vec::new();
    words.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    words.resize_with(count, || AtomicU64::new(0));
    Ok(words.into_boxed_slice())
}

impl Pirqs {
    /// The PIRQs of a domain without devices: it has numbers, and no rights.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Self> {
        let count = irq::count().min(MOST) as usize;
        Ok(Self {
            entries: zeros(count)?,
            rights: zeros(count.div_ceil(64))?,
            changes: Lock::new(rank::PIRQS, ()),
            eoi_page: Lock::new(rank::EOI_PAGE, None),
            auto_unmask: AtomicBool::new(false),
        })
    }

    /// Gives the domain that drives the devices its rights: to all lines but line 0, the timer's. The legacy ones are mapped.
    pub fn permit_lines(&self) {
        for irq in 1..arch::ioapic::gsi_end() {
            if irq::get(irq).is_some_and(|i| i.line_mode().is_some()) {
                self.permit(irq, true);
                if irq < LEGACY {
                    self.set(irq, Entry::of(irq));
                }
            }
        }
    }

    /// Gives or takes the right to an interrupt; false when there is none of that number.
    pub fn permit(&self, irq: u32, allowed: bool) -> bool {
        let bit = 1 << (irq % 64);
        match self.rights.get(irq as usize / 64) {
            Some(word) if allowed => word.fetch_or(bit, SeqCst),
            Some(word) => word.fetch_and(!bit, SeqCst),
            None => return false,
        };
        true
    }

    /// True when it has the right to an interrupt.
    pub fn may_use(&self, irq: u32) -> bool {
        self.rights.get(irq as usize / 64).is_some_and(|word| word.load(SeqCst) >> (irq % 64) & 1 != 0)
    }

    /// Returns how many PIRQs there are.
    pub fn count(&self) -> u32 {
        self.entries.len() as u32
    }

    fn get(&self, pirq: u32) -> Option<Entry> {
        self.entries.get(pirq as usize).map(|word| Entry::unpack(word.load(SeqCst)))
    }

    fn set(&self, pirq: u32, entry: Entry) {
        if let Some(word) = self.entries.get(pirq as usize) {
            word.store(entry.pack(), SeqCst);
        }
    }

    /// Returns which interrupt a PIRQ is mapped to.
    pub fn irq(&self, pirq: u32) -> Option<&'static Irq> {
        irq::get(self.get(pirq)?.irq()?)
    }

    /// Returns the port of a PIRQ, 0 when it is not bound.
    pub fn port(&self, pirq: u32) -> u32 {
        self.get(pirq).map_or(0, |entry| entry.port)
    }

    /// Returns the PIRQ that an interrupt is mapped to.
    fn pirq_of(&self, irq: u32) -> Option<u32> {
        (0..self.count()).find(|pirq| self.get(*pirq).and_then(Entry::irq) == Some(irq))
    }

    /// Finds a PIRQ that is not in use: among those of lines from the lowest up, else from the highest down.
    fn find_free(&self, for_line: bool) -> Result<u32> {
        let lines = arch::ioapic::gsi_end().min(self.count());
        let is_free = |pirq: &u32| self.get(*pirq) == Some(Entry::NONE);
        let mut line = (LEGACY..lines).filter(|_| for_line);
        line.find(is_free).or_else(|| (lines..self.count()).rev().find(is_free)).ok_or(Errno::ENOSPC)
    }

    /// Finds a PIRQ that is not in use, and keeps it from being found again.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub fn reserve(&self, for_line: bool) -> Result<u32> {
        let _changes = self.changes.lock();
        let pirq = self.find_free(for_line)?;
        self.set(pirq, Entry::RESERVED);
        Ok(pirq)
    }

    /// Maps an interrupt as the PIRQ wanted, `None` for any; one that it is mapped as already is as good.
    ///
    /// # Errors
    /// `EINVAL` for a PIRQ that is out of range, `EEXIST` when the interrupt is mapped as another one, `ENOSPC` when none is
    /// free.
    pub fn map(&self, irq: u32, wanted: Option<u32>, for_line: bool) -> Result<u32> {
        let _changes = self.changes.lock();
        let current = self.pirq_of(irq);
        let pirq = match (wanted, current) {
            (None, Some(current)) => return Ok(current),
            (None, None) => self.find_free(for_line)?,
            (Some(wanted), Some(current)) if wanted != current => return Err(Errno::EEXIST),
            (Some(wanted), _) => wanted,
        };
        match self.get(pirq).ok_or(Errno::EINVAL)? {
            Entry::NONE | Entry::RESERVED => self.set(pirq, Entry::of(irq)),
            // Mapped already: as the same interrupt, or as another one, which stays. Both are a success in the interface.
            _ => {}
        }
        Ok(pirq)
    }

    /// Maps interrupts that are new, as consecutive PIRQs. Returns the first.
    ///
    /// # Errors
    /// `EINVAL` when the PIRQ wanted is out of range, `EEXIST` when it or one behind it is in use, `ENOSPC` when there are not
    /// so many together.
    pub fn map_messages(&self, irqs: &[&Irq], wanted: Option<u32>) -> Result<u32> {
        let count = irqs.len() as u32;
        let _changes = self.changes.lock();
        let is_free = |pirq: u32| matches!(self.get(pirq), Some(Entry::NONE));
        let all_free = |first: u32| (first..first + count).all(is_free);
        let first = match wanted {
            Some(first) if first.checked_add(count).is_none_or(|end| end > self.count()) => return Err(Errno::EINVAL),
            // One that was reserved to be mapped is as good.
            Some(first) if self.get(first) == Some(Entry::RESERVED) && count == 1 => first,
            Some(first) => Some(first).filter(|first| all_free(*first)).ok_or(Errno::EEXIST)?,
            None => {
                let lines = arch::ioapic::gsi_end();
                let last = self.count().checked_sub(count).ok_or(Errno::ENOSPC)?;
                (lines..=last).rev().find(|first| all_free(*first)).ok_or(Errno::ENOSPC)?
            }
        };
        for (pirq, irq) in (first..).zip(irqs) {
            self.set(pirq, Entry::of(irq.number()));
            self.permit(irq.number(), true);
        }
        Ok(first)
    }

    /// Says where the domain finds which PIRQs it must say of that they are handled: one bit each.
    ///
    /// # Errors
    /// `EBUSY` when it was said before.
    pub fn set_eoi_page(&self, frame: WritableRef, auto_unmask: bool) -> Result<()> {
        let mut page = self.eoi_page.lock();
        if page.is_some() {
            return Err(Errno::EBUSY);
        }
        *page = Some(frame);
        drop(page);
        self.auto_unmask.store(auto_unmask, SeqCst);
        self.for_each(|pirq, irq, port| {
            let is_level = irq::get(irq).and_then(Irq::line_mode).is_some_and(|mode| mode.level);
            self.note_eoi(pirq, port != 0 && is_level);
        });
        Ok(())
    }

    fn note_eoi(&self, pirq: u32, needed: bool) {
        if let Some(frame) = &*self.eoi_page.lock()
            && pirq < MOST
        {
            let word = shared::of_guest(frame, pirq as usize / 64 * 8).u64(0);
            let bit = 1 << (pirq % 64);
            if needed {
                word.fetch_or(bit, SeqCst)
            } else {
                word.fetch_and(!bit, SeqCst)
            };
        }
    }

    /// Returns the frame of that page.
    pub fn eoi_frame(&self) -> Option<hypercalls::Mfn> {
        self.eoi_page.lock().as_ref().map(|frame| frame.mfn())
    }

    /// Calls `f` with each PIRQ that is mapped, the interrupt, and the port or 0.
    pub fn for_each(&self, mut f: impl FnMut(u32, u32, u32)) {
        for pirq in 0..self.count() {
            if let Some(entry) = self.get(pirq)
                && let Some(irq) = entry.irq()
            {
                f(pirq, irq, entry.port);
            }
        }
    }
}

/// Binds a PIRQ to a new port, which notifies vCPU 0.
///
/// # Errors
/// `EINVAL` for a PIRQ that is out of range, `EPERM` when it is not mapped or the right to the interrupt is gone, `EEXIST` when
/// it is bound, `ENOSPC`, or what [`Irq::bind`] says.
pub fn bind(domain: &Domain, pirq: u32, shares: bool) -> Result<u32> {
    let pirqs = &domain.pirqs;
    let _changes = pirqs.changes.lock();
    let entry = pirqs.get(pirq).ok_or(Errno::EINVAL)?;
    let number = entry.irq().filter(|irq| pirqs.may_use(*irq)).ok_or(Errno::EPERM)?;
    if entry.port != 0 {
        return Err(Errno::EEXIST);
    }
    let irq = irq::get(number).ok_or(Errno::EPERM)?;
    let shared = domain::find(domain.id).ok_or(Errno::EINVAL)?;
    let port = events::open_pirq(domain, pirq)?;
    match irq.bind(Guest { domain: shared, pirq, port, vcpu: VcpuId(0) }, shares) {
        Ok(needs_eoi) => {
            pirqs.set(pirq, Entry { port, ..entry });
            pirqs.note_eoi(pirq, needs_eoi);
            Ok(port)
        }
        Err(error) => {
            events::abandon_pirq(domain, port);
            Err(error)
        }
    }
}

/// The port of a PIRQ is about to be closed.
pub fn unbind(domain: &Domain, pirq: u32, port: u32) {
    let _changes = domain.pirqs.changes.lock();
    if let Some(entry) = domain.pirqs.get(pirq)
        && entry.port == port
    {
        unbind_locked(domain, pirq, entry);
    }
}

fn unbind_locked(domain: &Domain, pirq: u32, entry: Entry) {
    domain.pirqs.set(pirq, Entry { port: 0, ..entry });
    domain.pirqs.note_eoi(pirq, false);
    if let Some(irq) = entry.irq().and_then(irq::get) {
        irq.unbind(domain.id, pirq);
    }
}

/// The port of a PIRQ notifies another vCPU now.
pub fn notify(domain: &Domain, pirq: u32, port: u32, vcpu: VcpuId) {
    if domain.pirqs.port(pirq) == port
        && let Some(irq) = domain.pirqs.irq(pirq)
    {
        irq.notify(domain.id, pirq, vcpu);
    }
}

/// The domain says that it has handled an interrupt.
///
/// # Errors
/// `EINVAL` for a PIRQ that is out of range or not mapped.
pub fn done(domain: &Domain, pirq: u32) -> Result<()> {
    let irq = domain.pirqs.irq(pirq).ok_or(Errno::EINVAL)?;
    if domain.pirqs.auto_unmask.load(Relaxed) {
        // No port, or one that was closed meanwhile: nothing to unmask.
        let _ = events::unmask(domain, domain.pirqs.port(pirq));
    }
    irq.done(domain.id, pirq);
    Ok(())
}

/// The domain says that it has handled every interrupt whose port is not masked.
pub fn done_with_unmasked(domain: &Domain) {
    domain.pirqs.for_each(|pirq, _, port| {
        if port != 0 && !events::is_masked(domain, port) {
            // It is mapped.
            let _ = done(domain, pirq);
        }
    });
}

/// Returns what a domain has to know of a PIRQ, as `XENIRQSTAT_*` bits.
///
/// # Errors
/// `EINVAL` for a PIRQ that is out of range.
pub fn status(domain: &Domain, pirq: u32) -> Result<u32> {
    if pirq >= domain.pirqs.count() {
        return Err(Errno::EINVAL);
    }
    // That the interrupt must be ended is said of all: also an edge may be held back one day.
    let shared = domain.pirqs.irq(pirq).is_some_and(Irq::is_shared);
    Ok(XENIRQSTAT_NEEDS_EOI | if shared { XENIRQSTAT_SHARED } else { 0 })
}

/// Ends a mapping; its port, if it has one, stays open and silent. A message is given up, several of one function together.
///
/// # Errors
/// `EINVAL` for a PIRQ that is out of range or not mapped, `EBUSY` when it is one of several messages but the first.
pub fn unmap(domain: &Domain, pirq: u32) -> Result<()> {
    let _changes = domain.pirqs.changes.lock();
    let entry = domain.pirqs.get(pirq).filter(|e| *e != Entry::NONE).ok_or(Errno::EINVAL)?;
    let message = entry.irq().and_then(irq::get).and_then(Irq::message);
    let Some(message) = message else {
        return unmap_one(domain, pirq, entry);
    };
    if message.index() != 0 {
        return Err(Errno::EBUSY);
    }
    let count = if let Wanted::Msi(count) = message.wanted() { count.into() } else { 1 };
    let all = (pirq..pirq + count).filter_map(|pirq| Some((pirq, domain.pirqs.get(pirq)?)));
    let mut irqs = ArrayVec::<&Irq, 32>::new();
    for (pirq, entry) in all {
        unmap_one(domain, pirq, entry)?;
        if let Some(irq) = entry.irq().and_then(irq::get) {
            domain.pirqs.permit(irq.number(), false);
            let _ = irqs.try_push(irq);
        }
    }
    pci::map::unmap(&irqs);
    Ok(())
}

fn unmap_one(domain: &Domain, pirq: u32, entry: Entry) -> Result<()> {
    if entry.port != 0 {
        log::info!("d{}: PIRQ {pirq} is unmapped while it is bound", domain.id.0);
        unbind_locked(domain, pirq, entry);
    }
    domain.pirqs.set(pirq, Entry::NONE);
    Ok(())
}

/// Ends all mappings of an interrupt.
pub fn unmap_everywhere(number: u32) {
    domain::for_each(|domain| {
        if let Some(pirq) = domain.pirqs.pirq_of(number) {
            // One of several goes with the first.
            let _ = unmap(domain, pirq);
        }
    });
}

/// Gives up all interrupts of a domain that goes, and the page that it shared.
pub fn relinquish(domain: &Domain) {
    for pirq in 0..domain.pirqs.count() {
        if domain.pirqs.get(pirq).is_some_and(|entry| entry != Entry::NONE) {
            // One of several messages went with the first.
            let _ = unmap(domain, pirq);
        }
    }
    let page = domain.pirqs.eoi_page.lock().take();
    drop(page);
}

/// Finds the domain that an interrupt call is about; only itself, unless the caller controls others.
///
/// # Errors
/// `ESRCH`, `EPERM`.
pub fn target(caller: &Domain, id: DomId) -> Result<alloc::sync::Arc<Domain>> {
    let id = if id == DomId::SELF { caller.id } else { id };
    let target = domain::find(id).ok_or(Errno::ESRCH)?;
    if caller.privileged { Ok(target) } else { Err(Errno::EPERM) }
}
