// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks how frames become page tables and cease to be: by pins, by parents and as a vCPU's base.
//!
//! A table is accepted when every entry keeps the rules, with the tables below it, and is refused whole otherwise. It can be
//! pinned once, by its own level; it stays a table as long as a pin, a parent or a base register holds it, and is an ordinary
//! page again afterwards: a refused or undone call leaves no count behind.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{self, index, mmuext, pte};
use pv::hypercall::*;
use pv::{check, equal, errno, mem, start};

pv::guest!(main, init_p2m);

fn main() {
    pins();
    bad_tables();
    base_pointers();
    linear();
    sharing();
}

/// Maps a frame at `va` and reports; the mapping is put back.
fn map(va: u64, entry: u64) -> i64 {
    let result = update_va_mapping(va, entry, abi::UVMF_INVLPG);
    if result == 0 {
        mem::make_rw(va);
    }
    result
}

/// Pins once, and by the right level only.
fn pins() {
    let pin = [mmuext::PIN_L1, mmuext::PIN_L2, mmuext::PIN_L3, mmuext::PIN_L4];
    for (i, command) in pin.into_iter().enumerate() {
        let level = i + 1;
        let page = mem::alloc();
        let mfn = mem::mfn(page);
        errno!(["pin-l{level}-writable-page"], mmuext_op(command, mfn, 0), EINVAL);
        mem::make_ro(page);
        errno!(["pin-l{level}"], mmuext_op(command, mfn, 0), 0);
        errno!(["pin-l{level}-twice"], mmuext_op(command, mfn, 0), EINVAL);
        for (other, command) in pin.into_iter().enumerate().filter(|(other, _)| *other != i) {
            errno!(["pin-l{level}-as-l{}", other + 1], mmuext_op(command, mfn, 0), EINVAL);
        }
        errno!(["pinned-l{level}-writable"], update_va_mapping(page, mfn << 12 | pte::KERNEL_RW, 2), EBUSY);
        errno!(["unpin-l{level}"], mmuext_op(mmuext::UNPIN, mfn, 0), 0);
        errno!(["unpin-l{level}-twice"], mmuext_op(mmuext::UNPIN, mfn, 0), EINVAL);
        errno!(["unpinned-l{level}-writable"], update_va_mapping(page, mfn << 12 | pte::KERNEL_RW, 2), 0);
    }
    errno!("pin-no-frame", mmuext_op(mmuext::PIN_L1, 0xff_ffff_ffff, 0), EINVAL);
    errno!("pin-shared-info", mmuext_op(mmuext::PIN_L1, start::info().shared_info >> 12, 0), EINVAL);
    let page = mem::alloc();
    mem::make_ro(page);
    let command = |cmd| abi::MmuExt { cmd, arg1: mem::mfn(page), arg2: 0 };
    let (result, done) = mmuext(&[command(mmuext::PIN_L1), command(mmuext::PIN_L1), command(mmuext::UNPIN)]);
    check!("mmuext-stops-at-error", result == pv::Errno::EINVAL.to_ret() && done == 1, "{result} {done}");
    errno!("mmuext-unpin-after-stop", mmuext_op(mmuext::UNPIN, mem::mfn(page), 0), 0);
}

/// Tables with one bad entry are refused, and free again afterwards.
fn bad_tables() {
    let data = mem::alloc();
    let l1 = mem::table(|_| ());
    errno!("pin-helper-l1", mmuext_op(mmuext::PIN_L1, mem::mfn(l1), 0), 0);
    let cases = [
        ("l1-maps-table-writable", mmuext::PIN_L1, mem::reference(mem::l4(), pte::P | pte::RW)),
        ("l1-maps-l1-writable", mmuext::PIN_L1, mem::reference(l1, pte::P | pte::RW)),
        ("l1-maps-local-apic", mmuext::PIN_L1, 0xfee0_0000 | pte::P),
        ("l1-address-bits", mmuext::PIN_L1, mem::reference(data, pte::P) | 1 << 49),
        ("l2-large-page", mmuext::PIN_L2, pte::TABLE | pte::PSE),
        ("l2-to-data", mmuext::PIN_L2, mem::reference(data, pte::TABLE)),
        ("l3-to-l1", mmuext::PIN_L3, mem::reference(l1, pte::TABLE)),
        ("l3-large-page", mmuext::PIN_L3, pte::TABLE | pte::PSE),
        ("l4-to-l1", mmuext::PIN_L4, mem::reference(l1, pte::TABLE)),
    ];
    for (name, command, bad) in cases {
        let good = mem::reference(if command == mmuext::PIN_L2 { l1 } else { data }, pte::P | pte::U);
        let table = mem::table(|table| {
            if command <= mmuext::PIN_L2 {
                mem::entry(table, 0).store(good, SeqCst);
            }
            mem::entry(table, 100).store(bad, SeqCst);
        });
        let result = mmuext_op(command, mem::mfn(table), 0);
        check!(["{name}-refused"], result < 0, "got {result}");
        errno!(["{name}-free-again"], update_va_mapping(table, mem::reference(table, pte::KERNEL_RW), 2), 0);
    }
    errno!("unpin-helper-l1", mmuext_op(mmuext::UNPIN, mem::mfn(l1), 0), 0);
    errno!("helper-l1-free", update_va_mapping(l1, mem::reference(l1, pte::KERNEL_RW), 2), 0);
    errno!("data-free", mmuext_op(mmuext::CLEAR_PAGE, mem::mfn(data), 0), 0);
}

