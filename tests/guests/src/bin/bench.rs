// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures what the hypervisor's hot paths cost, in instructions.
//!
//! To be run under QEMU's `-icount shift=0,sleep=off`, where an instruction takes one nanosecond and one tick of the TSC
//! (row `calibration` must read 1000.0; otherwise the figures are ticks). Each figure is the least of many runs, less
//! what measuring itself costs and less the guest's own instructions in handlers, so that it is what the hypervisor
//! executes, with the few instructions that load a hypercall's arguments. Prints `bench NAME VALUE`.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use pv::abi::{self, MmuUpdate, TrapInfo, mmuext, nr, pte};
use pv::hypercall::*;
use pv::measure::{RUNS, calibrate, raw, show, ticks};
use pv::time::{self, tsc};
use pv::{equal, errno, events, mem, trap, user};

pv::guest!(main, init_p2m);

fn main() {
    let _ = vcpu_op(7, 0, &mut 0u64);
    calibrate();
    hypercalls();
    user_mode();
    tables();
    pins();
    event();
    timer();
}

fn hypercalls() {
    show("null-hypercall", 10 * ticks(|| drop_result(xen_version(0, 0))));
    let mut calls = [call(nr::XEN_VERSION, [0; 5]); 64];
    let short = ticks(|| drop_result(multicall(&mut calls[..32])));
    let long = ticks(|| drop_result(multicall(&mut calls)));
    show("multicall-entry", (long - short) * 10 / 32);
    show("multicall-empty", 10 * ticks(|| drop_result(multicall(&mut []))));
    show("stack-switch", 10 * ticks(|| drop_result(stack_switch(mem::l4()))));
    show("set-segment-base-fs", 10 * ticks(|| drop_result(hypercall2(nr::SET_SEGMENT_BASE, 0, 0x1000))));
    show("fpu-taskswitch", 10 * ticks(|| drop_result(hypercall1(nr::FPU_TASKSWITCH, 0))));
    show("sched-yield", 10 * ticks(|| drop_result(hypercall2(nr::SCHED_OP, 0, 0))));
    show(
        "cpuid-forced",
        10 * ticks(|| {
            // SAFETY: the forced-emulation form of CPUID.
            unsafe {
                core::arch::asm!(
                    "push rbx", "ud2", ".ascii \"xen\"", "cpuid", "pop rbx",
                    inout("eax") 1 => _, inout("ecx") 0 => _, out("edx") _,
                );
            }
        }),
    );
    show(
        "rdmsr-gs-base",
        10 * ticks(|| {
            // SAFETY: reads a register that the hypervisor emulates.
            unsafe { core::arch::asm!("rdmsr", in("ecx") 0xc000_0101u32, out("eax") _, out("edx") _) };
        }),
    );
}

fn drop_result(_: i64) {}

core::arch::global_asm!(
    ".pushsection .text.bench, \"ax\"",
    // syscall callback: rcx, r11, rip, ... on the stack; back at once. 7 instructions of the guest, and `syscall`.
    "bench_syscall:",
    "mov rcx, [rsp]",
    "mov r11, [rsp + 8]",
    "mov qword ptr [rsp + 8], 0",
    "push r11",
    "push rax",
    "mov eax, 23",
    "syscall",
    // Page fault: rcx, r11, error, rip, ...; skips the two-byte load and goes back. 9 instructions, and `syscall`.
    "bench_fault:",
    "pop rcx",
    "pop r11",
    "mov qword ptr [rsp], 0",
    "add qword ptr [rsp + 8], 2",
    "push rcx",
    "push r11",
    "push rax",
    "mov eax, 23",
    "syscall",
    // Event: notes the time and goes on as every upcall does. 3 instructions up to `rdtsc`.
    "bench_event:",
    "push rax",
    "push rdx",
    "rdtsc",
    "mov [rip + {low}], eax",
    "mov [rip + {low} + 4], edx",
    "pop rdx",
    "pop rax",
    "jmp [rip + {next}]",
    ".popsection",
    low = sym UPCALL_TSC,
    next = sym UPCALL_NEXT,
);

static UPCALL_TSC: AtomicU64 = AtomicU64::new(0);
static UPCALL_NEXT: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static bench_syscall: u8;
    static bench_fault: u8;
    static bench_event: u8;
}

