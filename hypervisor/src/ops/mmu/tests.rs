// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two domains on a hosted machine, one of which controls the other: whose tables and frames an update may name.
//!
//! The domains stay in the hypervisor's tables for good, so their numbers are nobody else's.

use alloc::sync::Arc;
use alloc::vec::Vec;

use hypercalls::{DomId, Errno, Maddr, Mfn, Pfn, VcpuId};
use mm::hosted::{peek, poke};
use mm::{PageRef, buddy, m2p};

use super::{Args, Domain, MmuextCmd, Outcome, mmu_update, mmuext_op, update_va_mapping_otherdomain};
use crate::create::{self, Config, Tools};
use crate::grants::Limits;
use crate::io_rights::IoRights;
use crate::mmu::{Frames, frames_of};
use crate::vcpu::Vcpu;

const CONTROLLER: DomId = DomId(901);
const OTHER: DomId = DomId(902);
const SELF: u64 = DomId::SELF.0 as u64;
const TABLE: u64 = 7;
/// Where the page of requests is in the address space of both.
const LIST: u64 = 0x1000;
const MACHPHYS_UPDATE: u64 = 1;

struct World {
    controller: Arc<Domain>,
    other: Arc<Domain>,
    list: Mfn,
    _machine: arch::hosted::Machine,
}

fn domain(id: DomId, privileged: bool) -> Arc<Domain> {
    let config = Config {
        id,
        privileged,
        vcpus: 1,
        max_pages: 64,
        max_port: 1023,
        io: IoRights::none(),
        grants: Limits::DEFAULT,
        tools: Tools::default(),
    };
    create::domain(config).expect("a new number and enough memory")
}

fn vcpu(domain: &Domain) -> &Vcpu {
    domain.vcpu(VcpuId(0)).expect("every domain has one")
}

impl World {
    fn new() -> Self {
        let machine = mm::hosted::boot(1024, 1);
        let frames: Vec<_> = (0..5).map(|_| buddy::alloc(0, buddy::ANYWHERE).expect("memory")).collect();
        frames.iter().for_each(|&frame| (0..512).for_each(|n| poke(frame, n, 0)));
        for (level, pair) in frames.windows(2).enumerate() {
            poke(pair[0], usize::from(level == 3), pair[1].maddr().0 | TABLE);
        }
        arch::guest::set_root(frames[0]);
        let (controller, other) = (domain(CONTROLLER, true), domain(OTHER, false));
        Self { controller, other, list: frames[4], _machine: machine }
    }

    fn update(&self, caller: &Domain, ptr: Maddr, val: u64, foreigndom: u64) -> Outcome {
        poke(self.list, 0, ptr.0);
        poke(self.list, 1, val);
        mmu_update(vcpu(caller), &[LIST, 1, 0, foreigndom, 0])
    }
}

fn frame(domain: &Domain) -> Mfn {
    let mfn = domain.account.populate(0, buddy::ANYWHERE).expect("within its limit");
    (0..512).for_each(|n| poke(mfn, n, 0));
    mfn
}

/// A pinned L1 table without entries.
fn l1_table(domain: &Domain) -> Mfn {
    let table = frame(domain);
    domain.page_tables.lock().pin(&domain.tables_ctx(), table, 1).expect("an empty table is valid");
    table
}

fn error(error: Errno) -> Outcome {
    Outcome::Done(error.to_ret())
}

const fn tables_of(domain: DomId, frames: DomId) -> u64 {
    (domain.0 as u64 + 1) << 16 | frames.0 as u64
}

#[test]
fn names_of_frames() {
    let world = World::new();
    let of = |domain: &Domain, id: DomId| frames_of(vcpu(domain), id).map(|frames| frames.owner(vcpu(domain)));
    assert_eq!(of(&world.controller, DomId::SELF), Ok(CONTROLLER));
    assert_eq!(of(&world.controller, CONTROLLER), Err(Errno::ESRCH));
    assert_eq!(of(&world.controller, DomId(903)), Err(Errno::ESRCH));
    assert_eq!(of(&world.controller, OTHER), Ok(OTHER));
    assert!(matches!(frames_of(vcpu(&world.controller), DomId::IO), Ok(Frames::Io)));
    assert!(matches!(frames_of(vcpu(&world.controller), DomId::XEN), Ok(Frames::Hypervisor)));
    assert_eq!(of(&world.other, DomId::SELF), Ok(OTHER));
    for id in [CONTROLLER, DomId::IO, DomId::XEN] {
        assert_eq!(of(&world.other, id), Err(Errno::EPERM), "{id:?}");
    }
}

