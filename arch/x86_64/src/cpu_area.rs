// SPDX-License-Identifier: MIT OR Apache-2.0
//! The per-CPU area: stacks, the register frame of the interrupted guest, and per-CPU data.
//!
//! Every CPU has [`layout::CPU_STRIDE`] bytes of linear space, aligned to that size:
//!
//! | offset | what |
//! | --- | --- |
//! | 0x00000 | code stubs for SYSCALL, read-only and executable |
//! | 0x02000 | NMI stack, 8 KiB |
//! | 0x05000 | machine-check stack, 8 KiB |
//! | 0x08000 | double-fault stack, 8 KiB |
//! | 0x0b000 | debug-exception stack, 8 KiB |
//! | 0x20000 | main stack, 128 KiB, with [`CpuArea`] at its very top |
//!
//! The rest is unmapped and catches overflows. [`area`] finds the struct from the stack pointer, whichever of
//! the stacks is in use. Fields are atomics because interrupts and other CPUs read some of them; those that
//! only their own CPU touches use relaxed loads and stores, which are plain moves.
#![expect(unsafe_code, reason = "finds the per-CPU area from the stack pointer")]

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};

use arch_types::{CpuId, IdleClock, Regs};

use crate::layout;

/// Offset of the NMI stack's end.
pub const NMI_STACK_END: u64 = 0x4000;
/// Offset of the machine-check stack's end.
pub const MCE_STACK_END: u64 = 0x7000;
/// Offset of the double-fault stack's end.
pub const DF_STACK_END: u64 = 0xa000;
/// Offset of the debug stack's end.
pub const DB_STACK_END: u64 = 0xd000;
/// Offset of the main stack's start.
pub const STACK_START: u64 = 0x2_0000;

/// What a CPU keeps at the top of its stack. The entry stubs know the first fields' offsets.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct CpuArea {
    align: u64,
    /// Registers of the guest that was interrupted; its end is where the CPU starts to push.
    pub regs: UnsafeCell<Regs>,
    /// What must be done before the next return to a guest; see `cpu::Work`.
    pub work: AtomicU32,
    /// 1 while the current vCPU is in (virtual) kernel mode, 0 in user mode.
    pub kernel_mode: AtomicU32,
    /// The current vCPU's `vcpu_info`, in the direct map; a dummy when there is none.
    pub vcpu_info: AtomicUsize,
    /// The hypervisor's object for the current vCPU, 0 when idle.
    pub vcpu: AtomicUsize,
    /// Value of CR3 for the current vCPU's kernel mode.
    pub cr3_kernel: AtomicU64,
    /// Value of CR3 for the current vCPU's user mode, 0 when it has none.
    pub cr3_user: AtomicU64,
    /// CR3 while this idle CPU lingers in the address space of the vCPU it ran last, else 0; see `Context::save`.
    pub lingers: AtomicU64,
    /// This CPU's number.
    pub cpu: AtomicU16,
    /// Not 0 while the hypervisor must see the current vCPU's next `iret` hypercall itself.
    pub watch_iret: AtomicU32,
    /// Flags that frames show of the current vCPU beside its real ones.
    pub shown_flags: AtomicU32,
    /// A word for the entry stubs.
    pub scratch: AtomicU64,
    /// How many more units of work the running hypercall may do; see `cpu::preempt_pending`.
    pub budget: AtomicU32,
    /// Flush clock at this CPU's last full flush.
    pub flushed_at: AtomicU32,
    /// CR4 as loaded now.
    pub cr4: AtomicU64,
    /// APIC id.
    pub apic_id: AtomicU32,
    /// Nesting of NMI and machine-check handlers, to tell a second fault in a panic.
    pub panicking: AtomicU32,
    /// True while the CPU waits for work with interrupts on.
    pub in_idle: AtomicBool,
    /// XCR0 as loaded now.
    pub xcr0: AtomicU64,
    /// Absolute time for which the one-shot timer is programmed, `u64::MAX` for none.
    pub deadline: AtomicU64,
    /// The frame of its GDT page.
    pub gdt_frame: AtomicU64,
    /// Time spent idle.
    pub idle: IdleClock,
}

const _: () = assert!((core::mem::offset_of!(CpuArea, regs) + size_of::<Regs>()).is_multiple_of(16));
const _: () = assert!(size_of::<CpuArea>().is_multiple_of(16));

/// Returns the start of a CPU's area.
pub const fn base(cpu: CpuId) -> u64 {
    layout::CPU_AREAS + cpu.0 as u64 * layout::CPU_STRIDE
}

/// Returns where a CPU's [`CpuArea`] lies.
pub const fn of(cpu: CpuId) -> u64 {
    base(cpu) + layout::CPU_STRIDE - size_of::<CpuArea>() as u64
}

/// Bytes of a main stack, [`CpuArea`] included.
pub const STACK_BYTES: u64 = layout::CPU_STRIDE - STACK_START;

/// Returns how many bytes of its main stack a running CPU has ever used: below lies nothing but the zeros of its making.
pub fn deepest_stack(cpu: CpuId) -> u64 {
    let stack = base(cpu) + STACK_START..base(cpu) + layout::CPU_STRIDE;
    // SAFETY: the stack of a CPU that runs is mapped for ever; a word that its CPU is writing reads as anything.
    let used = |at: &u64| unsafe { (*at as *const u64).read_volatile() } != 0;
    let lowest = stack.clone().step_by(8).find(used);
    lowest.map_or(0, |lowest| stack.end - lowest)
}

/// Returns this CPU's area.
#[inline(always)]
pub fn area() -> &'static CpuArea {
    let rsp: u64;
    // SAFETY: reads a register. Not quite `pure`, but all values that RSP has within one function lie in one area.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(pure, nomem, nostack, preserves_flags)) };
    let top = (rsp | (layout::CPU_STRIDE - 1)).wrapping_sub(size_of::<CpuArea>() as u64 - 1);
    // SAFETY: all stacks that Rust code runs on, after `cpu::init`, lie in a CPU's area, which is mapped for
    // ever and zeroed (a valid CpuArea); everything but `regs` is atomic, and `regs` is only touched through the
    // exclusive pointer that the entry stubs pass.
    unsafe { &*(top as *const CpuArea) }
}
