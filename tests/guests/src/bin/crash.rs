// SPDX-License-Identifier: MIT OR Apache-2.0
//! Breaks one rule that costs a domain its life: the one that a word of the command line names.
//!
//! The hypervisor must crash the domain, and it alone: the log names the reason and shows the registers, and what follows
//! is what a crash of dom0 means for the machine. The guest can only say that it survived, which is a failure; what must
//! appear is stated where the guest is booted.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{FLAT_CS64, FLAT_SS, HOLE, nr};
use pv::hypercall::*;
use pv::{events, println, report, start, trap, user};

pv::guest!(main);

/// The ways.
const WAYS: [(&str, fn()); 9] = [
    ("stack-unmapped", || trap_on(user::NOWHERE)),
    ("stack-in-the-hole", || trap_on(HOLE.0 + 0x2000)),
    ("stack-across-the-hole", || trap_on(HOLE.1 + 16)),
    ("user-stack-unmapped", user_stack),
    ("iret-frame-unmapped", iret_frame),
    ("no-user-table", || to_user(0)),
    ("no-handler", no_handler),
    ("no-callback", no_callback),
    ("requested", requested),
];

fn main() {
    let named = |word: &[u8]| WAYS.iter().find(|(name, _)| name.as_bytes() == word);
    let Some((name, way)) = start::cmd_line().split(|&byte| byte == b' ').find_map(named) else {
        report::abort("way", format_args!("the command line names none"));
    };
    println!("crash by {name}");
    way();
    report::abort(name, format_args!("survived"));
}

/// Traps with the stack pointer there.
fn trap_on(stack: u64) {
    // SAFETY: the domain ends here.
    unsafe { core::arch::asm!("mov rsp, {}", "ud2", in(reg) stack, options(noreturn)) };
}

pv::user_code!(user_trap, "ud2");

fn user_stack() {
    user::build();
    let _ = stack_switch(user::NOWHERE);
    to_user(user_trap());
}

/// Returns to user mode at `rip`.
fn to_user(rip: u64) {
    // SAFETY: the domain ends here.
    unsafe {
        core::arch::asm!("push {ss}", "push {rsp}", "push 0x202", "push {cs}", "push {rip}", "push 0", "push 0", "push 0",
            "push 0", "mov eax, 23", "syscall", "ud2",
            ss = const FLAT_SS, cs = const FLAT_CS64, rsp = in(reg) user::STACK - 64, rip = in(reg) rip,
            options(noreturn));
    }
}

fn iret_frame() {
    // SAFETY: the domain ends here.
    unsafe {
        core::arch::asm!("mov rsp, {}", "mov eax, 23", "syscall", "ud2", in(reg) user::NOWHERE, options(noreturn));
    }
}

fn no_handler() {
    let _ = hypercall1(nr::SET_TRAP_TABLE, 0);
    // SAFETY: the domain ends here.
    unsafe { core::arch::asm!("ud2", options(noreturn)) };
}

fn no_callback() {
    let _ = trap::register(0, 0, 0);
    events::mask().store(0, SeqCst);
    events::pending().store(1, SeqCst);
    let _ = xen_version(0, 0);
}

fn requested() {
    // SCHEDOP_shutdown with SHUTDOWN_crash.
    let _ = sched_op(2, &mut 3u32);
}
