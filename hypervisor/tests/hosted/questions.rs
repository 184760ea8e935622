// SPDX-License-Identifier: MIT OR Apache-2.0
//! What kernels ask while they boot: versions and features, maps of memory, time, areas for what is published.

use std::mem::offset_of;
use std::sync::atomic::Ordering::Relaxed;

use arch::{context, entry};
use hypercalls::addr::{HOLE_END, HOLE_START};
use hypercalls::event::{EvtchnBindVcpu, EvtchnBindVirq, EvtchnOp};
use hypercalls::memory::*;
use hypercalls::mmu::{MmuextCmd, MmuextOp};
use hypercalls::physdev::{PhysdevOp, PhysdevSetIobitmap, PhysdevSetIopl};
use hypercalls::platform::*;
use hypercalls::shared_info::shared_offset;
use hypercalls::vcpu::*;
use hypercalls::{DomId, Errno, GuestPtr, GuestVa, HypercallNr, Mfn, Virq};
use hypervisor::testing::World;
use hypervisor::testing::guest::{self, AREAS, CODE, FRAMES, INFO, TABLES, va};
use hypervisor::testing::tools::{ARGUMENT, BUFFER, as_domain, read, world};
use mm::flags::{GUEST_KERNEL, P, RW, US, entry_for};
use zerocopy::{Immutable, IntoBytes};

const EINVAL: i64 = Errno::EINVAL.to_ret();
const EPERM: i64 = Errno::EPERM.to_ret();
const EFAULT: i64 = Errno::EFAULT.to_ret();
/// What memory holds before an answer is written.
const POISON: u8 = 0xa7;

fn put<T: IntoBytes + Immutable + ?Sized>(at: u64, value: &T) {
    assert!(guest::write(at, value.as_bytes()));
}

/// Makes a call whose sub-operation comes first and whose argument lies in memory.
fn ask<T: IntoBytes + Immutable>(world: &mut World, number: HypercallNr, op: u32, argument: &T) -> i64 {
    put(ARGUMENT, argument);
    world.call(number, [u64::from(op), ARGUMENT, 0, 0, 0])
}

/// Makes a `vcpu_op` about a vCPU of the caller's.
fn vcpu_op<T: IntoBytes + Immutable>(world: &mut World, op: VcpuOp, vcpu: u64, argument: &T) -> i64 {
    put(ARGUMENT, argument);
    world.call(HypercallNr::VCPU_OP, [u64::from(op.0), vcpu, ARGUMENT, 0, 0])
}

