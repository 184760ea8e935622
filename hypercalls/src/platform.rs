// SPDX-License-Identifier: MIT OR Apache-2.0
//! `platform_op`: what the hardware domain tells and asks about the machine.

use crate::GuestPtr;
use crate::layout::{codes, constants, record};
use crate::payload::Payload;

codes! {
    /// A sub-operation of `platform_op`.
    pub struct PlatformCmd(u32) {
        SETTIME32(XENPF_settime32) = 17,
        ADD_MEMTYPE(XENPF_add_memtype) = 31,
        DEL_MEMTYPE(XENPF_del_memtype) = 32,
        READ_MEMTYPE(XENPF_read_memtype) = 33,
        MICROCODE_UPDATE(XENPF_microcode_update) = 35,
        PLATFORM_QUIRK(XENPF_platform_quirk) = 39,
        GET_CPU_VERSION(XENPF_get_cpu_version) = 48,
        EFI_RUNTIME_CALL(XENPF_efi_runtime_call) = 49,
        FIRMWARE_INFO(XENPF_firmware_info) = 50,
        ENTER_ACPI_SLEEP(XENPF_enter_acpi_sleep) = 51,
        CHANGE_FREQ(XENPF_change_freq) = 52,
        GETIDLETIME(XENPF_getidletime) = 53,
        SET_PROCESSOR_PMINFO(XENPF_set_processor_pminfo) = 54,
        GET_CPUINFO(XENPF_get_cpuinfo) = 55,
        CPU_ONLINE(XENPF_cpu_online) = 56,
        CPU_OFFLINE(XENPF_cpu_offline) = 57,
        CPU_HOTADD(XENPF_cpu_hotadd) = 58,
        MEM_HOTADD(XENPF_mem_hotadd) = 59,
        CORE_PARKING(XENPF_core_parking) = 60,
        RESOURCE_OP(XENPF_resource_op) = 61,
        SETTIME64(XENPF_settime64) = 62,
        GET_SYMBOL(XENPF_get_symbol) = 63,
    }

    /// What `firmware_info` asks for.
    pub struct FirmwareType(u32) {
        DISK_INFO(XEN_FW_DISK_INFO) = 1,
        DISK_MBR_SIGNATURE(XEN_FW_DISK_MBR_SIGNATURE) = 2,
        VBEDDC_INFO(XEN_FW_VBEDDC_INFO) = 3,
        EFI_INFO(XEN_FW_EFI_INFO) = 4,
        KBD_SHIFT_FLAGS(XEN_FW_KBD_SHIFT_FLAGS) = 5,
    }

    /// What `set_processor_pminfo` carries.
    pub struct PmInfoType(u32) {
        CX(XEN_PM_CX) = 0,
        PX(XEN_PM_PX) = 1,
        TX(XEN_PM_TX) = 2,
        PDC(XEN_PM_PDC) = 3,
    }
}

constants! { Constants {
    /// Tested before the sub-operation; a wrong one is `-EACCES`.
    XENPF_INTERFACE_VERSION(XENPF_INTERFACE_VERSION): u32 = 0x0300_0001,
    XEN_PROCESSOR_PM_CX(XEN_PROCESSOR_PM_CX): u32 = 1,
    XEN_PROCESSOR_PM_PX(XEN_PROCESSOR_PM_PX): u32 = 2,
    XEN_PROCESSOR_PM_TX(XEN_PROCESSOR_PM_TX): u32 = 4,
    XEN_PCPU_FLAGS_ONLINE(XEN_PCPU_FLAGS_ONLINE): u32 = 1,
    XEN_PCPU_FLAGS_INVALID(XEN_PCPU_FLAGS_INVALID): u32 = 2,
    XENPF_ACPI_SLEEP_EXTENDED(XENPF_ACPI_SLEEP_EXTENDED): u32 = 1,
}}

record! {
    /// The argument of `platform_op`.
    pub struct PlatformOp = "struct xen_platform_op", 136 {
        0 cmd: PlatformCmd,
        4 interface_version: u32,
        8 u: Payload,
    }

