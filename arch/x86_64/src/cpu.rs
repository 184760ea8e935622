// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPUs: bringing one into the hypervisor's own state, and the work that is waiting for it.
#![expect(unsafe_code, reason = "control registers, and the areas of other CPUs")]

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use arch_types::{AtomicCpuMask, CpuId, CpuMask, CpuState};
use hypercalls::{Maddr, Mfn};

use crate::cpu_area::{self, CpuArea, area};
use crate::descriptors::{self, GdtPage};
use crate::paging::{self, NoTables, TableAlloc};
use crate::platform::{VECTOR_RESCHEDULE, VECTOR_TLB, apic};
use crate::{entry, features, fixup, layout, msr, phys, tlb};

static ONLINE: AtomicCpuMask = AtomicCpuMask::new();
static STARTED: AtomicBool = AtomicBool::new(false);

bitflags::bitflags! {
    /// What a CPU has to do before it returns to a guest.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Work: u32 {
        /// Choose again which vCPU runs.
        const SCHEDULE = 1;
        /// Look at the timers.
        const TIMER = 1 << 1;
        /// The current vCPU has something to be delivered, or must not go on.
        const VCPU = 1 << 2;
        /// Read the console.
        const CONSOLE = 1 << 3;
        /// Say that nothing found before is in use any more.
        const GRACE = 1 << 4;
        /// See whether a domain that has died is gone for good.
        const BURY = 1 << 5;
        /// Tell of what the machine has reported of itself.
        const HARDWARE = 1 << 6;
    }
}

/// PE, MP, ET, NE, WP, PG.
const CR0: u64 = 0x8001_0033;

/// Work units between two preemption checks that say "go on": bounds a hypercall's run with interrupts off.
pub(crate) const BUDGET: u32 = 512;

/// Page attributes by index: WB, WT, UC-, UC, WC, WP, UC, UC. The ABI fixes this value.
pub const PAT: u64 = 0x0501_0007_0406;

/// CR4 bits that are always on while Xenith runs, as far as the CPU has them.
fn cr4_base() -> u64 {
    let f = features::get();
    let mut cr4 = 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10;
    for (have, bit) in [(f.pge, 7), (f.umip, 11), (f.smep, 20), (f.smap, 21), (f.xsave, 18)] {
        if have {
            cr4 |= 1 << bit;
        }
    }
    cr4
}

/// Returns this CPU's number.
#[inline]
pub fn this_cpu() -> CpuId {
    CpuId(area().cpu.load(Ordering::Relaxed))
}

/// Returns a CPU's area.
///
/// # Panics
/// When the CPU was never brought up.
pub fn area_of(cpu: CpuId) -> &'static CpuArea {
    assert!(ONLINE.contains(cpu), "CPU {} was never brought up", cpu.0);
    // SAFETY: an online CPU's area is mapped for ever; see `cpu_area::area` for the sharing rules.
    unsafe { &*(cpu_area::of(cpu) as *const CpuArea) }
}

/// Returns the CPUs that run guests and take part in shootdowns.
pub fn online() -> CpuMask {
    ONLINE.load()
}

/// True once the boot CPU runs on its own area.
#[inline]
pub fn started() -> bool {
    STARTED.load(Ordering::Relaxed)
}

/// Gives a CPU work, with an interrupt if it is another one.
pub fn raise(cpu: CpuId, work: Work) {
    let before = area_of(cpu).work.fetch_or(work.bits(), Ordering::SeqCst);
    if cpu != this_cpu() && before & work.bits() != work.bits() {
        apic::send_ipi(area_of(cpu).apic_id.load(Ordering::Relaxed), VECTOR_RESCHEDULE);
    }
}

/// Gives this CPU work.
#[inline]
pub fn raise_here(work: Work) {
    area().work.fetch_or(work.bits(), Ordering::Relaxed);
}

/// Takes all work of this CPU.
#[inline]
pub fn take_work() -> Work {
    Work::from_bits_retain(area().work.swap(0, Ordering::SeqCst))
}

/// True when this CPU has work.
#[inline]
pub fn has_work() -> bool {
    area().work.load(Ordering::SeqCst) != 0
}