#[test]
fn versions_and_features() {
    let mut world = world();
    for id in [0, 1] {
        as_domain(&mut world, id);
        let version = |world: &mut World, op: u64, at| world.call(HypercallNr::XEN_VERSION, [op, at, 0, 0, 0]);
        assert_eq!(version(&mut world, 0, 0), 0x4_0011);
        // Each answer fills its structure, and nothing behind it: no byte is left as it was, none is the hypervisor's own.
        for (op, bytes) in [(1, 16), (2, 144), (3, 1024), (4, 64), (5, 8), (8, 16)] {
            put(BUFFER, &[POISON; 2048]);
            assert_eq!(version(&mut world, op, BUFFER), 0, "op {op}");
            let got: [u8; 2048] = read(BUFFER);
            assert!(!got[..bytes].contains(&POISON), "op {op} leaves a part of its answer out");
            assert!(got[bytes..].iter().all(|b| *b == POISON), "op {op} writes too much");
            let zeros = got[..bytes].iter().rev().take_while(|b| **b == 0).count();
            assert!(zeros > 0 || op == 5, "the texts of op {op} are ended");
            for bad in [0, va(FRAMES), HOLE_START, u64::MAX - 3, va(TABLES[1])] {
                assert_eq!(version(&mut world, op, bad), EFAULT, "op {op} at {bad:#x}");
            }
        }
        assert_eq!(version(&mut world, 3, BUFFER), 0);
        assert_eq!(read::<[u8; 16]>(BUFFER), *b"xen-3.0-x86_64 \0");
        assert_eq!((version(&mut world, 5, BUFFER), guest::read(BUFFER)), (0, HOLE_START));
        assert_eq!((version(&mut world, 7, 0), version(&mut world, 7, BUFFER)), (4096, EINVAL));
        for (submap, result) in [(0u32, 0), (1, EINVAL), (u32::MAX, EINVAL)] {
            put(BUFFER, &[submap, 7]);
            assert_eq!(version(&mut world, 6, BUFFER), result);
        }
        put(BUFFER, &[0u32; 2]);
        assert_eq!(version(&mut world, 6, BUFFER), 0);
        let dom0 = if id == 0 { 1 << 11 } else { 0 };
        assert_eq!(guest::read(BUFFER) >> 32, 1 << 5 | 1 << 6 | 1 << 7 | 1 << 13 | 1 << 17 | dom0);
        put(BUFFER, &[POISON; 1024]);
        assert_eq!(version(&mut world, 9, BUFFER), 0);
        assert_eq!(read::<[u8; 9]>(BUFFER) == *b"<denied>\0", id != 0, "the command line is dom0's to know");
        assert_eq!(version(&mut world, 10, 0), if id == 0 { Errno::ENODATA.to_ret() } else { EPERM });
        for unknown in [11, 12, u64::from(u32::MAX)] {
            assert_eq!(version(&mut world, unknown, BUFFER), Errno::ENOSYS.to_ret());
        }
    }
    world.finish();
}

#[test]
fn xsa_279_a_refused_update_flushes_nothing() {
    let mut world = world();
    let own = entry_for(world.guests[0].p2m[40], P | US | GUEST_KERNEL | RW);
    let others = entry_for(world.guests[1].p2m[40], P | US);
    let bitmap = BUFFER;
    put(bitmap, &1u64);
    // Full flushes: of this CPU, of all that the domain has run on, of those in a bitmap.
    for flags in [1, 1 | 4, bitmap | 1] {
        let mut update = |at: u64, value: u64, flags: u64| {
            let before = arch::tlb::full_flushes();
            let result = world.call(HypercallNr::UPDATE_VA_MAPPING, [at, value, flags, 0, 0]);
            (result, arch::tlb::full_flushes() - before)
        };
        assert_eq!(update(va(40), own, 0), (0, 0), "none asked for");
        assert_eq!(update(va(40), own, flags), (0, 1));
        for (at, value) in [(va(40), others), (1 << 63, own), (HOLE_START, own), (va(512) + (1 << 30), own), (0, 0)] {
            let (result, flushes) = update(at, value, flags);
            assert!(result < 0 && flushes == 0, "{at:#x} {value:#x}: {result}, {flushes}");
        }
    }
    // The entry is changed by then; only who is to be told cannot be read.
    let args = [va(40), own, va(FRAMES) | 1, 0, 0];
    assert_eq!(world.call(HypercallNr::UPDATE_VA_MAPPING, args), EINVAL);
    world.check();
    world.finish();
}

