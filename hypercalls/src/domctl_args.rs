// SPDX-License-Identifier: MIT OR Apache-2.0
//! The arguments of `domctl`: what lies in the union of [`crate::domctl::Domctl`].

use crate::cpuid::{CpuidLeaf, MsrEntry};
use crate::layout::{codes, constants, record};
use crate::memory::Vmemrange;
use crate::{DomId, GuestPtr, VcpuGuestContext};

constants! { Constants {
    XEN_DOMCTL_CDF_HVM(XEN_DOMCTL_CDF_hvm): u32 = 1 << 0,
    XEN_DOMCTL_CDF_HAP(XEN_DOMCTL_CDF_hap): u32 = 1 << 1,
    XEN_DOMCTL_CDF_S3_INTEGRITY(XEN_DOMCTL_CDF_s3_integrity): u32 = 1 << 2,
    XEN_DOMCTL_CDF_OOS_OFF(XEN_DOMCTL_CDF_oos_off): u32 = 1 << 3,
    XEN_DOMCTL_CDF_XS_DOMAIN(XEN_DOMCTL_CDF_xs_domain): u32 = 1 << 4,
    XEN_DOMCTL_CDF_IOMMU(XEN_DOMCTL_CDF_iommu): u32 = 1 << 5,
    XEN_DOMCTL_CDF_NESTED_VIRT(XEN_DOMCTL_CDF_nested_virt): u32 = 1 << 6,
    XEN_DOMCTL_CDF_VPMU(XEN_DOMCTL_CDF_vpmu): u32 = 1 << 7,
    XEN_DOMCTL_IOMMU_NO_SHAREPT(XEN_DOMCTL_IOMMU_no_sharept): u32 = 1,
    XEN_DOMCTL_GRANT_VERSION_MASK(XEN_DOMCTL_GRANT_version_mask): u32 = 0xf,
    XEN_X86_EMU_ALL(XEN_X86_EMU_ALL): u32 = 0x7ff,
    XEN_X86_MSR_RELAXED(XEN_X86_MSR_RELAXED): u32 = 1,
    XEN_DOMINF_DYING(XEN_DOMINF_dying): u32 = 1 << 0,
    XEN_DOMINF_HVM_GUEST(XEN_DOMINF_hvm_guest): u32 = 1 << 1,
    XEN_DOMINF_SHUTDOWN(XEN_DOMINF_shutdown): u32 = 1 << 2,
    XEN_DOMINF_PAUSED(XEN_DOMINF_paused): u32 = 1 << 3,
    XEN_DOMINF_BLOCKED(XEN_DOMINF_blocked): u32 = 1 << 4,
    XEN_DOMINF_RUNNING(XEN_DOMINF_running): u32 = 1 << 5,
    XEN_DOMINF_DEBUGGED(XEN_DOMINF_debugged): u32 = 1 << 6,
    XEN_DOMINF_XS_DOMAIN(XEN_DOMINF_xs_domain): u32 = 1 << 7,
    XEN_DOMINF_HAP(XEN_DOMINF_hap): u32 = 1 << 8,
    XEN_DOMINF_SHUTDOWNMASK(XEN_DOMINF_shutdownmask): u32 = 255,
    XEN_DOMINF_SHUTDOWNSHIFT(XEN_DOMINF_shutdownshift): u32 = 16,
    XEN_INVALID_MAX_VCPU_ID(XEN_INVALID_MAX_VCPU_ID): u32 = u32::MAX,
    XEN_DOMCTL_PFINFO_NOTAB(XEN_DOMCTL_PFINFO_NOTAB): u32 = 0,
    XEN_DOMCTL_PFINFO_L1TAB(XEN_DOMCTL_PFINFO_L1TAB): u32 = 1 << 28,
    XEN_DOMCTL_PFINFO_L2TAB(XEN_DOMCTL_PFINFO_L2TAB): u32 = 2 << 28,
    XEN_DOMCTL_PFINFO_L3TAB(XEN_DOMCTL_PFINFO_L3TAB): u32 = 3 << 28,
    XEN_DOMCTL_PFINFO_L4TAB(XEN_DOMCTL_PFINFO_L4TAB): u32 = 4 << 28,
    XEN_DOMCTL_PFINFO_LPINTAB(XEN_DOMCTL_PFINFO_LPINTAB): u32 = 1 << 31,
    XEN_DOMCTL_PFINFO_XTAB(XEN_DOMCTL_PFINFO_XTAB): u32 = 0xf << 28,
    XEN_DOMCTL_PFINFO_XALLOC(XEN_DOMCTL_PFINFO_XALLOC): u32 = 0xe << 28,
    XEN_DOMCTL_PFINFO_BROKEN(XEN_DOMCTL_PFINFO_BROKEN): u32 = 0xd << 28,
    XEN_VCPUAFFINITY_HARD(XEN_VCPUAFFINITY_HARD): u32 = 1,
    XEN_VCPUAFFINITY_SOFT(XEN_VCPUAFFINITY_SOFT): u32 = 2,
    XEN_VCPUAFFINITY_FORCE(XEN_VCPUAFFINITY_FORCE): u32 = 4,
}}

