// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks grants, by a domain that grants its frames to itself: tables, mappings, copies, versions.
//!
//! A mapping is one more reference to a frame, written into a page-table entry by the hypervisor, and as long as it lasts the
//! entry of the table says so. It ends only with the same frame, the same rights and the same place. A copy stays within its
//! pages and within what is granted of them.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{self, nr, pte};
use pv::grants::*;
use pv::hypercall::hypercall3;
use pv::{check, equal, errno, mem};

pv::guest!(main, init_p2m);

const PERMIT: u64 = gtf::PERMIT_ACCESS;
const IN_USE: u64 = PERMIT | gtf::READING;
const WRITTEN: u64 = IN_USE | gtf::WRITING;
const SELF: u16 = abi::DOMID_SELF as u16;

fn main() {
    sizes();
    let Some(table) = Table::map() else {
        check!("setup-table", false);
        return;
    };
    check!("setup-table", true);
    mappings(table);
    entries(table);
    refused(table);
    ends(table);
    changed(table);
    lists(table);
    replaced(table);
    copies(table);
    swapped(table);
    second_version(table);
}

fn sizes() {
    let mut size = Size { dom: SELF, status: 9, ..Size::default() };
    errno!("query-size", one(op::QUERY_SIZE, &mut size), 0);
    check!("query-size-answer", size.status == 0 && size.nr_frames >= 1 && size.max_nr_frames == 64, "{size:?}");
    size.dom = 0x7fe0;
    errno!("query-size-nobody", one(op::QUERY_SIZE, &mut size), 0);
    equal!("query-size-nobody-status", size.status, status::BAD_DOMAIN);
    errno!("query-size-two", list(op::QUERY_SIZE, &mut [size; 2]), EINVAL);
    let mut frames = [0u64; 65];
    let mut setup = Setup { dom: SELF, nr_frames: 65, status: 9, list: frames.as_mut_ptr() as u64 };
    errno!("setup-table-too-long", one(op::SETUP_TABLE, &mut setup), 0);
    equal!("setup-table-too-long-status", setup.status, status::GENERAL_ERROR);
    setup = Setup { nr_frames: 3, ..setup };
    errno!("setup-table-three", one(op::SETUP_TABLE, &mut setup), 0);
    let differ = frames[0] != frames[1] && frames[1] != frames[2] && frames[..3].iter().all(|f| *f != 0);
    check!("setup-table-frames", setup.status == 0 && differ && frames[3] == 0, "{:x?}", &frames[..4]);
    setup.list = abi::HOLE.0;
    errno!("setup-table-hole", one(op::SETUP_TABLE, &mut setup), EFAULT);
    let mut version = [SELF as u32, 9];
    errno!("get-version", one(op::GET_VERSION, &mut version), 0);
    equal!("get-version-answer", version[1], 1);
    errno!("dump-table", one(op::DUMP_TABLE, &mut setup), ENOSYS);
    errno!("unknown", one(13, &mut setup), ENOSYS);
    errno!("no-list", hypercall3(nr::GRANT_TABLE_OP, op::MAP, 0, 0), 0);
    errno!("bad-list", hypercall3(nr::GRANT_TABLE_OP, op::MAP, abi::HOLE.1 - 8, 1), EFAULT);
    errno!("bad-count", hypercall3(nr::GRANT_TABLE_OP, op::MAP, 0, 1 << 31), EINVAL);
}

fn map_at(gref: u32, flags: u32, host_addr: u64) -> Map {
    let mut map = Map { host_addr, flags, gref, status: 9, handle: 0x5a5a, ..Map::default() };
    let result = one(op::MAP, &mut map);
    if result != 0 {
        errno!("map", result, 0);
    }
    map
}

fn unmap_at(handle: u32, host_addr: u64, dev_bus_addr: u64) -> i16 {
    let mut unmap = Unmap { host_addr, dev_bus_addr, handle, status: 9, ..Unmap::default() };
    let result = one(op::UNMAP, &mut unmap);
    if result != 0 {
        errno!("unmap", result, 0);
    }
    unmap.status
}