/// What the interface has as a C `int` has no upper half.
#[test]
fn sub_operations_are_ints() {
    let mut world = world();
    let (at, null) = (ARGUMENT, 0);
    let calls = [
        (HypercallNr::XEN_VERSION, [0, 0, 0]),
        (HypercallNr::XEN_VERSION, [7, null, 0]),
        (HypercallNr::SCHED_OP, [0, null, 0]),
        (HypercallNr::SCHED_OP_COMPAT, [0, null, 0]),
        (HypercallNr::EVENT_CHANNEL_OP, [u64::from(EvtchnOp::SEND.0), at, 0]),
        (HypercallNr::EVENT_CHANNEL_OP, [u64::from(EvtchnOp::CLOSE.0), at, 0]),
        (HypercallNr::PHYSDEV_OP, [u64::from(PhysdevOp::SET_IOPL.0), at, 0]),
        (HypercallNr::VCPU_OP, [u64::from(VcpuOp::IS_UP.0), 0, null]),
        (HypercallNr::CALLBACK_OP, [1, at, 0]),
        (HypercallNr::CONSOLE_IO, [0, 0, at]),
        (HypercallNr::GRANT_TABLE_OP, [6, at, 1]),
        (HypercallNr::VM_ASSIST, [0, 5, 0]),
        (HypercallNr::SET_SEGMENT_BASE, [0, at, 0]),
        (HypercallNr::SET_DEBUGREG, [0, at, 0]),
        (HypercallNr::GET_DEBUGREG, [0, 0, 0]),
    ];
    for (number, [op, a, b]) in calls {
        put(ARGUMENT, &[0u64; 4]);
        let plain = world.call(number, [op, a, b, 0, 0]);
        assert_ne!(plain, Errno::ENOSYS.to_ret(), "{number:?} {op} exists");
        for junk in [1 << 32, 0xffff_ffff << 32] {
            put(ARGUMENT, &[0u64; 4]);
            assert_eq!(world.call(number, [op | junk, a, b, 0, 0]), plain, "{number:?} {op}");
        }
    }
    // Here the upper bits are where it goes on.
    let most = u64::from(MemoryOp::MAXIMUM_RESERVATION.0);
    assert_eq!(world.call(HypercallNr::MEMORY_OP, [most | 1 << 32, ARGUMENT, 0, 0, 0]), EINVAL);
    world.finish();
}

#[test]
fn maps_of_memory() {
    let mut world = world();
    let map = |world: &mut World, op: MemoryOp, entries: u32, at: u64| {
        let wanted = MemoryMap { nr_entries: entries, buffer: GuestPtr::new(at), ..MemoryMap::default() };
        let result = ask(world, HypercallNr::MEMORY_OP, op.0, &wanted);
        (result, read::<MemoryMap>(ARGUMENT).nr_entries)
    };
    let machine = MemoryOp::MACHINE_MEMORY_MAP;
    let (result, all) = map(&mut world, machine, 0, 0);
    assert!(result == 0 && all > 1, "{all} entries: RAM, and holes that are not dom0's");
    put(BUFFER, &[POISON; 2048]);
    assert_eq!(map(&mut world, machine, all - 1, BUFFER), (EINVAL, all - 1), "too little room");
    assert_eq!(read::<[u8; 64]>(BUFFER), [POISON; 64]);
    assert_eq!(map(&mut world, machine, all + 9, BUFFER), (0, all));
    let entry = |n: u64| read::<E820Entry>(BUFFER + n * size_of::<E820Entry>() as u64);
    let first = entry(0);
    assert_eq!((first.addr, first.kind), (0, E820Type::RAM));
    let reserved = (0..u64::from(all)).map(entry).filter(|entry| entry.kind == E820Type::RESERVED);
    let covers = |at: u64| reserved.clone().any(|e| (e.addr..e.addr + e.size).contains(&at));
    assert!(covers(0xfee0_0000), "the range of messages is not for devices");
    assert_eq!(read::<u8>(BUFFER + u64::from(all) * 20), POISON);
    assert_eq!(map(&mut world, machine, 99, va(FRAMES)).0, EFAULT);
    // A domain that was given no map makes its own.
    assert_eq!(map(&mut world, MemoryOp::MEMORY_MAP, 99, BUFFER), (Errno::ENOSYS.to_ret(), 99));
    for id in [1, 0] {
        as_domain(&mut world, id);
        assert_eq!(
            ask(&mut world, HypercallNr::MEMORY_OP, MemoryOp::MACHPHYS_MAPPING.0, &MachphysMapping::default()),
            0
        );
        let m2p: MachphysMapping = read(ARGUMENT);
        assert_eq!((m2p.v_start, m2p.v_end - m2p.v_start), (HOLE_START, 1 << 38));
        let frames = if id == 0 { mm::m2p::entries() } else { 1 << 35 };
        assert_eq!(m2p.max_mfn, frames - 1, "every frame that an entry may ever name");
    }
    for most in [1 << 20, 0x8000_0000, u64::from(u32::MAX), 1 << 40] {
        world.guests[0].domain.account.set_maximum(most);
        let owned = MemoryDomain { domid: DomId::SELF };
        let told = ask(&mut world, HypercallNr::MEMORY_OP, MemoryOp::MAXIMUM_RESERVATION.0, &owned);
        assert_eq!(told, most.min(u64::from(u32::MAX)) as i64, "never negative");
    }
    world.finish();
}

