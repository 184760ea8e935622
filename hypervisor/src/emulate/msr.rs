// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which model-specific registers a PV guest has.
//!
//! A list of what is allowed: everything not listed faults. Values come from the policy, from the vCPU's own state, or
//! from a few host registers read once at boot; the only live reads are those of [`Live`].

#[cfg(test)]
mod tests;

use super::cpuid::Policy;
use super::cpuid::Vendor;
use super::cpuid::features::{ExtEcx, ExtEdx, ExtSpecEbx, Leaf7Ecx, Leaf7Edx};
use hypercalls::GuestVa;

/// What the page attribute table reads as: WB, WT, UC-, UC, WC, WP.
pub const PAT: u64 = 0x0000_0501_0007_0406;

const EFER_KNOWN: u64 = 1 << 0 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 14;
const APIC_BASE: u64 = 0xfee0_0800;
const APIC_BOOT: u64 = 1 << 8;
const FEATURE_CONTROL_LOCK: u64 = 1;
const CPUID_FAULTING: u64 = 1 << 31;
const MISC_PERFMON: u64 = 1 << 7;
const MISC_BTS_UNAVAILABLE: u64 = 1 << 11;
const MISC_PEBS_UNAVAILABLE: u64 = 1 << 12;
const MISC_MONITOR: u64 = 1 << 18;
const MISC_XTPR_DISABLE: u64 = 1 << 23;
const SPEC_IBRS_STIBP: u64 = 3;
const SPEC_SSBD: u64 = 1 << 2;
const SPEC_PSFD: u64 = 1 << 7;
const LFENCE_SERIALISES: u64 = 1 << 1;
/// Number of machine-check banks a guest has.
const BANKS: u32 = 2;
/// Software error recovery, threshold status.
const MCG_INTEL: u64 = 1 << 24 | 1 << 11;

/// A register whose value is read when the guest asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// The FS base.
    FsBase,
    /// The GS base in force: the kernel's, as only the kernel asks.
    GsBase,
    /// The GS base that SWAPGS would bring: the user's.
    UserGsBase,
    /// The guest's time stamp counter.
    Tsc,
}

/// What RDMSR gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// This.
    Value(u64),
    /// The value of this register now.
    Live(Live),
    /// A general protection fault.
    Fault,
}

/// What WRMSR does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Nothing.
    Ignore,
    /// Loads the FS base, which is canonical.
    FsBase(u64),
    /// Loads the GS base in force, which is canonical.
    GsBase(u64),
    /// Loads the user's GS base, which is canonical.
    UserGsBase(u64),
    /// Loads the register that RDTSCP and RDPID show.
    TscAux(u32),
    /// Sets the virtual speculation control, loaded on entry to the guest.
    SpecCtrl(u64),
    /// Flushes the indirect branch predictor.
    PredictorBarrier,
    /// Turns faulting of the guest's user CPUID on or off.
    CpuidFaulting(bool),
    /// Sets the address mask of a breakpoint, 0 to 3.
    BreakpointMask(u8, u32),
    /// Fills the page with this guest frame number as a hypercall page.
    HypercallPage(u64),
    /// A general protection fault.
    Fault,
}

/// Host registers that guests see something of, read once at boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostMsrs {
    /// EFER.
    pub efer: u64,
    /// MISC_ENABLE, where it exists.
    pub misc_enable: Option<u64>,
    /// PLATFORM_ID, where it exists.
    pub platform_id: Option<u64>,
    /// The revision of the microcode, where it can be told.
    pub microcode: Option<u64>,
    /// CPUID of user programs can be made to fault, and the hypervisor does so when asked.
    pub cpuid_faulting: bool,
    /// LFENCE waits for everything before it.
    pub lfence_serialises: bool,
}

/// What the answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct MsrView<'a> {
    /// The domain's policy.
    pub policy: &'a Policy,
    /// The host's registers.
    pub host: &'a HostMsrs,
    /// The vCPU is number 0.
    pub boot_vcpu: bool,
    /// The virtual TSC_AUX.
    pub tsc_aux: u32,
    /// The virtual SPEC_CTRL.
    pub spec_ctrl: u64,
    /// Faulting of the guest's user CPUID is on.
    pub cpuid_faulting: bool,
    /// The virtual breakpoint address masks.
    pub breakpoint_masks: [u32; 4],
}