/// What is written on one side is read on the other, and the table says that the grant is in use.
fn mappings(table: Table) {
    let (page, place) = (mem::alloc(), mem::alloc());
    table.grant(8, page, PERMIT);
    let map = map_at(8, map::HOST, place);
    check!("map", map.status == 0 && map.dev_bus_addr == mem::mfn(page) << 12, "{map:x?}");
    equal!("map-flags", table.flags(8), WRITTEN);
    mem::entry(place, 3).store(0x1234, SeqCst);
    equal!("map-is-the-frame", mem::entry(page, 3).load(SeqCst), 0x1234);
    let second = mem::alloc();
    let read = map_at(8, map::HOST | map::READONLY, second);
    check!("map-again", read.status == 0 && read.handle != map.handle, "{read:x?}");
    equal!("map-again-reads", mem::entry(second, 3).load(SeqCst), 0x1234);
    let frame = pv::probe!("mov [{p}], rax"; p = in(reg) second);
    check!("map-read-only", frame.is_some_and(|f| f.vector == 14 && f.error & 3 == 3), "{frame:x?}");
    equal!("unmap", unmap_at(map.handle, place, 0), status::OKAY);
    equal!("unmap-leaves-the-other", table.flags(8), IN_USE);
    let frame = pv::probe!("mov rax, [{p}]"; p = in(reg) place);
    check!("unmapped", frame.is_some_and(|f| f.vector == 14 && f.error & 1 == 0), "{frame:x?}");
    equal!("unmap-second", unmap_at(read.handle, second, 0), status::OKAY);
    equal!("unmap-flags", table.flags(8), PERMIT);
    equal!("unmap-twice", unmap_at(read.handle, second, 0), status::BAD_HANDLE);
}

/// Page-table entries have the bits that were asked for, named by address or by where they are.
fn entries(table: Table) {
    let (page, place) = (mem::alloc(), mem::alloc());
    table.grant(9, page, PERMIT);
    let at = mem::l1_entry(place).maddr;
    let base = mem::mfn(page) << 12 | pte::P | pte::U | pte::A | pte::D | pte::NX;
    for (flags, wanted) in [
        (map::HOST, base | pte::RW | pte::GUEST_KERNEL),
        (map::HOST | map::READONLY, base | pte::GUEST_KERNEL),
        (map::HOST | map::APPLICATION, base | pte::RW | pte::G),
        (map::HOST | 7 << 16, base | pte::RW | pte::GUEST_KERNEL | (7 * pte::AVAIL)),
        (map::HOST | 0xfff8 << 16, base | pte::RW | pte::GUEST_KERNEL),
        (map::HOST | map::DEVICE, base | pte::RW | pte::GUEST_KERNEL),
    ] {
        for (address, flags) in [(place, flags), (place + 8, flags), (at, flags | map::CONTAINS_PTE)] {
            let map = map_at(9, flags, address);
            equal!(["map-entry-{flags:x}-{:x}", address & 0xfff], mem::l1_entry(place).value, wanted);
            let bus = if flags & map::DEVICE != 0 { map.dev_bus_addr } else { 0 };
            equal!(["unmap-entry-{flags:x}-{:x}", address & 0xfff], unmap_at(map.handle, address, bus), status::OKAY);
            equal!(["unmapped-entry-{flags:x}-{:x}", address & 0xfff], mem::l1_entry(place).value, 0);
        }
    }
    equal!("map-entries-flags", table.flags(9), PERMIT);
}

