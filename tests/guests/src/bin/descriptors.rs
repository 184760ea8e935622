// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks descriptor tables: frames of the guest become its GDT, or lazily its LDT, when all their descriptors are ones a
//! guest may have, and the CPU then uses them.
//!
//! Present descriptors are code or data of privilege level 3 (lower ones are raised, in the guest's memory too); gates and
//! system segments are refused. A descriptor page can be read and not be written, other than by `update_descriptor`. The
//! LDT's pages are taken when a selector first needs them; one that cannot be is a page fault at its place in the LDT.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{self, mmuext, nr, pte};
use pv::hypercall::*;
use pv::trap::Frame;
use pv::{check, equal, errno, events, mem, probe, user};

pv::guest!(main);

/// A flat data segment with DPL 0, present, accessed.
const DATA0: u64 = 0x00cf_9300_0000_ffff;
/// The same with DPL 3.
const DATA3: u64 = 0x00cf_f300_0000_ffff;
/// A flat 64-bit code segment, DPL 3.
const CODE3: u64 = 0x00af_fb00_0000_ffff;
/// DPL field of the second word.
const DPL: u64 = 3 << 45;
/// Present bit.
const PRESENT: u64 = 1 << 47;

/// A data segment at a base below 4 GiB.
const fn data_at(base: u64) -> u64 {
    DATA3 | (base & 0xff_ffff) << 16 | (base >> 24) << 56
}

fn set_gdt(frames: &[u64], entries: u64) -> i64 {
    hypercall2(nr::SET_GDT, frames.as_ptr() as u64, entries)
}

fn main() {
    let space = user::build();
    reserved();
    let gdt = global(&space);
    updates(gdt);
    loads(gdt);
    bad_pages();
    local(&space);
    empty(gdt);
}

/// The hypervisor's own part of every GDT.
fn reserved() {
    for selector in [abi::FLAT_CS32, abi::FLAT_SS, abi::FLAT_CS64] {
        let limit: u64;
        // SAFETY: reads a segment's limit.
        unsafe { core::arch::asm!("xor {l:e}, {l:e}", "lsl {l:e}, {s:e}", l = out(reg) limit, s = in(reg) selector) };
        equal!(["flat-{selector:#x}-limit"], limit, 0xffff_ffff);
    }
    let frame = probe!("mov ds, {s:e}", "mov {s:e}, 0", "mov ds, {s:e}"; s = inout(reg) abi::FLAT_SS => _);
    check!("flat-data-loads", frame.is_none(), "{frame:x?}");
    let frame = probe!("mov fs, eax"; in("eax") 0xb);
    check!("empty-gdt", frame.is_some_and(|f| f.vector == 13 && f.error == 8), "{frame:x?}");
}

fn global(space: &user::Space) -> u64 {
    let gdt = mem::alloc();
    let entries = [0, DATA0, CODE3, data_at(user::DATA), DATA3 & !PRESENT, 0];
    for (i, value) in entries.iter().enumerate() {
        mem::entry(gdt, i).store(*value, SeqCst);
    }
    let frames = [mem::mfn(gdt)];
    errno!("set-gdt-writable-page", set_gdt(&frames, 16), EINVAL);
    mem::make_ro(gdt);
    errno!("set-gdt", set_gdt(&frames, 16), 0);
    errno!("gdt-page-not-writable", update_va_mapping(gdt, mem::reference(gdt, pte::KERNEL_RW), 2), EBUSY);
    errno!("gdt-page-no-table", mmuext_op(mmuext::PIN_L1, mem::mfn(gdt), 0), EINVAL);
    equal!("dpl-raised", mem::entry(gdt, 1).load(SeqCst) & DPL, DPL);
    errno!("set-gdt-too-long", set_gdt(&[frames[0]; 16], 7169), EINVAL);
    errno!("set-gdt-no-frame", set_gdt(&[0xff_ffff_ffff], 16), EINVAL);
    errno!("set-gdt-bad-pointer", hypercall2(nr::SET_GDT, user::NOWHERE, 16), EFAULT);
    mem::entry(space.data, 0).store(0x1122, SeqCst);
    gdt
}

fn update(gdt: u64, index: u64, value: u64) -> i64 {
    hypercall2(nr::UPDATE_DESCRIPTOR, mem::maddr(gdt) + 8 * index, value)
}

