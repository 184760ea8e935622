// SPDX-License-Identifier: MIT OR Apache-2.0
//! A call that is cut short after every so many units of work does what it does when it is left alone: same results, same
//! memory, same states of frames.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use hypercalls::grant::*;
use hypercalls::memory::{MemoryExchange, MemoryOp, MemoryReservation};
use hypercalls::mmu::{MmuUpdate, MmuextCmd, MmuextOp};
use hypercalls::trap::TRAP_DPL_MASK;
use hypercalls::{DomId, GuestPtr, HypercallNr, Mfn, MulticallEntry, TrapInfo, VcpuId};
use hypervisor::testing::World;
use hypervisor::testing::guest::{self, FRAMES, POOL, SLOT, TABLES, args_of, va};
use mm::FrameState;
use mm::flags::{GUEST_KERNEL, P, RW, US, entry_for};
use zerocopy::{Immutable, IntoBytes};

const SELF: u64 = DomId::SELF.0 as u64;
/// Where the arguments are.
const LIST: u64 = va(args_of(VcpuId(0)));
/// Where counts go.
const COUNT: u64 = LIST + 0x1ff8;

/// What a run leaves behind.
#[derive(Debug, PartialEq)]
struct Trace {
    results: Vec<i64>,
    frames: Vec<(String, u64)>,
    output: Vec<u8>,
}

/// Content of a frame, and of the arguments' only that they are not compared: lists say how far they are.
fn content(world: &World, mfn: Mfn) -> u64 {
    let mut hash = DefaultHasher::new();
    let is_list = [0, 1].iter().any(|n| world.guests[0].p2m[args_of(VcpuId(0)) + n] == mfn);
    if !is_list {
        (0..512).for_each(|n| mm::hosted::peek(mfn, n).hash(&mut hash));
    }
    hash.finish()
}

/// Runs a scenario in a new world, each call getting `budget` units of work at a time. Says too how often one was cut short.
fn run(scenario: fn(&mut World) -> Vec<i64>, budget: Option<u64>) -> (Trace, u32) {
    let mut world = World::new(1);
    while world.go_back().is_some_and(|v| v.domid != DomId(0)) {
        world.call(HypercallNr::SCHED_OP, [0; 5]);
        arch::time::advance(20_000_000);
        arch::entry::take_interrupts();
    }
    arch::console::take_output();
    arch::cpu::preempt_after(budget);
    let results = scenario(&mut world);
    arch::cpu::preempt_after(None);
    world.check();
    let frames = (0..mm::frame::end()).map(Mfn).filter_map(|mfn| {
        let state = mm::page_info(mfn).filter(|s| s.ram)?;
        // How far it once was says nothing about a frame that is not between two states now.
        let state = FrameState { progress: if state.partial { state.progress } else { 0 }, ..state };
        Some((format!("{mfn}: {state:?}"), content(&world, mfn)))
    });
    let trace = Trace { results, frames: frames.collect(), output: arch::console::take_output() };
    let cuts = world.cuts;
    world.finish();
    (trace, cuts)
}

/// Compares a run that is left alone with runs cut short after 0, 1, 2... units until that makes no difference any more.
fn compare(scenario: fn(&mut World) -> Vec<i64>) {
    let (whole, uncut) = run(scenario, None);
    for budget in 0.. {
        let (cut, cuts) = run(scenario, Some(budget));
        assert_eq!(cut.results, whole.results, "cut short every {budget} units");
        for (cut, whole) in cut.frames.iter().zip(&whole.frames) {
            assert_eq!(cut, whole, "cut short every {budget} units");
        }
        assert_eq!(cut, whole, "cut short every {budget} units");
        if cuts == uncut {
            assert!(budget > 2, "the scenario was cut short at all");
            return;
        }
    }
}

fn put<T: IntoBytes + Immutable + ?Sized>(at: u64, value: &T) {
    assert!(guest::write(at, value.as_bytes()), "arguments can be written");
}

fn mfn(world: &World, pfn: usize) -> Mfn {
    world.guests[0].p2m[pfn]
}

