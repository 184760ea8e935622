// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the simulated CPU can do: always the same, so that runs can be repeated anywhere.

/// Capabilities of the CPU.
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
    pub pge: bool,
    pub invpcid: bool,
    pub page1g: bool,
    pub x2apic: bool,
    pub rdtscp: bool,
    pub sysenter: bool,
    /// What the branch predictor has learned can be made to go away (IBPB).
    pub ibpb: bool,
    /// AMD and Hygon CPUs.
    pub amd: bool,
    /// Width of machine addresses, in bits.
    pub maddr_bits: u32,
    /// State components that XCR0 may enable.
    pub xcr0: u64,
    /// Bytes of an XSAVE area that holds all of `xcr0`.
    pub xsave_size: usize,
}

static FEATURES: Features = Features {
    nx: true,
    smep: true,
    smap: true,
    umip: true,
    fsgsbase: true,
    xsave: true,
    xsaveopt: true,
    pge: true,
    invpcid: true,
    page1g: true,
    x2apic: true,
    rdtscp: true,
    sysenter: true,
    ibpb: true,
    amd: false,
    maddr_bits: 46,
    xcr0: 7,
    xsave_size: 832,
};

/// Reads one CPUID leaf of a CPU with AVX2: EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    match (leaf, subleaf) {
        (0, _) => [0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
        (1, _) => [0x3_06c3, 0x0010_0800, 0x7fda_3203, 0x1f8b_fbff],
        (7, 0) => [0, 0x0014_07a9, 0x4, 0],
        (0xd, 0) => [7, 832, 832, 0],
        (0xd, 1) => [1, 0, 0, 0],
        (0xd, 2) => [256, 576, 0, 0],
        (0x8000_0000, _) => [0x8000_0008, 0, 0, 0],
        (0x8000_0001, _) => [0, 0, 0x21, 0x2c10_0800],
        (0x8000_0007, _) => [0, 0, 0, 1 << 8],
        (0x8000_0008, _) => [0x302e, 0, 0, 0],
        _ => [0; 4],
    }
}

/// Returns what the CPU can do.
pub fn get() -> &'static Features {
    &FEATURES
}
