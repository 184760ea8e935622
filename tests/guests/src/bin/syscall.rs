// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the two modes of the guest: `syscall` from user mode reaches the guest kernel's callback and never the
//! hypervisor's table, `iret` goes back to user mode or stays in kernel mode, and each mode has its own page table and
//! its own GS base.
//!
//! The callback's frame has RIP behind the `syscall`, the flat selectors and, in the places of RCX and R11, what the
//! instruction left there. From a 32-bit code segment `syscall` and `sysenter` have callbacks of their own, and are #UD
//! and #GP while none is registered. `iret` restores RCX and R11, or gives them RIP and RFLAGS when the frame says
//! "in syscall"; it never lets IF, IOPL or VM through to the CPU, and an event that it unmasks is delivered at once.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{self, nr, pte};
use pv::hypercall::*;
use pv::trap::{self, Frame, IRET_FLAGS};
use pv::{check, equal, errno, events, mem, report, user, vcpu};

pv::guest!(main);

pv::user_code!(user_syscall, "syscall", "int3");
pv::user_code!(user_int3, "int3");
pv::user_code!(user_gs, "mov rax, gs:[0]", "mov rbx, fs:[0]", "int3");
pv::user_code!(user_loop, "2: dec rdi", "jnz 2b", "int3");
pv::user_code!(user_count, "2: syscall", "inc r15", "cmp r15, r14", "jne 2b", "int3");
pv::user_code!(user_stack, "push rax", "pop rbx", "mov [rdi], rax", "mov rdx, [rdi]", "int3");
// 32-bit code, as bytes where the assembler's 64-bit mode would refuse or differ.
pv::user_code!(user_int80_32, ".byte 0xcd, 0x80");
pv::user_code!(user_syscall_32, ".byte 0x0f, 0x05, 0xcc");
pv::user_code!(user_sysenter_32, ".byte 0x0f, 0x34, 0xcc");
// The same with the flags of the word in EAX.
pv::user_code!(user_sysenter_flags_32, ".byte 0x50, 0x9d, 0x0f, 0x34, 0xcc");
pv::user_code!(user_bound_32, ".byte 0x62, 0x06");
pv::user_code!(user_into_32, ".byte 0xce");
pv::user_code!(user_mode_32, ".byte 0x40, 0x48, 0x83, 0xc0, 0x05", "int3");

fn main() {
    let space = user::build();
    callback();
    returning();
    many();
    events_on_return();
    tables(&space);
    bases(&space);
    compatibility();
}

const FLAT32: u64 = abi::FLAT_CS32;

fn callback() {
    let code = user_syscall();
    let mut frame = user::frame(code);
    // The number of a hypercall, and the flags CF, PF, ZF.
    (frame.rax, frame.rdi, frame.rbx, frame.r12) = (nr::SCHED_OP, 2, 0xb, 0xc);
    frame.rflags |= 0x45;
    let end = user::run(&frame);
    equal!("syscall-vector", end.vector, trap::SYSCALL);
    equal!("syscall-rip", end.rip, code + 2);
    equal!("syscall-rcx", end.rcx, code + 2);
    equal!("syscall-r11", end.r11 & !0x10000, 0x247);
    equal!("syscall-cs", end.cs_mask, abi::FLAT_CS64);
    equal!("syscall-ss", end.ss, abi::FLAT_SS);
    equal!("syscall-rflags", end.rflags & !0x10000, 0x247);
    equal!("syscall-rsp", end.rsp, frame.rsp);
    check!("syscall-registers", (end.rax, end.rdi, end.rbx, end.r12) == (nr::SCHED_OP, 2, 0xb, 0xc), "{end:x?}");
    equal!("syscall-stack", vcpu::current().rip_slot.get(), vcpu::current().user_entry_stack() - 40);
    equal!("syscall-masks-events", vcpu::current().mask_at_entry.get(), 1);
    errno!("syscall-register-open", trap::register(2, 0, trap::stub(trap::SYSCALL)), 0);
    let end = user::run(&frame);
    equal!("syscall-open-vector", end.vector, trap::SYSCALL);
    equal!("syscall-open-leaves-events", vcpu::current().mask_at_entry.get(), 0);
    frame.rflags &= !0x200;
    let end = user::run(&frame);
    check!("syscall-masked-before", end.mask() == 1 && end.rflags & 0x200 == 0, "{end:x?}");
    errno!("syscall-register", trap::register(2, 1, trap::stub(trap::SYSCALL)), 0);
}