/// A request that changes the kernel's own mapping of a frame.
fn remap(world: &World, pfn: usize, rights: u64) -> MmuUpdate {
    let ptr = mfn(world, TABLES[3]).maddr().0 + pfn as u64 * 8;
    MmuUpdate { ptr, val: entry_for(mfn(world, pfn), P | US | GUEST_KERNEL | rights) }
}

fn mmu_update(world: &mut World, list: &[MmuUpdate]) -> Vec<i64> {
    put(LIST, list);
    put(COUNT, &u64::MAX);
    let result = world.call(HypercallNr::MMU_UPDATE, [LIST, list.len() as u64, COUNT, SELF, 0]);
    vec![result, i64::from(guest::read(COUNT) as u32)]
}

fn mmuext(world: &mut World, list: &[(MmuextCmd, u64)]) -> Vec<i64> {
    let list: Vec<MmuextOp> =
        list.iter().map(|(cmd, arg1)| MmuextOp { cmd: *cmd, arg1: *arg1, ..MmuextOp::default() }).collect();
    put(LIST, list.as_slice());
    put(COUNT, &u64::MAX);
    let result = world.call(HypercallNr::MMUEXT_OP, [LIST, list.len() as u64, COUNT, SELF, 0]);
    vec![result, i64::from(guest::read(COUNT) as u32)]
}

/// Writes a tree over several tables of each level, with the kernel's own part in it, and maps its tables read-only.
/// `last` is the very last entry to be looked at.
fn build_tree(world: &mut World, last: u64) -> Mfn {
    let levels: [Vec<usize>; 4] =
        [4, 3, 2, 1].map(|level: usize| POOL[level].clone().take([0, 6, 4, 3, 1][level]).collect());
    for (n, tables) in levels.iter().enumerate() {
        for (t, pfn) in tables.iter().enumerate() {
            let mut words = [0u64; 512];
            match levels.get(n + 1) {
                Some(next) => {
                    let share = next.iter().enumerate().filter(|(i, _)| i % tables.len() == t);
                    share.for_each(|(i, next)| words[i * 7] = entry_for(mfn(world, *next), P | RW | US));
                }
                None => {
                    let data = POOL[0].clone().enumerate();
                    data.for_each(|(i, d)| words[i * 11] = entry_for(mfn(world, d), P | US | (RW * (i as u64 & 1))));
                    words[511] = if t == tables.len() - 1 { last } else { 0 };
                }
            }
            if n == 0 {
                words[SLOT] = entry_for(mfn(world, TABLES[1]), P | RW | US);
            }
            put(va(*pfn), &words);
        }
    }
    let updates: Vec<MmuUpdate> = levels.iter().flatten().map(|pfn| remap(world, *pfn, 0)).collect();
    assert_eq!(mmu_update(world, &updates), [0, updates.len() as i64]);
    mfn(world, levels[0][0])
}

#[test]
fn page_table_updates() {
    compare(|world| {
        let list: Vec<MmuUpdate> =
            (16..FRAMES).map(|pfn| remap(world, pfn, if pfn % 3 == 0 { RW } else { 0 })).collect();
        mmu_update(world, &list)
    });
}

#[test]
fn page_table_updates_with_an_error_in_the_middle() {
    compare(|world| {
        let mut list: Vec<MmuUpdate> = (16..40).map(|pfn| remap(world, pfn, 0)).collect();
        list[17].val |= 1 << 51 | 1 << 7;
        mmu_update(world, &list)
    });
}

#[test]
fn trees_are_pinned_and_torn_down() {
    compare(|world| {
        let root = build_tree(world, 0);
        let mut results = mmuext(world, &[(MmuextCmd::PIN_L4_TABLE, root.0)]);
        results.extend(mmuext(world, &[(MmuextCmd::PIN_L4_TABLE, root.0)]));
        results.extend(mmuext(world, &[(MmuextCmd::UNPIN_TABLE, root.0), (MmuextCmd::TLB_FLUSH_ALL, 0)]));
        results
    });
}

