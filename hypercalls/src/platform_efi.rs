// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of `platform_op` that concerns UEFI firmware: what it is, and calls of its runtime services.

use crate::GuestPtr;
use crate::layout::{codes, constants, record};
use crate::platform::FirmwareType;

codes! {
    /// What `firmware_info` tells of UEFI, by its index.
    pub struct EfiInfo(u32) {
        VERSION(XEN_FW_EFI_VERSION) = 0,
        CONFIG_TABLE(XEN_FW_EFI_CONFIG_TABLE) = 1,
        VENDOR(XEN_FW_EFI_VENDOR) = 2,
        MEM_INFO(XEN_FW_EFI_MEM_INFO) = 3,
        RT_VERSION(XEN_FW_EFI_RT_VERSION) = 4,
        PCI_ROM(XEN_FW_EFI_PCI_ROM) = 5,
        APPLE_PROPERTIES(XEN_FW_EFI_APPLE_PROPERTIES) = 6,
    }

    /// A runtime service.
    pub struct EfiFunction(u32) {
        GET_TIME(XEN_EFI_get_time) = 1,
        SET_TIME(XEN_EFI_set_time) = 2,
        GET_WAKEUP_TIME(XEN_EFI_get_wakeup_time) = 3,
        SET_WAKEUP_TIME(XEN_EFI_set_wakeup_time) = 4,
        GET_NEXT_HIGH_MONOTONIC_COUNT(XEN_EFI_get_next_high_monotonic_count) = 5,
        GET_VARIABLE(XEN_EFI_get_variable) = 6,
        SET_VARIABLE(XEN_EFI_set_variable) = 7,
        GET_NEXT_VARIABLE_NAME(XEN_EFI_get_next_variable_name) = 8,
        QUERY_VARIABLE_INFO(XEN_EFI_query_variable_info) = 9,
        QUERY_CAPSULE_CAPABILITIES(XEN_EFI_query_capsule_capabilities) = 10,
        UPDATE_CAPSULE(XEN_EFI_update_capsule) = 11,
    }
}

constants! { Constants {
    XEN_EFI_GET_TIME_SET_CLEARS_NS(XEN_EFI_GET_TIME_SET_CLEARS_NS): u32 = 1,
    XEN_EFI_GET_WAKEUP_TIME_ENABLED(XEN_EFI_GET_WAKEUP_TIME_ENABLED): u32 = 1,
    XEN_EFI_GET_WAKEUP_TIME_PENDING(XEN_EFI_GET_WAKEUP_TIME_PENDING): u32 = 2,
    XEN_EFI_SET_WAKEUP_TIME_ENABLE(XEN_EFI_SET_WAKEUP_TIME_ENABLE): u32 = 1,
    XEN_EFI_SET_WAKEUP_TIME_ENABLE_ONLY(XEN_EFI_SET_WAKEUP_TIME_ENABLE_ONLY): u32 = 2,
    XEN_EFI_VARINFO_BOOT_SNAPSHOT(XEN_EFI_VARINFO_BOOT_SNAPSHOT): u32 = 1,
}}

record! {
    /// `firmware_info` with the version that is asked for.
    pub struct FirmwareEfiVersion = "struct xenpf_firmware_info", 40 {
        0 kind: FirmwareType = "type",
        4 index: EfiInfo,
        8 version: u32 = "u.efi_info.version",
        12 _pad: u32,
        16 _rest: [u64; 3],
    }

    /// `firmware_info` with the configuration tables' part of the union.
    pub struct FirmwareEfiConfig = "struct xenpf_firmware_info", 40 {
        0 kind: FirmwareType = "type",
        4 index: EfiInfo,
        8 addr: u64 = "u.efi_info.cfg.addr",
        16 nent: u32 = "u.efi_info.cfg.nent",
        20 _pad: u32,
        24 _rest: [u64; 2],
    }