fn set_time(world: &mut World, cmd: PlatformCmd, words: &[u32]) -> i64 {
    put(ARGUMENT, &[cmd.0, XENPF_INTERFACE_VERSION]);
    put(ARGUMENT + 8, words);
    world.call(HypercallNr::PLATFORM_OP, [ARGUMENT, 0, 0, 0, 0])
}

/// The wall clock that a domain sees: seconds and nanoseconds at system time 0.
fn wall_clock(world: &World, id: usize) -> (u64, u32) {
    let shared = world.guests[id].domain.shared_info();
    let word = |at| shared.u32(at).load(Relaxed);
    assert_eq!(word(shared_offset::WC_VERSION) % 2, 0, "no change is under way");
    let high = u64::from(word(shared_offset::WC_SEC_HI));
    (high << 32 | u64::from(word(shared_offset::WC_SEC)), word(shared_offset::WC_NSEC))
}

#[test]
fn the_wall_clock_is_set_for_all() {
    let mut world = world();
    let (old, new) = (PlatformCmd::SETTIME32, PlatformCmd::SETTIME64);
    // Seconds in one word or two, nanoseconds, then what must be zero or nothing, and the system time that belongs to them.
    assert_eq!(set_time(&mut world, old, &[1000, 5, 3, 0]), 0);
    assert_eq!([0, 1].map(|id| wall_clock(&world, id)), [(1000, 2); 2]);
    assert_eq!(set_time(&mut world, new, &[7, 1, 10, 0, 2_000_000_000, 0]), 0);
    let then = (1 << 32 | 5, 10);
    assert_eq!([0, 1].map(|id| wall_clock(&world, id)), [then; 2]);
    assert_eq!(set_time(&mut world, new, &[8, 0, 0, 1, 0, 0]), EINVAL, "what must be zero");
    assert_eq!([0, 1].map(|id| wall_clock(&world, id)), [then; 2]);
    // More nanoseconds than a second has, and more than there is: nothing is divided wrongly.
    assert_eq!(set_time(&mut world, new, &[1, 0, u32::MAX, 0, 0, 0]), 0);
    assert_eq!(wall_clock(&world, 0), (5, 294_967_295));
    assert_eq!(set_time(&mut world, new, &[1, 0, 0, 0, u32::MAX, u32::MAX]), 0);
    assert_eq!(wall_clock(&world, 0), (0, 0));
    assert_eq!(set_time(&mut world, new, &[u32::MAX, u32::MAX, 0, 0, 0, 0]), 0);
    assert!(wall_clock(&world, 1).1 < 1_000_000_000);
    world.check();
    world.finish();
}