/// Returns for what time the one-shot timer is programmed, `u64::MAX` for none.
#[inline]
pub fn deadline() -> u64 {
    area().deadline.load(Ordering::Relaxed)
}

/// Notes for what time the one-shot timer is to be programmed (`u64::MAX`: none); false when it is already.
#[inline]
pub fn change_deadline(deadline: u64) -> bool {
    let noted = &area().deadline;
    let changed = noted.load(Ordering::Relaxed) != deadline;
    noted.store(deadline, Ordering::Relaxed);
    changed
}

/// Bytes of a CPU's stack.
pub const STACK_BYTES: u64 = cpu_area::STACK_BYTES;

/// Returns how many bytes of its stack a CPU has ever used; 0 for one that does not run.
pub fn deepest_stack(cpu: CpuId) -> u64 {
    if is_online(cpu) { cpu_area::deepest_stack(cpu) } else { 0 }
}

/// Notes that this CPU has nothing to do from now on.
pub fn enter_idle(now: u64) {
    area().idle.enter(now);
}

/// Notes that this CPU has something to do from now on.
#[inline]
pub fn leave_idle(now: u64) {
    area().idle.leave(now);
}

/// Returns how long a CPU has had nothing to do so far, in ns.
pub fn idle_time(cpu: CpuId, now: u64) -> u64 {
    area_of(cpu).idle.total(now)
}

/// Counts one unit of work; true when the call under way has done so many that it should stop at a continuation.
#[inline]
pub fn preempt_pending() -> bool {
    let left = area().budget.load(Ordering::Relaxed);
    if left == 0 {
        return true;
    }
    area().budget.store(left - 1, Ordering::Relaxed);
    false
}

/// Starts the work count of a call anew.
#[inline(always)]
pub fn reset_budget() {
    area().budget.store(BUDGET, Ordering::Relaxed);
}

/// Makes the branch predictor forget what it has learned here, where the CPU can: another domain's code runs next, which must
/// not steer this one's guesses, nor see them (IBPB).
#[inline]
pub fn forget_branches() {
    if features::get().ibpb {
        msr::write(msr::PRED_CMD, 1);
    }
}

/// Returns `index` if it is less than `len`, else 0, on the way too that a CPU takes which has guessed a bounds check wrong.
#[inline(always)]
pub fn bounded(index: usize, len: usize) -> usize {
    let within: usize;
    // SAFETY: computes a value from two others.
    unsafe {
        asm!("cmp {}, {}", "sbb {}, {2}", in(reg) index, in(reg) len, out(reg) within, options(pure, nomem, nostack));
    }
    index & within
}

/// Says whether the current vCPU's next `iret` hypercall is to be seen by its handler, whatever the entry code could do.
pub fn watch_iret(on: bool) {
    area().watch_iret.store(u32::from(on), Ordering::Relaxed);
}

/// Sets flags that frames show of the current vCPU beside its real ones.
pub fn show_flags(flags: u32) {
    area().shown_flags.store(flags, Ordering::Relaxed);
}

/// Returns the flags that frames show of the current vCPU beside its real ones.
#[inline(always)]
pub fn shown_flags() -> u32 {
    area().shown_flags.load(Ordering::Relaxed)
}

/// Returns what a CPU keeps, as seen from outside.
pub fn state(cpu: CpuId) -> CpuState {
    let area = area_of(cpu);
    CpuState {
        work: area.work.load(Ordering::Relaxed),
        flushed_at: area.flushed_at.load(Ordering::Relaxed),
        deadline: area.deadline.load(Ordering::Relaxed),
        apic_id: area.apic_id.load(Ordering::Relaxed),
    }
}

/// Interrupts a CPU whatever it is doing; its NMI handler must know what is meant.
pub fn send_nmi(cpu: CpuId) {
    apic::send_nmi(area_of(cpu).apic_id.load(Ordering::Relaxed));
}

/// Returns the number of a CPU's local APIC.
pub fn apic_id(cpu: CpuId) -> u32 {
    area_of(cpu).apic_id.load(Ordering::Relaxed)
}

