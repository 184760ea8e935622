// SPDX-License-Identifier: MIT OR Apache-2.0
//! The arguments of `sysctl`: what lies in the union of [`crate::sysctl::Sysctl`].

use crate::cpuid::{CpuidLeaf, MsrEntry};
use crate::domctl_args::{Bitmap, GetDomainInfo, SchedulerId};
use crate::layout::{codes, constants, record};
use crate::physdev::PhysdevPciDevice;
use crate::{DomId, GuestPtr};

constants! { Constants {
    XEN_SYSCTL_PHYSCAP_HVM(XEN_SYSCTL_PHYSCAP_hvm): u32 = 1 << 0,
    XEN_SYSCTL_PHYSCAP_PV(XEN_SYSCTL_PHYSCAP_pv): u32 = 1 << 1,
    XEN_SYSCTL_PHYSCAP_DIRECTIO(XEN_SYSCTL_PHYSCAP_directio): u32 = 1 << 2,
    XEN_SYSCTL_PHYSCAP_HAP(XEN_SYSCTL_PHYSCAP_hap): u32 = 1 << 3,
    XEN_SYSCTL_PHYSCAP_SHADOW(XEN_SYSCTL_PHYSCAP_shadow): u32 = 1 << 4,
    XEN_SYSCTL_PHYSCAP_IOMMU_HAP_PT_SHARE(XEN_SYSCTL_PHYSCAP_iommu_hap_pt_share): u32 = 1 << 5,
    XEN_SYSCTL_PHYSCAP_VMTRACE(XEN_SYSCTL_PHYSCAP_vmtrace): u32 = 1 << 6,
    XEN_SYSCTL_PHYSCAP_VPMU(XEN_SYSCTL_PHYSCAP_vpmu): u32 = 1 << 7,
    XEN_SYSCTL_PHYSCAP_GNTTAB_V1(XEN_SYSCTL_PHYSCAP_gnttab_v1): u32 = 1 << 8,
    XEN_SYSCTL_PHYSCAP_GNTTAB_V2(XEN_SYSCTL_PHYSCAP_gnttab_v2): u32 = 1 << 9,
    XEN_INVALID_CORE_ID(XEN_INVALID_CORE_ID): u32 = u32::MAX,
    XEN_INVALID_SOCKET_ID(XEN_INVALID_SOCKET_ID): u32 = u32::MAX,
    XEN_INVALID_NODE_ID(XEN_INVALID_NODE_ID): u32 = u32::MAX,
    XEN_INVALID_MEM_SZ(XEN_INVALID_MEM_SZ): u32 = u32::MAX,
    XEN_INVALID_NODE_DIST(XEN_INVALID_NODE_DIST): u32 = u32::MAX,
    XEN_INVALID_DEV(XEN_INVALID_DEV): u32 = u32::MAX - 1,
    XEN_SYSCTL_CPUPOOL_PAR_ANY(XEN_SYSCTL_CPUPOOL_PAR_ANY): u32 = u32::MAX,
    /// Microseconds.
    XEN_SYSCTL_SCHED_RATELIMIT_MAX(XEN_SYSCTL_SCHED_RATELIMIT_MAX): u32 = 500_000,
    /// Microseconds.
    XEN_SYSCTL_SCHED_RATELIMIT_MIN(XEN_SYSCTL_SCHED_RATELIMIT_MIN): u32 = 100,
}}

codes! {
    /// What `cpupool_op` does.
    pub struct CpupoolCmd(u32) {
        CREATE(XEN_SYSCTL_CPUPOOL_OP_CREATE) = 1,
        DESTROY(XEN_SYSCTL_CPUPOOL_OP_DESTROY) = 2,
        INFO(XEN_SYSCTL_CPUPOOL_OP_INFO) = 3,
        ADDCPU(XEN_SYSCTL_CPUPOOL_OP_ADDCPU) = 4,
        RMCPU(XEN_SYSCTL_CPUPOOL_OP_RMCPU) = 5,
        MOVEDOMAIN(XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN) = 6,
        FREEINFO(XEN_SYSCTL_CPUPOOL_OP_FREEINFO) = 7,
    }

    /// What `scheduler_op` does.
    pub struct SysctlSchedOp(u32) {
        PUTINFO(XEN_SYSCTL_SCHEDOP_putinfo) = 0,
        GETINFO(XEN_SYSCTL_SCHEDOP_getinfo) = 1,
    }

    /// Whose features `get_cpu_featureset` asks for.
    pub struct FeaturesetIndex(u32) {
        RAW(XEN_SYSCTL_cpu_featureset_raw) = 0,
        HOST(XEN_SYSCTL_cpu_featureset_host) = 1,
        PV(XEN_SYSCTL_cpu_featureset_pv) = 2,
        HVM(XEN_SYSCTL_cpu_featureset_hvm) = 3,
        PV_MAX(XEN_SYSCTL_cpu_featureset_pv_max) = 4,
        HVM_MAX(XEN_SYSCTL_cpu_featureset_hvm_max) = 5,
    }

    /// Whose policy `get_cpu_policy` asks for.
    pub struct CpuPolicyIndex(u32) {
        RAW(XEN_SYSCTL_cpu_policy_raw) = 0,
        HOST(XEN_SYSCTL_cpu_policy_host) = 1,
        PV_MAX(XEN_SYSCTL_cpu_policy_pv_max) = 2,
        HVM_MAX(XEN_SYSCTL_cpu_policy_hvm_max) = 3,
        PV_DEFAULT(XEN_SYSCTL_cpu_policy_pv_default) = 4,
        HVM_DEFAULT(XEN_SYSCTL_cpu_policy_hvm_default) = 5,
    }
}