#[test]
fn timers_belong_to_who_sets_them() {
    let mut world = world();
    let soon = SetSingleshotTimer { timeout_abs_ns: arch::time::now() + 1_000_000_000, ..Default::default() };
    for op in [VcpuOp::SET_SINGLESHOT_TIMER, VcpuOp::STOP_SINGLESHOT_TIMER] {
        assert_eq!(vcpu_op(&mut world, op, 0, &soon), 0);
        assert_eq!(vcpu_op(&mut world, op, 1, &soon), EINVAL, "only its own");
        assert_eq!(vcpu_op(&mut world, op, 2, &soon), Errno::ENOENT.to_ret());
    }
    let period = |world: &World, vcpu: usize| world.guests[0].domain.vcpus[vcpu].period.load(Relaxed);
    for vcpu in [0, 1] {
        let set = |world: &mut World, period_ns| {
            vcpu_op(world, VcpuOp::SET_PERIODIC_TIMER, vcpu, &SetPeriodicTimer { period_ns })
        };
        assert_eq!(set(&mut world, 1_000_000), 0);
        for bad in [0, 1, 999_999, (1 << 58) + 1, 1 << 63, u64::MAX] {
            assert_eq!(set(&mut world, bad), EINVAL, "{bad}");
            assert_eq!(period(&world, vcpu as usize), 1_000_000);
        }
        // XSA-20: the longest one does not come round to the past.
        assert_eq!(set(&mut world, 1 << 58), 0);
        assert_eq!(vcpu_op(&mut world, VcpuOp::STOP_PERIODIC_TIMER, vcpu, &0u64), 0);
        assert_eq!(period(&world, vcpu as usize), 0);
    }
    for (op, vcpu, result) in [
        (VcpuOp::IS_UP, 0, 1),
        (VcpuOp::IS_UP, 2, Errno::ENOENT.to_ret()),
        (VcpuOp::UP, 2, Errno::ENOENT.to_ret()),
        (VcpuOp(14), 0, Errno::ENOSYS.to_ret()),
        (VcpuOp(14), 2, Errno::ENOENT.to_ret()),
        (VcpuOp::IS_UP, u64::from(u32::MAX), Errno::ENOENT.to_ret()),
        (VcpuOp::INITIALISE, 1, Errno::EEXIST.to_ret()),
    ] {
        assert_eq!(vcpu_op(&mut world, op, vcpu, &0u64), result, "{op:?} {vcpu}");
    }
    world.finish();
}

#[test]
fn a_vcpu_info_moves_once() {
    let mut world = world();
    let dom0 = world.guests[0].domain.clone();
    let own = |world: &World, pfn: usize| world.guests[0].p2m[pfn];
    let register = |world: &mut World, vcpu, mfn: Mfn, offset| {
        let result = vcpu_op(world, VcpuOp::REGISTER_VCPU_INFO, vcpu, &RegisterVcpuInfo { mfn, offset, rsvd: 0 });
        world.check();
        result
    };
    let at = own(&world, INFO);
    for offset in [4096 - 63, 4096, u32::MAX, 4, 65] {
        assert_eq!(register(&mut world, 0, at, offset), Errno::ENXIO.to_ret(), "XSA-327: offset {offset}");
    }
    let others = world.guests[1].p2m[INFO];
    for bad in [others, own(&world, TABLES[3]), Mfn(u64::MAX >> 12)] {
        assert_eq!(register(&mut world, 0, bad, 0), EINVAL, "{bad}");
    }
    assert_eq!(register(&mut world, 1, at, 64), EINVAL, "another one must be down");
    assert_eq!(register(&mut world, 9, at, 0), Errno::ENOENT.to_ret());
    let old = dom0.vcpus[0].vcpu_info();
    old.u64(16).store(0x1234, Relaxed);
    old.u8(1).store(1, Relaxed);
    assert_eq!(register(&mut world, 0, at, 128), 0);
    let new: [u64; 8] = std::array::from_fn(|n| guest::read(va(INFO) + 128 + 8 * n as u64));
    assert_eq!(
        (new[0] & 0xffff, new[1], new[2]),
        (0x0101, u64::MAX, 0x1234),
        "pending, masked, all to be looked at; CR2"
    );
    assert_ne!(new[5], 0, "the time is published there");
    assert_eq!(register(&mut world, 0, at, 256), EINVAL, "once");
    // The page stays writable for good: it cannot become a table.
    let state = mm::page_info(at).expect("a frame");
    assert!(state.page_type == mm::PageType::Writable && state.type_count >= 2, "{state:?}");
    world.finish();
}

