// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the calling convention: a hypercall takes its number in RAX and five arguments, gives its result in RAX and
//! leaves everything but RCX, R11 and the argument registers alone; the page's stubs spare RCX and R11 too.
//!
//! An unknown number or command is -ENOSYS. A pointer is good when the guest kernel could use it itself: what is
//! unmapped, read-only where it must be written, not canonical, or touches the hypervisor's hole is -EFAULT, and never
//! more than that. A multicall performs its calls in order and succeeds though they fail; a call that takes long is
//! restarted unseen.
#![no_std]
#![no_main]

use pv::abi::{self, MmuUpdate, nr, pte};
use pv::hypercall::*;
use pv::{check, equal, errno, mem, trap};

pv::guest!(main, hypercall_page);

fn main() {
    registers();
    page();
    unknown();
    version();
    pointers_out();
    pointers_in();
    multicalls();
    continuations();
}

/// Loads every register, calls, and looks at every register.
fn registers() {
    let mut got = [0u64; 8];
    let rsp: u64;
    // SAFETY: a null hypercall; all registers changed here are named or restored.
    unsafe {
        core::arch::asm!(
            "push rbx", "push rbp", "push {out}",
            "mov rbx, 0x1111", "mov rbp, 0x2222", "mov r9, 0x3333", "mov r12, 0x4444",
            "mov r13, 0x5555", "mov r14, 0x6666", "mov r15, 0x7777",
            "mov eax, 17", "xor edi, edi", "xor esi, esi",
            "mov rdx, rsp",
            "push rdx",
            "syscall",
            "pop rdx",
            "sub rdx, rsp",
            "pop r8",
            "mov [r8], rbx", "mov [r8 + 8], rbp", "mov [r8 + 16], r9", "mov [r8 + 24], r12",
            "mov [r8 + 32], r13", "mov [r8 + 40], r14", "mov [r8 + 48], r15", "mov [r8 + 56], rax",
            "pop rbp", "pop rbx",
            out = in(reg) got.as_mut_ptr(),
            lateout("rdx") rsp,
            lateout("rax") _, lateout("rcx") _, lateout("r11") _, lateout("rdi") _, lateout("rsi") _,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r12") _, lateout("r13") _,
            lateout("r14") _, lateout("r15") _,
        );
    }
    check!(
        "registers-preserved",
        got[..7] == [0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666, 0x7777],
        "rbx rbp r9 r12-r15 {got:x?}"
    );
    equal!("registers-result", got[7], 0x40011);
    equal!("registers-rsp", rsp, 0);
    flags();
}

/// The status flags and the direction flag come back as they were; the real interrupt flag stays on.
fn flags() {
    for set in [0x8d5u64, 0u64, 0x400] {
        let after: u64;
        // SAFETY: a null hypercall with status flags changed.
        unsafe {
            core::arch::asm!(
                "push {set}", "popfq", "syscall", "pushfq", "pop {after}", "cld",
                set = in(reg) set, after = lateout(reg) after,
                inout("rax") 17u64 => _, inout("rdi") 0u64 => _, inout("rsi") 0u64 => _,
                out("rcx") _, out("r11") _, out("rdx") _, out("r10") _, out("r8") _,
            );
        }
        equal!(["flags-preserved-{set:#x}"], after & 0xcd5, set);
        equal!(["flags-interrupts-on-{set:#x}"], after & 0x23200, 0x200);
    }
}

unsafe extern "C" {
    #[link_name = "pv_hypercall_page"]
    static PAGE: [u8; 4096];
}

/// Calls through a stub of the hypercall page with RCX and R11 loaded; returns RAX, RCX and R11.
fn through_page(number: u64, a: u64, b: u64) -> (i64, u64, u64) {
    let stub = &raw const PAGE as u64 + 32 * number;
    let (result, rcx, r11): (i64, u64, u64);
    // SAFETY: the builder has filled the page with stubs that follow the calling convention.
    unsafe {
        core::arch::asm!(
            "call {stub}",
            stub = in(reg) stub,
            out("rax") result,
            inout("rdi") a => _, inout("rsi") b => _, inout("rcx") 0x1234u64 => rcx, inout("r11") 0x5678u64 => r11,
            out("rdx") _, out("r10") _, out("r8") _,
        );
    }
    (result, rcx, r11)
}

