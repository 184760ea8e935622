// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the machine's CPUs can do, and what domains on it can have of that.

use hypercalls::cpuid::{CpuidLeaf, MsrEntry};
use hypercalls::sysctl_args::*;
use hypercalls::{Errno, GuestPtr, Payload, Result};

use super::Answer;
use crate::emulate::cpuid::leaves::{self, MAX_LEAVES, MAX_MSRS};
use crate::emulate::cpuid::{Leaf, Policy};
use crate::vcpu::Vcpu;
use crate::{guest, host};

/// Tells the feature words; those that there is room for.
pub(super) fn featureset(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: CpuFeatureset = payload.get();
    let policy = match a.index {
        _ if a.features.is_null() => None,
        FeaturesetIndex::RAW | FeaturesetIndex::HOST => None,
        FeaturesetIndex::PV => Some(host::policy(false)),
        FeaturesetIndex::PV_MAX => Some(host::most_policy()),
        FeaturesetIndex::HVM | FeaturesetIndex::HVM_MAX => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    };
    let words = match &policy {
        None => leaves::featureset(host::leaf, 0),
        Some(policy) => leaves::featureset(|l, s| policy.fixed(l, s), policy.arch_caps().unwrap_or(0)),
    };
    let all = words.len() as u32;
    if !a.features.is_null() {
        let room = a.nr_features.min(all);
        for (index, word) in (0..room).zip(&words) {
            guest::write_at(a.features, u64::from(index), word)?;
        }
        a.nr_features = room;
    } else {
        a.nr_features = all;
    }
    payload.put(&a);
    Ok(if a.nr_features < all { Answer::Failed(Errno::ENOBUFS) } else { Answer::Back })
}

/// Tells the leaves and registers of the machine, or of what a domain gets.
pub(super) fn of_machine(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: SysctlCpuPolicy = payload.get();
    if a._rsvd != 0 {
        return Err(Errno::EINVAL);
    }
    let policy = match a.index {
        CpuPolicyIndex::RAW | CpuPolicyIndex::HOST => None,
        CpuPolicyIndex::PV_MAX => Some(host::most_policy()),
        CpuPolicyIndex::PV_DEFAULT => Some(host::policy(false)),
        CpuPolicyIndex::HVM_MAX | CpuPolicyIndex::HVM_DEFAULT => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    };
    a.nr_leaves = match &policy {
        None => put_leaves(host::leaf, a.leaves, a.nr_leaves)?,
        Some(policy) => put_leaves(|l, s| policy.fixed(l, s), a.leaves, a.nr_leaves)?,
    };
    a.nr_msrs = put_msrs(policy.as_ref().unwrap_or(&host::most_policy()), a.msrs, a.nr_msrs)?;
    payload.put(&a);
    Ok(Answer::Back)
}

/// Writes leaves and returns how many, or how many there can be where there is no place to write to.
///
/// # Errors
/// `ENOBUFS` when there is too little room.
pub(in crate::ops) fn put_leaves(at: impl Fn(u32, u32) -> Leaf, to: GuestPtr<CpuidLeaf>, room: u32) -> Result<u32> {
    if to.is_null() {
        return Ok(MAX_LEAVES);
    }
    let mut count = 0;
    leaves::list(at, |leaf| {
        if count == room {
            return Err(Errno::ENOBUFS);
        }
        guest::write_at(to, u64::from(count), &leaf)?;
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// The same for registers.
///
/// # Errors
/// `ENOBUFS` when there is too little room.
pub(in crate::ops) fn put_msrs(policy: &Policy, to: GuestPtr<MsrEntry>, room: u32) -> Result<u32> {
    if to.is_null() {
        return Ok(MAX_MSRS);
    }
    if room < MAX_MSRS {
        return Err(Errno::ENOBUFS);
    }
    for (index, entry) in policy.msrs().iter().enumerate() {
        guest::write_at(to, index as u64, entry)?;
    }
    Ok(MAX_MSRS)
}
