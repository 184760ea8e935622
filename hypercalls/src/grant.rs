// SPDX-License-Identifier: MIT OR Apache-2.0
//! `grant_table_op` and the entries of grant tables.

use crate::layout::{codes, constants, record};
use crate::{DomId, GuestPtr};

codes! {
    /// A sub-operation of `grant_table_op`.
    pub struct GnttabOp(u32) {
        MAP_GRANT_REF(GNTTABOP_map_grant_ref) = 0,
        UNMAP_GRANT_REF(GNTTABOP_unmap_grant_ref) = 1,
        SETUP_TABLE(GNTTABOP_setup_table) = 2,
        DUMP_TABLE(GNTTABOP_dump_table) = 3,
        TRANSFER(GNTTABOP_transfer) = 4,
        COPY(GNTTABOP_copy) = 5,
        QUERY_SIZE(GNTTABOP_query_size) = 6,
        UNMAP_AND_REPLACE(GNTTABOP_unmap_and_replace) = 7,
        SET_VERSION(GNTTABOP_set_version) = 8,
        GET_STATUS_FRAMES(GNTTABOP_get_status_frames) = 9,
        GET_VERSION(GNTTABOP_get_version) = 10,
        SWAP_GRANT_REF(GNTTABOP_swap_grant_ref) = 11,
        CACHE_FLUSH(GNTTABOP_cache_flush) = 12,
    }

    /// The status of one grant operation.
    pub struct GrantStatus(i16) {
        OKAY(GNTST_okay) = 0,
        GENERAL_ERROR(GNTST_general_error) = -1,
        BAD_DOMAIN(GNTST_bad_domain) = -2,
        BAD_GNTREF(GNTST_bad_gntref) = -3,
        BAD_HANDLE(GNTST_bad_handle) = -4,
        BAD_VIRT_ADDR(GNTST_bad_virt_addr) = -5,
        BAD_DEV_ADDR(GNTST_bad_dev_addr) = -6,
        NO_DEVICE_SPACE(GNTST_no_device_space) = -7,
        PERMISSION_DENIED(GNTST_permission_denied) = -8,
        BAD_PAGE(GNTST_bad_page) = -9,
        BAD_COPY_ARG(GNTST_bad_copy_arg) = -10,
        ADDRESS_TOO_BIG(GNTST_address_too_big) = -11,
        EAGAIN(GNTST_eagain) = -12,
        NO_SPACE(GNTST_no_space) = -13,
    }
}

constants! { Constants {
    GNTTAB_NR_RESERVED_ENTRIES(GNTTAB_NR_RESERVED_ENTRIES): u32 = 8,
    GNTTAB_RESERVED_CONSOLE(GNTTAB_RESERVED_CONSOLE): u32 = 0,
    GNTTAB_RESERVED_XENSTORE(GNTTAB_RESERVED_XENSTORE): u32 = 1,
    GTF_INVALID(GTF_invalid): u16 = 0,
    GTF_PERMIT_ACCESS(GTF_permit_access): u16 = 1,
    GTF_ACCEPT_TRANSFER(GTF_accept_transfer): u16 = 2,
    GTF_TRANSITIVE(GTF_transitive): u16 = 3,
    GTF_TYPE_MASK(GTF_type_mask): u16 = 3,
    GTF_READONLY(GTF_readonly): u16 = 1 << 2,
    GTF_READING(GTF_reading): u16 = 1 << 3,
    GTF_WRITING(GTF_writing): u16 = 1 << 4,
    GTF_PWT(GTF_PWT): u16 = 1 << 5,
    GTF_PCD(GTF_PCD): u16 = 1 << 6,
    GTF_PAT(GTF_PAT): u16 = 1 << 7,
    GTF_SUB_PAGE(GTF_sub_page): u16 = 1 << 8,
    GTF_TRANSFER_COMMITTED(GTF_transfer_committed): u16 = 1 << 2,
    GTF_TRANSFER_COMPLETED(GTF_transfer_completed): u16 = 1 << 3,
    GNTCOPY_SOURCE_GREF(GNTCOPY_source_gref): u16 = 1,
    GNTCOPY_DEST_GREF(GNTCOPY_dest_gref): u16 = 2,
    GNTMAP_DEVICE_MAP(GNTMAP_device_map): u32 = 1 << 0,
    GNTMAP_HOST_MAP(GNTMAP_host_map): u32 = 1 << 1,
    GNTMAP_READONLY(GNTMAP_readonly): u32 = 1 << 2,
    GNTMAP_APPLICATION_MAP(GNTMAP_application_map): u32 = 1 << 3,
    GNTMAP_CONTAINS_PTE(GNTMAP_contains_pte): u32 = 1 << 4,
    GNTMAP_GUEST_AVAIL_MASK(GNTMAP_guest_avail_mask): u32 = 0xffff_0000,
}}

