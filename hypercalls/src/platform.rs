// SPDX-License-Identifier: MIT OR Apache-2.0
//! `platform_op`: what the hardware domain tells and asks about the machine.
//!
//! The structures of UEFI are in [`crate::platform_efi`], those of power management in [`crate::platform_power`].

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
}

constants! { Constants {
    /// Tested before the sub-operation; a wrong one is `-EACCES`.
    XENPF_INTERFACE_VERSION(XENPF_INTERFACE_VERSION): u32 = 0x0300_0001,
    XEN_PCPU_FLAGS_ONLINE(XEN_PCPU_FLAGS_ONLINE): u32 = 1,
    XEN_PCPU_FLAGS_INVALID(XEN_PCPU_FLAGS_INVALID): u32 = 2,
    QUIRK_NOIRQBALANCING(QUIRK_NOIRQBALANCING): u32 = 1,
    QUIRK_IOAPIC_BAD_REGSEL(QUIRK_IOAPIC_BAD_REGSEL): u32 = 2,
    QUIRK_IOAPIC_GOOD_REGSEL(QUIRK_IOAPIC_GOOD_REGSEL): u32 = 3,
    XEN_CORE_PARKING_SET(XEN_CORE_PARKING_SET): u32 = 1,
    XEN_CORE_PARKING_GET(XEN_CORE_PARKING_GET): u32 = 2,
    XEN_RESOURCE_OP_MSR_READ(XEN_RESOURCE_OP_MSR_READ): u32 = 0,
    XEN_RESOURCE_OP_MSR_WRITE(XEN_RESOURCE_OP_MSR_WRITE): u32 = 1,
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

    /// `firmware_info` with the boot sector's part of the union.
    pub struct FirmwareMbrSignature = "struct xenpf_firmware_info", 40 {
        0 kind: FirmwareType = "type",
        4 index: u32,
        8 device: u8 = "u.disk_mbr_signature.device",
        9 _pad: [u8; 3],
        12 mbr_signature: u32 = "u.disk_mbr_signature.mbr_signature",
        16 _rest: [u64; 3],
    }

    /// `firmware_info` with the screen's part of the union.
    pub struct FirmwareVbeDdc = "struct xenpf_firmware_info", 40 {
        0 kind: FirmwareType = "type",
        4 index: u32,
        8 capabilities: u8 = "u.vbeddc_info.capabilities",
        9 edid_transfer_time: u8 = "u.vbeddc_info.edid_transfer_time",
        10 _pad: [u8; 6],
        16 edid: GuestPtr<u8> = "u.vbeddc_info.edid",
        24 _rest: [u64; 2],
    }

    /// `firmware_info` with the keyboard's part of the union.
    pub struct FirmwareKbd = "struct xenpf_firmware_info", 40 {
        0 kind: FirmwareType = "type",
        4 index: u32,
        8 shift_flags: u8 = "u.kbd_shift_flags",
        9 _pad: [u8; 7],
        16 _rest: [u64; 3],
    }

    /// `read_memtype`.
    pub struct ReadMemtype = "struct xenpf_read_memtype", 32 {
        0 reg: u32,
        4 _pad: u32,
        8 mfn: u64,
        16 nr_mfns: u64,
        24 kind: u32 = "type",
        28 _pad1: u32,
    }

    /// `platform_quirk`.
    pub struct PlatformQuirk = "struct xenpf_platform_quirk", 4 {
        0 quirk_id: u32,
    }

    /// `change_freq`.
    pub struct ChangeFreq = "struct xenpf_change_freq", 16 {
        0 flags: u32,
        4 cpu: u32,
        8 freq: u64,
    }

    /// `cpu_hotadd`.
    pub struct CpuHotadd = "struct xenpf_cpu_hotadd", 12 {
        0 apic_id: u32,
        4 acpi_id: u32,
        8 pxm: u32,
    }

    /// `mem_hotadd`.
    pub struct MemHotadd = "struct xenpf_mem_hotadd", 24 {
        0 spfn: u64,
        8 epfn: u64,
        16 pxm: u32,
        20 flags: u32,
    }

    /// `core_parking`.
    pub struct CoreParking = "struct xenpf_core_parking", 8 {
        0 kind: u32 = "type",
        4 idle_nums: u32,
    }

    /// One access of `resource_op`.
    pub struct ResourceEntry = "struct xenpf_resource_entry", 24 {
        /// What to do; an error afterwards, where it failed.
        0 cmd: u32 = "u.cmd",
        4 rsvd: u32,
        8 idx: u64,
        16 val: u64,
    }

    /// `resource_op`.
    pub struct ResourceOp = "struct xenpf_resource_op", 16 {
        0 nr_entries: u32,
        4 cpu: u32,
        8 entries: GuestPtr<ResourceEntry>,
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
