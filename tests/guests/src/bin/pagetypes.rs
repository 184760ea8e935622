// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the page types: what must be refused is refused and leaves nothing behind, and what Linux needs is allowed.
//!
//! A frame is at one time either writable, or a page table of one level, or a descriptor page. So no frame that serves
//! as a page table can be mapped writable, no writable frame can become one, and a table whose entries break a rule is
//! not accepted. A refused call changes no count: afterwards each page can be used for what it could be used before.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{self, MmuUpdate, index, mmuext, nr, pte};
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
    pins();
    bad_tables();
    stores();
    preserve();
    m2p(scratch);
    base_pointers();
    linear();
    domains(scratch);
    extended();
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

/// The tables in use cannot be mapped writable, and can be mapped read-only.
fn own_tables(scratch: u64) {
    for level in 1..=4 {
        let table = mem::walk_from(mem::l4(), scratch, level).map_or(0, |entry| entry.table);
        errno!(
            ["own-l{level}-writable"],
            map(scratch, mem::reference(table, pte::KERNEL_RW)),
            EBUSY
        );
        errno!(
            ["own-l{level}-read-only"],
            map(scratch, mem::reference(table, pte::KERNEL_RO)),
            0
        );
        let (result, done) = mmu_update(&[MmuUpdate {
            ptr: mem::l1_entry(scratch).maddr,
            val: mem::reference(table, pte::KERNEL_RW),
        }]);
        errno!(["own-l{level}-writable-by-mmu-update"], result, EBUSY);
        equal!(["own-l{level}-writable-by-mmu-update-done"], done, 0);
    }
    equal!(
        "scratch-still-mapped",
        mem::l1_entry(scratch).value & pte::ADDR,
        mem::maddr(scratch)
    );
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
    let mut map_entries = [E820 {
        start: 0,
        size: 0,
        kind: 0,
    }; 64];
    let mut request = (64u32, map_entries.as_mut_ptr() as u64);
    // XENMEM_machine_memory_map: { nr_entries, buffer }.
    let pointer = &raw mut request;
    // SAFETY: the tuple is only a place for the two fields, which are written as the ABI lays them out.
    unsafe { *(pointer as *mut [u64; 2]) = [64, map_entries.as_mut_ptr() as u64] };
    errno!(
        "machine-memory-map",
        hypercall2(nr::MEMORY_OP, 10, pointer as u64),
        0
    );
    // SAFETY: as above; the hypervisor has written the number of entries.
    let count = unsafe { *(pointer as *const u32) } as usize;
    let (mut tried, mut taken) = (0, 0);
    for entry in &map_entries[..count.min(64)] {
        let (first, size, kind) = (entry.start >> 12, entry.size >> 12, entry.kind);
        // The first MiB is device-like for dom0.
        for frame in (first.max(0x100)..first + size)
            .step_by(61)
            .filter(|_| kind == 1)
        {
            let pfn = mem::m2p(frame);
            if !(pfn < start::info().nr_pages && mem::p2m(pfn) == frame) {
                tried += 1;
                taken += u32::from(map(scratch, frame << 12 | pte::KERNEL_RW) == 0);
                taken += u32::from(map(scratch, frame << 12 | pte::KERNEL_RO) == 0);
            }
        }
    }
    check!(
        "foreign-frames-refused",
        tried > 100 && taken == 0,
        "{taken} of {tried} could be mapped"
    );
    errno!(
        "local-apic-refused",
        map(scratch, 0xfee0_0000 | pte::KERNEL_RW),
        EPERM
    );
    errno!(
        "shared-info-again",
        map(scratch, start::info().shared_info | pte::KERNEL_RW),
        0
    );
}