/// A handle that no mapping has.
pub const INVALID_HANDLE: u32 = u32::MAX;

record! {
    /// An entry of a version 1 table.
    pub struct GrantEntryV1 = "struct grant_entry_v1", 8 {
        0 flags: u16,
        2 domid: DomId,
        4 frame: u32,
    }

    /// An entry of a version 2 table, read as a full page or a part of one.
    pub struct GrantEntryV2 = "union grant_entry_v2", 16 {
        0 flags: u16 = "sub_page.hdr.flags",
        2 domid: DomId = "sub_page.hdr.domid",
        4 page_off: u16 = "sub_page.page_off",
        6 length: u16 = "sub_page.length",
        8 frame: u64 = "sub_page.frame",
    }

    /// An entry of a version 2 table, read as a transitive grant.
    pub struct GrantEntryV2Transitive = "union grant_entry_v2", 16 {
        0 flags: u16 = "transitive.hdr.flags",
        2 domid: DomId = "transitive.hdr.domid",
        4 trans_domid: DomId = "transitive.trans_domid",
        6 _pad: u16,
        8 gref: u32 = "transitive.gref",
        12 _pad1: u32,
    }

    /// `map_grant_ref`.
    pub struct GnttabMap = "struct gnttab_map_grant_ref", 32 {
        0 host_addr: u64,
        8 flags: u32,
        12 gref: u32 = "ref",
        16 dom: DomId,
        18 status: GrantStatus,
        20 handle: u32,
        24 dev_bus_addr: u64,
    }

    /// `unmap_grant_ref`.
    pub struct GnttabUnmap = "struct gnttab_unmap_grant_ref", 24 {
        0 host_addr: u64,
        8 dev_bus_addr: u64,
        16 handle: u32,
        20 status: GrantStatus,
        22 _pad: u16,
    }

    /// `setup_table`.
    pub struct GnttabSetupTable = "struct gnttab_setup_table", 24 {
        0 dom: DomId,
        2 _pad0: u16,
        4 nr_frames: u32,
        8 status: GrantStatus,
        10 _pad1: [u16; 3],
        16 frame_list: GuestPtr<u64>,
    }

    /// `transfer`.
    pub struct GnttabTransfer = "struct gnttab_transfer", 24 {
        0 mfn: u64,
        8 domid: DomId,
        10 _pad0: u16,
        12 gref: u32 = "ref",
        16 status: GrantStatus,
        18 _pad1: [u16; 3],
    }

    /// One end of a copy.
    pub struct GnttabCopyPtr = "struct gnttab_copy_ptr", 16 {
        /// A grant reference or a frame, as the flags say.
        0 gmfn: u64 = "u.gmfn",
        8 domid: DomId,
        10 offset: u16,
        12 _pad: u32,
    }

    /// `copy`.
    pub struct GnttabCopy = "struct gnttab_copy", 40 {
        0 source: GnttabCopyPtr,
        16 dest: GnttabCopyPtr,
        32 len: u16,
        34 flags: u16,
        36 status: GrantStatus,
        38 _pad: u16,
    }

    /// `query_size`.
    pub struct GnttabQuerySize = "struct gnttab_query_size", 16 {
        0 dom: DomId,
        2 _pad0: u16,
        4 nr_frames: u32,
        8 max_nr_frames: u32,
        12 status: GrantStatus,
        14 _pad1: u16,
    }

    /// `unmap_and_replace`.
    pub struct GnttabUnmapAndReplace = "struct gnttab_unmap_and_replace", 24 {
        0 host_addr: u64,
        8 new_addr: u64,
        16 handle: u32,
        20 status: GrantStatus,
        22 _pad: u16,
    }

    /// `set_version`.
    pub struct GnttabSetVersion = "struct gnttab_set_version", 4 {
        0 version: u32,
    }

    /// `get_status_frames`.
    pub struct GnttabGetStatusFrames = "struct gnttab_get_status_frames", 16 {
        0 nr_frames: u32,
        4 dom: DomId,
        6 status: GrantStatus,
        8 frame_list: GuestPtr<u64>,
    }

    /// `get_version`.
    pub struct GnttabGetVersion = "struct gnttab_get_version", 8 {
        0 dom: DomId,
        2 pad: u16,
        4 version: u32,
    }

    /// `swap_grant_ref`.
    pub struct GnttabSwapGrantRef = "struct gnttab_swap_grant_ref", 12 {
        0 ref_a: u32,
        4 ref_b: u32,
        8 status: GrantStatus,
        10 _pad: u16,
    }
}

impl GnttabCopyPtr {
    /// Returns the frame field read as a grant reference.
    pub const fn gref(&self) -> u32 {
        self.gmfn as u32
    }
}
