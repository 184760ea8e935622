// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a 64-bit PV guest sees through CPUID.
//!
//! A [`Policy`] is computed once from the host's leaves, or from leaves that tools want and the host can give
//! ([`leaves`]); a leaf, a field or a feature bit that is not listed reads as zero. What the guest sees afterwards depends on the policy and on its own state alone, never on live hardware.

pub mod features;
mod hypervisor;
pub mod leaves;
#[cfg(test)]
mod tests;
mod xstate;

use features::*;
pub use hypervisor::{TIME_LEAF, TscInfo};
use xstate::Xstate;

/// EAX, EBX, ECX, EDX.
pub type Leaf = [u32; 4];

const EMPTY: Leaf = [0; 4];
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;

/// Number of basic leaves a guest can have.
const BASIC: usize = 0xe;
/// Number of extended leaves a guest can have.
const EXTENDED: usize = 0x22;
/// Number of subleaves of leaf 4.
const CACHE: usize = 6;
/// Number of subleaves of leaf 7.
const STRUCTURED: usize = 3;

/// CR4.OSXSAVE.
const CR4_OSXSAVE: u64 = 1 << 18;

/// Who made the processor, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// GenuineIntel.
    Intel,
    /// AuthenticAMD, HygonGenuine.
    Amd,
    /// Anybody else.
    Other,
}

impl Vendor {
    const fn of(leaf0: Leaf) -> Self {
        match (leaf0[B], leaf0[D], leaf0[C]) {
            (0x756e_6547, 0x4965_6e69, 0x6c65_746e) => Self::Intel,
            (0x6874_7541, 0x6974_6e65, 0x444d_4163) | (0x6f67_7948, 0x656e_6975, 0x6e65_476e) => Self::Amd,
            _ => Self::Other,
        }
    }
}

/// What the hypervisor can and will do for the domain.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The domain drives the hardware.
    pub hardware_domain: bool,
    /// Bits of a machine address, for leaf 0x40000005.
    pub maddr_width: u8,
    /// The state components that the hypervisor saves and restores, as a mask of XCR0; 0 without XSAVE.
    pub xcr0: u64,
    /// Writes to MSR_PRED_CMD are carried out.
    pub ibpb: bool,
    /// MSR_SPEC_CTRL is switched with the vCPU; shown only together with `ibpb`.
    pub spec_ctrl: bool,
    /// The address masks of breakpoints are switched with the vCPU.
    pub breakpoint_masks: bool,
    /// What MSR_ARCH_CAPABILITIES reads as, if the domain may read it.
    pub arch_caps: Option<u64>,
    /// The TSC runs at one rate for the life of the domain.
    pub invariant_tsc: bool,
}

/// The state of a vCPU that CPUID shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dynamic {
    /// The vCPU is in its kernel.
    pub kernel_mode: bool,
    /// The instruction came with the prefix that asks for emulation, rather than by a fault.
    pub forced: bool,
    /// The virtual CR4.
    pub cr4: u64,
    /// XCR0 as the vCPU set it.
    pub xcr0: u64,
}

/// What a domain sees.
#[derive(Clone, Debug)]
pub struct Policy {
    vendor: Vendor,
    basic: [Leaf; BASIC],
    cache: [Leaf; CACHE],
    structured: [Leaf; STRUCTURED],
    extended: [Leaf; EXTENDED],
    xstate: Xstate,
    host_monitor: Option<Leaf>,
    host_eist: bool,
    hardware_domain: bool,
    maddr_width: u8,
    arch_caps: Option<u64>,
}

impl Policy {
    /// Computes the policy from the host's leaves: `host(leaf, subleaf)`.
    pub fn new(host: impl Fn(u32, u32) -> Leaf, config: &Config) -> Self {
        Self::within(host, config, None)
    }

