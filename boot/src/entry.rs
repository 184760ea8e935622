// SPDX-License-Identifier: MIT OR Apache-2.0
//! The multiboot2 header and the way from the loader's 32-bit protected mode to `xenith_start` in 64-bit mode.
//!
//! # State at `xenith_entry32` (multiboot2 specification 3.3)
//! 32-bit protected mode, flat segments, paging off, interrupts off, A20 open; `eax` holds the loader's magic, `ebx` the
//! physical address of the boot information. No stack. The loader has zeroed `.bss`. On UEFI the boot services have ended.
//! The code of section `.boot.text` is linked at the physical address it is loaded at; it names everything else as
//! `symbol - VIRT_OFFSET`.
//!
//! # State at `xenith_start(magic: u32, info_maddr: u32) -> !`, which the binary defines
//! 64-bit mode, interrupts off, on a 64 KiB stack in `.bss`, a GDT of one code and one data segment (selectors 8 and 16),
//! no IDT, no TSS. CR0 = PG|WP|NE|ET|MP|PE, CR4 = PAE|PGE|OSFXSR|OSXMMEXCPT, EFER = LME (|NXE where CPUID has it).
//! The boot page tables map, all writable and executable: the first 4 GiB at 0 and at the direct map, and the first
//! [`IMAGE_MAPPED`] bytes from physical 2 MiB at the address the image is linked at. They hold no global entries.
//! `magic` is always the multiboot2 one: with any other the entry has printed why and halted.
#![expect(unsafe_code, reason = "symbols defined in assembly are read by address")]

use crate::info::{Error, total_size};
use core::arch::global_asm;
use core::ops::Range;

/// Where the image is linked.
pub const VIRT_BASE: u64 = 0xffff_82d0_4000_0000;
/// Where the loader puts it.
pub const PHYS_BASE: u64 = 0x20_0000;
/// Where the boot page tables and all later ones map machine address 0.
pub const DIRECTMAP: u64 = 0xffff_8300_0000_0000;
/// Linear minus physical address of everything in the image.
pub const VIRT_OFFSET: u64 = VIRT_BASE - PHYS_BASE;
/// How much the boot page tables map at [`VIRT_BASE`].
pub const IMAGE_MAPPED: u64 = 16 << 20;
/// Size of the stack that `xenith_start` is called on.
pub const BOOT_STACK_SIZE: usize = 64 << 10;

/// The magic number a multiboot2 loader leaves in `eax`.
const LOADER_MAGIC: u32 = multiboot2::MAGIC;
/// The magic number that starts the header in the image.
const HEADER_MAGIC: u32 = 0xe852_50d6;

pub(crate) const CR0_BOOT: u32 = 0x8001_0033;
pub(crate) const CR4_BOOT: u32 = 0x6a0;

// The multiboot2 header. The required tags name what the hypervisor cannot do without.
global_asm!(
    r#"
    .section .multiboot2, "a"
    .balign 8
.Lheader:
    .long {magic}
    .long 0
    .long .Lheader_end - .Lheader
    .long -({magic} + .Lheader_end - .Lheader)

    .balign 8                       # information request: command line, modules, basic memory, memory map
.Lneed:
    .word 1, 0
    .long .Lneed_end - .Lneed
    .long 1, 3, 4, 6
.Lneed_end:
    .balign 8                       # optional: loader name, framebuffer, EFI tables, ACPI roots, EFI memory map
.Lwant:
    .word 1, 1
    .long .Lwant_end - .Lwant
    .long 2, 8, 11, 12, 14, 15, 17
.Lwant_end:
    .balign 8                       # modules on page boundaries
    .word 6, 0
    .long 8
    .balign 8                       # consoles: EGA text will do, none is fine
    .word 4, 1
    .long 12
    .long 2
    .balign 8                       # a screen of pixels, of any size: UEFI has no other
    .word 5, 1
    .long 20
    .long 0, 0, 0
    .balign 8                       # end
    .word 0, 0
    .long 8
.Lheader_end:
"#,
    magic = const HEADER_MAGIC,
);