macro_rules! timed_user_code {
    ($name:ident, $($code:literal),+) => {
        pv::user_code!($name,
            "mov r14, -1",
            "2: rdtsc", "shl rdx, 32", "or rax, rdx", "mov r13, rax",
            $($code,)+
            "rdtsc", "shl rdx, 32", "or rax, rdx", "sub rax, r13",
            "cmp rax, r14", "cmovb r14, rax",
            "dec r15", "jnz 2b",
            "ud2");
    };
}
timed_user_code!(user_nothing, "");
timed_user_code!(user_syscall, "syscall");
timed_user_code!(user_fault, "mov al, [rdi]");

/// Runs timed user code; returns its least ticks.
fn in_user(code: u64) -> u64 {
    let mut frame = user::frame(code);
    frame.r15 = RUNS as u64;
    frame.rdi = user::NOWHERE;
    let end = user::run(&frame);
    if end.vector != 6 {
        pv::report::abort("user-mode", format_args!("ended with {end:#x?}"));
    }
    end.r14
}

fn user_mode() {
    user::build();
    errno!("register-syscall", trap::register(2, 1, &raw const bench_syscall as u64), 0);
    let cs = abi::FLAT_CS64 as u16;
    let end = TrapInfo { vector: 0, flags: 0, cs: 0, address: 0 };
    let fault = [TrapInfo { vector: 14, flags: 0, cs, address: &raw const bench_fault as u64 }, end];
    errno!("register-fault", hypercall1(nr::SET_TRAP_TABLE, fault.as_ptr() as u64), 0);
    let nothing = in_user(user_nothing());
    show("syscall-from-user", 10 * (in_user(user_syscall()) - nothing - 6));
    show("page-fault-user", 10 * (in_user(user_fault()) - nothing - 8));
    let kernel = ticks(|| {
        // SAFETY: the handler skips the load.
        unsafe { core::arch::asm!("mov al, [{}]", in(reg) user::NOWHERE, out("al") _) };
    });
    show("page-fault-kernel", 10 * (kernel - 8));
    trap::install();
}

fn tables() {
    let window = mem::alloc_contiguous(32);
    let pages = [mem::alloc(), mem::alloc()];
    let entries = pages.map(|page| mem::reference(page, pte::KERNEL_RO | pte::U | pte::GUEST_KERNEL));
    let mut turn = 0;
    for (name, flush) in [("update-va-mapping", 0), ("update-va-mapping-invlpg", 2)] {
        let cost = ticks(|| {
            turn ^= 1;
            drop_result(update_va_mapping(window, entries[turn], flush));
        });
        show(name, 10 * cost);
    }
    errno!("vm-assist-writable-pagetables", hypercall2(nr::VM_ASSIST, 0, 2), 0);
    let slot = mem::l1_entry(window);
    let entry = mem::entry(slot.table, abi::index(window, 1));
    let cost = ticks(|| {
        turn ^= 1;
        entry.store(entries[turn], SeqCst);
    });
    show("trapped-pte-write", 10 * cost);
    equal!("trapped-pte-write-arrived", entry.load(SeqCst) & pte::ADDR, entries[turn] & pte::ADDR);
    batches(window, entries);
}

fn batches(window: u64, entries: [u64; 2]) {
    let mut lists = [[MmuUpdate::default(); 32]; 2];
    for (list, entry) in lists.iter_mut().zip(entries) {
        for (i, request) in list.iter_mut().enumerate() {
            let va = window + i as u64 * mem::PAGE;
            *request = MmuUpdate { ptr: mem::l1_entry(va).maddr, val: entry };
        }
    }
    let mut turn = 0;
    let mut cost = |count: usize| {
        ticks(|| {
            turn ^= 1;
            drop_result(mmu_update(&lists[turn][..count]).0);
        })
    };
    show("mmu-update-1", 10 * cost(1));
    show("mmu-update-entry", cost(32) * 10 / 32);
}

