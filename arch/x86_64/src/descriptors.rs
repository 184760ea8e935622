// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptor tables: each CPU's page of the GDT and its TSS, and the IDT that all share.
//!
//! A GDT is 16 pages: the guest's in pages 0 to 13, this CPU's page as page 14. While a vCPU runs, the table is the
//! vCPU's descriptor window; otherwise the CPU's page alone, at a base 14 pages below it, so that the selectors
//! are the same always.
#![expect(unsafe_code, reason = "LGDT, LIDT, LTR and writes to the CPU's own tables")]

use core::arch::asm;

use arch_types::CpuId;
use spin::Once;

use crate::cpu_area::{self, CpuArea};
use crate::entry;

/// The hypervisor's code segment.
pub const HYPERVISOR_CS: u16 = 0xe008;
/// The hypervisor's data segment.
pub const HYPERVISOR_DS: u16 = 0xe010;
/// Flat 32-bit code for guests.
pub const RING3_CS32: u16 = 0xe023;
/// Flat data for guests.
pub const RING3_SS: u16 = 0xe02b;
/// Flat 64-bit code for guests.
pub const RING3_CS64: u16 = 0xe033;
const TSS: u16 = 0xe040;
/// Selector of the current LDT.
pub(crate) const LDT: u16 = 0xe050;
/// First byte of the GDT that belongs to the hypervisor.
pub const RESERVED_BYTE: u64 = 0xe000;

/// The task-state segment: stacks for entries from ring 3 and for the vectors that have their own.
#[derive(Debug)]
#[repr(C, packed(4))]
struct TaskState {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_bitmap: u16,
}

/// A CPU's page 14 of the GDT, with the TSS behind the descriptors.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct GdtPage {
    descriptors: [u64; 16],
    tss: TaskState,
}

const fn system_descriptor(base: u64, limit: u32, kind: u8) -> [u64; 2] {
    let low = (limit as u64 & 0xffff)
        | (base & 0xff_ffff) << 16
        | (kind as u64) << 40
        | 1 << 47
        | ((limit as u64 >> 16) & 0xf) << 48
        | ((base >> 24) & 0xff) << 56;
    [low, base >> 32]
}

/// Fills a CPU's GDT page, which will be mapped at `page_va`.
///
/// # Safety
/// `page` is the writable alias of a page that is the CPU's alone.
pub(crate) unsafe fn write_gdt_page(page: *mut GdtPage, page_va: u64, cpu: CpuId) {
    let base = cpu_area::base(cpu);
    let tss_va = page_va + core::mem::offset_of!(GdtPage, tss) as u64;
    let [tss_low, tss_high] = system_descriptor(tss_va, size_of::<TaskState>() as u32 - 1, 9);
    let mut d = [0; 16];
    d[1] = 0x00af_9b00_0000_ffff;
    d[2] = 0x00cf_9300_0000_ffff;
    d[4] = 0x00cf_fb00_0000_ffff;
    d[5] = 0x00cf_f300_0000_ffff;
    d[6] = 0x00af_fb00_0000_ffff;
    d[8] = tss_low;
    d[9] = tss_high;
    let frame_end = cpu_area::of(cpu) + (core::mem::offset_of!(CpuArea, regs) + size_of::<arch_types::Regs>()) as u64;
    let tss = TaskState {
        reserved0: 0,
        rsp: [frame_end, 0, 0],
        reserved1: 0,
        ist: [
            base + cpu_area::NMI_STACK_END,
            base + cpu_area::MCE_STACK_END,
            base + cpu_area::DF_STACK_END,
            base + cpu_area::DB_STACK_END,
            0,
            0,
            0,
        ],
        reserved2: 0,
        reserved3: 0,
        io_bitmap: size_of::<TaskState>() as u16,
    };
    // SAFETY: the caller's promise.
    unsafe { page.write(GdtPage { descriptors: d, tss }) };
}

/// Sets the LDT descriptor of a CPU's GDT page and loads it; no entries unloads it.
pub(crate) fn load_ldt(gdt_page: *mut GdtPage, base: u64, entries: u32) {
    if entries == 0 {
        // SAFETY: a null LDT is always legal.
        unsafe { asm!("lldt {0:x}", in(reg) 0u16, options(nostack, preserves_flags)) };
        return;
    }
    let words = system_descriptor(base, entries * 8 - 1, 2);
    // SAFETY: the page is this CPU's own, and no other code writes descriptors 10 and 11.
    unsafe {
        (&raw mut (*gdt_page).descriptors[10]).write_volatile(words[0]);
        (&raw mut (*gdt_page).descriptors[11]).write_volatile(words[1]);
        asm!("lldt {0:x}", in(reg) LDT, options(nostack, preserves_flags));
    }
}

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// Makes the table at `base` the GDT; it has the hypervisor's page at its end.
pub(crate) fn load_gdt(base: u64) {
    let pointer = TablePointer { limit: (RESERVED_BYTE + 16 * 8 - 1) as u16, base };
    // SAFETY: `base` is a vCPU's window or lies 14 pages below a CPU's page; both map this CPU's descriptors, which
    // the segment registers in use refer to, at the same selectors.
    unsafe { asm!("lgdt [{}]", in(reg) &pointer, options(readonly, nostack, preserves_flags)) };
}

/// Loads the CPU's own GDT, its segment registers, its TSS and the IDT.
pub(crate) fn load_all(gdt_page_va: u64) {
    load_gdt(gdt_page_va - RESERVED_BYTE);
    // SAFETY: the selectors name the flat segments that `write_gdt_page` made; the far return reloads CS and goes on
    // behind it; LTR marks the TSS busy in this CPU's own page.
    unsafe {
        asm!(
            "push {cs}", "lea {tmp}, [rip + 2f]", "push {tmp}", "retfq", "2:",
            "mov ss, {ds:x}", "mov ds, {null:x}", "mov es, {null:x}", "mov fs, {null:x}", "mov gs, {null:x}",
            "ltr {tss:x}",
            cs = const HYPERVISOR_CS, tmp = out(reg) _, ds = in(reg) HYPERVISOR_DS, null = in(reg) 0u16,
            tss = in(reg) TSS,
        );
    }
    load_idt();
}

#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Gate([u64; 2]);

static IDT: Once<[Gate; 256]> = Once::new();

fn gate(vector: u8) -> Gate {
    let target = entry::stub(vector);
    let ist: u64 = match vector {
        2 => 1,
        18 => 2,
        8 => 3,
        1 => 4,
        _ => 0,
    };
    // INT3, INTO and INT 0x80 are the only ones that guests may raise by instruction without a #GP.
    let dpl: u64 = if matches!(vector, 3 | 4 | 0x80) { 3 } else { 0 };
    let low = (target & 0xffff)
        | u64::from(HYPERVISOR_CS) << 16
        | ist << 32
        | (0x8e | dpl << 5) << 40
        | (target >> 16 & 0xffff) << 48;
    Gate([low, target >> 32])
}

fn load_idt() {
    let table = IDT.call_once(|| core::array::from_fn(|v| gate(v as u8)));
    let pointer = TablePointer { limit: (size_of_val(table) - 1) as u16, base: table.as_ptr() as u64 };
    // SAFETY: the table is static and every gate leads to a stub.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(readonly, nostack, preserves_flags)) };
}
