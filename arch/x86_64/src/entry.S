# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Entries from guests and from interrupts, and the ways back. Intel syntax.
#
# Every entry ends with the interrupted registers as `Regs` on a stack and DF, AC clear:
#  - from a guest (CPL 3) the frame is the one at the top of this CPU's main stack (TSS.rsp0, or the SYSCALL stub);
#    the rest of the stack is empty, so that the handler may leave through `exit_to_guest`;
#  - from the hypervisor (CPL 0) it lies on the stack that was in use, and is returned to.
# Interrupts are off everywhere except in `idle_wait` and `idle_pass`.
# Three-byte NOPs listed in .smap_sites become STAC (kind 1) or CLAC (kind 0) where the CPU has SMAP.
# Macros are in entry_macros.S.

        .text
        .balign 64
# SYSCALL from 64-bit code, by way of this CPU's stub.
# On arrival: rsp = &regs.rsp (already holding the guest's rsp), rcx = rip, r11 = rflags, IF, DF, AC, TF, NT clear.
        .globl  xenith_entry_syscall
        .type   xenith_entry_syscall, @function
xenith_entry_syscall:
        cmp     dword ptr [rsp - {rsp_at} + {kernel_mode}], 0
        je      guest_syscall
        cmp     rax, {iret}
        je      short_iret
hypercall:
        SYSCALL_FRAME
        cmp     rax, {handlers}
        sbb     r9, r9
        jae     1f
        and     rax, r9                         # on the way too that a wrong guess of the branch takes
        lea     r11, [rip + XENITH_HANDLERS]
        mov     r11, [r11 + 8 * rax]
        test    r11, r11
        jz      1f
        mov     r9, r8
        mov     r8, r10
        mov     rcx, rdx
        mov     rdx, rsi
        mov     rsi, rdi
        mov     rdi, [rsp + 8 + {vcpu}]
        mov     dword ptr [rsp + 8 + {budget}], {full_budget}
        call    r11
        mov     rcx, rax
        neg     rcx
        jo      2f                              # cut short: to be made again
        mov     [rsp + 8 + {rax}], rax

# The short way back, by SYSRET: nothing to do, no event. rsp = &frame - 8, all registers that Rust preserves are the guest's.
short_exit:
        cmp     dword ptr [rsp + 8 + {work}], 0
        jne     3f
        mov     rax, [rsp + 8 + {vcpu_info}]
        movzx   eax, word ptr [rax]
        dec     al
        cmp     ax, 0x00ff                      # pending 0 before: 0xff now; masked: high byte not 0
        jb      4f                              # high byte 0 and low byte not 0xff: pending, not masked
        mov     rcx, [rsp + 8 + {rip}]
        sar     rcx, 47                         # canonical: all ones or all zeros are left (XSA-7)
        inc     rcx
        cmp     rcx, 1
        ja      3f
        add     rsp, 64
        pop     r10
        pop     r9
        pop     r8
        pop     rax
        pop     rcx
        pop     rdx
        pop     rsi
        pop     rdi
        mov     rcx, [rsp + 8]
        mov     r11, [rsp + 24]
        mov     rsp, [rsp + 32]
        sysretq
1:      lea     rdi, [rsp + 8]
        call    xenith_hypercall
        cmp     dword ptr [rsp + 8 + {vector}], {vector_syscall}
        je      short_exit
        jmp     3f
2:      lea     rdi, [rsp + 8]
        call    xenith_hypercall_again
        jmp     short_exit
3:      SAVE_PRESERVED
        jmp     exit_to_guest
4:      lea     rdi, [rsp + 8]
        call    xenith_event
        jmp     short_exit

# SYSCALL from guest user mode.
guest_syscall:
        SYSCALL_FRAME
        lea     rdi, [rsp + 8]
        call    xenith_guest_syscall
        jmp     short_exit

