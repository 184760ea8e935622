// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the bounce frame: each exception that an instruction of the guest kernel can raise arrives at its handler with the
//! frame of the ABI.
//!
//! The stack is the current one, aligned down to 16 bytes; the frame holds RCX, R11, the error code where the vector has one,
//! RIP, CS with the saved upcall mask above it and RPL 0, RFLAGS whose IF is the mask turned round, RSP and SS. A page fault's
//! error code does not say "user", and its address is in `vcpu_info`. `int n` needs the vector's privilege level, else it is
//! #GP(n << 3 | 2). Upcalls are masked at the entry when the vector asks for it. All registers survive.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{self, nr, pte};
use pv::hypercall::*;
use pv::trap::{self, Frame};
use pv::{check, equal, errno, events, mem, probe, report, user, vcpu};

pv::guest!(main);

fn main() {
    integer();
    floating();
    protection();
    page_faults();
    software_interrupts();
    alignment();
    masks();
    registers();
    nested();
    returning();
}

/// What is left of RIP's way to the end of the probe when the trap is taken.
#[derive(Clone, Copy)]
enum At {
    /// This many bytes before the end: the length of the faulting instruction.
    Before(u64),
    /// Not checked.
    Anywhere,
}

/// Checks a trap from guest kernel mode with upcalls masked.
fn expect(name: &str, frame: Option<Frame>, vector: u32, error: u32, at: At) {
    let Some(frame) = frame else {
        return check!(["{name}"], false, "no trap");
    };
    let cpu = vcpu::current();
    if frame.vector != vector || frame.error != error {
        let (v, e) = (frame.vector, frame.error);
        return check!(["{name}"], false, "vector {v} error {e:#x}, expected {vector} and {error:#x}");
    }
    let rip = match at {
        At::Before(bytes) => cpu.resumed.get() - bytes,
        At::Anywhere => frame.rip,
    };
    let slot = (frame.rsp & !15) - 40;
    let right = frame.rip == rip
        && frame.cs_mask == (abi::FLAT_CS64 & !3 | 1 << 32)
        && frame.ss == abi::FLAT_SS
        && frame.rflags & 0x23202 == 2
        && cpu.rip_slot.get() == slot;
    check!(["{name}"], right, "rip should be {rip:#x}, its slot {slot:#x} is {:#x}: {frame:x?}", cpu.rip_slot.get());
}

fn integer() {
    let frame = probe!("xor eax, eax", "xor edx, edx", "div eax"; out("eax") _, out("edx") _);
    expect("divide-error", frame, 0, 0, At::Before(2));
    let frame = probe!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop");
    let stepped = frame.is_some_and(|frame| frame.rflags & 0x100 != 0);
    let frame = frame.map(|frame| Frame { rflags: frame.rflags & !0x100, ..frame });
    expect("debug-single-step", frame, 1, 0, At::Before(0));
    check!("debug-single-step-tf-in-frame", stepped);
    let dr6 = hypercall1(nr::GET_DEBUGREG, 6);
    check!("debug-single-step-dr6", dr6 & 0x4000 != 0, "dr6 {dr6:#x}");
    expect("breakpoint", probe!("int3"), 3, 0, At::Before(0));
    expect("overflow", probe!("int 4"), 4, 0, At::Before(0));
    expect("invalid-opcode", probe!("ud2"), 6, 0, At::Before(2));
    expect("invalid-opcode-almost-forced", probe!("ud2", ".ascii \"xem\"", "cpuid"), 6, 0, At::Anywhere);
}