/// What cannot be is refused, and nothing is marked or changed.
fn refused(table: Table) {
    let (page, place) = (mem::alloc(), mem::alloc());
    let at = mem::l1_entry(place);
    let frame = mem::mfn(page) << 32;
    for (name, gref, entry, flags, host_addr, wanted) in [
        ("no-flags", 10, frame | PERMIT, 0, place, status::BAD_GNTREF),
        ("invalid", 10, frame, map::HOST, place, status::GENERAL_ERROR),
        ("transfer", 10, frame | gtf::ACCEPT_TRANSFER, map::HOST, place, status::GENERAL_ERROR),
        ("transitive", 10, frame | gtf::TRANSITIVE, map::HOST, place, status::GENERAL_ERROR),
        ("sub-page", 10, frame | PERMIT | gtf::SUB_PAGE, map::HOST, place, status::GENERAL_ERROR),
        ("read-only", 10, frame | PERMIT | gtf::READONLY, map::HOST, place, status::GENERAL_ERROR),
        ("other-domain", 10, frame | PERMIT | 7 << 16, map::HOST, place, status::GENERAL_ERROR),
        ("no-frame", 10, 0xffff_ffff << 32 | PERMIT, map::HOST, place, status::BAD_PAGE),
        ("out-of-range", 3 * 512, 0, map::HOST, place, status::BAD_GNTREF),
        ("far-out-of-range", u32::MAX, 0, map::HOST, place, status::BAD_GNTREF),
        ("no-table", 10, frame | PERMIT, map::HOST, 0x1000, status::GENERAL_ERROR),
        ("hole", 10, frame | PERMIT, map::HOST, abi::HOLE.0, status::GENERAL_ERROR),
        ("misaligned-entry", 10, frame | PERMIT, map::HOST | map::CONTAINS_PTE, at.maddr + 4, status::GENERAL_ERROR),
        (
            "entry-in-no-table",
            10,
            frame | PERMIT,
            map::HOST | map::CONTAINS_PTE,
            mem::maddr(page),
            status::GENERAL_ERROR,
        ),
        ("a-table", 10, mem::mfn(at.table) << 32 | PERMIT, map::HOST, place, status::GENERAL_ERROR),
    ] {
        if gref < 512 {
            table.write(gref, entry);
        }
        let map = map_at(gref, flags, host_addr);
        equal!(["map-{name}"], map.status, wanted);
        if gref < 512 {
            equal!(["map-{name}-flags"], table.flags(gref), entry & 0xffff);
        }
    }
    equal!("map-refused-entry", mem::l1_entry(place).value, at.value);
    table.write(10, mem::mfn(at.table) << 32 | PERMIT);
    let map = map_at(10, map::HOST | map::READONLY, place);
    equal!("map-a-table-read-only", map.status, status::OKAY);
    equal!("unmap-a-table", unmap_at(map.handle, place, 0), status::OKAY);
    let mut map = Map { host_addr: place, flags: map::HOST, gref: 10, dom: 0x7fe0, ..Map::default() };
    errno!("map-of-nobody", one(op::MAP, &mut map), 0);
    equal!("map-of-nobody-status", map.status, status::BAD_DOMAIN);
}

/// An unmap names what was mapped, part by part.
fn ends(table: Table) {
    let (page, place, other) = (mem::alloc(), mem::alloc(), mem::alloc());
    table.grant(11, page, PERMIT);
    let map = map_at(11, map::HOST | map::DEVICE, place);
    let (handle, bus) = (map.handle, map.dev_bus_addr);
    for (name, handle, host, bus, wanted) in [
        ("other-handle", handle ^ 64, place, 0, status::BAD_HANDLE),
        ("no-handle", u32::MAX, place, 0, status::BAD_HANDLE),
        ("other-place", handle, other, 0, status::GENERAL_ERROR),
        ("no-place", handle, 0x1000, 0, status::GENERAL_ERROR),
        ("other-bus-address", handle, place, bus + 4096, status::BAD_DEV_ADDR),
        ("nothing", handle, 0, 0, status::OKAY),
    ] {
        equal!(["unmap-{name}"], unmap_at(handle, host, bus), wanted);
        equal!(["unmap-{name}-flags"], table.flags(11), WRITTEN);
    }
    equal!("unmap-host-part", unmap_at(handle, place, 0), status::OKAY);
    equal!("unmap-host-part-flags", table.flags(11), WRITTEN);
    equal!("unmap-device-part", unmap_at(handle, 0, bus), status::OKAY);
    equal!("unmap-device-part-flags", table.flags(11), PERMIT);
}

