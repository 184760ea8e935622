// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether this CPU looks at page-table entries that are not present (L1TF, XSA-273), and which domains are kept from using that.
//!
//! A guest writes its own absent entries, and on an affected CPU one that names an address lets it read what the L1 cache has
//! of it. So the page tables of a domain for which the protection is on hold harmless absent entries only
//! ([`mm::AbsentRule`]): others are refused like any bad entry. Linux's are harmless, since it inverts the addresses in them.
//! Where the protection is on by default, and how it is chosen (`pv-l1tf=`), is as with the C hypervisor: for unprivileged
//! domains on affected CPUs; what that answers with shadow page tables, or the domain's end, is an error here.

use hypercalls::memory::E820Entry;
use mm::AbsentRule;
use spin::once::Once;

/// For which domains the protection is on; `None`: as the CPU needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Privileged ones.
    pub privileged: Option<bool>,
    /// All others.
    pub others: Option<bool>,
}

/// What of the CPU decides.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Leaf 0 of CPUID: vendor.
    pub leaf0: [u32; 4],
    /// EAX of leaf 1: family, model, stepping.
    pub signature: u32,
    /// `MSR_ARCH_CAPABILITIES`, 0 where it does not exist.
    pub arch_caps: u64,
    /// Width of machine addresses that the CPU admits to.
    pub maddr_bits: u32,
}

/// `MSR_ARCH_CAPABILITIES`: its number; not susceptible to rogue data cache loads, of which L1TF is one.
const ARCH_CAPABILITIES: u32 = 0x10a;
const RDCL_NO: u64 = 1;

/// Models of Intel's family 6 that do not look: Atoms and Knights.
const SAFE_MODELS: [u32; 15] =
    [0x1c, 0x26, 0x27, 0x35, 0x36, 0x37, 0x4d, 0x4c, 0x4a, 0x5a, 0x5c, 0x5f, 0x7a, 0x57, 0x85];
/// Models whose L1 cache knows 44 address bits (Nehalem, Westmere), and those whose knows 46 (Sandy Bridge to Kaby Lake).
const BITS_44: [u32; 7] = [0x1e, 0x1f, 0x1a, 0x2e, 0x25, 0x2c, 0x2f];
const BITS_46: [u32; 19] =
    [0x2a, 0x2d, 0x3a, 0x3e, 0x3c, 0x3f, 0x45, 0x46, 0x3d, 0x47, 0x4f, 0x56, 0x4e, 0x55, 0x5e, 0x66, 0x67, 0x8e, 0x9e];

impl Cpu {
    /// Asks the CPU this runs on.
    pub fn here() -> Self {
        let leaf0 = arch::features::cpuid(0, 0);
        let told = leaf0[0] >= 7 && arch::features::cpuid(7, 0)[3] >> 29 & 1 != 0;
        Self {
            leaf0,
            signature: arch::features::cpuid(1, 0)[0],
            arch_caps: if told { arch::msr::read_safe(ARCH_CAPABILITIES).unwrap_or(0) } else { 0 },
            maddr_bits: arch::phys::maddr_bits(),
        }
    }

    /// The model, of Intel's family 6 only.
    fn model(&self) -> Option<u32> {
        let intel = self.leaf0[1..] == [0x756e_6547, 0x6c65_746e, 0x4965_6e69];
        let family = self.signature >> 8 & 0xf;
        (intel && family == 6).then_some(self.signature >> 4 & 0xf | self.signature >> 12 & 0xf0)
    }

    /// True when the CPU looks at absent entries, or is not known not to.
    pub fn is_affected(&self) -> bool {
        self.model().is_some_and(|model| !SAFE_MODELS.contains(&model)) && self.arch_caps & RDCL_NO == 0
    }

    /// Which absent entries are harmless on a machine whose memory map ends at `end`.
    pub fn rule(&self, end: u64) -> AbsentRule {
        let cache_bits = match self.model() {
            Some(model) if BITS_44.contains(&model) => self.maddr_bits.max(44),
            Some(model) if BITS_46.contains(&model) => self.maddr_bits.max(46),
            _ => self.maddr_bits,
        };
        // Where the cache knows more bits than addresses have, one of those makes an entry harmless. Else the upper quarter of
        // all addresses is taken for empty, unless the memory map says otherwise.
        let guess = if cache_bits > self.maddr_bits { 1 << self.maddr_bits } else { 3 << (self.maddr_bits - 2) };
        AbsentRule { mask: ((1 << cache_bits) - 1) & !0xfff, safe: end.next_multiple_of(4096).max(guess) }
    }
}

