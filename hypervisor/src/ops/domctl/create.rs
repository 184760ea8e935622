// SPDX-License-Identifier: MIT OR Apache-2.0
//! Domains that tools create.

use core::sync::atomic::{AtomicU16, Ordering::SeqCst};

use hypercalls::domctl::Domctl;
use hypercalls::domctl_args::*;
use hypercalls::{DomId, Errno, Result};

use crate::create::{self, Config, Tools};
use crate::domain::Domain;
use crate::grants::Limits;
use crate::io_rights::IoRights;
use crate::ops::sysctl::Answer;
use crate::pools;
use crate::vcpu::Vcpu;

/// vCPUs that one domain may have.
const MOST_VCPUS: u32 = 8192;
/// Emulation of the interval timer, which tools of PV domains may ask for.
const EMULATE_PIT: u32 = 1 << 8;
/// Flags that a domain of this kind can have.
const FLAGS: u32 = XEN_DOMCTL_CDF_OOS_OFF | XEN_DOMCTL_CDF_XS_DOMAIN;

/// The number that was given out last by itself.
static LAST: AtomicU16 = AtomicU16::new(0);

/// Creates an empty domain with one pause. A number that no domain can have asks for any.
pub(super) fn domain(vcpu: &Vcpu, op: &mut Domctl) -> Result<Answer> {
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM);
    }
    let wanted = op.u.get::<CreateDomain>();
    let domain = if (1..DomId::FIRST_RESERVED.0).contains(&op.domain.0) {
        if crate::domain::find(op.domain).is_some() {
            return Err(Errno::EEXIST);
        }
        create::domain(config(op.domain, &wanted)?)?
    } else {
        next_free(&wanted)?
    };
    log::debug!("d{} is created, with {} vCPUs", domain.id.0, domain.vcpus.len());
    op.domain = domain.id;
    Ok(Answer::Back)
}

/// Creates a domain with the next number that is free, in a round: tools take one that comes back soon for the old domain.
fn next_free(wanted: &CreateDomain) -> Result<alloc::sync::Arc<Domain>> {
    for _ in 1..DomId::FIRST_RESERVED.0 {
        let after = |last: u16| if last + 1 >= DomId::FIRST_RESERVED.0 { 1 } else { last + 1 };
        let last = LAST.fetch_update(SeqCst, SeqCst, |last| Some(after(last))).unwrap_or_default();
        let id = DomId(after(last));
        if crate::domain::find(id).is_some() {
            continue;
        }
        match create::domain(config(id, wanted)?) {
            Err(Errno::EEXIST) => {}
            other => return other,
        }
    }
    Err(Errno::ENOMEM)
}

/// Checks what is wanted.
fn config(id: DomId, wanted: &CreateDomain) -> Result<Config> {
    let needs_iommu = wanted.flags & XEN_DOMCTL_CDF_IOMMU != 0 || wanted.iommu_opts != 0;
    if wanted.flags & !FLAGS != 0 || needs_iommu || wanted.vmtrace_size != 0 {
        return Err(Errno::EINVAL);
    }
    if !(1..=MOST_VCPUS).contains(&wanted.max_vcpus) || wanted.arch.misc_flags & !XEN_X86_MSR_RELAXED != 0 {
        return Err(Errno::EINVAL);
    }
    if wanted.arch.emulation_flags & !XEN_X86_EMU_ALL != 0 {
        return Err(Errno::EINVAL);
    }
    if !matches!(wanted.arch.emulation_flags, 0 | EMULATE_PIT) {
        return Err(Errno::EOPNOTSUPP);
    }
    let pool = sched::PoolId(wanted.cpupool_id);
    if pools::scheduler(pool).is_none() {
        return Err(Errno::ESRCH);
    }
    Ok(Config {
        id,
        privileged: false,
        vcpus: wanted.max_vcpus,
        max_pages: 0,
        max_port: wanted.max_evtchn_port,
        io: IoRights::none(),
        grants: limits(wanted)?,
        tools: Tools {
            pool,
            paused: true,
            handle: wanted.handle,
            serves_store: wanted.flags & XEN_DOMCTL_CDF_XS_DOMAIN != 0,
            arch: wanted.arch,
        },
    })
}

/// Checks how far grants may grow; a negative number asks for what is usual.
fn limits(wanted: &CreateDomain) -> Result<Limits> {
    let most = Limits::most();
    let or_usual = |count: i32, usual: u32| u32::try_from(count).unwrap_or(usual);
    let limits = Limits {
        frames: or_usual(wanted.max_grant_frames, most.frames),
        maptrack_frames: or_usual(wanted.max_maptrack_frames, most.maptrack_frames),
        version: wanted.grant_opts,
    };
    let ok = (1..=most.frames).contains(&limits.frames)
        && limits.maptrack_frames <= most.maptrack_frames
        && (1..=most.version).contains(&limits.version);
    if ok { Ok(limits) } else { Err(Errno::EINVAL) }
}