/// An entry that the domain changed itself is not what was mapped any more.
fn changed(table: Table) {
    let (page, place) = (mem::alloc(), mem::alloc());
    table.grant(12, page, PERMIT);
    let map = map_at(12, map::HOST, place);
    let value = mem::l1_entry(place).value;
    mem::remap(place, value & !pte::RW);
    equal!("unmap-fewer-rights", unmap_at(map.handle, place, 0), status::GENERAL_ERROR);
    mem::remap(place, 0);
    equal!("unmap-no-entry", unmap_at(map.handle, place, 0), status::GENERAL_ERROR);
    equal!("unmap-failed-flags", table.flags(12), WRITTEN);
    let again = map_at(12, map::HOST, place);
    equal!("unmap-by-another-entry", unmap_at(map.handle, place, 0), status::OKAY);
    equal!("unmap-of-that-one", unmap_at(again.handle, place, 0), status::GENERAL_ERROR);
    mem::remap(place, value);
    equal!("unmap-an-entry-of-its-own", unmap_at(again.handle, place, 0), status::OKAY);
    equal!("unmap-all-flags", table.flags(12), PERMIT);
    // The references went with the entries: the frame can become a table again.
    mem::make_ro(page);
    errno!("frame-is-free-of-writers", pv::hypercall::mmuext_op(abi::mmuext::PIN_L1, mem::mfn(page), 0), 0);
    errno!("frame-unpinned", pv::hypercall::mmuext_op(abi::mmuext::UNPIN, mem::mfn(page), 0), 0);
    mem::make_rw(page);
}

/// Lists that are longer than a batch, with mistakes in them.
fn lists(table: Table) {
    const COUNT: usize = 70;
    let (page, places) = (mem::alloc(), mem::alloc_contiguous(COUNT));
    table.grant(13, page, PERMIT);
    let place = |n: usize| places + n as u64 * mem::PAGE;
    let mut maps: [Map; COUNT] = core::array::from_fn(|n| Map {
        host_addr: place(n),
        flags: map::HOST,
        gref: if n % 10 == 9 { 14 } else { 13 },
        status: 9,
        ..Map::default()
    });
    table.write(14, 0);
    errno!("map-list", list(op::MAP, &mut maps), 0);
    let right = |n: usize, s: i16| s == if n % 10 == 9 { status::GENERAL_ERROR } else { status::OKAY };
    check!("map-list-statuses", maps.iter().enumerate().all(|(n, m)| right(n, m.status)));
    let mut unmaps: [Unmap; COUNT] = core::array::from_fn(|n| Unmap {
        host_addr: place(n),
        handle: if n % 10 == 9 { u32::MAX } else { maps[n].handle },
        status: 9,
        ..Unmap::default()
    });
    errno!("unmap-list", list(op::UNMAP, &mut unmaps), 0);
    let right = |n: usize, s: i16| s == if n % 10 == 9 { status::BAD_HANDLE } else { status::OKAY };
    check!("unmap-list-statuses", unmaps.iter().enumerate().all(|(n, u)| right(n, u.status)));
    equal!("unmap-list-flags", table.flags(13), PERMIT);
}

/// The entry of another page takes the place of a mapping.
fn replaced(table: Table) {
    let (page, place, other) = (mem::alloc(), mem::alloc(), mem::alloc());
    table.grant(15, page, PERMIT);
    let map = map_at(15, map::HOST, place);
    let moved = mem::l1_entry(other).value;
    let mut replace = Replace { host_addr: place, new_addr: 0x1000, handle: map.handle, status: 9, pad: 0 };
    errno!("replace-by-nothing", one(op::UNMAP_AND_REPLACE, &mut replace), 0);
    equal!("replace-by-nothing-status", replace.status, status::GENERAL_ERROR);
    replace.new_addr = other;
    errno!("replace", one(op::UNMAP_AND_REPLACE, &mut replace), 0);
    equal!("replace-status", replace.status, status::OKAY);
    equal!("replace-moved", mem::l1_entry(place).value & !(pte::A | pte::D), moved & !(pte::A | pte::D));
    equal!("replace-emptied", mem::l1_entry(other).value, 0);
    equal!("replace-flags", table.flags(15), PERMIT);
}

fn copy(source: End, dest: End, len: u16, flags: u16) -> i16 {
    let mut copy = Copy { source, dest, len, flags, status: 9, pad: 0 };
    let result = one(op::COPY, &mut copy);
    if result != 0 {
        errno!("copy", result, 0);
    }
    copy.status
}

fn own(page: u64, offset: u16) -> End {
    End { frame: mem::mfn(page), dom: SELF, offset, pad: 0 }
}

fn granted(gref: u64, offset: u16) -> End {
    End { frame: gref, dom: 0, offset, pad: 0 }
}

