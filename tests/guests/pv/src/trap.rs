// SPDX-License-Identifier: MIT OR Apache-2.0
//! Traps: stubs for all vectors and callbacks, and a record of what came.
//!
//! A test arms the record, executes an instruction that traps, and looks at the frame: see [`crate::probe!`].
//! A trap that nobody armed for ends the guest with a failed check and the registers.

use crate::abi::{self, TrapInfo, nr};
use crate::hypercall::{hypercall1, hypercall2};
use crate::{events, println, report, vcpu};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Pseudo-vectors of the callbacks.
pub const EVENT: u32 = 256;
/// Failsafe callback.
pub const FAILSAFE: u32 = 257;
/// 64-bit `syscall` from guest user mode.
pub const SYSCALL: u32 = 258;
/// `sysenter` from guest user mode.
pub const SYSENTER: u32 = 259;
/// `syscall` from a 32-bit code segment in guest user mode.
pub const SYSCALL32: u32 = 260;

/// The registers at a trap, in the order in which the stubs push them; from `rax` on also what `iret` takes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "names of registers")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rax: u64,
    pub r11: u64,
    pub rcx: u64,
    /// Error code, 0 for vectors that have none.
    pub error: u32,
    pub vector: u32,
    pub rip: u64,
    /// Selector in bits 15:0, saved upcall mask in bits 39:32.
    pub cs_mask: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl Frame {
    /// Returns the saved code selector.
    pub fn cs(&self) -> u64 {
        self.cs_mask & 0xffff
    }
    /// Returns the saved upcall mask.
    pub fn mask(&self) -> u64 {
        self.cs_mask >> 32
    }
    /// True when the trap came from guest user mode.
    pub fn from_user(&self) -> bool {
        self.cs_mask & 3 == 3
    }
    /// True when the vector has an error code in its bounce frame.
    pub fn has_error(&self) -> bool {
        matches!(self.vector, 8 | 10..=14 | 17 | 21)
    }
}

core::arch::global_asm!(
    // Stubs, 32 bytes each, one a vector. Entered with a bounce frame on the stack:
    // rcx, r11, [error code], rip, cs|mask<<32, rflags, rsp, ss. Each makes of it the tail of a `Frame`.
    ".pushsection .text.stubs, \"ax\"",
    ".balign 32",
    ".globl pv_stubs, pv_failsafe_stub, pv_failsafe_selectors",
    "pv_stubs:",
    ".irp v,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,\
     32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,60,61,62,63,\
     64,65,66,67,68,69,70,71,72,73,74,75,76,77,78,79,80,81,82,83,84,85,86,87,88,89,90,91,92,93,94,95,\
     96,97,98,99,100,101,102,103,104,105,106,107,108,109,110,111,112,113,114,115,116,117,118,119,120,\
     121,122,123,124,125,126,127,128,129,130,131,132,133,134,135,136,137,138,139,140,141,142,143,144,\
     145,146,147,148,149,150,151,152,153,154,155,156,157,158,159,160,161,162,163,164,165,166,167,168,\
     169,170,171,172,173,174,175,176,177,178,179,180,181,182,183,184,185,186,187,188,189,190,191,192,\
     193,194,195,196,197,198,199,200,201,202,203,204,205,206,207,208,209,210,211,212,213,214,215,216,\
     217,218,219,220,221,222,223,224,225,226,227,228,229,230,231,232,233,234,235,236,237,238,239,240,\
     241,242,243,244,245,246,247,248,249,250,251,252,253,254,255,256,258,259,260",
    ".balign 32",
    // The failsafe callback's place in the list is taken by its own stub below.
    "pop rcx",
    "pop r11",
    ".if (\\v != 8) && ((\\v < 10) || (\\v > 14)) && (\\v != 17) && (\\v != 21)",
    "push 0",
    ".endif",
    "mov dword ptr [rsp + 4], \\v",
    "jmp pv_trap_common",
    ".endr",
    // Failsafe: rcx, r11, ds, es, fs, gs, rip, cs|mask<<32, rflags, rsp, ss.
    ".balign 32",
    "pv_failsafe_stub:",
    "pop rcx",
    "pop r11",
    "pop qword ptr [rip + pv_failsafe_selectors]",
    "pop qword ptr [rip + pv_failsafe_selectors + 8]",
    "pop qword ptr [rip + pv_failsafe_selectors + 16]",
    "pop qword ptr [rip + pv_failsafe_selectors + 24]",
    "push 0",
    "mov dword ptr [rsp + 4], {failsafe}",
    // On to pv_trap_common: the stack holds the tail of a `Frame`, RCX and R11 the guest's.
    "pv_trap_common:",
    "push rcx",
    "push r11",
    "push rax",
    "push rdi",
    "push rsi",
    "push rdx",
    "push r8",
    "push r9",
    "push r10",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "cld",
    "mov rdi, rsp",
    "mov rbp, rsp",
    "and rsp, -16",
    "call {entry}",
    "mov rsp, rbp",
    // RSP points at a `Frame`: return to it by the iret hypercall.
    ".globl pv_frame_return",
    "pv_frame_return:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "mov rax, [rip + {iret_flags}]",
    "mov [rsp + 24], rax",
    "mov eax, {iret}",
    "syscall",
    "ud2",
    ".popsection",
    ".pushsection .bss.failsafe, \"aw\", @nobits",
    ".balign 8",
    "pv_failsafe_selectors: .skip 32",
    ".popsection",
    failsafe = const FAILSAFE,
    iret = const nr::IRET,
    iret_flags = sym IRET_FLAGS,
    entry = sym trap_entry,
);

