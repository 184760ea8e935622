// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vcpu_op` and the state of a vCPU as guests and tools hand it over.

use crate::layout::{codes, constants, record};
use crate::trap::TrapInfo;
use crate::{GuestVa, Mfn};

codes! {
    /// A sub-operation of `vcpu_op`.
    pub struct VcpuOp(u32) {
        INITIALISE(VCPUOP_initialise) = 0,
        UP(VCPUOP_up) = 1,
        DOWN(VCPUOP_down) = 2,
        IS_UP(VCPUOP_is_up) = 3,
        GET_RUNSTATE_INFO(VCPUOP_get_runstate_info) = 4,
        REGISTER_RUNSTATE_MEMORY_AREA(VCPUOP_register_runstate_memory_area) = 5,
        SET_PERIODIC_TIMER(VCPUOP_set_periodic_timer) = 6,
        STOP_PERIODIC_TIMER(VCPUOP_stop_periodic_timer) = 7,
        SET_SINGLESHOT_TIMER(VCPUOP_set_singleshot_timer) = 8,
        STOP_SINGLESHOT_TIMER(VCPUOP_stop_singleshot_timer) = 9,
        REGISTER_VCPU_INFO(VCPUOP_register_vcpu_info) = 10,
        SEND_NMI(VCPUOP_send_nmi) = 11,
        GET_PHYSID(VCPUOP_get_physid) = 12,
        REGISTER_VCPU_TIME_MEMORY_AREA(VCPUOP_register_vcpu_time_memory_area) = 13,
    }

    /// What a vCPU is doing.
    pub struct Runstate(u32) {
        RUNNING(RUNSTATE_running) = 0,
        RUNNABLE(RUNSTATE_runnable) = 1,
        BLOCKED(RUNSTATE_blocked) = 2,
        OFFLINE(RUNSTATE_offline) = 3,
    }
}

constants! { Constants {
    /// In `state_entry_time`: an update is under way.
    XEN_RUNSTATE_UPDATE(XEN_RUNSTATE_UPDATE): u64 = 1 << 63,
    /// Fail when the time has passed (ignored in practice).
    VCPU_SSHOTTMR_FUTURE(VCPU_SSHOTTMR_future): u32 = 1,
    /// The FPU area holds something.
    VGCF_I387_VALID(VGCF_i387_valid): u64 = 1 << 0,
    /// The vCPU is in guest kernel mode.
    VGCF_IN_KERNEL(VGCF_in_kernel): u64 = 1 << 2,
    /// The failsafe callback masks events.
    VGCF_FAILSAFE_DISABLES_EVENTS(VGCF_failsafe_disables_events): u64 = 1 << 3,
    /// The syscall callback masks events.
    VGCF_SYSCALL_DISABLES_EVENTS(VGCF_syscall_disables_events): u64 = 1 << 4,
    /// The vCPU is up afterwards.
    VGCF_ONLINE(VGCF_online): u64 = 1 << 5,
    /// In an iret frame only: return by SYSRET.
    VGCF_IN_SYSCALL(VGCF_in_syscall): u64 = 1 << 8,
}}

record! {
    /// How long a vCPU has been in each state.
    pub struct RunstateInfo = "struct vcpu_runstate_info", 48 {
        0 state: Runstate,
        4 _pad: u32,
        8 state_entry_time: u64,
        16 time: [u64; 4],
    }

    /// `register_runstate_memory_area` and `register_vcpu_time_memory_area`: a linear address.
    pub struct RegisterArea = "struct vcpu_register_runstate_memory_area", 8 {
        0 addr: GuestVa = "addr.p",
    }

    /// `set_periodic_timer`.
    pub struct SetPeriodicTimer = "struct vcpu_set_periodic_timer", 8 {
        0 period_ns: u64,
    }

    /// `set_singleshot_timer`.
    pub struct SetSingleshotTimer = "struct vcpu_set_singleshot_timer", 16 {
        0 timeout_abs_ns: u64,
        8 flags: u32,
        12 _pad: u32,
    }

    /// `register_vcpu_info`.
    pub struct RegisterVcpuInfo = "struct vcpu_register_vcpu_info", 16 {
        0 mfn: Mfn,
        8 offset: u32,
        12 rsvd: u32,
    }

    /// `get_physid`.
    pub struct GetPhysid = "struct vcpu_get_physid", 8 {
        0 phys_id: u64,
    }

    /// A vCPU's registers.
    pub struct CpuUserRegs = "struct cpu_user_regs", 200 {
        0 r15: u64,
        8 r14: u64,
        16 r13: u64,
        24 r12: u64,
        32 rbp: u64,
        40 rbx: u64,
        48 r11: u64,
        56 r10: u64,
        64 r9: u64,
        72 r8: u64,
        80 rax: u64,
        88 rcx: u64,
        96 rdx: u64,
        104 rsi: u64,
        112 rdi: u64,
        120 error_code: u32,
        124 entry_vector: u32,
        128 rip: u64,
        136 cs: u16,
        138 _pad0: u16,
        140 saved_upcall_mask: u8,
        141 _pad1: [u8; 3],
        144 rflags: u64,
        152 rsp: u64,
        160 ss: u16,
        162 _pad2: [u16; 3],
        168 es: u16,
        170 _pad3: [u16; 3],
        176 ds: u16,
        178 _pad4: [u16; 3],
        184 fs: u16,
        186 _pad5: [u16; 3],
        192 gs: u16,
        194 _pad6: [u16; 3],
    }

    /// Everything needed to start a vCPU.
    pub struct VcpuGuestContext = "struct vcpu_guest_context", 5168 {
        /// The FXSAVE image.
        0 fpu_ctxt: [u8; 512],
        /// `VGCF_*`.
        512 flags: u64,
        520 user_regs: CpuUserRegs,
        720 trap_ctxt: [TrapInfo; 256],
        4816 ldt_base: u64,
        4824 ldt_ents: u64,
        4832 gdt_frames: [u64; 16],
        4960 gdt_ents: u64,
        4968 kernel_ss: u64,
        4976 kernel_sp: u64,
        /// \[0\] CR0, \[1\] user L4 as MFN << 12, \[3\] kernel L4 as MFN << 12, \[4\] CR4.
        4984 ctrlreg: [u64; 8],
        5048 debugreg: [u64; 8],
        5112 event_callback_eip: u64,
        5120 failsafe_callback_eip: u64,
        5128 syscall_callback_eip: u64,
        5136 vm_assist: u64,
        5144 fs_base: u64,
        5152 gs_base_kernel: u64,
        5160 gs_base_user: u64,
    }
}
