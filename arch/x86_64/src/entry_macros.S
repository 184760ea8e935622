# SPDX-License-Identifier: MIT OR Apache-2.0
#
# What the entry stubs of entry.S are made of: frames that are saved and restored, and accesses to guest memory.

.macro CLAC_SITE
771:    .byte 0x0f, 0x1f, 0x00
        .pushsection .smap_sites, "a"
        .quad 771b
        .quad 0
        .popsection
.endm

.macro STAC_SITE
771:    .byte 0x0f, 0x1f, 0x00
        .pushsection .smap_sites, "a"
        .quad 771b
        .quad 1
        .popsection
.endm

# Pushes the general registers below the word of error code and vector.
.macro SAVE_REGS
        push    rdi
        push    rsi
        push    rdx
        push    rcx
        push    rax
        push    r8
        push    r9
        push    r10
        push    r11
        push    rbx
        push    rbp
        push    r12
        push    r13
        push    r14
        push    r15
.endm

.macro RESTORE_REGS
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbp
        pop     rbx
        pop     r11
        pop     r10
        pop     r9
        pop     r8
        pop     rax
        pop     rcx
        pop     rdx
        pop     rsi
        pop     rdi
.endm

# A load from guest memory in the way of an `iret`.
.macro GUEST_LOAD insn:vararg
772:    \insn
        .pushsection .fixup, "a"
        .quad 772b
        .quad iret_fault
        .popsection
.endm

# Makes the frame of a SYSCALL from 64-bit code, with rsp = &frame - 8 afterwards. Registers that Rust preserves are not
# saved: most calls never need them in the frame.
.macro SYSCALL_FRAME
        mov     qword ptr [rsp + 8], {ring3_ss}
        push    r11
        push    {ring3_cs64}
        push    rcx
        push    0
        mov     dword ptr [rsp + 4], {vector_syscall}
        SAVE_CLOBBERED
.endm

# As SAVE_REGS, less what Rust preserves, and with rsp = &frame - 8 afterwards.
.macro SAVE_CLOBBERED
        push    rdi
        push    rsi
        push    rdx
        push    rcx
        push    rax
        push    r8
        push    r9
        push    r10
        push    r11
        sub     rsp, 56
.endm

# Saves what SAVE_CLOBBERED left out; rsp = &frame - 8.
.macro SAVE_PRESERVED
        mov     [rsp + 8 + {rbx}], rbx
        mov     [rsp + 8 + {rbp}], rbp
        mov     [rsp + 8 + {r12}], r12
        mov     [rsp + 8 + {r13}], r13
        mov     [rsp + 8 + {r14}], r14
        mov     [rsp + 8 + {r15}], r15
.endm
