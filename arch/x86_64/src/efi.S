# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A call of UEFI firmware by its own convention (UEFI specification 2.3.4.2), from which a fault leads back. Intel syntax.

# rdi = function, rsi = five arguments, rdx = where the stack pointer is noted for whoever handles a fault.
# Returns the status in rax, and in rdx whether the firmware has faulted.
        .text
        .globl  xenith_efi_call
        .type   xenith_efi_call, @function
xenith_efi_call:
        push    rbp
        push    rbx
        push    r12
        push    r13
        push    r14
        push    r15
        mov     [rdx], rsp
        mov     rax, rdi
        mov     rcx, [rsi]
        mov     rdx, [rsi + 8]
        mov     r8, [rsi + 16]
        mov     r9, [rsi + 24]
        mov     r10, [rsi + 32]
# Room for four register arguments, and the fifth; the stack is aligned to 16 bytes.
        sub     rsp, 40
        mov     [rsp + 32], r10
        call    rax
        add     rsp, 40
        xor     edx, edx
        jmp     1f
# From the fault's handler, with the stack pointer as noted.
        .globl  xenith_efi_fault
xenith_efi_fault:
        mov     edx, 1
1:      cld
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbx
        pop     rbp
        ret
        .size   xenith_efi_call, . - xenith_efi_call
