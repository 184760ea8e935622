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

/// Assembles stores of words to guest memory, whose whole range was checked; after a fault it goes on with the first argument.
macro_rules! store {
    ($fault:expr, $dst:ident, $($word:ident $at:literal),+) => {
        // SAFETY: as in `copy_to`.
        unsafe {
            asm!(
                "771: .byte 0x0f, 0x1f, 0x00", ".pushsection .smap_sites, \"a\"", ".quad 771b, 1", ".popsection",
                $(
                    concat!("2: mov [{dst} + ", $at, "], {", stringify!($word), "}"),
                    ".pushsection .fixup, \"a\"", ".quad 2b, 4f", ".popsection",
                )+
                "3: .byte 0x0f, 0x1f, 0x00", ".pushsection .smap_sites, \"a\"", ".quad 3b, 0", ".popsection",
                ".pushsection .text.recover, \"ax\"",
                "4: .byte 0x0f, 0x1f, 0x00", ".pushsection .smap_sites, \"a\"", ".quad 4b, 0", ".popsection",
                "jmp {fault}", ".popsection",
                dst = in(reg) $dst.0, $($word = in(reg) $word,)+ fault = label { $fault },
                options(nostack, preserves_flags)
            );
        }
    };
}

/// Assembles loads of words of guest memory, whose whole range was checked, and puts them one behind the other.
macro_rules! load {
    ($failed:ident, $src:ident, $to:ident, $first:ident $first_at:literal $(, $word:ident $at:literal)*) => {{
        let ($first, $($word,)*): (u64, $(load!(@u64 $word),)*);
        // SAFETY: as in `copy_from`; the value has as many bytes.
        unsafe {
            asm!(
                "771: .byte 0x0f, 0x1f, 0x00", ".pushsection .smap_sites, \"a\"", ".quad 771b, 1", ".popsection",
                concat!("2: mov {", stringify!($first), "}, [{src}]"),
                ".pushsection .fixup, \"a\"", ".quad 2b, 4f", ".popsection",
                $(
                    concat!("2: mov {", stringify!($word), "}, [{src} + ", $at, "]"),
                    ".pushsection .fixup, \"a\"", ".quad 2b, 4f", ".popsection",
                )*
                "3: .byte 0x0f, 0x1f, 0x00", ".pushsection .smap_sites, \"a\"", ".quad 3b, 0", ".popsection",
                ".pushsection .text.recover, \"ax\"", "4: mov {failed:e}, 1", "jmp 3b", ".popsection",
                failed = inout(reg) 0u32 => $failed, src = in(reg) $src.0,
                $first = out(reg) $first, $($word = out(reg) $word,)*
                options(nostack, preserves_flags)
            );
            $to.cast::<u64>().add($first_at / 8).write_unaligned($first);
            $($to.cast::<u64>().add($at / 8).write_unaligned($word);)*
        }
    }};
    (@u64 $word:ident) => { u64 };
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
    if !dst.access_ok(size_of::<[u64; N]>() as u64) {
        return Err(GuestFault);
    }
    // The two forms that nearly all bounce frames have go from registers.
    if let [a, b, c, d, e, f, g] = words[..] {
        store!(return Err(GuestFault), dst, a 0, b 8, c 16, d 24, e 32, f 40, g 48);
        return Ok(());
    }
    if let [a, b, c, d, e, f, g, h] = words[..] {
        store!(return Err(GuestFault), dst, a 0, b 8, c 16, d 24, e 32, f 40, g 48, h 56);
        return Ok(());
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
    if !src.access_ok(size_of::<T>() as u64) {
        return Err(GuestFault);
    }
    let mut value = MaybeUninit::<T>::uninit();
    let to = value.as_mut_ptr();
    let failed: u32;
    match size_of::<T>() {
        4 => {
            let a: u32;
            // SAFETY: as in `copy_from`; the value has 4 bytes.
            unsafe {
                access!("mov {a:e}, [{src}]", failed, a = out(reg) a, src = in(reg) src.0);
                to.cast::<u32>().write_unaligned(a);
            }
        }
        8 => load!(failed, src, to, a 0),
        16 => load!(failed, src, to, a 0, b 8),
        56 => load!(failed, src, to, a 0, b 8, c 16, d 24, e 32, f 40, g 48),
        // SAFETY: as in `copy_from`, into memory of the value's size; DF is clear in Rust code.
        size if size.is_multiple_of(8) => unsafe {
            access!("rep movsq", failed, inout("rcx") size / 8 => _, inout("rdi") to => _, inout("rsi") src.0 => _);
        },
        // SAFETY: as above.
        size => failed = unsafe { xenith_guest_copy(to as u64, src.0, size as u64) },
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
    read(src)
}

/// Writes 8 bytes in one access.
///
/// # Errors
/// As [`copy_to`].
#[inline(always)]
pub fn write_u64(dst: GuestVa, value: u64) -> Result<(), GuestFault> {
    if !dst.access_ok(8) {
        return Err(GuestFault);
    }
    store!(return Err(GuestFault), dst, value 0);
    Ok(())
}