/// Interrupts a CPU so that it looks at its work.
pub fn poke(cpu: CpuId) {
    apic::send_ipi(area_of(cpu).apic_id.load(Ordering::Relaxed), VECTOR_RESCHEDULE);
}

/// Interrupts this CPU when it next admits interrupts. May be called wherever the CPU was interrupted.
pub fn poke_here() {
    apic::send_to_self(VECTOR_RESCHEDULE);
}

pub(crate) fn send_shootdown(cpu: CpuId) {
    apic::send_ipi(area_of(cpu).apic_id.load(Ordering::Relaxed), VECTOR_TLB);
}

/// Returns where a CPU's GDT page is mapped (read-write: the CPU marks the TSS busy).
pub(crate) fn gdt_page_of(cpu: CpuId) -> *mut GdtPage {
    (cpu_area::base(cpu) + 0xf000) as *mut GdtPage
}

/// Returns the frame of a CPU's GDT page.
pub(crate) fn gdt_frame_of(cpu: CpuId) -> Mfn {
    Mfn(area_of(cpu).gdt_frame.load(Ordering::Relaxed))
}

/// Maps and fills a CPU's area.
///
/// # Errors
/// [`NoTables`] when `alloc` has nothing left.
pub fn create_area(cpu: CpuId, apic_id: u32, alloc: TableAlloc<'_>) -> Result<(), NoTables> {
    let base = cpu_area::base(cpu);
    let mut page = |offset: u64, flags| -> Result<Mfn, NoTables> {
        let frame = alloc().ok_or(NoTables)?;
        paging::map(base + offset, frame.maddr(), 4096, flags, alloc)?;
        Ok(frame)
    };
    let stub = page(0, paging::RX)?;
    // SAFETY: a fresh frame, reached through the direct map; nobody executes it yet.
    unsafe { entry::write_stubs(phys::frame_ptr(stub), cpu) };
    for end in [cpu_area::NMI_STACK_END, cpu_area::MCE_STACK_END, cpu_area::DF_STACK_END, cpu_area::DB_STACK_END] {
        page(end - 0x2000, paging::RW)?;
        page(end - 0x1000, paging::RW)?;
    }
    let gdt = page(0xf000, paging::RW)?;
    // SAFETY: a fresh frame of this CPU's.
    unsafe { descriptors::write_gdt_page(phys::frame_ptr(gdt).cast(), gdt_page_of(cpu) as u64, cpu) };
    let mut top = gdt;
    for offset in (cpu_area::STACK_START..layout::CPU_STRIDE).step_by(4096) {
        top = page(offset, paging::RW)?;
    }
    // SAFETY: the area lies within the last page of the stack, fresh and zeroed; zeros are a valid CpuArea.
    let new = unsafe { &*phys::frame_ptr(top).add(4096 - size_of::<CpuArea>()).cast::<CpuArea>() };
    new.cpu.store(cpu.0, Ordering::Relaxed);
    new.apic_id.store(apic_id, Ordering::Relaxed);
    new.gdt_frame.store(gdt.0, Ordering::Relaxed);
    new.deadline.store(u64::MAX, Ordering::Relaxed);
    new.vcpu_info.store(NO_VCPU_INFO.as_ptr() as usize, Ordering::Relaxed);
    Ok(())
}

/// What an idle CPU's `vcpu_info` pointer leads to: nothing pending, upcalls masked.
static NO_VCPU_INFO: [u8; 64] = {
    let mut info = [0; 64];
    info[1] = 1;
    info
};

/// Returns the event mask of the current vCPU; a dummy that reads 1 when there is none.
#[inline(always)]
pub fn event_mask() -> &'static AtomicU8 {
    // SAFETY: the word leads to the dummy or to a `vcpu_info` that stays as long as its vCPU is loaded; its second byte is
    // the mask, only accessed as an atomic. The dummy is never written: without a vCPU nobody asks.
    unsafe { &*((area().vcpu_info.load(Ordering::Relaxed) + 1) as *const AtomicU8) }
}

/// Points this CPU's exit path at a `vcpu_info`, or at nothing.
pub fn set_vcpu_info(info: Option<usize>) {
    area().vcpu_info.store(info.unwrap_or(NO_VCPU_INFO.as_ptr() as usize), Ordering::Relaxed);
}

