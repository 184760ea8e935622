// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two domains on a hosted machine, one of which controls the other: whose tables and frames an update may name.
//!
//! The domains stay in the hypervisor's tables for good, so their numbers are nobody else's.

use alloc::sync::Arc;
use alloc::vec::Vec;

use hypercalls::{DomId, Errno, Maddr, Mfn, Pfn, VcpuId};
use mm::hosted::{peek, poke};
use mm::{PageRef, buddy, m2p};

use super::{Args, Domain, Outcome, mmu_update, mmuext_op, update_va_mapping_otherdomain};
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