# The hypercall `iret` (runtime rules 4.4) where nothing else is to be done on the way: `bounce::iret` says what it means, and
# does it wherever this here does not. Nothing of it can be seen by anybody before the last load from the guest's stack,
# but for the event mask, which the long way sets too. The guest's words, from its rsp on: rax, r11, rcx, flags, rip, cs,
# rflags, rsp, ss. Of ours, rip to ss are complete before IRETQ, as a fault there wants it. Free: rax, rcx, r11.
short_iret:
        mov     [rsp - {rsp_at} + {scratch}], rcx
        mov     rcx, [rsp]
        mov     rax, rcx
        sar     rax, 43
        cmp     rax, -15                        # below the upper part that is guests'
        jb      long_iret
        cmp     dword ptr [rsp - {rsp_at} + {watch_iret}], 0
        jne     long_iret
        cmp     dword ptr [rsp - {rsp_at} + {work}], 0
        jne     long_iret
        STAC_SITE
        GUEST_LOAD mov  r11, [rcx + 48]
        mov     rax, [rsp - {rsp_at} + {vcpu_info}]
        test    r11d, 0x200
        jz      4f
        cmp     byte ptr [rax], 0
        jne     long_iret
        mov     byte ptr [rax + 1], 0
1:      and     r11d, {iret_keeps}
        or      r11d, 0x202
        mov     [rsp - 8], r11
        GUEST_LOAD movzx eax, word ptr [rcx + 64]
        or      eax, 3
        mov     [rsp + 8], rax
        GUEST_LOAD mov  r11, [rcx + 32]
        mov     [rsp - 24], r11
        GUEST_LOAD movzx eax, word ptr [rcx + 40]
        mov     r11d, eax
        or      eax, 3
        mov     [rsp - 16], rax
        GUEST_LOAD test byte ptr [rcx + 25], 1  # VGCF_in_syscall
        jnz     3f
        not     r11d
        test    r11d, 3
        jz      2f
        GUEST_LOAD mov  rax, [rcx + 56]
        mov     [rsp], rax
        GUEST_LOAD mov  r11, [rcx + 8]
        GUEST_LOAD mov  rax, [rcx]
        GUEST_LOAD mov  rcx, [rcx + 16]
        CLAC_SITE
        sub     rsp, 24
        .globl  xenith_kernel_iret_to_guest
xenith_kernel_iret_to_guest:
        iretq
# To user mode. rax goes by way of our frame, past the change of address space.
2:      cmp     qword ptr [rsp - {rsp_at} + {cr3_user}], 0
        je      long_iret
        GUEST_LOAD mov  rax, [rcx + 56]
        mov     [rsp], rax
        GUEST_LOAD mov  r11, [rcx + 8]
        GUEST_LOAD mov  rax, [rcx]
        GUEST_LOAD mov  rcx, [rcx + 16]
        CLAC_SITE
        mov     [rsp - {rsp_at} + {rax}], rax
        mov     dword ptr [rsp - {rsp_at} + {kernel_mode}], 0
        swapgs
        mov     rax, [rsp - {rsp_at} + {cr3_user}]
        mov     cr3, rax
        mov     rax, [rsp - {rsp_at} + {rax}]
        sub     rsp, 24
        .globl  xenith_user_iret_to_guest
xenith_user_iret_to_guest:
        iretq
# To user mode with rcx and r11 free: by SYSRET.
3:      not     r11d
        test    r11d, 3
        jnz     long_iret
        mov     rax, [rsp - 24]
        sar     rax, 47                         # XSA-7
        inc     rax
        cmp     rax, 1
        ja      long_iret
        cmp     qword ptr [rsp - {rsp_at} + {cr3_user}], 0
        je      long_iret
        GUEST_LOAD mov  rax, [rcx + 56]
        mov     [rsp], rax
        GUEST_LOAD mov  rax, [rcx]
        CLAC_SITE
        mov     dword ptr [rsp - {rsp_at} + {kernel_mode}], 0
        swapgs
        mov     rcx, [rsp - {rsp_at} + {cr3_user}]
        mov     cr3, rcx
        mov     rcx, [rsp - 24]
        mov     r11, [rsp - 8]
        mov     rsp, [rsp]
        sysretq
4:      mov     byte ptr [rax + 1], 1
        jmp     1b
# A load faulted, or there is more to do than the short way does. rcx: the guest's rsp.
iret_fault:
long_iret:
        CLAC_SITE
        mov     [rsp], rcx
        mov     rcx, [rsp - {rsp_at} + {scratch}]
        mov     r11d, 0x202
        mov     eax, {iret}
        jmp     hypercall
        .size   xenith_entry_syscall, . - xenith_entry_syscall

