// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest memory by linear address, in the address space that is loaded now.
//!
//! Copying is the only way: no reference into guest memory exists. SMAP is lifted only inside the copy routines,
//! and a fault in them ends in [`GuestFault`], with SMAP back in force. Callers have checked that the range lies
//! outside the hypervisor's hole ([`GuestVa::range_ok`]); here this is checked again, because it is all that
//! stands between a guest and the hypervisor's memory.
#![expect(
    unsafe_code,
    reason = "copies to and from guest addresses under fault fix-up"
)]

use core::arch::global_asm;

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
        .balign 16
# fn xenith_guest_read(src: rdi, out: rsi) -> rax: one aligned or unaligned 8-byte load
        .globl  xenith_guest_read
xenith_guest_read:
        SMAP_SITE 1
1:      mov     rdx, [rdi]
        SMAP_SITE 0
        mov     [rsi], rdx
        xor     eax, eax
        ret
        FIXUP   1b, xenith_guest_fault
        .balign 16
# fn xenith_guest_write(dst: rdi, value: rsi) -> rax: one 8-byte store
        .globl  xenith_guest_write
xenith_guest_write:
        SMAP_SITE 1
1:      mov     [rdi], rsi
        SMAP_SITE 0
        xor     eax, eax
        ret
        FIXUP   1b, xenith_guest_fault
"#
);

unsafe extern "C" {
    fn xenith_guest_copy(dst: u64, src: u64, len: u64) -> u32;
    fn xenith_guest_read(src: u64, out: &mut u64) -> u32;
    fn xenith_guest_write(dst: u64, value: u64) -> u32;
}

const fn done(failed: u32) -> Result<(), GuestFault> {
    if failed == 0 { Ok(()) } else { Err(GuestFault) }
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

/// Reads 8 bytes in one access.
///
/// # Errors
/// As [`copy_from`].
#[inline]
pub fn read_u64(src: GuestVa) -> Result<u64, GuestFault> {
    if !src.range_ok(8) {
        return Err(GuestFault);
    }
    let mut value = 0;
    // SAFETY: as in `copy_from`.
    done(unsafe { xenith_guest_read(src.0, &mut value) })?;
    Ok(value)
}

/// Writes 8 bytes in one access.
///
/// # Errors
/// As [`copy_to`].
#[inline]
pub fn write_u64(dst: GuestVa, value: u64) -> Result<(), GuestFault> {
    if !dst.range_ok(8) {
        return Err(GuestFault);
    }
    // SAFETY: as in `copy_to`.
    done(unsafe { xenith_guest_write(dst.0, value) })
}