fn floating() {
    errno!("task-switched", hypercall1(nr::FPU_TASKSWITCH, 1), 0);
    expect("device-not-available", probe!("fnop"), 7, 0, At::Before(2));
    check!("device-not-available-once", probe!("fnop").is_none());
    let word = 0x37bu16;
    let frame = probe!("fninit", "fldcw word ptr [{w}]", "fld1", "fldz", "fdivp st(1), st", "fwait";
        w = in(reg) &raw const word);
    expect("x87-error", frame, 16, 0, At::Before(1));
    // SAFETY: puts the x87 in its initial state.
    unsafe { core::arch::asm!("fnclex", "fninit") };
    let (unmasked, masked) = (0x1d80u32, 0x1f80u32);
    let frame = probe!("ldmxcsr [{m}]", "xorps xmm0, xmm0", "mov eax, 0x3f800000", "movd xmm1, eax", "divss xmm1, xmm0";
        m = in(reg) &raw const unmasked, out("eax") _, out("xmm0") _, out("xmm1") _);
    // SAFETY: masks the exceptions again.
    unsafe { core::arch::asm!("ldmxcsr [{}]", in(reg) &raw const masked) };
    match frame {
        None => report::skip("simd-error", "this CPU does not raise it (an emulator)"),
        _ => expect("simd-error", frame, 19, 0, At::Before(4)),
    }
    let word = [0u64; 2];
    let frame = probe!("pushfq", "or qword ptr [rsp], 0x40000", "popfq", "mov eax, [{p} + 1]";
        p = in(reg) &raw const word, out("eax") _);
    // SAFETY: clears the alignment-check flag, which no trap has done if there was none.
    unsafe { core::arch::asm!("pushfq", "and qword ptr [rsp], ~0x40000", "popfq") };
    match frame {
        None => report::skip("alignment-check", "this CPU does not raise it (an emulator)"),
        _ => {
            let frame = frame.map(|frame| Frame { rflags: frame.rflags & !0x40000, ..frame });
            expect("alignment-check", frame, 17, 0, At::Before(3));
        }
    }
}

fn protection() {
    let odd = 0x1234_5678_9abc_def0u64;
    let frame = probe!("mov rax, [rax]"; inout("rax") odd => _);
    expect("general-protection-non-canonical", frame, 13, 0, At::Before(3));
    let frame = probe!("mov rbp, {p}", "mov rax, [rbp]"; p = in(reg) odd, out("rax") _);
    // A CPU says 12; QEMU's says 13.
    let vector = if frame.is_some_and(|frame| frame.vector == 13) { 13 } else { 12 };
    expect("stack-non-canonical", frame, vector, 0, At::Before(4));
    let frame = probe!("mov ds, eax"; in("eax") 0x1234);
    expect("general-protection-selector", frame, 13, 0x1234, At::Before(2));
    let frame = probe!("mov fs, eax"; in("eax") 0x1235);
    expect("general-protection-selector-rpl", frame, 13, 0x1234, At::Before(2));
    expect("privileged-hlt", probe!("hlt"), 13, 0, At::Before(1));
    expect("privileged-lgdt", probe!("lgdt [rax]"; in("rax") &raw const odd), 13, 0, At::Before(3));
    expect("privileged-ltr", probe!("ltr ax"; in("rax") 0), 13, 0, At::Before(3));
    expect("privileged-swapgs", probe!("swapgs"), 13, 0, At::Before(3));
    expect("privileged-invlpg", probe!("invlpg [rax]"; in("rax") &raw const odd), 13, 0, At::Before(3));
}