# SYSCALL from 32-bit code. As above; CS was the 32-bit one.
        .globl  xenith_entry_syscall32
xenith_entry_syscall32:
        mov     qword ptr [rsp + 8], {ring3_ss}
        push    r11
        push    {ring3_cs32}
        push    rcx
        push    0
        mov     dword ptr [rsp + 4], {vector_syscall32}
        SAVE_REGS
        jmp     guest_exception

# SYSENTER. On arrival: rsp = end of this CPU's frame (SYSENTER_ESP), the guest's rip and rsp are lost, flags are the
# guest's except IF and VM; NT and TF are cleaned before anything else runs on them (XSA-44).
        .globl  xenith_entry_sysenter
xenith_entry_sysenter:
        push    {ring3_ss}
        push    0
        pushfq
        push    2
        popfq
        push    {ring3_cs32}
        push    0
        push    0
        mov     dword ptr [rsp + 4], {vector_sysenter}
        SAVE_REGS
        jmp     guest_exception

# Exceptions. The stubs below leave the word of error code and vector on the stack.
        .balign 16
exception_common:
        cld
        CLAC_SITE
        SAVE_REGS
        test    byte ptr [rsp + {cs}], 3
        jz      hypervisor_exception
guest_exception:
        mov     rdi, rsp
        sub     rsp, 8
        call    xenith_guest_exception
        jmp     exit_to_guest

# Page faults. rsp = &regs.error_code. Those that only go on to the guest take a shorter way; a write by the guest's kernel
# may be one to a page table.
        .balign 16
page_fault:
        cld
        CLAC_SITE
        test    byte ptr [rsp + 16], 3
        jz      exception_common
        test    byte ptr [rsp], 2
        jz      1f
        cmp     dword ptr [rsp - {error_code_at} + {kernel_mode}], 0
        je      1f
        SAVE_REGS
        mov     rdi, rsp
        sub     rsp, 8
        call    xenith_kernel_write_fault
        jmp     exit_to_guest
1:      SAVE_CLOBBERED
        lea     rdi, [rsp + 8]
        call    xenith_page_fault
        test    al, al
        jnz     short_exit
        SAVE_PRESERVED
        lea     rdi, [rsp + 8]
        call    xenith_guest_exception
        jmp     exit_to_guest

# Exceptions and interrupts on stacks of their own (NMI, #MC, #DB, #DF). One that hit a guest moves to the main stack.
ist_common:
        cld
        CLAC_SITE
        SAVE_REGS
        test    byte ptr [rsp + {cs}], 3
        jz      hypervisor_exception
        mov     rsi, rsp
        mov     rdi, rsp
        or      rdi, {stride_mask}
        sub     rdi, {area_size} - {regs_offset} - 1
        mov     rdx, rdi
        mov     ecx, {regs_words}
        rep movsq
        mov     rsp, rdx
        jmp     guest_exception

# A fault in the hypervisor itself, or on its way back to a guest.
# The handler returns 0: resume what was interrupted; 1: the main stack's frame is the guest to return to.
hypervisor_exception:
        mov     rdi, rsp
        mov     rbx, rsp
        and     rsp, -16
        call    xenith_hypervisor_exception
        mov     rsp, rbx
        test    eax, eax
        jnz     1f
        RESTORE_REGS
        add     rsp, 8
        iretq
1:      or      rsp, {stride_mask}
        sub     rsp, {area_size} - {regs_offset} - 1 + 8
        jmp     exit_to_guest

# Interrupts.
        .balign 16
interrupt_common:
        cld
        CLAC_SITE
        SAVE_REGS
        mov     rdi, rsp
        test    byte ptr [rsp + {cs}], 3
        jz      1f
        sub     rsp, 8
        call    xenith_interrupt
        jmp     exit_to_guest
1:      mov     rbx, rsp
        and     rsp, -16
        call    xenith_interrupt
        mov     rsp, rbx
        RESTORE_REGS
        add     rsp, 8
        iretq

# The way back. On arrival: rsp = &regs - 8 on the main stack. Loops until no work and no event upcall is left.
# rax, rcx: free.
        .balign 64
        .globl  exit_to_guest
