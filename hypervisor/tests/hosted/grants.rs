// SPDX-License-Identifier: MIT OR Apache-2.0
//! Grants through the dispatcher: dom0 and another domain lend each other frames.

use arch::guest::Access;
use hypercalls::grant::*;
use hypercalls::mmu::{MmuUpdate, MmuextCmd, MmuextOp};
use hypercalls::{DomId, GuestVa, HypercallNr, Mfn, VcpuId};
use hypervisor::testing::guest::{self, TABLES, args_of, va};
use mm::PageType;
use mm::flags::{GUEST_KERNEL, P, RW, US, entry_for};
use mm::hosted::{peek, poke};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::pair::Pair;

/// Where lists are put, and where frames that take part are mapped.
const LIST: u64 = va(args_of(VcpuId(0)));
const FRAME: usize = 40;
const OTHER: usize = 41;
const HOST: u32 = GNTMAP_HOST_MAP;
const PERMIT: u16 = GTF_PERMIT_ACCESS;

impl Pair {
    fn mfn(&self, who: usize, pfn: usize) -> Mfn {
        self.0.guests[who].p2m[pfn]
    }

    /// `who` grants one of its frames to the other domain.
    fn grant(&self, who: usize, gref: u32, pfn: usize, flags: u16) {
        let table = self.0.guests[who].domain.grants.frame(0).expect("a table");
        poke(table, gref as usize, self.mfn(who, pfn).0 << 32 | (1 - who as u64) << 16 | u64::from(flags));
    }

    fn granted_flags(&self, who: usize, gref: u32) -> u16 {
        peek(self.0.guests[who].domain.grants.frame(0).expect("a table"), gref as usize) as u16
    }

    /// The current vCPU makes an operation on a list, which must succeed as such; returns the list as it is then.
    fn list<T: IntoBytes + FromBytes + Immutable>(&mut self, op: GnttabOp, list: &[T]) -> Vec<T> {
        assert!(guest::write(LIST, list.as_bytes()));
        assert_eq!(self.call(HypercallNr::GRANT_TABLE_OP, [u64::from(op.0), LIST, list.len() as u64, 0, 0]), 0);
        let mut bytes = vec![0; size_of_val(list)];
        arch::guest::copy_from(&mut bytes, GuestVa(LIST)).expect("mapped");
        let chunks = bytes.chunks(size_of::<T>());
        chunks.map(|chunk| T::read_from_bytes(chunk).expect("that many bytes")).collect()
    }

    fn map(&mut self, gref: u32, flags: u32, host_addr: u64) -> Result<GnttabMap, GrantStatus> {
        let dom = DomId(1 - self.0.go_back().expect("a vCPU runs").domid.0);
        let op = GnttabMap { host_addr, flags, gref, dom, ..GnttabMap::default() };
        let done = self.list(GnttabOp::MAP_GRANT_REF, &[op])[0];
        if done.status == GrantStatus::OKAY { Ok(done) } else { Err(done.status) }
    }

    fn unmap(&mut self, handle: u32, host_addr: u64, dev_bus_addr: u64) -> GrantStatus {
        let op = GnttabUnmap { host_addr, dev_bus_addr, handle, ..GnttabUnmap::default() };
        self.list(GnttabOp::UNMAP_GRANT_REF, &[op])[0].status
    }

    fn copy(&mut self, source: GnttabCopyPtr, dest: GnttabCopyPtr, len: u16, flags: u16) -> GrantStatus {
        let op = GnttabCopy { source, dest, len, flags, ..GnttabCopy::default() };
        self.list(GnttabOp::COPY, &[op])[0].status
    }

    /// Where the kernel's page-table entry for a page is.
    fn entry_of(&self, who: usize, pfn: usize) -> u64 {
        self.mfn(who, TABLES[3]).maddr().0 + pfn as u64 * 8
    }

