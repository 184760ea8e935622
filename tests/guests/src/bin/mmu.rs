// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks `mmu_update` and `mmuext_op` beyond page types: plain stores, kept accessed and dirty bits, the M2P, other domains'
//! numbers, page copies and flushes.
//!
//! A batch stops at its first bad request and says how many were done. An update of a page that is no table is a plain store. A
//! flush that was asked for has happened when the call returns.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{self, MmuUpdate, mmuext, nr, pte};
use pv::hypercall::*;
use pv::{check, equal, errno, mem, start};

pv::guest!(main, init_p2m);

fn main() {
    let scratch = mem::alloc();
    stores();
    preserve();
    m2p(scratch);
    domains(scratch);
    extended();
}

/// mmu_update on a page that is no table is a plain store; commands and pointers are checked.
fn stores() {
    let page = mem::alloc();
    errno!("store-writable-page", set_entry(mem::maddr(page) + 16, 0xdead_beef_dead_beef), 0);
    equal!("store-writable-page-value", mem::entry(page, 2).load(SeqCst), 0xdead_beef_dead_beef);
    mem::make_ro(page);
    errno!("store-read-only-page", set_entry(mem::maddr(page) + 24, u64::MAX), 0);
    equal!("store-read-only-page-value", mem::entry(page, 3).load(SeqCst), u64::MAX);
    let (result, done) = mmu_update(&[
        MmuUpdate { ptr: mem::maddr(page), val: 1 },
        MmuUpdate { ptr: mem::maddr(page) + 8, val: 2 },
        MmuUpdate { ptr: 0xff_ffff_ffff_f000, val: 3 },
        MmuUpdate { ptr: mem::maddr(page) + 8, val: 4 },
    ]);
    check!("update-stops-at-error", result < 0 && done == 2, "{result} {done}");
    equal!("update-stops-at-error-value", mem::entry(page, 1).load(SeqCst), 2);
    let list = MmuUpdate { ptr: mem::maddr(page), val: 9 };
    errno!("update-without-done", hypercall4(nr::MMU_UPDATE, &raw const list as u64, 1, 0, abi::DOMID_SELF), 0);
    equal!("update-without-done-value", mem::entry(page, 0).load(SeqCst), 9);
    errno!("update-none", mmu_update(&[]).0, 0);
}

/// The preserve-A/D command keeps what the CPU has set meanwhile; the normal one does not.
fn preserve() {
    let page = mem::alloc();
    let at = mem::l1_entry(page).maddr;
    let fresh = mem::reference(page, pte::P | pte::RW);
    mem::remap(page, fresh);
    mem::entry(page, 0).store(1, SeqCst);
    equal!("accessed-dirty-by-cpu", mem::l1_entry(page).value & (pte::A | pte::D), pte::A | pte::D);
    errno!("preserve", set_entry(at | abi::MMU_PT_UPDATE_PRESERVE_AD, fresh), 0);
    equal!("preserve-kept", mem::l1_entry(page).value & (pte::A | pte::D), pte::A | pte::D);
    errno!("no-preserve", set_entry(at, fresh), 0);
    equal!("no-preserve-lost", mem::l1_entry(page).value & (pte::A | pte::D), 0);
}

/// The M2P can be changed for own frames only, and never be written directly.
fn m2p(scratch: u64) {
    let mfn = mem::mfn(scratch);
    let pfn = mem::pfn(scratch);
    equal!("m2p-says-pfn", mem::m2p(mfn), pfn);
    errno!("m2p-update", set_entry(mfn << 12 | abi::MMU_MACHPHYS_UPDATE, 0x1234), 0);
    equal!("m2p-updated", mem::m2p(mfn), 0x1234);
    errno!("m2p-restore", set_entry(mfn << 12 | abi::MMU_MACHPHYS_UPDATE, pfn), 0);
    equal!("m2p-restored", mem::m2p(mfn), pfn);
    let result = set_entry(0xff_ffff_f000 | abi::MMU_MACHPHYS_UPDATE, 0);
    check!("m2p-update-no-frame", result < 0, "got {result}");
    let frame = pv::probe!("mov [{p}], rax"; p = in(reg) abi::M2P + 8 * mfn);
    check!("m2p-read-only", frame.is_some_and(|f| f.vector == 14 && f.error == 3), "{frame:x?}");
    let wrong = (0..start::info().nr_pages).filter(|&pfn| mem::m2p(mem::p2m(pfn)) != pfn).count();
    equal!("m2p-inverse-of-p2m", wrong, 0);
}