codes! {
    /// A scheduler's number.
    pub struct SchedulerId(u32) {
        CREDIT(XEN_SCHEDULER_CREDIT) = 5,
        CREDIT2(XEN_SCHEDULER_CREDIT2) = 6,
        ARINC653(XEN_SCHEDULER_ARINC653) = 7,
        RTDS(XEN_SCHEDULER_RTDS) = 8,
        NULL(XEN_SCHEDULER_NULL) = 9,
    }

    /// What `scheduler_op` does.
    pub struct DomctlSchedOp(u32) {
        PUTINFO(XEN_DOMCTL_SCHEDOP_putinfo) = 0,
        GETINFO(XEN_DOMCTL_SCHEDOP_getinfo) = 1,
        PUTVCPUINFO(XEN_DOMCTL_SCHEDOP_putvcpuinfo) = 2,
        GETVCPUINFO(XEN_DOMCTL_SCHEDOP_getvcpuinfo) = 3,
    }

    /// What `shadow_op` does.
    pub struct ShadowOp(u32) {
        OFF(XEN_DOMCTL_SHADOW_OP_OFF) = 0,
        ENABLE_TEST(XEN_DOMCTL_SHADOW_OP_ENABLE_TEST) = 1,
        ENABLE_LOGDIRTY(XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY) = 2,
        CLEAN(XEN_DOMCTL_SHADOW_OP_CLEAN) = 11,
        PEEK(XEN_DOMCTL_SHADOW_OP_PEEK) = 12,
        GET_ALLOCATION(XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION) = 30,
        SET_ALLOCATION(XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION) = 31,
        ENABLE(XEN_DOMCTL_SHADOW_OP_ENABLE) = 32,
    }

    /// What `sendtrigger` sends.
    pub struct Trigger(u32) {
        NMI(XEN_DOMCTL_SENDTRIGGER_NMI) = 0,
        RESET(XEN_DOMCTL_SENDTRIGGER_RESET) = 1,
        INIT(XEN_DOMCTL_SENDTRIGGER_INIT) = 2,
        POWER(XEN_DOMCTL_SENDTRIGGER_POWER) = 3,
        SLEEP(XEN_DOMCTL_SENDTRIGGER_SLEEP) = 4,
    }
}

record! {
    /// A bitmap in the caller's memory.
    pub struct Bitmap = "struct xenctl_bitmap", 16 {
        0 bitmap: GuestPtr<u8>,
        8 nr_bits: u32,
        12 _pad: u32,
    }

    /// The architecture's part of a domain's configuration.
    pub struct ArchDomainConfig = "struct xen_arch_domainconfig", 8 {
        0 emulation_flags: u32,
        4 misc_flags: u32,
    }

    /// `createdomain`.
    pub struct CreateDomain = "struct xen_domctl_createdomain", 64 {
        0 ssidref: u32,
        4 handle: [u8; 16],
        /// `XEN_DOMCTL_CDF_*`.
        20 flags: u32,
        24 iommu_opts: u32,
        28 max_vcpus: u32,
        32 max_evtchn_port: u32,
        36 max_grant_frames: i32,
        40 max_maptrack_frames: i32,
        44 grant_opts: u32,
        48 vmtrace_size: u32,
        52 cpupool_id: u32,
        56 arch: ArchDomainConfig,
    }