/// Answers RDMSR of the guest's kernel.
///
/// While a guest has no handler for general protection faults, the caller may turn [`Read::Fault`] of a register that
/// the host has into 0, except for the numbers from 0x40000000 to 0x4000ffff.
pub fn read(index: u32, view: &MsrView<'_>) -> Read {
    let low = index & 0xffff;
    match index >> 16 {
        0 => view.read_basic(low),
        // The hypercall page can only be written.
        0x4000 if low == 0 => Read::Value(0),
        0xc000 => view.read_extended(low),
        0xc001 if view.amd() => view.read_amd(low),
        _ => Read::Fault,
    }
}

/// Decides WRMSR of the guest's kernel.
pub fn write(index: u32, value: u64, view: &MsrView<'_>) -> Write {
    let low = index & 0xffff;
    match index >> 16 {
        0 => view.write_basic(low, value),
        // The low bits would be the index of one of several pages; there is one.
        0x4000 if low == 0 && value & 0xfff == 0 => Write::HypercallPage(value >> 12),
        0xc000 => view.write_extended(low, value),
        0xc001 if view.amd() => view.write_amd(low, value),
        _ => Write::Fault,
    }
}

fn value_if(condition: bool, value: u64) -> Read {
    if condition { Read::Value(value) } else { Read::Fault }
}

fn ignore_if(condition: bool) -> Write {
    if condition { Write::Ignore } else { Write::Fault }
}

fn value_or_fault(value: Option<u64>) -> Read {
    value.map_or(Read::Fault, Read::Value)
}

