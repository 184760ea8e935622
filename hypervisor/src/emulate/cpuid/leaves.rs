// SPDX-License-Identifier: MIT OR Apache-2.0
//! Policies as tools see and set them: as lists of leaves, and as words of features.
//!
//! What tools set is never more than a limit, the most that a domain can have on this machine: a leaf beyond it is an
//! error, a feature beyond it is not there, and the layout of saved state is always the machine's.

use hypercalls::cpuid::{CpuidLeaf, MsrEntry, XEN_CPUID_NO_SUBLEAF};
use hypercalls::{Errno, Result};

use super::features::{Leaf1Ecx, Leaf7Edx};
use super::{A, B, BASIC, C, CACHE, Config, D, Dynamic, EMPTY, EXTENDED, Leaf, Policy, STRUCTURED};

/// Subleaves of leaf 0xb that a list can hold.
const TOPOLOGY: usize = 2;
/// Subleaves of leaf 0xd that a list can hold.
const XSTATE: usize = 63;
/// The most leaves that a policy takes: three of the basic ones and leaf 0xd have subleaves, and two leaves name no more
/// than how many follow them.
pub const MAX_LEAVES: u32 = (BASIC - 4 + CACHE + STRUCTURED + TOPOLOGY + XSTATE + EXTENDED + 2) as u32;
/// The most registers that a policy takes.
pub const MAX_MSRS: u32 = 2;

const EXTENDED_BASE: u32 = 0x8000_0000;
const HYPERVISOR_BASE: u32 = 0x4000_0000;
const OTHER_HYPERVISOR_BASE: u32 = 0x4000_0100;

/// MSR_INTEL_PLATFORM_INFO: whether CPUID can be made to fault for user mode. It cannot.
const PLATFORM_INFO: u32 = 0xce;
const ARCH_CAPABILITIES: u32 = 0x10a;

/// What was wrong with a policy, where it was a leaf or a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// The leaf.
    pub leaf: u32,
    /// Its subleaf.
    pub subleaf: u32,
    /// The register.
    pub msr: u32,
}

impl Culprit {
    /// Neither.
    pub const NONE: Self = Self { leaf: u32::MAX, subleaf: u32::MAX, msr: u32::MAX };

    /// A leaf.
    pub const fn leaf(leaf: u32, subleaf: u32) -> Self {
        Self { leaf, subleaf, ..Self::NONE }
    }

    const fn msr(msr: u32) -> Self {
        Self { msr, ..Self::NONE }
    }
}

/// Why a policy is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub Errno, pub Culprit);

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        Self(error, Culprit::NONE)
    }
}

/// A policy's own result.
pub type Accepted<T> = core::result::Result<T, Refusal>;

/// How many subleaves of a leaf a list can hold; `None` where it has none.
fn subleaves(leaf: u32) -> Option<usize> {
    match leaf {
        4 => Some(CACHE),
        7 => Some(STRUCTURED),
        0xb => Some(TOPOLOGY),
        0xd => Some(XSTATE),
        _ => None,
    }
}

/// Checks that a list can hold this leaf.
///
/// # Errors
/// `ERANGE`.
pub fn check_place(leaf: u32, subleaf: u32) -> Result<()> {
    const LAST_BASIC: u32 = BASIC as u32 - 1;
    const LAST_EXTENDED: u32 = EXTENDED_BASE + EXTENDED as u32 - 1;
    let known = matches!(
        leaf,
        0..=LAST_BASIC | HYPERVISOR_BASE | OTHER_HYPERVISOR_BASE | EXTENDED_BASE..=LAST_EXTENDED
    );
    let sub_ok = subleaves(leaf).map_or(subleaf == XEN_CPUID_NO_SUBLEAF, |count| (subleaf as usize) < count);
    if known && sub_ok { Ok(()) } else { Err(Errno::ERANGE) }
}

