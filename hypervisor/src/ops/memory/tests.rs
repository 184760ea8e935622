// SPDX-License-Identifier: MIT OR Apache-2.0
//! `memory_op` as dom0's tools call it for another domain, and as domains call it that may not.

use hypercalls::domctl::DomctlCmd;
use hypercalls::domctl_args::{GetDomainInfo, MaxMem};
use hypercalls::memory::*;
use hypercalls::sysctl::SysctlCmd;
use hypercalls::sysctl_args::Physinfo;
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr, Mfn, Pfn};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::testing::guest;
use crate::testing::tools::{ARGUMENT, BUFFER, as_domain, domctl, read, sysctl, world};
use crate::testing::world::World;

/// Nobody's memory.
const NOWHERE: u64 = 0x10_0000;

fn memory_at<T>(world: &mut World, op: MemoryOp, start: u64, argument: &T) -> (i64, T)
where
    T: IntoBytes + Immutable + FromBytes,
{
    assert!(guest::write(ARGUMENT, argument.as_bytes()), "the page for arguments is mapped");
    let result = world.call(HypercallNr::MEMORY_OP, [start << MEMOP_EXTENT_SHIFT | u64::from(op.0), ARGUMENT, 0, 0, 0]);
    (result, read(ARGUMENT))
}

fn memory<T: IntoBytes + Immutable + FromBytes>(world: &mut World, op: MemoryOp, argument: &T) -> i64 {
    memory_at(world, op, 0, argument).0
}

fn claim(world: &mut World, domid: DomId, frames: u64) -> i64 {
    let args = MemoryReservation { nr_extents: frames, domid, ..MemoryReservation::default() };
    memory(world, MemoryOp::CLAIM_PAGES, &args)
}

/// Populates with frames of numbers from 100 on; returns how many extents were.
fn populate(world: &mut World, domid: DomId, extents: u64, order: u32) -> i64 {
    for n in 0..extents {
        assert!(guest::write(BUFFER + n * 8, (100 + (n << order)).as_bytes()));
    }
    let args = MemoryReservation {
        extent_start: GuestPtr::new(BUFFER),
        nr_extents: extents,
        extent_order: order,
        domid,
        ..MemoryReservation::default()
    };
    memory(world, MemoryOp::POPULATE_PHYSMAP, &args)
}

fn allow(world: &mut World, domid: u16, frames: u64) {
    domctl(world, DomctlCmd::MAX_MEM, domid, &MaxMem { max_memkb: frames << 2 }).expect("any number is fine");
}

fn info(world: &mut World, domid: u16) -> GetDomainInfo {
    domctl(world, DomctlCmd::GETDOMAININFO, domid, &GetDomainInfo::default()).expect("it exists")
}

fn outstanding(world: &mut World) -> (u64, u64) {
    let machine: Physinfo = sysctl(world, SysctlCmd::PHYSINFO, &Physinfo::default()).expect("no argument to be wrong");
    (machine.outstanding_pages, info(world, 1).outstanding_pages)
}

const ONE: DomId = DomId(1);

