// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating a domain: empty, with all its vCPUs down.
//!
//! What must hold: a domain either comes to be whole, or nothing of it stays. Memory that grows with what was asked for is
//! allocated so that it can be refused; for the rest there must be room before anything is begun.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use arch::context::Context;
use arch::fpu::FpuState;
use arch::window::Window;
use hypercalls::domctl_args::ArchDomainConfig;
use hypercalls::shared_info::{XEN_LEGACY_MAX_VCPUS, shared_offset};
use hypercalls::{DomId, Errno, Maddr, Result, VcpuId, VcpuInfo};
use mm::{Account, Lock, PageTables, Share};

use crate::cpu_policy::CpuPolicy;
use crate::current::DomainRef;
use crate::death::Stage;
use crate::domain::{self, Domain};
use crate::events::Events;
use crate::grace::Published;
use crate::grants::{Grants, Limits};
use crate::io_rights::IoRights;
use crate::pirq::Pirqs;
use crate::port_io::Latches;
use crate::schedule::{self, Numbers};
use crate::tsc::Tsc;
use crate::vcpu::{Trap, Vcpu};
use crate::{grace, host, l1tf, rank, shared};

/// What a domain is created with.
#[derive(Debug)]
pub struct Config {
    /// Its number.
    pub id: DomId,
    /// True for dom0.
    pub privileged: bool,
    /// How many vCPUs it has.
    pub vcpus: u32,
    /// How many frames it may have.
    pub max_pages: u64,
    /// The highest event-channel port that it may have.
    pub max_port: u32,
    /// Ports and machine frames that it may use.
    pub io: IoRights,
    /// How far its grants may grow.
    pub grants: Limits,
    /// What only tools care for.
    pub tools: Tools,
}

/// What tools give a domain that they create.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tools {
    /// Which CPUs it shares with whom.
    pub pool: sched::PoolId,
    /// It begins with one pause, which they take back when it is built.
    pub paused: bool,
    /// The name by which they know it for ever.
    pub handle: [u8; 16],
    /// It serves the store.
    pub serves_store: bool,
    /// What they want of the machine that it sees.
    pub arch: ArchDomainConfig,
}

/// Small objects that a domain consists of, in bytes: more than it takes.
const SMALL: usize = 128 << 10;
/// The same for each of its vCPUs.
const SMALL_PER_VCPU: usize = 512;

/// Gives one zeroed frame for a hypervisor page table.
pub fn table_frame() -> Option<hypercalls::Mfn> {
    let mfn = mm::buddy::alloc(0, mm::buddy::ANYWHERE)?;
    mm::buddy::scrub(mfn, 0);
    Some(mfn)
}

fn context() -> Result<Context> {
    Ok(Context {
        regs: arch::Regs::default(),
        fpu: FpuState::new().ok_or(Errno::ENOMEM)?,
        window: Arc::new(Window::new(&mut table_frame).map_err(|_| Errno::ENOMEM)?),
        fs_base: 0,
        gs_kernel: 0,
        gs_user: 0,
        selectors: [0; 4],
        kernel_mode: true,
        cr3_kernel: Maddr(0),
        cr3_user: Maddr(0),
        cr4: 0,
        ts: false,
        debug: [0; 8],
        tsc_aux: 0,
        ldt_entries: 0,
    })
}

fn traps() -> Result<Box<[Trap; 256]>> {
    let mut traps = Vec::new();
    traps.try_reserve_exact(256).map_err(|_| Errno::ENOMEM)?;
    traps.resize_with(256, Trap::default);
    traps.into_boxed_slice().try_into().map_err(|_| Errno::ENOMEM)
}

/// An account that is closed again unless the domain comes to be. To be dropped after all that belongs to the account.
struct Opening(Option<Arc<Account>>);

impl Opening {
    fn open(config: &Config) -> Result<(Self, Arc<Account>)> {
        let account = Account::open_with(config.id, config.max_pages, l1tf::rule_for(config.privileged))?;
        Ok((Self(Some(account.clone())), account))
    }
    fn succeeded(mut self) {
        self.0 = None;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(account) = &self.0 {
            let closed = account.close();
            debug_assert_eq!(closed, Ok(()), "a domain that was never made owns nothing");
        }
    }
}