fn page() {
    let (result, rcx, r11) = through_page(nr::XEN_VERSION, 0, 0);
    equal!("page-version", result, 0x40011);
    check!("page-keeps-rcx-r11", (rcx, r11) == (0x1234, 0x5678), "{rcx:#x} {r11:#x}");
    errno!("page-unknown", through_page(nr::XEN_VERSION, 99, 0).0, ENOSYS);
    for number in [11, 27, 47, 56, 63] {
        errno!(["page-unknown-{number}"], through_page(number, 0, 0).0, ENOSYS);
    }
    let info = [0u8; 16];
    equal!("page-second-argument", through_page(nr::XEN_VERSION, 1, info.as_ptr() as u64).0, 0);
    page_iret();
}

/// Stub 23 pushes rcx, r11 and rax and needs the rest of the iret frame on the stack.
fn page_iret() {
    let stub = &raw const PAGE as u64 + 32 * nr::IRET;
    let (rax, rcx, r11): (u64, u64, u64);
    // SAFETY: builds the frame that the iret hypercall takes, returning to the label with the stack as it was.
    unsafe {
        core::arch::asm!(
            "mov r8, rsp",
            "push {ss}", "push r8", "push 0x202", "push {cs}",
            "lea r8, [rip + 2f]", "push r8", "push 0",
            "jmp {stub}",
            "2:",
            stub = in(reg) stub, ss = const abi::FLAT_SS, cs = const abi::FLAT_CS64 & !3,
            inout("rax") 0x51u64 => rax, inout("rcx") 0x52u64 => rcx, inout("r11") 0x53u64 => r11, out("r8") _,
        );
    }
    pv::events::disable();
    check!("page-iret", (rax, rcx, r11) == (0x51, 0x52, 0x53), "{rax:#x} {rcx:#x} {r11:#x}");
}

fn unknown() {
    for number in [11u64, 27, 47, 56, 63, 64, 127, 128, 0x7fff_ffff, 1 << 32 | 17, u64::MAX] {
        errno!(["unknown-number-{number:#x}"], hypercall5(number, 1, 2, 3, 4, 5), ENOSYS);
    }
    let mut buffer = [0u64; 8];
    let p = buffer.as_mut_ptr() as u64;
    errno!("unknown-xen-version", xen_version(99, p), ENOSYS);
    errno!("unknown-sched-op", hypercall2(nr::SCHED_OP, 99, p), ENOSYS);
    errno!("unknown-event-channel-op", hypercall2(nr::EVENT_CHANNEL_OP, 99, p), ENOSYS);
    errno!("unknown-physdev-op", hypercall2(nr::PHYSDEV_OP, 99, p), ENOSYS);
    errno!("unknown-memory-op", hypercall2(nr::MEMORY_OP, 63, p), ENOSYS);
    errno!("unknown-vcpu-op", hypercall3(nr::VCPU_OP, 99, 0, p), ENOSYS);
    errno!("unknown-vcpu", hypercall3(nr::VCPU_OP, 3, 77, p), ENOENT);
    errno!("unknown-console-io", hypercall3(nr::CONSOLE_IO, 9, 0, p), ENOSYS);
    errno!("unknown-mmuext", mmuext_op(99, 0, 0), ENOSYS);
    errno!("unknown-callback-op", hypercall2(nr::CALLBACK_OP, 99, p), ENOSYS);
    errno!("platform-op-interface-version", hypercall1(nr::PLATFORM_OP, p), EACCES);
}

