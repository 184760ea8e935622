// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks port instructions and the interrupt flag under a virtual I/O privilege level, and privileged instructions in guest
//! user mode.
//!
//! A port needs the level (1 for the kernel, 3 for user mode) or a clear bit in the bitmap; one that the domain has no right to
//! reads all ones and ignores writes. CLI and STI need the level and have no effect. Anything else privileged is #GP(0) in
//! user mode.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::nr;
use pv::hypercall::*;
use pv::trap::Frame;
use pv::{check, equal, errno, mem, probe, user};

pv::guest!(main);

fn main() {
    ports();
    from_user();
}

pv::user_code!(user_rdmsr, "mov ecx, 0xc0000101", "rdmsr", "int3");
pv::user_code!(user_cr0, "mov rax, cr0", "int3");
pv::user_code!(user_clts, "clts", "int3");
pv::user_code!(user_dr7, "mov rax, dr7", "int3");
pv::user_code!(user_wbinvd, "wbinvd", "int3");
pv::user_code!(user_cli, "cli", "int3");
pv::user_code!(user_in, "in al, dx", "int3");
pv::user_code!(user_out, "out dx, al", "int3");
pv::user_code!(user_rdtsc, "rdtsc", "int3");

fn is_gp(frame: Option<Frame>) -> bool {
    frame.is_some_and(|f| f.vector == 13 && f.error == 0)
}

fn set_iopl(level: u32) -> i64 {
    hypercall2(nr::PHYSDEV_OP, 6, (&raw const level) as u64)
}

fn inb(port: u16) -> Result<u8, Frame> {
    let mut value = 0x5au8;
    match probe!("in al, dx"; in("dx") port, inout("al") value) {
        None => Ok(value),
        Some(frame) => Err(frame),
    }
}

fn ports() {
    errno!("iopl-0", set_iopl(0), 0);
    check!("port-without-iopl", inb(0x80).is_err_and(|f| f.vector == 13 && f.error == 0));
    check!("cli-without-iopl", is_gp(probe!("cli")));
    errno!("iopl-4-refused", set_iopl(4), EINVAL);
    errno!("iopl-1", set_iopl(1), 0);
    check!("port-with-iopl", inb(0x80).is_ok());
    check!("out-imm", probe!("out 0x80, al"; in("al") 0x42u8).is_none());
    check!("out-dx-dword", probe!("out dx, eax"; in("dx") 0xcf8u16, in("eax") 0x8000_0000u32).is_none());
    let mut value = 0u32;
    check!("in-dx-dword", probe!("in eax, dx"; in("dx") 0xcf8u16, inout("eax") value).is_none());
    equal!("pci-address-latch", value, 0x8000_0000);
    check!("pci-data-read", probe!("in eax, dx"; in("dx") 0xcfcu16, inout("eax") value).is_none());
    check!("pci-host-bridge", value != 0 && value != u32::MAX, "{value:#x}");
    let mut wide = u64::MAX;
    check!("in-eax-zero-extends", probe!("in eax, dx"; in("dx") 0xcfcu16, inout("rax") wide).is_none());
    check!("in-eax-upper-half", wide >> 32 == 0, "{wide:#x}");
    wide = u64::MAX;
    check!("in-ax-only", probe!("in ax, dx"; in("dx") 0xcfcu16, inout("rax") wide).is_none());
    equal!("in-ax-keeps-rest", wide >> 16, u64::MAX >> 16);
    for port in [0x20u16, 0x21, 0xa0, 0xa1, 0x40] {
        check!(["port-{port:#x}-not-ours"], inb(port).is_ok_and(|value| value == 0xff), "{:x?}", inb(port));
    }
    string_ports();
    check!("cli", probe!("cli").is_none());
    check!("sti", probe!("sti").is_none());
    let flags: u64;
    // SAFETY: reads the flags.
    unsafe { core::arch::asm!("cli", "pushfq", "pop {}", out(reg) flags) };
    equal!("cli-no-effect", flags >> 9 & 1, 1);
}

