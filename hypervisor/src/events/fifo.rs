// SPDX-License-Identifier: MIT OR Apache-2.0
//! The FIFO form: a word an event in pages that the domain gave, a queue for each vCPU and priority.
//!
//! The domain gives each vCPU's control block ([`Fifo::add_control`]) and the pages of the array, one by one
//! ([`Fifo::add_page`]). An event that has no word yet is remembered and raised when it gets one. What is in the pages is the
//! guest's: [`queue`] says how both sides share them. A domain that leaves the form closes its ports first; its pages stay
//! until no CPU uses them ([`crate::grace`]).
//!
//! An event stays in the queue it was added to until the guest takes it, whatever its vCPU and priority are meanwhile.
//! [`Port::fifo`] says which queue that was: it may still be the last one there.
//!
//! # Locking
//! An event is added under the lock of its queue, and of the one it was in before if that is another: in ascending order.

pub mod queue;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use hypercalls::event::{EvtchnFifoControlBlock, FIFO_MAX_QUEUES, FIFO_NR_CHANNELS};
use hypercalls::{Errno, Mfn, PAGE_SIZE, Result, VcpuId};
use mm::{Lock, WritableRef};
use spin::once::Once;

use self::queue::{Added, LINKED, MASKED, PENDING, Queue, Word};
use super::port::{Channel, Port};
use super::send::{mark_pending, wake_pollers};
use crate::domain::Domain;
use crate::rank;
use crate::shared::{self, SharedFrame};

/// Event words in a page.
const WORDS: usize = PAGE_SIZE / size_of::<u32>();
/// Pages of a whole array.
const PAGES: usize = FIFO_NR_CHANNELS as usize / WORDS;
/// How often an event is looked at again that changes its queue while it is being added to one.
const TRIES: usize = 3;

impl Word for AtomicU32 {
    #[inline(always)]
    fn load(&self) -> u32 {
        self.load(SeqCst)
    }
    #[inline(always)]
    fn store(&self, value: u32) {
        self.store(value, SeqCst);
    }
    #[inline(always)]
    fn set(&self, bit: u32) -> bool {
        self.fetch_or(bit, SeqCst) & bit != 0
    }
    #[inline(always)]
    fn clear(&self, bit: u32) {
        self.fetch_and(!bit, SeqCst);
    }
    fn replace(&self, old: u32, new: u32) -> core::result::Result<(), u32> {
        self.compare_exchange(old, new, SeqCst, SeqCst).map(|_| ())
    }
}

/// A part of a guest's page, and the hold on that.
#[derive(Debug)]
struct Area {
    view: SharedFrame,
    frame: WritableRef,
}

impl Area {
    fn new(frame: WritableRef, offset: usize) -> Self {
        Self { view: shared::of_guest(&frame, offset), frame }
    }
}

type Place = Once<Area, arch::sync::Relax>;

/// A vCPU's queues.
#[derive(Debug)]
struct Control {
    block: Place,
    queues: [Lock<Queue>; FIFO_MAX_QUEUES],
}

impl Control {
    fn new() -> Self {
        Self { block: Once::new(), queues: [const { Lock::new(rank::EVENT_QUEUE, Queue::EMPTY) }; FIFO_MAX_QUEUES] }
    }
}

/// A domain's FIFO form.
#[derive(Debug)]
pub struct Fifo {
    pages: Box<[Place]>,
    controls: Box<[Control]>,
}

fn filled<T>(count: usize, new: impl FnMut() -> T) -> Result<Box<[T]>> {
    let mut all = Vec::new();
    all.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    all.resize_with(count, new);
    Ok(all.into())
}