/// Bits of L1 entries.
fn entries(scratch: u64) {
    let plain = mem::reference(scratch, pte::KERNEL_RW);
    for bit in 48..52 {
        check!(
            ["address-bit-{bit}-refused"],
            map(scratch, plain | 1 << bit) < 0
        );
    }
    for bit in (9..12).chain(52..59) {
        errno!(
            ["software-bit-{bit}-allowed"],
            map(scratch, plain | 1 << bit),
            0
        );
    }
    errno!("no-execute-allowed", map(scratch, plain | pte::NX), 0);
    errno!(
        "not-present-anything",
        map(scratch, 0x7fff_ffff_ffff_fffe),
        0
    );
    let read_back = |value: u64| {
        mem::remap(scratch, value);
        let entry = mem::l1_entry(scratch).value;
        mem::make_rw(scratch);
        entry & (pte::U | pte::G | pte::GUEST_KERNEL)
    };
    equal!(
        "kernel-entry-adjusted",
        read_back(plain),
        pte::U | pte::GUEST_KERNEL
    );
    equal!(
        "user-entry-adjusted",
        read_back(plain | pte::U),
        pte::U | pte::G
    );
    equal!(
        "kept-kernel-entry",
        read_back(plain | pte::U | pte::GUEST_KERNEL),
        pte::U | pte::GUEST_KERNEL
    );
    errno!(
        "va-without-table",
        update_va_mapping(pv::user::NOWHERE, plain, 0),
        EINVAL
    );
    errno!(
        "va-in-hole",
        update_va_mapping(abi::HOLE.0, plain, 0),
        EINVAL
    );
    errno!(
        "va-in-private-hole",
        update_va_mapping(0xffff_8300_0000_0000, plain, 0),
        EINVAL
    );
    errno!(
        "va-non-canonical",
        update_va_mapping(1 << 63, plain, 0),
        EINVAL
    );
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
    errno!(
        "l2-large-page",
        set_entry(
            l2.maddr,
            mem::reference(data, pte::TABLE | pte::PSE) & !0x1f_f000
        ),
        EINVAL
    );
    errno!(
        "l2-to-writable-page",
        set_entry(l2.maddr, mem::reference(data, pte::TABLE)),
        EINVAL
    );
    errno!(
        "l2-to-l4",
        set_entry(l2.maddr, mem::reference(mem::l4(), pte::TABLE)),
        EINVAL
    );
    errno!(
        "l2-to-l1",
        set_entry(l2.maddr, mem::reference(l1, pte::TABLE)),
        0
    );
    errno!(
        "l1-now-refused-writable",
        map(data, mem::reference(l1, pte::KERNEL_RW)),
        EBUSY
    );
    let value = mem::reference(data, pte::KERNEL_RW);
    errno!("map-through-new-l1", update_va_mapping(va, value, 2), 0);
    mem::entry(va, 3).store(0x1234, SeqCst);
    equal!(
        "new-mapping-works",
        mem::entry(data, 3).load(SeqCst),
        0x1234
    );
    errno!("l2-clear", set_entry(l2.maddr, 0), 0);
    errno!(
        "l1-writable-again",
        update_va_mapping(l1, mem::reference(l1, pte::KERNEL_RW), 2),
        0
    );
    let Some(l3) = slot(3) else {
        return check!("kernel-l3", false, "no L3");
    };
    let empty = l3.maddr - 8;
    errno!(
        "l3-large-page",
        set_entry(empty, pte::TABLE | pte::PSE),
        EINVAL
    );
    errno!(
        "l3-to-l1",
        set_entry(empty, mem::reference(mem::l1_entry(data).table, pte::TABLE)),
        EINVAL
    );
    errno!(
        "l3-unowned-frame",
        set_entry(empty, 0xff_ffff_f000 | pte::TABLE),
        EINVAL
    );
    errno!(
        "l2-address-bits",
        set_entry(l2.maddr, mem::reference(l1, pte::TABLE) | 1 << 50),
        EINVAL
    );
    errno!(
        "l2-to-itself-writable",
        set_entry(l2.maddr, mem::reference(l2.table, pte::TABLE)),
        EINVAL
    );
}

