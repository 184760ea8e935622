// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the floating-point and vector state: a vCPU starts with it reset, keeps it across hypercalls, traps, blocking and
//! trips to user mode, and never sees another vCPU's.
//!
//! Where CPUID shows XSAVE, the kernel can switch it on in CR4, choose components by XSETBV (x87 always, AVX only with SSE,
//! nothing the CPU has not got) and save and restore them. A virtual task-switched flag makes the next use trap once.
//! The part with two vCPUs wants `-smp 2` or, better, one CPU and `dom0_max_vcpus=2`.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use pv::abi::nr;
use pv::hypercall::*;
use pv::smp;
use pv::trap::Frame;
use pv::{check, equal, errno, events, mem, probe, report, time, user};

pv::guest!(main);

fn main() {
    let (control, mxcsr) = control_words();
    equal!("initial-x87-control", control, 0x37f);
    equal!("initial-mxcsr", mxcsr, 0x1f80);
    check!("initial-registers-zero", registers() == [0; 16], "{:x?}", registers());
    task_switched();
    survives();
    user_mode();
    let avx = extended();
    if avx {
        survives_avx();
    }
    if smp::is_up(1) == pv::Errno::ENOENT.to_ret() {
        report::skip("two-vcpus", "the domain has one vCPU");
    } else {
        two();
    }
}

fn control_words() -> (u16, u32) {
    let (mut control, mut mxcsr) = (0u16, 0u32);
    // SAFETY: stores two control words.
    unsafe {
        core::arch::asm!("fnstcw [{}]", "stmxcsr [{}]", in(reg) &raw mut control, in(reg) &raw mut mxcsr);
    }
    (control, mxcsr)
}

/// The low halves of XMM0 to XMM15. The compiler does not use these registers.
fn registers() -> [u64; 16] {
    let mut out = [0u64; 16];
    // SAFETY: stores 16 words.
    unsafe {
        core::arch::asm!(
            "movq [{p}], xmm0", "movq [{p} + 8], xmm1", "movq [{p} + 16], xmm2", "movq [{p} + 24], xmm3",
            "movq [{p} + 32], xmm4", "movq [{p} + 40], xmm5", "movq [{p} + 48], xmm6", "movq [{p} + 56], xmm7",
            "movq [{p} + 64], xmm8", "movq [{p} + 72], xmm9", "movq [{p} + 80], xmm10", "movq [{p} + 88], xmm11",
            "movq [{p} + 96], xmm12", "movq [{p} + 104], xmm13", "movq [{p} + 112], xmm14", "movq [{p} + 120], xmm15",
            p = in(reg) out.as_mut_ptr(),
        );
    }
    out
}

/// Fills XMM0 to XMM15 and the x87 stack's top from a seed.
fn fill(seed: u64) {
    let words: [u64; 16] = core::array::from_fn(|i| seed + i as u64);
    // SAFETY: loads registers that the compiler does not use.
    unsafe {
        core::arch::asm!(
            "movq xmm0, [{p}]", "movq xmm1, [{p} + 8]", "movq xmm2, [{p} + 16]", "movq xmm3, [{p} + 24]",
            "movq xmm4, [{p} + 32]", "movq xmm5, [{p} + 40]", "movq xmm6, [{p} + 48]", "movq xmm7, [{p} + 56]",
            "movq xmm8, [{p} + 64]", "movq xmm9, [{p} + 72]", "movq xmm10, [{p} + 80]", "movq xmm11, [{p} + 88]",
            "movq xmm12, [{p} + 96]", "movq xmm13, [{p} + 104]", "movq xmm14, [{p} + 112]", "movq xmm15, [{p} + 120]",
            "fninit", "fild qword ptr [{p}]",
            p = in(reg) words.as_ptr(),
        );
    }
}

/// True when the registers hold what `fill` put there; the x87 value is taken and put back.
fn holds(seed: u64) -> bool {
    let mut top = 0u64;
    // SAFETY: stores the top of the x87 stack and loads it again.
    unsafe { core::arch::asm!("fistp qword ptr [{p}]", "fild qword ptr [{p}]", p = in(reg) &raw mut top) };
    top == seed && registers() == core::array::from_fn(|i| seed + i as u64)
}

fn task_switched() {
    fill(0x1000);
    errno!("taskswitch-set", hypercall1(nr::FPU_TASKSWITCH, 1), 0);
    let word = 0u64;
    let frame = probe!("movq xmm0, [{p}]"; p = in(reg) &raw const word);
    check!("taskswitch-sse-traps", frame.is_some_and(|f| f.vector == 7), "{frame:x?}");
    check!("taskswitch-cleared-by-trap", holds(0x1000));
    errno!("taskswitch-set-again", hypercall1(nr::FPU_TASKSWITCH, 1), 0);
    errno!("taskswitch-clear", hypercall1(nr::FPU_TASKSWITCH, 0), 0);
    check!("taskswitch-cleared", probe!("fnop").is_none());
    check!("taskswitch-state-kept", holds(0x1000));
}