    fn set_entry(&mut self, at: u64, val: u64) -> i64 {
        assert!(guest::write(LIST, MmuUpdate { ptr: at, val }.as_bytes()));
        self.call(HypercallNr::MMU_UPDATE, [LIST, 1, 0, u64::from(DomId::SELF.0), 0])
    }
}

fn own(mfn: Mfn, offset: u16) -> GnttabCopyPtr {
    GnttabCopyPtr { gmfn: mfn.0, domid: DomId::SELF, offset, ..GnttabCopyPtr::default() }
}

fn granted(dom: u16, gref: u32, offset: u16) -> GnttabCopyPtr {
    GnttabCopyPtr { gmfn: u64::from(gref), domid: DomId(dom), offset, ..GnttabCopyPtr::default() }
}

#[test]
fn what_one_domain_writes_into_a_granted_frame_the_other_reads() {
    let mut w = Pair::new();
    w.grant(1, 9, FRAME, PERMIT);
    w.on(0);
    let mapped = w.map(9, HOST, va(OTHER)).expect("granted");
    assert_eq!(mapped.dev_bus_addr, w.mfn(1, FRAME).maddr().0);
    assert!(guest::write(va(OTHER) + 8, &77u64.to_le_bytes()));
    w.on(1);
    assert_eq!(guest::read(va(FRAME) + 8), 77);
    assert_eq!(w.granted_flags(1, 9), PERMIT | GTF_READING | GTF_WRITING);
    w.on(0);
    assert_eq!(w.unmap(mapped.handle, va(OTHER), 0), GrantStatus::OKAY);
    assert!(arch::guest::access(GuestVa(va(OTHER)), Access::Read).is_err(), "no translation survives");
    assert_eq!(w.granted_flags(1, 9), PERMIT);
    assert_eq!(w.unmap(mapped.handle, va(OTHER), 0), GrantStatus::BAD_HANDLE);
    w.0.finish();
}

#[test]
fn the_entry_that_is_written_has_the_bits_that_were_asked_for() {
    let mut w = Pair::new();
    w.grant(1, 9, FRAME, PERMIT);
    w.on(0);
    let (at, frame) = (w.entry_of(0, OTHER), w.mfn(1, FRAME));
    let always = P | mm::flags::A | mm::flags::D | mm::flags::NX | US;
    for (flags, wanted) in [
        (HOST, always | RW | GUEST_KERNEL),
        (HOST | GNTMAP_READONLY, always | GUEST_KERNEL),
        (HOST | GNTMAP_APPLICATION_MAP, always | RW | mm::flags::G),
        (HOST | 5 << 16, always | RW | GUEST_KERNEL | 5 << 9),
        (HOST | 0xfff8 << 16, always | RW | GUEST_KERNEL),
    ] {
        for (address, flags) in [(va(OTHER), flags), (at, flags | GNTMAP_CONTAINS_PTE)] {
            let mapped = w.map(9, flags, address).expect("granted");
            assert_eq!(peek(w.mfn(0, TABLES[3]), OTHER), entry_for(frame, wanted), "flags {flags:#x}");
            assert_eq!(w.unmap(mapped.handle, address, 0), GrantStatus::OKAY);
        }
    }
    w.0.finish();
}

