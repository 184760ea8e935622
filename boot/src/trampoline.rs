// SPDX-License-Identifier: MIT OR Apache-2.0
//! The code that takes an application processor from its startup interrupt to 64-bit mode.
//!
//! # State at the start of the page
//! Real mode, interrupts off, CS = page >> 4, IP = 0, everything else undefined (INIT, then STARTUP with the page's number).
//! The page lies below 1 MiB, holds [`code`] with its parameters filled in ([`write`]), and is used by one CPU at a time.
//!
//! # State at [`Params::entry`]
//! 64-bit mode, interrupts off, `rsp` = [`Params::stack`] less the 8 bytes of a null return address, first argument =
//! [`Params::arg`], `rbp` = 0. CR3 is the one given (it must map the page at its own address, executable, and the entry
//! and the stack), CR0, CR4 and EFER are as after the boot entry, the GDT is a copy in the page (code 8, data 16: replace it
//! before the page is reused), no IDT, no TSS. The code writes to its page before paging is on, never after.
#![expect(unsafe_code, reason = "the blob is assembly, and is copied to a page given by address")]

use core::arch::global_asm;

/// Offsets in the page. The code below takes them as constants.
mod at {
    pub(super) const CODE64: usize = 0x80;
    pub(super) const GDT: usize = 0x100;
    pub(super) const GDTR: usize = 0x120;
    pub(super) const FAR: usize = 0x128;
    pub(super) const CR3: usize = 0x130;
    pub(super) const ENTRY: usize = 0x138;
    pub(super) const STACK: usize = 0x140;
    pub(super) const ARG: usize = 0x148;
    pub(super) const END: usize = 0x150;
}

/// Size of the blob in bytes.
pub const SIZE: usize = at::END;

/// What a starting CPU is given.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Page-table root, below 4 GiB; [`crate::boot_cr3`] will do.
    pub cr3: u32,
    /// Linear address of an `extern "C" fn(arg: u64) -> !`.
    pub entry: u64,
    /// Linear address behind the highest byte of the stack, a multiple of 16.
    pub stack: u64,
    /// Handed to the entry.
    pub arg: u64,
}

global_asm!(
    r#"
    .section .rodata.trampoline, "a"
    .balign 16
    .global xenith_trampoline
    .code16
xenith_trampoline:
    cli
    cld
    mov     ax, cs
    mov     ds, ax
    movzx   ebp, ax
    shl     ebp, 4                          # the page's physical address
    lea     eax, [ebp + {gdt}]
    mov     dword ptr ds:[{gdtr} + 2], eax
    lea     eax, [ebp + {code64}]
    mov     dword ptr ds:[{far}], eax
    lgdt    ds:[{gdtr}]

    mov     eax, 0x80000001                 # the first CPU has checked that the leaf exists
    cpuid
    and     edx, 1 << 20
    shr     edx, 9
    mov     edi, edx
    mov     eax, {cr4}
    mov     cr4, eax
    mov     eax, dword ptr ds:[{cr3}]
    mov     cr3, eax
    mov     ecx, 0xc0000080
    rdmsr
    or      eax, 0x100
    or      eax, edi
    wrmsr
    mov     eax, {cr0}
    mov     cr0, eax
    .byte   0x66, 0xff, 0x2e                # far jump to the 32-bit offset and selector at ds:FAR
    .word   {far}

    .org    xenith_trampoline + {code64}, 0xcc
    .code64
    mov     eax, 16
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    xor     eax, eax
    mov     fs, eax
    mov     gs, eax
    mov     eax, ebp
    mov     rsp, [rax + {stack}]
    mov     rdi, [rax + {arg}]
    mov     rax, [rax + {entry}]
    xor     ebp, ebp
    push    0
    jmp     rax

    .org    xenith_trampoline + {gdt}, 0xcc
    .quad   0
    .quad   0x00af9b000000ffff
    .quad   0x00cf93000000ffff
    .org    xenith_trampoline + {gdtr}, 0
    .word   23
    .long   0
    .org    xenith_trampoline + {far}, 0
    .long   0
    .word   8
    .org    xenith_trampoline + {end}, 0
    .text
"#,
    code64 = const at::CODE64,
    gdt = const at::GDT,
    gdtr = const at::GDTR,
    far = const at::FAR,
    cr3 = const at::CR3,
    stack = const at::STACK,
    arg = const at::ARG,
    entry = const at::ENTRY,
    end = const at::END,
    cr0 = const crate::entry::CR0_BOOT,
    cr4 = const crate::entry::CR4_BOOT,
);

unsafe extern "C" {
    static xenith_trampoline: [u8; SIZE];
}

/// The blob, with empty parameters.
#[must_use]
pub fn code() -> &'static [u8; SIZE] {
    // SAFETY: the assembly above emits exactly SIZE bytes at that label, in read-only memory nobody changes.
    unsafe { &xenith_trampoline }
}

/// Puts the blob with its parameters into the page at linear address `page`.
///
/// # Safety
/// `page` must be valid for writes of [`SIZE`] bytes, map a frame below 1 MiB that nobody else uses (no CPU is
/// starting from it, either), and what `params` names must be as their docs say.
pub unsafe fn write(page: *mut u8, params: &Params) {
    let mut blob = *code();
    let fields =
        [(at::CR3, u64::from(params.cr3)), (at::ENTRY, params.entry), (at::STACK, params.stack), (at::ARG, params.arg)];
    for (offset, value) in fields {
        blob[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }
    // SAFETY: the caller gives a page valid for SIZE bytes, which overlaps neither the stack nor the image.
    unsafe { core::ptr::copy_nonoverlapping(blob.as_ptr(), page, SIZE) };
}
