// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the CPU can do, found once at boot. Every use of a feature asks here and has a fallback.

use core::arch::x86_64::__cpuid_count;
use spin::Once;

/// Capabilities of the boot CPU; the others must have them too.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "each field is the CPUID feature it is named after")]
pub struct Features {
    pub nx: bool,
    pub smep: bool,
    pub smap: bool,
    pub umip: bool,
    pub fsgsbase: bool,
    pub xsave: bool,
    pub xsaveopt: bool,
    /// Global translations are to be used. They outlive the change between a guest's kernel and its user mode, and are dropped
    /// by two writes of CR4; below a hypervisor that keeps those to itself, as all do on AMD's CPUs, they cost more than they save.
    pub pge: bool,
    pub invpcid: bool,
    pub page1g: bool,
    pub x2apic: bool,
    pub rdtscp: bool,
    pub sysenter: bool,
    /// What the branch predictor has learned can be made to go away (IBPB).
    pub ibpb: bool,
    /// AMD and Hygon CPUs, whose SYSENTER does not work in long mode and whose `mov ss` null rules differ.
    pub amd: bool,
    /// Width of machine addresses, in bits.
    pub maddr_bits: u32,
    /// State components that XCR0 may enable.
    pub xcr0: u64,
    /// Bytes of an XSAVE area that holds all of `xcr0`.
    pub xsave_size: usize,
}

static FEATURES: Once<Features> = Once::new();

/// Reads one CPUID leaf.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let r = __cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

const fn bit(word: u32, n: u32) -> bool {
    word >> n & 1 != 0
}

fn detect() -> Features {
    let max = cpuid(0, 0)[0];
    let [_, _, c1, d1] = cpuid(1, 0);
    let [_, b7, c7, d7] = if max >= 7 { cpuid(7, 0) } else { [0; 4] };
    let ext_max = cpuid(0x8000_0000, 0)[0];
    let d8 = if ext_max >= 0x8000_0001 { cpuid(0x8000_0001, 0)[3] } else { 0 };
    let vendor = cpuid(0, 0);
    let amd = [*b"cAMD", *b"uine"].contains(&vendor[2].to_le_bytes());
    let mut f = Features {
        nx: bit(d8, 20),
        smep: bit(b7, 7),
        smap: bit(b7, 20),
        umip: bit(c7, 2),
        fsgsbase: bit(b7, 0),
        xsave: bit(c1, 26) && max >= 0xd,
        pge: bit(d1, 13) && !(amd && bit(c1, 31)),
        invpcid: bit(b7, 10),
        page1g: bit(d8, 26),
        x2apic: bit(c1, 21),
        rdtscp: bit(d8, 27),
        sysenter: bit(d1, 11) && !amd,
        ibpb: bit(d7, 26) || ext_max >= 0x8000_0008 && bit(cpuid(0x8000_0008, 0)[1], 12),
        amd,
        maddr_bits: if ext_max >= 0x8000_0008 { cpuid(0x8000_0008, 0)[0] & 0xff } else { 36 },
        xsave_size: 512 + 64,
        ..Features::default()
    };
    if f.xsave {
        let [lo, _, size, hi] = cpuid(0xd, 0);
        // Protection keys (bit 9) are a supervisor's business that PV guests do not have.
        f.xcr0 = (u64::from(lo) | u64::from(hi) << 32) & 0xff & !0x18;
        f.xsave_size = size as usize;
        f.xsaveopt = bit(cpuid(0xd, 1)[0], 0);
    }
    f
}

/// Returns what the CPU can do.
pub fn get() -> &'static Features {
    FEATURES.call_once(detect)
}
