// SPDX-License-Identifier: MIT OR Apache-2.0
//! What CPUID tells a domain: tools may change it until the domain runs for the first time, and nobody afterwards.
//!
//! Invariant: what a vCPU has once seen stays.

use hypercalls::Errno;
use mm::Lock;
use spin::once::Once;

use crate::emulate::cpuid::Policy;
use crate::emulate::cpuid::leaves::Accepted;
use crate::rank;

/// A domain's policy.
#[derive(Debug)]
pub struct CpuPolicy {
    draft: Lock<Policy>,
    settled: Once<Policy, arch::sync::Relax>,
}

impl CpuPolicy {
    /// Begins with this one.
    pub fn new(policy: Policy) -> Self {
        Self { draft: Lock::new(rank::CPU_POLICY, policy), settled: Once::new() }
    }

    /// Returns the policy, which does not change any more from now on.
    #[inline]
    pub fn get(&self) -> &Policy {
        self.settled.call_once(|| self.draft.lock().clone())
    }

    /// Returns what the policy is now.
    pub fn now(&self) -> Policy {
        self.settled.get().cloned().unwrap_or_else(|| self.draft.lock().clone())
    }

    /// True when it does not change any more.
    pub fn is_settled(&self) -> bool {
        self.settled.is_completed()
    }

    /// Puts into the place of the policy what `f` makes of it.
    ///
    /// # Errors
    /// `EEXIST` when the domain has run, and those of `f`.
    pub fn change(&self, f: impl FnOnce(&Policy) -> Accepted<Policy>) -> Accepted<()> {
        let mut draft = self.draft.lock();
        if self.is_settled() {
            return Err(Errno::EEXIST.into());
        }
        *draft = f(&draft)?;
        Ok(())
    }
}