#[test]
fn a_mapping_is_refused_where_it_cannot_be() {
    let mut w = Pair::new();
    w.grant(1, 9, FRAME, PERMIT);
    w.grant(1, 10, TABLES[3], PERMIT);
    w.on(0);
    for (gref, flags, address, wanted) in [
        (9, 0, va(OTHER), GrantStatus::BAD_GNTREF),
        (9, HOST, 0x1000, GrantStatus::GENERAL_ERROR),
        (9, HOST, hypercalls::addr::HOLE_START, GrantStatus::GENERAL_ERROR),
        (9, HOST, u64::MAX, GrantStatus::GENERAL_ERROR),
        (9, HOST | GNTMAP_CONTAINS_PTE, w.entry_of(0, OTHER) + 4, GrantStatus::GENERAL_ERROR),
        (9, HOST | GNTMAP_CONTAINS_PTE, w.entry_of(1, OTHER), GrantStatus::GENERAL_ERROR),
        (9, HOST | GNTMAP_CONTAINS_PTE, w.mfn(0, FRAME).maddr().0, GrantStatus::GENERAL_ERROR),
        (9, HOST | GNTMAP_CONTAINS_PTE, !7, GrantStatus::GENERAL_ERROR),
        (10, HOST, va(OTHER), GrantStatus::GENERAL_ERROR),
        (512, HOST, va(OTHER), GrantStatus::BAD_GNTREF),
    ] {
        assert_eq!(w.map(gref, flags, address).expect_err("refused"), wanted, "{gref} {flags:#x} {address:#x}");
        assert_eq!(w.granted_flags(1, 9), PERMIT, "XSA-227");
    }
    assert_eq!(guest::read(va(OTHER)), 0, "still mapped");
    let nobody = GnttabMap { host_addr: va(OTHER), flags: HOST, gref: 9, dom: DomId(7), ..GnttabMap::default() };
    assert_eq!(w.list(GnttabOp::MAP_GRANT_REF, &[nobody])[0].status, GrantStatus::BAD_DOMAIN);
    w.0.finish();
}

#[test]
fn an_unmap_must_name_what_was_mapped() {
    let mut w = Pair::new();
    w.grant(1, 9, FRAME, PERMIT);
    w.on(0);
    let both = w.map(9, HOST | GNTMAP_DEVICE_MAP, va(OTHER)).expect("granted");
    let bus = both.dev_bus_addr;
    for (handle, host, bus, wanted) in [
        (both.handle + 1, va(OTHER), 0, GrantStatus::BAD_HANDLE),
        (u32::MAX, va(OTHER), 0, GrantStatus::BAD_HANDLE),
        (both.handle, va(FRAME), 0, GrantStatus::GENERAL_ERROR),
        (both.handle, 0x1000, 0, GrantStatus::GENERAL_ERROR),
        (both.handle, va(OTHER), bus + 1, GrantStatus::BAD_DEV_ADDR),
        (both.handle, 0, 0, GrantStatus::OKAY),
    ] {
        assert_eq!(w.unmap(handle, host, bus), wanted);
        assert_eq!(w.granted_flags(1, 9), PERMIT | GTF_READING | GTF_WRITING);
    }
    // One part after the other (XSA-224): the frame stays as long as one of them does.
    assert_eq!(w.unmap(both.handle, va(OTHER), 0), GrantStatus::OKAY);
    assert_eq!(w.granted_flags(1, 9), PERMIT | GTF_READING | GTF_WRITING);
    assert_eq!(w.unmap(both.handle, va(OTHER), 0), GrantStatus::OKAY, "nothing is left to do there");
    assert_eq!(w.unmap(both.handle, 0, bus), GrantStatus::OKAY);
    assert_eq!(w.granted_flags(1, 9), PERMIT);
    assert_eq!(w.unmap(both.handle, 0, bus), GrantStatus::BAD_HANDLE);
    w.0.finish();
}