exit_to_guest:
        cmp     dword ptr [rsp + 8 + {work}], 0
        jne     2f
        mov     rax, [rsp + 8 + {vcpu_info}]
        movzx   eax, word ptr [rax]
        dec     al
        cmp     ax, 0x00ff
        jae     3f
        lea     rdi, [rsp + 8]
        call    xenith_event
        jmp     exit_to_guest
2:      lea     rdi, [rsp + 8]
        call    xenith_exit_work
        jmp     exit_to_guest
3:      add     rsp, 8
        cmp     dword ptr [rsp + {vector}], {vector_syscall}
        jne     4f
# SYSRET: rip canonical (else #GP in ring 0 on Intel: XSA-7), CS and SS the flat ones, rcx and r11 not the guest's.
        mov     rcx, [rsp + {rip}]
        mov     rax, rcx
        shl     rax, 16
        sar     rax, 16
        cmp     rax, rcx
        jne     4f
        RESTORE_REGS
        mov     rcx, [rsp + 8]
        mov     r11, [rsp + 24]
        mov     rsp, [rsp + 32]
        sysretq
4:      RESTORE_REGS
        add     rsp, 8
        .globl  xenith_iret_to_guest
xenith_iret_to_guest:
        iretq

# Waits for an interrupt with interrupts on, and turns them off again. `sti` holds interrupts off for one more
# instruction, so a wake-up between the caller's check and `hlt` is not lost.
        .globl  idle_wait
idle_wait:
        sti
        hlt
        cli
        ret

# Lets interrupts in that are waiting: one more instruction, since `sti` holds them off for one.
        .globl  idle_pass
idle_pass:
        sti
        nop
        cli
        ret

# First entry of a CPU into its life of running guests: rdi = end of the main stack's frame.
        .globl  xenith_start_running
xenith_start_running:
        lea     rsp, [rdi - {regs_size} - 8]
        jmp     exit_to_guest

# --- Stubs, 16 bytes apart -----------------------------------------------------------------------------------------

.macro EXCEPTION n, has_code, common
        .balign 16
        .if \has_code == 0
        push    0
        .endif
        mov     dword ptr [rsp + 4], \n
        jmp     \common
.endm

        .balign 16
        .globl  xenith_stubs
xenith_stubs:
        EXCEPTION 0, 0, exception_common
        EXCEPTION 1, 0, ist_common
        EXCEPTION 2, 0, ist_common
        EXCEPTION 3, 0, exception_common
        EXCEPTION 4, 0, exception_common
        EXCEPTION 5, 0, exception_common
        EXCEPTION 6, 0, exception_common
        EXCEPTION 7, 0, exception_common
        EXCEPTION 8, 1, ist_common
        EXCEPTION 9, 0, exception_common
        EXCEPTION 10, 1, exception_common
        EXCEPTION 11, 1, exception_common
        EXCEPTION 12, 1, exception_common
        EXCEPTION 13, 1, exception_common
        EXCEPTION 14, 1, page_fault
        EXCEPTION 15, 0, exception_common
        EXCEPTION 16, 0, exception_common
        EXCEPTION 17, 1, exception_common
        EXCEPTION 18, 0, ist_common
        EXCEPTION 19, 0, exception_common
        EXCEPTION 20, 0, exception_common
        EXCEPTION 21, 1, exception_common
        EXCEPTION 22, 0, exception_common
        EXCEPTION 23, 0, exception_common
        EXCEPTION 24, 0, exception_common
        EXCEPTION 25, 0, exception_common
        EXCEPTION 26, 0, exception_common
        EXCEPTION 27, 0, exception_common
        EXCEPTION 28, 0, exception_common
        EXCEPTION 29, 0, exception_common
        EXCEPTION 30, 0, exception_common
        EXCEPTION 31, 0, exception_common

        .set    vec, 32
        .rept   224
        .balign 16
        push    0
        .byte   0xc7, 0x44, 0x24, 0x04         # mov dword ptr [rsp + 4], vec
        .long   vec
        .if vec == 0x80
        jmp     exception_common
        .else
        jmp     interrupt_common
        .endif
        .set    vec, vec + 1
        .endr
