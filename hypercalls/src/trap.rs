// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trap tables, callbacks and the frame of `iret`.

use crate::layout::{codes, constants, record};

codes! {
    /// A sub-operation of `callback_op`.
    pub struct CallbackOp(u32) {
        REGISTER(CALLBACKOP_register) = 0,
        UNREGISTER(CALLBACKOP_unregister) = 1,
    }

    /// Which callback.
    pub struct CallbackType(u16) {
        EVENT(CALLBACKTYPE_event) = 0,
        FAILSAFE(CALLBACKTYPE_failsafe) = 1,
        SYSCALL(CALLBACKTYPE_syscall) = 2,
        SYSENTER_DEPRECATED(CALLBACKTYPE_sysenter_deprecated) = 3,
        NMI(CALLBACKTYPE_nmi) = 4,
        SYSENTER(CALLBACKTYPE_sysenter) = 5,
        SYSCALL32(CALLBACKTYPE_syscall32) = 7,
    }

    /// A sub-operation of `nmi_op`.
    pub struct NmiOp(u32) {
        REGISTER_CALLBACK(XENNMI_register_callback) = 0,
        UNREGISTER_CALLBACK(XENNMI_unregister_callback) = 1,
    }
}

constants! { Constants {
    /// The callback is entered with events masked.
    CALLBACKF_MASK_EVENTS(CALLBACKF_mask_events): u16 = 1,
    /// Why an NMI was sent, in `arch.nmi_reason`.
    NMIREASON_IO_ERROR(XEN_NMIREASON_io_error): u64 = 1,
    NMIREASON_PCI_SERR(XEN_NMIREASON_pci_serr): u64 = 1 << 1,
    NMIREASON_UNKNOWN(XEN_NMIREASON_unknown): u64 = 1 << 2,
}}

/// In [`TrapInfo::flags`]: the least privileged ring that may raise it by INT.
pub const TRAP_DPL_MASK: u8 = 3;
/// In [`TrapInfo::flags`]: the handler is entered with events masked.
pub const TRAP_MASK_EVENTS: u8 = 4;

record! {
    /// One entry of a trap table.
    pub struct TrapInfo = "struct trap_info", 16 {
        0 vector: u8,
        1 flags: u8,
        2 cs: u16,
        4 _pad: u32,
        8 address: u64,
    }

    /// `CALLBACKOP_register`.
    pub struct CallbackRegister = "struct callback_register", 16 {
        0 kind: CallbackType = "type",
        /// `CALLBACKF_*`.
        2 flags: u16,
        4 _pad: u32,
        8 address: u64,
    }

    /// `CALLBACKOP_unregister`.
    pub struct CallbackUnregister = "struct callback_unregister", 4 {
        0 kind: CallbackType = "type",
        2 _unused: u16,
    }

    /// `XENNMI_register_callback`.
    pub struct NmiCallback = "struct xennmi_callback", 16 {
        0 handler_address: u64,
        8 _pad: u64,
    }

    /// What lies on the guest kernel's stack at `iret`.
    pub struct IretContext = "struct iret_context", 72 {
        0 rax: u64,
        8 r11: u64,
        16 rcx: u64,
        /// `VGCF_IN_SYSCALL` or 0.
        24 flags: u64,
        32 rip: u64,
        40 cs: u64,
        48 rflags: u64,
        56 rsp: u64,
        64 ss: u64,
    }
}
