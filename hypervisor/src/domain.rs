// SPDX-License-Identifier: MIT OR Apache-2.0
//! Domains: what one owns, what it may do, and how it ends.
//!
//! # Locking
//! [`Domain::page_tables`] covers every change to the domain's page tables; [`Events::lock`] changes to its ports. Neither is
//! held while the other is taken. Everything else is atomic.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

use hypercalls::domctl_args::ArchDomainConfig;
use hypercalls::memory::E820Entry;
use hypercalls::sched::ShutdownReason;
use hypercalls::vm_assist::VmAssistType;
use hypercalls::{DomId, Errno, Result, VcpuId};
use mm::{Account, Lock, PageTables, PtCtx};

use crate::console::GuestConsole;
use crate::cpu_policy::CpuPolicy;
use crate::death::Stage;
use crate::events::Events;
use crate::grace::{Node, Published};
use crate::grants::Grants;
use crate::io_rights::IoRights;
use crate::port_io::Latches;
use crate::shared::{SharedFrame, SharedSlot};
use crate::tsc::Tsc;
use crate::vcpu::Vcpu;
use crate::watchdog::Watchdogs;

/// More pauses than tools have a reason for.
const MOST_PAUSES: u32 = 255;

/// A domain has no reason to have shut down.
pub const NO_REASON: u32 = u32::MAX;

/// A domain.
#[derive(Debug)]
pub struct Domain {
    /// Its number.
    pub id: DomId,
    /// True for dom0: it drives the devices and controls the others.
    pub privileged: bool,
    /// The page it shares with the hypervisor, seen through [`Domain::shared_info`].
    pub shared_slot: SharedSlot,
    /// The hold on that page, until the domain is dead.
    pub shared_frame: Published<mm::SharedFrame>,
    /// Its vCPUs, by number.
    pub vcpus: Box<[Vcpu]>,
    /// Its memory, and the CPUs that may hold translations of its address spaces.
    pub account: Arc<Account>,
    /// Taken around setting the state of a vCPU that is not initialised: nobody finds one half set.
    pub initialising: Lock<()>,
    /// The map of its memory that its tools made; a kernel without one assumes the usual.
    pub memory_map: Lock<Option<Arc<[E820Entry]>>>,
    /// Taken around changes to its page tables.
    pub page_tables: Lock<PageTables>,
    /// Its event channels.
    pub events: Events,
    /// Its interrupts of the machine.
    pub pirqs: crate::pirq::Pirqs,
    /// Its grant table.
    pub grants: Arc<Grants>,
    /// How many of its vCPUs poll a port.
    pub pollers: AtomicU64,
    /// Bits of `vm_assist` types that it switched on.
    pub assist: AtomicU64,
    /// Ports and machine frames that it may use.
    pub io: IoRights,
    /// What CPUID tells it.
    pub cpuid: CpuPolicy,
    /// How it sees the time-stamp counter.
    pub tsc: Tsc,
    /// What it wrote to ports whose value is kept for it.
    pub latches: Lock<Latches>,
    /// Offset of its wall clock, in seconds.
    pub time_offset: AtomicU64,
    /// How often it was paused; it runs at 0.
    pub pause_count: AtomicU32,
    /// How many of these pauses are the tools'.
    pub controller_pauses: AtomicU32,
    /// It has shut down or crashed.
    pub is_shut_down: AtomicBool,
    /// Why, as [`ShutdownReason`]; [`NO_REASON`] as long as there is none.
    pub shutdown_code: AtomicU32,
    /// How far its death has got.
    pub death: Lock<Stage>,
    /// It is being torn down.
    pub dying: AtomicBool,
    /// It has been torn down; only what others still refer to keeps it.
    pub dead: AtomicBool,
    /// Its console, when the hypervisor serves it.
    pub console: Published<GuestConsole>,
    /// Its watchdogs.
    pub watchdogs: Lock<Watchdogs>,
    /// Its port on which tools hear that it has shut down to be saved; 0 for none.
    pub suspend_port: AtomicU32,
    /// The name by which tools know it.
    pub handle: Lock<[u8; 16]>,
    /// It serves the store to others.
    pub serves_store: bool,
    /// What tools want of the machine that it sees.
    pub arch: ArchDomainConfig,
}

