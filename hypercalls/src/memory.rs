// SPDX-License-Identifier: MIT OR Apache-2.0
//! `memory_op`: reservations, maps and tables of memory.

use crate::layout::{codes, constants, record};
use crate::{DomId, GuestPtr};

codes! {
    /// A sub-operation of `memory_op`: the low six bits of the command.
    pub struct MemoryOp(u32) {
        INCREASE_RESERVATION(XENMEM_increase_reservation) = 0,
        DECREASE_RESERVATION(XENMEM_decrease_reservation) = 1,
        MAXIMUM_RAM_PAGE(XENMEM_maximum_ram_page) = 2,
        CURRENT_RESERVATION(XENMEM_current_reservation) = 3,
        MAXIMUM_RESERVATION(XENMEM_maximum_reservation) = 4,
        MACHPHYS_MFN_LIST(XENMEM_machphys_mfn_list) = 5,
        POPULATE_PHYSMAP(XENMEM_populate_physmap) = 6,
        ADD_TO_PHYSMAP(XENMEM_add_to_physmap) = 7,
        MEMORY_MAP(XENMEM_memory_map) = 9,
        MACHINE_MEMORY_MAP(XENMEM_machine_memory_map) = 10,
        EXCHANGE(XENMEM_exchange) = 11,
        MACHPHYS_MAPPING(XENMEM_machphys_mapping) = 12,
        SET_MEMORY_MAP(XENMEM_set_memory_map) = 13,
        MAXIMUM_GPFN(XENMEM_maximum_gpfn) = 14,
        REMOVE_FROM_PHYSMAP(XENMEM_remove_from_physmap) = 15,
        SET_POD_TARGET(XENMEM_set_pod_target) = 16,
        GET_POD_TARGET(XENMEM_get_pod_target) = 17,
        GET_SHARING_FREED_PAGES(XENMEM_get_sharing_freed_pages) = 18,
        GET_SHARING_SHARED_PAGES(XENMEM_get_sharing_shared_pages) = 19,
        PAGING_OP(XENMEM_paging_op) = 20,
        ACCESS_OP(XENMEM_access_op) = 21,
        SHARING_OP(XENMEM_sharing_op) = 22,
        ADD_TO_PHYSMAP_BATCH(XENMEM_add_to_physmap_batch) = 23,
        CLAIM_PAGES(XENMEM_claim_pages) = 24,
        MACHPHYS_COMPAT_MFN_LIST(XENMEM_machphys_compat_mfn_list) = 25,
        GET_VNUMAINFO(XENMEM_get_vnumainfo) = 26,
        RESERVED_DEVICE_MEMORY_MAP(XENMEM_reserved_device_memory_map) = 27,
        ACQUIRE_RESOURCE(XENMEM_acquire_resource) = 28,
    }

    /// What `acquire_resource` hands out.
    pub struct ResourceType(u16) {
        IOREQ_SERVER(XENMEM_resource_ioreq_server) = 0,
        GRANT_TABLE(XENMEM_resource_grant_table) = 1,
        VMTRACE_BUF(XENMEM_resource_vmtrace_buf) = 2,
    }

    /// What a stretch of the machine's memory is.
    pub struct E820Type(u32) {
        RAM(-) = 1,
        RESERVED(-) = 2,
        ACPI(-) = 3,
        NVS(-) = 4,
        UNUSABLE(-) = 5,
    }
}

constants! { Constants {
    MEMF_POPULATE_ON_DEMAND(XENMEMF_populate_on_demand): u32 = 1 << 16,
    MEMF_EXACT_NODE_REQUEST(XENMEMF_exact_node_request): u32 = 1 << 17,
    MEMF_VNODE(XENMEMF_vnode): u32 = 1 << 18,
    XENMAPSPACE_GMFN_RANGE(XENMAPSPACE_gmfn_range): u32 = 3,
    XENMAPSPACE_GMFN_FOREIGN(XENMAPSPACE_gmfn_foreign): u32 = 4,
    XENMEM_RDM_ALL(XENMEM_RDM_ALL): u32 = 1,
    RESOURCE_GRANT_TABLE_ID_SHARED(XENMEM_resource_grant_table_id_shared): u32 = 0,
    RESOURCE_GRANT_TABLE_ID_STATUS(XENMEM_resource_grant_table_id_status): u32 = 1,
}}

/// Bits of the command word that hold the sub-operation; a restarted call's position is above.
pub const MEMOP_EXTENT_SHIFT: u32 = 6;

/// Splits the command word of `memory_op` into the sub-operation and the extent to start from.
pub const fn split_cmd(cmd: u64) -> (MemoryOp, u64) {
    (MemoryOp(cmd as u32 & ((1 << MEMOP_EXTENT_SHIFT) - 1)), cmd >> MEMOP_EXTENT_SHIFT)
}

/// Returns the address width asked for by `mem_flags`, 0 for any.
pub const fn memf_address_bits(mem_flags: u32) -> u32 {
    mem_flags & 0xff
}

/// Returns the NUMA node asked for by `mem_flags`.
pub const fn memf_node(mem_flags: u32) -> Option<u32> {
    match (mem_flags >> 8) & 0xff {
        0 => None,
        n => Some(n - 1),
    }
}