record! {
    /// `readconsole`.
    pub struct ReadConsole = "struct xen_sysctl_readconsole", 24 {
        0 clear: u8,
        1 incremental: u8,
        2 _pad0: u16,
        4 index: u32,
        8 buffer: GuestPtr<u8>,
        16 count: u32,
        20 _pad1: u32,
    }

    /// `physinfo`.
    pub struct Physinfo = "struct xen_sysctl_physinfo", 112 {
        0 threads_per_core: u32,
        4 cores_per_socket: u32,
        8 nr_cpus: u32,
        12 max_cpu_id: u32,
        16 nr_nodes: u32,
        20 max_node_id: u32,
        24 cpu_khz: u32,
        /// `XEN_SYSCTL_PHYSCAP_*`.
        28 capabilities: u32,
        32 arch_capabilities: u32,
        36 pad: u32,
        40 total_pages: u64,
        48 free_pages: u64,
        56 scrub_pages: u64,
        64 outstanding_pages: u64,
        72 max_mfn: u64,
        80 hw_cap: [u32; 8],
    }

    /// `sched_id`.
    pub struct SchedId = "struct xen_sysctl_sched_id", 4 {
        0 sched_id: SchedulerId,
    }

    /// `getdomaininfolist`.
    pub struct GetDomainInfoList = "struct xen_sysctl_getdomaininfolist", 24 {
        0 first_domain: DomId,
        2 _pad0: u16,
        4 max_domains: u32,
        8 buffer: GuestPtr<GetDomainInfo>,
        16 num_domains: u32,
        20 _pad1: u32,
    }

    /// `debug_keys`.
    pub struct DebugKeys = "struct xen_sysctl_debug_keys", 16 {
        0 keys: GuestPtr<u8>,
        8 nr_keys: u32,
        12 _pad: u32,
    }

    /// `getcpuinfo`: the idle times, in nanoseconds.
    pub struct GetCpuInfo = "struct xen_sysctl_getcpuinfo", 24 {
        0 max_cpus: u32,
        4 _pad0: u32,
        8 info: GuestPtr<u64>,
        16 nr_cpus: u32,
        20 _pad1: u32,
    }

    /// `availheap`.
    pub struct AvailHeap = "struct xen_sysctl_availheap", 24 {
        0 min_bitwidth: u32,
        4 max_bitwidth: u32,
        8 node: i32,
        12 _pad: u32,
        16 avail_bytes: u64,
    }

    /// Where one CPU is.
    pub struct CpuTopo = "struct xen_sysctl_cputopo", 12 {
        0 core: u32,
        4 socket: u32,
        8 node: u32,
    }

    /// `cputopoinfo`.
    pub struct CpuTopoInfo = "struct xen_sysctl_cputopoinfo", 16 {
        0 num_cpus: u32,
        4 _pad: u32,
        8 cputopo: GuestPtr<CpuTopo>,
    }

    /// The memory of one node.
    pub struct MemInfo = "struct xen_sysctl_meminfo", 16 {
        0 memsize: u64,
        8 memfree: u64,
    }

    /// `numainfo`.
    pub struct NumaInfo = "struct xen_sysctl_numainfo", 24 {
        0 num_nodes: u32,
        4 _pad: u32,
        8 meminfo: GuestPtr<MemInfo>,
        16 distance: GuestPtr<u32>,
    }

    /// `cpupool_op`.
    pub struct CpupoolOp = "struct xen_sysctl_cpupool_op", 40 {
        0 op: CpupoolCmd,
        4 cpupool_id: u32,
        8 sched_id: SchedulerId,
        12 domid: u32,
        16 cpu: u32,
        20 n_dom: u32,
        24 cpumap: Bitmap,
    }

    /// `scheduler_op` with credit2's part of the union.
    pub struct SysctlSchedulerOp = "struct xen_sysctl_scheduler_op", 32 {
        0 cpupool_id: u32,
        4 sched_id: SchedulerId,
        8 cmd: SysctlSchedOp,
        12 _pad: u32,
        16 ratelimit_us: u32 = "u.sched_credit2.ratelimit_us",
        20 _rest: [u32; 3],
    }

    /// `pcitopoinfo`.
    pub struct PciTopoInfo = "struct xen_sysctl_pcitopoinfo", 24 {
        0 num_devs: u32,
        4 _pad: u32,
        8 devs: GuestPtr<PhysdevPciDevice>,
        16 nodes: GuestPtr<u32>,
    }

    /// `get_cpu_levelling_caps`.
    pub struct CpuLevellingCaps = "struct xen_sysctl_cpu_levelling_caps", 4 {
        0 caps: u32,
    }

    /// `get_cpu_featureset`.
    pub struct CpuFeatureset = "struct xen_sysctl_cpu_featureset", 16 {
        0 index: FeaturesetIndex,
        4 nr_features: u32,
        8 features: GuestPtr<u32>,
    }

    /// `get_cpu_policy`.
    pub struct SysctlCpuPolicy = "struct xen_sysctl_cpu_policy", 32 {
        0 index: CpuPolicyIndex,
        4 nr_leaves: u32,
        8 nr_msrs: u32,
        12 _rsvd: u32,
        16 leaves: GuestPtr<CpuidLeaf>,
        24 msrs: GuestPtr<MsrEntry>,
    }
}
