// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPUID leaves by which a guest finds the hypervisor, and the forced-emulation prefix.

use crate::layout::{constants, record};

/// `ud2; .ascii "xen"`: in front of an instruction, asks for its emulation.
pub const EMULATE_PREFIX: [u8; 5] = [0x0f, 0x0b, 0x78, 0x65, 0x6e];

/// The MSR that, when written, fills a hypercall page (the first one is EBX of leaf 2).
pub const HYPERCALL_PAGE_MSR: u32 = 0x4000_0000;

constants! { Constants {
    XEN_CPUID_FIRST_LEAF(XEN_CPUID_FIRST_LEAF): u32 = 0x4000_0000,
    /// "XenV".
    XEN_CPUID_SIGNATURE_EBX(XEN_CPUID_SIGNATURE_EBX): u32 = 0x566e_6558,
    /// "MMXe".
    XEN_CPUID_SIGNATURE_ECX(XEN_CPUID_SIGNATURE_ECX): u32 = 0x6558_4d4d,
    /// "nVMM".
    XEN_CPUID_SIGNATURE_EDX(XEN_CPUID_SIGNATURE_EDX): u32 = 0x4d4d_566e,
    XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD(XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD): u32 = 1,
    XEN_CPUID_MACHINE_ADDRESS_WIDTH_MASK(XEN_CPUID_MACHINE_ADDRESS_WIDTH_MASK): u32 = 0xff,
    XEN_CPUID_MAX_NUM_LEAVES(XEN_CPUID_MAX_NUM_LEAVES): u32 = 5,
    XEN_CPUID_NO_SUBLEAF(XEN_CPUID_NO_SUBLEAF): u32 = 0xffff_ffff,
}}

record! {
    /// One CPUID leaf as tools pass it.
    pub struct CpuidLeaf = "struct xen_cpuid_leaf", 24 {
        0 leaf: u32,
        4 subleaf: u32,
        8 a: u32,
        12 b: u32,
        16 c: u32,
        20 d: u32,
    }

    /// One MSR as tools pass it.
    pub struct MsrEntry = "struct xen_msr_entry", 16 {
        0 idx: u32,
        4 flags: u32,
        8 val: u64,
    }
}