#[test]
fn claims() {
    let mut world = world();
    let owned = info(&mut world, 1).tot_pages;
    let max = info(&mut world, 1).max_pages;
    for frames in [1, owned, max + 1, u64::MAX] {
        assert_eq!(claim(&mut world, ONE, frames), Errno::EINVAL.to_ret(), "{frames} frames");
    }
    assert_eq!(claim(&mut world, ONE, max), 0);
    assert_eq!(outstanding(&mut world), (max - owned, max - owned));
    assert_eq!(claim(&mut world, ONE, max), Errno::EINVAL.to_ret(), "it has one");
    assert_eq!(populate(&mut world, ONE, 1, 1), 1);
    assert_eq!(outstanding(&mut world), (max - owned - 2, max - owned - 2));
    world.check();
    assert_eq!((claim(&mut world, ONE, 0), claim(&mut world, ONE, 0)), (0, 0));
    assert_eq!(outstanding(&mut world), (0, 0));

    for domid in [DomId::SELF, DomId(9), DomId::IO] {
        assert_eq!(claim(&mut world, domid, max), Errno::EINVAL.to_ret(), "{domid}");
    }
    let fine = MemoryReservation { nr_extents: max, domid: ONE, ..MemoryReservation::default() };
    for wrong in [
        MemoryReservation { extent_start: GuestPtr::new(BUFFER), ..fine },
        MemoryReservation { extent_order: 1, ..fine },
        MemoryReservation { mem_flags: 1, ..fine },
    ] {
        assert_eq!(memory(&mut world, MemoryOp::CLAIM_PAGES, &wrong), Errno::EINVAL.to_ret());
    }
    assert_eq!(memory_at(&mut world, MemoryOp::CLAIM_PAGES, 1, &fine).0, Errno::EINVAL.to_ret());
    as_domain(&mut world, 1);
    assert_eq!(claim(&mut world, ONE, max), Errno::EPERM.to_ret());
    assert_eq!(claim(&mut world, DomId(0), max), Errno::EPERM.to_ret());
    world.finish();
}

#[test]
fn what_is_claimed_is_nobody_elses() {
    let mut world = world();
    let free = mm::buddy::free_frames();
    let owned = info(&mut world, 1).tot_pages;
    allow(&mut world, 0, 1 << 20);
    allow(&mut world, 1, 1 << 20);
    assert_eq!(claim(&mut world, ONE, owned + free + 1), Errno::ENOMEM.to_ret());
    assert_eq!(claim(&mut world, ONE, owned + free - 3), 0);
    let own = info(&mut world, 0).tot_pages;
    assert_eq!(claim(&mut world, DomId(0), own + 4), Errno::ENOMEM.to_ret());
    assert_eq!(populate(&mut world, DomId::SELF, 5, 0), 3, "what nobody claims");
    assert_eq!(populate(&mut world, ONE, 16, 2), 16);
    assert_eq!(outstanding(&mut world).0, free - 3 - 64);
    world.check();
    assert_eq!(populate(&mut world, DomId::SELF, 1, 0), 0);
    assert_eq!(claim(&mut world, ONE, 0), 0);
    assert_eq!(populate(&mut world, DomId::SELF, 1, 0), 1);
    world.check();
    world.finish();
}

#[test]
fn the_last_frames_are_the_hypervisors() {
    let mut world = world();
    let (free, owned) = (mm::buddy::free_frames(), info(&mut world, 1).tot_pages);
    mm::buddy::keep(free - 4);
    let machine: Physinfo =
        sysctl(&mut world, SysctlCmd::PHYSINFO, &Physinfo::default()).expect("no argument to be wrong");
    assert_eq!(machine.free_pages, 4);
    allow(&mut world, 1, 1 << 20);
    assert_eq!(claim(&mut world, ONE, owned + 5), Errno::ENOMEM.to_ret());
    assert_eq!(populate(&mut world, ONE, 9, 0), 4);
    assert_eq!(memory(&mut world, MemoryOp::ACQUIRE_RESOURCE, &acquire(ONE, 0, 1, 1, BUFFER)), 0, "what it needs");
    assert_eq!(mm::buddy::frames_for_domains(), 0);
    mm::buddy::keep(0);
    world.check();
    world.finish();
}

#[test]
fn a_claim_dies_with_its_domain() {
    let mut world = world();
    let max = info(&mut world, 1).max_pages;
    assert_eq!(claim(&mut world, ONE, max), 0);
    world.guests[1].domain.account.begin_dying();
    assert_eq!(mm::buddy::claimed_frames(), 0);
    assert_eq!(claim(&mut world, ONE, max), Errno::EINVAL.to_ret());
    assert_eq!(claim(&mut world, ONE, 0), 0);
    assert_eq!(populate(&mut world, ONE, 1, 0), 0);
    world.finish();
}