fn updates(gdt: u64) {
    errno!("update", update(gdt, 5, data_at(user::DATA + 4096)), 0);
    equal!("update-stored", mem::entry(gdt, 5).load(SeqCst) | 1 << 40, data_at(user::DATA + 4096));
    errno!("update-dpl-0", update(gdt, 6, DATA0), 0);
    equal!("update-dpl-raised", mem::entry(gdt, 6).load(SeqCst) & DPL, DPL);
    errno!("update-not-present", update(gdt, 7, 0x1234), 0);
    let gate = 0x0000_ee00_e033_0000;
    let bad = [("interrupt-gate", gate), ("tss", 0x0000_e900_0000_0067), ("ldt", 0x0000_e200_0000_0fff)];
    for (name, value) in bad {
        errno!(["update-{name}"], update(gdt, 8, value), EINVAL);
    }
    equal!("update-refused-unchanged", mem::entry(gdt, 8).load(SeqCst), 0);
    // A call gate may be refused or made useless: the guest must not be able to call through it.
    if update(gdt, 8, 0x0000_ec00_e033_0000) == 0 {
        equal!("call-gate-closed", mem::entry(gdt, 8).load(SeqCst) & DPL, 0);
        errno!("call-gate-cleared", update(gdt, 8, 0), 0);
    }
    errno!("update-unaligned", hypercall2(nr::UPDATE_DESCRIPTOR, mem::maddr(gdt) + 4, DATA3), EINVAL);
    errno!("update-no-frame", hypercall2(nr::UPDATE_DESCRIPTOR, 0xff_ffff_ffff_f000, DATA3), EINVAL);
    let page = mem::alloc();
    errno!("update-ordinary-page", update(page, 3, DATA3), 0);
    equal!("update-ordinary-page-stored", mem::entry(page, 3).load(SeqCst), DATA3);
    errno!("update-page-table", hypercall2(nr::UPDATE_DESCRIPTOR, mem::maddr(mem::l4()) + 8 * 300, DATA3), EINVAL);
    let frame = probe!("mov [{p}], {v}"; p = in(reg) gdt + 8, v = in(reg) 0u64);
    check!("gdt-write-faults", frame.is_some_and(|f| f.vector == 14 && f.error == 3), "{frame:x?}");
}

/// Loads a selector into FS and reads the word at its base.
fn through_fs(selector: u64) -> Result<u64, Frame> {
    let mut value = 0;
    let frame = probe!("mov fs, {s:e}", "mov {v}, fs:[0]"; s = in(reg) selector, v = inout(reg) value);
    let _ = probe!("mov fs, {s:e}"; s = in(reg) 0);
    frame.map_or(Ok(value), Err)
}

fn loads(gdt: u64) {
    let at_base = through_fs(3 << 3 | 3);
    check!("segment-base-used", at_base.is_ok_and(|value| value == 0x1122), "{at_base:x?}");
    let rpl0 = through_fs(3 << 3);
    check!("rpl-0-selector", rpl0.is_ok_and(|value| value == 0x1122), "{rpl0:x?}");
    let absent = through_fs(4 << 3 | 3);
    check!("not-present", absent.is_err_and(|f| f.vector == 11 && f.error == 4 << 3), "{absent:x?}");
    let frame = probe!("mov ss, {s:e}"; s = in(reg) 4 << 3 | 3);
    check!("not-present-stack", frame.is_some_and(|f| f.vector == 12 && f.error == 4 << 3), "{frame:x?}");
    let beyond = through_fs(511 << 3 | 3);
    check!("empty-entry", beyond.is_err(), "{beyond:x?}");
    let frame = probe!("mov {t}, rsp", "push {ss}", "push {t}", "push 0x2", "push {cs}", "lea {t}, [rip + 77f]",
        "push {t}", "push 0", "push rcx", "push r11", "push rax", "mov eax, 23", "syscall", "77:", "ud2";
        cs = in(reg) 2u64 << 3, ss = in(reg) abi::FLAT_SS, t = out(reg) _,
        out("rax") _, out("rcx") _, out("r11") _);
    check!("own-code-segment", frame.is_some_and(|f| f.vector == 6 && f.cs() == 2 << 3), "{frame:x?}");
    let frame = probe!("mov ss, {s:e}", "ud2"; s = in(reg) 1 << 3 | 3);
    check!("own-stack-segment", frame.is_some_and(|f| f.vector == 6 && f.ss & !3 == 1 << 3), "{frame:x?}");
    errno!("change-base", update(gdt, 3, data_at(user::DATA + 8)), 0);
    mem::entry(user::DATA, 1).store(0x3344, SeqCst);
    let moved = through_fs(3 << 3 | 3);
    check!("changed-base-used", moved.is_ok_and(|value| value == 0x3344), "{moved:x?}");
}

