// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the words that the entry code keeps to the vCPU that runs, and from a vCPU to its domain.
//!
//! A vCPU is a part of its domain's allocation ([`Domain::vcpus`]), so whoever can name a vCPU holds the domain too;
//! a CPU that has loaded a vCPU keeps the domain alive through the scheduler's table ([`crate::schedule`]).
#![expect(unsafe_code, reason = "follows the two back pointers")]

use crate::domain::Domain;
use crate::vcpu::Vcpu;

/// A vCPU's way back to its domain.
#[derive(Clone, Copy, Debug)]
pub struct DomainRef(*const Domain);

// SAFETY: the pointer is only followed by `get`, which borrows no longer than the vCPU; Domain is Sync.
unsafe impl Send for DomainRef {}
// SAFETY: as above.
unsafe impl Sync for DomainRef {}

impl DomainRef {
    /// Makes the back pointer for vCPUs that will be put into `domain`, which must not move afterwards.
    pub const fn new(domain: *const Domain) -> Self {
        Self(domain)
    }

    /// Returns the domain that holds `vcpu`.
    #[inline(always)]
    pub(crate) fn get<'a>(&self, _holder: &'a Vcpu) -> &'a Domain {
        // SAFETY: domains are allocated in an Arc and never move; the vCPU lies in the domain's own table, so a borrow
        // of the vCPU keeps the domain.
        unsafe { &*self.0 }
    }
}

/// Returns the vCPU that this CPU has loaded.
#[inline(always)]
pub fn vcpu<'a>() -> Option<&'a Vcpu> {
    let address = arch::context::current();
    // SAFETY: the word is 0 or was set by `schedule` to a vCPU whose domain stays in the scheduler's table until this
    // CPU has unloaded it; callers run on this CPU with interrupts off and do not keep the reference across that.
    unsafe { (address as *const Vcpu).as_ref() }
}
