// SPDX-License-Identifier: MIT OR Apache-2.0
//! `xen_version`: what hypervisor this is and which features it has.

use crate::layout::{codes, constants, record};

codes! {
    /// A sub-operation of `xen_version`.
    pub struct VersionOp(u32) {
        VERSION(XENVER_version) = 0,
        EXTRAVERSION(XENVER_extraversion) = 1,
        COMPILE_INFO(XENVER_compile_info) = 2,
        CAPABILITIES(XENVER_capabilities) = 3,
        CHANGESET(XENVER_changeset) = 4,
        PLATFORM_PARAMETERS(XENVER_platform_parameters) = 5,
        GET_FEATURES(XENVER_get_features) = 6,
        PAGESIZE(XENVER_pagesize) = 7,
        GUEST_HANDLE(XENVER_guest_handle) = 8,
        COMMANDLINE(XENVER_commandline) = 9,
        BUILD_ID(XENVER_build_id) = 10,
    }

    /// The bit of a feature in submap 0.
    pub struct Feature(u32) {
        WRITABLE_PAGE_TABLES(XENFEAT_writable_page_tables) = 0,
        WRITABLE_DESCRIPTOR_TABLES(XENFEAT_writable_descriptor_tables) = 1,
        AUTO_TRANSLATED_PHYSMAP(XENFEAT_auto_translated_physmap) = 2,
        SUPERVISOR_MODE_KERNEL(XENFEAT_supervisor_mode_kernel) = 3,
        PAE_PGDIR_ABOVE_4GB(XENFEAT_pae_pgdir_above_4gb) = 4,
        MMU_PT_UPDATE_PRESERVE_AD(XENFEAT_mmu_pt_update_preserve_ad) = 5,
        HIGHMEM_ASSIST(XENFEAT_highmem_assist) = 6,
        GNTTAB_MAP_AVAIL_BITS(XENFEAT_gnttab_map_avail_bits) = 7,
        HVM_CALLBACK_VECTOR(XENFEAT_hvm_callback_vector) = 8,
        HVM_SAFE_PVCLOCK(XENFEAT_hvm_safe_pvclock) = 9,
        HVM_PIRQS(XENFEAT_hvm_pirqs) = 10,
        DOM0(XENFEAT_dom0) = 11,
        GRANT_MAP_IDENTITY(-) = 12,
        MEMORY_OP_VNODE_SUPPORTED(XENFEAT_memory_op_vnode_supported) = 13,
        ARM_SMCCC_SUPPORTED(XENFEAT_ARM_SMCCC_supported) = 14,
        LINUX_RSDP_UNRESTRICTED(XENFEAT_linux_rsdp_unrestricted) = 15,
        NOT_DIRECT_MAPPED(XENFEAT_not_direct_mapped) = 16,
        DIRECT_MAPPED(XENFEAT_direct_mapped) = 17,
    }
}

constants! { Constants {
    XENFEAT_NR_SUBMAPS(XENFEAT_NR_SUBMAPS): u32 = 1,
    EXTRAVERSION_LEN(XEN_EXTRAVERSION_LEN): usize = 16,
    CAPABILITIES_INFO_LEN(XEN_CAPABILITIES_INFO_LEN): usize = 1024,
    CHANGESET_INFO_LEN(XEN_CHANGESET_INFO_LEN): usize = 64,
    COMMANDLINE_LEN(-): usize = 1024,
}}

impl Feature {
    /// Returns the feature's bit as a mask.
    pub const fn mask(self) -> u32 {
        1u32.wrapping_shl(self.0)
    }
}

record! {
    /// `compile_info`: four strings, each ended by a zero.
    pub struct CompileInfo = "struct xen_compile_info", 144 {
        0 compiler: [u8; 64],
        64 compile_by: [u8; 16],
        80 compile_domain: [u8; 32],
        112 compile_date: [u8; 32],
    }

    /// `platform_parameters`.
    pub struct PlatformParameters = "struct xen_platform_parameters", 8 {
        0 virt_start: u64,
    }

    /// `get_features`.
    pub struct FeatureInfo = "struct xen_feature_info", 8 {
        0 submap_idx: u32,
        4 submap: u32,
    }

    /// The head of `build_id`; the bytes follow.
    pub struct BuildId = "struct xen_build_id", 4 {
        0 len: u32,
    }
}
