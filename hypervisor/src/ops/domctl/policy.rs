// SPDX-License-Identifier: MIT OR Apache-2.0
//! What CPUID tells a domain, as tools read and set it.

use alloc::vec::Vec;

use hypercalls::domctl_args::DomctlCpuPolicy;
use hypercalls::{Errno, GuestPtr, Payload, Result};
use zerocopy::{FromBytes, IntoBytes};

use crate::domain::Domain;
use crate::emulate::cpuid::leaves::{Accepted, MAX_LEAVES, MAX_MSRS, Refusal};
use crate::ops::sysctl::{Answer, policy};
use crate::vcpu::Vcpu;
use crate::{guest, host};

/// Tells the leaves and registers of a domain.
pub(super) fn get(_: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    let mut a: DomctlCpuPolicy = payload.get();
    let own = domain.cpuid.now();
    a.nr_leaves = policy::put_leaves(|leaf, subleaf| own.fixed(leaf, subleaf), a.leaves, a.nr_leaves)?;
    a.nr_msrs = policy::put_msrs(&own, a.msrs, a.nr_msrs)?;
    payload.put(&a);
    Ok(Answer::Back)
}

/// Puts leaves and registers into the place of a domain's own. The domain has not run yet.
pub(super) fn set(vcpu: &Vcpu, domain: &Domain, payload: &mut Payload) -> Result<Answer> {
    if vcpu.domid == domain.id {
        return Err(Errno::EINVAL);
    }
    let mut a: DomctlCpuPolicy = payload.get();
    let Err(Refusal(error, culprit)) = change(domain, &a) else { return Ok(Answer::Nothing) };
    if error == Errno::EEXIST {
        return Err(error);
    }
    (a.err_leaf, a.err_subleaf, a.err_msr) = (culprit.leaf, culprit.subleaf, culprit.msr);
    payload.put(&a);
    Ok(Answer::Failed(error))
}

fn change(domain: &Domain, a: &DomctlCpuPolicy) -> Accepted<()> {
    if domain.cpuid.is_settled() {
        return Err(Errno::EEXIST.into());
    }
    let leaves = read_all(a.leaves, a.nr_leaves, MAX_LEAVES)?;
    let msrs = read_all(a.msrs, a.nr_msrs, MAX_MSRS)?;
    let (most, config) = (host::most_policy(), host::cpuid_config(false));
    domain.cpuid.change(|own| own.with(&most, &config, &leaves, &msrs))
}

fn read_all<T: FromBytes + IntoBytes>(from: GuestPtr<T>, count: u32, most: u32) -> Result<Vec<T>> {
    if count > most {
        return Err(Errno::E2BIG);
    }
    let mut all = Vec::new();
    all.try_reserve_exact(count as usize).map_err(|_| Errno::ENOMEM)?;
    for index in 0..u64::from(count) {
        all.push(guest::read_at(from, index)?);
    }
    Ok(all)
}
