// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page-table updates: `mmu_update`, `update_va_mapping`, `mmuext_op`.

use crate::layout::{codes, constants, record};
use crate::{DomId, GuestPtr, GuestVa, Mfn};

codes! {
    /// The low two bits of [`MmuUpdate::ptr`].
    pub struct MmuUpdateKind(u32) {
        NORMAL_PT_UPDATE(MMU_NORMAL_PT_UPDATE) = 0,
        MACHPHYS_UPDATE(MMU_MACHPHYS_UPDATE) = 1,
        PT_UPDATE_PRESERVE_AD(MMU_PT_UPDATE_PRESERVE_AD) = 2,
        PT_UPDATE_NO_TRANSLATE(MMU_PT_UPDATE_NO_TRANSLATE) = 3,
    }

    /// A sub-operation of `mmuext_op`.
    pub struct MmuextCmd(u32) {
        PIN_L1_TABLE(MMUEXT_PIN_L1_TABLE) = 0,
        PIN_L2_TABLE(MMUEXT_PIN_L2_TABLE) = 1,
        PIN_L3_TABLE(MMUEXT_PIN_L3_TABLE) = 2,
        PIN_L4_TABLE(MMUEXT_PIN_L4_TABLE) = 3,
        UNPIN_TABLE(MMUEXT_UNPIN_TABLE) = 4,
        NEW_BASEPTR(MMUEXT_NEW_BASEPTR) = 5,
        TLB_FLUSH_LOCAL(MMUEXT_TLB_FLUSH_LOCAL) = 6,
        INVLPG_LOCAL(MMUEXT_INVLPG_LOCAL) = 7,
        TLB_FLUSH_MULTI(MMUEXT_TLB_FLUSH_MULTI) = 8,
        INVLPG_MULTI(MMUEXT_INVLPG_MULTI) = 9,
        TLB_FLUSH_ALL(MMUEXT_TLB_FLUSH_ALL) = 10,
        INVLPG_ALL(MMUEXT_INVLPG_ALL) = 11,
        FLUSH_CACHE(MMUEXT_FLUSH_CACHE) = 12,
        SET_LDT(MMUEXT_SET_LDT) = 13,
        NEW_USER_BASEPTR(MMUEXT_NEW_USER_BASEPTR) = 15,
        CLEAR_PAGE(MMUEXT_CLEAR_PAGE) = 16,
        COPY_PAGE(MMUEXT_COPY_PAGE) = 17,
        FLUSH_CACHE_GLOBAL(MMUEXT_FLUSH_CACHE_GLOBAL) = 18,
        MARK_SUPER(MMUEXT_MARK_SUPER) = 19,
        UNMARK_SUPER(MMUEXT_UNMARK_SUPER) = 20,
    }
}

constants! { Constants {
    UVMF_NONE(UVMF_NONE): u64 = 0,
    /// Flush all translations afterwards.
    UVMF_TLB_FLUSH(UVMF_TLB_FLUSH): u64 = 1,
    /// Flush the one translation afterwards.
    UVMF_INVLPG(UVMF_INVLPG): u64 = 2,
    UVMF_FLUSHTYPE_MASK(UVMF_FLUSHTYPE_MASK): u64 = 3,
    /// On the vCPUs of the bitmap at the address in the other bits.
    UVMF_MULTI(UVMF_MULTI): u64 = 0,
    /// On this vCPU only.
    UVMF_LOCAL(UVMF_LOCAL): u64 = 0,
    /// On all vCPUs.
    UVMF_ALL(UVMF_ALL): u64 = 4,
}}

/// In the count of `mmu_update` and `mmuext_op`: a restarted call, its real count in the other bits.
pub const MMU_UPDATE_PREEMPTED: u32 = 1 << 31;

record! {
    /// One request of `mmu_update`.
    pub struct MmuUpdate = "struct mmu_update", 16 {
        /// Machine address of the entry, the kind in its low three bits.
        0 ptr: u64,
        8 val: u64,
    }

    /// One request of `mmuext_op`.
    pub struct MmuextOp = "struct mmuext_op", 24 {
        0 cmd: MmuextCmd,
        4 _pad: u32,
        /// A frame number or a linear address.
        8 arg1: u64 = "arg1.mfn",
        /// A number of entries, a bitmap's address or a source frame.
        16 arg2: u64 = "arg2.src_mfn",
    }
}

impl MmuUpdate {
    /// Returns what is asked for.
    pub const fn kind(&self) -> MmuUpdateKind {
        MmuUpdateKind(self.ptr as u32 & 7)
    }
    /// Returns the machine address without the kind.
    pub const fn maddr(&self) -> crate::Maddr {
        crate::Maddr(self.ptr & !7)
    }
}

impl MmuextOp {
    /// Returns the first argument as a frame.
    pub const fn mfn(&self) -> Mfn {
        Mfn(self.arg1)
    }
    /// Returns the first argument as a linear address.
    pub const fn linear_addr(&self) -> GuestVa {
        GuestVa(self.arg1)
    }
    /// Returns the second argument as a number of entries.
    pub const fn nr_ents(&self) -> u32 {
        self.arg2 as u32
    }
    /// Returns the second argument as the address of a bitmap of vCPUs.
    pub const fn vcpumask(&self) -> GuestPtr<u64> {
        GuestPtr::new(self.arg2)
    }
    /// Returns the second argument as a frame.
    pub const fn src_mfn(&self) -> Mfn {
        Mfn(self.arg2)
    }
}

/// Splits the `foreigndom` argument of `mmu_update` into the frames' owner and, when given, the
/// page tables' owner.
pub const fn split_foreigndom(foreigndom: u32) -> (DomId, Option<DomId>) {
    let fd = DomId(foreigndom as u16);
    match (foreigndom >> 16) as u16 {
        0 => (fd, None),
        pt => (fd, Some(DomId(pt - 1))),
    }
}