/// Pins and unpins a tree of one L4, one L3, one L2 and four full L1 tables of writable pages.
fn pins() {
    const LEAVES: usize = 4;
    let data = mem::alloc_contiguous(512);
    let mut leaves = [0; LEAVES];
    for leaf in &mut leaves {
        *leaf = mem::table(|table| {
            for i in 0..512 {
                let page = data + i as u64 * mem::PAGE;
                mem::entry(table, i).store(mem::reference(page, pte::P | pte::RW | pte::U), SeqCst);
            }
        });
    }
    let l2 = mem::table(|table| {
        for (i, leaf) in leaves.iter().enumerate() {
            mem::entry(table, i).store(mem::reference(*leaf, pte::TABLE), SeqCst);
        }
    });
    let l3 = mem::table(|table| mem::entry(table, 0).store(mem::reference(l2, pte::TABLE), SeqCst));
    let l4 = mem::mfn(mem::table(|table| mem::entry(table, 0).store(mem::reference(l3, pte::TABLE), SeqCst)));
    let (mut pin, mut unpin) = (u64::MAX, u64::MAX);
    let base = raw(|| ());
    for _ in 0..8 {
        let start = tsc();
        let pinned = mmuext_op(mmuext::PIN_L4, l4, 0);
        let middle = tsc();
        let unpinned = mmuext_op(mmuext::UNPIN, l4, 0);
        let end = tsc();
        if pinned != 0 || unpinned != 0 {
            errno!("pin", pinned, 0);
            errno!("unpin", unpinned, 0);
            return;
        }
        pin = pin.min(middle - start - base);
        unpin = unpin.min(end - middle - base);
    }
    let entries = (LEAVES * 512 + LEAVES + 2) as u64;
    show("pin-entry", pin * 10 / entries);
    show("unpin-entry", unpin * 10 / entries);
    show("pin-unpin-entry", (pin + unpin) * 10 / entries);
}

/// Waits for the next upcall after `work`, and returns its time.
fn upcall_after(work: impl FnOnce()) -> u64 {
    UPCALL_TSC.store(0, SeqCst);
    work();
    loop {
        let at = UPCALL_TSC.load(SeqCst);
        if at != 0 {
            return at;
        }
        core::hint::spin_loop();
    }
}

fn event() {
    UPCALL_NEXT.store(trap::stub(trap::EVENT), SeqCst);
    errno!("register-event", trap::register(0, 0, &raw const bench_event as u64), 0);
    // EVTCHNOP_bind_ipi: { vcpu, port }.
    let mut bind = [0u32, 0];
    errno!("bind-ipi", event_channel_op(7, &mut bind), 0);
    let mut port = bind[1];
    events::unmask_port(port);
    events::enable();
    let (mut until, mut around) = (u64::MAX, u64::MAX);
    let base = raw(|| ());
    for _ in 0..RUNS {
        let start = tsc();
        let at = upcall_after(|| drop_result(event_channel_op(4, &mut port)));
        until = until.min(at - start - base);
        around = around.min(tsc() - start - base);
    }
    show("event-to-upcall", 10 * until);
    show("event-and-back", 10 * around);
    events::mask_port(port);
    show("event-send-masked", 10 * ticks(|| drop_result(event_channel_op(4, &mut port))));
    events::disable();
}

fn timer() {
    // EVTCHNOP_bind_virq: { virq, vcpu, port }; VIRQ_TIMER is 0.
    let mut bind = [0u32; 3];
    errno!("bind-virq-timer", event_channel_op(1, &mut bind), 0);
    events::unmask_port(bind[2]);
    events::enable();
    let base = raw(|| ());
    let (mut set, mut late, mut past) = (u64::MAX, u64::MAX, u64::MAX);
    for _ in 0..RUNS {
        let start = tsc();
        // VCPUOP_set_singleshot_timer: { deadline, flags }.
        let mut request = [1u64, 0];
        let at = upcall_after(|| drop_result(vcpu_op(8, 0, &mut request)));
        past = past.min(at - start - base);
        let mut request = [time::now() + 400_000, 0];
        let mut end = 0;
        let start = tsc();
        let at = upcall_after(|| {
            drop_result(vcpu_op(8, 0, &mut request));
            end = tsc();
        });
        set = set.min(end - start - base);
        // A tick is a nanosecond here, and system time runs by the TSC.
        let reached = time::info().at(at);
        late = late.min(reached.saturating_sub(request[0]));
    }
    show("timer-set", 10 * set);
    show("timer-expiry-to-upcall", 10 * late);
    show("timer-set-until-upcall", 10 * (set + late));
    show("timer-past-until-upcall", 10 * past);
}
