// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ABI as a guest sees it: hypercall numbers, commands, structures. Names as in the public headers.
//!
//! Stated independently of the `hypercalls` crate on purpose; see the crate's documentation.

/// Where PFN 0 is mapped (the VIRT_BASE note).
pub const VIRT_BASE: u64 = 0xffff_ffff_8000_0000;
/// Where the M2P is.
pub const M2P: u64 = 0xffff_8000_0000_0000;
/// First address of the hypervisor's hole, and first behind it.
pub const HOLE: (u64, u64) = (0xffff_8000_0000_0000, 0xffff_8800_0000_0000);
/// Where a guest with the INIT_P2M note has its P2M.
pub const INIT_P2M: u64 = 0x0000_0080_0000_0000;

/// Hypercall numbers.
pub mod nr {
    macro_rules! numbers {
        ($($name:ident = $value:literal),* $(,)?) => {
            $(#[doc = concat!("Number of `", stringify!($name), "`.")] pub const $name: u64 = $value;)*
        };
    }
    numbers! {
        SET_TRAP_TABLE = 0, MMU_UPDATE = 1, SET_GDT = 2, STACK_SWITCH = 3, SET_CALLBACKS = 4, FPU_TASKSWITCH = 5,
        SCHED_OP_COMPAT = 6, PLATFORM_OP = 7, SET_DEBUGREG = 8, GET_DEBUGREG = 9, UPDATE_DESCRIPTOR = 10,
        MEMORY_OP = 12, MULTICALL = 13, UPDATE_VA_MAPPING = 14, SET_TIMER_OP = 15, XEN_VERSION = 17,
        CONSOLE_IO = 18, GRANT_TABLE_OP = 20, VM_ASSIST = 21, UPDATE_VA_MAPPING_OTHERDOMAIN = 22, IRET = 23,
        VCPU_OP = 24, SET_SEGMENT_BASE = 25, MMUEXT_OP = 26, NMI_OP = 28, SCHED_OP = 29, CALLBACK_OP = 30,
        EVENT_CHANNEL_OP = 32, PHYSDEV_OP = 33, SYSCTL = 35, DOMCTL = 36,
    }
}

/// Page-table entry bits.
pub mod pte {
    /// Present.
    pub const P: u64 = 1 << 0;
    /// Writable.
    pub const RW: u64 = 1 << 1;
    /// User.
    pub const U: u64 = 1 << 2;
    /// Write-through.
    pub const PWT: u64 = 1 << 3;
    /// Cache disabled.
    pub const PCD: u64 = 1 << 4;
    /// Accessed.
    pub const A: u64 = 1 << 5;
    /// Dirty.
    pub const D: u64 = 1 << 6;
    /// Large page.
    pub const PSE: u64 = 1 << 7;
    /// Global.
    pub const G: u64 = 1 << 8;
    /// First of the bits left to software.
    pub const AVAIL: u64 = 1 << 9;
    /// The hypervisor's mark of a guest kernel mapping.
    pub const GUEST_KERNEL: u64 = 1 << 52;
    /// Not executable.
    pub const NX: u64 = 1 << 63;
    /// The frame number's bits.
    pub const ADDR: u64 = 0x000f_ffff_ffff_f000;
    /// A kernel page that may be written.
    pub const KERNEL_RW: u64 = P | RW | A | D;
    /// A kernel page that may not.
    pub const KERNEL_RO: u64 = P | A;
    /// A table.
    pub const TABLE: u64 = P | RW | U | A | D;
}

/// Page number, level by level, of `va` (level 1 to 4).
pub const fn index(va: u64, level: u32) -> usize {
    ((va >> (12 + 9 * (level - 1))) & 511) as usize
}

/// mmu_update: commands in the low bits of `ptr`.
pub const MMU_NORMAL_PT_UPDATE: u64 = 0;
/// As above: change the M2P.
pub const MMU_MACHPHYS_UPDATE: u64 = 1;
/// As above: keep accessed and dirty bits.
pub const MMU_PT_UPDATE_PRESERVE_AD: u64 = 2;

/// mmuext_op commands.
pub mod mmuext {
    macro_rules! numbers {
        ($($name:ident = $value:literal),* $(,)?) => {
            $(#[doc = concat!("Command MMUEXT_", stringify!($name), ".")] pub const $name: u32 = $value;)*
        };
    }
    numbers! {
        PIN_L1 = 0, PIN_L2 = 1, PIN_L3 = 2, PIN_L4 = 3, UNPIN = 4, NEW_BASEPTR = 5, TLB_FLUSH_LOCAL = 6,
        INVLPG_LOCAL = 7, TLB_FLUSH_MULTI = 8, INVLPG_MULTI = 9, TLB_FLUSH_ALL = 10, INVLPG_ALL = 11,
        FLUSH_CACHE = 12, SET_LDT = 13, NEW_USER_BASEPTR = 15, CLEAR_PAGE = 16, COPY_PAGE = 17,
        FLUSH_CACHE_GLOBAL = 18, MARK_SUPER = 19, UNMARK_SUPER = 20,
    }
}

/// update_va_mapping: no flush.
pub const UVMF_NONE: u64 = 0;
/// update_va_mapping: flush this CPU's TLB.
pub const UVMF_TLB_FLUSH: u64 = 1;
/// update_va_mapping: flush this page.
pub const UVMF_INVLPG: u64 = 2;

/// The domain itself.
pub const DOMID_SELF: u64 = 0x7ff0;
/// Owner of device memory.
pub const DOMID_IO: u64 = 0x7ff1;
/// Owner of the hypervisor's shareable frames.
pub const DOMID_XEN: u64 = 0x7ff2;

/// Flat selectors that every GDT holds.
pub const FLAT_CS32: u64 = 0xe023;
/// 64-bit code.
pub const FLAT_CS64: u64 = 0xe033;
/// Data and stack.
pub const FLAT_SS: u64 = 0xe02b;

/// `start_info` of the 64-bit ABI.
#[repr(C)]
#[derive(Debug)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct StartInfo {
    pub magic: [u8; 32],
    pub nr_pages: u64,
    pub shared_info: u64,
    pub flags: u32,
    pub store_mfn: u64,
    pub store_evtchn: u32,
    pub console: [u64; 2],
    pub pt_base: u64,
    pub nr_pt_frames: u64,
    pub mfn_list: u64,
    pub mod_start: u64,
    pub mod_len: u64,
    pub cmd_line: [u8; 1024],
    pub first_p2m_pfn: u64,
    pub nr_p2m_frames: u64,
}

/// An entry of the trap table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct TrapInfo {
    pub vector: u8,
    pub flags: u8,
    pub cs: u16,
    pub address: u64,
}