fn string_ports() {
    let mut buffer = [0x5au8; 16];
    let (mut rdi, mut rcx) = (buffer.as_mut_ptr() as u64, 8u64);
    let frame = probe!("rep insb"; in("dx") 0x21u16, inout("rdi") rdi, inout("rcx") rcx);
    check!("rep-insb", frame.is_none() && rcx == 0, "{frame:x?} rcx {rcx}");
    equal!("rep-insb-rdi", rdi, buffer.as_ptr() as u64 + 8);
    check!("rep-insb-bytes", buffer[..8] == [0xff; 8] && buffer[8..] == [0x5a; 8], "{buffer:x?}");
    let (mut rsi, mut rcx) = (buffer.as_ptr() as u64, 4u64);
    let frame = probe!("rep outsb"; in("dx") 0x80u16, inout("rsi") rsi, inout("rcx") rcx);
    check!("rep-outsb", frame.is_none() && rcx == 0, "{frame:x?} rcx {rcx}");
    equal!("rep-outsb-rsi", rsi, buffer.as_ptr() as u64 + 4);
    let mut rdi = user::NOWHERE;
    let frame = probe!("insb"; in("dx") 0x21u16, inout("rdi") rdi);
    check!("insb-fault", frame.is_some_and(|f| f.vector == 14 && f.error == 2), "{frame:x?}");
    check!("insb-fault-rdi", rdi == user::NOWHERE);
}

fn from_user() {
    user::build();
    let run = |code: u64, port: u64| {
        let mut frame = user::frame(code);
        frame.rdx = port;
        user::run(&frame)
    };
    let refused = [
        ("rdmsr", user_rdmsr(), 5),
        ("cr0", user_cr0(), 0),
        ("clts", user_clts(), 0),
        ("dr7", user_dr7(), 0),
        ("wbinvd", user_wbinvd(), 0),
        ("cli", user_cli(), 0),
        ("in", user_in(), 0),
        ("out", user_out(), 0),
    ];
    for (name, code, offset) in refused {
        let end = run(code, 0x80);
        let right = (end.vector, end.error, end.rip) == (13, 0, code + offset);
        check!(["user-{name}-refused"], right, "{end:x?}");
    }
    let end = run(user_rdtsc(), 0);
    check!("user-rdtsc", end.vector == 3, "{end:x?}");
    // All ports but 0x80 to 0x87 denied; bitmap by guest address.
    let bitmap = mem::alloc();
    (0..512).for_each(|i| mem::entry(bitmap, i).store(u64::MAX, SeqCst));
    mem::entry(bitmap, 2).store(!0xff, SeqCst);
    let set = [bitmap, 256];
    errno!("set-iobitmap", hypercall2(nr::PHYSDEV_OP, 7, set.as_ptr() as u64), 0);
    check!("user-port-by-bitmap", run(user_in(), 0x80).vector == 3);
    check!("user-port-by-bitmap-out", run(user_out(), 0x87).vector == 3);
    check!("user-port-denied-by-bitmap", run(user_in(), 0x88).vector == 13);
    check!("user-port-beyond-bitmap", run(user_in(), 0x100).vector == 13);
    errno!("set-iobitmap-too-long", hypercall2(nr::PHYSDEV_OP, 7, [bitmap, 65537].as_ptr() as u64), EINVAL);
    errno!("clear-iobitmap", hypercall2(nr::PHYSDEV_OP, 7, [0u64, 0].as_ptr() as u64), 0);
    check!("user-port-without-bitmap", run(user_in(), 0x80).vector == 13);
    errno!("iopl-3", set_iopl(3), 0);
    check!("user-port-by-iopl", run(user_in(), 0x80).vector == 3);
    check!("user-cli-by-iopl", run(user_cli(), 0).vector == 3);
    errno!("iopl-1-again", set_iopl(1), 0);
    check!("user-port-after-iopl", run(user_in(), 0x80).vector == 13);
}
