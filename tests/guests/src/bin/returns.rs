// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the iret hypercall where it is asked for more than it may give, and NMIs, which wait for it.
//!
//! Whatever a frame says, the guest comes back with ring 3 rights: I/O privilege and virtual-8086 mode are not for it to
//! take, the hypervisor's own segments are refused by the CPU like any that do not exist, and an address that is
//! none is the guest's exception, not the hypervisor's. An iret within a multicall ends the multicall: the entries behind it
//! would run on behalf of whatever the guest returned to. An NMI that comes while one is handled waits until the handler's iret.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use pv::abi::{self, FLAT_CS64, FLAT_SS, nr};
use pv::hypercall::*;
use pv::trap::{self, Frame};
use pv::{check, equal, errno, events, probe, vcpu};

pv::guest!(main);

const NON_CANONICAL: u64 = 1 << 47;
const IN_SYSCALL: u64 = 0x100;
const SEND_NMI: u64 = 11;
const IDENTIFICATION: u64 = 1 << 21;
const IOPL: u64 = 3 << 12;
const VIRTUAL_8086: u64 = 1 << 17;

fn main() {
    events::disable();
    addresses();
    selectors();
    flags();
    privilege();
    registers();
    within_multicall();
    nmi();
    nmi_while_one_is_handled();
}

/// Returns by iret to `rip` with the kernel's segments; gives the exception that it ended in.
fn to(rip: u64, flags: u64) -> Option<Frame> {
    probe!("mov {t}, rsp", "push {ss}", "push {t}", "push 2", "push {cs}", "push {rip}", "push {flags}",
        "push rcx", "push r11", "push rax", "mov eax, 23", "syscall";
        t = out(reg) _, ss = const FLAT_SS, cs = const FLAT_CS64 & !3, rip = in(reg) rip, flags = in(reg) flags,
        out("rax") _, out("rcx") _, out("r11") _)
}

fn addresses() {
    for (name, flags) in [("iret", 0), ("sysret", IN_SYSCALL)] {
        for (what, rip) in [("low", NON_CANONICAL), ("high", !0 >> 1), ("below-the-hole", abi::HOLE.0 - 1)] {
            let frame = to(rip, flags);
            check!(
                ["{name}-non-canonical-{what}"],
                frame.is_some_and(|f| (f.vector, f.error, f.rip) == (13, 0, rip)),
                "{frame:x?}"
            );
        }
        let hole = abi::HOLE.0 + 0x1000;
        let frame = to(hole, flags);
        check!(
            ["{name}-into-the-hole"],
            frame.is_some_and(|f| (f.vector, f.rip) == (14, hole)) && events::cr2() == hole,
            "{frame:x?}"
        );
    }
}

/// Returns by iret to the next instruction with these segments; gives the exception that it ended in.
fn with(cs: u64, ss: u64) -> Option<Frame> {
    probe!("mov {t}, rsp", "push {ss}", "push {t}", "push 2", "push {cs}", "lea {t}, [rip + 77f]", "push {t}",
        "push 0", "push rcx", "push r11", "push rax", "mov eax, 23", "syscall", "77:", "nop";
        t = out(reg) _, ss = in(reg) ss, cs = in(reg) cs, out("rax") _, out("rcx") _, out("r11") _)
}

fn selectors() {
    let kernel = FLAT_CS64 & !3;
    for cs in [0, 0xc, 0x1230, 0xdff8, 0xe008, 0xe010, 0xe040, 0xe050, 0xfff8] {
        let frame = with(cs, FLAT_SS);
        check!(["cs-{cs:#x}"], frame.is_some_and(|f| (f.vector, u64::from(f.error)) == (13, cs)), "{frame:x?}");
    }
    for ss in [0, 0xc, 0x1230, 0xdff8, 0xe008, 0xe010, 0xe040, 0xfff8] {
        let frame = with(kernel, ss);
        check!(["ss-{ss:#x}"], frame.is_some_and(|f| (f.vector, u64::from(f.error)) == (13, ss)), "{frame:x?}");
    }
    let frame = with(kernel, FLAT_SS);
    check!("flat-segments", frame.is_none(), "{frame:x?}");
}

/// Returns by iret to the next instruction with these flags, and reads them there.
fn flags_after(flags: u64) -> u64 {
    let seen: u64;
    // SAFETY: the frame returns to label 77 with this stack; flags are restored behind it.
    unsafe {
        core::arch::asm!("pushfq", "mov {t}, rsp", "push {ss}", "push {t}", "push {flags}", "push {cs}",
            "lea {t}, [rip + 77f]", "push {t}", "push 0", "push rcx", "push r11", "push rax", "mov eax, 23", "syscall",
            "77:", "pushfq", "pop {t}", "popfq",
            t = out(reg) seen, ss = const FLAT_SS, cs = const FLAT_CS64 & !3, flags = in(reg) flags,
            out("rax") _, out("rcx") _, out("r11") _);
    }
    seen
}

fn flags() {
    let interrupts = 1 << 9;
    equal!("flags-plain", flags_after(2) & !0x8d5, interrupts | 2);
    equal!("flags-iopl", flags_after(2 | IOPL) & IOPL, 0);
    equal!("flags-virtual-8086", flags_after(2 | VIRTUAL_8086) & VIRTUAL_8086, 0);
    let seen = flags_after(2 | IDENTIFICATION);
    equal!("flags-kept", seen & IDENTIFICATION, IDENTIFICATION);
    equal!("flags-interrupts-on", flags_after(2) & interrupts, interrupts);
    equal!("flags-mask", events::mask().load(SeqCst), 1);
    let _ = flags_after(2 | interrupts);
    equal!("flags-unmask", events::mask().swap(1, SeqCst), 0);
}