#[test]
fn frames_of_another_domain_come_and_go() {
    let mut world = world();
    allow(&mut world, 1, 1 << 20);
    let owned = info(&mut world, 1).tot_pages;
    assert_eq!(populate(&mut world, ONE, 2, 5), 2);
    assert_eq!(info(&mut world, 1).tot_pages, owned + 64);
    let second: u64 = read(BUFFER + 8);
    assert_eq!(mm::m2p::get(Mfn(second + 31)), Some(Pfn(100 + 63)));
    assert!(mm::PageRef::get(Mfn(second), ONE).is_some());

    let args = MemoryReservation {
        extent_start: GuestPtr::new(BUFFER),
        nr_extents: 2,
        extent_order: 5,
        domid: ONE,
        ..MemoryReservation::default()
    };
    let own = MemoryReservation { domid: DomId::SELF, ..args };
    assert_eq!(memory(&mut world, MemoryOp::DECREASE_RESERVATION, &own), 0, "not the caller's");
    assert_eq!(memory(&mut world, MemoryOp::DECREASE_RESERVATION, &args), 2);
    assert_eq!(info(&mut world, 1).tot_pages, owned);
    for (domid, expected) in [(DomId(9), 0), (DomId::IO, 0), (DomId::XEN, 0), (ONE, 2)] {
        let increase = MemoryReservation { domid, extent_order: 0, ..args };
        assert_eq!(memory(&mut world, MemoryOp::INCREASE_RESERVATION, &increase), expected, "{domid}");
    }
    assert_eq!(populate(&mut world, ONE, 1, 12), 0, "there is no such block: smaller ones are tried next");
    assert_eq!(populate(&mut world, ONE, 1, 13), 0, "nobody may name this");
    world.check();

    let domain = |domid| MemoryDomain { domid };
    assert_eq!(memory(&mut world, MemoryOp::CURRENT_RESERVATION, &domain(ONE)), owned as i64 + 2);
    assert_eq!(memory(&mut world, MemoryOp::MAXIMUM_RESERVATION, &domain(ONE)), 1 << 20);
    assert_eq!(memory(&mut world, MemoryOp::CURRENT_RESERVATION, &domain(DomId(9))), Errno::ESRCH.to_ret());
    as_domain(&mut world, 1);
    assert_eq!(populate(&mut world, DomId(0), 1, 0), 0, "not to a domain that it does not control");
    assert_eq!(memory(&mut world, MemoryOp::CURRENT_RESERVATION, &domain(DomId(0))), Errno::EPERM.to_ret());
    assert_eq!(memory(&mut world, MemoryOp::CURRENT_RESERVATION, &domain(ONE)), owned as i64 + 2);
    world.finish();
}

