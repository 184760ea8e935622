// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pages a domain and the hypervisor write together: `shared_info`, `vcpu_info` and the time
//! areas. They are accessed field by field, so the byte offsets are constants too.

use crate::layout::{constants, record};

constants! { Constants {
    /// vCPUs that have a slot in `shared_info`.
    XEN_LEGACY_MAX_VCPUS(XEN_LEGACY_MAX_VCPUS): usize = 32,
    /// Ports of the 2-level event channels.
    EVTCHN_2L_NR_CHANNELS(EVTCHN_2L_NR_CHANNELS): u32 = 4096,
    /// The TSC is the same on all CPUs.
    XEN_PVCLOCK_TSC_STABLE_BIT(XEN_PVCLOCK_TSC_STABLE_BIT): u8 = 1,
    /// The guest was stopped for a while.
    XEN_PVCLOCK_GUEST_STOPPED(XEN_PVCLOCK_GUEST_STOPPED): u8 = 2,
}}

record! {
    /// One vCPU's view of the clock; `version` is odd while it changes.
    pub struct VcpuTimeInfo = "struct vcpu_time_info", 32 {
        0 version: u32,
        4 _pad0: u32,
        8 tsc_timestamp: u64,
        /// Nanoseconds since boot at `tsc_timestamp`.
        16 system_time: u64,
        24 tsc_to_system_mul: u32,
        28 tsc_shift: i8,
        29 flags: u8,
        30 _pad1: [u8; 2],
    }

    /// The architecture's part of [`VcpuInfo`].
    pub struct ArchVcpuInfo = "struct arch_vcpu_info", 16 {
        0 cr2: u64,
        8 _pad: u64,
    }

    /// What one vCPU shares with the hypervisor.
    pub struct VcpuInfo = "struct vcpu_info", 64 {
        0 evtchn_upcall_pending: u8,
        1 evtchn_upcall_mask: u8,
        2 _pad0: [u8; 6],
        8 evtchn_pending_sel: u64,
        16 arch: ArchVcpuInfo,
        32 time: VcpuTimeInfo,
    }

    /// The architecture's part of [`SharedInfo`].
    pub struct ArchSharedInfo = "struct arch_shared_info", 48 {
        0 max_pfn: u64,
        8 pfn_to_mfn_frame_list_list: u64,
        16 nmi_reason: u64,
        24 p2m_cr3: u64,
        32 p2m_vaddr: u64,
        40 p2m_generation: u64,
    }

    /// What a domain shares with the hypervisor.
    pub struct SharedInfo = "struct shared_info", 3136 {
        0 vcpu_info: [VcpuInfo; 32],
        0x800 evtchn_pending: [u64; 64],
        0xa00 evtchn_mask: [u64; 64],
        0xc00 wc_version: u32,
        0xc04 wc_sec: u32,
        0xc08 wc_nsec: u32,
        0xc0c wc_sec_hi: u32,
        0xc10 arch: ArchSharedInfo,
    }
}

/// Byte offsets in [`SharedInfo`].
pub mod shared_offset {
    use super::{ArchSharedInfo, SharedInfo};
    use core::mem::offset_of;

    /// The array of `vcpu_info`, 64 bytes each.
    pub const VCPU_INFO: usize = offset_of!(SharedInfo, vcpu_info);
    /// The pending bitmap.
    pub const EVTCHN_PENDING: usize = offset_of!(SharedInfo, evtchn_pending);
    /// The mask bitmap.
    pub const EVTCHN_MASK: usize = offset_of!(SharedInfo, evtchn_mask);
    /// Version of the wall clock.
    pub const WC_VERSION: usize = offset_of!(SharedInfo, wc_version);
    /// Low seconds of the wall clock at boot.
    pub const WC_SEC: usize = offset_of!(SharedInfo, wc_sec);
    /// Nanoseconds of the wall clock at boot.
    pub const WC_NSEC: usize = offset_of!(SharedInfo, wc_nsec);
    /// High seconds of the wall clock at boot.
    pub const WC_SEC_HI: usize = offset_of!(SharedInfo, wc_sec_hi);
    /// The architecture's part.
    pub const ARCH: usize = offset_of!(SharedInfo, arch);
    /// `arch.max_pfn`.
    pub const MAX_PFN: usize = ARCH + offset_of!(ArchSharedInfo, max_pfn);
    /// `arch.pfn_to_mfn_frame_list_list`.
    pub const PFN_TO_MFN_FRAME_LIST_LIST: usize = ARCH + offset_of!(ArchSharedInfo, pfn_to_mfn_frame_list_list);
    /// `arch.nmi_reason`.
    pub const NMI_REASON: usize = ARCH + offset_of!(ArchSharedInfo, nmi_reason);
    /// `arch.p2m_cr3`.
    pub const P2M_CR3: usize = ARCH + offset_of!(ArchSharedInfo, p2m_cr3);
    /// `arch.p2m_vaddr`.
    pub const P2M_VADDR: usize = ARCH + offset_of!(ArchSharedInfo, p2m_vaddr);
    /// `arch.p2m_generation`.
    pub const P2M_GENERATION: usize = ARCH + offset_of!(ArchSharedInfo, p2m_generation);
}

/// Byte offsets in [`VcpuInfo`].
pub mod vcpu_offset {
    use super::{VcpuInfo, VcpuTimeInfo};
    use core::mem::offset_of;

    /// The upcall-pending byte.
    pub const EVTCHN_UPCALL_PENDING: usize = offset_of!(VcpuInfo, evtchn_upcall_pending);
    /// The upcall-mask byte.
    pub const EVTCHN_UPCALL_MASK: usize = offset_of!(VcpuInfo, evtchn_upcall_mask);
    /// The selector word.
    pub const EVTCHN_PENDING_SEL: usize = offset_of!(VcpuInfo, evtchn_pending_sel);
    /// The fault address.
    pub const ARCH_CR2: usize = offset_of!(VcpuInfo, arch);
    /// The time area.
    pub const TIME: usize = offset_of!(VcpuInfo, time);
    /// Version of the time area.
    pub const TIME_VERSION: usize = TIME + offset_of!(VcpuTimeInfo, version);
}