/// The hypervisor's slots of an L4 cannot be written, and a new L4 has them whatever the guest left there.
fn hypervisor_slots() {
    let l4 = mem::maddr(mem::l4());
    for slot in [256, 257, 260, 271] {
        errno!(["slot-{slot}-clear"], set_entry(l4 + 8 * slot, 0), EINVAL);
        errno!(
            ["slot-{slot}-set"],
            set_entry(l4 + 8 * slot, mem::entry(mem::l4(), 511).load(SeqCst)),
            EINVAL
        );
    }
    for slot in [255, 272] {
        errno!(["slot-{slot}-clear"], set_entry(l4 + 8 * slot, 0), 0);
    }
    let garbage = 0x0000_dead_beef_0067;
    let table =
        mem::table(|table| (256..272).for_each(|i| mem::entry(table, i).store(garbage, SeqCst)));
    errno!(
        "l4-with-garbage-pinned",
        mmuext_op(mmuext::PIN_L4, mem::mfn(table), 0),
        0
    );
    let left = (256..272).any(|i| mem::entry(table, i).load(SeqCst) == garbage);
    check!("l4-garbage-replaced", !left);
    errno!(
        "l4-unpinned",
        mmuext_op(mmuext::UNPIN, mem::mfn(table), 0),
        0
    );
    errno!(
        "l4-writable-again",
        update_va_mapping(table, mem::reference(table, pte::KERNEL_RW), 2),
        0
    );
}

/// Pins once, and by the right level only.
fn pins() {
    let pin = [
        mmuext::PIN_L1,
        mmuext::PIN_L2,
        mmuext::PIN_L3,
        mmuext::PIN_L4,
    ];
    for (i, command) in pin.into_iter().enumerate() {
        let level = i + 1;
        let page = mem::alloc();
        let mfn = mem::mfn(page);
        errno!(
            ["pin-l{level}-writable-page"],
            mmuext_op(command, mfn, 0),
            EINVAL
        );
        mem::make_ro(page);
        errno!(["pin-l{level}"], mmuext_op(command, mfn, 0), 0);
        errno!(["pin-l{level}-twice"], mmuext_op(command, mfn, 0), EINVAL);
        for (other, command) in pin.into_iter().enumerate().filter(|(other, _)| *other != i) {
            errno!(
                ["pin-l{level}-as-l{}", other + 1],
                mmuext_op(command, mfn, 0),
                EINVAL
            );
        }
        errno!(
            ["pinned-l{level}-writable"],
            update_va_mapping(page, mfn << 12 | pte::KERNEL_RW, 2),
            EBUSY
        );
        errno!(["unpin-l{level}"], mmuext_op(mmuext::UNPIN, mfn, 0), 0);
        errno!(
            ["unpin-l{level}-twice"],
            mmuext_op(mmuext::UNPIN, mfn, 0),
            EINVAL
        );
        errno!(
            ["unpinned-l{level}-writable"],
            update_va_mapping(page, mfn << 12 | pte::KERNEL_RW, 2),
            0
        );
    }
    errno!(
        "pin-no-frame",
        mmuext_op(mmuext::PIN_L1, 0xff_ffff_ffff, 0),
        EINVAL
    );
    errno!(
        "pin-shared-info",
        mmuext_op(mmuext::PIN_L1, start::info().shared_info >> 12, 0),
        EINVAL
    );
    let page = mem::alloc();
    mem::make_ro(page);
    let command = |cmd| abi::MmuExt {
        cmd,
        arg1: mem::mfn(page),
        arg2: 0,
    };
    let (result, done) = mmuext(&[
        command(mmuext::PIN_L1),
        command(mmuext::PIN_L1),
        command(mmuext::UNPIN),
    ]);
    check!(
        "mmuext-stops-at-error",
        result == pv::Errno::EINVAL.to_ret() && done == 1,
        "{result} {done}"
    );
    errno!(
        "mmuext-unpin-after-stop",
        mmuext_op(mmuext::UNPIN, mem::mfn(page), 0),
        0
    );
}