/// What was decided at boot.
#[derive(Clone, Copy, Debug)]
struct Decision {
    rule: AbsentRule,
    privileged: bool,
    others: bool,
}

static DECISION: Once<Decision, arch::sync::Relax> = Once::new();

fn decide(cpu: &Cpu, choice: Choice, map: &[E820Entry]) -> Decision {
    let end = map.iter().map(|region| region.addr.saturating_add(region.size)).max().unwrap_or(0);
    Decision {
        rule: cpu.rule(end),
        privileged: choice.privileged.unwrap_or(false),
        others: choice.others.unwrap_or_else(|| cpu.is_affected()),
    }
}

/// Decides, before the first domain is created, and says so.
pub fn init(choice: Choice, map: &[E820Entry]) {
    let cpu = Cpu::here();
    let decision = DECISION.call_once(|| decide(&cpu, choice, map));
    let on = |on| if on { "on" } else { "off" };
    log::info!(
        "L1TF: the CPU is {}; protection of absent entries: dom0 {}, others {}",
        if cpu.is_affected() { "affected" } else { "not affected" },
        on(decision.privileged),
        on(decision.others)
    );
}

/// The rule for a new domain's absent entries, if there is one.
pub fn rule_for(privileged: bool) -> Option<AbsentRule> {
    let decision = DECISION.call_once(|| decide(&Cpu::here(), Choice::default(), &[]));
    let on = if privileged { decision.privileged } else { decision.others };
    on.then_some(decision.rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercalls::memory::E820Type;

    const INTEL: [u32; 4] = [0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69];
    const AMD: [u32; 4] = [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65];

    fn cpu(leaf0: [u32; 4], model: u32) -> Cpu {
        let signature = 6 << 8 | (model & 0xf) << 4 | (model >> 4) << 16;
        Cpu { leaf0, signature, arch_caps: 0, maddr_bits: 39 }
    }

    #[test]
    fn affected_are_intels_cores_that_do_not_say_otherwise() {
        for (model, affected) in [(0x1a, true), (0x3c, true), (0x9e, true), (0x5c, false), (0x85, false), (0xff, true)]
        {
            let cpu = cpu(INTEL, model);
            assert_eq!(cpu.is_affected(), affected, "{model:#x}");
            assert!(!Cpu { arch_caps: RDCL_NO, ..cpu }.is_affected());
            assert_eq!(Cpu { arch_caps: !RDCL_NO, ..cpu }.is_affected(), affected);
        }
        assert!(!cpu(AMD, 0x3c).is_affected());
        assert!(!Cpu { signature: 0xf43, ..cpu(INTEL, 0) }.is_affected(), "a Pentium 4");
    }

    #[test]
    fn safe_addresses_lie_above_all_memory() {
        // The cache knows more bits than addresses have: the first address beyond them.
        let rule = cpu(INTEL, 0x9e).rule(16 << 30);
        assert_eq!(rule, AbsentRule { mask: (1 << 46) - 4096, safe: 1 << 39 });
        assert_eq!(cpu(INTEL, 0x1a).rule(0).mask, (1 << 44) - 4096);
        // As many: the upper quarter, or what lies behind the memory map.
        let server = Cpu { maddr_bits: 46, ..cpu(INTEL, 0x55) };
        assert_eq!(server.rule(1 << 40), AbsentRule { mask: (1 << 46) - 4096, safe: 3 << 44 });
        assert_eq!(server.rule((3 << 44) + 5).safe, (3 << 44) + 4096);
        // Linux's inverted entries of memory in the lowest quarter are harmless, as they are in the upper one.
        for maddr in [0u64, 0x1000, 0x12_3456_7000, (1 << 44) - 4096] {
            let inverted = !maddr & 0x000f_ffff_ffff_f000;
            assert!(server.rule(0).allows(inverted, 1) && !server.rule(0).allows(maddr | 1 << 44, 1));
        }
    }

    #[test]
    fn the_choice_is_kept_and_otherwise_the_cpu_decides() {
        let map = [E820Entry { addr: 0, size: 1 << 30, kind: E820Type::RAM }];
        let on = |cpu: &Cpu, privileged, others| {
            let decision = decide(cpu, Choice { privileged, others }, &map);
            (decision.privileged, decision.others)
        };
        let (core, atom) = (cpu(INTEL, 0x9e), cpu(INTEL, 0x5c));
        assert_eq!(on(&core, None, None), (false, true));
        assert_eq!(on(&atom, None, None), (false, false));
        assert_eq!(on(&core, Some(true), Some(false)), (true, false));
        assert_eq!(on(&atom, Some(true), Some(true)), (true, true));
    }
}
