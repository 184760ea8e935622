// SPDX-License-Identifier: MIT OR Apache-2.0
//! Model-specific registers by number (SDM volume 4).
#![expect(unsafe_code, reason = "RDMSR and WRMSR")]
#![expect(missing_docs, reason = "the constants are the registers they are named after")]

use core::arch::asm;

pub const APIC_BASE: u32 = 0x1b;
pub const PRED_CMD: u32 = 0x49;
pub const SYSENTER_CS: u32 = 0x174;
pub const SYSENTER_ESP: u32 = 0x175;
pub const SYSENTER_EIP: u32 = 0x176;
pub const PAT: u32 = 0x277;
pub const EFER: u32 = 0xc000_0080;
pub const STAR: u32 = 0xc000_0081;
pub const LSTAR: u32 = 0xc000_0082;
pub const CSTAR: u32 = 0xc000_0083;
pub const SFMASK: u32 = 0xc000_0084;
pub const FS_BASE: u32 = 0xc000_0100;
pub const GS_BASE: u32 = 0xc000_0101;
pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
pub const TSC_AUX: u32 = 0xc000_0103;

/// Reads a register that exists on every CPU this runs on, or whose CPUID bit was checked.
#[inline]
pub fn read(index: u32) -> u64 {
    let (lo, hi): (u32, u32);
    // SAFETY: reading a model-specific register has no effect on memory; callers name registers that exist.
    unsafe { asm!("rdmsr", in("ecx") index, out("eax") lo, out("edx") hi, options(nomem, nostack, preserves_flags)) };
    u64::from(lo) | u64::from(hi) << 32
}

/// Writes a register that exists on every CPU this runs on, or whose CPUID bit was checked.
#[inline]
pub(crate) fn write(index: u32, value: u64) {
    // SAFETY: crate-private; each caller writes values that keep the hypervisor's own state intact.
    unsafe {
        asm!("wrmsr", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack, preserves_flags));
    }
}

/// Reads a register that may not exist.
pub fn read_safe(index: u32) -> Option<u64> {
    let (lo, hi, failed): (u32, u32, u32);
    // SAFETY: as `read`; a #GP is recovered from by the fix-up entry.
    unsafe {
        asm!("2: rdmsr", "3:",
             ".pushsection .text.recover, \"ax\"", "4: mov esi, 1", "jmp 3b", ".popsection",
             ".pushsection .fixup, \"a\"", ".quad 2b, 4b", ".popsection",
             in("ecx") index, out("eax") lo, out("edx") hi, inout("esi") 0 => failed,
             options(nomem, nostack, preserves_flags));
    }
    (failed == 0).then_some(u64::from(lo) | u64::from(hi) << 32)
}

/// Writes a register that may not exist, or not take the value; false when it does not.
pub(crate) fn write_safe(index: u32, value: u64) -> bool {
    let failed: u32;
    // SAFETY: as `write`; a #GP is recovered from by the fix-up entry.
    unsafe {
        asm!("2: wrmsr", "3:",
             ".pushsection .text.recover, \"ax\"", "4: mov esi, 1", "jmp 3b", ".popsection",
             ".pushsection .fixup, \"a\"", ".quad 2b, 4b", ".popsection",
             in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32, inout("esi") 0 => failed,
             options(nostack, preserves_flags));
    }
    failed == 0
}