#[test]
fn a_domain_reads_the_map_that_it_was_given() {
    let mut world = world();
    let ram = |addr, size| E820Entry { addr, size, kind: E820Type::RAM };
    let map = [ram(0, 0x1000), ram(0x10_0000, 64 << 20), E820Entry { kind: E820Type::RESERVED, ..ram(1 << 32, 4096) }];
    let buffer = |nr_entries, at: u64| MemoryMap { nr_entries, buffer: GuestPtr::new(at), ..MemoryMap::default() };
    let set = |domid, map| ForeignMemoryMap { domid, map, ..ForeignMemoryMap::default() };
    assert_eq!(memory(&mut world, MemoryOp::MEMORY_MAP, &buffer(3, BUFFER)), Errno::ENOSYS.to_ret());
    assert!(guest::write(BUFFER, map.as_bytes()));
    for (args, expected) in [
        (set(DomId(9), buffer(1025, BUFFER)), Errno::EINVAL.to_ret()),
        (set(DomId(9), buffer(3, BUFFER)), Errno::ESRCH.to_ret()),
        (set(ONE, buffer(3, NOWHERE)), Errno::EFAULT.to_ret()),
        (set(ONE, buffer(3, BUFFER)), 0),
    ] {
        assert_eq!(memory(&mut world, MemoryOp::SET_MEMORY_MAP, &args), expected, "{args:?}");
    }
    assert_eq!(memory(&mut world, MemoryOp::MEMORY_MAP, &buffer(3, BUFFER)), Errno::ENOSYS.to_ret(), "another's");

    as_domain(&mut world, 1);
    let (result, told) = memory_at(&mut world, MemoryOp::MEMORY_MAP, 0, &buffer(9, BUFFER));
    assert_eq!((result, told.nr_entries, read::<[E820Entry; 3]>(BUFFER)), (0, 3, map));
    assert!(guest::write(BUFFER, &[0; 60]));
    let (result, told) = memory_at(&mut world, MemoryOp::MEMORY_MAP, 0, &buffer(2, BUFFER));
    assert_eq!((result, told.nr_entries), (0, 2));
    assert_eq!(read::<[E820Entry; 3]>(BUFFER)[..2], map[..2]);
    assert_eq!(read::<[u8; 20]>(BUFFER + 40), [0; 20], "no more than there is room for");
    assert_eq!(memory(&mut world, MemoryOp::MEMORY_MAP, &buffer(9, NOWHERE)), Errno::EFAULT.to_ret());
    assert_eq!(memory(&mut world, MemoryOp::SET_MEMORY_MAP, &set(DomId(0), buffer(1, BUFFER))), Errno::EPERM.to_ret());
    assert_eq!(memory(&mut world, MemoryOp::SET_MEMORY_MAP, &set(DomId::SELF, buffer(0, 0))), 0, "its own");
    assert_eq!(memory(&mut world, MemoryOp::MEMORY_MAP, &buffer(3, BUFFER)), Errno::ENOSYS.to_ret());
    assert_eq!(memory(&mut world, MemoryOp::MACHINE_MEMORY_MAP, &buffer(9, BUFFER)), Errno::EPERM.to_ret());
    world.finish();
}

fn acquire(domid: DomId, id: u32, frame: u64, nr_frames: u32, list: u64) -> AcquireResource {
    let frame_list = GuestPtr::new(list);
    AcquireResource { domid, kind: ResourceType::GRANT_TABLE, id, nr_frames, frame, frame_list, ..Default::default() }
}

#[test]
fn resources_that_cannot_be_had() {
    let mut world = world();
    let fine = acquire(ONE, 0, 0, 1, BUFFER);
    let kind = |kind| AcquireResource { kind, ..fine };
    let cases = [
        (AcquireResource { pad: 1, domid: DomId(9), ..fine }, Errno::EINVAL),
        (acquire(DomId(9), 0, 1 << 32, 1, BUFFER), Errno::EINVAL),
        (acquire(DomId(9), 0, (1 << 32) - 1, 1, BUFFER), Errno::EINVAL),
        (acquire(DomId(9), 0, u64::MAX, 1, BUFFER), Errno::EINVAL),
        (acquire(DomId(9), 0, 0, 1, BUFFER), Errno::ESRCH),
        (acquire(DomId::SELF, 0, 0, 1, BUFFER), Errno::ESRCH),
        (acquire(DomId(0), 0, 0, 1, BUFFER), Errno::EPERM),
        (acquire(ONE, 2, 0, 1, BUFFER), Errno::EINVAL),
        (kind(ResourceType::IOREQ_SERVER), Errno::EINVAL),
        (kind(ResourceType::VMTRACE_BUF), Errno::EINVAL),
        (kind(ResourceType(3)), Errno::EOPNOTSUPP),
        (acquire(ONE, 0, 0, 1, 0), Errno::EINVAL),
        (acquire(ONE, 0, 0, 0, BUFFER), Errno::EINVAL),
        (acquire(ONE, 0, 0, 1 << 26, BUFFER), Errno::EINVAL),
        (acquire(ONE, 0, 0, 65, BUFFER), Errno::EINVAL),
        (acquire(ONE, 0, 64, 1, BUFFER), Errno::EINVAL),
        (acquire(ONE, 1, 0, 1, BUFFER), Errno::EINVAL),
        (acquire(ONE, 0, 0, 1, NOWHERE), Errno::EFAULT),
    ];
    for (args, expected) in cases {
        assert_eq!(memory(&mut world, MemoryOp::ACQUIRE_RESOURCE, &args), expected.to_ret(), "{args:?}");
    }
    assert_eq!(memory_at(&mut world, MemoryOp::ACQUIRE_RESOURCE, 1, &fine).0, Errno::EINVAL.to_ret());
    assert_eq!(
        memory_at(&mut world, MemoryOp::ACQUIRE_RESOURCE, 1, &acquire(ONE, 0, 0, 0, 0)).0,
        Errno::EINVAL.to_ret()
    );
    as_domain(&mut world, 1);
    for (domid, expected) in [(DomId(0), Errno::EPERM), (ONE, Errno::EPERM), (DomId(9), Errno::ESRCH)] {
        let args = acquire(domid, 0, 0, 1, BUFFER);
        assert_eq!(memory(&mut world, MemoryOp::ACQUIRE_RESOURCE, &args), expected.to_ret(), "{domid}");
    }
    world.finish();
}