/// Other domains: those that are not there, and the special ones.
fn domains(scratch: u64) {
    let at = mem::l1_entry(scratch).maddr;
    let list = MmuUpdate { ptr: at, val: mem::reference(scratch, pte::KERNEL_RW) };
    let by = |domains: u64| hypercall4(nr::MMU_UPDATE, &raw const list as u64, 1, 0, domains);
    errno!("update-self-by-number", by(0), ESRCH);
    errno!("update-foreign-absent", by(77), ESRCH);
    errno!("update-owner-absent", by(abi::DOMID_SELF | 78 << 16), ESRCH);
    errno!("mapping-other-absent", hypercall4(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, scratch, list.val, 0, 77), ESRCH);
    errno!(
        "mapping-other-self",
        hypercall4(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, scratch, list.val, 0, abi::DOMID_SELF),
        0
    );
    let pin = abi::MmuExt { cmd: mmuext::PIN_L1, arg1: mem::mfn(scratch), arg2: 0 };
    errno!("mmuext-absent-domain", hypercall4(nr::MMUEXT_OP, &raw const pin as u64, 1, 0, 77), ESRCH);
}

/// The other commands of mmuext_op.
fn extended() {
    let (from, to) = (mem::alloc(), mem::alloc());
    mem::entry(from, 7).store(0x7777, SeqCst);
    errno!("copy-page", mmuext_op(mmuext::COPY_PAGE, mem::mfn(to), mem::mfn(from)), 0);
    equal!("copy-page-copied", mem::entry(to, 7).load(SeqCst), 0x7777);
    errno!("clear-page", mmuext_op(mmuext::CLEAR_PAGE, mem::mfn(to), 0), 0);
    equal!("clear-page-cleared", mem::entry(to, 7).load(SeqCst), 0);
    let table = mem::mfn(mem::l1_entry(from).table);
    errno!("clear-page-table", mmuext_op(mmuext::CLEAR_PAGE, table, 0), EINVAL);
    errno!("copy-onto-page-table", mmuext_op(mmuext::COPY_PAGE, table, mem::mfn(from)), EINVAL);
    errno!("mark-super", mmuext_op(mmuext::MARK_SUPER, mem::mfn(to), 0), EOPNOTSUPP);
    errno!("flush-local", mmuext_op(mmuext::TLB_FLUSH_LOCAL, 0, 0), 0);
    errno!("flush-all", mmuext_op(mmuext::TLB_FLUSH_ALL, 0, 0), 0);
    errno!("invlpg-local", mmuext_op(mmuext::INVLPG_LOCAL, to, 0), 0);
    errno!("invlpg-all", mmuext_op(mmuext::INVLPG_ALL, to, 0), 0);
    errno!("invlpg-hole", mmuext_op(mmuext::INVLPG_LOCAL, abi::HOLE.0 + 0x1000, 0), 0);
    errno!("invlpg-non-canonical", mmuext_op(mmuext::INVLPG_LOCAL, 1 << 62, 0), 0);
    let mask = 1u64;
    errno!("flush-multi", mmuext_op(mmuext::TLB_FLUSH_MULTI, 0, &raw const mask as u64), 0);
    errno!("invlpg-multi", mmuext_op(mmuext::INVLPG_MULTI, to, &raw const mask as u64), 0);
    errno!("flush-multi-bad-mask", mmuext_op(mmuext::TLB_FLUSH_MULTI, 0, pv::user::NOWHERE), EINVAL);
    stale(from, to);
}

/// A flush asked for happens: no stale translation is used after update_va_mapping with a flush.
fn stale(one: u64, two: u64) {
    let window = mem::alloc();
    mem::entry(one, 0).store(1, SeqCst);
    mem::entry(two, 0).store(2, SeqCst);
    for (name, flags) in [("full", 1), ("invlpg", 2), ("all-full", 5), ("all-invlpg", 6)] {
        let mut wrong = 0;
        for _ in 0..50 {
            for (page, value) in [(one, 1), (two, 2)] {
                let result = update_va_mapping(window, mem::reference(page, pte::KERNEL_RW), flags);
                wrong += u32::from(result != 0 || mem::entry(window, 0).load(SeqCst) != value);
            }
        }
        equal!(["flush-{name}"], wrong, 0);
    }
    let mask = 1u64;
    let pointer = &raw const mask as u64;
    errno!("flush-bitmap", update_va_mapping(window, mem::reference(two, pte::KERNEL_RO), pointer | 2), 0);
    mem::make_rw(window);
}