#[test]
fn runstates_are_published_at_once() {
    let mut world = world();
    let register = |world: &mut World, op, vcpu, addr| vcpu_op(world, op, vcpu, &RegisterArea { addr: GuestVa(addr) });
    let runstate = VcpuOp::REGISTER_RUNSTATE_MEMORY_AREA;
    for op in [runstate, VcpuOp::REGISTER_VCPU_TIME_MEMORY_AREA] {
        for bad in [HOLE_START, HOLE_END - 8, HOLE_START - 8, u64::MAX - 8] {
            assert_eq!(register(&mut world, op, 0, bad), EFAULT, "{bad:#x}");
        }
        assert_eq!(register(&mut world, op, 0, va(FRAMES)), 0, "it need not be mapped yet");
    }
    for at in [va(AREAS), va(AREAS) + 64] {
        put(va(AREAS), &[POISON; 128]);
        assert_eq!(register(&mut world, runstate, 0, at), 0, "again, elsewhere");
        let info: RunstateInfo = read(at);
        assert_eq!((info.state, info._pad), (Runstate::RUNNING, 0));
        assert!(info.time[0] > 0 && info.time.iter().sum::<u64>() <= arch::time::now(), "{info:?}");
        assert!(info.state_entry_time <= arch::time::now());
    }
    // Another one's, which waits: written as it is, and by its next turns.
    put(va(AREAS) + 128, &[POISON; 64]);
    assert_eq!(register(&mut world, runstate, 1, va(AREAS) + 128), 0);
    assert_eq!(read::<RunstateInfo>(va(AREAS) + 128).state, Runstate::RUNNABLE);
    let info: RunstateInfo = {
        assert_eq!(vcpu_op(&mut world, VcpuOp::GET_RUNSTATE_INFO, 1, &[POISON; 64]), 0);
        read(ARGUMENT)
    };
    assert_eq!((info.state, info._pad), (Runstate::RUNNABLE, 0));
    assert_eq!(read::<u8>(ARGUMENT + 48), POISON);
    assert_eq!(register(&mut world, VcpuOp::REGISTER_VCPU_TIME_MEMORY_AREA, 0, 0), 0, "none any more");
    world.check();
    world.finish();
}

#[test]
fn virtual_interrupts_are_bound_where_they_belong() {
    let mut world = world();
    let bind = |world: &mut World, virq, vcpu| {
        let result =
            ask(world, HypercallNr::EVENT_CHANNEL_OP, EvtchnOp::BIND_VIRQ.0, &EvtchnBindVirq { virq, vcpu, port: 0 });
        (result, guest::read(ARGUMENT + offset_of!(EvtchnBindVirq, port) as u64) as u32)
    };
    let (per_vcpu, global) = ([0, 1, 7, 13], [2, 3, 4, 6, 8, 9, 10, 11, 12, 16]);
    for virq in per_vcpu {
        for vcpu in [0, 1] {
            let (result, port) = bind(&mut world, Virq(virq), vcpu);
            assert_eq!(result, 0, "virq {virq}");
            assert_eq!(bind(&mut world, Virq(virq), vcpu).0, Errno::EEXIST.to_ret());
            let moved = EvtchnBindVcpu { port, vcpu: 0 };
            assert_eq!(ask(&mut world, HypercallNr::EVENT_CHANNEL_OP, EvtchnOp::BIND_VCPU.0, &moved), EINVAL);
        }
        assert_eq!(bind(&mut world, Virq(virq), 2).0, Errno::ENOENT.to_ret());
    }
    for virq in global {
        for vcpu in [1, 2, u32::MAX] {
            assert_eq!(bind(&mut world, Virq(virq), vcpu).0, EINVAL, "virq {virq} is the domain's, not a vCPU's");
        }
        let (result, port) = bind(&mut world, Virq(virq), 0);
        assert_eq!(result, 0, "virq {virq}");
        assert_eq!(bind(&mut world, Virq(virq), 0).0, Errno::EEXIST.to_ret());
        for (vcpu, result) in [(1, 0), (2, Errno::ENOENT.to_ret())] {
            let moved = EvtchnBindVcpu { port, vcpu };
            assert_eq!(ask(&mut world, HypercallNr::EVENT_CHANNEL_OP, EvtchnOp::BIND_VCPU.0, &moved), result);
        }
    }
    for unknown in [24, 25, u32::MAX] {
        assert_eq!(bind(&mut world, Virq(unknown), 0).0, EINVAL);
    }
    world.check();
    world.finish();
}