    /// `getdomaininfo`.
    pub struct GetDomainInfo = "struct xen_domctl_getdomaininfo", 112 {
        0 domain: DomId,
        2 _pad1: u16,
        /// `XEN_DOMINF_*`.
        4 flags: u32,
        8 tot_pages: u64,
        16 max_pages: u64,
        24 outstanding_pages: u64,
        32 shr_pages: u64,
        40 paged_pages: u64,
        48 shared_info_frame: u64,
        56 cpu_time: u64,
        64 nr_online_vcpus: u32,
        68 max_vcpu_id: u32,
        72 ssidref: u32,
        76 handle: [u8; 16],
        92 cpupool: u32,
        96 gpaddr_bits: u8,
        97 _pad2: [u8; 7],
        104 arch_config: ArchDomainConfig,
    }

    /// `getpageframeinfo3`.
    pub struct GetPageFrameInfo3 = "struct xen_domctl_getpageframeinfo3", 16 {
        0 num: u64,
        8 array: GuestPtr<u64>,
    }

    /// `shadow_op`.
    pub struct DomctlShadowOp = "struct xen_domctl_shadow_op", 40 {
        0 op: ShadowOp,
        4 mode: u32,
        8 mb: u32,
        12 _pad: u32,
        16 dirty_bitmap: GuestPtr<u8>,
        24 pages: u64,
        32 fault_count: u32 = "stats.fault_count",
        36 dirty_count: u32 = "stats.dirty_count",
    }

    /// `max_mem`.
    pub struct MaxMem = "struct xen_domctl_max_mem", 8 {
        0 max_memkb: u64,
    }

    /// `setvcpucontext` and `getvcpucontext`.
    pub struct DomctlVcpuContext = "struct xen_domctl_vcpucontext", 16 {
        0 vcpu: u32,
        4 _pad: u32,
        8 ctxt: GuestPtr<VcpuGuestContext>,
    }

    /// `getvcpuinfo`.
    pub struct GetVcpuInfo = "struct xen_domctl_getvcpuinfo", 24 {
        0 vcpu: u32,
        4 online: u8,
        5 blocked: u8,
        6 running: u8,
        7 _pad0: u8,
        8 cpu_time: u64,
        16 cpu: u32,
        20 _pad1: u32,
    }

    /// `setnodeaffinity` and `getnodeaffinity`.
    pub struct NodeAffinity = "struct xen_domctl_nodeaffinity", 16 {
        0 nodemap: Bitmap,
    }

    /// `setvcpuaffinity` and `getvcpuaffinity`.
    pub struct VcpuAffinity = "struct xen_domctl_vcpuaffinity", 40 {
        0 vcpu: u32,
        4 flags: u32,
        8 cpumap_hard: Bitmap,
        24 cpumap_soft: Bitmap,
    }

    /// `max_vcpus`.
    pub struct MaxVcpus = "struct xen_domctl_max_vcpus", 4 {
        0 max: u32,
    }

    /// `scheduler_op` with credit2's part of the union.
    pub struct DomctlSchedulerOp = "struct xen_domctl_scheduler_op", 24 {
        0 sched_id: SchedulerId,
        4 cmd: DomctlSchedOp,
        8 weight: u16 = "u.credit2.weight",
        10 cap: u16 = "u.credit2.cap",
        12 _pad: u32,
        16 nr_vcpus: u32 = "u.v.nr_vcpus",
        20 padding: u32 = "u.v.padding",
    }

    /// `setdomainhandle`.
    pub struct SetDomainHandle = "struct xen_domctl_setdomainhandle", 16 {
        0 handle: [u8; 16],
    }

    /// `irq_permission`.
    pub struct IrqPermission = "struct xen_domctl_irq_permission", 8 {
        0 pirq: u32,
        4 allow_access: u8,
        5 _pad: [u8; 3],
    }

    /// `iomem_permission`.
    pub struct IomemPermission = "struct xen_domctl_iomem_permission", 24 {
        0 first_mfn: u64,
        8 nr_mfns: u64,
        16 allow_access: u8,
        17 _pad: [u8; 7],
    }

    /// `ioport_permission`.
    pub struct IoportPermission = "struct xen_domctl_ioport_permission", 12 {
        0 first_port: u32,
        4 nr_ports: u32,
        8 allow_access: u8,
        9 _pad: [u8; 3],
    }

