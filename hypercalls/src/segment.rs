// SPDX-License-Identifier: MIT OR Apache-2.0
//! Selectors every guest may use, and `set_segment_base`.

use crate::layout::{codes, constants};

codes! {
    /// Which base or selector `set_segment_base` sets.
    pub struct SegmentBase(u32) {
        FS(SEGBASE_FS) = 0,
        GS_USER(SEGBASE_GS_USER) = 1,
        GS_KERNEL(SEGBASE_GS_KERNEL) = 2,
        GS_USER_SEL(SEGBASE_GS_USER_SEL) = 3,
    }
}

constants! { Constants {
    FLAT_RING3_CS32(FLAT_RING3_CS32): u16 = 0xe023,
    FLAT_RING3_CS64(FLAT_RING3_CS64): u16 = 0xe033,
    FLAT_RING3_DS32(FLAT_RING3_DS32): u16 = 0xe02b,
    FLAT_RING3_DS64(FLAT_RING3_DS64): u16 = 0,
    FLAT_RING3_SS32(FLAT_RING3_SS32): u16 = 0xe02b,
    FLAT_RING3_SS64(FLAT_RING3_SS64): u16 = 0xe02b,
    FLAT_KERNEL_CS(FLAT_KERNEL_CS): u16 = FLAT_RING3_CS64,
    FLAT_KERNEL_SS(FLAT_KERNEL_SS): u16 = FLAT_RING3_SS64,
    FLAT_USER_CS32(FLAT_USER_CS32): u16 = FLAT_RING3_CS32,
    FLAT_USER_CS64(FLAT_USER_CS64): u16 = FLAT_RING3_CS64,
    FLAT_USER_SS(FLAT_USER_SS): u16 = FLAT_RING3_SS64,
    /// Pages of a guest's own part of the GDT.
    FIRST_RESERVED_GDT_PAGE(FIRST_RESERVED_GDT_PAGE): usize = 14,
    FIRST_RESERVED_GDT_BYTE(FIRST_RESERVED_GDT_BYTE): usize = 14 * 4096,
    FIRST_RESERVED_GDT_ENTRY(FIRST_RESERVED_GDT_ENTRY): usize = 14 * 4096 / 8,
}}