fn returning() {
    let mut frame = user::frame(user_int3());
    (frame.rax, frame.rcx, frame.r11, frame.rbp, frame.r15) = (1, 2, 3, 4, 5);
    // IOPL 3, nested task off, direction, alignment check, ID.
    frame.rflags = 0x202 | 3 << 12 | 1 << 10 | 1 << 18 | 1 << 21;
    let end = user::run(&frame);
    check!("iret-registers", (end.rax, end.rcx, end.r11, end.rbp, end.r15) == (1, 2, 3, 4, 5), "{end:x?}");
    equal!("iret-flags", end.rflags & 0x27_7ed5, 0x200 | 1 << 10 | 1 << 18 | 1 << 21);
    IRET_FLAGS.store(0x100, SeqCst);
    let mut frame = user::frame(user_int3());
    (frame.rcx, frame.r11, frame.cs_mask, frame.ss) = (2, 3, 3, 3);
    let end = user::run(&frame);
    IRET_FLAGS.store(0, SeqCst);
    equal!("sysret-vector", end.vector, 3);
    equal!("sysret-rcx", end.rcx, frame.rip);
    equal!("sysret-r11", end.r11 & !0x10000, 0x202);
    check!("sysret-selectors", end.cs_mask == abi::FLAT_CS64 && end.ss == abi::FLAT_SS, "{end:x?}");
}

/// Many system calls in a row, answered by a hook.
fn many() {
    vcpu::current().user_hook.set(Some(|frame| {
        let ours = frame.vector == trap::SYSCALL;
        if ours {
            frame.rax = frame.r15 + 1;
        }
        ours
    }));
    let mut frame = user::frame(user_count());
    frame.r14 = 1000;
    let end = user::run(&frame);
    vcpu::current().user_hook.set(None);
    check!("thousand-syscalls", end.vector == 3 && end.r15 == 1000 && end.rax == 1000, "{end:x?}");
}

/// An event that is pending when iret unmasks arrives before the first instruction of user mode.
fn events_on_return() {
    // EVTCHNOP_bind_ipi: { vcpu, port }; EVTCHNOP_send is 4.
    let mut bind = [0u32, 0];
    errno!("bind-ipi", event_channel_op(7, &mut bind), 0);
    let mut port = bind[1];
    events::unmask_port(port);
    events::disable();
    errno!("send", event_channel_op(4, &mut port), 0);
    vcpu::current().hook.set(Some(|_| false));
    let frame = user::frame(user_int3());
    let end = user::run(&frame);
    check!("iret-delivers-event", end.vector == trap::EVENT && end.rip == frame.rip, "{end:x?}");
    check!("iret-event-frame", end.cs_mask == abi::FLAT_CS64 && end.rflags & 0x200 != 0, "{end:x?}");
    equal!("iret-event-masked", vcpu::current().mask_at_entry.get(), 1);
    vcpu::current().hook.set(None);
    let end = user::run(&frame);
    check!("iret-after-event", end.vector == 3 && events::count(port) == 1, "{end:x?}");
    events::mask_port(port);
}