/// Tables with one bad entry are refused, and free again afterwards.
fn bad_tables() {
    let data = mem::alloc();
    let l1 = mem::table(|_| ());
    errno!(
        "pin-helper-l1",
        mmuext_op(mmuext::PIN_L1, mem::mfn(l1), 0),
        0
    );
    let cases = [
        (
            "l1-maps-table-writable",
            mmuext::PIN_L1,
            mem::reference(mem::l4(), pte::P | pte::RW),
        ),
        (
            "l1-maps-l1-writable",
            mmuext::PIN_L1,
            mem::reference(l1, pte::P | pte::RW),
        ),
        ("l1-maps-nothing", mmuext::PIN_L1, 0xff_ffff_f000 | pte::P),
        (
            "l1-address-bits",
            mmuext::PIN_L1,
            mem::reference(data, pte::P) | 1 << 49,
        ),
        ("l2-large-page", mmuext::PIN_L2, pte::TABLE | pte::PSE),
        (
            "l2-to-data",
            mmuext::PIN_L2,
            mem::reference(data, pte::TABLE),
        ),
        ("l3-to-l1", mmuext::PIN_L3, mem::reference(l1, pte::TABLE)),
        ("l3-large-page", mmuext::PIN_L3, pte::TABLE | pte::PSE),
        ("l4-to-l1", mmuext::PIN_L4, mem::reference(l1, pte::TABLE)),
    ];
    for (name, command, bad) in cases {
        let good = mem::reference(
            if command == mmuext::PIN_L2 { l1 } else { data },
            pte::P | pte::U,
        );
        let table = mem::table(|table| {
            if command <= mmuext::PIN_L2 {
                mem::entry(table, 0).store(good, SeqCst);
            }
            mem::entry(table, 100).store(bad, SeqCst);
        });
        let result = mmuext_op(command, mem::mfn(table), 0);
        check!(["{name}-refused"], result < 0, "got {result}");
        errno!(
            ["{name}-free-again"],
            update_va_mapping(table, mem::reference(table, pte::KERNEL_RW), 2),
            0
        );
    }
    errno!(
        "unpin-helper-l1",
        mmuext_op(mmuext::UNPIN, mem::mfn(l1), 0),
        0
    );
    errno!(
        "helper-l1-free",
        update_va_mapping(l1, mem::reference(l1, pte::KERNEL_RW), 2),
        0
    );
    errno!(
        "data-free",
        mmuext_op(mmuext::CLEAR_PAGE, mem::mfn(data), 0),
        0
    );
}

/// mmu_update on a page that is no table is a plain store; commands and pointers are checked.
fn stores() {
    let page = mem::alloc();
    errno!(
        "store-writable-page",
        set_entry(mem::maddr(page) + 16, 0xdead_beef_dead_beef),
        0
    );
    equal!(
        "store-writable-page-value",
        mem::entry(page, 2).load(SeqCst),
        0xdead_beef_dead_beef
    );
    mem::make_ro(page);
    errno!(
        "store-read-only-page",
        set_entry(mem::maddr(page) + 24, u64::MAX),
        0
    );
    equal!(
        "store-read-only-page-value",
        mem::entry(page, 3).load(SeqCst),
        u64::MAX
    );
    let (result, done) = mmu_update(&[
        MmuUpdate {
            ptr: mem::maddr(page),
            val: 1,
        },
        MmuUpdate {
            ptr: mem::maddr(page) + 8,
            val: 2,
        },
        MmuUpdate {
            ptr: 0xff_ffff_ffff_f000,
            val: 3,
        },
        MmuUpdate {
            ptr: mem::maddr(page) + 8,
            val: 4,
        },
    ]);
    check!(
        "update-stops-at-error",
        result < 0 && done == 2,
        "{result} {done}"
    );
    equal!(
        "update-stops-at-error-value",
        mem::entry(page, 1).load(SeqCst),
        2
    );
    let list = MmuUpdate {
        ptr: mem::maddr(page),
        val: 9,
    };
    errno!(
        "update-without-done",
        hypercall4(
            nr::MMU_UPDATE,
            &raw const list as u64,
            1,
            0,
            abi::DOMID_SELF
        ),
        0
    );
    equal!(
        "update-without-done-value",
        mem::entry(page, 0).load(SeqCst),
        9
    );
    errno!("update-none", mmu_update(&[]).0, 0);
}