#[test]
fn tables_of_another_domain() {
    let world = World::new();
    let (controller, other) = (&*world.controller, &*world.other);
    let table = l1_table(other);
    let (mine, theirs) = (frame(controller), frame(other));
    let slot = |n: u64| Maddr(table.maddr().0 + n * 8);
    let entry = |mfn: Mfn| mfn.maddr().0 | TABLE;

    let both = tables_of(OTHER, OTHER);
    assert_eq!(world.update(controller, slot(5), entry(theirs), both), Outcome::Done(0));
    assert_eq!(Mfn(peek(table, 5) >> 12), theirs);
    assert_eq!(world.update(controller, slot(6), entry(mine), both), error(Errno::EBUSY), "not the named owner's");
    let shared = tables_of(OTHER, DomId::SELF);
    assert_eq!(world.update(controller, slot(6), entry(mine), shared), Outcome::Done(0));
    assert_eq!(world.update(controller, slot(6), 0, shared), Outcome::Done(0));
    assert_eq!(world.update(controller, slot(6), entry(Mfn(1 << 30)), both), error(Errno::EPERM), "no RAM");

    assert_eq!(world.update(controller, slot(5), 0, u64::from(OTHER.0)), error(Errno::EINVAL), "not the caller's");
    assert_eq!(world.update(other, slot(5), 0, tables_of(CONTROLLER, DomId::SELF)), error(Errno::EPERM));
    assert_eq!(world.update(other, slot(5), 0, tables_of(DomId(903), DomId::SELF)), error(Errno::ESRCH));
    assert_eq!(world.update(other, slot(5), 0, tables_of(OTHER, DomId::SELF)), Outcome::Done(0), "named by itself");
    assert_eq!(peek(table, 5), 0);
}

#[test]
fn machine_to_physical_of_another_domain() {
    let world = World::new();
    let theirs = frame(&world.other);
    let at = Maddr(theirs.maddr().0 | MACHPHYS_UPDATE);
    assert_eq!(world.update(&world.controller, at, 77, tables_of(OTHER, OTHER)), error(Errno::EPERM));
    assert_eq!(world.update(&world.controller, at, 77, SELF), error(Errno::EINVAL));
    assert_eq!(world.update(&world.controller, at, 77, u64::from(OTHER.0)), Outcome::Done(0));
    let page = PageRef::get(theirs, OTHER).expect("it is theirs");
    assert_eq!(m2p::get(page.mfn()), Some(Pfn(77)));
}

#[test]
fn own_number_is_no_name() {
    let world = World::new();
    let caller = vcpu(&world.controller);
    let number = u64::from(CONTROLLER.0);
    let none: Args = [LIST, 0, 0, number, 0];
    assert_eq!(mmu_update(caller, &none), error(Errno::ESRCH));
    assert_eq!(mmuext_op(caller, &none), error(Errno::ESRCH));
    assert_eq!(update_va_mapping_otherdomain(caller, &[LIST, 0, 0, number, 0]), error(Errno::ESRCH));
}

const fn map_of(mfn: Mfn, flags: u64) -> u64 {
    mfn.maddr().0 | flags
}

const READ_ONLY: u64 = 5;