/// With the assist `architectural_iopl` the frame of iret sets the virtual IOPL, and frames of exceptions show it.
fn privilege() {
    const ARCHITECTURAL_IOPL: u64 = 4;
    let shown = |flags| {
        let real = flags_after(flags);
        let frame = probe!("ud2");
        frame.map(|frame| (real & IOPL, frame.rflags & IOPL))
    };
    errno!("iopl-assist-on", hypercall2(nr::VM_ASSIST, 0, ARCHITECTURAL_IOPL), 0);
    for level in [3, 1, 0, 2] {
        let seen = shown(2 | level << 12);
        check!(["iopl-by-iret-{level}"], seen == Some((0, level << 12)), "{seen:x?}");
    }
    errno!("iopl-assist-off", hypercall2(nr::VM_ASSIST, 1, ARCHITECTURAL_IOPL), 0);
    let seen = shown(2 | IOPL);
    check!("iopl-not-shown", seen == Some((0, 0)), "{seen:x?}");
    let none = 0u32;
    errno!("iopl-as-before", hypercall2(nr::PHYSDEV_OP, 6, (&raw const none) as u64), 0);
}

/// Returns by iret with these registers in the frame, on a stack that is off by as many words; gives what they were.
fn registers_after(frame: [u64; 3], words: u64) -> [u64; 3] {
    let [rax, r11, rcx] = frame;
    let (a, b, c): (u64, u64, u64);
    // SAFETY: the frame returns to label 77 with the stack as it was.
    unsafe {
        core::arch::asm!("mov {t}, rsp", "lea rsp, [rsp + {by}]", "push {ss}", "push {t}", "push 2", "push {cs}",
            "lea {t}, [rip + 77f]", "push {t}", "push 0", "push rcx", "push r11", "push rax", "mov eax, 23",
            "mov ecx, 1", "mov r11d, 2", "syscall", "77:",
            t = out(reg) _, by = in(reg) (words * 8).wrapping_neg(), ss = const FLAT_SS, cs = const FLAT_CS64 & !3,
            inlateout("rax") rax => a, inlateout("r11") r11 => b, inlateout("rcx") rcx => c);
    }
    [a, b, c]
}

fn registers() {
    let frame = [0x1122_3344_5566_7788, u64::MAX, 0x8000_0000_0000_0001];
    for words in [0, 1, 7] {
        check!(["registers-{words}"], registers_after(frame, words) == frame, "{:x?}", registers_after(frame, words));
    }
    // With an event that is due in the end, the upcall comes first: an interrupt that nobody awaits does no harm.
    events::mask().store(1, SeqCst);
    events::pending().store(1, SeqCst);
    let upcalls = vcpu::current().upcalls.get();
    equal!("registers-unmasking", flags_after(2 | 1 << 9) & 1 << 9, 1 << 9);
    equal!("upcall-by-iret", vcpu::current().upcalls.get() - upcalls, 1);
    equal!("upcall-by-iret-mask", events::mask().swap(1, SeqCst), 0);
}

fn within_multicall() {
    let version = call(nr::XEN_VERSION, [0; 5]);
    let mut list = [version, call(nr::IRET, [0; 5]), version];
    let result: u64;
    // SAFETY: the frame that the multicall's iret takes returns to label 77 with this stack.
    unsafe {
        core::arch::asm!("mov {t}, rsp", "push {ss}", "push {t}", "push 2", "push {cs}", "lea {t}, [rip + 77f]",
            "push {t}", "push 0", "push rcx", "push r11", "push {rax}", "mov eax, 13", "syscall", "ud2", "77:",
            t = out(reg) _, ss = const FLAT_SS, cs = const FLAT_CS64 & !3, rax = const 0x4242,
            inout("rdi") list.as_mut_ptr() => _, inout("rsi") 3u64 => _, inout("rdx") 0u64 => _,
            inout("r10") 0u64 => _, inout("r8") 0u64 => _, out("rax") result, out("rcx") _, out("r11") _);
    }
    equal!("multicall-before-iret", list[0].result, xen_version(0, 0));
    equal!("multicall-iret-rax", result, 0x4242);
    equal!("multicall-after-iret", list[2].result, 0x5a5a);
}

fn send_nmi() -> i64 {
    hypercall3(nr::VCPU_OP, SEND_NMI, 0, 0)
}

static TAKEN: AtomicU32 = AtomicU32::new(0);
static TAKEN_WITHIN: AtomicU32 = AtomicU32::new(0);

fn nmi() {
    vcpu::current().hook.set(Some(|frame| {
        trap::record(frame);
        true
    }));
    trap::arm();
    let result = send_nmi();
    vcpu::current().hook.set(None);
    errno!("nmi-sent", result, 0);
    let cpu = vcpu::current();
    let frame = cpu.frames.get()[0];
    check!(
        "nmi",
        cpu.count.get() == 1 && frame.vector == 2 && frame.mask() == 1 && !frame.from_user(),
        "{} {frame:x?}",
        cpu.count.get()
    );
    equal!("nmi-leaves-the-mask", events::mask().load(SeqCst), 1);
}

fn nmi_while_one_is_handled() {
    vcpu::current().hook.set(Some(|frame| {
        if frame.vector == 2 && TAKEN.fetch_add(1, SeqCst) == 0 {
            let _ = send_nmi();
            let _ = xen_version(0, 0);
            TAKEN_WITHIN.store(TAKEN.load(SeqCst), SeqCst);
        }
        true
    }));
    let result = send_nmi();
    vcpu::current().hook.set(None);
    errno!("nmi-sent-again", result, 0);
    equal!("nmi-waits-for-the-handler", TAKEN_WITHIN.load(SeqCst), 1);
    equal!("nmi-after-the-handler", TAKEN.load(SeqCst), 2);
}
