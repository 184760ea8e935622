// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tools and backends in dom0 do so that a guest has a console: its port, the grant of its ring that they write for it, and
//! the ring, mapped by frame number and by grant.

use arch::guest::Access;
use hypercalls::event::{EvtchnAllocUnbound, EvtchnBindInterdomain, EvtchnOp, EvtchnSend};
use hypercalls::grant::*;
use hypercalls::memory::{AcquireResource, MemoryOp, ResourceType};
use hypercalls::mmu::{MmuUpdate, MmuextCmd, MmuextOp};
use hypercalls::{DomId, GuestPtr, GuestVa, HypercallNr, Mfn, VcpuId};
use hypervisor::events;
use hypervisor::testing::guest::{self, TABLES, args_of, va};
use mm::flags::{P, RW, US, entry_for};
use mm::hosted::{peek, poke};
use zerocopy::IntoBytes;

use crate::pair::Pair;

const GUEST: DomId = DomId(1);
/// Where the arguments of calls are, and behind them lists.
const ARGUMENT: u64 = va(args_of(VcpuId(0)));
const LIST: u64 = va(args_of(VcpuId(0)) + 1);
/// dom0's pages in whose place the guest's frames are mapped: of a process, and of the kernel.
const PROCESS: usize = 40;
const KERNEL: usize = 41;
/// The guest's page that is the ring.
const RING: usize = 50;

impl Pair {
    fn at(&self, pfn: usize) -> u64 {
        self.0.guests[0].p2m[TABLES[3]].maddr().0 + pfn as u64 * 8
    }

    /// dom0 sets the entry that maps one of its pages; `kind` is the kind of request.
    fn set_entry_of(&mut self, pfn: usize, kind: u64, value: u64, owner: DomId) -> i64 {
        let update = MmuUpdate { ptr: self.at(pfn) | kind, val: value };
        assert!(guest::write(ARGUMENT, update.as_bytes()));
        let result = self.call(HypercallNr::MMU_UPDATE, [ARGUMENT, 1, 0, u64::from(owner.0), 0]);
        let flush = MmuextOp { cmd: MmuextCmd::INVLPG_LOCAL, arg1: va(pfn), ..MmuextOp::default() };
        assert!(guest::write(ARGUMENT, flush.as_bytes()));
        assert_eq!(self.call(HypercallNr::MMUEXT_OP, [ARGUMENT, 1, 0, u64::from(DomId::SELF.0), 0]), 0);
        result
    }

    fn map_ring(&mut self, host_addr: u64, flags: u32) -> GnttabMap {
        let map = GnttabMap { host_addr, flags, gref: GNTTAB_RESERVED_CONSOLE, dom: GUEST, ..GnttabMap::default() };
        assert!(guest::write(LIST, map.as_bytes()));
        assert_eq!(self.call(HypercallNr::GRANT_TABLE_OP, [u64::from(GnttabOp::MAP_GRANT_REF.0), LIST, 1, 0, 0]), 0);
        hypervisor::guest::read(GuestPtr::new(LIST)).expect("mapped")
    }
}