/// The preserve-A/D command keeps what the CPU has set meanwhile; the normal one does not.
fn preserve() {
    let page = mem::alloc();
    let at = mem::l1_entry(page).maddr;
    let fresh = mem::reference(page, pte::P | pte::RW);
    mem::remap(page, fresh);
    mem::entry(page, 0).store(1, SeqCst);
    equal!(
        "accessed-dirty-by-cpu",
        mem::l1_entry(page).value & (pte::A | pte::D),
        pte::A | pte::D
    );
    errno!(
        "preserve",
        set_entry(at | abi::MMU_PT_UPDATE_PRESERVE_AD, fresh),
        0
    );
    equal!(
        "preserve-kept",
        mem::l1_entry(page).value & (pte::A | pte::D),
        pte::A | pte::D
    );
    errno!("no-preserve", set_entry(at, fresh), 0);
    equal!(
        "no-preserve-lost",
        mem::l1_entry(page).value & (pte::A | pte::D),
        0
    );
}

/// The M2P can be changed for own frames only, and never be written directly.
fn m2p(scratch: u64) {
    let mfn = mem::mfn(scratch);
    let pfn = mem::pfn(scratch);
    equal!("m2p-says-pfn", mem::m2p(mfn), pfn);
    errno!(
        "m2p-update",
        set_entry(mfn << 12 | abi::MMU_MACHPHYS_UPDATE, 0x1234),
        0
    );
    equal!("m2p-updated", mem::m2p(mfn), 0x1234);
    errno!(
        "m2p-restore",
        set_entry(mfn << 12 | abi::MMU_MACHPHYS_UPDATE, pfn),
        0
    );
    equal!("m2p-restored", mem::m2p(mfn), pfn);
    let result = set_entry(0xff_ffff_f000 | abi::MMU_MACHPHYS_UPDATE, 0);
    check!("m2p-update-no-frame", result < 0, "got {result}");
    let frame = pv::probe!("mov [{p}], rax"; p = in(reg) abi::M2P + 8 * mfn);
    check!(
        "m2p-read-only",
        frame.is_some_and(|f| f.vector == 14 && f.error == 3),
        "{frame:x?}"
    );
    let wrong = (0..start::info().nr_pages)
        .filter(|&pfn| mem::m2p(mem::p2m(pfn)) != pfn)
        .count();
    equal!("m2p-inverse-of-p2m", wrong, 0);
}