// What the entry needs: page tables and stack, zeroed by the loader, and the GDT.
global_asm!(
    r#"
    .section .bss.page_aligned, "aw", @nobits
    .balign 4096
    .global xenith_boot_l4
xenith_boot_l4:     .skip 4096
.Lboot_l3:          .skip 4096
.Lboot_l3_image:    .skip 4096
.Lboot_l2_image:    .skip 4096
.Lboot_l2:          .skip 4 * 4096
    .global xenith_boot_stack, xenith_boot_stack_top
xenith_boot_stack:  .skip {stack}
xenith_boot_stack_top:

    .section .rodata.boot, "a"
    .balign 8
.Lgdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
.Lgdt_end:
    .balign 8
    .word 0, 0, 0
.Lgdtr:
    .word .Lgdt_end - .Lgdt - 1
    .quad .Lgdt
.Lgdtr32:
    .word .Lgdt_end - .Lgdt - 1
    .long .Lgdt - {off}

    .section .boot.text, "ax"
    .code32
    .global xenith_entry32
xenith_entry32:
    cli
    cld
    mov     esp, offset xenith_boot_stack_top - {off}
    cmp     eax, {loader_magic}
    mov     esi, offset .Lmsg_magic
    jne     .Lrefuse

    # CPUID exists if EFLAGS.ID can be changed; then long mode is bit 29, NX bit 20 of leaf 0x80000001 edx.
    mov     esi, offset .Lmsg_long
    pushfd
    pop     eax
    mov     ecx, eax
    xor     eax, 0x200000
    push    eax
    popfd
    pushfd
    pop     eax
    cmp     eax, ecx
    je      .Lrefuse
    mov     ebp, ebx
    mov     eax, 0x80000000
    cpuid
    cmp     eax, 0x80000001
    jb      .Lrefuse
    mov     eax, 0x80000001
    cpuid
    test    edx, 1 << 29
    jz      .Lrefuse
    and     edx, 1 << 20
    shr     edx, 9                  # EFER.NXE is bit 11
    mov     ebx, edx

    # 4 GiB in 2 MiB pages, then the tables above them; the upper halves of all entries are zero.
    mov     edi, offset .Lboot_l2 - {off}
    mov     eax, 0x83
    mov     ecx, 2048
1:  mov     [edi], eax
    add     edi, 8
    add     eax, 0x200000
    dec     ecx
    jnz     1b
    mov     edi, offset .Lboot_l3 - {off}
    mov     eax, offset .Lboot_l2 - {off} + 3
    mov     ecx, 4
1:  mov     [edi], eax
    add     edi, 8
    add     eax, 4096
    dec     ecx
    jnz     1b
    mov     edi, offset .Lboot_l2_image - {off}
    mov     eax, {phys} + 0x83
    mov     ecx, {image_l2_entries}
1:  mov     [edi], eax
    add     edi, 8
    add     eax, 0x200000
    dec     ecx
    jnz     1b
    mov     edi, offset .Lboot_l3_image - {off}
    mov     eax, offset .Lboot_l2_image - {off} + 3
    mov     [edi + 8 * {image_l3_slot}], eax
    mov     edi, offset xenith_boot_l4 - {off}
    mov     eax, offset .Lboot_l3 - {off} + 3
    mov     [edi], eax
    mov     [edi + 8 * {directmap_slot}], eax
    mov     eax, offset .Lboot_l3_image - {off} + 3
    mov     [edi + 8 * {image_l4_slot}], eax

    mov     eax, {cr4}
    mov     cr4, eax
    mov     cr3, edi
    mov     ecx, 0xc0000080
    rdmsr
    or      eax, 0x100
    or      eax, ebx
    wrmsr
    mov     eax, {cr0}
    mov     cr0, eax
    mov     eax, offset .Lgdtr32 - {off}
    lgdt    [eax]
    push    8
    mov     eax, offset .Lentry64
    push    eax
    retf

    # Says why on the first serial port and on the text screen, then halts. esi = message.
.Lrefuse:
    mov     edx, 0x3fb
    mov     al, 0x80
    out     dx, al
    mov     edx, 0x3f8
    mov     al, 1
    out     dx, al
    inc     edx
    xor     eax, eax
    out     dx, al
    mov     edx, 0x3fb
    mov     al, 3
    out     dx, al
    mov     edi, 0xb8000
1:  lodsb
    test    al, al
    jz      3f
    mov     ah, 0x4f
    mov     [edi], ax
    add     edi, 2
    mov     bl, al
    mov     ecx, 100000             # a port that never gets ready must not stop the screen
2:  mov     edx, 0x3fd
    in      al, dx
    test    al, 0x20
    loopz   2b
    mov     edx, 0x3f8
    mov     al, bl
    out     dx, al
    jmp     1b
3:  hlt
    jmp     3b

.Lmsg_magic:
    .asciz "Xenith: not started by a multiboot2 loader (with GRUB use multiboot2, not multiboot).\r\n"
.Lmsg_long:
    .asciz "Xenith: this CPU has no 64-bit mode, which is needed.\r\n"

    .code64
.Lentry64:
    mov     eax, 16
    mov     ds, eax
    mov     es, eax
    mov     ss, eax
    xor     eax, eax
    mov     fs, eax
    mov     gs, eax
    movabs  rax, offset .Lgdtr
    lgdt    [rax]
    movabs  rsp, offset xenith_boot_stack_top
    mov     edi, {loader_magic}
    mov     esi, ebp
    xor     ebp, ebp
    movabs  rax, offset xenith_start
    call    rax
    ud2
    .text
"#,
    off = const VIRT_OFFSET,
    phys = const PHYS_BASE,
    stack = const BOOT_STACK_SIZE,
    loader_magic = const LOADER_MAGIC,
    image_l2_entries = const IMAGE_MAPPED >> 21,
    image_l3_slot = const (VIRT_BASE >> 30) & 511,
    image_l4_slot = const (VIRT_BASE >> 39) & 511,
    directmap_slot = const (DIRECTMAP >> 39) & 511,
    cr0 = const CR0_BOOT,
    cr4 = const CR4_BOOT,
);