/// What vCPUs are made of, as far as making it can fail.
struct Parts {
    numbers: Numbers,
    each: Vec<(Context, Box<[Trap; 256]>)>,
    /// Room for them.
    vcpus: Vec<Vcpu>,
}

impl Parts {
    fn new(count: usize) -> Result<Self> {
        let (mut each, mut vcpus) = (Vec::new(), Vec::new());
        each.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        vcpus.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        for _ in 0..count {
            each.push((context()?, traps()?));
        }
        Ok(Self { numbers: Numbers::take(count)?, each, vcpus })
    }

    fn make(&mut self, id: DomId, domain: DomainRef, shared_info: shared::SharedFrame) -> Box<[Vcpu]> {
        for (index, (unit, (context, traps))) in (0u32..).zip(self.numbers.iter().zip(self.each.drain(..))) {
            let info = if (index as usize) < XEN_LEGACY_MAX_VCPUS {
                shared_info.at(shared_offset::VCPU_INFO + index as usize * size_of::<VcpuInfo>())
            } else {
                host::dummy_info()
            };
            self.vcpus.push(Vcpu::new(id, VcpuId(index), unit, domain, info, context, traps));
        }
        core::mem::take(&mut self.vcpus).into_boxed_slice()
    }
}

/// Makes the page that a domain shares with the hypervisor.
fn share_info(id: DomId) -> Result<mm::SharedFrame> {
    let frame = mm::SharedFrame::alloc(id, Share::ReadWrite)?;
    for vcpu in 0..XEN_LEGACY_MAX_VCPUS {
        shared::kept(&frame).u8(shared_offset::VCPU_INFO + vcpu * size_of::<VcpuInfo>() + 1).store(1, Relaxed);
    }
    Ok(frame)
}

/// Creates a domain and makes it known. Its vCPUs are down.
///
/// # Errors
/// `ENOMEM`, or `EEXIST` when the number is taken; nothing has changed then.
pub fn domain(config: Config) -> Result<Arc<Domain>> {
    if !mm::heap::has_spare(SMALL + config.vcpus as usize * SMALL_PER_VCPU) {
        return Err(Errno::ENOMEM);
    }
    let (opening, account) = Opening::open(&config)?;
    let shared_frame = grace::Node::new(share_info(config.id)?)?;
    let shared_info = shared::kept(shared_frame.value());
    let events = Events::new(config.max_port)?;
    let mut parts = Parts::new(config.vcpus as usize)?;
    let pirqs = Pirqs::new()?;
    if config.privileged {
        pirqs.permit_lines();
    }
    let grants = Arc::new(Grants::new(config.id, config.grants)?);
    let pauses = u32::from(config.tools.paused);
    let domain = Arc::new_cyclic(|weak| Domain {
        id: config.id,
        privileged: config.privileged,
        shared_slot: shared::SharedSlot::new(shared_info),
        shared_frame: Published::holding(shared_frame),
        vcpus: parts.make(config.id, DomainRef::new(weak.as_ptr()), shared_info),
        account,
        memory_map: Lock::new(rank::MEMORY_MAP, None),
        page_tables: Lock::new(rank::PAGE_TABLES, PageTables::new()),
        initialising: Lock::new(rank::INITIALISE, ()),
        events,
        pirqs,
        pollers: AtomicU64::new(0),
        assist: AtomicU64::new(0),
        io: config.io,
        cpuid: CpuPolicy::new(host::policy(config.privileged)),
        tsc: Tsc::native(),
        latches: Lock::new(rank::LATCHES, Latches::default()),
        time_offset: AtomicU64::new(0),
        pause_count: AtomicU32::new(pauses),
        controller_pauses: AtomicU32::new(pauses),
        is_shut_down: AtomicBool::new(false),
        shutdown_code: AtomicU32::new(domain::NO_REASON),
        death: Lock::new(rank::DEATH, Stage::Alive),
        dying: AtomicBool::new(false),
        dead: AtomicBool::new(false),
        grants,
        console: Published::new(),
        watchdogs: Lock::new(rank::WATCHDOGS, [None; 2]),
        suspend_port: AtomicU32::new(0),
        handle: Lock::new(rank::HANDLE, config.tools.handle),
        serves_store: config.tools.serves_store,
        arch: config.tools.arch,
    });
    domain::publish(domain.clone())?;
    schedule::adopt(&domain, config.tools.pool);
    opening.succeeded();
    Ok(domain)
}