    /// `firmware_info` with the vendor's part of the union.
    pub struct FirmwareEfiVendor = "struct xenpf_firmware_info", 40 {
        0 kind: FirmwareType = "type",
        4 index: EfiInfo,
        8 revision: u32 = "u.efi_info.vendor.revision",
        12 bufsz: u32 = "u.efi_info.vendor.bufsz",
        16 name: GuestPtr<u16> = "u.efi_info.vendor.name",
        24 _rest: [u64; 2],
    }

    /// `firmware_info` with the memory map's part of the union.
    pub struct FirmwareEfiMem = "struct xenpf_firmware_info", 40 {
        0 kind: FirmwareType = "type",
        4 index: EfiInfo,
        8 addr: u64 = "u.efi_info.mem.addr",
        16 size: u64 = "u.efi_info.mem.size",
        24 attr: u64 = "u.efi_info.mem.attr",
        32 memory_type: u32 = "u.efi_info.mem.type",
        36 _pad: u32,
    }

    /// A time, as UEFI has it.
    pub struct EfiTime = "struct xenpf_efi_time", 16 {
        0 year: u16,
        2 month: u8,
        3 day: u8,
        4 hour: u8,
        5 min: u8,
        6 sec: u8,
        7 _pad: u8,
        8 ns: u32,
        12 tz: i16,
        14 daylight: u8,
        15 _pad1: u8,
    }

    /// A GUID.
    pub struct EfiGuid = "struct xenpf_efi_guid", 16 {
        0 data1: u32,
        4 data2: u16,
        6 data3: u16,
        8 data4: [u8; 8],
    }

    /// `efi_runtime_call`: the head; the union follows in `u`.
    pub struct EfiRuntimeCall = "struct xenpf_efi_runtime_call", 56 {
        0 function: EfiFunction,
        4 misc: u32,
        8 status: u64,
        16 u: [u64; 5],
    }

    /// `efi_runtime_call` with a time.
    pub struct EfiTimeCall = "struct xenpf_efi_runtime_call", 56 {
        0 function: EfiFunction,
        4 misc: u32,
        8 status: u64,
        16 time: EfiTime = "u.get_time.time",
        32 resolution: u32 = "u.get_time.resolution",
        36 accuracy: u32 = "u.get_time.accuracy",
        40 _rest: [u64; 2],
    }

    /// `efi_runtime_call` with a variable.
    pub struct EfiVariableCall = "struct xenpf_efi_runtime_call", 56 {
        0 function: EfiFunction,
        4 misc: u32,
        8 status: u64,
        16 name: GuestPtr<u16> = "u.get_variable.name",
        24 size: u64 = "u.get_variable.size",
        32 data: GuestPtr<u8> = "u.get_variable.data",
        40 vendor_guid: EfiGuid = "u.get_variable.vendor_guid",
    }

    /// `efi_runtime_call` with the name of a variable, to be replaced by the next one.
    pub struct EfiNextNameCall = "struct xenpf_efi_runtime_call", 56 {
        0 function: EfiFunction,
        4 misc: u32,
        8 status: u64,
        16 size: u64 = "u.get_next_variable_name.size",
        24 name: GuestPtr<u8> = "u.get_next_variable_name.name",
        32 vendor_guid: EfiGuid = "u.get_next_variable_name.vendor_guid",
        48 _rest: u64,
    }

    /// `efi_runtime_call` with the room for variables.
    pub struct EfiVariableInfoCall = "struct xenpf_efi_runtime_call", 56 {
        0 function: EfiFunction,
        4 misc: u32,
        8 status: u64,
        16 attr: u32 = "u.query_variable_info.attr",
        20 _pad: u32,
        24 max_store_size: u64 = "u.query_variable_info.max_store_size",
        32 remain_store_size: u64 = "u.query_variable_info.remain_store_size",
        40 max_size: u64 = "u.query_variable_info.max_size",
        48 _rest: u64,
    }
}