#[test]
fn grant_tables_are_told_and_grow() {
    let mut world = world();
    for (id, expected) in [(0, 64), (1, 8)] {
        let (result, size) = memory_at(&mut world, MemoryOp::ACQUIRE_RESOURCE, 0, &acquire(ONE, id, 0, 0, 0));
        assert_eq!((result, size.nr_frames), (0, expected));
    }
    let grants = world.guests[1].domain.grants.clone();
    assert_eq!(grants.frames(), 1);
    assert_eq!(memory(&mut world, MemoryOp::ACQUIRE_RESOURCE, &acquire(ONE, 0, 0, 1, BUFFER)), 0);
    assert_eq!((Some(Mfn(read(BUFFER))), grants.frames()), (grants.frame(0), 1));
    arch::cpu::preempt_after(Some(0));
    let (result, back) = memory_at(&mut world, MemoryOp::ACQUIRE_RESOURCE, 0, &acquire(ONE, 0, 3, 61, BUFFER));
    arch::cpu::preempt_after(None);
    assert_eq!((result, back.nr_frames, grants.frames()), (0, 61, 64));
    let told: [u64; 61] = read(BUFFER);
    assert!((0..).zip(told).all(|(n, mfn)| grants.frame(n + 3) == Some(Mfn(mfn))));

    // dom0 writes an entry through a mapping of its own.
    as_domain(&mut world, 1);
    assert!(guest::write(ARGUMENT, 2u32.as_bytes()));
    assert_eq!(world.call(HypercallNr::GRANT_TABLE_OP, [8, ARGUMENT, 1, 0, 0]), 0, "version 2");
    as_domain(&mut world, 0);
    assert_eq!(memory(&mut world, MemoryOp::ACQUIRE_RESOURCE, &acquire(ONE, 1, 7, 1, BUFFER)), 0);
    assert_eq!(Some(Mfn(read(BUFFER))), grants.status_frame(7));
    world.check();
    assert_eq!(grants.retire(), Ok(()));
    for id in [0, 1] {
        let gone = acquire(ONE, id, 0, 1, BUFFER);
        assert_eq!(memory(&mut world, MemoryOp::ACQUIRE_RESOURCE, &gone), Errno::EINVAL.to_ret(), "a dying domain's");
    }
    world.finish();
}