unsafe extern "C" {
    static xenith_boot_l4: u8;
    static xenith_boot_stack: u8;
    static xenith_boot_stack_top: u8;
    static __image_start: u8;
    static __image_end: u8;
}

/// Physical address of the boot page tables' root: below 4 GiB, with the identity map a starting CPU needs.
///
/// The tables lie in `.bss` and stay valid as long as nobody reuses that memory.
#[must_use]
pub fn boot_cr3() -> u64 {
    (&raw const xenith_boot_l4).addr() as u64 - VIRT_OFFSET
}

/// The stack that `xenith_start` was called on: its lowest address, and the address behind its highest byte.
#[must_use]
pub fn boot_stack() -> (usize, usize) {
    ((&raw const xenith_boot_stack).addr(), (&raw const xenith_boot_stack_top).addr())
}

/// The machine addresses that the image takes up, `.bss` and all.
#[must_use]
pub fn image() -> Range<u64> {
    let start = (&raw const __image_start).addr() as u64 - VIRT_OFFSET;
    let end = (&raw const __image_end).addr() as u64 - VIRT_OFFSET;
    start..end
}

/// The loader's boot information at machine address `maddr`, through the direct map.
///
/// # Errors
/// If its header claims an absurd size.
///
/// # Safety
/// `maddr` is what the loader handed over, the direct map covers the first 4 GiB, and until the slice is gone nobody writes
/// to that memory.
pub unsafe fn info_bytes(maddr: u32) -> Result<&'static [u8], Error> {
    let start = (DIRECTMAP + u64::from(maddr)) as *const u8;
    // SAFETY: the loader's block starts with its size, and is mapped as the caller promises.
    let size = total_size(unsafe { start.cast::<[u8; 4]>().read() })?;
    // SAFETY: as above, for the size that the loader gave the block.
    Ok(unsafe { core::slice::from_raw_parts(start, size) })
}