/// Copies move bytes between frames, granted or not, and end at their edges.
fn copies(table: Table) {
    let (from, to) = (mem::alloc(), mem::alloc());
    for n in 0..512 {
        mem::entry(from, n).store(n as u64, SeqCst);
    }
    table.grant(16, to, PERMIT);
    table.grant(17, to, PERMIT | gtf::READONLY);
    table.write(18, 0);
    equal!("copy-to-grant", copy(own(from, 8), granted(16, 4088), 8, COPY_DEST_GREF), status::OKAY);
    equal!("copy-to-grant-value", mem::entry(to, 511).load(SeqCst), 1);
    equal!("copy-from-grant", copy(granted(17, 4088), own(from, 0), 8, COPY_SOURCE_GREF), status::OKAY);
    equal!("copy-from-grant-value", mem::entry(from, 0).load(SeqCst), 1);
    equal!("copy-page", copy(own(from, 0), own(to, 0), 4096, 0), status::OKAY);
    let differ = (0..512).filter(|&n| mem::entry(from, n).load(SeqCst) != mem::entry(to, n).load(SeqCst)).count();
    equal!("copy-page-value", differ, 0);
    equal!("copy-odd", copy(own(from, 13), own(to, 29), 1001, 0), status::OKAY);
    // SAFETY: two pages of the pool.
    let bytes = |page: u64, at| unsafe { core::slice::from_raw_parts((page + at) as *const u8, 1001) };
    check!("copy-odd-value", bytes(from, 13) == bytes(to, 29));
    equal!("copy-both-granted", copy(granted(17, 0), granted(16, 2048), 64, 3), status::OKAY);
    let here = mem::l1_entry(from).table;
    for (name, source, dest, len, flags, wanted) in [
        ("beyond-source", own(from, 4089), granted(16, 0), 8, COPY_DEST_GREF, status::BAD_COPY_ARG),
        ("beyond-dest", own(from, 0), granted(16, 4096), 1, COPY_DEST_GREF, status::BAD_COPY_ARG),
        ("far-beyond", own(from, u16::MAX), granted(16, 0), u16::MAX, COPY_DEST_GREF, status::BAD_COPY_ARG),
        ("to-read-only", own(from, 0), granted(17, 0), 8, COPY_DEST_GREF, status::GENERAL_ERROR),
        ("to-no-grant", own(from, 0), granted(18, 0), 8, COPY_DEST_GREF, status::GENERAL_ERROR),
        ("out-of-range", own(from, 0), granted(1 << 20, 0), 8, COPY_DEST_GREF, status::BAD_GNTREF),
        ("frame-of-a-domain", own(from, 0), granted(16, 0), 8, 0, status::PERMISSION_DENIED),
        ("to-a-table", own(from, 0), own(here, 0), 8, 0, status::GENERAL_ERROR),
        ("from-no-frame", End { frame: u64::MAX >> 12, ..own(from, 0) }, own(to, 0), 8, 0, status::BAD_PAGE),
        ("of-nobody", own(from, 0), End { dom: 0x7fe0, ..granted(16, 0) }, 8, COPY_DEST_GREF, status::BAD_DOMAIN),
    ] {
        equal!(["copy-{name}"], copy(source, dest, len, flags), wanted);
        equal!(["copy-{name}-flags"], table.flags(16), PERMIT);
    }
    equal!("copy-from-a-table", copy(own(here, 0), own(to, 0), 8, 0), status::OKAY);
    let mut list_of = [Copy { source: own(from, 0), dest: own(to, 0), len: 8, flags: 0, status: 9, pad: 0 }; 40];
    list_of[20].source.offset = 4090;
    errno!("copy-list", list(op::COPY, &mut list_of), 0);
    let right = |n: usize, s: i16| s == if n == 20 { status::BAD_COPY_ARG } else { status::OKAY };
    check!("copy-list-statuses", list_of.iter().enumerate().all(|(n, c)| right(n, c.status)));
}

fn swapped(table: Table) {
    let (a, b, place) = (mem::alloc(), mem::alloc(), mem::alloc());
    table.grant(20, a, PERMIT);
    table.grant(21, b, PERMIT | gtf::READONLY);
    let mut swap = Swap { a: 20, b: 21, status: 9 };
    errno!("swap", one(op::SWAP, &mut swap), 0);
    equal!("swap-status", swap.status, status::OKAY);
    equal!("swap-flags", table.flags(20), PERMIT | gtf::READONLY);
    let map = map_at(21, map::HOST, place);
    equal!("swap-frame", map.dev_bus_addr, mem::mfn(a) << 12);
    errno!("swap-in-use", one(op::SWAP, &mut swap), 0);
    equal!("swap-in-use-status", swap.status, status::EAGAIN);
    let mut far = Swap { a: 20, b: 1 << 20, status: 9 };
    errno!("swap-far", one(op::SWAP, &mut far), 0);
    equal!("swap-far-status", far.status, status::BAD_GNTREF);
    equal!("swap-unmap", unmap_at(map.handle, place, 0), status::OKAY);
}