/// Calls `put` with each leaf of a machine or a policy in the order that tools expect.
///
/// # Errors
/// Those of `put`.
pub fn list(at: impl Fn(u32, u32) -> Leaf, mut put: impl FnMut(CpuidLeaf) -> Result<()>) -> Result<()> {
    let mut entry = |leaf, subleaf, [a, b, c, d]: Leaf| put(CpuidLeaf { leaf, subleaf, a, b, c, d });
    for leaf in 0..=at(0, 0)[A].min(BASIC as u32 - 1) {
        match leaf {
            4 | 0xb => {
                for subleaf in 0..subleaves(leaf).unwrap_or(0) as u32 {
                    let regs = at(leaf, subleaf);
                    entry(leaf, subleaf, regs)?;
                    let kind = if leaf == 4 { regs[A] & 0x1f } else { regs[C] >> 8 & 0xff };
                    if kind == 0 {
                        break;
                    }
                }
            }
            7 => (0..=at(7, 0)[A].min(STRUCTURED as u32 - 1)).try_for_each(|sub| entry(leaf, sub, at(leaf, sub)))?,
            0xd => {
                let [user, supervisor] = [at(0xd, 0), at(0xd, 1)];
                let states = u64::from(user[A] | supervisor[C]) | u64::from(user[D] | supervisor[D]) << 32;
                let count = (64 - states.leading_zeros()).clamp(2, XSTATE as u32);
                (0..count).try_for_each(|sub| entry(leaf, sub, at(leaf, sub)))?;
            }
            _ => entry(leaf, XEN_CPUID_NO_SUBLEAF, at(leaf, 0))?,
        }
    }
    for base in [HYPERVISOR_BASE, OTHER_HYPERVISOR_BASE] {
        entry(base, XEN_CPUID_NO_SUBLEAF, EMPTY)?;
    }
    let last = at(EXTENDED_BASE, 0)[A].saturating_sub(EXTENDED_BASE).min(EXTENDED as u32 - 1);
    (EXTENDED_BASE..=EXTENDED_BASE + last).try_for_each(|leaf| entry(leaf, XEN_CPUID_NO_SUBLEAF, at(leaf, 0)))
}

/// Returns the feature words of a machine or a policy, in the order that tools expect.
pub fn featureset(at: impl Fn(u32, u32) -> Leaf, arch_caps: u64) -> [u32; 18] {
    let extended = |leaf: u32| if leaf <= at(EXTENDED_BASE, 0)[A] { at(leaf, 0) } else { EMPTY };
    let basic = |leaf, sub| if leaf <= at(0, 0)[A] { at(leaf, sub) } else { EMPTY };
    let structured = |sub| if sub <= basic(7, 0)[A] { basic(7, sub) } else { EMPTY };
    let ([_, _, c1, d1], [_, _, ce1, de1]) = (basic(1, 0), extended(0x8000_0001));
    let ([_, b7, c7, d7], [a71, b71, c71, d71]) = (structured(0), structured(1));
    let own = [d1, c1, de1, ce1, basic(0xd, 1)[A], b7, c7, extended(0x8000_0007)[D]];
    let more = [extended(0x8000_0008)[B], d7, a71, extended(0x8000_0021)[A], b71, structured(2)[D], c71, d71];
    let mut words = [0; 18];
    let all = own.into_iter().chain(more).chain([arch_caps as u32, (arch_caps >> 32) as u32]);
    words.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    words
}

impl Policy {
    /// Returns a leaf without what depends on the state of a vCPU.
    pub fn fixed(&self, leaf: u32, subleaf: u32) -> Leaf {
        if leaf >> 8 == HYPERVISOR_BASE >> 8 {
            return EMPTY;
        }
        self.lookup(leaf, subleaf, &Dynamic { xcr0: self.xcr0(), ..Dynamic::default() })
    }

    /// Returns its registers as tools see them.
    pub fn msrs(&self) -> [MsrEntry; MAX_MSRS as usize] {
        let entry = |idx, val| MsrEntry { idx, val, ..MsrEntry::default() };
        [entry(PLATFORM_INFO, 0), entry(ARCH_CAPABILITIES, self.arch_caps.unwrap_or(0))]
    }