/// Base pointers take L4 tables only; a switch there and back works.
fn base_pointers() {
    let current = mem::mfn(mem::l4());
    errno!(
        "baseptr-again",
        mmuext_op(mmuext::NEW_BASEPTR, current, 0),
        0
    );
    let page = mem::alloc();
    errno!(
        "baseptr-writable-page",
        mmuext_op(mmuext::NEW_BASEPTR, mem::mfn(page), 0),
        EINVAL
    );
    errno!(
        "baseptr-l1",
        mmuext_op(mmuext::NEW_BASEPTR, mem::mfn(mem::l1_entry(page).table), 0),
        EINVAL
    );
    errno!(
        "baseptr-no-frame",
        mmuext_op(mmuext::NEW_BASEPTR, 0xff_ffff_ffff, 0),
        EINVAL
    );
    let copy = mem::table(|table| {
        for i in (0..256).chain(272..512) {
            mem::entry(table, i).store(mem::entry(mem::l4(), i).load(SeqCst), SeqCst);
        }
    });
    errno!(
        "baseptr-copy",
        mmuext_op(mmuext::NEW_BASEPTR, mem::mfn(copy), 0),
        0
    );
    errno!(
        "copy-in-use-unpin",
        mmuext_op(mmuext::UNPIN, mem::mfn(copy), 0),
        EINVAL
    );
    errno!(
        "copy-in-use-writable",
        update_va_mapping(copy, mem::reference(copy, pte::KERNEL_RW), 2),
        EBUSY
    );
    errno!(
        "baseptr-back",
        mmuext_op(mmuext::NEW_BASEPTR, current, 0),
        0
    );
    errno!(
        "copy-writable-again",
        update_va_mapping(copy, mem::reference(copy, pte::KERNEL_RW), 2),
        0
    );
    errno!(
        "user-baseptr-l1",
        mmuext_op(
            mmuext::NEW_USER_BASEPTR,
            mem::mfn(mem::l1_entry(page).table),
            0
        ),
        EINVAL
    );
    errno!(
        "user-baseptr-none",
        mmuext_op(mmuext::NEW_USER_BASEPTR, 0, 0),
        0
    );
    mem::make_ro(page);
    errno!(
        "user-baseptr",
        mmuext_op(mmuext::NEW_USER_BASEPTR, mem::mfn(page), 0),
        0
    );
    errno!(
        "user-l4-writable",
        update_va_mapping(page, mem::reference(page, pte::KERNEL_RW), 2),
        EBUSY
    );
    errno!(
        "user-baseptr-none-again",
        mmuext_op(mmuext::NEW_USER_BASEPTR, 0, 0),
        0
    );
    errno!(
        "user-l4-free",
        update_va_mapping(page, mem::reference(page, pte::KERNEL_RW), 2),
        0
    );
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
    errno!(
        "linear-l4-writable",
        set_entry(l4 + 8 * slot, itself | pte::RW),
        EINVAL
    );
    if set_entry(l4 + 8 * slot, itself) != 0 {
        return pv::report::skip("linear-l4", "linear page tables are not supported");
    }
    let window = 0xffff_0000_0000_0000 | slot << 39 | slot << 30 | slot << 21 | slot << 12;
    equal!(
        "linear-l4-shows-itself",
        mem::entry(window, slot as usize).load(SeqCst) & pte::ADDR,
        itself & pte::ADDR
    );
    let frame = pv::probe!("mov [{p}], rax"; p = in(reg) window);
    check!(
        "linear-l4-read-only",
        frame.is_some_and(|f| f.vector == 14 && f.error == 3),
        "{frame:x?}"
    );
    errno!("linear-l4-clear", set_entry(l4 + 8 * slot, 0), 0);
}

/// Other domains: those that are not there, and the special ones.
fn domains(scratch: u64) {
    let at = mem::l1_entry(scratch).maddr;
    let list = MmuUpdate {
        ptr: at,
        val: mem::reference(scratch, pte::KERNEL_RW),
    };
    let by = |domains: u64| hypercall4(nr::MMU_UPDATE, &raw const list as u64, 1, 0, domains);
    errno!("update-self-by-number", by(0), ESRCH);
    errno!("update-foreign-absent", by(77), ESRCH);
    errno!("update-owner-absent", by(abi::DOMID_SELF | 78 << 16), ESRCH);
    errno!(
        "mapping-other-absent",
        hypercall4(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, scratch, list.val, 0, 77),
        ESRCH
    );
    errno!(
        "mapping-other-self",
        hypercall4(
            nr::UPDATE_VA_MAPPING_OTHERDOMAIN,
            scratch,
            list.val,
            0,
            abi::DOMID_SELF
        ),
        0
    );
    let pin = abi::MmuExt {
        cmd: mmuext::PIN_L1,
        arg1: mem::mfn(scratch),
        arg2: 0,
    };
    errno!(
        "mmuext-absent-domain",
        hypercall4(nr::MMUEXT_OP, &raw const pin as u64, 1, 0, 77),
        ESRCH
    );
}