record! {
    /// `increase_reservation`, `decrease_reservation`, `populate_physmap`, `claim_pages`.
    pub struct MemoryReservation = "struct xen_memory_reservation", 32 {
        0 extent_start: GuestPtr<u64>,
        8 nr_extents: u64,
        16 extent_order: u32,
        20 mem_flags: u32,
        24 domid: DomId,
        26 _pad: [u16; 3],
    }

    /// `exchange`.
    pub struct MemoryExchange = "struct xen_memory_exchange", 72 {
        0 input: MemoryReservation = "in",
        32 output: MemoryReservation = "out",
        64 nr_exchanged: u64,
    }

    /// `current_reservation`, `maximum_reservation`, `maximum_gpfn`.
    pub struct MemoryDomain = "struct xen_memory_domain", 2 {
        0 domid: DomId,
    }

    /// `machphys_mfn_list`.
    pub struct MachphysMfnList = "struct xen_machphys_mfn_list", 24 {
        0 max_extents: u32,
        4 _pad0: u32,
        8 extent_start: GuestPtr<u64>,
        16 nr_extents: u32,
        20 _pad1: u32,
    }

    /// `machphys_mapping`.
    pub struct MachphysMapping = "struct xen_machphys_mapping", 24 {
        0 v_start: u64,
        8 v_end: u64,
        16 max_mfn: u64,
    }

    /// `add_to_physmap`.
    pub struct AddToPhysmap = "struct xen_add_to_physmap", 24 {
        0 domid: DomId,
        2 size: u16,
        4 space: u32,
        8 idx: u64,
        16 gpfn: u64,
    }

    /// `add_to_physmap_batch`.
    pub struct AddToPhysmapBatch = "struct xen_add_to_physmap_batch", 32 {
        0 domid: DomId,
        2 space: u16,
        4 size: u16,
        6 foreign_domid: DomId = "u.foreign_domid",
        8 idxs: GuestPtr<u64>,
        16 gpfns: GuestPtr<u64>,
        24 errs: GuestPtr<i32>,
    }

    /// `remove_from_physmap`.
    pub struct RemoveFromPhysmap = "struct xen_remove_from_physmap", 16 {
        0 domid: DomId,
        2 _pad: [u16; 3],
        8 gpfn: u64,
    }

    /// `memory_map` and `machine_memory_map`.
    pub struct MemoryMap = "struct xen_memory_map", 16 {
        0 nr_entries: u32,
        4 _pad: u32,
        8 buffer: GuestPtr<E820Entry>,
    }

    /// `set_memory_map`.
    pub struct ForeignMemoryMap = "struct xen_foreign_memory_map", 24 {
        0 domid: DomId,
        2 _pad: [u16; 3],
        8 map: MemoryMap,
    }

    /// `set_pod_target` and `get_pod_target`.
    pub struct PodTarget = "struct xen_pod_target", 40 {
        0 target_pages: u64,
        8 tot_pages: u64,
        16 pod_cache_pages: u64,
        24 pod_entries: u64,
        32 domid: DomId,
        34 _pad: [u16; 3],
    }

    /// `acquire_resource`.
    pub struct AcquireResource = "struct xen_mem_acquire_resource", 32 {
        0 domid: DomId,
        2 kind: ResourceType = "type",
        4 id: u32,
        8 nr_frames: u32,
        12 pad: u32,
        16 frame: u64,
        24 frame_list: GuestPtr<u64>,
    }

    /// A stretch of memory that a device needs.
    pub struct ReservedDeviceMemory = "struct xen_reserved_device_memory", 16 {
        0 start_pfn: u64,
        8 nr_pages: u64,
    }

    /// `reserved_device_memory_map`.
    pub struct ReservedDeviceMemoryMap = "struct xen_reserved_device_memory_map", 24 {
        0 flags: u32,
        4 nr_entries: u32,
        8 buffer: GuestPtr<ReservedDeviceMemory>,
        16 dev: u32 = "dev.pci",
        20 _pad: u32,
    }

    /// One stretch of a vNUMA node's memory.
    pub struct Vmemrange = "struct xen_vmemrange", 24 {
        0 start: u64,
        8 end: u64,
        16 flags: u32,
        20 nid: u32,
    }

    /// `get_vnumainfo`.
    pub struct VnumaTopologyInfo = "struct xen_vnuma_topology_info", 40 {
        0 domid: DomId,
        2 pad: u16,
        4 nr_vnodes: u32,
        8 nr_vcpus: u32,
        12 nr_vmemranges: u32,
        16 vdistance: GuestPtr<u32>,
        24 vcpu_to_vnode: GuestPtr<u32>,
        32 vmemrange: GuestPtr<Vmemrange>,
    }
}

/// One entry of a memory map; 20 bytes, so every second one is misaligned.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C, packed(4))]
pub struct E820Entry {
    /// Machine address of the first byte.
    pub addr: u64,
    /// Length in bytes.
    pub size: u64,
    /// What it is.
    pub kind: E820Type,
}
const _: () = assert!(size_of::<E820Entry>() == 20);