fn block_for(nanoseconds: u64) {
    let _ = vcpu_op(8, 0, &mut [time::now() + nanoseconds, 0]);
    let _ = hypercall2(nr::SCHED_OP, 1, 0);
    events::disable();
}

fn survives() {
    let mut bind = [0u32; 3];
    errno!("bind-virq-timer", event_channel_op(1, &mut bind), 0);
    events::unmask_port(bind[2]);
    fill(0x2000);
    xen_version(0, 0);
    check!("survives-hypercall", holds(0x2000));
    let frame = probe!("ud2");
    check!("survives-trap", frame.is_some() && holds(0x2000));
    let mut calls = [call(nr::XEN_VERSION, [0; 5]); 32];
    multicall(&mut calls);
    check!("survives-multicall", holds(0x2000));
    for round in 0..20 {
        block_for(2_000_000);
        if !holds(0x2000) {
            return check!("survives-blocking", false, "round {round}");
        }
    }
    check!("survives-blocking", true);
    let _ = hypercall2(nr::SCHED_OP, 0, 0);
    check!("survives-yield", holds(0x2000));
}

pv::user_code!(user_swap, "movq rax, xmm0", "movq xmm0, rdi", "fnop", "syscall");

fn user_mode() {
    user::build();
    fill(0x3000);
    let mut frame = user::frame(user_swap());
    frame.rdi = 0x4000;
    let end = user::run(&frame);
    check!("user-sees-kernel-state", end.vector == pv::trap::SYSCALL && end.rax == 0x3000, "{end:x?}");
    equal!("kernel-sees-user-state", registers()[0], 0x4000);
    errno!("taskswitch-for-user", hypercall1(nr::FPU_TASKSWITCH, 1), 0);
    let end = user::run(&frame);
    check!("user-taskswitch-traps", end.vector == 7 && end.rip == user_swap() && end.from_user(), "{end:x?}");
    check!("user-taskswitch-once", probe!("fnop").is_none());
}

/// CPUID by the forced prefix.
fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    let (a, b, c, d): (u32, u64, u32, u32);
    // SAFETY: the form that the hypervisor emulates.
    unsafe {
        core::arch::asm!(
            "mov {save}, rbx", "ud2", ".ascii \"xen\"", "cpuid", "xchg {save}, rbx",
            save = out(reg) b, inout("eax") leaf => a, inout("ecx") sub => c, out("edx") d,
        );
    }
    [a, b as u32, c, d]
}

fn xgetbv(register: u32) -> Result<u64, Frame> {
    let (mut low, mut high) = (0u32, 0u32);
    match probe!("xgetbv"; in("ecx") register, inout("eax") low, inout("edx") high) {
        None => Ok(u64::from(high) << 32 | u64::from(low)),
        Some(frame) => Err(frame),
    }
}

fn xsetbv(register: u32, value: u64) -> Option<Frame> {
    probe!("xsetbv"; in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32)
}

fn is_gp(frame: Option<Frame>) -> bool {
    frame.is_some_and(|f| f.vector == 13 && f.error == 0)
}

/// Switches XSAVE on; true when AVX can be used.
fn extended() -> bool {
    if cpuid(1, 0)[2] >> 26 & 1 == 0 {
        report::skip("xsave", "CPUID does not show it");
        return false;
    }
    let frame = probe!("mov {v}, cr4", "or {v}, 0x40000", "mov cr4, {v}"; v = out(reg) _);
    check!("cr4-osxsave", frame.is_none(), "{frame:x?}");
    let mut cr4 = 0u64;
    let _ = probe!("mov {v}, cr4"; v = inout(reg) cr4);
    equal!("cr4-osxsave-reads", cr4 >> 18 & 1, 1);
    let [components, ..] = cpuid(13, 0);
    let all = u64::from(components);
    check!("xsave-components", all & 3 == 3, "{all:#x}");
    check!("xsetbv-all", xsetbv(0, all).is_none());
    let got = xgetbv(0);
    check!("xgetbv", got.is_ok_and(|value| value == all), "{got:x?}");
    check!("xsetbv-without-x87", is_gp(xsetbv(0, all & !1)));
    check!("xsetbv-avx-without-sse", is_gp(xsetbv(0, 5)));
    check!("xsetbv-unknown-component", is_gp(xsetbv(0, all | 1 << 62)));
    check!("xsetbv-other-register", is_gp(xsetbv(1, 1)));
    let got = xgetbv(0);
    check!("xcr0-unchanged", got.is_ok_and(|value| value == all), "{got:x?}");
    check!("xsetbv-less", xsetbv(0, 3).is_none());
    let small = cpuid(13, 0)[1];
    check!("xsetbv-more", xsetbv(0, all).is_none());
    let [_, large, largest, _] = cpuid(13, 0);
    check!("xsave-sizes", small >= 576 && large >= small && largest >= large, "{small} {large} {largest}");
    equal!("xsaves-hidden", cpuid(13, 1)[0] >> 3 & 1, 0);
    save_restore(all);
    all & 4 != 0
}