    /// The same, without what another policy does not have.
    fn within(host: impl Fn(u32, u32) -> Leaf, config: &Config, limit: Option<&Self>) -> Self {
        let leaf0 = host(0, 0);
        let leaf1 = host(1, 0);
        let host_ecx = Leaf1Ecx::from_bits_truncate(leaf1[C]);
        let mut policy = Self {
            vendor: Vendor::of(leaf0),
            basic: [EMPTY; BASIC],
            cache: [EMPTY; CACHE],
            structured: [EMPTY; STRUCTURED],
            extended: [EMPTY; EXTENDED],
            xstate: Xstate::default(),
            host_monitor: host_ecx.contains(Leaf1Ecx::MONITOR).then(|| host(5, 0)),
            host_eist: host_ecx.contains(Leaf1Ecx::EIST),
            hardware_domain: config.hardware_domain,
            maddr_width: config.maddr_width,
            arch_caps: None,
        };
        policy.take_basic(&host, leaf0, leaf1);
        policy.take_structured(&host, leaf0[A], config);
        policy.take_extended(&host, config);
        if let Some(limit) = limit {
            policy.restrict(limit);
        }
        policy.drop_dependants(&host, config.xcr0);
        policy
    }

    fn take_basic(&mut self, host: &impl Fn(u32, u32) -> Leaf, leaf0: Leaf, leaf1: Leaf) {
        self.basic[0] = [leaf0[A].min(BASIC as u32 - 1), leaf0[B], leaf0[C], leaf0[D]];
        let mut edx = Leaf1Edx::shown(leaf1[D]);
        if self.vendor != Vendor::Intel {
            // SYSENTER does not work in long mode there.
            edx.remove(Leaf1Edx::SEP);
        }
        // Stepping, model and family; brand and cache-line size; no APIC number and no count of siblings.
        self.basic[1] = [
            leaf1[A] & 0x0fff_0fff,
            leaf1[B] & 0xffff,
            (Leaf1Ecx::shown(leaf1[C]) | Leaf1Ecx::HYPERVISOR).bits(),
            edx.bits(),
        ];
        if self.vendor != Vendor::Intel {
            return;
        }
        if leaf0[A] >= 2 {
            let leaf2 = host(2, 0);
            self.basic[2] = [leaf2[A] & !0xff | 1, leaf2[B], leaf2[C], leaf2[D]];
        }
        if leaf0[A] >= 4 {
            for (n, slot) in self.cache.iter_mut().enumerate() {
                let leaf = host(4, n as u32);
                if leaf[A] & 0x1f == 0 {
                    break;
                }
                // Nobody shares the cache, as far as the guest can tell.
                *slot = [leaf[A] & 0x3fff, leaf[B], leaf[C], leaf[D]];
            }
        }
    }

    fn take_structured(&mut self, host: &impl Fn(u32, u32) -> Leaf, max: u32, config: &Config) {
        if max < 7 {
            return;
        }
        let leaf = host(7, 0);
        let last = leaf[A].min(STRUCTURED as u32 - 1);
        let mut edx = Leaf7Edx::shown(leaf[D]);
        let host_edx = Leaf7Edx::from_bits_truncate(leaf[D]);
        if config.spec_ctrl && config.ibpb && host_edx.contains(Leaf7Edx::IBRSB) {
            edx |= Leaf7Edx::IBRSB | Leaf7Edx::STIBP | (host_edx & Leaf7Edx::SSBD);
        }
        if host_edx.contains(Leaf7Edx::ARCH_CAPS) {
            self.arch_caps = config.arch_caps;
            edx.set(Leaf7Edx::ARCH_CAPS, config.arch_caps.is_some());
        }
        self.structured[0] = [last, Leaf7Ebx::shown(leaf[B]).bits(), Leaf7Ecx::shown(leaf[C]).bits(), edx.bits()];
        if last >= 1 {
            self.structured[1][A] = Leaf7Sub1Eax::shown(host(7, 1)[A]).bits();
        }
        if last >= 2 {
            self.structured[2][D] = Leaf7Sub2Edx::shown(host(7, 2)[D]).bits();
        }
    }

    fn take_extended(&mut self, host: &impl Fn(u32, u32) -> Leaf, config: &Config) {
        let leaf0 = host(0x8000_0000, 0);
        let amd = self.vendor == Vendor::Amd;
        let last = match leaf0[A].checked_sub(0x8000_0000) {
            None => return,
            Some(last) => last.min(EXTENDED as u32 - 1),
        };
        for (n, slot) in self.extended.iter_mut().enumerate().take(last as usize + 1) {
            let leaf = host(0x8000_0000 + n as u32, 0);
            *slot = match n {
                0 if amd => [0x8000_0000 + last, leaf[B], leaf[C], leaf[D]],
                0 => [0x8000_0000 + last, 0, 0, 0],
                1 => extended_features(leaf, self.basic[1], amd, config),
                2..=4 => leaf,
                5 | 0x19 | 0x1a if amd => leaf,
                6 if amd => leaf,
                6 => [0, 0, leaf[C], 0],
                7 if config.invariant_tsc => [0, 0, 0, leaf[D] & PowerEdx::ITSC.bits()],
                8 => [address_widths(leaf[A]), speculation(leaf[B], config), 0, 0],
                0x21 if amd => [Ext21Eax::shown(leaf[A]).bits(), 0, 0, 0],
                _ => EMPTY,
            };
        }
    }