impl MsrView<'_> {
    fn intel(&self) -> bool {
        self.policy.vendor() == Vendor::Intel
    }

    fn amd(&self) -> bool {
        self.policy.vendor() == Vendor::Amd
    }

    fn read_basic(&self, index: u32) -> Read {
        match index {
            // Machine-check address and type of the first processors that had them.
            0x0 | 0x1 => Read::Value(0),
            0x10 => Read::Live(Live::Tsc),
            0x17 if self.intel() => value_or_fault(self.host.platform_id),
            0x1b => Read::Value(APIC_BASE | if self.boot_vcpu { APIC_BOOT } else { 0 }),
            0x3a => value_if(self.intel(), FEATURE_CONTROL_LOCK),
            0x48 => value_if(self.has_spec_ctrl(), self.spec_ctrl),
            0x8b if self.intel() || self.amd() => value_or_fault(self.host.microcode),
            0xce => Read::Value(if self.host.cpuid_faulting { CPUID_FAULTING } else { 0 }),
            0x10a => value_or_fault(self.policy.arch_caps()),
            0x140 => Read::Value(u64::from(self.cpuid_faulting)),
            0x179 => Read::Value(u64::from(BANKS) | if self.intel() { MCG_INTEL } else { 0 }),
            // Nothing is ever reported to a guest, and there is no MCG_CTL.
            0x17a | 0x17b | 0x280..=0x29f => Read::Value(0),
            0x400..=0x47f => Read::Value(bank(index)),
            // Performance state, thermal status.
            0x198 | 0x199 | 0x19c => value_if(self.intel(), 0),
            0x1a0 => value_or_fault(self.host.misc_enable.map(misc_enable)),
            0x277 => Read::Value(PAT),
            0x345 => Read::Value(0),
            _ => value_if(self.intel() && is_intel_counter(index), 0),
        }
    }

    fn write_basic(&self, index: u32, value: u64) -> Write {
        match index {
            0x48 if self.has_spec_ctrl() && value & !self.spec_ctrl_bits() == 0 => Write::SpecCtrl(value),
            0x49 if self.has_barrier() && value == 1 => Write::PredictorBarrier,
            0x49 => ignore_if(self.has_barrier() && value == 0),
            // What one has to do before asking for the revision.
            0x8b => ignore_if(self.intel() && value == 0),
            0xe7 | 0xe8 => ignore_if(self.intel() || self.amd()),
            0x140 if value == 0 => Write::CpuidFaulting(false),
            0x140 if value == 1 && self.host.cpuid_faulting => Write::CpuidFaulting(true),
            0x17a | 0x17b | 0x280..=0x29f => Write::Ignore,
            0x400..=0x47f => ignore_if(index & 3 == 0 || value == 0),
            // Performance state, clock modulation, energy bias.
            0x199 | 0x19a | 0x1b0 => ignore_if(self.intel()),
            0x1a0 => ignore_if(self.host.misc_enable.is_some()),
            0x277 => ignore_if(value == PAT),
            _ => ignore_if(self.intel() && is_intel_counter(index)),
        }
    }

    fn read_extended(&self, low: u32) -> Read {
        match low {
            0x80 => Read::Value(self.efer()),
            0x100 => Read::Live(Live::FsBase),
            0x101 => Read::Live(Live::GsBase),
            0x102 => Read::Live(Live::UserGsBase),
            0x103 => value_if(self.has_tsc_aux(), u64::from(self.tsc_aux)),
            _ => Read::Fault,
        }
    }

    fn write_extended(&self, low: u32, value: u64) -> Write {
        let canonical = GuestVa(value).is_canonical();
        match low {
            0x80 => ignore_if(value == self.efer()),
            0x100 if canonical => Write::FsBase(value),
            0x101 if canonical => Write::GsBase(value),
            0x102 if canonical => Write::UserGsBase(value),
            0x103 if self.has_tsc_aux() => u32::try_from(value).map_or(Write::Fault, Write::TscAux),
            _ => Write::Fault,
        }
    }

    fn read_amd(&self, low: u32) -> Read {
        if let Some(n) = self.breakpoint(low) {
            let mask = self.breakpoint_masks.get(usize::from(n)).copied();
            return value_or_fault(mask.map(u64::from));
        }
        match low {
            0x1029 => Read::Value(if self.host.lfence_serialises { LFENCE_SERIALISES } else { 0 }),
            _ => value_if(reads_zero_on_amd(low), 0),
        }
    }

    fn write_amd(&self, low: u32, value: u64) -> Write {
        if let Some(n) = self.breakpoint(low) {
            return u32::try_from(value).map_or(Write::Fault, |mask| Write::BreakpointMask(n, mask));
        }
        ignore_if(low == 0x1029 || reads_zero_on_amd(low))
    }

    /// Which breakpoint's address mask this is.
    fn breakpoint(&self, low: u32) -> Option<u8> {
        let number = match low {
            0x1027 => 0,
            0x1019 => 1,
            0x101a => 2,
            0x101b => 3,
            _ => return None,
        };
        self.policy.ext_ecx().contains(ExtEcx::DBEXT).then_some(number)
    }

    fn efer(&self) -> u64 {
        self.host.efer & EFER_KNOWN
    }

    fn has_spec_ctrl(&self) -> bool {
        self.policy.leaf7_edx().contains(Leaf7Edx::IBRSB) || self.policy.ext_spec().contains(ExtSpecEbx::IBRS)
    }

    fn has_barrier(&self) -> bool {
        self.has_spec_ctrl() || self.policy.ext_spec().contains(ExtSpecEbx::IBPB)
    }

    fn spec_ctrl_bits(&self) -> u64 {
        let (edx, ext) = (self.policy.leaf7_edx(), self.policy.ext_spec());
        let ssbd = edx.contains(Leaf7Edx::SSBD) || ext.contains(ExtSpecEbx::SSBD);
        let psfd = ext.contains(ExtSpecEbx::PSFD);
        SPEC_IBRS_STIBP | if ssbd { SPEC_SSBD } else { 0 } | if psfd { SPEC_PSFD } else { 0 }
    }

    fn has_tsc_aux(&self) -> bool {
        self.policy.ext_edx().contains(ExtEdx::RDTSCP) || self.policy.leaf7_ecx().contains(Leaf7Ecx::RDPID)
    }
}

/// What a machine-check bank's register reads as: all reporting on, nothing reported.
fn bank(index: u32) -> u64 {
    let offset = index - 0x400;
    if offset & 3 == 0 && offset / 4 < BANKS { u64::MAX } else { 0 }
}

fn misc_enable(host: u64) -> u64 {
    host & !(MISC_PERFMON | MISC_MONITOR) | MISC_BTS_UNAVAILABLE | MISC_PEBS_UNAVAILABLE | MISC_XTPR_DISABLE
}

/// Performance counters: there are none, but old code insists on writing them.
fn is_intel_counter(index: u32) -> bool {
    matches!(index, 0xc1..=0xc8 | 0x186..=0x189 | 0x309..=0x30b | 0x38d..=0x390)
}

fn reads_zero_on_amd(low: u32) -> bool {
    match low {
        // Performance counters, old and new.
        0x0..=0x7 | 0x200..=0x20b => true,
        // HWCR, NB_CFG, the base of memory-mapped configuration space.
        0x15 | 0x1f | 0x58 => true,
        // Frequency, voltage and performance states.
        0x41 | 0x42 | 0x61..=0x6b => true,
        _ => false,
    }
}