/// XSA-234: what the guest did to the entry itself counts.
#[test]
fn an_entry_that_the_mapper_changed_cannot_be_unmapped_and_leaks_nothing() {
    let mut w = Pair::new();
    w.grant(0, 9, FRAME, PERMIT);
    w.on(1);
    let at = w.entry_of(1, OTHER);
    let first = w.map(9, HOST, va(OTHER)).expect("granted");
    let entry = peek(w.mfn(1, TABLES[3]), OTHER);
    assert_eq!(w.set_entry(at, entry & !RW), 0, "it may give up rights");
    assert_eq!(w.unmap(first.handle, va(OTHER), 0), GrantStatus::GENERAL_ERROR);
    assert!(w.set_entry(at, entry) < 0, "and not get them back");
    assert_eq!(w.set_entry(at, 0), 0);
    assert_eq!(w.unmap(first.handle, va(OTHER), 0), GrantStatus::GENERAL_ERROR);
    assert!(w.set_entry(at, entry & !RW) < 0);
    // The grant is in use as long as there is the handle; another mapping's entry serves to end it.
    assert_eq!(w.granted_flags(0, 9), PERMIT | GTF_READING | GTF_WRITING);
    let second = w.map(9, HOST, va(OTHER)).expect("granted");
    assert_eq!(w.unmap(first.handle, va(OTHER), 0), GrantStatus::OKAY);
    assert_eq!(w.unmap(second.handle, va(OTHER), 0), GrantStatus::GENERAL_ERROR);
    // It goes with the domain.
    w.0.finish();
}

#[test]
fn one_flush_serves_a_whole_list() {
    let mut w = Pair::new();
    let count = 20;
    (0..count).for_each(|n| w.grant(1, n, FRAME, PERMIT));
    w.on(0);
    let place = |n: u32| va(16 + n as usize);
    let op = |n| GnttabMap { host_addr: place(n), flags: HOST, gref: n, dom: DomId(1), ..GnttabMap::default() };
    let maps: Vec<GnttabMap> = (0..count).map(op).collect();
    let before = arch::tlb::full_flushes();
    let maps = w.list(GnttabOp::MAP_GRANT_REF, &maps);
    assert_eq!(arch::tlb::full_flushes(), before, "mapping flushes nothing");
    let unmaps: Vec<GnttabUnmap> = maps
        .iter()
        .map(|m| GnttabUnmap { host_addr: m.host_addr, handle: m.handle, ..GnttabUnmap::default() })
        .collect();
    let unmaps = w.list(GnttabOp::UNMAP_GRANT_REF, &unmaps);
    assert!(maps.iter().all(|m| m.status == GrantStatus::OKAY) && unmaps.iter().all(|u| u.status == GrantStatus::OKAY));
    assert_eq!(arch::tlb::full_flushes(), before + 1);
    w.0.finish();
}

#[test]
fn a_mapping_is_replaced_by_another_entry() {
    let mut w = Pair::new();
    w.grant(1, 9, FRAME, PERMIT);
    w.on(0);
    let table = w.mfn(0, TABLES[3]);
    let mapped = w.map(9, HOST, va(OTHER)).expect("granted");
    let moved = peek(table, FRAME);
    let mut replace = |host_addr, new_addr| {
        let op = GnttabUnmapAndReplace { host_addr, new_addr, handle: mapped.handle, ..Default::default() };
        w.list(GnttabOp::UNMAP_AND_REPLACE, &[op])[0].status
    };
    for (host, new) in [(va(OTHER), 0x1000), (va(OTHER), va(OTHER)), (va(FRAME), va(OTHER))] {
        assert_eq!(replace(host, new), GrantStatus::GENERAL_ERROR);
        assert_eq!(peek(table, FRAME), moved, "nothing is lost by a mistake");
    }
    assert_eq!(replace(va(OTHER), va(FRAME)), GrantStatus::OKAY);
    assert_eq!((peek(table, OTHER), peek(table, FRAME)), (moved, 0));
    assert_eq!(w.granted_flags(1, 9), PERMIT);
    w.0.finish();
}