    /// Removes features whose state is not saved, and lays out the state of those that stay.
    fn drop_dependants(&mut self, host: &impl Fn(u32, u32) -> Leaf, xcr0: u64) {
        let saved = if self.leaf1_ecx().contains(Leaf1Ecx::XSAVE) { xstate::host_mask(host) & xcr0 } else { 0 };
        let mut ecx = self.leaf1_ecx();
        let [mut ebx7, mut ecx7, mut edx7] = [B, C, D].map(|r| self.structured[0][r]);
        if saved & xstate::FP_SSE != xstate::FP_SSE {
            ecx.remove(Leaf1Ecx::XSAVE);
        }
        if !ecx.contains(Leaf1Ecx::XSAVE) || saved & xstate::AVX == 0 {
            ecx.remove(Leaf1Ecx::AVX);
        }
        if !ecx.contains(Leaf1Ecx::AVX) {
            ecx.remove(needs_avx::LEAF1);
            ebx7 &= !needs_avx::LEAF7_EBX.bits();
            ecx7 &= !needs_avx::LEAF7_ECX.bits();
            self.structured[1][A] &= !needs_avx::LEAF7_1_EAX.bits();
            self.extended[1][C] &= !needs_avx::EXT_ECX.bits();
        }
        if ebx7 & Leaf7Ebx::AVX2.bits() == 0 || saved & xstate::AVX512 != xstate::AVX512 {
            ebx7 &= !Leaf7Ebx::AVX512F.bits();
        }
        if ebx7 & Leaf7Ebx::AVX512F.bits() == 0 {
            ebx7 &= !needs_avx512::LEAF7_EBX.bits();
            ecx7 &= !needs_avx512::LEAF7_ECX.bits();
            edx7 &= !needs_avx512::LEAF7_EDX.bits();
            self.structured[1][A] &= !needs_avx512::LEAF7_1_EAX.bits();
        }
        self.basic[1][C] = ecx.bits();
        self.structured[0] = [self.structured[0][A], ebx7, ecx7, edx7];
        if ecx.contains(Leaf1Ecx::XSAVE) {
            let avx = ecx.contains(Leaf1Ecx::AVX);
            self.xstate = Xstate::new(host, avx, ebx7 & Leaf7Ebx::AVX512F.bits() != 0);
        }
    }

    /// Returns a leaf as a vCPU in this state sees it.
    pub fn lookup(&self, leaf: u32, subleaf: u32, dynamic: &Dynamic) -> Leaf {
        let sub = subleaf as usize;
        match leaf {
            1 => self.leaf1(dynamic),
            4 => self.cache.get(sub).copied().unwrap_or(EMPTY),
            5 => self.leaf5(dynamic),
            7 => self.structured.get(sub).copied().unwrap_or(EMPTY),
            0xd => self.xstate.leaf(subleaf, dynamic.xcr0),
            0x4000_0000..=0x4000_00ff => self.hypervisor_leaf(leaf, subleaf),
            0x8000_0000.. => self.extended.get(leaf as usize & 0x7fff_ffff).copied().unwrap_or(EMPTY),
            _ => self.basic.get(leaf as usize).copied().unwrap_or(EMPTY),
        }
    }

    fn leaf1(&self, dynamic: &Dynamic) -> Leaf {
        let mut leaf = self.basic[1];
        let xsave = self.leaf1_ecx().contains(Leaf1Ecx::XSAVE);
        // The kernel's emulated CPUID shows OSXSAVE from the start: Linux takes XSAVE without it for no XSAVE at all.
        if xsave && (dynamic.cr4 & CR4_OSXSAVE != 0 || (dynamic.forced && dynamic.kernel_mode)) {
            leaf[C] |= Leaf1Ecx::OSXSAVE.bits();
        }
        if self.hardware_domain && dynamic.kernel_mode {
            // What makes the hardware domain upload the machine's power states.
            if self.host_eist {
                leaf[C] |= Leaf1Ecx::EIST.bits();
            }
            if self.host_monitor.is_some() && !dynamic.forced {
                leaf[C] |= Leaf1Ecx::MONITOR.bits();
            }
        }
        leaf
    }