#[test]
fn frames_of_another_domain() {
    let world = World::new();
    let (controller, other) = (&*world.controller, &*world.other);
    let (table, theirs, mine) = (l1_table(controller), frame(other), frame(controller));
    let (their_table, shared, grants) =
        (l1_table(other), other.shared_info().mfn(), other.grants.frame(0).expect("one"));
    let at = |kind: u64| Maddr(table.maddr().0 | kind);
    let named = u64::from(OTHER.0);
    for (value, owner, expected) in [
        (map_of(theirs, TABLE), named, Ok(())),
        (map_of(theirs, TABLE), SELF, Err(Errno::EBUSY)),
        (map_of(theirs, TABLE), u64::from(DomId::IO.0), Err(Errno::EBUSY)),
        (map_of(theirs, TABLE), u64::from(DomId::XEN.0), Err(Errno::EBUSY)),
        (map_of(theirs, TABLE), 903, Err(Errno::ESRCH)),
        (map_of(theirs, TABLE), u64::from(CONTROLLER.0), Err(Errno::ESRCH)),
        (map_of(mine, TABLE), named, Err(Errno::EBUSY)),
        (map_of(their_table, TABLE), named, Err(Errno::EBUSY)),
        (map_of(their_table, READ_ONLY), named, Ok(())),
        (map_of(shared, TABLE), named, Ok(())),
        (map_of(shared, TABLE), SELF, Err(Errno::EBUSY)),
        (map_of(grants, TABLE), named, Ok(())),
        (map_of(Mfn(1 << 30), TABLE), named, Err(Errno::EPERM)),
        (map_of(theirs, TABLE | 1 << 51), named, Err(Errno::EINVAL)),
        (map_of(theirs, 0), named, Ok(())),
    ] {
        for kind in [0, 2, 3] {
            let done = expected.map_or_else(error, |()| Outcome::Done(0));
            assert_eq!(world.update(controller, at(kind), value, owner), done, "{value:#x} of {owner:#x}, kind {kind}");
            assert_eq!(world.update(controller, at(0), 0, SELF), Outcome::Done(0), "by whatever name");
        }
    }
    for kind in 4..8 {
        assert_eq!(world.update(controller, at(kind), 0, named), error(Errno::ENOSYS));
    }
    assert_eq!(world.update(other, Maddr(their_table.maddr().0), 0, u64::from(CONTROLLER.0)), error(Errno::EPERM));
    assert_eq!(mm::page_info(theirs).map(|s| (s.count, s.type_count)), Some((1, 0)));
    assert_eq!(mm::page_info(grants).map(|s| (s.count, s.type_count)), Some((1, 1)));
}

#[test]
fn frames_of_another_domain_by_address() {
    let world = World::new();
    let (controller, theirs) = (&*world.controller, frame(&world.other));
    // The controller's address space: L1 entry 8 of a tree that is its own.
    let [l4, l3, l2, l1] = [(); 4].map(|()| frame(controller));
    for (table, next) in [(l4, l3), (l3, l2), (l2, l1)] {
        poke(table, 0, map_of(next, TABLE));
    }
    let vcpu = vcpu(controller);
    let mut tables = controller.page_tables.lock();
    let root = tables.get_root(&controller.tables_ctx(), l4, mm::RootUse::Kernel).expect("a valid tree");
    drop(tables);
    vcpu.kernel_root.store(l4.0, core::sync::atomic::Ordering::Relaxed);
    let call =
        |va: u64, value, owner: DomId| update_va_mapping_otherdomain(vcpu, &[va, value, 0, u64::from(owner.0), 0]);
    assert_eq!(call(0x8000, map_of(theirs, TABLE), OTHER), Outcome::Done(0));
    assert_eq!(Mfn((peek(l1, 8) & !(1 << 63)) >> 12 & 0xff_ffff_ffff), theirs);
    assert_eq!(call(0x9000, map_of(theirs, TABLE), DomId::SELF), error(Errno::EBUSY));
    assert_eq!(call(0x9000, map_of(theirs, TABLE), DomId(903)), error(Errno::ESRCH));
    assert_eq!(call(1 << 40, map_of(theirs, TABLE), OTHER), error(Errno::EINVAL), "no L1 table there");
    assert_eq!(call(0x8000, 0, OTHER), Outcome::Done(0));
    vcpu.kernel_root.store(Mfn::INVALID.0, core::sync::atomic::Ordering::Relaxed);
    controller.page_tables.lock().put_root(&controller.tables_ctx(), root);
    assert_eq!(mm::page_info(theirs).map(|s| s.count), Some(1));
}

fn extended(world: &World, caller: &Domain, op: (MmuextCmd, Mfn, u64), foreigndom: u64) -> Outcome {
    poke(world.list, 0, u64::from(op.0.0));
    poke(world.list, 1, op.1.0);
    poke(world.list, 2, op.2);
    mmuext_op(vcpu(caller), &[LIST, 1, 0, foreigndom, 0])
}

