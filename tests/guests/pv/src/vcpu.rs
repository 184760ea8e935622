// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a vCPU knows of itself: kept at the bottom of its stack, found by masking RSP.

use crate::trap::Frame;
use core::cell::Cell;

/// Bytes of a vCPU's stack, and its alignment.
pub const STACK_SIZE: usize = 64 << 10;
/// Where on the stack the guest kernel is entered from guest user mode: below what `main` uses.
const USER_ENTRY: usize = 24 << 10;
/// How many trap frames are remembered.
pub const FRAMES: usize = 8;

/// Looks at a trap; true if it has dealt with it.
pub type Hook = fn(&mut Frame) -> bool;

/// Where to go on after a trap, written by [`crate::probe!`]: `rip` is 0 when none is expected.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Resume {
    /// The instruction.
    pub rip: u64,
    /// The stack pointer.
    pub rsp: u64,
    /// The frame pointer, which inline assembly cannot declare as spoilt.
    pub rbp: u64,
    /// RBX, likewise.
    pub rbx: u64,
}

/// One vCPU's own data.
#[derive(Debug)]
pub struct Vcpu {
    /// Its number.
    pub id: Cell<u32>,
    /// Where to go on after the next trap.
    pub resume: Cell<Resume>,
    /// Where the last probed trap went on.
    pub resumed: Cell<u64>,
    /// Address at which the last recorded bounce frame held RIP.
    pub rip_slot: Cell<u64>,
    /// The mask byte at the entry of the last recorded trap.
    pub mask_at_entry: Cell<u8>,
    /// How many traps came since the last [`crate::trap::arm`].
    pub count: Cell<u32>,
    /// The first of those.
    pub frames: Cell<[Frame; FRAMES]>,
    /// Asked first for each trap from guest kernel mode; true if it has dealt with it.
    pub hook: Cell<Option<Hook>>,
    /// Asked first for each trap from guest user mode; true if user mode shall go on.
    pub user_hook: Cell<Option<Hook>>,
    /// Stack pointer saved when user mode was entered, or 0.
    pub(crate) user_return: Cell<u64>,
    /// The frame with which user mode was left.
    pub(crate) user_exit: Cell<Frame>,
    /// Number of event upcalls.
    pub upcalls: Cell<u64>,
    /// Where it goes on in its queues of events.
    pub(crate) fifo: crate::fifo::Heads,
    /// DS, ES, FS and GS of the last failsafe upcall.
    pub failsafe: Cell<[u64; 4]>,
}

const _: () = assert!(size_of::<Vcpu>() <= 4096);

/// Returns the current vCPU's data.
pub fn current() -> &'static Vcpu {
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    let base = rsp & !(STACK_SIZE as u64 - 1);
    // SAFETY: every stack is STACK_SIZE bytes, so aligned, zero at first, and starts with this vCPU's data, for
    // which zero is a valid value; only this vCPU refers to it.
    unsafe { &*(base as *const Vcpu) }
}

impl Vcpu {
    /// Returns the stack pointer for entries from guest user mode.
    pub fn user_entry_stack(&self) -> u64 {
        (&raw const *self) as u64 + USER_ENTRY as u64
    }
}