/// The `flags` word of every iret frame: 0, or `VGCF_in_syscall` where a test wants it.
pub static IRET_FLAGS: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static pv_stubs: u8;
    static pv_failsafe_stub: u8;
    static pv_failsafe_selectors: [u64; 4];
}

/// Returns the address of the stub for a vector or callback.
pub fn stub(vector: u32) -> u64 {
    let slot = match vector {
        FAILSAFE => return &raw const pv_failsafe_stub as u64,
        0..=EVENT => vector,
        _ => vector - 1,
    };
    &raw const pv_stubs as u64 + 32 * u64::from(slot)
}

/// A whole trap table and its terminator.
pub type TrapInfoTable = [TrapInfo; 257];

/// Returns the trap table that is installed at first: all vectors, 3, 4 and 0x80 open to user mode.
pub fn table() -> TrapInfoTable {
    let mut table = [TrapInfo { vector: 0, flags: 0, cs: abi::FLAT_CS64 as u16, address: 0 }; 257];
    for vector in 0..=255u8 {
        let entry = &mut table[usize::from(vector)];
        entry.vector = vector;
        entry.flags = if matches!(vector, 3 | 4 | 0x80) { 3 } else { 0 };
        entry.address = stub(vector.into());
    }
    table
}

/// Changes one vector's flags (2 bits of privilege level, bit 2 "masks events").
pub fn set_flags(vector: u8, flags: u8) -> i64 {
    let cs = abi::FLAT_CS64 as u16;
    let entry = TrapInfo { vector, flags, cs, address: stub(vector.into()) };
    let end = TrapInfo { vector: 0, flags: 0, cs: 0, address: 0 };
    hypercall1(nr::SET_TRAP_TABLE, (&raw const *&[entry, end]) as u64)
}

/// Registers a callback of `callback_op`: type 0 event, 1 failsafe, 2 syscall, 4 nmi, 5 sysenter, 7 syscall32.
pub fn register(kind: u16, flags: u16, address: u64) -> i64 {
    let argument = [u64::from(kind) | u64::from(flags) << 16, address];
    hypercall2(nr::CALLBACK_OP, 0, &raw const argument as u64)
}

/// Installs the trap table and the callbacks.
pub fn install() {
    let table = table();
    let result = hypercall1(nr::SET_TRAP_TABLE, table.as_ptr() as u64);
    if result != 0 {
        report::abort("set-trap-table", format_args!("got {result}"));
    }
    for (kind, flags, vector) in [(0, 0, EVENT), (1, 1, FAILSAFE), (2, 1, SYSCALL)] {
        let result = register(kind, flags, stub(vector));
        if result != 0 {
            report::abort("callback-op", format_args!("type {kind} got {result}"));
        }
    }
}