/// Version 2: entries of 16 bytes, parts of pages, marks in frames of their own; and back.
fn second_version(table: Table) {
    let (page, other, place) = (mem::alloc(), mem::alloc(), mem::alloc());
    table.grant(1, page, PERMIT);
    table.grant(30, page, PERMIT);
    let mut version = 3u32;
    errno!("set-version-3", one(op::SET_VERSION, &mut version), EINVAL);
    equal!("set-version-3-answer", version, 1);
    version = 2;
    let used = map_at(30, map::HOST, place);
    errno!("set-version-in-use", one(op::SET_VERSION, &mut version), EBUSY);
    equal!("set-version-in-use-unmap", unmap_at(used.handle, place, 0), status::OKAY);
    let used = map_at(1, map::HOST, place);
    version = 2;
    errno!("set-version-2", one(op::SET_VERSION, &mut version), 0);
    equal!("set-version-2-answer", version, 2);
    let Some(words) = StatusWords::map() else {
        check!("get-status-frames", false);
        return;
    };
    equal!("reserved-entry-kept", words.get(1), gtf::READING | gtf::WRITING);
    equal!("reserved-entry-unmap", unmap_at(used.handle, place, 0), status::OKAY);
    equal!("reserved-entry-unmapped", words.get(1), 0);
    equal!("other-entry-cleared", map_at(30, map::HOST, place).status, status::GENERAL_ERROR);
    mem::entry(page, 12).store(99, SeqCst);
    table.write_v2(30, PERMIT | gtf::SUB_PAGE, 96 | 16 << 16, mem::mfn(page));
    equal!("map-sub-page", map_at(30, map::HOST, place).status, status::GENERAL_ERROR);
    for (name, offset, len, wanted) in [
        ("inside", 96, 16, status::OKAY),
        ("before", 95, 8, status::GENERAL_ERROR),
        ("behind", 105, 8, status::GENERAL_ERROR),
        ("beyond-page", 4095, 2, status::BAD_COPY_ARG),
    ] {
        let result = copy(granted(30, offset), own(other, 0), len, COPY_SOURCE_GREF);
        equal!(["copy-sub-page-{name}"], result, wanted);
        equal!(["copy-sub-page-{name}-status"], words.get(30), 0);
    }
    equal!("copy-sub-page-value", mem::entry(other, 0).load(SeqCst), 99);
    table.write_v2(30, PERMIT, 0, mem::mfn(page));
    let map = map_at(30, map::HOST | map::READONLY, place);
    check!("map-version-2", map.status == 0 && words.get(30) == gtf::READING, "{map:x?} {:x}", words.get(30));
    equal!("unmap-version-2", unmap_at(map.handle, place, 0), status::OKAY);
    equal!("unmap-version-2-status", words.get(30), 0);
    table.write_v2(31, gtf::TRANSITIVE, 0, 30);
    let result = copy(granted(31, 0), own(other, 0), 8, COPY_SOURCE_GREF);
    equal!("copy-transitive-to-itself", result, status::GENERAL_ERROR);
    table.write_v2(3, gtf::TRANSITIVE, 0, 30);
    version = 1;
    errno!("set-version-1-cannot-say", one(op::SET_VERSION, &mut version), ERANGE);
    table.write_v2(3, 0, 0, 0);
    version = 1;
    errno!("set-version-1-status-mapped", one(op::SET_VERSION, &mut version), EBUSY);
    words.unmap();
    version = 1;
    errno!("set-version-1", one(op::SET_VERSION, &mut version), 0);
    equal!("reserved-entry-back", table.flags(1), PERMIT);
    equal!("other-entry-gone", table.flags(30), 0);
    equal!("map-after-all", map_at(1, map::HOST, place).status, status::OKAY);
}
