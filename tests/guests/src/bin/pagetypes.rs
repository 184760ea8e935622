// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks what page types refuse of single mappings and entries, and that what Linux needs is allowed.
//!
//! A frame is at one time either writable, or a page table of one level, or a descriptor page. So no frame that serves
//! as a page table can be mapped writable; a frame of somebody else's cannot be mapped at all; entries carry only bits a
//! guest may set, and the hypervisor's slots are its own. A refused call changes nothing.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{self, MmuUpdate, mmuext, nr, pte};
use pv::hypercall::*;
use pv::{check, equal, errno, mem, start};

pv::guest!(main, init_p2m);

fn main() {
    let scratch = mem::alloc();
    own_tables(scratch);
    frames(scratch);
    entries(scratch);
    upper_entries();
    hypervisor_slots();
}

/// Maps a frame at `va` and reports; the mapping is put back.
fn map(va: u64, entry: u64) -> i64 {
    let result = update_va_mapping(va, entry, abi::UVMF_INVLPG);
    if result == 0 {
        mem::make_rw(va);
    }
    result
}

/// The tables in use cannot be mapped writable, and can be mapped read-only.
fn own_tables(scratch: u64) {
    for level in 1..=4 {
        let table = mem::walk_from(mem::l4(), scratch, level).map_or(0, |entry| entry.table);
        errno!(["own-l{level}-writable"], map(scratch, mem::reference(table, pte::KERNEL_RW)), EBUSY);
        errno!(["own-l{level}-read-only"], map(scratch, mem::reference(table, pte::KERNEL_RO)), 0);
        let (result, done) =
            mmu_update(&[MmuUpdate { ptr: mem::l1_entry(scratch).maddr, val: mem::reference(table, pte::KERNEL_RW) }]);
        errno!(["own-l{level}-writable-by-mmu-update"], result, EBUSY);
        equal!(["own-l{level}-writable-by-mmu-update-done"], done, 0);
    }
    equal!("scratch-still-mapped", mem::l1_entry(scratch).value & pte::ADDR, mem::maddr(scratch));
}

/// An entry of the machine's memory map.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct E820 {
    start: u64,
    size: u64,
    kind: u32,
}

/// RAM that is not the domain's cannot be mapped, neither to write nor to read.
fn frames(scratch: u64) {
    let mut map_entries = [E820 { start: 0, size: 0, kind: 0 }; 64];
    let mut request = (64u32, map_entries.as_mut_ptr() as u64);
    // XENMEM_machine_memory_map: { nr_entries, buffer }.
    let pointer = &raw mut request;
    // SAFETY: the tuple is only a place for the two fields, which are written as the ABI lays them out.
    unsafe { *(pointer as *mut [u64; 2]) = [64, map_entries.as_mut_ptr() as u64] };
    errno!("machine-memory-map", hypercall2(nr::MEMORY_OP, 10, pointer as u64), 0);
    // SAFETY: as above; the hypervisor has written the number of entries.
    let count = unsafe { *(pointer as *const u32) } as usize;
    let (mut tried, mut taken) = (0, 0);
    for entry in &map_entries[..count.min(64)] {
        let (first, size, kind) = (entry.start >> 12, entry.size >> 12, entry.kind);
        // The first MiB is device-like for dom0.
        for frame in (first.max(0x100)..first + size).step_by(61).filter(|_| kind == 1) {
            let pfn = mem::m2p(frame);
            if !(pfn < start::info().nr_pages && mem::p2m(pfn) == frame) {
                tried += 1;
                taken += u32::from(map(scratch, frame << 12 | pte::KERNEL_RW) == 0);
                taken += u32::from(map(scratch, frame << 12 | pte::KERNEL_RO) == 0);
            }
        }
    }
    check!("foreign-frames-refused", tried > 100 && taken == 0, "{taken} of {tried} could be mapped");
    errno!("local-apic-refused", map(scratch, 0xfee0_0000 | pte::KERNEL_RW), EPERM);
    errno!("shared-info-again", map(scratch, start::info().shared_info | pte::KERNEL_RW), 0);
}