fn version() {
    let mut text = [0u8; 1024];
    let p = text.as_mut_ptr() as u64;
    equal!("version-number", xen_version(0, 0), 0x40011);
    errno!("version-extra", xen_version(1, p), 0);
    check!("version-extra-terminated", text[..16].contains(&0), "{:?}", &text[..16]);
    errno!("version-compile-info", xen_version(2, p), 0);
    text.fill(0xaa);
    errno!("version-capabilities", xen_version(3, p), 0);
    let wanted = b"xen-3.0-x86_64 ";
    check!("version-capabilities-pv64", text.windows(wanted.len()).any(|w| w == wanted), "{:?}", &text[..64]);
    errno!("version-changeset", xen_version(4, p), 0);
    errno!("version-platform-parameters", xen_version(5, p), 0);
    let start = u64::from_le_bytes(text[..8].try_into().unwrap_or_default());
    equal!("version-virt-start", start, abi::HOLE.0);
    equal!("version-pagesize", xen_version(7, 0), 4096);
    errno!("version-guest-handle", xen_version(8, p), 0);
    errno!("version-commandline", xen_version(9, p), 0);
    let mut features = [0u32, 0];
    errno!("version-features", xen_version(6, features.as_mut_ptr() as u64), 0);
    let [_, bits] = features;
    for (bit, want) in [(0, 0), (1, 0), (2, 0), (3, 0), (5, 1), (6, 1), (7, 1), (8, 0), (11, 1), (12, 0), (13, 1)] {
        equal!(["version-feature-{bit}"], bits >> bit & 1, want);
    }
    features = [1, 7];
    errno!("version-features-beyond", xen_version(6, features.as_mut_ptr() as u64), EINVAL);
}