/// Base pointers take L4 tables only; a switch there and back works.
fn base_pointers() {
    let current = mem::mfn(mem::l4());
    errno!("baseptr-again", mmuext_op(mmuext::NEW_BASEPTR, current, 0), 0);
    let page = mem::alloc();
    errno!("baseptr-writable-page", mmuext_op(mmuext::NEW_BASEPTR, mem::mfn(page), 0), EINVAL);
    errno!("baseptr-l1", mmuext_op(mmuext::NEW_BASEPTR, mem::mfn(mem::l1_entry(page).table), 0), EINVAL);
    errno!("baseptr-no-frame", mmuext_op(mmuext::NEW_BASEPTR, 0xff_ffff_ffff, 0), EINVAL);
    let copy = mem::table(|table| {
        for i in (0..256).chain(272..512) {
            mem::entry(table, i).store(mem::entry(mem::l4(), i).load(SeqCst), SeqCst);
        }
    });
    errno!("baseptr-copy", mmuext_op(mmuext::NEW_BASEPTR, mem::mfn(copy), 0), 0);
    errno!("copy-in-use-unpin", mmuext_op(mmuext::UNPIN, mem::mfn(copy), 0), EINVAL);
    errno!("copy-in-use-writable", update_va_mapping(copy, mem::reference(copy, pte::KERNEL_RW), 2), EBUSY);
    errno!("baseptr-back", mmuext_op(mmuext::NEW_BASEPTR, current, 0), 0);
    errno!("copy-writable-again", update_va_mapping(copy, mem::reference(copy, pte::KERNEL_RW), 2), 0);
    errno!("user-baseptr-l1", mmuext_op(mmuext::NEW_USER_BASEPTR, mem::mfn(mem::l1_entry(page).table), 0), EINVAL);
    errno!("user-baseptr-none", mmuext_op(mmuext::NEW_USER_BASEPTR, 0, 0), 0);
    mem::make_ro(page);
    errno!("user-baseptr", mmuext_op(mmuext::NEW_USER_BASEPTR, mem::mfn(page), 0), 0);
    errno!("user-l4-writable", update_va_mapping(page, mem::reference(page, pte::KERNEL_RW), 2), EBUSY);
    errno!("user-baseptr-none-again", mmuext_op(mmuext::NEW_USER_BASEPTR, 0, 0), 0);
    errno!("user-l4-free", update_va_mapping(page, mem::reference(page, pte::KERNEL_RW), 2), 0);
    let cr3: u64;
    // SAFETY: an emulated read.
    unsafe { core::arch::asm!("mov {}, cr3", out(reg) cr3) };
    equal!("cr3-reads-kernel-l4", cr3, current << 12);
}

/// A table may show itself only read-only, and only if the hypervisor supports linear tables at all.
fn linear() {
    let l4 = mem::maddr(mem::l4());
    let slot = 300;
    let itself = mem::reference(mem::l4(), pte::P | pte::U | pte::A | pte::D);
    errno!("linear-l4-writable", set_entry(l4 + 8 * slot, itself | pte::RW), EINVAL);
    if set_entry(l4 + 8 * slot, itself) != 0 {
        return pv::report::skip("linear-l4", "linear page tables are not supported");
    }
    let window = 0xffff_0000_0000_0000 | slot << 39 | slot << 30 | slot << 21 | slot << 12;
    equal!("linear-l4-shows-itself", mem::entry(window, slot as usize).load(SeqCst) & pte::ADDR, itself & pte::ADDR);
    let frame = pv::probe!("mov [{p}], rax"; p = in(reg) window);
    check!("linear-l4-read-only", frame.is_some_and(|f| f.vector == 14 && f.error == 3), "{frame:x?}");
    errno!("linear-l4-clear", set_entry(l4 + 8 * slot, 0), 0);
}

/// Tables may be shared: two parents, many read-only mappings, pins and parents together.
fn sharing() {
    let l1 = mem::table(|_| ());
    let parents = [0, 1].map(|_| mem::table(|t| mem::entry(t, 5).store(mem::reference(l1, pte::TABLE), SeqCst)));
    for parent in parents {
        errno!("share-pin-parent", mmuext_op(mmuext::PIN_L2, mem::mfn(parent), 0), 0);
    }
    errno!("share-pin-child", mmuext_op(mmuext::PIN_L1, mem::mfn(l1), 0), 0);
    let window = mem::alloc();
    errno!("share-map-child", map(window, mem::reference(l1, pte::KERNEL_RO)), 0);
    errno!("share-unpin-parent", mmuext_op(mmuext::UNPIN, mem::mfn(parents[0]), 0), 0);
    errno!("share-child-still-typed", map(window, mem::reference(l1, pte::KERNEL_RW)), EBUSY);
    errno!("share-unpin-child", mmuext_op(mmuext::UNPIN, mem::mfn(l1), 0), 0);
    errno!("share-child-held-by-parent", map(window, mem::reference(l1, pte::KERNEL_RW)), EBUSY);
    let slot = mem::maddr(parents[1]) + 8 * index(5 << 21, 2) as u64;
    errno!("share-parent-drops-child", set_entry(slot, 0), 0);
    errno!("share-child-free", map(window, mem::reference(l1, pte::KERNEL_RW)), 0);
    errno!("share-unpin-last", mmuext_op(mmuext::UNPIN, mem::mfn(parents[1]), 0), 0);
}