#[test]
fn a_tree_that_is_bad_at_its_end_leaves_nothing_behind() {
    compare(|world| {
        let root = build_tree(world, P | 1 << 51);
        let mut results = mmuext(world, &[(MmuextCmd::PIN_L4_TABLE, root.0)]);
        assert!(results[0] < 0);
        // What undoing it still owes is done before anything else.
        results.extend(mmuext(world, &[(MmuextCmd::TLB_FLUSH_LOCAL, 0)]));
        let table = mm::page_info(root).expect("a frame");
        assert_eq!(table.type_count, 0);
        results
    });
}

#[test]
fn roots_are_loaded_and_replaced() {
    compare(|world| {
        let root = build_tree(world, 0);
        let old = mfn(world, TABLES[0]);
        let mut results = mmuext(world, &[(MmuextCmd::NEW_BASEPTR, root.0), (MmuextCmd::NEW_USER_BASEPTR, root.0)]);
        results.extend(mmuext(world, &[(MmuextCmd::NEW_BASEPTR, old.0), (MmuextCmd::NEW_USER_BASEPTR, 0)]));
        results
    });
}

#[test]
fn an_entry_that_leads_to_a_tree_is_set_and_cleared() {
    compare(|world| {
        build_tree(world, 0);
        let l3 = mfn(world, POOL[3].start);
        let at = mfn(world, TABLES[0]).maddr().0 + 8;
        let mut results = Vec::new();
        for val in [entry_for(l3, P | RW | US), entry_for(l3, P | US), 0] {
            results.extend(mmu_update(world, &[MmuUpdate { ptr: at, val }, remap(world, 40, RW)]));
        }
        results
    });
}

#[test]
fn multicalls() {
    compare(|world| {
        let inner = LIST + 0x1000;
        let updates: Vec<MmuUpdate> = (16..30).map(|pfn| remap(world, pfn, 0)).collect();
        put(inner, updates.as_slice());
        let mut list = Vec::new();
        for n in 0..12u64 {
            let (op, args) = match n % 4 {
                0 => (HypercallNr::MMU_UPDATE, [inner, updates.len() as u64, 0, SELF, 0, 0]),
                1 => (HypercallNr::STACK_SWITCH, [0xe02b, guest::stack_of(VcpuId(0)) - n, 0, 0, 0, 0]),
                2 => (HypercallNr::MULTICALL, [inner, 1, 0, 0, 0, 0]),
                _ => (HypercallNr::XEN_VERSION, [0; 6]),
            };
            list.push(MulticallEntry { op, result: 99, args });
        }
        put(LIST, list.as_slice());
        let result = world.call(HypercallNr::MULTICALL, [LIST, list.len() as u64, 0, 0, 0]);
        let results = (0..list.len() as u64).map(|n| guest::read(LIST + n * 64 + 8).cast_signed());
        [result].into_iter().chain(results).collect()
    });
}

fn reservation(list: u64, count: usize) -> MemoryReservation {
    MemoryReservation {
        extent_start: GuestPtr::new(list),
        nr_extents: count as u64,
        domid: DomId::SELF,
        ..MemoryReservation::default()
    }
}

/// Unmaps frames, so that they can be given away, and returns their numbers.
fn unmapped(world: &mut World, pfns: std::ops::Range<usize>) -> Vec<u64> {
    let list: Vec<MmuUpdate> = pfns.clone().map(|pfn| MmuUpdate { val: 0, ..remap(world, pfn, 0) }).collect();
    assert_eq!(mmu_update(world, &list)[0], 0);
    pfns.map(|pfn| mfn(world, pfn).0).collect()
}

#[test]
fn reservations() {
    compare(|world| {
        let frames = unmapped(world, 40..52);
        put(LIST, frames.as_slice());
        put(COUNT - 64, &reservation(LIST, frames.len()));
        let mut results = Vec::new();
        for op in [MemoryOp::DECREASE_RESERVATION, MemoryOp::POPULATE_PHYSMAP, MemoryOp::INCREASE_RESERVATION] {
            results.push(world.call(HypercallNr::MEMORY_OP, [u64::from(op.0), COUNT - 64, 0, 0, 0]));
            results.extend((0..frames.len() as u64).map(|n| guest::read(LIST + n * 8).cast_signed()));
        }
        results
    });
}

