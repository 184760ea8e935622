// SPDX-License-Identifier: MIT OR Apache-2.0
//! `sysctl`: how tools ask about and steer the whole machine. The arguments are in [`crate::sysctl_args`].

use crate::layout::{codes, constants, record};
use crate::payload::Payload;

constants! { Constants {
    /// Tested before the sub-operation; a wrong one is `-EACCES`.
    XEN_SYSCTL_INTERFACE_VERSION(XEN_SYSCTL_INTERFACE_VERSION): u32 = 0x15,
}}

codes! {
    /// A sub-operation of `sysctl`.
    pub struct SysctlCmd(u32) {
        READCONSOLE(XEN_SYSCTL_readconsole) = 1,
        TBUF_OP(XEN_SYSCTL_tbuf_op) = 2,
        PHYSINFO(XEN_SYSCTL_physinfo) = 3,
        SCHED_ID(XEN_SYSCTL_sched_id) = 4,
        PERFC_OP(XEN_SYSCTL_perfc_op) = 5,
        GETDOMAININFOLIST(XEN_SYSCTL_getdomaininfolist) = 6,
        DEBUG_KEYS(XEN_SYSCTL_debug_keys) = 7,
        GETCPUINFO(XEN_SYSCTL_getcpuinfo) = 8,
        AVAILHEAP(XEN_SYSCTL_availheap) = 9,
        GET_PMSTAT(XEN_SYSCTL_get_pmstat) = 10,
        CPU_HOTPLUG(XEN_SYSCTL_cpu_hotplug) = 11,
        PM_OP(XEN_SYSCTL_pm_op) = 12,
        PAGE_OFFLINE_OP(XEN_SYSCTL_page_offline_op) = 14,
        LOCKPROF_OP(XEN_SYSCTL_lockprof_op) = 15,
        CPUTOPOINFO(XEN_SYSCTL_cputopoinfo) = 16,
        NUMAINFO(XEN_SYSCTL_numainfo) = 17,
        CPUPOOL_OP(XEN_SYSCTL_cpupool_op) = 18,
        SCHEDULER_OP(XEN_SYSCTL_scheduler_op) = 19,
        COVERAGE_OP(XEN_SYSCTL_coverage_op) = 20,
        PSR_CMT_OP(XEN_SYSCTL_psr_cmt_op) = 21,
        PCITOPOINFO(XEN_SYSCTL_pcitopoinfo) = 22,
        PSR_ALLOC(XEN_SYSCTL_psr_alloc) = 23,
        GET_CPU_LEVELLING_CAPS(XEN_SYSCTL_get_cpu_levelling_caps) = 25,
        GET_CPU_FEATURESET(XEN_SYSCTL_get_cpu_featureset) = 26,
        LIVEPATCH_OP(XEN_SYSCTL_livepatch_op) = 27,
        GET_CPU_POLICY(XEN_SYSCTL_get_cpu_policy) = 29,
    }
}

record! {
    /// The argument of `sysctl`.
    pub struct Sysctl = "struct xen_sysctl", 136 {
        0 cmd: SysctlCmd,
        4 interface_version: u32,
        8 u: Payload,
    }
}
