// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a domain owns: its list of frames, how many it may have, and on which CPUs its translations may be cached.
//!
//! What must hold: a frame that is owned by an ordinary domain and not special is on exactly one list of that domain's
//! account and counted once, from [`Account::populate`] or [`Account::adopt`] until its last reference goes. So frames given
//! up but still mapped count against the maximum until they are really free. Frames of the hypervisor's that are shared with
//! the domain are counted too, by themselves: while there are any, no other domain can have its number.
//!
//! # Locking
//! `ACCOUNTS` finds the account when the last reference goes; `PAGES` protects one account's lists. Neither is held
//! while a frame is freed or a TLB flushed.

use crate::frame::{self, Frame, NONE};
use crate::lock::{Lock, LockGuard, rank};
use crate::{AbsentRule, buddy, m2p};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use arch::AtomicCpuMask;
use core::sync::atomic::{AtomicU64, Ordering};
use hypercalls::{DomId, Errno, Mfn, Result};

/// Frames linked through the frame table.
#[derive(Debug)]
struct List {
    head: u32,
    tail: u32,
}

impl List {
    const EMPTY: Self = Self { head: NONE, tail: NONE };

    fn push(&mut self, frame: &Frame) {
        let number = frame.mfn().0 as u32;
        frame.next.store(NONE, Ordering::Relaxed);
        frame.prev.store(self.tail, Ordering::Relaxed);
        match frame::get(Mfn(u64::from(self.tail))) {
            Some(last) => last.next.store(number, Ordering::Relaxed),
            None => self.head = number,
        }
        self.tail = number;
    }
    fn remove(&mut self, frame: &Frame) {
        let (prev, next) = (frame.prev.load(Ordering::Relaxed), frame.next.load(Ordering::Relaxed));
        match frame::get(Mfn(u64::from(prev))) {
            Some(f) => f.next.store(next, Ordering::Relaxed),
            None => self.head = next,
        }
        match frame::get(Mfn(u64::from(next))) {
            Some(f) => f.prev.store(prev, Ordering::Relaxed),
            None => self.tail = prev,
        }
    }
    /// True when the frame, on one of several lists, is the first or last of this one.
    fn has_end(&self, frame: &Frame) -> bool {
        let number = frame.mfn().0 as u32;
        self.head == number || self.tail == number
    }
    fn first(&self) -> Option<&'static Frame> {
        frame::get(Mfn(u64::from(self.head)))
    }
}

/// What the lock of an account protects.
#[derive(Debug)]
struct Pages {
    list: List,
    /// Frames of a dying domain that hold no type of their own any more.
    visited: List,
    owned: u64,
    /// Frames of the hypervisor's that are shared with the domain, or still mapped.
    shared: u64,
    maximum: u64,
    /// Frames that are promised to the domain.
    claim: u64,
    dying: bool,
    /// All frames were visited once; what is on `list` again lingers.
    visited_all: bool,
}

impl Pages {
    fn remove(&mut self, frame: &Frame) {
        // In the middle of a list both lists' ends stay as they are, so either will do.
        if self.visited.has_end(frame) {
            self.visited.remove(frame)
        } else {
            self.list.remove(frame)
        }
        self.owned -= 1;
    }
}

/// What [`Account::first_time`] knows a refused absent entry by.
const ABSENT: u64 = 1 << 63;

/// A domain's memory.
#[derive(Debug)]
pub struct Account {
    domid: DomId,
    /// CPUs that may hold translations of this domain's address spaces.
    pub dirty: AtomicCpuMask,
    /// Which absent entries its page tables may hold; `None`: any.
    absent: Option<AbsentRule>,
    /// What was said of it, one bit each of a hash.
    said: AtomicU64,
    pages: Lock<Pages>,
}

static ACCOUNTS: Lock<BTreeMap<DomId, Arc<Account>>> = Lock::new(rank::ACCOUNTS, BTreeMap::new());

fn find(domid: DomId) -> Option<Arc<Account>> {
    ACCOUNTS.lock().get(&domid).cloned()
}