/// Loads this CPU's tables, control registers and entry points. Runs on the CPU's own area.
fn init_registers() {
    let me = this_cpu();
    let f = features::get();
    descriptors::load_all(gdt_page_of(me) as u64);
    let cr4 = cr4_base();
    area().cr4.store(cr4, Ordering::Relaxed);
    // SAFETY: PE, MP, ET, NE, WP, PG: long mode with write protection, caches on, TS and EM clear; CR4 has only bits
    // that CPUID offers.
    unsafe {
        asm!("mov cr0, {}", in(reg) CR0, options(nostack, preserves_flags));
        asm!("mov cr4, {}", in(reg) cr4, options(nostack, preserves_flags));
    }
    // LME and LMA stay; SCE for SYSCALL, NXE where it exists.
    msr::write(msr::EFER, 0x501 | if f.nx { 0x800 } else { 0 });
    msr::write(msr::PAT, PAT);
    entry::init_msrs(me, f.sysenter);
    if f.xsave {
        crate::fpu::set_xcr0(f.xcr0);
    }
    tlb::load_cr3_flush_all(paging::root().maddr().0);
}

/// Moves the boot CPU onto the final page tables and its own area, and goes on at `next` there.
///
/// # Safety
/// Once, on the boot CPU, after `paging::init`, the mappings of image and direct map, and `create_area` of CPU 0.
pub unsafe fn enter_boot_cpu(next: extern "C" fn() -> !) -> ! {
    // SAFETY: the boot tables map the image writable, and no other CPU runs.
    unsafe { fixup::patch_smap() };
    let stack = cpu_area::of(CpuId(0)) - 64;
    // SAFETY: the final tables map everything in use (image, direct map); the stack is CPU 0's own, empty.
    unsafe {
        asm!("mov cr3, {cr3}", "mov rsp, {stack}", "xor ebp, ebp", "call {first}", "ud2",
             cr3 = in(reg) paging::root().maddr().0, stack = in(reg) stack & !15, first = sym first_steps,
             in("rdi") next as *const (), options(noreturn));
    }
}

extern "C" fn first_steps(next: extern "C" fn() -> !) -> ! {
    init_registers();
    ONLINE.insert(this_cpu());
    STARTED.store(true, Ordering::SeqCst);
    next()
}

/// Returns CR0 as guests run with it, but for TS.
pub const fn guest_cr0() -> u64 {
    CR0
}

/// Returns CR4 as the hypervisor chose it at boot.
pub fn host_cr4() -> u64 {
    cr4_base() | if features::get().fsgsbase { 1 << 16 } else { 0 }
}

/// Writes back and drops all caches of this CPU.
pub fn flush_cache() {
    // SAFETY: has no effect but on caches.
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// Moves an application processor from the boot page tables onto the final ones and its own area, and goes on at `next`.
///
/// # Safety
/// Once a CPU, on the CPU that `cpu` numbers, after its area was created, with the boot page tables mapping the image.
pub unsafe fn enter_application_cpu(cpu: CpuId, next: extern "C" fn() -> !) -> ! {
    let stack = cpu_area::of(cpu) - 64;
    // SAFETY: the final tables map everything in use; the stack is this CPU's own, empty.
    unsafe {
        asm!("mov cr3, {cr3}", "mov rsp, {stack}", "xor ebp, ebp", "call {first}", "ud2",
             cr3 = in(reg) paging::root().maddr().0, stack = in(reg) stack & !15, first = sym first_application_steps,
             in("rdi") next as *const (), options(noreturn));
    }
}

extern "C" fn first_application_steps(next: extern "C" fn() -> !) -> ! {
    init_registers();
    apic::init_cpu();
    ONLINE.insert(this_cpu());
    next()
}

/// True once a CPU has been brought up.
pub fn is_online(cpu: CpuId) -> bool {
    ONLINE.contains(cpu)
}

/// Returns CR3 of the hypervisor's own address space.
pub fn idle_cr3() -> Maddr {
    paging::root().maddr()
}