    /// Returns the policy with the leaves and registers of a list instead of its own, as far as the limit has them.
    ///
    /// # Errors
    /// `ERANGE` for a leaf or a register that a policy does not have, `EINVAL` for more leaves than the limit has or for a
    /// register that it has not, with the one that was wrong.
    pub fn with(&self, limit: &Self, config: &Config, leaves: &[CpuidLeaf], msrs: &[MsrEntry]) -> Accepted<Self> {
        for given in leaves {
            check_place(given.leaf, given.subleaf).map_err(|e| Refusal(e, Culprit::leaf(given.leaf, given.subleaf)))?;
        }
        let arch_caps = registers(self.arch_caps, msrs)?;
        let of_list = |leaf: u32, subleaf: u32| {
            let named = if subleaves(leaf).is_some() { subleaf } else { XEN_CPUID_NO_SUBLEAF };
            let last = leaves.iter().rev().find(|given| (given.leaf, given.subleaf) == (leaf, named));
            last.map_or_else(|| self.fixed(leaf, subleaf), |l| [l.a, l.b, l.c, l.d])
        };
        let wanted = |leaf: u32, subleaf: u32| match (leaf, subleaf) {
            (0xd, 1) => of_list(leaf, subleaf),
            // The layout of saved state.
            (0xd, _) => limit.fixed(leaf, subleaf),
            _ => of_list(leaf, subleaf),
        };
        let beyond = |leaf, subleaf| Err(Refusal(Errno::EINVAL, Culprit::leaf(leaf, subleaf)));
        if wanted(0, 0)[A] > limit.fixed(0, 0)[A] {
            return beyond(0, XEN_CPUID_NO_SUBLEAF);
        }
        if wanted(7, 0)[A] >= STRUCTURED as u32 {
            return beyond(7, 0);
        }
        if wanted(EXTENDED_BASE, 0)[A] > limit.fixed(EXTENDED_BASE, 0)[A] {
            return beyond(EXTENDED_BASE, XEN_CPUID_NO_SUBLEAF);
        }
        let arch_caps = limit.arch_caps.map(|most| most & arch_caps.unwrap_or(0));
        Ok(Self::within(wanted, &Config { arch_caps, ..*config }, Some(limit)))
    }

    /// Takes away what the limit does not have.
    pub(super) fn restrict(&mut self, limit: &Self) {
        let words = |own: &mut Leaf, most: &Leaf, registers: &[usize]| {
            registers.iter().for_each(|r| own[*r] &= most[*r]);
        };
        words(&mut self.basic[1], &limit.basic[1], &[C, D]);
        // The size of a cache line is the machine's.
        self.basic[1][B] = self.basic[1][B] & 0xff | limit.basic[1][B] & 0xff00;
        words(&mut self.structured[0], &limit.structured[0], &[B, C, D]);
        words(&mut self.structured[1], &limit.structured[1], &[A, B, C, D]);
        words(&mut self.structured[2], &limit.structured[2], &[A, B, C, D]);
        words(&mut self.extended[1], &limit.extended[1], &[C, D]);
        words(&mut self.extended[7], &limit.extended[7], &[D]);
        words(&mut self.extended[8], &limit.extended[8], &[B]);
        words(&mut self.extended[0x21], &limit.extended[0x21], &[A]);
        let bits = (self.extended[8][A] & 0xff).min(limit.extended[8][A] & 0xff);
        self.extended[8][A] = self.extended[8][A] & !0xff | bits;
        self.basic[1][C] |= Leaf1Ecx::HYPERVISOR.bits();
        if self.structured[0][D] & Leaf7Edx::ARCH_CAPS.bits() == 0 {
            self.arch_caps = None;
        }
    }
}

/// Returns what MSR_ARCH_CAPABILITIES is to read as.
fn registers(own: Option<u64>, msrs: &[MsrEntry]) -> Accepted<Option<u64>> {
    let mut arch_caps = own;
    for given in msrs {
        let bad = |error| Err(Refusal(error, Culprit::msr(given.idx)));
        match given.idx {
            _ if given.flags != 0 => return bad(Errno::EINVAL),
            PLATFORM_INFO if given.val > u64::from(u32::MAX) => return bad(Errno::EOVERFLOW),
            PLATFORM_INFO if given.val != 0 => return bad(Errno::EINVAL),
            PLATFORM_INFO => {}
            ARCH_CAPABILITIES => arch_caps = Some(given.val),
            _ => return bad(Errno::ERANGE),
        }
    }
    Ok(arch_caps)
}

#[cfg(test)]
mod tests;
