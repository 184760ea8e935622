// SPDX-License-Identifier: MIT OR Apache-2.0
//! Binds the entry assembly to Rust: offsets, vectors, and the calls it makes.
//!
//! The binary provides the `xenith_*` functions that the assembly calls:
//! `xenith_guest_exception(&mut Regs)`, `xenith_kernel_write_fault(&mut Regs)`, `xenith_interrupt(&mut Regs)` and
//! `xenith_exit_work(&mut Regs)`; and with frames in which rbx, rbp and r12 to r15 are not valid, because most calls never
//! look at them: `xenith_hypercall(&mut Regs)`, `xenith_hypercall_again(&mut Regs)`, `xenith_guest_syscall(&mut Regs)`,
//! `xenith_page_fault(&mut Regs) -> bool` (false: it wants a whole frame) and `xenith_event(&mut Regs)`. Further
//! `XENITH_HANDLERS`: by number, what runs a hypercall with its arguments in registers, null where `xenith_hypercall` does it.
#![expect(unsafe_code, reason = "entry points in assembly, and the code generated for each CPU")]

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use arch_types::{CpuId, Regs};
use hypercalls::{GuestVa, HypercallNr};

use crate::cpu::BUDGET;
use crate::cpu_area::{self, CpuArea, area};
use crate::descriptors::{RING3_CS32, RING3_CS64, RING3_SS};
use crate::{fixup, layout, msr};

/// `Regs::vector` of a SYSCALL from 64-bit code; a frame that says so may be left by SYSRET, so whoever wants rcx and
/// r11 restored changes it.
pub const VECTOR_SYSCALL: u32 = 0x100;
/// `Regs::vector` of a SYSENTER.
pub const VECTOR_SYSENTER: u32 = 0x101;
/// `Regs::vector` of a SYSCALL from 32-bit code.
pub const VECTOR_SYSCALL32: u32 = 0x102;

/// RFLAGS that a guest does not choose: its I/O privilege, and virtual-8086 mode.
const IOPL: i32 = 3 << 12;
const VM: i32 = 1 << 17;

const REGS: usize = offset_of!(CpuArea, regs);

global_asm!(
    include_str!("entry_macros.S"),
    include_str!("entry.S"),
    ring3_ss = const RING3_SS,
    ring3_cs64 = const RING3_CS64,
    ring3_cs32 = const RING3_CS32,
    vector_syscall = const VECTOR_SYSCALL,
    vector_sysenter = const VECTOR_SYSENTER,
    vector_syscall32 = const VECTOR_SYSCALL32,
    kernel_mode = const offset_of!(CpuArea, kernel_mode) - REGS,
    work = const offset_of!(CpuArea, work) - REGS,
    vcpu_info = const offset_of!(CpuArea, vcpu_info) - REGS,
    vcpu = const offset_of!(CpuArea, vcpu) - REGS,
    cr3_user = const offset_of!(CpuArea, cr3_user) - REGS,
    budget = const offset_of!(CpuArea, budget) - REGS,
    watch_iret = const offset_of!(CpuArea, watch_iret) - REGS,
    scratch = const offset_of!(CpuArea, scratch) - REGS,
    full_budget = const BUDGET,
    handlers = const HypercallNr::COUNT,
    iret = const HypercallNr::IRET.0,
    iret_keeps = const !(IOPL | VM),
    rsp_at = const offset_of!(Regs, rsp),
    error_code_at = const offset_of!(Regs, error_code),
    rax = const offset_of!(Regs, rax),
    cs = const offset_of!(Regs, cs),
    rip = const offset_of!(Regs, rip),
    vector = const offset_of!(Regs, vector),
    rbx = const offset_of!(Regs, rbx),
    rbp = const offset_of!(Regs, rbp),
    r12 = const offset_of!(Regs, r12),
    r13 = const offset_of!(Regs, r13),
    r14 = const offset_of!(Regs, r14),
    r15 = const offset_of!(Regs, r15),
    regs_offset = const REGS,
    regs_size = const size_of::<Regs>(),
    regs_words = const size_of::<Regs>() / 8,
    area_size = const size_of::<CpuArea>(),
    stride_mask = const layout::CPU_STRIDE - 1,
);

unsafe extern "C" {
    fn xenith_entry_syscall();
    fn xenith_entry_syscall32();
    fn xenith_entry_sysenter();
    fn xenith_start_running(frame_end: u64) -> !;
    static xenith_stubs: [u8; 16];
    static xenith_iret_to_guest: u8;
    static xenith_kernel_iret_to_guest: u8;
    static xenith_user_iret_to_guest: u8;
    fn idle_wait();
    fn idle_pass();
}

/// Returns the address of a vector's stub.
pub(crate) fn stub(vector: u8) -> u64 {
    (&raw const xenith_stubs) as u64 + u64::from(vector) * 16
}

