// SPDX-License-Identifier: MIT OR Apache-2.0
//! Further vCPUs: a start context, a stack, and a function to run there.

use crate::abi::{self, nr};
use crate::hypercall::{hypercall2, hypercall3, vcpu_op};
use crate::trap::{self, TrapInfoTable};
use crate::{mem, vcpu};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Bytes of a `vcpu_guest_context`.
pub const CONTEXT_BYTES: u64 = 5168;
/// Offsets of its fields, in words of eight bytes.
pub mod context {
    /// VGCF flags: bit 2 "in kernel", bit 3 "failsafe masks events", bit 4 "syscall masks events".
    pub const FLAGS: usize = 512 / 8;
    /// RDI among the registers.
    pub const RDI: usize = (520 + 112) / 8;
    /// RIP among the registers.
    pub const RIP: usize = (520 + 128) / 8;
    /// CS among the registers, with the saved upcall mask above.
    pub const CS: usize = (520 + 136) / 8;
    /// RFLAGS among the registers.
    pub const RFLAGS: usize = (520 + 144) / 8;
    /// RSP among the registers.
    pub const RSP: usize = (520 + 152) / 8;
    /// SS among the registers.
    pub const SS: usize = (520 + 160) / 8;
    /// Trap table, 256 entries of two words.
    pub const TRAPS: usize = 720 / 8;
    /// Number of GDT entries.
    pub const GDT_ENTS: usize = 4960 / 8;
    /// Stack for entries from user mode.
    pub const KERNEL_SS: usize = 4968 / 8;
    /// Stack pointer for entries from user mode.
    pub const KERNEL_SP: usize = 4976 / 8;
    /// Control registers.
    pub const CTRLREG: usize = 4984 / 8;
    /// Event callback.
    pub const EVENT: usize = 5112 / 8;
    /// Failsafe callback.
    pub const FAILSAFE: usize = 5120 / 8;
    /// Syscall callback.
    pub const SYSCALL: usize = 5128 / 8;
}

core::arch::global_asm!(
    // First instructions of a further vCPU: RDI holds the function, the stack is ours. Masks upcalls by itself only
    // through the hypervisor, which starts a vCPU with its mask byte as it finds it.
    ".pushsection .text.secondary, \"ax\"",
    ".globl pv_secondary",
    "pv_secondary:",
    "cld",
    "xor ebp, ebp",
    "call rdi",
    "ud2",
    ".popsection",
);

unsafe extern "C" {
    static pv_secondary: u8;
}

/// Fills a `vcpu_guest_context` for vCPU `id`, to run `function` on a stack of its own; returns its address.
pub fn context_for(id: u32, function: extern "C" fn() -> !) -> u64 {
    let stack = mem::alloc_aligned(vcpu::STACK_SIZE / mem::PAGE as usize);
    // SAFETY: the stack was just taken from the pool; its lowest bytes are this vCPU's data by convention.
    let cpu = unsafe { &*(stack as *const vcpu::Vcpu) };
    cpu.id.set(id);
    let page = mem::alloc_contiguous(2);
    let set = |word: usize, value: u64| mem::entry(page, word).store(value, SeqCst);
    set(context::FLAGS, 1 << 2 | 1 << 3 | 1 << 4);
    set(context::RDI, function as *const () as u64);
    set(context::RIP, &raw const pv_secondary as u64);
    set(context::CS, abi::FLAT_CS64);
    set(context::RFLAGS, 1 << 12);
    set(context::RSP, stack + vcpu::STACK_SIZE as u64);
    set(context::SS, abi::FLAT_SS);
    let table: TrapInfoTable = trap::table();
    for (i, entry) in table.iter().take(256).enumerate() {
        let first = u64::from(entry.vector) | u64::from(entry.flags) << 8 | u64::from(entry.cs) << 16;
        set(context::TRAPS + 2 * i, first);
        set(context::TRAPS + 2 * i + 1, entry.address);
    }
    set(context::KERNEL_SS, abi::FLAT_SS);
    set(context::KERNEL_SP, cpu.user_entry_stack());
    set(context::CTRLREG + 3, mem::mfn(mem::l4()) << 12);
    set(context::EVENT, trap::stub(trap::EVENT));
    set(context::FAILSAFE, trap::stub(trap::FAILSAFE));
    set(context::SYSCALL, trap::stub(trap::SYSCALL));
    page
}

/// VCPUOP_initialise.
pub fn initialise(id: u32, context: u64) -> i64 {
    hypercall3(nr::VCPU_OP, 0, id.into(), context)
}

/// VCPUOP_up.
pub fn up(id: u32) -> i64 {
    hypercall3(nr::VCPU_OP, 1, id.into(), 0)
}

/// VCPUOP_down; on the vCPU itself this returns when it is brought up again.
pub fn down(id: u32) -> i64 {
    hypercall3(nr::VCPU_OP, 2, id.into(), 0)
}

/// VCPUOP_is_up.
pub fn is_up(id: u32) -> i64 {
    hypercall3(nr::VCPU_OP, 3, id.into(), 0)
}

/// VCPUOP_stop_periodic_timer.
pub fn stop_tick(id: u32) -> i64 {
    vcpu_op(7, id.into(), &mut 0u64)
}

/// Gives up the processor for a moment.
pub fn relax() {
    let _ = hypercall2(nr::SCHED_OP, 0, 0);
}

/// Waits until `word` is at least `value`, at most five seconds; true when it came to be.
pub fn wait(word: &AtomicU64, value: u64) -> bool {
    let start = crate::time::now();
    while word.load(SeqCst) < value {
        if crate::time::now() - start > 5_000_000_000 {
            return false;
        }
        relax();
    }
    true
}