impl Fifo {
    /// Makes the form for so many vCPUs; no page is there yet.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn new(vcpus: usize) -> Result<Self> {
        Ok(Self { pages: filled(PAGES, Once::new)?, controls: filled(vcpus, Control::new)? })
    }

    /// Takes up a vCPU's control block.
    ///
    /// # Errors
    /// `EINVAL` when it has one.
    pub(super) fn add_control(&self, vcpu: VcpuId, frame: WritableRef, offset: usize) -> Result<()> {
        let control = self.controls.get(vcpu.0 as usize).ok_or(Errno::ENOENT)?;
        add(&control.block, Area::new(frame, offset))
    }

    /// True when there is no room for another page of the array.
    pub(super) fn is_full(&self) -> bool {
        self.pages.last().is_none_or(Once::is_completed)
    }

    /// Takes up the next page of the array; the domain's lock is held. Returns the port whose word comes first in it.
    ///
    /// # Errors
    /// `ENOSPC` when there are as many as can be.
    pub(super) fn add_page(&self, frame: WritableRef) -> Result<u32> {
        let index = self.pages.partition_point(Once::is_completed);
        add(self.pages.get(index).ok_or(Errno::ENOSPC)?, Area::new(frame, 0))?;
        Ok((index * WORDS) as u32)
    }

    /// Raises what was remembered for events whose words are in the page that begins with port `first`.
    pub(super) fn raise_remembered(&self, domain: &Domain, first: u32) {
        for number in first..first + WORDS as u32 {
            let Some(port) = domain.events.port(number) else { return };
            if port.take_remembered() {
                self.raise(domain, number, port);
            }
        }
    }

    #[inline(always)]
    fn word(&self, port: u32) -> Option<&AtomicU32> {
        let page = self.pages.get(port as usize / WORDS)?.get()?;
        Some(page.view.u32(port as usize % WORDS * size_of::<u32>()))
    }

    /// Makes an event pending and adds it to its queue.
    #[inline(never)]
    pub(super) fn raise(&self, domain: &Domain, number: u32, port: &Port) {
        let is_new = match self.word(number) {
            Some(word) => queue::raise(word, || self.add(domain, number, port)),
            None => self.remember(domain, number, port),
        };
        if is_new {
            wake_pollers(domain, number);
        }
    }

    #[cold]
    fn remember(&self, domain: &Domain, number: u32, port: &Port) -> bool {
        let is_new = !port.remembered.swap(true, SeqCst);
        // Whoever added the page meanwhile may have looked before it was remembered.
        if let Some(word) = self.word(number)
            && port.take_remembered()
        {
            return queue::raise(word, || self.add(domain, number, port));
        }
        is_new
    }

    /// Adds an event to the queue of its vCPU and priority, unless it is in a queue.
    fn add(&self, domain: &Domain, number: u32, port: &Port) {
        for _ in 0..TRIES {
            let (last, wanted) = (port.queue.load(SeqCst), queue_of(port.channel()));
            let Some(control) = self.controls.get(wanted as usize / FIFO_MAX_QUEUES) else { return };
            let Some(block) = control.block.get() else {
                return no_control_block(domain, wanted);
            };
            let mut first = self.queue(last.min(wanted)).lock();
            let mut second = (last != wanted).then(|| self.queue(last.max(wanted)).lock_second());
            if port.queue.load(SeqCst) != last || queue_of(port.channel()) != wanted {
                continue;
            }
            let (old, new) = match &mut second {
                None => (None, &mut *first),
                Some(second) if last < wanted => (Some(&mut *first), &mut **second),
                Some(second) => (Some(&mut **second), &mut *first),
            };
            let priority = wanted as usize % FIFO_MAX_QUEUES;
            let head = block.view.u32(offset_of!(EvtchnFifoControlBlock, head) + priority * size_of::<u32>());
            let added = new.add(old, number, |port| self.word(port), head);
            if last != wanted && added != Added::Not {
                port.queue.store(wanted, SeqCst);
            }
            drop((second, first));
            if added == Added::First
                && !Word::set(block.view.u32(offset_of!(EvtchnFifoControlBlock, ready)), 1 << priority)
            {
                domain.vcpu(VcpuId(wanted / FIFO_MAX_QUEUES as u32)).into_iter().for_each(mark_pending);
            }
            return;
        }
        if domain.account.first_time(u64::from(number) << 32 | 0xf1f0) {
            log::warn!("d{}: port {number}: an event is lost, its queue changes all the time", domain.id.0);
        }
    }

    fn queue(&self, number: u32) -> &Lock<Queue> {
        let number = number as usize;
        &self.controls[number / FIFO_MAX_QUEUES].queues[number % FIFO_MAX_QUEUES]
    }

    /// Unmasks an event and adds it to its queue if it is pending.
    pub(super) fn unmask(&self, domain: &Domain, number: u32, port: &Port) {
        if let Some(word) = self.word(number) {
            queue::unmask(word, || self.add(domain, number, port));
        }
    }

    /// Forgets that an event is pending. If it is in a queue it stays there: the guest takes it and ignores it.
    pub(super) fn clear_pending(&self, number: u32, port: &Port) {
        port.take_remembered();
        if let Some(word) = self.word(number) {
            word.clear(PENDING);
        }
    }

    /// True when an event is pending, masked or not.
    pub(super) fn is_pending(&self, number: u32, port: &Port) -> bool {
        match self.word(number) {
            Some(word) => word.load(SeqCst) & PENDING != 0,
            None => port.remembered.load(SeqCst),
        }
    }

    /// True when an event is masked, or cannot be delivered for want of a word.
    pub(super) fn is_masked(&self, number: u32) -> bool {
        self.word(number).is_none_or(|word| word.load(SeqCst) & MASKED != 0)
    }

    /// True while an event is in a queue.
    pub(super) fn is_linked(&self, number: u32) -> bool {
        self.word(number).is_some_and(|word| word.load(SeqCst) & LINKED != 0)
    }

    /// Returns an event's word, for a listing.
    pub(super) fn peek(&self, number: u32) -> Option<u32> {
        self.word(number).map(|word| word.load(SeqCst))
    }

    /// Calls `f` with every frame that is held.
    pub(super) fn for_each_frame(&self, mut f: impl FnMut(Mfn)) {
        let blocks = self.controls.iter().map(|control| &control.block);
        self.pages.iter().chain(blocks).filter_map(Once::get).for_each(|area| f(area.frame.mfn()));
    }
}

fn queue_of(channel: Channel) -> u32 {
    channel.vcpu.0 * FIFO_MAX_QUEUES as u32 + u32::from(channel.priority)
}

fn add(place: &Place, area: Area) -> Result<()> {
    let mut area = Some(area);
    place.call_once(|| area.take().expect("called once"));
    if area.is_none() { Ok(()) } else { Err(Errno::EINVAL) }
}

#[cold]
fn no_control_block(domain: &Domain, queue: u32) {
    let vcpu = queue / FIFO_MAX_QUEUES as u32;
    if domain.account.first_time(u64::from(vcpu) << 32 | 0xf1f1) {
        log::info!("d{}v{vcpu} has an event and no FIFO control block", domain.id.0);
    }
}
