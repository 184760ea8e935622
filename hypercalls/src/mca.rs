// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mca`: how the hardware domain learns of errors that the machine has found in itself, and feigns some.

use crate::GuestPtr;
use crate::domctl_args::Bitmap;
use crate::layout::{codes, constants, record};
use crate::payload::Payload;

codes! {
    /// A sub-operation of `mca`.
    pub struct McaCmd(u32) {
        FETCH(XEN_MC_fetch) = 1,
        NOTIFYDOMAIN(XEN_MC_notifydomain) = 2,
        PHYSCPUINFO(XEN_MC_physcpuinfo) = 3,
        MSRINJECT(XEN_MC_msrinject) = 4,
        MCEINJECT(XEN_MC_mceinject) = 5,
        INJECT_V2(XEN_MC_inject_v2) = 6,
    }

    /// What an entry of a record is.
    pub struct McKind(u16) {
        GLOBAL(MC_TYPE_GLOBAL) = 0,
        BANK(MC_TYPE_BANK) = 1,
        EXTENDED(MC_TYPE_EXTENDED) = 2,
        RECOVERY(MC_TYPE_RECOVERY) = 3,
    }
}

constants! { Constants {
    /// Tested before the sub-operation; a wrong one is `-EACCES`.
    XEN_MCA_INTERFACE_VERSION(XEN_MCA_INTERFACE_VERSION): u32 = 0x01ec_c003,
    XEN_MC_NONURGENT(XEN_MC_NONURGENT): u32 = 1,
    XEN_MC_URGENT(XEN_MC_URGENT): u32 = 2,
    XEN_MC_ACK(XEN_MC_ACK): u32 = 4,
    XEN_MC_OK(XEN_MC_OK): u32 = 0,
    XEN_MC_FETCHFAILED(XEN_MC_FETCHFAILED): u32 = 1,
    XEN_MC_NODATA(XEN_MC_NODATA): u32 = 2,
    XEN_MC_VCPUID_INVALID(XEN_MC_VCPUID_INVALID): u16 = 0xffff,
    MC_FLAG_CORRECTABLE(MC_FLAG_CORRECTABLE): u32 = 1,
    MC_FLAG_UNCORRECTABLE(MC_FLAG_UNCORRECTABLE): u32 = 1 << 1,
    MC_FLAG_RECOVERABLE(MC_FLAG_RECOVERABLE): u32 = 1 << 2,
    MC_FLAG_POLLED(MC_FLAG_POLLED): u32 = 1 << 3,
    MC_FLAG_RESET(MC_FLAG_RESET): u32 = 1 << 4,
    MC_FLAG_CMCI(MC_FLAG_CMCI): u32 = 1 << 5,
    MC_FLAG_MCE(MC_FLAG_MCE): u32 = 1 << 6,
    /// Not all entries found room.
    MCINFO_FLAGS_UNCOMPLETE(MCINFO_FLAGS_UNCOMPLETE): u32 = 1,
    MC_MSRINJ_F_INTERPOSE(MC_MSRINJ_F_INTERPOSE): u32 = 1,
    MC_MSRINJ_F_GPADDR(MC_MSRINJ_F_GPADDR): u32 = 2,
    MC_MSRINJ_MAXMSRS(MC_MSRINJ_MAXMSRS): usize = 8,
    XEN_MC_INJECT_TYPE_MASK(XEN_MC_INJECT_TYPE_MASK): u32 = 7,
    XEN_MC_INJECT_TYPE_MCE(XEN_MC_INJECT_TYPE_MCE): u32 = 0,
    XEN_MC_INJECT_TYPE_CMCI(XEN_MC_INJECT_TYPE_CMCI): u32 = 1,
    XEN_MC_INJECT_TYPE_LMCE(XEN_MC_INJECT_TYPE_LMCE): u32 = 2,
    XEN_MC_INJECT_CPU_BROADCAST(XEN_MC_INJECT_CPU_BROADCAST): u32 = 8,
}}

record! {
    /// The argument of `mca`.
    pub struct McaOp = "struct xen_mc", 152 {
        0 cmd: McaCmd,
        4 interface_version: u32,
        8 u: Payload<18>,
    }