    /// `hypercall_init`.
    pub struct HypercallInit = "struct xen_domctl_hypercall_init", 8 {
        0 gmfn: u64,
    }

    /// `settimeoffset`.
    pub struct SetTimeOffset = "struct xen_domctl_settimeoffset", 8 {
        0 time_offset_seconds: i64,
    }

    /// `set_address_size` and `get_address_size`.
    pub struct AddressSize = "struct xen_domctl_address_size", 4 {
        0 size: u32,
    }

    /// `sendtrigger`.
    pub struct SendTrigger = "struct xen_domctl_sendtrigger", 8 {
        0 trigger: Trigger,
        4 vcpu: u32,
    }

    /// `memory_mapping`.
    pub struct MemoryMapping = "struct xen_domctl_memory_mapping", 32 {
        0 first_gfn: u64,
        8 first_mfn: u64,
        16 nr_mfns: u64,
        24 add_mapping: u32,
        28 padding: u32,
    }

    /// `set_ext_vcpucontext` and `get_ext_vcpucontext`.
    pub struct ExtVcpuContext = "struct xen_domctl_ext_vcpucontext", 64 {
        0 vcpu: u32,
        4 size: u32,
        8 syscall32_callback_eip: u64,
        16 sysenter_callback_eip: u64,
        24 syscall32_callback_cs: u16,
        26 sysenter_callback_cs: u16,
        28 syscall32_disables_events: u8,
        29 sysenter_disables_events: u8,
        30 _pad: u16,
        32 mcg_cap: u64,
        40 _vmce: [u64; 3],
    }

    /// `get_cpu_policy` and `set_cpu_policy`.
    pub struct DomctlCpuPolicy = "struct xen_domctl_cpu_policy", 40 {
        0 nr_leaves: u32,
        4 nr_msrs: u32,
        8 leaves: GuestPtr<CpuidLeaf>,
        16 msrs: GuestPtr<MsrEntry>,
        24 err_leaf: u32,
        28 err_subleaf: u32,
        32 err_msr: u32,
        36 _pad: u32,
    }

    /// `subscribe`.
    pub struct Subscribe = "struct xen_domctl_subscribe", 4 {
        0 port: u32,
    }

    /// `gettscinfo` and `settscinfo`.
    pub struct TscInfo = "struct xen_domctl_tsc_info", 24 {
        0 tsc_mode: u32,
        4 gtsc_khz: u32,
        8 incarnation: u32,
        12 pad: u32,
        16 elapsed_nsec: u64,
    }

    /// `set_virq_handler`.
    pub struct SetVirqHandler = "struct xen_domctl_set_virq_handler", 4 {
        0 virq: crate::Virq,
    }

    /// `setvcpuextstate` and `getvcpuextstate`.
    pub struct VcpuExtState = "struct xen_domctl_vcpuextstate", 32 {
        0 vcpu: u32,
        4 _pad: u32,
        8 xfeature_mask: u64,
        16 size: u64,
        24 buffer: GuestPtr<u64>,
    }

    /// One MSR of `get_vcpu_msrs` and `set_vcpu_msrs`.
    pub struct VcpuMsr = "struct xen_domctl_vcpu_msr", 16 {
        0 index: u32,
        4 reserved: u32,
        8 value: u64,
    }

    /// `get_vcpu_msrs` and `set_vcpu_msrs`.
    pub struct VcpuMsrs = "struct xen_domctl_vcpu_msrs", 16 {
        0 vcpu: u32,
        4 msr_count: u32,
        8 msrs: GuestPtr<VcpuMsr>,
    }

    /// `setvnumainfo`.
    pub struct DomctlVnuma = "struct xen_domctl_vnuma", 48 {
        0 nr_vnodes: u32,
        4 nr_vmemranges: u32,
        8 nr_vcpus: u32,
        12 pad: u32,
        16 vdistance: GuestPtr<u32>,
        24 vcpu_to_vnode: GuestPtr<u32>,
        32 vnode_to_pnode: GuestPtr<u32>,
        40 vmemrange: GuestPtr<Vmemrange>,
    }

    /// `get_paging_mempool_size` and `set_paging_mempool_size`.
    pub struct PagingMempool = "struct xen_domctl_paging_mempool", 8 {
        0 size: u64,
    }
}
