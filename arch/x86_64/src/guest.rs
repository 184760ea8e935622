// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory by linear address, in the address space that is loaded now.
//!
//! Copying is the only way: no reference into guest memory exists. SMAP is lifted only inside the copy routines,
//! and a fault in them ends in [`GuestFault`], with SMAP back in force. Callers have checked that the range lies
//! outside the hypervisor's hole ([`GuestVa::range_ok`]); here this is checked again, because it is all that
//! stands between a guest and the hypervisor's memory.
#![expect(unsafe_code, reason = "copies to and from guest addresses under fault fix-up")]

use core::arch::{asm, global_asm};
use core::mem::MaybeUninit;

use arch_types::GuestFault;
use hypercalls::GuestVa;

global_asm!(
    r#"
.macro SMAP_SITE stac
771:    .byte 0x0f, 0x1f, 0x00
        .pushsection .smap_sites, "a"
        .quad 771b
        .quad \stac
        .popsection
.endm
.macro FIXUP fault, recovery
        .pushsection .fixup, "a"
        .quad \fault
        .quad \recovery
        .popsection
.endm
        .text
        .balign 32
# fn xenith_guest_copy(dst: rdi, src: rsi, len: rdx) -> rax: 0, or 1 after a fault
        .globl  xenith_guest_copy
xenith_guest_copy:
        SMAP_SITE 1
        mov     rcx, rdx
        shr     rcx, 3
1:      rep movsq
        mov     ecx, edx
        and     ecx, 7
        jz      3f
2:      rep movsb
3:      SMAP_SITE 0
        xor     eax, eax
        ret
        FIXUP   1b, xenith_guest_fault
        FIXUP   2b, xenith_guest_fault
xenith_guest_fault:
        SMAP_SITE 0
        mov     eax, 1
        ret
"#
);

unsafe extern "C" {
    fn xenith_guest_copy(dst: u64, src: u64, len: u64) -> u32;
}

const fn done(failed: u32) -> Result<(), GuestFault> {
    if failed == 0 { Ok(()) } else { Err(GuestFault) }
}

/// Assembles an access to guest memory in line: SMAP is lifted around it, and a fault goes on behind it with `failed` set.
macro_rules! access {
    ($access:literal, $failed:ident, $($operands:tt)*) => {
        asm!(
            "771: .byte 0x0f, 0x1f, 0x00", ".pushsection .smap_sites, \"a\"", ".quad 771b, 1", ".popsection",
            concat!("2: ", $access),
            "3: .byte 0x0f, 0x1f, 0x00", ".pushsection .smap_sites, \"a\"", ".quad 3b, 0", ".popsection",
            ".pushsection .text.recover, \"ax\"", "4: mov {failed:e}, 1", "jmp 3b", ".popsection",
            ".pushsection .fixup, \"a\"", ".quad 2b, 4b", ".popsection",
            failed = inout(reg) 0u32 => $failed, $($operands)*, options(nostack, preserves_flags)
        )
    };
}

/// Copies from the guest; on a fault the destination's contents are unspecified.
///
/// # Errors
/// [`GuestFault`] when the range is not the guest's or not readable.
pub fn copy_from(dst: &mut [u8], src: GuestVa) -> Result<(), GuestFault> {
    if !src.range_ok(dst.len() as u64) {
        return Err(GuestFault);
    }
    // SAFETY: the destination is ours for its whole length; the source is outside the hypervisor's memory, and a
    // fault on it is recovered from.
    done(unsafe { xenith_guest_copy(dst.as_mut_ptr() as u64, src.0, dst.len() as u64) })
}

/// Copies to the guest; on a fault a part may have been written.
///
/// # Errors
/// [`GuestFault`] when the range is not the guest's or not writable.
pub fn copy_to(dst: GuestVa, src: &[u8]) -> Result<(), GuestFault> {
    if !dst.range_ok(src.len() as u64) {
        return Err(GuestFault);
    }
    // SAFETY: the source is ours; the destination is outside the hypervisor's memory, and a fault is recovered from.
    done(unsafe { xenith_guest_copy(dst.0, src.as_ptr() as u64, src.len() as u64) })
}

/// Copies words to the guest, as [`copy_to`].
///
/// # Errors
/// As [`copy_to`].
#[inline(always)]
pub fn write_words<const N: usize>(dst: GuestVa, words: &[u64; N]) -> Result<(), GuestFault> {
    if !dst.range_ok(size_of::<[u64; N]>() as u64) {
        return Err(GuestFault);
    }
    let failed: u32;
    // SAFETY: as in `copy_to`; DF is clear in Rust code.
    unsafe {
        access!("rep movsq", failed, inout("rcx") N => _, inout("rdi") dst.0 => _, inout("rsi") words.as_ptr() => _);
    }
    done(failed)
}

/// Reads a whole value, each byte once.
///
/// # Errors
/// As [`copy_from`].
#[inline(always)]
pub fn read<T: zerocopy::FromBytes + zerocopy::IntoBytes>(src: GuestVa) -> Result<T, GuestFault> {
    if !src.range_ok(size_of::<T>() as u64) {
        return Err(GuestFault);
    }
    let mut value = MaybeUninit::<T>::uninit();
    let to = value.as_mut_ptr() as u64;
    let failed: u32;
    if size_of::<T>().is_multiple_of(8) {
        // SAFETY: as in `copy_from`, into memory of the value's size; DF is clear in Rust code.
        unsafe {
            access!("rep movsq", failed, inout("rcx") size_of::<T>() / 8 => _, inout("rdi") to => _, inout("rsi") src.0 => _);
        }
    } else if size_of::<T>().is_multiple_of(4) {
        // SAFETY: as above.
        unsafe {
            access!("rep movsd", failed, inout("rcx") size_of::<T>() / 4 => _, inout("rdi") to => _, inout("rsi") src.0 => _);
        }
    } else {
        // SAFETY: as above.
        failed = unsafe { xenith_guest_copy(to, src.0, size_of::<T>() as u64) };
    }
    done(failed)?;
    // SAFETY: every byte was copied, and any bytes are a value of a type that is FromBytes.
    Ok(unsafe { value.assume_init() })
}

/// Reads 8 bytes in one access.
///
/// # Errors
/// As [`copy_from`].
#[inline(always)]
pub fn read_u64(src: GuestVa) -> Result<u64, GuestFault> {
    if !src.range_ok(8) {
        return Err(GuestFault);
    }
    let (failed, value): (u32, u64);
    // SAFETY: as in `copy_from`.
    unsafe { access!("mov {value}, [{src}]", failed, value = out(reg) value, src = in(reg) src.0) };
    done(failed)?;
    Ok(value)
}

/// Writes 8 bytes in one access.
///
/// # Errors
/// As [`copy_to`].
#[inline(always)]
pub fn write_u64(dst: GuestVa, value: u64) -> Result<(), GuestFault> {
    if !dst.range_ok(8) {
        return Err(GuestFault);
    }
    let failed: u32;
    // SAFETY: as in `copy_to`.
    unsafe { access!("mov [{dst}], {value}", failed, dst = in(reg) dst.0, value = in(reg) value) };
    done(failed)
}