/// Bits of L1 entries.
fn entries(scratch: u64) {
    let plain = mem::reference(scratch, pte::KERNEL_RW);
    for bit in 48..52 {
        check!(["address-bit-{bit}-refused"], map(scratch, plain | 1 << bit) < 0);
    }
    for bit in (9..12).chain(52..59) {
        errno!(["software-bit-{bit}-allowed"], map(scratch, plain | 1 << bit), 0);
    }
    errno!("no-execute-allowed", map(scratch, plain | pte::NX), 0);
    errno!("not-present-anything", map(scratch, 0x7fff_ffff_ffff_fffe), 0);
    let read_back = |value: u64| {
        mem::remap(scratch, value);
        let entry = mem::l1_entry(scratch).value;
        mem::make_rw(scratch);
        entry & (pte::U | pte::G | pte::GUEST_KERNEL)
    };
    equal!("kernel-entry-adjusted", read_back(plain), pte::U | pte::GUEST_KERNEL);
    equal!("user-entry-adjusted", read_back(plain | pte::U), pte::U | pte::G);
    equal!("kept-kernel-entry", read_back(plain | pte::U | pte::GUEST_KERNEL), pte::U | pte::GUEST_KERNEL);
    errno!("va-without-table", update_va_mapping(pv::user::NOWHERE, plain, 0), EINVAL);
    errno!("va-in-hole", update_va_mapping(abi::HOLE.0, plain, 0), EINVAL);
    errno!("va-in-private-hole", update_va_mapping(0xffff_8300_0000_0000, plain, 0), EINVAL);
    errno!("va-non-canonical", update_va_mapping(1 << 63, plain, 0), EINVAL);
}

/// L2 and L3 entries: no large pages, the right level below, no writable frame as a table.
fn upper_entries() {
    let va = 0xffff_ffff_bf00_0000;
    let data = mem::alloc();
    let l1 = mem::table(|_| ());
    let slot = |level| mem::walk_from(mem::l4(), va, level);
    let Some(l2) = slot(2) else {
        return check!("kernel-l2", false, "the kernel's gigabyte has no L2");
    };
    errno!("l2-large-page", set_entry(l2.maddr, mem::reference(data, pte::TABLE | pte::PSE) & !0x1f_f000), EINVAL);
    errno!("l2-to-writable-page", set_entry(l2.maddr, mem::reference(data, pte::TABLE)), EINVAL);
    errno!("l2-to-l4", set_entry(l2.maddr, mem::reference(mem::l4(), pte::TABLE)), EINVAL);
    errno!("l2-to-l1", set_entry(l2.maddr, mem::reference(l1, pte::TABLE)), 0);
    errno!("l1-now-refused-writable", map(data, mem::reference(l1, pte::KERNEL_RW)), EBUSY);
    let value = mem::reference(data, pte::KERNEL_RW);
    errno!("map-through-new-l1", update_va_mapping(va, value, 2), 0);
    mem::entry(va, 3).store(0x1234, SeqCst);
    equal!("new-mapping-works", mem::entry(data, 3).load(SeqCst), 0x1234);
    errno!("l2-clear", set_entry(l2.maddr, 0), 0);
    errno!("l1-writable-again", update_va_mapping(l1, mem::reference(l1, pte::KERNEL_RW), 2), 0);
    let Some(l3) = slot(3) else {
        return check!("kernel-l3", false, "no L3");
    };
    let empty = l3.maddr - 8;
    errno!("l3-large-page", set_entry(empty, pte::TABLE | pte::PSE), EINVAL);
    errno!("l3-to-l1", set_entry(empty, mem::reference(mem::l1_entry(data).table, pte::TABLE)), EINVAL);
    errno!("l3-unowned-frame", set_entry(empty, 0xff_ffff_f000 | pte::TABLE), EINVAL);
    errno!("l2-address-bits", set_entry(l2.maddr, mem::reference(l1, pte::TABLE) | 1 << 50), EINVAL);
    errno!("l2-to-itself-writable", set_entry(l2.maddr, mem::reference(l2.table, pte::TABLE)), EINVAL);
}

/// The hypervisor's slots of an L4 cannot be written, and a new L4 has them whatever the guest left there.
fn hypervisor_slots() {
    let l4 = mem::maddr(mem::l4());
    for slot in [256, 257, 260, 271] {
        errno!(["slot-{slot}-clear"], set_entry(l4 + 8 * slot, 0), EINVAL);
        errno!(["slot-{slot}-set"], set_entry(l4 + 8 * slot, mem::entry(mem::l4(), 511).load(SeqCst)), EINVAL);
    }
    for slot in [255, 272] {
        errno!(["slot-{slot}-clear"], set_entry(l4 + 8 * slot, 0), 0);
    }
    let garbage = 0x0000_dead_beef_0067;
    let table = mem::table(|table| (256..272).for_each(|i| mem::entry(table, i).store(garbage, SeqCst)));
    errno!("l4-with-garbage-pinned", mmuext_op(mmuext::PIN_L4, mem::mfn(table), 0), 0);
    let left = (256..272).any(|i| mem::entry(table, i).load(SeqCst) == garbage);
    check!("l4-garbage-replaced", !left);
    errno!("l4-unpinned", mmuext_op(mmuext::UNPIN, mem::mfn(table), 0), 0);
    errno!("l4-writable-again", update_va_mapping(table, mem::reference(table, pte::KERNEL_RW), 2), 0);
}