/// One request of mmu_update.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct MmuUpdate {
    pub ptr: u64,
    pub val: u64,
}

/// One request of mmuext_op.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct MmuExt {
    pub cmd: u32,
    pub arg1: u64,
    pub arg2: u64,
}

/// One call of a multicall.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of the public header")]
pub struct Multicall {
    pub op: u64,
    pub result: i64,
    pub args: [u64; 6],
}

/// Offsets within the shared info page.
pub mod shared {
    /// First `vcpu_info`, and the distance to the next.
    pub const VCPU_INFO: (u64, u64) = (0, 64);
    /// Within `vcpu_info`: pending byte.
    pub const PENDING: u64 = 0;
    /// Within `vcpu_info`: mask byte.
    pub const MASK: u64 = 1;
    /// Within `vcpu_info`: selector word.
    pub const SEL: u64 = 8;
    /// Within `vcpu_info`: faulting address.
    pub const CR2: u64 = 16;
    /// Within `vcpu_info`: time.
    pub const TIME: u64 = 32;
    /// Pending words of the two-level ABI.
    pub const EVTCHN_PENDING: u64 = 0x800;
    /// Mask words of the two-level ABI.
    pub const EVTCHN_MASK: u64 = 0xa00;
    /// Wall clock.
    pub const WC: u64 = 0xc00;
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<StartInfo>() == 1168 && offset_of!(StartInfo, first_p2m_pfn) == 1152);
    assert!(offset_of!(StartInfo, mfn_list) == 104 && offset_of!(StartInfo, console) == 72);
    assert!(size_of::<TrapInfo>() == 16 && size_of::<MmuExt>() == 24 && size_of::<Multicall>() == 64);
};
