// SPDX-License-Identifier: MIT OR Apache-2.0
//! Creating a domain: empty, with all its vCPUs down.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use arch::context::Context;
use arch::fpu::FpuState;
use arch::window::Window;
use hypercalls::shared_info::{XEN_LEGACY_MAX_VCPUS, shared_offset};
use hypercalls::{DomId, Errno, Maddr, Result, VcpuId, VcpuInfo};
use mm::{Account, Lock, PageTables, Share};

use crate::current::DomainRef;
use crate::domain::{self, Domain};
use crate::events::Events;
use crate::grants::{Grants, Limits};
use crate::io_rights::IoRights;
use crate::pirq::Pirqs;
use crate::port_io::Latches;
use crate::vcpu::Vcpu;
use crate::{host, l1tf, rank, schedule, shared};

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
}

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

/// Creates a domain and makes it known. Its vCPUs are down.
///
/// # Errors
/// `ENOMEM`, or `EEXIST` when the number is taken.
pub fn domain(config: Config) -> Result<Arc<Domain>> {
    let account = Account::open_with(config.id, config.max_pages, l1tf::rule_for(config.privileged))?;
    let shared_frame = mm::SharedFrame::alloc(config.id, Share::ReadWrite)?;
    let shared_info = shared::kept(&shared_frame);
    for vcpu in 0..XEN_LEGACY_MAX_VCPUS {
        shared_info.u8(shared_offset::VCPU_INFO + vcpu * size_of::<VcpuInfo>() + 1).store(1, Relaxed);
    }
    let events = Events::new(config.max_port)?;
    let mut contexts = (0..config.vcpus).map(|_| context()).collect::<Result<Vec<_>>>()?;
    let pirqs = Pirqs::new()?;
    if config.privileged {
        pirqs.permit_lines();
    }
    let grants = Arc::new(Grants::new(config.id, config.grants)?);
    let first_unit = schedule::next_unit();
    let domain = Arc::new_cyclic(|weak| {
        let back = DomainRef::new(weak.as_ptr());
        let vcpus = (0..config.vcpus).zip(contexts.drain(..)).map(|(id, context)| {
            let info = if (id as usize) < XEN_LEGACY_MAX_VCPUS {
                shared_info.at(shared_offset::VCPU_INFO + id as usize * size_of::<VcpuInfo>())
            } else {
                host::dummy_info()
            };
            Vcpu::new(config.id, VcpuId(id), first_unit + id, back, info, context)
        });
        Domain {
            id: config.id,
            privileged: config.privileged,
            shared_info,
            shared_frame,
            vcpus: vcpus.collect(),
            account,
            page_tables: Lock::new(rank::PAGE_TABLES, PageTables::new()),
            events,
            pirqs,
            pollers: AtomicU64::new(0),
            assist: AtomicU64::new(0),
            io: config.io,
            cpuid: host::policy(config.privileged),
            latches: Lock::new(rank::LATCHES, Latches::default()),
            time_offset: AtomicU64::new(0),
            pause_count: AtomicU32::new(0),
            controller_pauses: AtomicU32::new(0),
            is_shut_down: AtomicBool::new(false),
            shutdown_code: AtomicU32::new(0),
            dying: AtomicBool::new(false),
            logged_unknown: AtomicU64::new(0),
            grants,
        }
    });
    domain::publish(domain.clone())?;
    schedule::adopt(&domain);
    Ok(domain)
}