impl Domain {
    /// Returns in whose name its page tables are changed when it maps its own frames.
    #[inline]
    pub fn tables_ctx(&self) -> PtCtx<'_> {
        PtCtx::own(&self.account, &self.io)
    }

    /// Returns the page it shares with the hypervisor; one that nobody looks at once the domain is dead.
    #[inline]
    pub fn shared_info(&self) -> SharedFrame {
        self.shared_slot.get()
    }

    /// Returns a vCPU.
    #[inline]
    pub fn vcpu(&self, id: VcpuId) -> Option<&Vcpu> {
        self.vcpus.get(id.0 as usize)
    }

    /// True while none of its vCPUs may run.
    pub fn paused(&self) -> bool {
        self.pause_count.load(SeqCst) != 0 || self.is_shut_down.load(SeqCst)
    }

    /// True when the assist type is on.
    pub fn assists(&self, kind: VmAssistType) -> bool {
        self.assist.load(SeqCst) >> kind.0 & 1 != 0
    }

    /// Stops all vCPUs and returns when none runs. The caller is none of them.
    pub fn pause(&self) {
        self.pause_count.fetch_add(1, SeqCst);
        self.stop_vcpus();
    }

    fn stop_vcpus(&self) {
        self.vcpus.iter().for_each(crate::schedule::stop);
        self.vcpus.iter().for_each(crate::schedule::wait_until_off);
    }

    /// Takes one pause back; with the last one vCPUs run again.
    pub fn unpause(&self) {
        if self.pause_count.fetch_sub(1, SeqCst) == 1 {
            self.vcpus.iter().for_each(crate::schedule::wake);
        }
    }

    /// Pauses the domain for the tools. None of its vCPUs is the caller.
    ///
    /// # Errors
    /// `EBUSY` when the tools have paused it too often to count.
    pub fn pause_by_controller(&self) -> Result<()> {
        let more = |pauses: u32| pauses.checked_add(1).filter(|n| *n < MOST_PAUSES);
        self.controller_pauses.fetch_update(SeqCst, SeqCst, more).map_err(|_| Errno::EBUSY)?;
        self.pause();
        Ok(())
    }

    /// Takes one pause of the tools' back.
    ///
    /// # Errors
    /// `EINVAL` when there is none.
    pub fn unpause_by_controller(&self) -> Result<()> {
        let fewer = |pauses: u32| pauses.checked_sub(1);
        self.controller_pauses.fetch_update(SeqCst, SeqCst, fewer).map_err(|_| Errno::EINVAL)?;
        self.cpuid.get();
        self.unpause();
        Ok(())
    }

    /// Stops the domain until it is resumed. What that means for the machine is [`crate::crash`]'s business. Returns the
    /// reason that counts, which is one that the domain gave before; `None` when it has shut down already.
    #[must_use]
    pub fn shut_down(&self, reason: ShutdownReason) -> Option<ShutdownReason> {
        let reason = self.give_reason(reason);
        if self.is_shut_down.swap(true, SeqCst) {
            return None;
        }
        self.vcpus.iter().for_each(crate::schedule::stop);
        Some(reason)
    }

    /// Says why the domain shuts down, or will; the first reason counts.
    pub fn give_reason(&self, reason: ShutdownReason) -> ShutdownReason {
        match self.shutdown_code.compare_exchange(NO_REASON, reason.0, SeqCst, SeqCst) {
            Ok(_) => reason,
            Err(earlier) => ShutdownReason(earlier),
        }
    }

    /// Lets a domain that has shut down go on.
    pub fn resume(&self) {
        self.pause();
        self.shutdown_code.store(NO_REASON, SeqCst);
        self.is_shut_down.store(false, SeqCst);
        self.unpause();
    }
}