#[test]
fn copies_go_both_ways_and_stay_within_their_pages() {
    let mut w = Pair::new();
    w.grant(1, 9, FRAME, PERMIT);
    w.grant(1, 10, OTHER, PERMIT | GTF_READONLY);
    let (mine, theirs) = (w.mfn(0, FRAME), w.mfn(1, FRAME));
    (0..512).for_each(|n| poke(mine, n, n as u64));
    w.on(0);
    assert_eq!(w.copy(own(mine, 8), granted(1, 9, 4088), 8, GNTCOPY_DEST_GREF), GrantStatus::OKAY);
    assert_eq!((peek(theirs, 511), peek(theirs, 0)), (1, 0));
    assert_eq!(w.copy(granted(1, 9, 4088), own(mine, 0), 8, GNTCOPY_SOURCE_GREF), GrantStatus::OKAY);
    assert_eq!(peek(mine, 0), 1);
    assert_eq!(w.copy(own(mine, 0), granted(1, 9, 0), 4096, GNTCOPY_DEST_GREF), GrantStatus::OKAY);
    assert_eq!((peek(theirs, 0), peek(theirs, 511)), (1, 511));
    // Onto itself, a byte further on: upwards, as a string move does it.
    assert_eq!(w.copy(own(mine, 4080), own(mine, 4081), 15, 0), GrantStatus::OKAY);
    for (source, dest, len, flags, wanted) in [
        (own(mine, 4089), granted(1, 9, 0), 8, GNTCOPY_DEST_GREF, GrantStatus::BAD_COPY_ARG),
        (own(mine, 0), granted(1, 9, 4096), 1, GNTCOPY_DEST_GREF, GrantStatus::BAD_COPY_ARG),
        (own(mine, u16::MAX), granted(1, 9, 0), u16::MAX, GNTCOPY_DEST_GREF, GrantStatus::BAD_COPY_ARG),
        (own(mine, 0), granted(1, 10, 0), 8, GNTCOPY_DEST_GREF, GrantStatus::GENERAL_ERROR),
        (own(mine, 0), granted(1, 11, 0), 8, GNTCOPY_DEST_GREF, GrantStatus::GENERAL_ERROR),
        (own(mine, 0), granted(1, 512, 0), 8, GNTCOPY_DEST_GREF, GrantStatus::BAD_GNTREF),
        (own(mine, 0), granted(7, 9, 0), 8, GNTCOPY_DEST_GREF, GrantStatus::BAD_DOMAIN),
        (own(mine, 0), granted(0, 9, 0), 8, 0, GrantStatus::PERMISSION_DENIED),
        (own(theirs, 0), own(mine, 0), 8, 0, GrantStatus::BAD_PAGE),
        (own(mine, 0), own(w.mfn(0, TABLES[3]), 0), 8, 0, GrantStatus::GENERAL_ERROR),
        (own(Mfn(u64::MAX), 0), granted(9, 9, 0), 0, 0, GrantStatus::OKAY),
    ] {
        assert_eq!(w.copy(source, dest, len, flags), wanted, "{source:?} to {dest:?}");
        assert_eq!(w.granted_flags(1, 9), PERMIT);
    }
    assert_eq!(w.copy(granted(1, 10, 0), own(mine, 0), 8, GNTCOPY_SOURCE_GREF), GrantStatus::OKAY);
    w.0.finish();
}

#[test]
fn what_was_granted_to_a_domain_it_may_pass_on() {
    let mut w = Pair::new();
    w.grant(1, 9, FRAME, PERMIT);
    let (mine, theirs) = (w.mfn(0, FRAME), w.mfn(1, FRAME));
    poke(theirs, 0, 4711);
    w.on(0);
    assert!(guest::write(LIST, GnttabSetVersion { version: 2 }.as_bytes()));
    assert_eq!(w.call(HypercallNr::GRANT_TABLE_OP, [u64::from(GnttabOp::SET_VERSION.0), LIST, 1, 0, 0]), 0);
    let table = w.0.guests[0].domain.grants.frame(0).expect("a table");
    // Entry 12 of dom0's passes entry 9 of the other domain's on to dom0 itself, entry 13 passes 12 on.
    poke(table, 24, 1 << 32 | u64::from(GTF_TRANSITIVE));
    poke(table, 25, 9);
    poke(table, 26, u64::from(GTF_TRANSITIVE));
    poke(table, 27, 12);
    let copy = |w: &mut Pair, gref| w.copy(granted(0, gref, 0), own(mine, 0), 8, GNTCOPY_SOURCE_GREF);
    assert_eq!(copy(&mut w, 12), GrantStatus::OKAY);
    assert_eq!(peek(mine, 0), 4711);
    assert_eq!(w.granted_flags(1, 9), PERMIT);
    assert_eq!(copy(&mut w, 13), GrantStatus::GENERAL_ERROR, "once only, and never to oneself");
    let map = GnttabMap { host_addr: va(OTHER), flags: HOST, gref: 12, dom: DomId(0), ..GnttabMap::default() };
    assert_eq!(w.list(GnttabOp::MAP_GRANT_REF, &[map])[0].status, GrantStatus::GENERAL_ERROR);
    w.grant(1, 9, FRAME, PERMIT | GTF_READONLY);
    let back = w.copy(own(mine, 0), granted(0, 12, 0), 8, GNTCOPY_DEST_GREF);
    assert_eq!(back, GrantStatus::GENERAL_ERROR, "no more rights than the giver has");
    w.0.finish();
}