#[test]
fn port_privilege() {
    let mut world = world();
    let iopl = |world: &World| world.guests[0].domain.vcpus[0].iopl.load(Relaxed);
    for level in 0..4 {
        assert_eq!(ask(&mut world, HypercallNr::PHYSDEV_OP, PhysdevOp::SET_IOPL.0, &PhysdevSetIopl { iopl: level }), 0);
        assert_eq!(u32::from(iopl(&world)), level);
    }
    for bad in [4, 256, u32::MAX] {
        assert_eq!(
            ask(&mut world, HypercallNr::PHYSDEV_OP, PhysdevOp::SET_IOPL.0, &PhysdevSetIopl { iopl: bad }),
            EINVAL
        );
        assert_eq!(iopl(&world), 3);
    }
    assert_eq!(world.guests[0].domain.vcpus[1].iopl.load(Relaxed), 0, "each vCPU has its own");
    let bitmap = |world: &mut World, at: u64, nr_ports: u32| {
        let set = PhysdevSetIobitmap { bitmap: GuestPtr::new(at), nr_ports, ..Default::default() };
        ask(world, HypercallNr::PHYSDEV_OP, PhysdevOp::SET_IOBITMAP.0, &set)
    };
    for (at, ports) in [(0, 0), (va(FRAMES), 65536), (BUFFER, 1)] {
        assert_eq!(bitmap(&mut world, at, ports), 0);
    }
    for (at, ports) in
        [(BUFFER, 65537), (BUFFER, u32::MAX), (HOLE_START, 8), (HOLE_START - 64, 8), (u64::MAX - 8000, 8)]
    {
        assert_eq!(bitmap(&mut world, at, ports), EINVAL, "{at:#x} {ports}");
    }
    assert_eq!(world.guests[0].domain.vcpus[0].io_ports.load(Relaxed), 1, "the last good one stays");
    // In user mode, without the privilege, the bitmap decides; one that cannot be read closes all ports.
    let root = world.guests[0].p2m[TABLES[0]].0;
    let user = MmuextOp { cmd: MmuextCmd::NEW_USER_BASEPTR, arg1: root, ..MmuextOp::default() };
    put(ARGUMENT, &user);
    assert_eq!(world.call(HypercallNr::MMUEXT_OP, [ARGUMENT, 1, 0, u64::from(DomId::SELF.0), 0]), 0);
    assert_eq!(ask(&mut world, HypercallNr::PHYSDEV_OP, PhysdevOp::SET_IOPL.0, &PhysdevSetIopl { iopl: 2 }), 0);
    put(BUFFER, &[0u8; 64]);
    put(va(CODE), b"\xec");
    for (at, ports, open) in
        [(BUFFER, 0x81, true), (BUFFER, 0x80, false), (va(FRAMES), 65536, false), (va(FRAMES) - 16, 65536, false)]
    {
        assert_eq!(bitmap(&mut world, at, ports), 0);
        assert!(context::to_user_mode());
        entry::with_frame(|regs| (regs.rip, regs.rdx) = (va(CODE), 0x80));
        world.exception(13, 0);
        let done = world.registers().rip == va(CODE) + 1;
        assert_eq!((done, context::kernel_mode()), (open, !open), "{at:#x} {ports:#x}");
        if open {
            context::to_kernel_mode();
        }
    }
    world.finish();
}
