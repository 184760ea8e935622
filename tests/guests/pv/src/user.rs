// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guest user mode: a second address space, and running code in it.
//!
//! Code for user mode is written in section `.user` ([`crate::user_code!`]) and mapped read-only at [`CODE`]; a few
//! data pages lie at [`DATA`], the stack below [`STACK`]. The kernel's own table shows the same pages at the same
//! addresses. The user table has nothing else.

use crate::abi::{self, FLAT_CS64, FLAT_SS, index, mmuext, pte};
use crate::events;
use crate::hypercall::{mmuext_op, stack_switch};
use crate::mem::{self, PAGE};
use crate::report;
use crate::trap::Frame;
use crate::vcpu;
use core::sync::atomic::Ordering::SeqCst;

/// Where the code is mapped.
pub const CODE: u64 = 0x40_0000;
/// Where the data pages are mapped.
pub const DATA: u64 = 0x50_0000;
/// Number of data pages.
pub const DATA_PAGES: u64 = 8;
/// Top of the user stack.
pub const STACK: u64 = 0x5f_f000;

unsafe extern "C" {
    static __user_start: u8;
    static __user_end: u8;
}

/// The user address space.
#[derive(Debug)]
pub struct Space {
    /// The user L4 table, in the initial mapping.
    pub l4: u64,
    /// The L3, L2 and L1 tables, which the kernel's table shares.
    pub tables: [u64; 3],
    /// The data pages, in the initial mapping.
    pub data: u64,
}

fn must(what: &str, result: i64) {
    if result != 0 {
        report::abort("user-space", format_args!("{what} got {result}"));
    }
}

/// Builds the user address space, adds it to the kernel's table and makes it this vCPU's user table.
pub fn build() -> Space {
    let data = mem::alloc_contiguous(DATA_PAGES as usize);
    let l1 = mem::table(|table| fill_l1(table, data));
    let l2 = mem::table(|t| mem::entry(t, index(CODE, 2)).store(mem::reference(l1, pte::TABLE), SeqCst));
    let l3 = mem::table(|t| mem::entry(t, index(CODE, 3)).store(mem::reference(l2, pte::TABLE), SeqCst));
    let slot = mem::reference(l3, pte::TABLE);
    let l4 = mem::table(|t| mem::entry(t, index(CODE, 4)).store(slot, SeqCst));
    mem::set(mem::maddr(mem::l4()) + 8 * index(CODE, 4) as u64, slot);
    must("pin", mmuext_op(mmuext::PIN_L4, mem::mfn(l4), 0));
    must("new user base", mmuext_op(mmuext::NEW_USER_BASEPTR, mem::mfn(l4), 0));
    Space { l4, tables: [l3, l2, l1], data }
}

fn fill_l1(table: u64, data: u64) {
    let flags = pte::P | pte::U | pte::A | pte::D;
    let code = &raw const __user_start as u64;
    let pages = (&raw const __user_end as u64 - code) / PAGE;
    for page in 0..pages {
        let slot = index(CODE + page * PAGE, 1);
        mem::entry(table, slot).store(mem::reference(code + page * PAGE, flags), SeqCst);
    }
    for page in 0..DATA_PAGES {
        let slot = index(DATA + page * PAGE, 1);
        mem::entry(table, slot).store(mem::reference(data + page * PAGE, flags | pte::RW), SeqCst);
    }
    for page in 1..=2 {
        let stack = mem::alloc();
        let slot = index(STACK - page * PAGE, 1);
        mem::entry(table, slot).store(mem::reference(stack, flags | pte::RW), SeqCst);
    }
}

/// Returns the user address of a symbol in section `.user`.
pub fn address(symbol: *const u8) -> u64 {
    symbol as u64 - &raw const __user_start as u64 + CODE
}

/// Returns a frame for user mode: 64-bit, at `rip`, with a stack, events on.
pub fn frame(rip: u64) -> Frame {
    Frame { rip, cs_mask: FLAT_CS64, ss: FLAT_SS, rsp: STACK - 64, rflags: 0x202, ..Frame::default() }
}

core::arch::global_asm!(
    // rdi: frame to return to; rsi: where to save the stack pointer. Returns through pv_user_leave.
    ".pushsection .text.user_enter, \"ax\"",
    ".globl pv_user_enter, pv_user_leave",
    "pv_user_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rsi], rsp",
    "mov rsp, rdi",
    "jmp pv_frame_return",
    // rdi: the saved stack pointer.
    "pv_user_leave:",
    "mov rsp, rdi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn pv_user_enter(frame: *mut Frame, save: *mut u64);
    fn pv_user_leave(saved: u64) -> !;
}

/// Runs user mode from `start` until the first trap that no hook takes; returns the registers then.
///
/// Upcalls are masked on the way in and out, and as `start.rflags` says (bit 9) in between.
pub fn run(start: &Frame) -> Frame {
    let cpu = vcpu::current();
    let masked = events::disable();
    must("stack switch", stack_switch(cpu.user_entry_stack()));
    let mut start = *start;
    // SAFETY: with upcalls masked nothing is pushed on the stack before the iret; `leave` comes back here with
    // the callee-saved registers as they were.
    unsafe { pv_user_enter(&mut start, cpu.user_return.as_ptr()) };
    if !masked {
        events::enable();
    }
    cpu.user_exit.get()
}

/// Ends [`run`] with this frame.
pub(crate) fn leave(frame: &Frame) -> ! {
    let cpu = vcpu::current();
    cpu.rip_slot.set(&raw const frame.rip as u64);
    cpu.mask_at_entry.set(events::mask().load(SeqCst));
    events::disable();
    cpu.user_exit.set(*frame);
    // SAFETY: `run` saved this stack pointer and is still waiting, for `user_return` is only then not 0.
    unsafe { pv_user_leave(cpu.user_return.replace(0)) }
}

/// Writes code for user mode: `user_code!(NAME, "instructions", ...)` defines `NAME()`, its user address.
///
/// The code must be position-independent.
#[macro_export]
macro_rules! user_code {
    ($name:ident, $($code:expr),+ $(,)?) => {
        core::arch::global_asm!(
            ".pushsection .user, \"ax\"",
            ".balign 16",
            concat!(".globl user_", stringify!($name)),
            concat!("user_", stringify!($name), ":"),
            $($code,)+
            ".popsection",
        );
        /// Returns the address of this piece of user code.
        fn $name() -> u64 {
            unsafe extern "C" {
                #[link_name = concat!("user_", stringify!($name))]
                static CODE: u8;
            }
            $crate::user::address(&raw const CODE)
        }
    };
}

/// Address that is not mapped in any table of a test guest.
pub const NOWHERE: u64 = 0x7f00_0000_0000;
const _: () = assert!(NOWHERE < abi::HOLE.0);