#[test]
fn exchanges() {
    compare(|world| {
        let frames = unmapped(world, 40..52);
        put(LIST, frames.as_slice());
        let names: Vec<u64> = (40..52).collect();
        put(LIST + 0x400, names.as_slice());
        let exchange = MemoryExchange {
            input: reservation(LIST, frames.len()),
            output: reservation(LIST + 0x400, names.len()),
            nr_exchanged: 0,
        };
        put(COUNT - 128, &exchange);
        let result = world.call(HypercallNr::MEMORY_OP, [u64::from(MemoryOp::EXCHANGE.0), COUNT - 128, 0, 0, 0]);
        let got = (0..names.len() as u64).map(|n| guest::read(LIST + 0x400 + n * 8).cast_signed());
        [result, guest::read(COUNT - 64).cast_signed()].into_iter().chain(got).collect()
    });
}

/// Makes an operation on a list of grants and returns what it left in the list.
fn grants<T: IntoBytes + Immutable>(world: &mut World, op: GnttabOp, list: &[T]) -> Vec<i64> {
    put(LIST, list);
    let result = world.call(HypercallNr::GRANT_TABLE_OP, [u64::from(op.0), LIST, list.len() as u64, 0, 0]);
    let words = size_of_val(list) as u64 / 8;
    [result].into_iter().chain((0..words).map(|n| guest::read(LIST + n * 8).cast_signed())).collect()
}

#[test]
fn lists_of_grants() {
    compare(|world| {
        let table = world.guests[0].domain.grants.frame(0).expect("a table");
        // To itself: frames 50 on; the last but one grant is none.
        let grefs = 0..40u32;
        for gref in grefs.clone().filter(|gref| *gref != 38) {
            let frame = mfn(world, 50 + gref as usize % 4).0;
            mm::hosted::poke(table, gref as usize, frame << 32 | u64::from(GTF_PERMIT_ACCESS));
        }
        let end =
            |gref: u32, offset| GnttabCopyPtr { gmfn: u64::from(gref), domid: DomId(0), offset, ..Default::default() };
        let flags = GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF;
        let copies: Vec<GnttabCopy> = grefs
            .clone()
            .map(|n| GnttabCopy { source: end(n, 8), dest: end(n / 2, 16), len: 1000, flags, ..Default::default() })
            .collect();
        let mut results = grants(world, GnttabOp::COPY, &copies);
        let place = |gref: u32| va(16 + gref as usize % 24);
        let (flags, dom) = (GNTMAP_HOST_MAP | GNTMAP_READONLY, DomId(0));
        let maps: Vec<GnttabMap> = grefs
            .clone()
            .map(|gref| GnttabMap { host_addr: place(gref), flags, gref, dom, ..Default::default() })
            .collect();
        results.extend(grants(world, GnttabOp::MAP_GRANT_REF, &maps));
        let unmaps: Vec<GnttabUnmap> =
            grefs.map(|gref| GnttabUnmap { host_addr: place(gref), handle: gref, ..Default::default() }).collect();
        results.extend(grants(world, GnttabOp::UNMAP_GRANT_REF, &unmaps));
        results
    });
}

#[test]
fn trap_tables_and_text() {
    compare(|world| {
        let trap = |vector| TrapInfo { vector, flags: vector & TRAP_DPL_MASK, address: va(15), ..TrapInfo::default() };
        let list: Vec<TrapInfo> = (0..40).map(trap).chain([TrapInfo::default()]).collect();
        put(LIST, list.as_slice());
        let mut results = vec![world.call(HypercallNr::SET_TRAP_TABLE, [LIST, 0, 0, 0, 0])];
        put(LIST, &[b'x'; 700]);
        results.push(world.call(HypercallNr::CONSOLE_IO, [0, 700, LIST, 0, 0]));
        let vcpu = &world.guests[0].domain.vcpus[0];
        let dpl = |n: usize| i64::from(vcpu.traps[n].dpl.load(std::sync::atomic::Ordering::Relaxed));
        results.extend((0..41).map(dpl));
        results
    });
}
