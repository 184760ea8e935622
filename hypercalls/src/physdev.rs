// SPDX-License-Identifier: MIT OR Apache-2.0
//! `physdev_op`: interrupts, I/O ports and PCI devices.

use crate::layout::{codes, constants, record};
use crate::{DomId, GuestPtr};

codes! {
    /// A sub-operation of `physdev_op`.
    pub struct PhysdevOp(u32) {
        IRQ_UNMASK_NOTIFY(PHYSDEVOP_IRQ_UNMASK_NOTIFY) = 4,
        IRQ_STATUS_QUERY(PHYSDEVOP_irq_status_query) = 5,
        SET_IOPL(PHYSDEVOP_set_iopl) = 6,
        SET_IOBITMAP(PHYSDEVOP_set_iobitmap) = 7,
        APIC_READ(PHYSDEVOP_apic_read) = 8,
        APIC_WRITE(PHYSDEVOP_apic_write) = 9,
        ALLOC_IRQ_VECTOR(PHYSDEVOP_alloc_irq_vector) = 10,
        FREE_IRQ_VECTOR(PHYSDEVOP_free_irq_vector) = 11,
        EOI(PHYSDEVOP_eoi) = 12,
        MAP_PIRQ(PHYSDEVOP_map_pirq) = 13,
        UNMAP_PIRQ(PHYSDEVOP_unmap_pirq) = 14,
        MANAGE_PCI_ADD(PHYSDEVOP_manage_pci_add) = 15,
        MANAGE_PCI_REMOVE(PHYSDEVOP_manage_pci_remove) = 16,
        PIRQ_EOI_GMFN_V1(PHYSDEVOP_pirq_eoi_gmfn_v1) = 17,
        RESTORE_MSI(PHYSDEVOP_restore_msi) = 19,
        MANAGE_PCI_ADD_EXT(PHYSDEVOP_manage_pci_add_ext) = 20,
        SETUP_GSI(PHYSDEVOP_setup_gsi) = 21,
        GET_FREE_PIRQ(PHYSDEVOP_get_free_pirq) = 23,
        PCI_MMCFG_RESERVED(PHYSDEVOP_pci_mmcfg_reserved) = 24,
        PCI_DEVICE_ADD(PHYSDEVOP_pci_device_add) = 25,
        PCI_DEVICE_REMOVE(PHYSDEVOP_pci_device_remove) = 26,
        RESTORE_MSI_EXT(PHYSDEVOP_restore_msi_ext) = 27,
        PIRQ_EOI_GMFN_V2(PHYSDEVOP_pirq_eoi_gmfn_v2) = 28,
        DBGP_OP(PHYSDEVOP_dbgp_op) = 29,
        PREPARE_MSIX(PHYSDEVOP_prepare_msix) = 30,
        RELEASE_MSIX(PHYSDEVOP_release_msix) = 31,
    }

    /// What `map_pirq` maps.
    pub struct MapPirqType(u32) {
        MSI(MAP_PIRQ_TYPE_MSI) = 0,
        GSI(MAP_PIRQ_TYPE_GSI) = 1,
        UNKNOWN(MAP_PIRQ_TYPE_UNKNOWN) = 2,
        MSI_SEG(MAP_PIRQ_TYPE_MSI_SEG) = 3,
        MULTI_MSI(MAP_PIRQ_TYPE_MULTI_MSI) = 4,
    }
}

constants! { Constants {
    /// The guest must say when it has handled the interrupt.
    XENIRQSTAT_NEEDS_EOI(XENIRQSTAT_needs_eoi): u32 = 1,
    XENIRQSTAT_SHARED(XENIRQSTAT_shared): u32 = 2,
    XEN_PCI_MMCFG_RESERVED(XEN_PCI_MMCFG_RESERVED): u32 = 1,
    XEN_PCI_DEV_EXTFN(XEN_PCI_DEV_EXTFN): u32 = 1,
    XEN_PCI_DEV_VIRTFN(XEN_PCI_DEV_VIRTFN): u32 = 2,
    XEN_PCI_DEV_PXM(XEN_PCI_DEV_PXM): u32 = 4,
}}

record! {
    /// `eoi`.
    pub struct PhysdevEoi = "struct physdev_eoi", 4 {
        0 irq: u32,
    }

    /// `pirq_eoi_gmfn_v1` and `_v2`.
    pub struct PhysdevPirqEoiGmfn = "struct physdev_pirq_eoi_gmfn", 8 {
        0 gmfn: u64,
    }

