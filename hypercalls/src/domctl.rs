// SPDX-License-Identifier: MIT OR Apache-2.0
//! `domctl`: how tools build and steer domains. The arguments are in [`crate::domctl_args`].

use crate::DomId;
use crate::layout::{codes, constants, record};
use crate::payload::Payload;

constants! { Constants {
    /// Tested before the sub-operation; a wrong one is `-EACCES`.
    XEN_DOMCTL_INTERFACE_VERSION(XEN_DOMCTL_INTERFACE_VERSION): u32 = 0x15,
}}

codes! {
    /// A sub-operation of `domctl`.
    pub struct DomctlCmd(u32) {
        CREATEDOMAIN(XEN_DOMCTL_createdomain) = 1,
        DESTROYDOMAIN(XEN_DOMCTL_destroydomain) = 2,
        PAUSEDOMAIN(XEN_DOMCTL_pausedomain) = 3,
        UNPAUSEDOMAIN(XEN_DOMCTL_unpausedomain) = 4,
        GETDOMAININFO(XEN_DOMCTL_getdomaininfo) = 5,
        SETVCPUAFFINITY(XEN_DOMCTL_setvcpuaffinity) = 9,
        SHADOW_OP(XEN_DOMCTL_shadow_op) = 10,
        MAX_MEM(XEN_DOMCTL_max_mem) = 11,
        SETVCPUCONTEXT(XEN_DOMCTL_setvcpucontext) = 12,
        GETVCPUCONTEXT(XEN_DOMCTL_getvcpucontext) = 13,
        GETVCPUINFO(XEN_DOMCTL_getvcpuinfo) = 14,
        MAX_VCPUS(XEN_DOMCTL_max_vcpus) = 15,
        SCHEDULER_OP(XEN_DOMCTL_scheduler_op) = 16,
        SETDOMAINHANDLE(XEN_DOMCTL_setdomainhandle) = 17,
        SETDEBUGGING(XEN_DOMCTL_setdebugging) = 18,
        IRQ_PERMISSION(XEN_DOMCTL_irq_permission) = 19,
        IOMEM_PERMISSION(XEN_DOMCTL_iomem_permission) = 20,
        IOPORT_PERMISSION(XEN_DOMCTL_ioport_permission) = 21,
        HYPERCALL_INIT(XEN_DOMCTL_hypercall_init) = 22,
        SOFT_RESET_CONT(-) = 23,
        SETTIMEOFFSET(XEN_DOMCTL_settimeoffset) = 24,
        GETVCPUAFFINITY(XEN_DOMCTL_getvcpuaffinity) = 25,
        REAL_MODE_AREA(XEN_DOMCTL_real_mode_area) = 26,
        RESUMEDOMAIN(XEN_DOMCTL_resumedomain) = 27,
        SENDTRIGGER(XEN_DOMCTL_sendtrigger) = 28,
        SUBSCRIBE(XEN_DOMCTL_subscribe) = 29,
        GETHVMCONTEXT(XEN_DOMCTL_gethvmcontext) = 33,
        SETHVMCONTEXT(XEN_DOMCTL_sethvmcontext) = 34,
        SET_ADDRESS_SIZE(XEN_DOMCTL_set_address_size) = 35,
        GET_ADDRESS_SIZE(XEN_DOMCTL_get_address_size) = 36,
        ASSIGN_DEVICE(XEN_DOMCTL_assign_device) = 37,
        BIND_PT_IRQ(XEN_DOMCTL_bind_pt_irq) = 38,
        MEMORY_MAPPING(XEN_DOMCTL_memory_mapping) = 39,
        IOPORT_MAPPING(XEN_DOMCTL_ioport_mapping) = 40,
        SET_EXT_VCPUCONTEXT(XEN_DOMCTL_set_ext_vcpucontext) = 42,
        GET_EXT_VCPUCONTEXT(XEN_DOMCTL_get_ext_vcpucontext) = 43,
        SET_OPT_FEATURE(XEN_DOMCTL_set_opt_feature) = 44,
        TEST_ASSIGN_DEVICE(XEN_DOMCTL_test_assign_device) = 45,
        SET_TARGET(XEN_DOMCTL_set_target) = 46,
        DEASSIGN_DEVICE(XEN_DOMCTL_deassign_device) = 47,
        UNBIND_PT_IRQ(XEN_DOMCTL_unbind_pt_irq) = 48,
        GET_DEVICE_GROUP(XEN_DOMCTL_get_device_group) = 50,
        DEBUG_OP(XEN_DOMCTL_debug_op) = 54,
        GETHVMCONTEXT_PARTIAL(XEN_DOMCTL_gethvmcontext_partial) = 55,
        VM_EVENT_OP(XEN_DOMCTL_vm_event_op) = 56,
        MEM_SHARING_OP(XEN_DOMCTL_mem_sharing_op) = 57,
        GETTSCINFO(XEN_DOMCTL_gettscinfo) = 59,
        SETTSCINFO(XEN_DOMCTL_settscinfo) = 60,
        GETPAGEFRAMEINFO3(XEN_DOMCTL_getpageframeinfo3) = 61,
        SETVCPUEXTSTATE(XEN_DOMCTL_setvcpuextstate) = 62,
        GETVCPUEXTSTATE(XEN_DOMCTL_getvcpuextstate) = 63,
        SET_ACCESS_REQUIRED(XEN_DOMCTL_set_access_required) = 64,
        AUDIT_P2M(XEN_DOMCTL_audit_p2m) = 65,
        SET_VIRQ_HANDLER(XEN_DOMCTL_set_virq_handler) = 66,
        SET_BROKEN_PAGE_P2M(XEN_DOMCTL_set_broken_page_p2m) = 67,
        SETNODEAFFINITY(XEN_DOMCTL_setnodeaffinity) = 68,
        GETNODEAFFINITY(XEN_DOMCTL_getnodeaffinity) = 69,
        CACHEFLUSH(XEN_DOMCTL_cacheflush) = 71,
        GET_VCPU_MSRS(XEN_DOMCTL_get_vcpu_msrs) = 72,
        SET_VCPU_MSRS(XEN_DOMCTL_set_vcpu_msrs) = 73,
        SETVNUMAINFO(XEN_DOMCTL_setvnumainfo) = 74,
        PSR_CMT_OP(XEN_DOMCTL_psr_cmt_op) = 75,
        MONITOR_OP(XEN_DOMCTL_monitor_op) = 77,
        PSR_ALLOC(XEN_DOMCTL_psr_alloc) = 78,
        SOFT_RESET(XEN_DOMCTL_soft_reset) = 79,
        VUART_OP(XEN_DOMCTL_vuart_op) = 81,
        GET_CPU_POLICY(XEN_DOMCTL_get_cpu_policy) = 82,
        SET_CPU_POLICY(XEN_DOMCTL_set_cpu_policy) = 83,
        VMTRACE_OP(XEN_DOMCTL_vmtrace_op) = 84,
        GET_PAGING_MEMPOOL_SIZE(XEN_DOMCTL_get_paging_mempool_size) = 85,
        SET_PAGING_MEMPOOL_SIZE(XEN_DOMCTL_set_paging_mempool_size) = 86,
        GDBSX_GUESTMEMIO(XEN_DOMCTL_gdbsx_guestmemio) = 1000,
        GDBSX_PAUSEVCPU(XEN_DOMCTL_gdbsx_pausevcpu) = 1001,
        GDBSX_UNPAUSEVCPU(XEN_DOMCTL_gdbsx_unpausevcpu) = 1002,
        GDBSX_DOMSTATUS(XEN_DOMCTL_gdbsx_domstatus) = 1003,
    }
}

record! {
    /// The argument of `domctl`.
    pub struct Domctl = "struct xen_domctl", 144 {
        0 cmd: DomctlCmd,
        4 interface_version: u32,
        8 domain: DomId,
        10 _pad: [u16; 3],
        16 u: Payload,
    }
}
