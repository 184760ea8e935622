// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page a guest kernel is started with: its address is in RSI at the first instruction.

use crate::layout::{constants, record};
use crate::{Maddr, Mfn, Pfn};

/// `magic` of a 64-bit guest, without the terminating zero.
pub const MAGIC: &[u8] = b"xen-3.0-x86_64";

constants! { Constants {
    /// The domain is privileged.
    SIF_PRIVILEGED(SIF_PRIVILEGED): u32 = 1 << 0,
    /// The domain is the first one.
    SIF_INITDOMAIN(SIF_INITDOMAIN): u32 = 1 << 1,
    /// The module list is a Multiboot one.
    SIF_MULTIBOOT_MOD(SIF_MULTIBOOT_MOD): u32 = 1 << 2,
    /// `mod_start` is a PFN, not an address.
    SIF_MOD_START_PFN(SIF_MOD_START_PFN): u32 = 1 << 3,
    /// The tools can use a virtual P2M.
    SIF_VIRT_P2M_4TOOLS(SIF_VIRT_P2M_4TOOLS): u32 = 1 << 4,
    /// Power-management hints.
    SIF_PM_MASK(SIF_PM_MASK): u32 = 0xff << 8,
    /// Bytes of the command line with its terminating zero.
    MAX_GUEST_CMDLINE(MAX_GUEST_CMDLINE): usize = 1024,
    XEN_VGATYPE_TEXT_MODE_3(XEN_VGATYPE_TEXT_MODE_3): u8 = 0x03,
    XEN_VGATYPE_VESA_LFB(XEN_VGATYPE_VESA_LFB): u8 = 0x23,
    XEN_VGATYPE_EFI_LFB(XEN_VGATYPE_EFI_LFB): u8 = 0x70,
}}

record! {
    /// The console part of [`StartInfo`], which reads differently for the first domain.
    pub struct StartInfoConsole = "", 16 {
        /// First domain: offset of the VGA information in the page. Others: low half of the ring's MFN.
        0 info_off: u32,
        /// First domain: size of the VGA information. Others: high half of the ring's MFN.
        4 info_size: u32,
        /// Others: the console's event-channel port.
        8 evtchn: u32,
        12 _pad: u32,
    }

    /// What a guest kernel is told at its start.
    pub struct StartInfo = "struct start_info", 1168 {
        0 magic: [u8; 32],
        /// Pages given to the domain.
        32 nr_pages: u64,
        /// Machine address of the shared page.
        40 shared_info: Maddr,
        /// `SIF_*`.
        48 flags: u32,
        52 _pad0: u32,
        56 store_mfn: Mfn,
        64 store_evtchn: u32,
        68 _pad1: u32,
        72 console: StartInfoConsole,
        /// Linear address of the L4 table.
        88 pt_base: u64,
        /// Number of bootstrap page-table frames.
        96 nr_pt_frames: u64,
        /// Linear address of the P2M array.
        104 mfn_list: u64,
        112 mod_start: u64,
        120 mod_len: u64,
        128 cmd_line: [u8; 1024],
        /// First PFN of the frames of the P2M array and the tables that map it.
        1152 first_p2m_pfn: Pfn,
        1160 nr_p2m_frames: u64,
    }

    /// `dom0_vga_console_info` with the frame-buffer part of its union.
    pub struct VgaConsoleInfo = "struct dom0_vga_console_info", 40 {
        0 video_type: u8,
        1 _pad: [u8; 3],
        4 width: u16 = "u.vesa_lfb.width",
        6 height: u16 = "u.vesa_lfb.height",
        8 bytes_per_line: u16 = "u.vesa_lfb.bytes_per_line",
        10 bits_per_pixel: u16 = "u.vesa_lfb.bits_per_pixel",
        12 lfb_base: u32 = "u.vesa_lfb.lfb_base",
        /// In units of 64 KiB.
        16 lfb_size: u32 = "u.vesa_lfb.lfb_size",
        20 red_pos: u8 = "u.vesa_lfb.red_pos",
        21 red_size: u8 = "u.vesa_lfb.red_size",
        22 green_pos: u8 = "u.vesa_lfb.green_pos",
        23 green_size: u8 = "u.vesa_lfb.green_size",
        24 blue_pos: u8 = "u.vesa_lfb.blue_pos",
        25 blue_size: u8 = "u.vesa_lfb.blue_size",
        26 rsvd_pos: u8 = "u.vesa_lfb.rsvd_pos",
        27 rsvd_size: u8 = "u.vesa_lfb.rsvd_size",
        28 gbl_caps: u32 = "u.vesa_lfb.gbl_caps",
        32 mode_attrs: u16 = "u.vesa_lfb.mode_attrs",
        34 _pad1: u16,
        36 ext_lfb_base: u32 = "u.vesa_lfb.ext_lfb_base",
    }
}

impl VgaConsoleInfo {
    /// A frame buffer lies above 4 GiB: `ext_lfb_base` counts (bit 1 of `gbl_caps`).
    pub const CAPABILITY_64BIT_BASE: u32 = 1 << 1;

    /// What the other part of the union says: a screen of characters. The places of its fields are those that the first
    /// fields of the frame-buffer part have.
    pub fn text(font_height: u16, cursor: (u16, u16), rows: u16, columns: u16) -> Self {
        Self {
            video_type: XEN_VGATYPE_TEXT_MODE_3,
            width: font_height,
            height: cursor.0,
            bytes_per_line: cursor.1,
            bits_per_pixel: rows,
            lfb_base: u32::from(columns),
            ..Self::default()
        }
    }
}

impl StartInfoConsole {
    /// The first domain's form: where in the page the VGA information lies (0, 0 for none).
    pub const fn dom0(info_off: u32, info_size: u32) -> Self {
        Self { info_off, info_size, evtchn: 0, _pad: 0 }
    }
    /// Any other domain's form: the console ring.
    pub const fn domu(mfn: Mfn, evtchn: u32) -> Self {
        Self { info_off: mfn.0 as u32, info_size: (mfn.0 >> 32) as u32, evtchn, _pad: 0 }
    }
}