#[test]
fn a_console_is_made_for_a_guest_and_served() {
    let mut pair = Pair::new();
    pair.on(0);
    let ring = pair.0.guests[1].p2m[RING];

    // The tools: a port of the guest's for dom0, and a grant of the ring, written where the guest's table is.
    let unbound = EvtchnAllocUnbound { dom: GUEST, remote_dom: DomId(0), port: 0 };
    assert_eq!(pair.channel(EvtchnOp::ALLOC_UNBOUND, &unbound), 0);
    let theirs = pair.answer(4);
    let frame_list = GuestPtr::new(LIST);
    let kind = ResourceType::GRANT_TABLE;
    let acquire = AcquireResource { domid: GUEST, kind, nr_frames: 1, frame_list, ..AcquireResource::default() };
    assert_eq!(pair.ask(HypercallNr::MEMORY_OP, MemoryOp::ACQUIRE_RESOURCE.0, &acquire), 0);
    let table = Mfn(guest::read(LIST));
    assert_eq!(pair.set_entry_of(PROCESS, 3, entry_for(table, P | RW | US), GUEST), 0);
    let grant = ring.0 << 32 | u64::from(GTF_PERMIT_ACCESS);
    assert!(guest::write(va(PROCESS), grant.as_bytes()));
    assert_eq!(pair.set_entry_of(PROCESS, 0, 0, GUEST), 0);
    assert_eq!(pair.0.guests[1].domain.grants.frame(0).map(|t| peek(t, 0)), Some(grant));
    // And what is in the ring at first.
    assert_eq!(pair.set_entry_of(PROCESS, 0, entry_for(ring, P | RW | US), GUEST), 0);
    assert!(guest::write(va(PROCESS), 1u64.as_bytes()));
    assert_eq!(pair.set_entry_of(PROCESS, 0, 0, GUEST), 0);

    // The backend: the port, and the ring twice, for a process by its entry and for the kernel by address.
    let bind = EvtchnBindInterdomain { remote_dom: GUEST, remote_port: theirs, ..EvtchnBindInterdomain::default() };
    assert_eq!(pair.channel(EvtchnOp::BIND_INTERDOMAIN, &bind), 0);
    let mine = pair.answer(8);
    let process = pair.at(PROCESS);
    let first = pair.map_ring(process, GNTMAP_HOST_MAP | GNTMAP_APPLICATION_MAP | GNTMAP_CONTAINS_PTE);
    let second = pair.map_ring(va(KERNEL), GNTMAP_HOST_MAP);
    assert_eq!((first.status, second.status), (GrantStatus::OKAY, GrantStatus::OKAY));
    for pfn in [PROCESS, KERNEL] {
        assert_eq!(arch::guest::access(GuestVa(va(pfn)), Access::Write), Ok(ring));
    }
    assert_eq!(guest::read(va(KERNEL)), 1);
    assert!(guest::write(va(KERNEL), 2u64.as_bytes()));
    assert_eq!(guest::read(va(PROCESS)), 2);
    assert_eq!(pair.channel(EvtchnOp::SEND, &EvtchnSend { port: mine }), 0);
    assert!(events::is_pending(&pair.0.guests[1].domain, theirs));

    // The guest answers.
    pair.on(1);
    assert_eq!(guest::read(va(RING)), 2);
    assert_eq!(pair.channel(EvtchnOp::SEND, &EvtchnSend { port: theirs }), 0);
    assert!(events::is_pending(&pair.0.guests[0].domain, mine));

    // The end: both mappings in one list.
    pair.on(0);
    let unmap = |host_addr, handle| GnttabUnmap { host_addr, handle, ..GnttabUnmap::default() };
    let list = [unmap(process, first.handle), unmap(va(KERNEL), second.handle)];
    assert!(guest::write(LIST, list.as_bytes()));
    assert_eq!(pair.call(HypercallNr::GRANT_TABLE_OP, [u64::from(GnttabOp::UNMAP_GRANT_REF.0), LIST, 2, 0, 0]), 0);
    assert_eq!(mm::page_info(ring).map(|s| s.count), Some(2), "allocated, and mapped by its owner");
    poke(table, 0, 0);
    pair.0.finish();
}

#[test]
fn a_mapping_by_frame_number_is_the_controllers_alone() {
    let mut pair = Pair::new();
    let (theirs, shared) = (pair.0.guests[0].p2m[RING], pair.0.guests[0].domain.shared_info().mfn());
    pair.on(1);
    let at = pair.0.guests[1].p2m[TABLES[3]].maddr().0 + PROCESS as u64 * 8;
    for mfn in [theirs, shared, pair.0.guests[0].domain.grants.frame(0).expect("one")] {
        for (owner, expected) in [(DomId(0), -1), (DomId::XEN, -1), (DomId::SELF, -16), (GUEST, -3)] {
            let update = MmuUpdate { ptr: at, val: entry_for(mfn, P | US) };
            assert!(guest::write(ARGUMENT, update.as_bytes()));
            let result = pair.call(HypercallNr::MMU_UPDATE, [ARGUMENT, 1, 0, u64::from(owner.0), 0]);
            assert_eq!(result, expected, "{mfn} of {owner}");
        }
    }
    let acquire = AcquireResource { domid: DomId(0), kind: ResourceType::GRANT_TABLE, ..AcquireResource::default() };
    assert_eq!(pair.ask(HypercallNr::MEMORY_OP, MemoryOp::ACQUIRE_RESOURCE.0, &acquire), -1);
    pair.0.finish();
}