/// Addresses at which 16 bytes can be neither read nor written.
fn bad_addresses() -> [(&'static str, u64); 12] {
    [
        ("null", 0),
        ("unmapped", pv::user::NOWHERE),
        ("low-half-end", 0x0000_8000_0000_0000 - 8),
        ("non-canonical", 0x0000_8000_0000_0000),
        ("non-canonical-middle", 0x1234_5678_0000_0000),
        ("below-hole", abi::HOLE.0 - 8),
        ("hole-start", abi::HOLE.0),
        ("hole-middle", 0xffff_82d0_4000_0000),
        ("hole-direct-map", 0xffff_8300_0000_0000),
        ("hole-end", abi::HOLE.1 - 8),
        ("behind-hole", abi::HOLE.1),
        ("wrap", u64::MAX - 7),
    ]
}

fn pointers_out() {
    for (name, address) in bad_addresses() {
        errno!(["copy-out-{name}"], xen_version(1, address), EFAULT);
    }
    let pages = mem::alloc_contiguous(2);
    errno!("copy-out-straddling", xen_version(1, pages + mem::PAGE - 8), 0);
    mem::make_ro(pages + mem::PAGE);
    errno!("copy-out-read-only", xen_version(1, pages + mem::PAGE), EFAULT);
    errno!("copy-out-into-read-only", xen_version(1, pages + mem::PAGE - 8), EFAULT);
    mem::remap(pages + mem::PAGE, 0);
    errno!("copy-out-into-unmapped", xen_version(1, pages + mem::PAGE - 8), EFAULT);
    mem::make_rw(pages + mem::PAGE);
    errno!("copy-out-again", xen_version(1, pages + mem::PAGE - 8), 0);
    errno!("copy-out-page-table", xen_version(1, mem::l4()), EFAULT);
    errno!("copy-out-unaligned", xen_version(6, pages + 3), 0);
}

fn pointers_in() {
    for (name, address) in bad_addresses() {
        errno!(["copy-in-{name}"], hypercall2(nr::EVENT_CHANNEL_OP, 4, address), EFAULT);
        errno!(["multicall-list-{name}"], hypercall2(nr::MULTICALL, address, 2), EFAULT);
        errno!(["trap-table-{name}"], if address == 0 { -14 } else { hypercall1(nr::SET_TRAP_TABLE, address) }, EFAULT);
        errno!(["mmu-update-{name}"], hypercall4(nr::MMU_UPDATE, address, 1, 0, abi::DOMID_SELF), EFAULT);
        errno!(["mmuext-{name}"], hypercall4(nr::MMUEXT_OP, address, 1, 0, abi::DOMID_SELF), EFAULT);
        if name != "null" {
            errno!(["console-write-{name}"], hypercall3(nr::CONSOLE_IO, 0, 16, address), EFAULT);
        }
    }
    trap::install();
    errno!("console-write-nothing", hypercall3(nr::CONSOLE_IO, 0, 0, 0), 0);
    let mut byte = [0u8; 8];
    equal!("console-read-nothing", hypercall3(nr::CONSOLE_IO, 1, 8, byte.as_mut_ptr() as u64), 0);
}

fn multicalls() {
    errno!("multicall-empty", multicall(&mut []), 0);
    let mut features = [0u32, 0];
    let mut calls = [
        call(nr::XEN_VERSION, [0; 5]),
        call(99, [0; 5]),
        call(nr::XEN_VERSION, [1, abi::HOLE.0, 0, 0, 0]),
        call(nr::XEN_VERSION, [6, features.as_mut_ptr() as u64, 0, 0, 0]),
        call(nr::XEN_VERSION, [7, 0, 0, 0, 0]),
    ];
    errno!("multicall", multicall(&mut calls), 0);
    equal!("multicall-result-0", calls[0].result, 0x40011);
    errno!("multicall-result-unknown", calls[1].result, ENOSYS);
    errno!("multicall-result-fault", calls[2].result, EFAULT);
    errno!("multicall-result-3", calls[3].result, 0);
    check!("multicall-effect", features[1] != 0, "features not written");
    equal!("multicall-result-4", calls[4].result, 4096);
    let mut inner = [call(nr::XEN_VERSION, [0; 5])];
    let mut nested = [call(nr::MULTICALL, [inner.as_mut_ptr() as u64, 1, 0, 0, 0])];
    errno!("multicall-around-nested", multicall(&mut nested), 0);
    errno!("multicall-nested", nested[0].result, EINVAL);
    multicall_order();
}

/// Each call sees the effect of those before it.
fn multicall_order() {
    let page = mem::alloc();
    let (ro, rw) = (mem::reference(page, pte::KERNEL_RO), mem::reference(page, pte::KERNEL_RW));
    let mut calls = [
        call(nr::UPDATE_VA_MAPPING, [page, ro, 2, 0, 0]),
        call(nr::XEN_VERSION, [1, page, 0, 0, 0]),
        call(nr::UPDATE_VA_MAPPING, [page, rw, 2, 0, 0]),
        call(nr::XEN_VERSION, [1, page, 0, 0, 0]),
    ];
    errno!("multicall-order", multicall(&mut calls), 0);
    errno!("multicall-order-read-only", calls[0].result, 0);
    errno!("multicall-order-refused", calls[1].result, EFAULT);
    errno!("multicall-order-writable", calls[2].result, 0);
    errno!("multicall-order-allowed", calls[3].result, 0);
}

/// Long batches, with the 100 Hz tick that every vCPU starts with running.
fn continuations() {
    const COUNT: usize = 2048;
    let target = mem::alloc_contiguous(COUNT * 8 / mem::PAGE as usize);
    let list = mem::alloc_contiguous(COUNT * 16 / mem::PAGE as usize);
    // SAFETY: these pages were just taken from the pool and belong to nobody else.
    let requests = unsafe { core::slice::from_raw_parts_mut(list as *mut MmuUpdate, COUNT) };
    for round in 1..=20u64 {
        for (i, request) in requests.iter_mut().enumerate() {
            *request = MmuUpdate { ptr: mem::maddr(target + 8 * i as u64), val: round << 32 | i as u64 };
        }
        let (result, done) = mmu_update(requests);
        let right = (0..COUNT as u64)
            .all(|i| mem::entry(target, i as usize).load(core::sync::atomic::Ordering::SeqCst) == round << 32 | i);
        if result != 0 || done != COUNT as u32 || !right {
            check!("long-mmu-update", false, "round {round} result {result} done {done} right {right}");
            return;
        }
    }
    check!("long-mmu-update", true);
    requests[1000].ptr = mem::PAGE * 0xff_ffff_ffff;
    let (result, done) = mmu_update(requests);
    check!("long-mmu-update-stops", result < 0 && done == 1000, "result {result} done {done}");
    long_multicall();
}

fn long_multicall() {
    const COUNT: usize = 1024;
    let list = mem::alloc_contiguous(COUNT * 64 / mem::PAGE as usize);
    // SAFETY: these pages were just taken from the pool and belong to nobody else.
    let calls = unsafe { core::slice::from_raw_parts_mut(list as *mut abi::Multicall, COUNT) };
    for round in 0..20 {
        calls.fill(call(nr::XEN_VERSION, [0; 5]));
        let result = multicall(calls);
        if result != 0 || calls.iter().any(|c| c.result != 0x40011) {
            check!("long-multicall", false, "round {round} result {result}");
            return;
        }
    }
    check!("long-multicall", true);
}