    /// `irq_status_query`.
    pub struct PhysdevIrqStatusQuery = "struct physdev_irq_status_query", 8 {
        0 irq: u32,
        4 flags: u32,
    }

    /// `set_iopl`.
    pub struct PhysdevSetIopl = "struct physdev_set_iopl", 4 {
        0 iopl: u32,
    }

    /// `set_iobitmap`.
    pub struct PhysdevSetIobitmap = "struct physdev_set_iobitmap", 16 {
        0 bitmap: GuestPtr<u8>,
        8 nr_ports: u32,
        12 _pad: u32,
    }

    /// `apic_read` and `apic_write`.
    pub struct PhysdevApic = "struct physdev_apic", 16 {
        0 apic_physbase: u64,
        8 reg: u32,
        12 value: u32,
    }

    /// `alloc_irq_vector` and `free_irq_vector`.
    pub struct PhysdevIrq = "struct physdev_irq", 8 {
        0 irq: u32,
        4 vector: u32,
    }

    /// `map_pirq`.
    pub struct PhysdevMapPirq = "struct physdev_map_pirq", 40 {
        0 domid: DomId,
        2 _pad0: u16,
        4 kind: MapPirqType = "type",
        /// The GSI, or -1 or the number of the MSI.
        8 index: i32,
        /// In: the number wanted or -1. Out: the number given.
        12 pirq: i32,
        /// Low 16 bits the bus, high 16 the segment for `MSI_SEG`.
        16 bus: i32,
        20 devfn: i32,
        /// MSI-X: the entry; multiple MSI: how many.
        24 entry_nr: i32,
        28 _pad1: u32,
        /// MSI-X: address of the table, 0 for MSI.
        32 table_base: u64,
    }

    /// `unmap_pirq`.
    pub struct PhysdevUnmapPirq = "struct physdev_unmap_pirq", 8 {
        0 domid: DomId,
        2 _pad: u16,
        4 pirq: i32,
    }

    /// `manage_pci_add`, `manage_pci_remove` and `restore_msi`.
    pub struct PhysdevManagePci = "struct physdev_manage_pci", 2 {
        0 bus: u8,
        1 devfn: u8,
    }

    /// `manage_pci_add_ext`.
    pub struct PhysdevManagePciExt = "struct physdev_manage_pci_ext", 16 {
        0 bus: u8,
        1 devfn: u8,
        2 _pad0: u16,
        4 is_extfn: u32,
        8 is_virtfn: u32,
        12 physfn_bus: u8 = "physfn.bus",
        13 physfn_devfn: u8 = "physfn.devfn",
        14 _pad1: u16,
    }

    /// `setup_gsi`.
    pub struct PhysdevSetupGsi = "struct physdev_setup_gsi", 8 {
        0 gsi: i32,
        /// 0 edge, 1 level.
        4 triggering: u8,
        /// 0 active high, 1 active low.
        5 polarity: u8,
        6 _pad: u16,
    }

    /// `get_free_pirq`.
    pub struct PhysdevGetFreePirq = "struct physdev_get_free_pirq", 8 {
        0 kind: MapPirqType = "type",
        4 pirq: u32,
    }

    /// `pci_mmcfg_reserved`.
    pub struct PhysdevPciMmcfgReserved = "struct physdev_pci_mmcfg_reserved", 16 {
        0 address: u64,
        8 segment: u16,
        10 start_bus: u8,
        11 end_bus: u8,
        12 flags: u32,
    }

    /// `pci_device_add`; optional words follow.
    pub struct PhysdevPciDeviceAdd = "struct physdev_pci_device_add", 12 {
        0 seg: u16,
        2 bus: u8,
        3 devfn: u8,
        4 flags: u32,
        8 physfn_bus: u8 = "physfn.bus",
        9 physfn_devfn: u8 = "physfn.devfn",
        10 _pad: u16,
    }

    /// `pci_device_remove`, `restore_msi_ext`, `prepare_msix`, `release_msix`.
    pub struct PhysdevPciDevice = "struct physdev_pci_device", 4 {
        0 seg: u16,
        2 bus: u8,
        3 devfn: u8,
    }

    /// `dbgp_op`.
    pub struct PhysdevDbgpOp = "struct physdev_dbgp_op", 6 {
        0 op: u8,
        1 bus: u8,
        2 pci: PhysdevPciDevice = "u.pci",
    }

    /// The argument of `physdev_op_compat`.
    pub struct PhysdevOpCompat = "struct physdev_op", 24 {
        0 cmd: PhysdevOp,
        4 _pad: u32,
        8 u: [u64; 2],
    }
}