/// Forgets earlier traps; returns where to say how the next one goes on.
pub fn arm() -> *mut vcpu::Resume {
    let cpu = vcpu::current();
    cpu.count.set(0);
    cpu.resume.as_ptr()
}

/// Disarms, and returns the first trap since [`arm`], if there was one.
pub fn caught() -> Option<Frame> {
    let cpu = vcpu::current();
    cpu.resume.set(vcpu::Resume::default());
    let frames = cpu.frames.get();
    (cpu.count.get() > 0).then_some(frames[0])
}

/// Puts a frame on record.
pub fn record(frame: &Frame) {
    let cpu = vcpu::current();
    let count = cpu.count.get();
    if (count as usize) < vcpu::FRAMES {
        let mut frames = cpu.frames.get();
        frames[count as usize] = *frame;
        cpu.frames.set(frames);
    }
    cpu.count.set(count + 1);
    cpu.rip_slot.set(&raw const frame.rip as u64);
    cpu.mask_at_entry.set(events::mask().load(SeqCst));
}

unsafe extern "C" fn trap_entry(frame: *mut Frame) {
    // SAFETY: the stub passes the address of the frame it has just built on this stack.
    let frame = unsafe { &mut *frame };
    let cpu = vcpu::current();
    if frame.vector == FAILSAFE {
        // SAFETY: written by the stub, and no second failsafe upcall comes before the iret below.
        cpu.failsafe.set(unsafe { pv_failsafe_selectors });
    }
    if frame.vector == EVENT && cpu.hook.get().is_none() {
        return events::upcall();
    }
    if frame.from_user() && cpu.user_return.get() != 0 {
        if cpu.user_hook.get().is_some_and(|hook| hook(frame)) {
            return;
        }
        crate::user::leave(frame);
    }
    if cpu.hook.get().is_some_and(|hook| hook(frame)) {
        return;
    }
    record(frame);
    let resume = cpu.resume.take();
    if resume.rip == 0 {
        unexpected(frame);
    }
    cpu.resumed.set(resume.rip);
    frame.rip = resume.rip;
    (frame.rsp, frame.rbp, frame.rbx) = (resume.rsp, resume.rbp, resume.rbx);
    frame.cs_mask = abi::FLAT_CS64 & !3;
    frame.ss = abi::FLAT_SS;
    // Trap, nested task, alignment check and direction must not outlive the test.
    frame.rflags &= !(1 << 8 | 1 << 14 | 1 << 18 | 1 << 10);
}

fn unexpected(frame: &Frame) -> ! {
    println!("{frame:#x?}");
    println!("cr2 {:#x}", events::cr2());
    report::abort(
        "unexpected-trap",
        format_args!("vector {} error {:#x} at {:#x}", frame.vector, frame.error, frame.rip),
    )
}

/// Executes instructions and returns the first trap they caused, as `Option<Frame>`; the guest goes on behind them.
///
/// `probe!("mov rax, [{p}]"; p = in(reg) address, out("rax") _)`: literals, a semicolon, operands of `asm!`.
#[macro_export]
macro_rules! probe {
    ($($code:expr),+ $(; $($operands:tt)*)?) => {{
        let resume = $crate::trap::arm();
        // SAFETY: a trap resumes at label 78, which this block owns; the rest is the test's wish.
        unsafe {
            core::arch::asm!(
                "lea {pv_scratch}, [rip + 78f]",
                "mov [{pv_resume}], {pv_scratch}",
                "mov [{pv_resume} + 8], rsp",
                "mov [{pv_resume} + 16], rbp",
                "mov [{pv_resume} + 24], rbx",
                $($code,)+
                "78:",
                pv_scratch = out(reg) _,
                pv_resume = in(reg) resume,
                $($($operands)*)?
            );
        }
        $crate::trap::caught()
    }};
}