    /// `fetch`.
    pub struct McFetch = "struct xen_mc_fetch", 24 {
        0 flags: u32,
        4 _pad0: u32,
        8 fetch_id: u64,
        16 data: GuestPtr<McInfo>,
    }

    /// `physcpuinfo`.
    pub struct McPhysCpuInfo = "struct xen_mc_physcpuinfo", 16 {
        0 ncpus: u32,
        4 _pad0: u32,
        8 info: GuestPtr<McLogicalCpu>,
    }

    /// `msrinject`.
    pub struct McMsrInject = "struct xen_mc_msrinject", 144 {
        0 cpunr: u32 = "mcinj_cpunr",
        4 flags: u32 = "mcinj_flags",
        8 count: u32 = "mcinj_count",
        12 domid: crate::DomId = "mcinj_domid",
        14 _pad0: u16,
        16 msr: [McMsr; MC_MSRINJ_MAXMSRS] = "mcinj_msr",
    }

    /// `mceinject`.
    pub struct McMceInject = "struct xen_mc_mceinject", 4 {
        0 cpunr: u32 = "mceinj_cpunr",
    }

    /// `inject_v2`.
    pub struct McInjectV2 = "struct xen_mc_inject_v2", 24 {
        0 flags: u32,
        4 _pad: u32,
        8 cpumap: Bitmap,
    }

    /// A register and its value.
    pub struct McMsr = "struct mcinfo_msr", 16 {
        0 reg: u64,
        8 value: u64,
    }

    /// What a CPU is.
    pub struct McLogicalCpu = "struct mcinfo_logical_cpu", 304 {
        0 cpunr: u32 = "mc_cpunr",
        4 chipid: u32 = "mc_chipid",
        8 coreid: u16 = "mc_coreid",
        10 threadid: u16 = "mc_threadid",
        12 apicid: u32 = "mc_apicid",
        16 clusterid: u32 = "mc_clusterid",
        20 ncores: u32 = "mc_ncores",
        24 ncores_active: u32 = "mc_ncores_active",
        28 nthreads: u32 = "mc_nthreads",
        32 cpuid_level: i32 = "mc_cpuid_level",
        36 family: u32 = "mc_family",
        40 vendor: u32 = "mc_vendor",
        44 model: u32 = "mc_model",
        48 step: u32 = "mc_step",
        52 vendorid: [u8; 16] = "mc_vendorid",
        68 brandid: [u8; 64] = "mc_brandid",
        132 cpu_caps: [u32; 7] = "mc_cpu_caps",
        160 cache_size: u32 = "mc_cache_size",
        164 cache_alignment: u32 = "mc_cache_alignment",
        168 nmsrvals: i32 = "mc_nmsrvals",
        172 _pad: u32,
        176 msrvalues: [McMsr; 8] = "mc_msrvalues",
    }

    /// The head of each entry of a record.
    pub struct McCommon = "struct mcinfo_common", 4 {
        0 kind: McKind = "type",
        2 size: u16,
    }

    /// An entry about a CPU that has found errors.
    pub struct McGlobal = "struct mcinfo_global", 32 {
        0 common: McCommon,
        4 domid: crate::DomId = "mc_domid",
        6 vcpuid: u16 = "mc_vcpuid",
        8 socketid: u32 = "mc_socketid",
        12 coreid: u16 = "mc_coreid",
        14 core_threadid: u16 = "mc_core_threadid",
        16 apicid: u32 = "mc_apicid",
        20 flags: u32 = "mc_flags",
        24 gstatus: u64 = "mc_gstatus",
    }

    /// An entry about an error.
    pub struct McBank = "struct mcinfo_bank", 48 {
        0 common: McCommon,
        4 bank: u16 = "mc_bank",
        6 domid: crate::DomId = "mc_domid",
        8 status: u64 = "mc_status",
        16 addr: u64 = "mc_addr",
        24 misc: u64 = "mc_misc",
        32 ctrl2: u64 = "mc_ctrl2",
        40 tsc: u64 = "mc_tsc",
    }

    /// A record: entries one behind the other.
    pub struct McInfo = "struct mc_info", 768 {
        0 nentries: u32 = "mi_nentries",
        4 flags: u32,
        8 data: [u64; 95] = "mi_data",
    }
}