/// Numbers that a chunk of the table of domains holds.
const CHUNK: usize = 256;
type Chunk = [Published<Known>; CHUNK];
type Chunks = [spin::once::Once<Box<Chunk>, arch::sync::Relax>; DomId::FIRST_RESERVED.0 as usize / CHUNK + 1];

/// The domains by number. Reading takes no lock: a domain that is found stays at least until its finder returns to a guest.
static DOMAINS: Chunks = [const { spin::once::Once::new() }; DomId::FIRST_RESERVED.0 as usize / CHUNK + 1];

/// A domain that can be found. When it cannot any more, and nobody has found it, it goes.
#[derive(Debug)]
struct Known(Arc<Domain>);

impl Drop for Known {
    fn drop(&mut self) {
        crate::death::bury(&self.0);
    }
}

#[inline(always)]
fn slot(id: DomId) -> Option<&'static Published<Known>> {
    let id = usize::from(id.0);
    DOMAINS.get(id / CHUNK)?.get()?.get(id % CHUNK)
}

/// Calls `f` with a domain, found by its number.
#[inline(always)]
pub fn with<R>(id: DomId, f: impl FnOnce(&Domain) -> R) -> Option<R> {
    slot(id)?.with(|known| f(&known.0))
}

/// Returns a domain by number, to be kept.
pub fn find(id: DomId) -> Option<Arc<Domain>> {
    slot(id)?.with(|known| known.0.clone())
}

/// Returns the domain with the lowest number that is at least this.
pub fn next(id: DomId) -> Option<Arc<Domain>> {
    from(id).next()
}

/// Iterates over the domains from a number on, in ascending order.
pub fn from(id: DomId) -> impl Iterator<Item = Arc<Domain>> {
    let (first, at) = (usize::from(id.0) / CHUNK, usize::from(id.0) % CHUNK);
    let chunks = DOMAINS.iter().enumerate().skip(first).filter_map(|(n, chunk)| Some((n, chunk.get()?)));
    let slots = chunks.flat_map(move |(n, chunk)| chunk.iter().skip(if n == first { at } else { 0 }));
    slots.filter_map(|slot| slot.with(|known| known.0.clone()))
}

/// Returns how many domains there are.
pub fn count() -> u32 {
    from(DomId(0)).count() as u32
}

/// Adds a domain to those that can be found.
///
/// # Errors
/// `ENOMEM`; `EINVAL` for a number that no domain can have.
pub fn publish(domain: Arc<Domain>) -> Result<()> {
    let id = domain.id;
    let chunk = DOMAINS.get(usize::from(id.0) / CHUNK).ok_or(Errno::EINVAL)?;
    chunk.call_once(|| Box::new([const { Published::new() }; CHUNK]));
    let node = Node::new(Known(domain))?;
    slot(id).ok_or(Errno::EINVAL)?.replace(Some(node));
    Ok(())
}

/// Takes a domain away from those that can be found; a grace period later it is [`crate::death::bury`]'s.
pub fn unpublish(id: DomId) {
    slot(id).and_then(|slot| slot.replace(None));
}

/// Forgets all domains, for a new machine; they are the caller's to drop.
#[cfg(not(target_os = "none"))]
pub fn take_all() -> alloc::vec::Vec<Arc<Domain>> {
    let all: alloc::vec::Vec<_> = from(DomId(0)).collect();
    for domain in &all {
        slot(domain.id).and_then(|slot| slot.replace(None));
    }
    all
}

/// Returns the domain that receives what concerns the whole machine.
pub fn hardware() -> Option<Arc<Domain>> {
    find(DomId(0))
}

/// Calls `f` for every domain, in ascending order of their numbers.
pub fn for_each(mut f: impl FnMut(&Arc<Domain>)) {
    from(DomId(0)).for_each(|domain| f(&domain));
}
