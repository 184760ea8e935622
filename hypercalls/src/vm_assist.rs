// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vm_assist`: behaviours a domain switches on.

use crate::layout::codes;

codes! {
    /// A sub-operation of `vm_assist`.
    pub struct VmAssistCmd(u32) {
        ENABLE(VMASST_CMD_enable) = 0,
        DISABLE(VMASST_CMD_disable) = 1,
    }

    /// A behaviour, as its bit number.
    pub struct VmAssistType(u32) {
        SEGMENTS_4GB(VMASST_TYPE_4gb_segments) = 0,
        SEGMENTS_4GB_NOTIFY(VMASST_TYPE_4gb_segments_notify) = 1,
        WRITABLE_PAGETABLES(VMASST_TYPE_writable_pagetables) = 2,
        PAE_EXTENDED_CR3(VMASST_TYPE_pae_extended_cr3) = 3,
        ARCHITECTURAL_IOPL(VMASST_TYPE_architectural_iopl) = 4,
        RUNSTATE_UPDATE_FLAG(VMASST_TYPE_runstate_update_flag) = 5,
        M2P_STRICT(VMASST_TYPE_m2p_strict) = 32,
    }
}

impl VmAssistType {
    /// Returns the behaviour's bit in a domain's set, or None for an unknown one.
    pub const fn mask(self) -> Option<u64> {
        match self.name() {
            Some(_) => Some(1 << self.0),
            None => None,
        }
    }
}