/// Forgets all accounts: a new machine starts.
pub(crate) fn reset() {
    let old = core::mem::take(&mut *ACCOUNTS.lock());
    drop(old);
}

impl Account {
    /// Opens a domain's account.
    ///
    /// # Errors
    /// `EEXIST` if the domain has one, frames of an earlier domain of that number perhaps still being mapped.
    pub fn open(domid: DomId, maximum: u64) -> Result<Arc<Self>> {
        Self::open_with(domid, maximum, None)
    }
    /// As [`Account::open`], for a domain whose absent entries must be harmless.
    ///
    /// # Errors
    /// As [`Account::open`].
    pub fn open_with(domid: DomId, maximum: u64, absent: Option<AbsentRule>) -> Result<Arc<Self>> {
        let pages = Pages {
            list: List::EMPTY,
            visited: List::EMPTY,
            owned: 0,
            shared: 0,
            maximum,
            claim: 0,
            dying: false,
            visited_all: false,
        };
        let account = Arc::new(Self {
            domid,
            dirty: AtomicCpuMask::new(),
            absent,
            said: AtomicU64::new(0),
            pages: Lock::new(rank::PAGES, pages),
        });
        let mut accounts = ACCOUNTS.lock();
        if accounts.contains_key(&domid) {
            return Err(Errno::EEXIST);
        }
        accounts.insert(domid, account.clone());
        Ok(account)
    }
    /// Closes the account of a domain that is gone.
    ///
    /// # Errors
    /// `EBUSY` while it still has frames: others have them mapped.
    pub fn close(&self) -> Result<()> {
        if self.has_frames() {
            return Err(Errno::EBUSY);
        }
        let gone = ACCOUNTS.lock().remove(&self.domid);
        drop(gone);
        Ok(())
    }
    /// Returns whose account it is.
    #[inline]
    pub fn domid(&self) -> DomId {
        self.domid
    }
    /// Checks an absent entry for a table of this level.
    ///
    /// # Errors
    /// `EINVAL` when it is not harmless on this CPU.
    #[inline]
    pub(crate) fn check_absent(&self, entry: u64, level: u8) -> Result<()> {
        match &self.absent {
            Some(rule) if !rule.allows(entry, level) => Err(self.refuse_absent(entry, level)),
            _ => Ok(()),
        }
    }
    #[cold]
    fn refuse_absent(&self, entry: u64, level: u8) -> Errno {
        if self.first_time(ABSENT) {
            log::warn!("d{}: absent L{level} entry {entry:#018x} refused: this CPU would look at it", self.domid.0);
        }
        Errno::EINVAL
    }
    /// True the first time that this number is asked about: for messages that a guest must not be able to repeat. It may be
    /// false for a number that was not asked about; there are at most 64 first times.
    pub fn first_time(&self, number: u64) -> bool {
        let bit = 1 << (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58);
        self.said.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn lock(&self) -> LockGuard<'_, Pages> {
        self.pages.lock()
    }
    /// Returns how many frames the domain owns, those given up but still mapped included.
    pub fn owned(&self) -> u64 {
        self.lock().owned
    }
    /// True while there are frames of the domain's, shared ones among them. When the last one of a dying domain goes, the CPU on
    /// which it goes gets [`Work::BURY`](arch::cpu::Work).
    pub fn has_frames(&self) -> bool {
        self.lock().has_frames()
    }
    /// Returns how many it may own.
    pub fn maximum(&self) -> u64 {
        self.lock().maximum
    }
    /// Sets how many it may own; fewer than it does only stops growth.
    pub fn set_maximum(&self, frames: u64) {
        self.lock().maximum = frames;
    }
    /// Lets the account take in no more frames, for good.
    pub fn begin_dying(&self) {
        let mut pages = self.lock();
        pages.dying = true;
        pages.drop_claim();
    }
    /// True when it takes in no more frames.
    pub fn is_dying(&self) -> bool {
        self.lock().dying
    }
    /// Promises the domain as many free frames as it needs to own `frames`; 0 takes the promise back. The promise shrinks
    /// with each frame that is populated.
    ///
    /// # Errors
    /// `EINVAL`: it owns as many already, may not own as many, has a promise already, or is dying; `ENOMEM`: there are not
    /// as many that nobody else has claimed.
    pub fn claim(&self, frames: u64) -> Result<()> {
        let mut pages = self.lock();
        if frames == 0 {
            pages.drop_claim();
            return Ok(());
        }
        pages.check_alive()?;
        if pages.claim != 0 || frames <= pages.owned || frames > pages.maximum {
            return Err(Errno::EINVAL);
        }
        let missing = frames - pages.owned;
        if !buddy::claim(missing) {
            return Err(Errno::ENOMEM);
        }
        pages.claim = missing;
        Ok(())
    }
    /// Returns how many frames are promised to the domain still.
    pub fn claimed(&self) -> u64 {
        self.lock().claim
    }

