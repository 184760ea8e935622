// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the bounce frame of exceptions in guest user mode: they arrive on the registered stack with RPL 3, page faults say
//! "user", `int n` needs a vector open to user mode, and nothing of the kernel's memory can be reached.
#![no_std]
#![no_main]

use pv::abi;
use pv::{check, equal, errno, events, mem, probe, report, trap, user};

pv::guest!(main);

fn main() {
    from_user();
}

pv::user_code!(user_div, "xor eax, eax", "xor edx, edx", "div eax");
pv::user_code!(user_int3, "int3");
pv::user_code!(user_int80, "int 0x80");
pv::user_code!(user_int92, "int 0x92");
pv::user_code!(user_int93, "int 0x93");
pv::user_code!(user_ud, "ud2");
pv::user_code!(user_hlt, "hlt");
pv::user_code!(user_read, "mov al, [rdi]");
pv::user_code!(user_write, "mov [rdi], al");
pv::user_code!(user_jump, "jmp rdi");
pv::user_code!(user_step, "pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "ud2");
pv::user_code!(user_cpuid, "ud2", ".ascii \"xen\"", "cpuid", "int3");
pv::user_code!(user_selector, "mov ds, edi");

/// QEMU's CPU gives error code `n << 4 | 2` for `int n` through a closed gate in 64-bit mode, so that no hypervisor can
/// tell which it was.
fn gate_numbers_right() -> bool {
    probe!("int 0x91").is_none_or(|frame| frame.error != 0x91 << 4 | 2)
}

fn from_user() {
    user::build();
    let cases: [(&str, u64, u64, u32, u32, u64); 19] = [
        ("divide-error", user_div(), 0, 0, 0, 4),
        ("breakpoint", user_int3(), 0, 3, 0, 1),
        ("int-80", user_int80(), 0, 0x80, 0, 2),
        ("int-92-closed", user_int92(), 0, 13, 0x92 << 3 | 2, 0),
        ("int-93-kernel-only", user_int93(), 0, 13, 0x93 << 3 | 2, 0),
        ("invalid-opcode", user_ud(), 0, 6, 0, 0),
        ("privileged", user_hlt(), 0, 13, 0, 0),
        ("non-canonical", user_read(), 1 << 63, 13, 0, 0),
        ("selector", user_selector(), 0x1234, 13, 0x1234, 0),
        ("single-step", user_step(), 0, 1, 0, 11),
        ("read-unmapped", user_read(), user::NOWHERE, 14, 4, 0),
        ("write-unmapped", user_write(), user::NOWHERE, 14, 6, 0),
        ("write-code", user_write(), user::CODE, 14, 7, 0),
        ("fetch-unmapped", user_jump(), user::NOWHERE, 14, 0x14, u64::MAX),
        ("read-kernel", user_read(), abi::VIRT_BASE + 0x10_0000, 14, 4, 0),
        ("write-kernel", user_write(), abi::VIRT_BASE + 0x10_0000, 14, 6, 0),
        ("jump-kernel", user_jump(), abi::VIRT_BASE + 0x10_0000, 14, 0x14, u64::MAX),
        ("read-page-table", user_read(), mem::l4(), 14, 4, 0),
        ("forced-cpuid", user_cpuid(), 0, 3, 0, 8),
    ];
    errno!("user-int-93-set", trap::set_flags(0x93, 1), 0);
    let gates = gate_numbers_right();
    for (name, code, rdi, vector, error, distance) in cases {
        if error & 2 != 0 && vector == 13 && !gates {
            report::skip(name, "the CPU's error code for a closed gate is wrong (QEMU)");
            continue;
        }
        let mut frame = user::frame(code);
        (frame.rdi, frame.r14, frame.r15) = (rdi, 0x1357, 0x2468);
        let end = user::run(&frame);
        let wanted = if distance == u64::MAX { rdi } else { code + distance };
        let right = (end.vector, end.error, end.rip) == (vector, error, wanted)
            && end.cs_mask == abi::FLAT_CS64
            && end.ss == abi::FLAT_SS
            && end.rflags & 0x202 == 0x202
            && (end.r14, end.r15) == (0x1357, 0x2468);
        check!(["user-{name}"], right, "expected vector {vector} error {error:#x} rip {wanted:#x}: {end:x?}");
        if vector == 14 {
            equal!(["user-{name}-address"], events::cr2(), rdi);
        }
    }
    let mut masked = user::frame(user_ud());
    masked.rflags &= !0x200;
    let end = user::run(&masked);
    check!("user-mask-kept", end.mask() == 1 && end.rflags & 0x200 == 0, "{end:x?}");
}