/// The other commands of mmuext_op.
fn extended() {
    let (from, to) = (mem::alloc(), mem::alloc());
    mem::entry(from, 7).store(0x7777, SeqCst);
    errno!(
        "copy-page",
        mmuext_op(mmuext::COPY_PAGE, mem::mfn(to), mem::mfn(from)),
        0
    );
    equal!("copy-page-copied", mem::entry(to, 7).load(SeqCst), 0x7777);
    errno!(
        "clear-page",
        mmuext_op(mmuext::CLEAR_PAGE, mem::mfn(to), 0),
        0
    );
    equal!("clear-page-cleared", mem::entry(to, 7).load(SeqCst), 0);
    let table = mem::mfn(mem::l1_entry(from).table);
    errno!(
        "clear-page-table",
        mmuext_op(mmuext::CLEAR_PAGE, table, 0),
        EINVAL
    );
    errno!(
        "copy-onto-page-table",
        mmuext_op(mmuext::COPY_PAGE, table, mem::mfn(from)),
        EINVAL
    );
    errno!(
        "mark-super",
        mmuext_op(mmuext::MARK_SUPER, mem::mfn(to), 0),
        EOPNOTSUPP
    );
    errno!("flush-local", mmuext_op(mmuext::TLB_FLUSH_LOCAL, 0, 0), 0);
    errno!("flush-all", mmuext_op(mmuext::TLB_FLUSH_ALL, 0, 0), 0);
    errno!("invlpg-local", mmuext_op(mmuext::INVLPG_LOCAL, to, 0), 0);
    errno!("invlpg-all", mmuext_op(mmuext::INVLPG_ALL, to, 0), 0);
    errno!(
        "invlpg-hole",
        mmuext_op(mmuext::INVLPG_LOCAL, abi::HOLE.0 + 0x1000, 0),
        0
    );
    errno!(
        "invlpg-non-canonical",
        mmuext_op(mmuext::INVLPG_LOCAL, 1 << 62, 0),
        0
    );
    let mask = 1u64;
    errno!(
        "flush-multi",
        mmuext_op(mmuext::TLB_FLUSH_MULTI, 0, &raw const mask as u64),
        0
    );
    errno!(
        "invlpg-multi",
        mmuext_op(mmuext::INVLPG_MULTI, to, &raw const mask as u64),
        0
    );
    errno!(
        "flush-multi-bad-mask",
        mmuext_op(mmuext::TLB_FLUSH_MULTI, 0, pv::user::NOWHERE),
        EINVAL
    );
    stale(from, to);
}

/// A flush asked for happens: no stale translation is used after update_va_mapping with a flush.
fn stale(one: u64, two: u64) {
    let window = mem::alloc();
    mem::entry(one, 0).store(1, SeqCst);
    mem::entry(two, 0).store(2, SeqCst);
    for (name, flags) in [
        ("full", 1),
        ("invlpg", 2),
        ("all-full", 5),
        ("all-invlpg", 6),
    ] {
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
    errno!(
        "flush-bitmap",
        update_va_mapping(window, mem::reference(two, pte::KERNEL_RO), pointer | 2),
        0
    );
    mem::make_rw(window);
}

/// Tables may be shared: two parents, many read-only mappings, pins and parents together.
fn sharing() {
    let l1 = mem::table(|_| ());
    let parents = [0, 1]
        .map(|_| mem::table(|t| mem::entry(t, 5).store(mem::reference(l1, pte::TABLE), SeqCst)));
    for parent in parents {
        errno!(
            "share-pin-parent",
            mmuext_op(mmuext::PIN_L2, mem::mfn(parent), 0),
            0
        );
    }
    errno!(
        "share-pin-child",
        mmuext_op(mmuext::PIN_L1, mem::mfn(l1), 0),
        0
    );
    let window = mem::alloc();
    errno!(
        "share-map-child",
        map(window, mem::reference(l1, pte::KERNEL_RO)),
        0
    );
    errno!(
        "share-unpin-parent",
        mmuext_op(mmuext::UNPIN, mem::mfn(parents[0]), 0),
        0
    );
    errno!(
        "share-child-still-typed",
        map(window, mem::reference(l1, pte::KERNEL_RW)),
        EBUSY
    );
    errno!(
        "share-unpin-child",
        mmuext_op(mmuext::UNPIN, mem::mfn(l1), 0),
        0
    );
    errno!(
        "share-child-held-by-parent",
        map(window, mem::reference(l1, pte::KERNEL_RW)),
        EBUSY
    );
    let slot = mem::maddr(parents[1]) + 8 * index(5 << 21, 2) as u64;
    errno!("share-parent-drops-child", set_entry(slot, 0), 0);
    errno!(
        "share-child-free",
        map(window, mem::reference(l1, pte::KERNEL_RW)),
        0
    );
    errno!(
        "share-unpin-last",
        mmuext_op(mmuext::UNPIN, mem::mfn(parents[1]), 0),
        0
    );
}