    /// Allocates 2^`order` scrubbed frames for the domain.
    ///
    /// # Errors
    /// `ENOMEM`: no such block is free, or the domain would own too many; `EINVAL`: it is dying.
    pub fn populate(&self, order: u8, address_bits: u32) -> Result<Mfn> {
        let mfn = self.lock().allocate(order, address_bits)?;
        buddy::flush(mfn, order);
        buddy::scrub(mfn, order);
        self.adopt(mfn, order).inspect_err(|_| buddy::free(mfn, order))?;
        Ok(mfn)
    }
    /// Gives 2^`order` frames of the hypervisor's to the domain, as they are: the caller has scrubbed or filled them.
    ///
    /// # Errors
    /// As [`Account::populate`]; the frames are then still the caller's.
    pub fn adopt(&self, mfn: Mfn, order: u8) -> Result<()> {
        self.take_in(mfn, order, Pages::check_room)
    }
    /// Like [`Account::adopt`], for frames that take the place of as many stolen ones: the maximum is not asked, since
    /// it may have been lowered below what the domain owns.
    ///
    /// # Errors
    /// `EINVAL`: the domain is dying. The frames are then still the caller's.
    pub fn adopt_instead(&self, mfn: Mfn, order: u8) -> Result<()> {
        self.take_in(mfn, order, |pages, _| pages.check_alive())
    }
    fn take_in(&self, mfn: Mfn, order: u8, check: impl FnOnce(&Pages, u64) -> Result<()>) -> Result<()> {
        for i in 0..1 << order {
            if let Some(stamp) = frame::ram(mfn.add(i)).and_then(Frame::take_stale) {
                arch::tlb::flush_since(&arch::cpu::online(), stamp);
            }
        }
        let mut pages = self.lock();
        check(&pages, 1 << order)?;
        for frame in (0..1 << order).filter_map(|i| frame::ram(mfn.add(i))) {
            debug_assert_eq!(frame.owner(), DomId::IDLE);
            pages.list.push(frame);
            pages.owned += 1;
            frame.set_owned(self.domid, false);
        }
        Ok(())
    }
    /// Takes back a frame the domain gives up: it is free as soon as nothing maps it any more.
    ///
    /// # Errors
    /// `EINVAL` if the domain does not own it, or has given it up already. Being pinned or mapped is no error, and is not
    /// changed (XSA-252).
    pub fn give_up(&self, mfn: Mfn) -> Result<()> {
        let frame = frame::ram(mfn).ok_or(Errno::EINVAL)?;
        if !frame.deallocate(self.domid, false) {
            return Err(Errno::EINVAL);
        }
        m2p::clear(mfn);
        frame.put();
        Ok(())
    }
    /// Takes a frame that nothing maps or types away from the domain; it is the hypervisor's then, content and all,
    /// to be [`Account::adopt`]ed by another or freed.
    ///
    /// # Errors
    /// `EINVAL` if the domain does not own it or there is any reference but being allocated.
    pub fn steal(&self, mfn: Mfn) -> Result<()> {
        let frame = frame::ram(mfn).ok_or(Errno::EINVAL)?;
        let mut pages = self.lock();
        if !frame.steal(self.domid) {
            return Err(Errno::EINVAL);
        }
        pages.remove(frame);
        drop(pages);
        m2p::clear(mfn);
        Ok(())
    }
    /// Calls `each` with every frame of the domain's, under the account's lock.
    pub fn for_each(&self, mut each: impl FnMut(Mfn)) {
        let pages = self.lock();
        for list in [&pages.list, &pages.visited] {
            let mut at = list.first();
            while let Some(frame) = at {
                each(frame.mfn());
                at = frame::get(Mfn(u64::from(frame.next.load(Ordering::Relaxed))));
            }
        }
    }
    /// Returns the next frame of a dying domain in the first round, in which types are dropped, with a reference taken
    /// so that it stays; `None` when all were visited.
    pub(crate) fn next_typed(&self) -> Option<&'static Frame> {
        let mut pages = self.lock();
        if pages.visited_all {
            return None;
        }
        while let Some(frame) = pages.list.first() {
            pages.list.remove(frame);
            pages.visited.push(frame);
            if frame.try_get(self.domid) {
                return Some(frame);
            }
        }
        pages.visited_all = true;
        None
    }
    /// Returns the next frame in the second round, in which frames are given up, with a reference; those that are still
    /// mapped somewhere linger until the last mapping goes.
    pub(crate) fn next_owned(&self) -> Option<&'static Frame> {
        let mut pages = self.lock();
        while let Some(frame) = pages.visited.first() {
            pages.visited.remove(frame);
            pages.list.push(frame);
            if frame.try_get(self.domid) {
                return Some(frame);
            }
        }
        None
    }
}