    /// `settime32`.
    pub struct Settime32 = "struct xenpf_settime32", 16 {
        0 secs: u32,
        4 nsecs: u32,
        8 system_time: u64,
    }

    /// `settime64`.
    pub struct Settime64 = "struct xenpf_settime64", 24 {
        0 secs: u64,
        8 nsecs: u32,
        12 mbz: u32,
        16 system_time: u64,
    }

    /// `firmware_info`: the head; the union follows in `u`.
    pub struct FirmwareInfo = "struct xenpf_firmware_info", 40 {
        0 kind: FirmwareType = "type",
        4 index: u32,
        8 u: [u64; 4],
    }

    /// `firmware_info` with the disk's part of the union.
    pub struct FirmwareDiskInfo = "struct xenpf_firmware_info", 40 {
        0 kind: FirmwareType = "type",
        4 index: u32,
        8 device: u8 = "u.disk_info.device",
        9 version: u8 = "u.disk_info.version",
        10 interface_support: u16 = "u.disk_info.interface_support",
        12 legacy_max_cylinder: u16 = "u.disk_info.legacy_max_cylinder",
        14 legacy_max_head: u8 = "u.disk_info.legacy_max_head",
        15 legacy_sectors_per_track: u8 = "u.disk_info.legacy_sectors_per_track",
        16 edd_params: GuestPtr<u8> = "u.disk_info.edd_params",
        24 _rest: [u64; 2],
    }

    /// `enter_acpi_sleep`.
    pub struct EnterAcpiSleep = "struct xenpf_enter_acpi_sleep", 12 {
        0 val_a: u16,
        2 val_b: u16,
        4 sleep_state: u32,
        8 flags: u32,
    }

    /// `set_processor_pminfo`: the head; the union follows in `u`.
    pub struct SetProcessorPminfo = "struct xenpf_set_processor_pminfo", 112 {
        0 id: u32,
        4 kind: PmInfoType = "type",
        8 u: [u64; 13],
    }

    /// `get_cpuinfo`.
    pub struct PcpuInfo = "struct xenpf_pcpuinfo", 20 {
        0 xen_cpuid: u32,
        4 max_present: u32,
        8 flags: u32,
        12 apic_id: u32,
        16 acpi_id: u32,
    }

    /// `get_cpu_version`.
    pub struct PcpuVersion = "struct xenpf_pcpu_version", 32 {
        0 xen_cpuid: u32,
        4 max_present: u32,
        8 vendor_id: [u8; 12],
        20 family: u32,
        24 model: u32,
        28 stepping: u32,
    }

    /// `cpu_online` and `cpu_offline`.
    pub struct CpuOnlineOffline = "struct xenpf_cpu_ol", 4 {
        0 cpuid: u32,
    }

    /// `efi_runtime_call`: the head; the union follows in `u`.
    pub struct EfiRuntimeCall = "struct xenpf_efi_runtime_call", 56 {
        0 function: u32,
        4 misc: u32,
        8 status: u64,
        16 u: [u64; 5],
    }

    /// `getidletime`.
    pub struct GetIdleTime = "struct xenpf_getidletime", 32 {
        0 cpumap_bitmap: GuestPtr<u8>,
        8 cpumap_nr_cpus: u32,
        12 _pad: u32,
        16 idletime: GuestPtr<u64>,
        24 now: u64,
    }

    /// `microcode_update`.
    pub struct MicrocodeUpdate = "struct xenpf_microcode_update", 16 {
        0 data: GuestPtr<u8>,
        8 length: u32,
        12 _pad: u32,
    }

    /// `get_symbol`.
    pub struct SymData = "struct xenpf_symdata", 32 {
        0 namelen: u32,
        4 symnum: u32,
        8 name: GuestPtr<u8>,
        16 address: u64,
        24 kind: u8 = "type",
        25 _pad: [u8; 7],
    }
}