/// A stale writable translation of a page table would be the end: the mapper drops its entry without a flush, and the granter
/// makes the frame a table.
#[test]
fn a_frame_that_was_mapped_elsewhere_becomes_a_table_only_when_nobody_can_write_it() {
    let mut w = Pair::new();
    w.grant(0, 9, FRAME, PERMIT);
    w.on(1);
    w.map(9, HOST, va(OTHER)).expect("granted");
    assert!(guest::write(va(OTHER), &[0; 8]));
    let at = w.entry_of(1, OTHER);
    assert_eq!(w.set_entry(at, 0), 0);
    assert!(guest::write(va(OTHER), &[0; 8]), "stale, as on hardware");
    w.on(0);
    let (at, frame) = (w.entry_of(0, FRAME), w.mfn(0, FRAME));
    assert_eq!(w.set_entry(at, entry_for(frame, P | US | GUEST_KERNEL)), 0);
    let pin = MmuextOp { cmd: MmuextCmd::PIN_L1_TABLE, arg1: frame.0, ..MmuextOp::default() };
    assert!(guest::write(LIST, pin.as_bytes()));
    assert_eq!(w.call(HypercallNr::MMUEXT_OP, [LIST, 1, 0, u64::from(DomId::SELF.0), 0]), 0);
    assert_eq!(mm::page_info(frame).map(|s| s.page_type), Some(PageType::L1));
    w.on(1);
    assert!(!guest::write(va(OTHER), &[0; 8]));
    w.0.finish();
}

#[test]
fn numbers_that_make_no_sense() {
    let mut w = Pair::new();
    w.on(0);
    let errno = |e: hypercalls::Errno| e.to_ret();
    let mut call = |op: u64, at: u64, count: u64| w.call(HypercallNr::GRANT_TABLE_OP, [op, at, count, 0, 0]);
    use hypercalls::Errno::{EFAULT, EINVAL, ENOSYS, EOPNOTSUPP};
    assert_eq!(call(0, LIST, 1 << 31), errno(EINVAL));
    assert_eq!(call(1 << 12, LIST, 1), errno(EINVAL));
    assert_eq!(call(0, hypercalls::addr::HOLE_START - 32, 2), errno(EFAULT));
    assert_eq!(call(5, u64::MAX - 39, 2), errno(EFAULT));
    assert_eq!(call(1, 0x1000, 1), errno(EFAULT));
    assert_eq!(call(0, 0x1000, 0), 0);
    assert_eq!(call(2, LIST, 0), errno(EINVAL));
    assert_eq!(
        (call(3, LIST, 1), call(4, LIST, 1), call(12, LIST, 1)),
        (errno(ENOSYS), errno(EOPNOTSUPP), errno(ENOSYS))
    );
    assert_eq!((call(13, LIST, 1), call(0xfff, LIST, 1)), (errno(ENOSYS), errno(ENOSYS)));
    w.0.finish();
}