fn page_faults() {
    let page = mem::alloc();
    let nowhere = user::NOWHERE + 0x123;
    let fault = |name: &str, frame: Option<Frame>, error: u32, address: u64, at: At| {
        expect(name, frame, 14, error, at);
        equal!(["{name}-address"], events::cr2(), address);
    };
    let frame = probe!("mov al, [{p}]"; p = in(reg) nowhere, out("al") _);
    fault("page-fault-read", frame, 0, nowhere, At::Anywhere);
    let frame = probe!("mov [{p}], al"; p = in(reg) nowhere);
    fault("page-fault-write", frame, 2, nowhere, At::Anywhere);
    let frame = probe!("call {p}"; p = in(reg) nowhere);
    equal!("page-fault-fetch-rip", frame.map_or(0, |frame| frame.rip), nowhere);
    fault("page-fault-fetch", frame, 0x10, nowhere, At::Anywhere);
    mem::make_ro(page);
    let frame = probe!("mov dword ptr [{p} + 8], eax"; p = in(reg) page);
    fault("page-fault-read-only", frame, 3, page + 8, At::Anywhere);
    mem::remap(page, mem::reference(page, pte::KERNEL_RW | pte::NX));
    // A return instruction, if it should be executed after all.
    mem::entry(page, 0).store(0xc3, SeqCst);
    let frame = probe!("call {p}"; p = in(reg) page);
    fault("page-fault-no-execute", frame, 0x11, page, At::Anywhere);
    mem::make_rw(page);
    check!("page-executable-again", probe!("call {p}"; p = in(reg) page).is_none());
    for (name, address) in [("private", 0xffff_82d0_4000_0000), ("direct-map", 0xffff_8300_0000_1000u64)] {
        let frame = probe!("mov al, [{p}]"; p = in(reg) address, out("al") _);
        let right = frame.is_some_and(|frame| frame.vector == 14 && frame.error & !1 == 0);
        check!(["hole-{name}-hidden"], right && events::cr2() == address, "{frame:x?}");
    }
}

fn software_interrupts() {
    expect("int-80", probe!("int 0x80"), 0x80, 0, At::Before(0));
    if !gate_numbers_right() {
        return report::skip("int-n", "the CPU's error code for a closed gate is wrong (QEMU)");
    }
    errno!("open-int-90", trap::set_flags(0x90, 3), 0);
    expect("int-90", probe!("int 0x90"), 0x90, 0, At::Before(0));
    expect("int-91-closed", probe!("int 0x91"), 13, 0x91 << 3 | 2, At::Before(2));
    errno!("open-int-91-to-kernel", trap::set_flags(0x91, 1), 0);
    expect("int-91-kernel", probe!("int 0x91"), 0x91, 0, At::Before(0));
}

/// QEMU's CPU gives error code `n << 4 | 2` for `int n` through a closed gate in 64-bit mode, so that no hypervisor can
/// tell which it was.
fn gate_numbers_right() -> bool {
    probe!("int 0x91").is_none_or(|frame| frame.error != 0x91 << 4 | 2)
}

fn alignment() {
    for offset in [0u64, 1, 4, 7, 8, 15, 16] {
        let frame = probe!("sub rsp, {n}", "ud2"; n = in(reg) offset);
        expect(
            ["rsp-0", "rsp-1", "rsp-4", "rsp-7", "rsp-8", "rsp-15", "rsp-16"]
                [[0u64, 1, 4, 7, 8, 15, 16].iter().position(|&o| o == offset).unwrap_or(0)],
            frame,
            6,
            0,
            At::Before(2),
        );
        let frame = probe!("sub rsp, {n}", "hlt"; n = in(reg) offset);
        let slot = vcpu::current().rip_slot.get();
        let right = frame.is_some_and(|frame| frame.vector == 13 && slot == (frame.rsp & !15) - 40);
        check!(["rsp-with-error-code-{offset}"], right, "rip at {slot:#x}: {frame:x?}");
    }
}

fn masks() {
    let cpu = vcpu::current();
    let see = |name: &str, enabled: bool, masks: bool| {
        errno!(["{name}-set"], trap::set_flags(6, if masks { 4 } else { 0 }), 0);
        if enabled {
            events::enable();
        }
        let frame = probe!("ud2").unwrap_or_default();
        let after = events::disable();
        equal!(["{name}-saved"], frame.mask(), u64::from(!enabled));
        equal!(["{name}-if"], frame.rflags >> 9 & 1, u64::from(enabled));
        equal!(["{name}-at-entry"], cpu.mask_at_entry.get(), u8::from(!enabled || masks));
        equal!(["{name}-restored"], u8::from(after), u8::from(!enabled));
    };
    see("mask-enabled", true, false);
    see("mask-enabled-gate", true, true);
    see("mask-disabled", false, false);
    see("mask-disabled-gate", false, true);
    errno!("mask-reset", trap::set_flags(6, 0), 0);
}

