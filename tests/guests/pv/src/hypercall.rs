// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hypercalls: the `syscall` instruction with the number in RAX and up to five arguments, and thin wrappers.
//!
//! These are safe functions although a hypercall can change the memory map under the compiler's feet: that is
//! what the guests are here to do, and a guest that saws off its own branch fails its own test and nothing else.

use crate::abi::{self, MmuExt, MmuUpdate, Multicall, nr};

/// Makes a hypercall; the three fewer-argument forms below are this one with zeros.
pub fn hypercall5(number: u64, a: u64, b: u64, c: u64, d: u64, e: u64) -> i64 {
    let result: i64;
    // SAFETY: by the ABI only RAX, RCX and R11 change; what the call does to memory is the caller's wish.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            // The ABI lets the hypervisor spoil the argument registers.
            inlateout("rdi") a => _, inlateout("rsi") b => _, inlateout("rdx") c => _,
            inlateout("r10") d => _, inlateout("r8") e => _,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// Makes a hypercall with one argument.
pub fn hypercall1(number: u64, a: u64) -> i64 {
    hypercall5(number, a, 0, 0, 0, 0)
}

/// Makes a hypercall with two arguments.
pub fn hypercall2(number: u64, a: u64, b: u64) -> i64 {
    hypercall5(number, a, b, 0, 0, 0)
}

/// Makes a hypercall with three arguments.
pub fn hypercall3(number: u64, a: u64, b: u64, c: u64) -> i64 {
    hypercall5(number, a, b, c, 0, 0)
}

/// Makes a hypercall with four arguments.
pub fn hypercall4(number: u64, a: u64, b: u64, c: u64, d: u64) -> i64 {
    hypercall5(number, a, b, c, d, 0)
}

/// Makes a `xen_version` call.
pub fn xen_version(cmd: u64, arg: u64) -> i64 {
    hypercall2(nr::XEN_VERSION, cmd, arg)
}

/// Makes an `update_va_mapping` call.
pub fn update_va_mapping(va: u64, entry: u64, flags: u64) -> i64 {
    hypercall3(nr::UPDATE_VA_MAPPING, va, entry, flags)
}

/// Makes an `mmu_update` call on the domain itself; returns the result and the number of requests done.
pub fn mmu_update(requests: &[MmuUpdate]) -> (i64, u32) {
    let mut done = u32::MAX;
    let result = hypercall4(
        nr::MMU_UPDATE,
        requests.as_ptr() as u64,
        requests.len() as u64,
        &raw mut done as u64,
        abi::DOMID_SELF,
    );
    (result, done)
}

/// Changes one page-table entry by `mmu_update`.
pub fn set_entry(maddr: u64, entry: u64) -> i64 {
    mmu_update(&[MmuUpdate { ptr: maddr, val: entry }]).0
}

/// Makes an `mmuext_op` call of several commands; returns the result and the number of commands done.
pub fn mmuext(requests: &[MmuExt]) -> (i64, u32) {
    let mut done = u32::MAX;
    let result = hypercall4(
        nr::MMUEXT_OP,
        requests.as_ptr() as u64,
        requests.len() as u64,
        &raw mut done as u64,
        abi::DOMID_SELF,
    );
    (result, done)
}

/// Makes an `mmuext_op` call of one command.
pub fn mmuext_op(cmd: u32, arg1: u64, arg2: u64) -> i64 {
    mmuext(&[MmuExt { cmd, arg1, arg2 }]).0
}

/// Makes a multicall.
pub fn multicall(calls: &mut [Multicall]) -> i64 {
    hypercall2(nr::MULTICALL, calls.as_mut_ptr() as u64, calls.len() as u64)
}

/// Returns a multicall entry.
pub fn call(op: u64, args: [u64; 5]) -> Multicall {
    let [a, b, c, d, e] = args;
    Multicall { op, result: 0x5a5a, args: [a, b, c, d, e, 0] }
}

/// Makes an `event_channel_op` call.
pub fn event_channel_op<T>(cmd: u64, arg: &mut T) -> i64 {
    hypercall2(nr::EVENT_CHANNEL_OP, cmd, &raw mut *arg as u64)
}

/// Makes a `sched_op` call with a pointer.
pub fn sched_op<T>(cmd: u64, arg: &mut T) -> i64 {
    hypercall2(nr::SCHED_OP, cmd, &raw mut *arg as u64)
}

/// Makes a `vcpu_op` call with a pointer.
pub fn vcpu_op<T>(cmd: u64, vcpu: u64, arg: &mut T) -> i64 {
    hypercall3(nr::VCPU_OP, cmd, vcpu, &raw mut *arg as u64)
}

/// Tells the hypervisor the stack it shall enter the guest kernel on when it interrupts guest user mode.
pub fn stack_switch(rsp: u64) -> i64 {
    hypercall2(nr::STACK_SWITCH, abi::FLAT_SS, rsp)
}