/// User mode sees its own table, the kernel its own; a change of either is seen at once.
fn tables(space: &user::Space) {
    mem::entry(space.data, 1).store(0x77, SeqCst);
    let mut frame = user::frame(user_stack());
    (frame.rax, frame.rdi) = (0x55, user::DATA);
    let end = user::run(&frame);
    check!("user-memory", end.vector == 3 && end.rbx == 0x55 && end.rdx == 0x55, "{end:x?}");
    equal!("kernel-sees-user-memory", mem::entry(space.data, 0).load(SeqCst), 0x55);
    equal!("kernel-sees-user-address", mem::entry(user::DATA, 1).load(SeqCst), 0x77);
    errno!("hypercall-to-user-address", xen_version(1, user::DATA + 64), 0);
    let [_, _, l1] = space.tables;
    let slot = mem::maddr(l1) + 8 * abi::index(user::DATA, 1) as u64;
    let flags = pte::P | pte::U | pte::A | pte::D;
    mem::set(slot, mem::reference(space.data, flags));
    errno!("flush-all", mmuext_op(abi::mmuext::TLB_FLUSH_ALL, 0, 0), 0);
    let end = user::run(&frame);
    check!("user-sees-read-only", end.vector == 14 && end.error == 7, "{end:x?}");
    errno!("hypercall-to-read-only-user-address", xen_version(1, user::DATA + 64), EFAULT);
    mem::set(slot, 0);
    errno!("flush-page", mmuext_op(abi::mmuext::INVLPG_ALL, user::DATA, 0), 0);
    let end = user::run(&frame);
    check!("user-sees-unmapped", end.vector == 14 && end.error == 6, "{end:x?}");
    mem::set(slot, mem::reference(space.data, flags | pte::RW));
    let end = user::run(&frame);
    check!("user-sees-mapped-again", end.vector == 3, "{end:x?}");
    second_table(space, &frame);
}

/// A second user L4 with another page at the same place.
fn second_table(space: &user::Space, frame: &Frame) {
    let other = mem::alloc();
    let [l3, l2, l1] = space.tables;
    let copy = |from: u64, slot: usize, value: u64| {
        mem::table(|table| {
            (0..512).for_each(|i| mem::entry(table, i).store(mem::entry(from, i).load(SeqCst), SeqCst));
            mem::entry(table, slot).store(value, SeqCst);
        })
    };
    let at = |level| abi::index(user::DATA, level);
    let flags = pte::P | pte::RW | pte::U | pte::A | pte::D;
    let l1 = copy(l1, at(1), mem::reference(other, flags));
    let l2 = copy(l2, at(2), mem::reference(l1, pte::TABLE));
    let l3 = copy(l3, at(3), mem::reference(l2, pte::TABLE));
    let l4 = mem::table(|table| mem::entry(table, at(4)).store(mem::reference(l3, pte::TABLE), SeqCst));
    let mut frame = *frame;
    frame.rax = 0x99;
    errno!("second-user-table", mmuext_op(abi::mmuext::NEW_USER_BASEPTR, mem::mfn(l4), 0), 0);
    let end = user::run(&frame);
    check!("second-table-used", end.vector == 3 && mem::entry(other, 0).load(SeqCst) == 0x99, "{end:x?}");
    equal!("first-table-untouched", mem::entry(space.data, 0).load(SeqCst), 0x55);
    errno!("first-user-table", mmuext_op(abi::mmuext::NEW_USER_BASEPTR, mem::mfn(space.l4), 0), 0);
    frame.rax = 0x66;
    let end = user::run(&frame);
    check!("first-table-used", end.vector == 3 && mem::entry(space.data, 0).load(SeqCst) == 0x66, "{end:x?}");
}

/// GS bases of the two modes, and the FS base they share.
fn bases(space: &user::Space) {
    for (i, value) in [(0, 0xaaa), (512, 0xbbb), (1024, 0xccc)] {
        mem::entry(space.data, i).store(value, SeqCst);
    }
    let set = |which: u64, base: u64| hypercall2(nr::SET_SEGMENT_BASE, which, base);
    errno!("set-fs-base", set(0, user::DATA), 0);
    errno!("set-gs-user-base", set(1, user::DATA + 4096), 0);
    errno!("set-gs-kernel-base", set(2, space.data + 8192), 0);
    equal!("kernel-gs", read_gs(), 0xccc);
    let end = user::run(&user::frame(user_gs()));
    check!("user-gs", end.vector == 3 && end.rax == 0xbbb, "{end:x?}");
    equal!("user-fs", end.rbx, 0xaaa);
    equal!("kernel-gs-again", read_gs(), 0xccc);
    errno!("set-gs-user-base-again", set(1, user::DATA), 0);
    equal!("user-gs-changed", user::run(&user::frame(user_gs())).rax, 0xaaa);
    equal!("kernel-gs-unchanged", read_gs(), 0xccc);
    errno!("set-base-non-canonical", set(0, 1 << 63), EINVAL);
    errno!("set-base-unknown", set(9, 0), EINVAL);
    errno!("set-gs-user-selector", set(3, 0), 0);
}