/// Whole pages with one bad descriptor are refused, and stay usable.
fn bad_pages() {
    for (name, value) in [("interrupt-gate", 0x0000_ee00_e033_0000u64), ("tss", 0x0000_8900_0000_0067)] {
        let page = mem::alloc();
        mem::entry(page, 1).store(DATA3, SeqCst);
        mem::entry(page, 100).store(value, SeqCst);
        mem::make_ro(page);
        errno!(["page-with-{name}"], set_gdt(&[mem::mfn(page)], 512), EINVAL);
        errno!(["page-with-{name}-free"], update_va_mapping(page, mem::reference(page, pte::KERNEL_RW), 2), 0);
    }
    let still = through_fs(3 << 3 | 3);
    check!("old-gdt-still-there", still.is_ok_and(|value| value == 0x3344), "{still:x?}");
}

fn set_ldt(base: u64, entries: u64) -> i64 {
    mmuext_op(mmuext::SET_LDT, base, entries)
}

/// Selectors with the table bit.
const fn ldt_selector(index: u64) -> u64 {
    index << 3 | 7
}

fn local(space: &user::Space) {
    let ldt = mem::alloc_contiguous(2);
    mem::entry(ldt, 1).store(data_at(user::DATA), SeqCst);
    mem::entry(ldt, 512).store(data_at(user::DATA + 8), SeqCst);
    mem::entry(space.data, 0).store(0x5566, SeqCst);
    errno!("set-ldt-unaligned", set_ldt(ldt + 8, 16), EINVAL);
    errno!("set-ldt-too-long", set_ldt(ldt, 8193), EINVAL);
    errno!("set-ldt", set_ldt(ldt, 1024), 0);
    let writable = through_fs(ldt_selector(1));
    let right = writable.is_err_and(|f| f.vector == 14 && f.error & !1 == 0) && events::cr2() == ldt + 8;
    check!("ldt-writable-page-faults", right, "cr2 {:#x} {writable:x?}", events::cr2());
    mem::make_ro(ldt);
    mem::make_ro(ldt + mem::PAGE);
    for (index, value) in [(1, 0x5566), (512, 0x3344)] {
        let got = through_fs(ldt_selector(index));
        check!(["ldt-entry-{index}"], got.is_ok_and(|got| got == value), "{got:x?}");
    }
    let beyond = through_fs(ldt_selector(1024));
    let right = beyond.is_err_and(|f| f.vector == 13 && u64::from(f.error) == ldt_selector(1024) & !3);
    check!("ldt-beyond-limit", right, "{beyond:x?}");
    errno!("ldt-page-not-writable", update_va_mapping(ldt, mem::reference(ldt, pte::KERNEL_RW), 2), EBUSY);
    errno!("ldt-update", update(ldt, 2, data_at(user::DATA + 8)), 0);
    let updated = through_fs(ldt_selector(2));
    check!("ldt-update-used", updated.is_ok_and(|value| value == 0x3344), "{updated:x?}");
    errno!("ldt-set-none", set_ldt(0, 0), 0);
    errno!("ldt-page-writable-again", update_va_mapping(ldt, mem::reference(ldt, pte::KERNEL_RW), 2), 0);
    let gone = through_fs(ldt_selector(1));
    check!("ldt-gone", gone.is_err_and(|f| f.vector == 13), "{gone:x?}");
    errno!("ldt-unmapped", set_ldt(user::NOWHERE & !0xfff, 16), 0);
    let unmapped = through_fs(ldt_selector(1));
    let right = unmapped.is_err_and(|f| f.vector == 14) && events::cr2() == (user::NOWHERE & !0xfff) + 8;
    check!("ldt-unmapped-faults", right, "cr2 {:#x} {unmapped:x?}", events::cr2());
    errno!("ldt-set-none-again", set_ldt(0, 0), 0);
    user_selector(space);
}

pv::user_code!(user_gs, "mov rax, gs:[0]", "mov ebx, gs", "int3");

/// The user GS selector, set by hypercall.
fn user_selector(space: &user::Space) {
    mem::entry(space.data, 1).store(0x7788, SeqCst);
    errno!("gs-user-selector", hypercall2(nr::SET_SEGMENT_BASE, 3, 3 << 3 | 3), 0);
    let end = user::run(&user::frame(user_gs()));
    check!("gs-user-selector-used", end.vector == 3 && end.rax == 0x7788 && end.rbx & 0xffff == 0x1b, "{end:x?}");
    let _ = probe!("mov gs, {s:e}"; s = in(reg) 0);
}

fn empty(gdt: u64) {
    errno!("gdt-none", set_gdt(&[], 0), 0);
    errno!("gdt-page-writable-again", update_va_mapping(gdt, mem::reference(gdt, pte::KERNEL_RW), 2), 0);
    let gone = through_fs(3 << 3 | 3);
    check!("gdt-gone", gone.is_err_and(|f| f.vector == 13), "{gone:x?}");
}
