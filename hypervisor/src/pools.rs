// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pools of CPUs as tools see and change them.

use arch::CpuMask;
use hypercalls::domctl_args::SchedulerId;
use hypercalls::{DomId, Errno, Result};
use sched::{Cpu, GroupId, Kind, Params, PoolId, Refusal};

use crate::cpus;
use crate::domain::{self, Domain};
use crate::placement::mask;
use crate::schedule::{self, with_scheduler};

/// A pool.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Its number.
    pub id: PoolId,
    /// What its scheduler calls itself.
    pub scheduler: SchedulerId,
    /// How many domains it has.
    pub domains: u32,
    /// Its CPUs.
    pub cpus: CpuMask,
}

/// What a way of scheduling is called among tools.
const fn name(kind: Kind) -> SchedulerId {
    match kind {
        Kind::Fair => SchedulerId::CREDIT2,
        Kind::Null => SchedulerId::NULL,
    }
}

/// Returns what the scheduler of a pool calls itself to the tools.
pub fn scheduler(pool: PoolId) -> Option<SchedulerId> {
    with_scheduler(|s| s.kind(pool)).map(name)
}

/// Returns the pool that a domain belongs to.
pub fn of(domain: &Domain) -> PoolId {
    with_scheduler(|s| s.pool_of(GroupId(domain.id.0))).unwrap_or_default()
}

/// Returns a domain's CPUs.
pub fn cpus_of(domain: &Domain) -> CpuMask {
    let pool = of(domain);
    mask(&with_scheduler(|s| s.pool_cpus(pool)).unwrap_or_default())
}

/// Returns the numbers of all pools in ascending order.
pub fn all() -> alloc::vec::Vec<PoolId> {
    with_scheduler(|s| s.pool_ids())
}

/// Describes the pool of that number, or the next one.
pub fn info_from(id: PoolId) -> Option<Info> {
    with_scheduler(|s| {
        let id = s.pool_ids().into_iter().find(|other| *other >= id)?;
        let domains = s.pool_groups(id).len() as u32;
        Some(Info { id, scheduler: name(s.kind(id)?), domains, cpus: mask(&s.pool_cpus(id)?) })
    })
}

/// Returns the CPUs that are in no pool.
pub fn free() -> CpuMask {
    mask(&with_scheduler(|s| s.free_cpus()))
}

/// Makes a pool without CPUs; without a number it gets the next one.
///
/// # Errors
/// `ENOENT` for a scheduler that there is not, `EEXIST`, `ENOMEM`.
pub fn create(id: Option<PoolId>, scheduler: SchedulerId) -> Result<PoolId> {
    let kind = [Kind::Fair, Kind::Null].into_iter().find(|kind| name(*kind) == scheduler).ok_or(Errno::ENOENT)?;
    with_scheduler(|s| s.create_pool(id, kind, Params::default())).map_err(|refusal| match refusal {
        Refusal::Exists => Errno::EEXIST,
        _ => Errno::ENOMEM,
    })
}

/// Ends a pool.
///
/// # Errors
/// `ENOENT`; `EBUSY` when it has CPUs or domains, and for the default one.
pub fn destroy(id: PoolId) -> Result<()> {
    with_scheduler(|s| s.destroy_pool(id)).map_err(errno)
}

/// Gives a free CPU, or any, to a pool.
///
/// # Errors
/// `EINVAL`, `ENODEV` for a CPU that there is not or that is not free, `ENOENT` for a pool that there is not.
pub fn add_cpu(id: PoolId, cpu: Option<u32>) -> Result<()> {
    let cpu = match cpu {
        Some(number) => cpu_of(number)?,
        None => with_scheduler(|s| s.free_cpus()).first_from(Cpu(0)).ok_or(Errno::ENODEV)?,
    };
    with_scheduler(|s| s.add_cpu(arch::time::now(), id, cpu)).map_err(errno)?;
    schedule::poke_all(sched::CpuSet::of(cpu));
    Ok(())
}

/// Takes a CPU, or any, from a pool. Domains that are being destroyed do not keep the last one: they go to the default
/// pool.
///
/// # Errors
/// `ENOENT` for a pool that there is not, `EINVAL`, `ENODEV` for a CPU that there is not or that is not the pool's, `EBUSY`
/// for the last one of a pool with domains, `EADDRINUSE` when a vCPU must stay on it for now.
pub fn remove_cpu(id: PoolId, cpu: Option<u32>) -> Result<()> {
    let cpus = with_scheduler(|s| s.pool_cpus(id)).ok_or(Errno::ENOENT)?;
    let cpu = match cpu {
        Some(number) => cpu_of(number)?,
        None => cpus.iter().last().ok_or(Errno::EINVAL)?,
    };
    let pinned = |vcpu: &crate::vcpu::Vcpu| {
        vcpu.pinned.lock().is_some()
            && with_scheduler(|s| s.affinity(sched::UnitId(vcpu.unit)))
                .is_some_and(|a| a.hard == sched::CpuSet::of(cpu))
    };
    if domain::from(DomId(0)).any(|domain| domain.vcpus.iter().any(pinned)) {
        return Err(Errno::EADDRINUSE);
    }
    if id != PoolId::DEFAULT && cpus == sched::CpuSet::of(cpu) {
        for group in with_scheduler(|s| s.pool_groups(id)) {
            let dying = domain::with(DomId(group.0), |d| d.dying.load(core::sync::atomic::Ordering::SeqCst));
            if dying == Some(false) {
                return Err(Errno::EBUSY);
            }
            move_group(group, PoolId::DEFAULT)?;
        }
    }
    let poke = with_scheduler(|s| s.remove_cpu(arch::time::now(), id, cpu)).map_err(errno)?;
    schedule::poke_all(poke);
    Ok(())
}

/// Puts a domain into another pool. Its vCPUs may then run on all of that one's CPUs.
///
/// # Errors
/// `ENOENT` for a pool that there is not or that has no CPU; `EBUSY` while a vCPU must stay where it is.
pub fn move_domain(domain: &Domain, to: PoolId) -> Result<()> {
    if of(domain) != to && domain.vcpus.iter().any(|vcpu| vcpu.pinned.lock().is_some()) {
        return Err(Errno::EBUSY);
    }
    move_group(GroupId(domain.id.0), to)
}

fn move_group(group: GroupId, to: PoolId) -> Result<()> {
    let poke = with_scheduler(|s| s.move_group(arch::time::now(), group, to)).map_err(errno)?;
    schedule::poke_all(poke);
    Ok(())
}

/// Returns how long a vCPU of a pool that was given a CPU keeps it against any other, in microseconds.
pub fn ratelimit_us(pool: PoolId) -> u32 {
    let ns = with_scheduler(|s| s.params(pool)).unwrap_or_default().ratelimit_ns;
    u32::try_from(ns / 1000).unwrap_or(u32::MAX)
}

/// Sets that time.
pub fn set_ratelimit_us(pool: PoolId, us: u32) {
    with_scheduler(|s| {
        let params = Params { ratelimit_ns: u64::from(us) * 1000, ..s.params(pool).unwrap_or_default() };
        s.set_params(pool, params);
    });
}

fn cpu_of(number: u32) -> Result<Cpu> {
    cpus::online(number).map(|cpu| Cpu(cpu.0)).ok_or(Errno::EINVAL)
}

const fn errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::Unknown => Errno::ENOENT,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotThere => Errno::ENODEV,
        Refusal::Busy => Errno::EBUSY,
    }
}