#[test]
fn what_is_refused_is_refused_in_order() {
    let mut world = world();
    let add = |domid, space| AddToPhysmap { domid, space, ..AddToPhysmap::default() };
    for (args, expected) in [
        (add(DomId(9), 4), Errno::ENOSYS),
        (add(DomId(9), 0), Errno::ESRCH),
        (add(ONE, 0), Errno::EACCES),
        (add(DomId::SELF, 2), Errno::EACCES),
    ] {
        assert_eq!(memory(&mut world, MemoryOp::ADD_TO_PHYSMAP, &args), expected.to_ret(), "{args:?}");
    }
    let batch = |domid, space| AddToPhysmapBatch { domid, space, ..AddToPhysmapBatch::default() };
    for (args, expected) in
        [(batch(DomId(9), 3), Errno::EOPNOTSUPP), (batch(DomId(9), 0), Errno::ESRCH), (batch(ONE, 4), Errno::EACCES)]
    {
        assert_eq!(memory(&mut world, MemoryOp::ADD_TO_PHYSMAP_BATCH, &args), expected.to_ret(), "{args:?}");
    }
    let remove = |domid| RemoveFromPhysmap { domid, ..RemoveFromPhysmap::default() };
    assert_eq!(memory(&mut world, MemoryOp::REMOVE_FROM_PHYSMAP, &remove(DomId(9))), Errno::ESRCH.to_ret());
    assert_eq!(memory(&mut world, MemoryOp::REMOVE_FROM_PHYSMAP, &remove(ONE)), Errno::EACCES.to_ret());
    let nodes = |domid, pad| VnumaTopologyInfo { domid, pad, ..VnumaTopologyInfo::default() };
    for (args, expected) in
        [(nodes(ONE, 1), Errno::EINVAL), (nodes(DomId(9), 0), Errno::ESRCH), (nodes(ONE, 0), Errno::EOPNOTSUPP)]
    {
        assert_eq!(memory(&mut world, MemoryOp::GET_VNUMAINFO, &args), expected.to_ret(), "{args:?}");
    }
    let reserved = |flags| ReservedDeviceMemoryMap { flags, nr_entries: 3, ..ReservedDeviceMemoryMap::default() };
    assert_eq!(memory(&mut world, MemoryOp::RESERVED_DEVICE_MEMORY_MAP, &reserved(2)), Errno::EINVAL.to_ret());
    let (result, told) = memory_at(&mut world, MemoryOp::RESERVED_DEVICE_MEMORY_MAP, 0, &reserved(1));
    assert_eq!((result, told.nr_entries), (0, 0));
    let bad = |world: &mut World, op: MemoryOp| world.call(HypercallNr::MEMORY_OP, [u64::from(op.0), NOWHERE, 0, 0, 0]);
    for op in [5, 7, 9, 10, 13, 15, 23, 24, 26, 27, 28] {
        assert_eq!(bad(&mut world, MemoryOp(op)), Errno::EFAULT.to_ret(), "{:?}", MemoryOp(op));
    }
    as_domain(&mut world, 1);
    assert_eq!(memory(&mut world, MemoryOp::ADD_TO_PHYSMAP, &add(DomId(0), 0)), Errno::EACCES.to_ret());
    assert_eq!(memory(&mut world, MemoryOp::GET_VNUMAINFO, &nodes(DomId(0), 0)), Errno::EPERM.to_ret());
    world.finish();
}

#[test]
fn frames_of_the_machine_to_physical_table() {
    let mut world = world();
    let list = |max_extents, at: u64| MachphysMfnList {
        max_extents,
        extent_start: GuestPtr::new(at),
        ..MachphysMfnList::default()
    };
    // This machine's own is not in its memory; any frame will do.
    let frame = mm::buddy::alloc(0, mm::buddy::ANYWHERE).expect("memory");
    mm::m2p::publish(frame, 1);
    for (room, expected) in [(0, 0), (1, 1), (9, 1)] {
        let (result, told) = memory_at(&mut world, MemoryOp::MACHPHYS_MFN_LIST, 0, &list(room, BUFFER));
        assert_eq!((result, told.nr_extents), (0, expected));
    }
    assert_eq!(Mfn(read(BUFFER)), frame);
    assert_eq!(mm::m2p::frame_of(511), Some(frame));
    assert_eq!(mm::m2p::frame_of(512), None, "this machine has 512 frames");
    assert_eq!(memory(&mut world, MemoryOp::MACHPHYS_MFN_LIST, &list(1, NOWHERE)), Errno::EFAULT.to_ret());
    world.check();
    assert!(mm::PageRef::get(frame, DomId::XEN).is_some());
    drop(world);
}