    fn leaf5(&self, dynamic: &Dynamic) -> Leaf {
        let shown = self.hardware_domain && dynamic.kernel_mode && !dynamic.forced;
        self.host_monitor.filter(|_| shown).unwrap_or(EMPTY)
    }

    /// Who made the processor.
    pub const fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// The features of leaf 1, EDX.
    pub const fn leaf1_edx(&self) -> Leaf1Edx {
        Leaf1Edx::from_bits_truncate(self.basic[1][D])
    }

    /// The features of leaf 1, ECX.
    pub const fn leaf1_ecx(&self) -> Leaf1Ecx {
        Leaf1Ecx::from_bits_truncate(self.basic[1][C])
    }

    /// The features of leaf 7, EBX.
    pub const fn leaf7_ebx(&self) -> Leaf7Ebx {
        Leaf7Ebx::from_bits_truncate(self.structured[0][B])
    }

    /// The features of leaf 7, ECX.
    pub const fn leaf7_ecx(&self) -> Leaf7Ecx {
        Leaf7Ecx::from_bits_truncate(self.structured[0][C])
    }

    /// The features of leaf 7, EDX.
    pub const fn leaf7_edx(&self) -> Leaf7Edx {
        Leaf7Edx::from_bits_truncate(self.structured[0][D])
    }

    /// The features of leaf 0x80000001, EDX.
    pub const fn ext_edx(&self) -> ExtEdx {
        ExtEdx::from_bits_truncate(self.extended[1][D])
    }

    /// The features of leaf 0x80000001, ECX.
    pub const fn ext_ecx(&self) -> ExtEcx {
        ExtEcx::from_bits_truncate(self.extended[1][C])
    }

    /// The features of leaf 0x80000008, EBX.
    pub const fn ext_spec(&self) -> ExtSpecEbx {
        ExtSpecEbx::from_bits_truncate(self.extended[8][B])
    }

    /// What MSR_ARCH_CAPABILITIES reads as, if the guest has it.
    pub const fn arch_caps(&self) -> Option<u64> {
        self.arch_caps
    }

    /// The XCR0 bits that the guest may set; 0 without XSAVE.
    pub const fn xcr0(&self) -> u64 {
        self.xstate.mask()
    }
}

fn extended_features(leaf: Leaf, basic1: Leaf, amd: bool, config: &Config) -> Leaf {
    let mut ecx = ExtEcx::shown(leaf[C]).bits();
    if config.breakpoint_masks {
        ecx |= leaf[C] & ExtEcx::DBEXT.bits();
    }
    let edx = ExtEdx::shown(leaf[D]).bits();
    if amd { [basic1[A], leaf[B] & 0xff00_ffff, ecx, edx | (basic1[D] & ExtEdx::COPIES)] } else { [0, 0, ecx, edx] }
}

/// Physical address bits as on the host; linear addresses have 48 bits here.
fn address_widths(eax: u32) -> u32 {
    eax & 0xff | (eax >> 8 & 0xff).min(48) << 8
}

fn speculation(host: u32, config: &Config) -> u32 {
    let known = ExtSpecEbx::from_bits_truncate(host);
    let mut shown = ExtSpecEbx::shown(host);
    if config.ibpb {
        shown |= known & ExtSpecEbx::IBPB;
    }
    if config.spec_ctrl && config.ibpb && known.contains(ExtSpecEbx::IBRS) {
        shown |= ExtSpecEbx::STIBP
            | known
                & (ExtSpecEbx::IBRS
                    | ExtSpecEbx::SSBD
                    | ExtSpecEbx::PSFD
                    | ExtSpecEbx::IBRS_ALWAYS
                    | ExtSpecEbx::STIBP_ALWAYS
                    | ExtSpecEbx::IBRS_FAST
                    | ExtSpecEbx::IBRS_SAME_MODE);
    }
    shown.bits()
}