/// All general registers reach the frame, and come back from it.
fn registers() {
    vcpu::current().hook.set(Some(|frame| {
        trap::record(frame);
        frame.rip += 2;
        true
    }));
    trap::arm();
    let mut sum: u64;
    // SAFETY: the hook above skips the `ud2`.
    unsafe {
        core::arch::asm!(
            "push rbx", "push rbp",
            "mov rax, 1", "mov rbx, 2", "mov rcx, 4", "mov rdx, 8", "mov rsi, 16", "mov rdi, 32", "mov rbp, 64",
            "mov r8, 128", "mov r9, 256", "mov r10, 512", "mov r11, 1024", "mov r12, 2048", "mov r13, 4096",
            "mov r14, 8192", "mov r15, 16384",
            "ud2",
            "add rax, rbx", "add rax, rcx", "add rax, rdx", "add rax, rsi", "add rax, rdi", "add rax, rbp",
            "add rax, r8", "add rax, r9", "add rax, r10", "add rax, r11", "add rax, r12", "add rax, r13",
            "add rax, r14", "add rax, r15",
            "pop rbp", "pop rbx",
            out("rax") sum, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _,
            out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    let f = trap::caught().unwrap_or_default();
    vcpu::current().hook.set(None);
    let low = [f.rax, f.rbx, f.rcx, f.rdx, f.rsi, f.rdi, f.rbp, f.r8];
    let high = [f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15];
    check!("registers-in-frame", low == [1, 2, 4, 8, 16, 32, 64, 128], "{low:x?}");
    check!("registers-in-frame-high", high == [256, 512, 1024, 2048, 4096, 8192, 16384], "{high:x?}");
    equal!("registers-after", sum, 32767);
}

/// A trap within the handler of a trap, and once more.
fn nested() {
    vcpu::current().hook.set(Some(|frame| {
        trap::record(frame);
        match frame.vector {
            6 => {
                // SAFETY: the hook returns behind it.
                unsafe { core::arch::asm!("int3") };
                frame.rip += 2;
            }
            3 => {
                // SAFETY: the hook skips it.
                unsafe { core::arch::asm!("hlt") };
            }
            _ => frame.rip += 1,
        }
        true
    }));
    trap::arm();
    // SAFETY: the hook skips it.
    unsafe { core::arch::asm!("ud2") };
    vcpu::current().hook.set(None);
    let cpu = vcpu::current();
    let vectors = cpu.frames.get().map(|frame| frame.vector);
    check!("nested", cpu.count.get() == 3 && vectors[..3] == [6, 3, 13], "{vectors:?}");
}

/// The iret hypercall with a frame that the CPU refuses: the exception is reported at the place it was to return to.
fn returning() {
    let attempt = |cs: u64, ss: u64| {
        probe!("mov {t}, rsp", "push {ss}", "push {t}", "push 0x202", "push {cs}", "lea {t}, [rip + 77f]",
            "push {t}", "push 0", "push rcx", "push r11", "push rax", "mov eax, 23", "syscall",
            "77:", "nop";
            t = out(reg) _, ss = in(reg) ss, cs = in(reg) cs, out("rax") _, out("rcx") _, out("r11") _)
    };
    events::disable();
    let frame = attempt(abi::FLAT_CS64 & !3, abi::FLAT_SS);
    check!("iret", frame.is_none(), "{frame:x?}");
    let frame = attempt(0x1230, abi::FLAT_SS);
    check!("iret-bad-cs", frame.is_some_and(|f| f.vector == 13 && f.error == 0x1230), "{frame:x?}");
    let frame = attempt(abi::FLAT_CS64 & !3, 0x1230);
    check!("iret-bad-ss", frame.is_some_and(|f| f.vector == 13 && f.error == 0x1230), "{frame:x?}");
    events::disable();
}
