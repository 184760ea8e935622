// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tools see and set of scheduling: weights, caps and affinities, in their terms.

use arch::{CpuId, CpuMask, cpu};
use hypercalls::{Errno, Result};
use sched::{Affinity, Cpu, CpuSet, GroupId, UnitId};

use crate::domain::Domain;
use crate::schedule;
use crate::vcpu::Vcpu;

/// A domain's part of the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// In proportion to other domains'.
    pub weight: u16,
    /// Most that it gets, in percent of one CPU; 0 for no limit.
    pub cap_percent: u16,
}

/// Returns a domain's part of the CPUs.
pub fn weight(domain: &Domain) -> Weight {
    let (weight, cap) = schedule::with_scheduler(|s| s.weight_cap(GroupId(domain.id.0))).unwrap_or_default();
    Weight { weight: u16::try_from(weight).unwrap_or(u16::MAX), cap_percent: u16::try_from(cap).unwrap_or(u16::MAX) }
}

/// Sets a domain's part of the CPUs.
pub fn set_weight(domain: &Domain, to: Weight) {
    let now = arch::time::now();
    let poke = schedule::with_scheduler(|s| {
        s.set_weight_cap(now, GroupId(domain.id.0), u32::from(to.weight), u32::from(to.cap_percent))
    });
    schedule::poke_all(poke);
}

/// Where a vCPU may run, and where it would like to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// It runs nowhere else.
    pub hard: CpuMask,
    /// Of these it would like one of these.
    pub soft: CpuMask,
}

/// Returns where a vCPU may run, and where it would like to.
pub fn places(vcpu: &Vcpu) -> Places {
    let affinity = schedule::with_scheduler(|s| s.affinity(UnitId(vcpu.unit))).unwrap_or(Affinity::ANY);
    Places { hard: mask(&affinity.hard), soft: mask(&affinity.soft) }
}

/// Sets where a vCPU may run, and where it would like to.
pub fn set_places(vcpu: &Vcpu, to: &Places) {
    let now = arch::time::now();
    let affinity = Affinity { hard: set(&to.hard), soft: set(&to.soft) };
    let poke = schedule::with_scheduler(|s| s.set_affinity(now, UnitId(vcpu.unit), affinity));
    schedule::poke_all(poke);
}

/// Pins a vCPU to one CPU for a while, whatever else is set; `None` ends that.
///
/// # Errors
/// `EINVAL` for a CPU that does not run, or no while to end; `EBUSY` when it is pinned already.
pub fn pin(vcpu: &Vcpu, to: Option<CpuId>) -> Result<()> {
    let mut pinned = vcpu.pinned.lock();
    let Some(to) = to else {
        let places = pinned.take().ok_or(Errno::EINVAL)?;
        drop(pinned);
        set_places(vcpu, &places);
        return Ok(());
    };
    if pinned.is_some() {
        return Err(Errno::EBUSY);
    }
    if !cpu::is_online(to) {
        return Err(Errno::EINVAL);
    }
    let now = places(vcpu);
    *pinned = Some(now);
    drop(pinned);
    let mut hard = CpuMask::EMPTY;
    hard.insert(to);
    set_places(vcpu, &Places { hard, ..now });
    Ok(())
}

pub(crate) fn mask(of: &CpuSet) -> CpuMask {
    let mut mask = CpuMask::EMPTY;
    of.iter().for_each(|c| mask.insert(CpuId(c.0)));
    mask
}

fn set(of: &CpuMask) -> CpuSet {
    of.iter().map(|c| Cpu(c.0)).collect()
}