fn read_gs() -> u64 {
    let value;
    // SAFETY: reads the word at the GS base, which is set to a mapped page.
    unsafe { core::arch::asm!("mov {}, gs:[0]", out(reg) value) };
    value
}

/// SYSENTER leaves flags as they are: a nested task must not become the hypervisor's (XSA-44).
fn nested_sysenter() {
    let mut frame = user::frame(user_sysenter_flags_32());
    frame.cs_mask = FLAT32;
    for (name, flags) in [("nested-task", 1 << 14), ("alignment-check", 1 << 18), ("direction", 1 << 10)] {
        frame.rax = 0x202 | flags;
        let end = user::run(&frame);
        check!(["sysenter-{name}"], end.vector == trap::SYSENTER && end.cs() & 3 == 3, "{end:x?}");
    }
}

/// 32-bit user code in the flat compatibility segment.
fn compatibility() {
    let in_32 = |code: u64| {
        let mut frame = user::frame(code);
        frame.cs_mask = FLAT32;
        (frame.rax, frame.rsi) = (7, user::DATA);
        user::run(&frame)
    };
    let end = in_32(user_mode_32());
    check!("compat-runs", end.vector == 3 && end.rax == 12 && end.cs_mask == FLAT32, "{end:x?}");
    let end = in_32(user_int80_32());
    check!("compat-int-80", end.vector == 0x80 && end.cs_mask == FLAT32, "{end:x?}");
    mem::entry(user::DATA, 0).store(1 << 32, SeqCst);
    let end = in_32(user_bound_32());
    check!("compat-bound", end.vector == 5 && end.rip == user_bound_32(), "{end:x?}");
    let mut frame = user::frame(user_into_32());
    frame.cs_mask = FLAT32;
    frame.rflags |= 1 << 11;
    let end = user::run(&frame);
    check!("compat-into", end.vector == 4 && end.rip == user_into_32() + 1, "{end:x?}");
    let unregistered = in_32(user_syscall_32());
    check!(
        "compat-syscall-none",
        unregistered.vector == 6 && unregistered.rip == user_syscall_32(),
        "{unregistered:x?}"
    );
    let end = in_32(user_sysenter_32());
    check!("compat-sysenter-none", matches!((end.vector, end.error), (13, 0) | (6, 0)), "{end:x?}");
    errno!("register-syscall32", trap::register(7, 1, trap::stub(trap::SYSCALL32)), 0);
    let end = in_32(user_syscall_32());
    if end.vector == 6 {
        report::skip("compat-syscall", "this CPU has no syscall in 32-bit mode");
    } else {
        let right = end.vector == trap::SYSCALL32 && end.rip == user_syscall_32() + 2 && end.cs() & 3 == 3;
        check!("compat-syscall", right && end.mask() == 0, "{end:x?}");
        equal!("compat-syscall-masks", vcpu::current().mask_at_entry.get(), 1);
    }
    errno!("register-sysenter", trap::register(5, 1, trap::stub(trap::SYSENTER)), 0);
    let end = in_32(user_sysenter_32());
    if matches!(end.vector, 6 | 13) {
        report::skip("compat-sysenter", "this CPU has no sysenter in long mode");
    } else {
        check!("compat-sysenter", end.vector == trap::SYSENTER && end.cs() & 3 == 3, "{end:x?}");
        equal!("compat-sysenter-masks", vcpu::current().mask_at_entry.get(), 1);
        nested_sysenter();
    }
}