impl Pages {
    fn has_frames(&self) -> bool {
        self.owned != 0 || self.shared != 0
    }
    fn check_alive(&self) -> Result<()> {
        if self.dying { Err(Errno::EINVAL) } else { Ok(()) }
    }
    fn check_room(&self, frames: u64) -> Result<()> {
        self.check_alive()?;
        if self.maximum.saturating_sub(self.owned) < frames {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }
    /// Takes frames for the domain from those that are free, as far as they are promised to it or to nobody.
    fn allocate(&mut self, order: u8, address_bits: u32) -> Result<Mfn> {
        self.check_room(1 << order)?;
        let promised = self.claim.min(1 << order);
        let mfn = buddy::alloc_claimed(order, address_bits, promised).ok_or(Errno::ENOMEM)?;
        self.claim -= promised;
        Ok(mfn)
    }
    fn drop_claim(&mut self) {
        buddy::unclaim(core::mem::take(&mut self.claim));
    }
}

/// Frees a frame whose last reference is gone. Only the caller saw the count reach 0.
#[cold]
pub(crate) fn release(frame: &'static Frame) {
    let mfn = frame.mfn();
    let state = frame.state();
    debug_assert!(state.type_count == 0 && !state.allocated, "{mfn} freed while typed: {state:?}");
    if let Some(account) = find(state.owner) {
        let mut pages = account.lock();
        if state.special {
            pages.shared -= 1
        } else {
            pages.remove(frame)
        }
        if pages.dying && !pages.has_frames() {
            arch::cpu::raise_here(arch::cpu::Work::BURY);
        }
    }
    if frame.take_noncoherent() {
        arch::phys::flush_cache(mfn);
    }
    m2p::clear(mfn);
    frame.clean();
    buddy::give_back(mfn, 0, true);
}

/// Counts a frame that the hypervisor shares with a domain, or no longer.
pub(crate) fn count_shared(owner: DomId, more: bool) {
    if let Some(account) = find(owner) {
        let shared = &mut account.lock().shared;
        *shared = if more { *shared + 1 } else { *shared - 1 };
    }
}

/// Flushes, for a change of type, the CPUs that may hold translations of the frame older than its stamp.
#[cold]
pub(crate) fn flush_stale(frame: &Frame) {
    // Without an account (a frame of DOMID_XEN's, say) anybody may have mapped it.
    frame.flush_stale(|| find(frame.owner()).map_or_else(arch::cpu::online, |account| account.dirty.load()));
}