/// XSAVE and XRSTOR work in the guest kernel.
fn save_restore(all: u64) {
    let area = mem::alloc_contiguous(4);
    let (low, high) = (all as u32, (all >> 32) as u32);
    fill(0x5000);
    let frame = probe!("xsave [{p}]"; p = in(reg) area, in("eax") low, in("edx") high);
    check!("xsave", frame.is_none(), "{frame:x?}");
    fill(0x6000);
    let frame = probe!("xrstor [{p}]"; p = in(reg) area, in("eax") low, in("edx") high);
    check!("xrstor", frame.is_none() && holds(0x5000), "{frame:x?}");
}

/// The upper halves of four YMM registers.
fn upper() -> [u64; 4] {
    let mut out = [0u64; 4];
    // SAFETY: stores four words; the low halves are changed by no store.
    unsafe {
        core::arch::asm!(
            "vextractf128 xmm15, ymm0, 1", "movq [{p}], xmm15", "vextractf128 xmm15, ymm5, 1", "movq [{p} + 8], xmm15",
            "vextractf128 xmm15, ymm9, 1", "movq [{p} + 16], xmm15", "vextractf128 xmm15, ymm14, 1",
            "movq [{p} + 24], xmm15",
            p = in(reg) out.as_mut_ptr(),
        );
    }
    out
}

/// Fills the halves that `upper` reads.
fn fill_upper(seed: u64) {
    let words: [u64; 8] = core::array::from_fn(|i| seed + i as u64 / 2);
    // SAFETY: loads registers that the compiler does not use.
    unsafe {
        core::arch::asm!(
            "vinsertf128 ymm0, ymm0, [{p}], 1", "vinsertf128 ymm5, ymm5, [{p} + 16], 1",
            "vinsertf128 ymm9, ymm9, [{p} + 32], 1", "vinsertf128 ymm14, ymm14, [{p} + 48], 1",
            p = in(reg) words.as_ptr(),
        );
    }
}

fn survives_avx() {
    fill_upper(0x700);
    xen_version(0, 0);
    for _ in 0..20 {
        block_for(2_000_000);
    }
    check!("avx-survives", upper() == [0x700, 0x701, 0x702, 0x703], "{:x?}", upper());
}

static READY: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicU64 = AtomicU64::new(0);
static FIRST: [AtomicU64; 3] = [const { AtomicU64::new(u64::MAX) }; 3];

/// The second vCPU: notes what it starts with, then keeps a state of its own.
extern "C" fn second() -> ! {
    let (control, mxcsr) = control_words();
    FIRST[0].store(control.into(), SeqCst);
    FIRST[1].store(mxcsr.into(), SeqCst);
    FIRST[2].store(registers().iter().filter(|&&word| word != 0).count() as u64, SeqCst);
    fill(0x9_0000);
    READY.store(1, SeqCst);
    while STOP.load(SeqCst) == 0 {
        smp::relax();
        if !holds(0x9_0000) {
            WRONG.fetch_add(1, SeqCst);
            fill(0x9_0000);
        }
    }
    READY.store(2, SeqCst);
    loop {
        let _ = smp::down(1);
    }
}

fn two() {
    fill(0x8_0000);
    let page = smp::context_for(1, second);
    errno!("initialise", smp::initialise(1, page), 0);
    errno!("up", smp::up(1), 0);
    check!("second-ready", smp::wait(&READY, 1));
    equal!("second-x87-control", FIRST[0].load(SeqCst), 0x37f);
    equal!("second-mxcsr", FIRST[1].load(SeqCst), 0x1f80);
    equal!("second-registers-not-leaked", FIRST[2].load(SeqCst), 0);
    let mut wrong = 0;
    let start = time::now();
    while time::now() - start < 300_000_000 {
        smp::relax();
        if !holds(0x8_0000) {
            wrong += 1;
            fill(0x8_0000);
        }
    }
    STOP.store(1, SeqCst);
    check!("second-stopped", smp::wait(&READY, 2));
    equal!("first-state-kept", wrong, 0);
    equal!("second-state-kept", WRONG.load(SeqCst), 0);
}
