// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of `platform_op` by which the hardware domain, which interprets the firmware's ACPI code, tells of power states
//! and enters sleep.

use crate::GuestPtr;
use crate::layout::{codes, constants, record};

codes! {
    /// What `set_processor_pminfo` carries.
    pub struct PmInfoType(u32) {
        CX(XEN_PM_CX) = 0,
        PX(XEN_PM_PX) = 1,
        TX(XEN_PM_TX) = 2,
        PDC(XEN_PM_PDC) = 3,
    }
}

constants! { Constants {
    XEN_PROCESSOR_PM_CX(XEN_PROCESSOR_PM_CX): u32 = 1,
    XEN_PROCESSOR_PM_PX(XEN_PROCESSOR_PM_PX): u32 = 2,
    XEN_PROCESSOR_PM_TX(XEN_PROCESSOR_PM_TX): u32 = 4,
    /// The registers of performance control and status are given.
    XEN_PX_PCT(XEN_PX_PCT): u32 = 1,
    /// The performance states are given.
    XEN_PX_PSS(XEN_PX_PSS): u32 = 2,
    /// The platform's limit is given.
    XEN_PX_PPC(XEN_PX_PPC): u32 = 4,
    /// The dependency between processors is given.
    XEN_PX_PSD(XEN_PX_PSD): u32 = 8,
    XEN_CPUPERF_SHARED_TYPE_HW(XEN_CPUPERF_SHARED_TYPE_HW): u32 = 1,
    XEN_CPUPERF_SHARED_TYPE_ALL(XEN_CPUPERF_SHARED_TYPE_ALL): u32 = 2,
    XEN_CPUPERF_SHARED_TYPE_ANY(XEN_CPUPERF_SHARED_TYPE_ANY): u32 = 3,
    /// The values are sleep types for the register of hardware-reduced ACPI.
    XENPF_ACPI_SLEEP_EXTENDED(XENPF_ACPI_SLEEP_EXTENDED): u32 = 1,
}}

record! {
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

    /// `set_processor_pminfo` with idle states.
    pub struct PowerInfo = "struct xenpf_set_processor_pminfo", 112 {
        0 id: u32,
        4 kind: PmInfoType = "type",
        8 count: u32 = "u.power.count",
        12 flags: u32 = "u.power.flags",
        16 states: GuestPtr<ProcessorCx> = "u.power.states",
        24 _rest: [u64; 11],
    }

    /// `set_processor_pminfo` with performance states.
    pub struct PerformanceInfo = "struct xenpf_set_processor_pminfo", 112 {
        0 id: u32,
        4 kind: PmInfoType = "type",
        8 flags: u32 = "u.perf.flags",
        12 platform_limit: u32 = "u.perf.platform_limit",
        16 control_register: PctRegister = "u.perf.control_register",
        32 status_register: PctRegister = "u.perf.status_register",
        48 state_count: u32 = "u.perf.state_count",
        52 _pad: u32,
        56 states: GuestPtr<ProcessorPx> = "u.perf.states",
        64 domain_info: PsdPackage = "u.perf.domain_info",
        104 shared_type: u32 = "u.perf.shared_type",
        108 _pad1: u32,
    }

    /// A register as ACPI describes it.
    pub struct PowerRegister = "struct xen_power_register", 24 {
        0 space_id: u32,
        4 bit_width: u32,
        8 bit_offset: u32,
        12 access_size: u32,
        16 address: u64,
    }

    /// An idle state.
    pub struct ProcessorCx = "struct xen_processor_cx", 48 {
        0 reg: PowerRegister,
        24 kind: u8 = "type",
        25 _pad: [u8; 3],
        28 latency: u32,
        32 power: u32,
        36 dpcnt: u32,
        40 dp: GuestPtr<ProcessorCsd>,
    }

    /// A dependency of an idle state.
    pub struct ProcessorCsd = "struct xen_processor_csd", 12 {
        0 domain: u32,
        4 coord_type: u32,
        8 num: u32,
    }

    /// A register of performance control, as ACPI describes it.
    pub struct PctRegister = "struct xen_pct_register", 16 {
        0 descriptor: u8,
        1 _pad: u8,
        2 length: u16,
        4 space_id: u8,
        5 bit_width: u8,
        6 bit_offset: u8,
        7 reserved: u8,
        8 address: u64,
    }

    /// A performance state.
    pub struct ProcessorPx = "struct xen_processor_px", 48 {
        0 core_frequency: u64,
        8 power: u64,
        16 transition_latency: u64,
        24 bus_master_latency: u64,
        32 control: u64,
        40 status: u64,
    }

    /// Which processors change their performance together.
    pub struct PsdPackage = "struct xen_psd_package", 40 {
        0 num_entries: u64,
        8 revision: u64,
        16 domain: u64,
        24 coord_type: u64,
        32 num_processors: u64,
    }
}