#[test]
fn operations_on_another_domains_frames() {
    let world = World::new();
    let (controller, other) = (&*world.controller, &*world.other);
    let [l4, l3, l2, l1, data] = [(); 5].map(|()| frame(other));
    for (table, next) in [(l4, l3), (l3, l2), (l2, l1), (l1, data)] {
        poke(table, 0, map_of(next, TABLE));
    }
    let (named, done) = (u64::from(OTHER.0), Outcome::Done(0));
    let call = |cmd, mfn, source: Mfn, foreigndom| extended(&world, controller, (cmd, mfn, source.0), foreigndom);
    let on = |cmd, mfn| call(cmd, mfn, Mfn(0), named);
    assert_eq!(call(MmuextCmd::PIN_L4_TABLE, l4, Mfn(0), SELF), error(Errno::EINVAL), "not the caller's");
    assert_eq!(on(MmuextCmd::PIN_L4_TABLE, frame(controller)), error(Errno::EINVAL), "not the other's");
    assert_eq!(on(MmuextCmd::PIN_L4_TABLE, l4), done);
    assert_eq!(on(MmuextCmd::PIN_L4_TABLE, l4), error(Errno::EINVAL), "pinned already");
    for (cmd, mfn) in [(MmuextCmd::PIN_L1_TABLE, l1), (MmuextCmd::PIN_L2_TABLE, l2), (MmuextCmd::PIN_L3_TABLE, l3)] {
        assert_eq!((on(cmd, mfn), on(MmuextCmd::UNPIN_TABLE, mfn)), (done, done));
        assert_eq!(on(cmd, data), error(Errno::EINVAL), "mapped writable");
    }
    assert_eq!(mm::page_info(data).map(|s| (s.count, s.type_count)), Some((2, 1)));
    for table in [l1, l4] {
        assert_eq!(on(MmuextCmd::CLEAR_PAGE, table), error(Errno::EINVAL), "a table");
        assert_eq!(call(MmuextCmd::COPY_PAGE, table, data, named), error(Errno::EINVAL));
    }
    assert_eq!(call(MmuextCmd::COPY_PAGE, data, l1, named), done, "a table may be read");
    assert_eq!(peek(data, 0), peek(l1, 0));
    assert_eq!(call(MmuextCmd::COPY_PAGE, data, frame(controller), named), error(Errno::EINVAL), "of another owner");
    assert_eq!(on(MmuextCmd::CLEAR_PAGE, data), done);
    assert_eq!(peek(data, 0), 0);
    for number in (0..24).map(MmuextCmd) {
        let expected = match number.0 {
            0..=4 | 16 | 17 => continue,
            14 | 21.. => Errno::ENOSYS,
            19 | 20 => Errno::EOPNOTSUPP,
            _ => Errno::EPERM,
        };
        assert_eq!(on(number, l4), error(expected), "{number:?}");
    }
    assert_eq!(on(MmuextCmd::UNPIN_TABLE, l4), done);
    assert_eq!(on(MmuextCmd::UNPIN_TABLE, l4), error(Errno::EINVAL));
    assert_eq!(mm::page_info(data).map(|s| (s.count, s.type_count)), Some((1, 0)));
    for domid in [CONTROLLER, DomId(903)] {
        assert_eq!(call(MmuextCmd::CLEAR_PAGE, data, Mfn(0), u64::from(domid.0)), error(Errno::ESRCH));
    }
    let by_other = |cmd, mfn: Mfn| extended(&world, other, (cmd, mfn, 0), u64::from(CONTROLLER.0));
    assert_eq!(by_other(MmuextCmd::CLEAR_PAGE, frame(controller)), error(Errno::EPERM));
    other.account.begin_dying();
    assert_eq!(on(MmuextCmd::PIN_L4_TABLE, l4), error(Errno::EINVAL), "nobody would end it");
}

#[test]
fn validating_another_domains_tables_is_cut_and_goes_on() {
    let world = World::new();
    let (controller, other) = (&*world.controller, &*world.other);
    let (l2, l1s) = (frame(other), [(); 3].map(|()| frame(other)));
    for (index, l1) in l1s.into_iter().enumerate() {
        poke(l2, index, map_of(l1, TABLE));
    }
    poke(world.list, 0, u64::from(MmuextCmd::PIN_L2_TABLE.0));
    poke(world.list, 1, l2.0);
    arch::cpu::preempt_after(Some(1));
    let mut args = [LIST, 1, 0, u64::from(OTHER.0), 0];
    let mut cuts = 0;
    while let Outcome::Again(rest) = mmuext_op(vcpu(controller), &args) {
        args = rest;
        cuts += 1;
        arch::cpu::preempt_after(Some(1));
    }
    arch::cpu::preempt_after(None);
    assert!(cuts > 0);
    assert_eq!(mm::page_info(l2).map(|s| (s.pinned, s.validated)), Some((true, true)));
    assert_eq!(extended(&world, controller, (MmuextCmd::UNPIN_TABLE, l2, 0), u64::from(OTHER.0)), Outcome::Done(0));
    assert!(l1s.iter().all(|l1| mm::page_info(*l1).is_some_and(|s| s.type_count == 0)));
}