/// Writes a CPU's SYSCALL stubs: `mov [frame.rsp], rsp; lea rsp, [frame.rsp]; jmp entry`, twice.
///
/// # Safety
/// `page` must be the writable alias of the page that will be mapped executable at the start of the CPU's area.
pub(crate) unsafe fn write_stubs(page: *mut u8, cpu: CpuId) {
    let slot = cpu_area::of(cpu) + REGS as u64 + offset_of!(Regs, rsp) as u64;
    let entries = [xenith_entry_syscall as *const () as u64, xenith_entry_syscall32 as *const () as u64];
    for (n, entry) in entries.into_iter().enumerate() {
        let at = cpu_area::base(cpu) + 32 * n as u64;
        let rel = |end: u64, target: u64| (target.wrapping_sub(at + end) as u32).to_le_bytes();
        let mut code = [0x90u8; 19];
        code[..3].copy_from_slice(&[0x48, 0x89, 0x25]);
        code[3..7].copy_from_slice(&rel(7, slot));
        code[7..10].copy_from_slice(&[0x48, 0x8d, 0x25]);
        code[10..14].copy_from_slice(&rel(14, slot));
        code[14] = 0xe9;
        code[15..].copy_from_slice(&rel(19, entry));
        // SAFETY: the caller gave a whole page; 32 + 19 bytes fit it.
        unsafe { core::ptr::copy_nonoverlapping(code.as_ptr(), page.add(32 * n), code.len()) };
    }
}

/// Points this CPU's SYSCALL and SYSENTER registers at its stubs.
pub(crate) fn init_msrs(cpu: CpuId, sysenter: bool) {
    // SYSCALL loads CS and SS from bits 47:32, SYSRET from bits 63:48 (plus 16 and 8): SDM volume 2, SYSRET.
    msr::write(msr::STAR, 0xe023 << 48 | 0xe008 << 32);
    msr::write(msr::LSTAR, cpu_area::base(cpu));
    msr::write(msr::CSTAR, cpu_area::base(cpu) + 32);
    // NT, IOPL, DF, IF, TF, AC, RF, VM.
    msr::write(msr::SFMASK, 0x0003_7700 | 1 << 18);
    if sysenter {
        msr::write(msr::SYSENTER_CS, 0xe008);
        msr::write(msr::SYSENTER_ESP, cpu_area::of(cpu) + (REGS + size_of::<Regs>()) as u64);
        msr::write(msr::SYSENTER_EIP, xenith_entry_sysenter as *const () as u64);
    }
}

/// Leaves the boot path for good: returns to the guest in this CPU's frame after doing what work there is.
pub fn start_running() -> ! {
    let end = core::ptr::from_ref(area()) as u64 + (REGS + size_of::<Regs>()) as u64;
    // SAFETY: `end` is the end of this CPU's frame on its main stack; nothing on the stack is needed any more.
    unsafe { xenith_start_running(end) }
}

/// Waits, with interrupts on, until one has been handled. Interrupts are off again on return.
pub fn wait_for_interrupt() {
    // SAFETY: the routine touches nothing but the interrupt flag; handlers that run are written for it.
    unsafe { idle_wait() }
}

/// Takes the interrupts that are waiting, if there are any. Interrupts are off again on return.
pub fn take_interrupts() {
    // SAFETY: as in `wait_for_interrupt`.
    unsafe { idle_pass() }
}

/// What to do after a fault in the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AfterFault {
    /// Go on where the fault happened, or at the recovery address.
    Resume = 0,
    /// The frame at the top of the main stack is a guest to return to.
    ToGuest = 1,
}

/// Repairs a fault taken with CPL 0 if it is one of those that are expected.
///
/// A guest access jumps to its recovery; a fault of the IRETQ that returns to a guest becomes that guest's own
/// exception, with the registers that were about to be loaded. `None` when it is neither.
pub fn recover(frame: &mut Regs) -> Option<AfterFault> {
    let returns = [
        (&raw const xenith_iret_to_guest) as u64,
        (&raw const xenith_kernel_iret_to_guest) as u64,
        (&raw const xenith_user_iret_to_guest) as u64,
    ];
    if returns.contains(&frame.rip) {
        // The general registers are live in `frame`; rip, cs, rflags, rsp and ss still lie in the guest's frame.
        let live = *frame;
        // SAFETY: this CPU's main-stack frame; the return path that owned it was abandoned by the fault.
        let guest = unsafe { &mut *area().regs.get() };
        let (rip, cs, rflags, rsp, ss) = (guest.rip, guest.cs, guest.rflags, guest.rsp, guest.ss);
        *guest = Regs { rip, cs, rflags, rsp, ss, ..live };
        return Some(AfterFault::ToGuest);
    }
    frame.rip = fixup::recovery(frame.rip)?;
    Some(AfterFault::Resume)
}

/// Exchanges the two GS bases: the guest's kernel and user ones.
#[inline(always)]
pub(crate) fn swapgs() {
    // SAFETY: the hypervisor does not use GS; both bases are the guest's.
    unsafe { asm!("swapgs", options(nomem, nostack, preserves_flags)) };
}

/// Makes a frame return by IRETQ, restoring rcx and r11.
#[inline(always)]
pub fn want_iret(regs: &mut Regs) {
    regs.vector = 0;
}

/// True when a guest may put this address into RIP.
#[inline(always)]
pub const fn rip_ok(rip: GuestVa) -> bool {
    rip.is_canonical()
}
