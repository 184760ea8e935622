// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls by which a kernel sets its vCPU's registers: handlers, stacks, descriptor tables, bases, breakpoints, assists.
//!
//! Each is answered as the interface has it, what is refused changes nothing, and the domain's other vCPU keeps its own.

use std::sync::atomic::Ordering::Relaxed;

use arch::{context, entry};
use hypercalls::addr::{HOLE_END, HOLE_START};
use hypercalls::mmu::{MmuextCmd, MmuextOp};
use hypercalls::segment::FLAT_RING3_CS64;
use hypercalls::trap::*;
use hypercalls::{DomId, Errno, HypercallNr, TrapInfo};
use hypervisor::testing::World;
use hypervisor::testing::guest::{self, DESCRIPTORS, FRAMES, HANDLER, POOL, TABLES, va};
use hypervisor::testing::tools::{ARGUMENT, world};
use hypervisor::vcpu::{Entry, Vcpu};
use mm::PageType;
use mm::flags::{GUEST_KERNEL, P, RW, US, entry_for};
use zerocopy::{Immutable, IntoBytes};

const EINVAL: i64 = Errno::EINVAL.to_ret();
const ENOSYS: i64 = Errno::ENOSYS.to_ret();
/// An address that is not canonical, and one that is.
const BAD: u64 = 1 << 63;
const GOOD: u64 = HANDLER + 0x800;

fn put<T: IntoBytes + Immutable + ?Sized>(at: u64, value: &T) {
    assert!(guest::write(at, value.as_bytes()));
}

/// dom0's vCPU of that number; the first one runs.
fn vcpu(world: &World, id: usize) -> &Vcpu {
    &world.guests[0].domain.vcpus[id]
}

fn handler(entry: &Entry) -> (u64, bool) {
    (entry.address.load(Relaxed), entry.mask_events.load(Relaxed))
}

fn trap(vector: u8, flags: u8, address: u64) -> TrapInfo {
    TrapInfo { vector, flags, cs: 0x10, address, ..TrapInfo::default() }
}

fn set_trap_table(world: &mut World, at: u64) -> i64 {
    world.call(HypercallNr::SET_TRAP_TABLE, [at, 0, 0, 0, 0])
}

#[test]
fn trap_tables() {
    let mut world = world();
    let end = TrapInfo::default();
    // Entry by entry until one is refused.
    put(ARGUMENT, [trap(3, 3 | 4, GOOD), trap(4, 0, BAD), trap(5, 3, GOOD), end].as_slice());
    let before = handler(&vcpu(&world, 0).traps[5].entry);
    assert_eq!(set_trap_table(&mut world, ARGUMENT), EINVAL);
    let traps = &vcpu(&world, 0).traps;
    assert_eq!(handler(&traps[3].entry), (GOOD, true));
    assert_eq!((traps[3].dpl.load(Relaxed), traps[3].cs.load(Relaxed)), (3, 0x13), "the selector has ring 3");
    assert_eq!(handler(&traps[5].entry), before);
    assert_ne!(handler(&vcpu(&world, 1).traps[3].entry).0, GOOD, "each vCPU has its own");
    // An address of 0 ends the list, whatever follows.
    put(ARGUMENT, [trap(6, 0, GOOD), trap(7, 0, 0), trap(8, 0, GOOD)].as_slice());
    assert_eq!(set_trap_table(&mut world, ARGUMENT), 0);
    assert_eq!(handler(&vcpu(&world, 0).traps[6].entry), (GOOD, false));
    assert_ne!(handler(&vcpu(&world, 0).traps[8].entry).0, GOOD);
    // A list without an end runs into what is not mapped.
    put(va(FRAMES) - 16, &trap(9, 0, GOOD));
    assert_eq!(set_trap_table(&mut world, va(FRAMES) - 16), Errno::EFAULT.to_ret());
    assert_eq!(handler(&vcpu(&world, 0).traps[9].entry), (GOOD, false));
    assert_eq!(set_trap_table(&mut world, HOLE_START), Errno::EFAULT.to_ret());
    // No list: no handlers.
    assert_eq!(set_trap_table(&mut world, 0), 0);
    assert!(vcpu(&world, 0).traps.iter().all(|t| handler(&t.entry) == (0, false) && t.dpl.load(Relaxed) == 0));
    assert_ne!(handler(&vcpu(&world, 1).traps[14].entry).0, 0);
    world.check();
    world.finish();
}

fn callback(world: &mut World, op: u64, kind: CallbackType, flags: u16, address: u64) -> i64 {
    put(ARGUMENT, &CallbackRegister { kind, flags, address, ..CallbackRegister::default() });
    world.call(HypercallNr::CALLBACK_OP, [op, ARGUMENT, 0, 0, 0])
}

#[test]
fn callbacks() {
    type Which = fn(&Vcpu) -> &Entry;
    let kinds: [(CallbackType, Which); 5] = [
        (CallbackType::EVENT, |v| &v.event),
        (CallbackType::FAILSAFE, |v| &v.failsafe),
        (CallbackType::SYSCALL, |v| &v.syscall),
        (CallbackType::SYSENTER, |v| &v.sysenter),
        (CallbackType::SYSCALL32, |v| &v.syscall32),
    ];
    let mut world = world();
    for (n, (kind, which)) in (0u64..).zip(kinds) {
        let others = handler(which(vcpu(&world, 1)));
        for (flags, masks) in [(0, false), (CALLBACKF_MASK_EVENTS, true), (0xfffe, false)] {
            assert_eq!(callback(&mut world, 0, kind, flags, GOOD + n), 0);
            assert_eq!(handler(which(vcpu(&world, 0))), (GOOD + n, masks), "{kind:?}");
        }
        assert_eq!(callback(&mut world, 0, kind, 1, BAD), EINVAL);
        assert_eq!(handler(which(vcpu(&world, 0))), (GOOD + n, false), "a refusal changes nothing");
        assert_eq!(callback(&mut world, 1, kind, 0, 0), EINVAL, "{kind:?} cannot be taken back");
        assert_eq!(handler(which(vcpu(&world, 0))), (GOOD + n, false));
        assert_eq!(handler(which(vcpu(&world, 1))), others, "each vCPU has its own");
    }
    assert_eq!(callback(&mut world, 0, CallbackType::NMI, CALLBACKF_MASK_EVENTS, GOOD), 0);
    assert_eq!(handler(&vcpu(&world, 0).traps[2].entry), (GOOD, false), "an entry of the trap table");
    assert_eq!(callback(&mut world, 1, CallbackType::NMI, 0, 0), 0);
    assert_eq!(handler(&vcpu(&world, 0).traps[2].entry), (0, false));
    for unknown in [CallbackType::SYSENTER_DEPRECATED, CallbackType(6), CallbackType(8), CallbackType(u16::MAX)] {
        assert_eq!(callback(&mut world, 0, unknown, 0, GOOD), ENOSYS);
        assert_eq!(callback(&mut world, 1, unknown, 0, GOOD), ENOSYS);
    }
    assert_eq!(callback(&mut world, 2, CallbackType::EVENT, 0, GOOD), ENOSYS);
    for op in [0, 1] {
        let nowhere = world.call(HypercallNr::CALLBACK_OP, [op, va(FRAMES), 0, 0, 0]);
        assert_eq!(nowhere, Errno::EFAULT.to_ret());
    }
    world.finish();
}

#[test]
fn stacks_and_bases() {
    let mut world = world();
    // Ring 3 is forced; any address will do, because the frame is looked at when it is written.
    for (ss, sp) in [(0xe028, GOOD), (0x18, BAD), (0, HOLE_START)] {
        assert_eq!(world.call(HypercallNr::STACK_SWITCH, [ss, sp, 0, 0, 0]), 0);
        let vcpu = vcpu(&world, 0);
        assert_eq!((u64::from(vcpu.kernel_ss.load(Relaxed)), vcpu.kernel_sp.load(Relaxed)), (ss | 3, sp));
    }
    let bases: [fn() -> u64; 3] = [context::fs_base, context::other_gs_base, context::gs_base];
    for (which, base) in (0u64..).zip(bases) {
        for address in [0, GOOD + which, (1 << 47) - 1, HOLE_START, u64::MAX] {
            assert_eq!(world.call(HypercallNr::SET_SEGMENT_BASE, [which, address, 0, 0, 0]), 0);
            assert_eq!(base(), address, "base {which}");
        }
        for address in [1 << 47, HOLE_START - 1, BAD] {
            assert_eq!(world.call(HypercallNr::SET_SEGMENT_BASE, [which, address, 0, 0, 0]), EINVAL);
            assert_eq!(base(), u64::MAX, "base {which} stays");
        }
    }
    // A selector that cannot be loaded is no error: kernels die of one.
    for selector in [0, 0x1b, 0x7ff0, 0xffff, u64::MAX] {
        assert_eq!(world.call(HypercallNr::SET_SEGMENT_BASE, [3, selector, 0, 0, 0]), 0, "{selector:#x}");
    }
    for unknown in [4, 5, u64::from(u32::MAX)] {
        assert_eq!(world.call(HypercallNr::SET_SEGMENT_BASE, [unknown, 0, 0, 0, 0]), EINVAL);
    }
    world.finish();
}

#[test]
fn assists() {
    let mut world = world();
    let assist = |world: &mut World, cmd, kind| world.call(HypercallNr::VM_ASSIST, [cmd, kind, 0, 0, 0]);
    let now = |world: &World| world.guests[0].domain.assist.load(Relaxed);
    for kind in [0u64, 1, 2, 3, 4, 5, 32] {
        assert_eq!(assist(&mut world, 1, kind), 0);
        let without = now(&world);
        assert_eq!(without >> kind & 1, 0);
        assert_eq!(assist(&mut world, 0, kind), 0);
        assert_eq!(now(&world), without | 1 << kind);
        assert_eq!(assist(&mut world, 2, kind), ENOSYS);
        assert_eq!(now(&world), without | 1 << kind);
    }
    let all = now(&world);
    for unknown in [6, 7, 31, 33, 63, 64, 1 << 16, u64::from(u32::MAX)] {
        for cmd in 0..3 {
            assert_eq!(assist(&mut world, cmd, unknown), EINVAL, "{unknown}");
        }
    }
    assert_eq!(
        (now(&world), world.guests[1].domain.assist.load(Relaxed) & !4),
        (all, 0),
        "the other domain's are its own"
    );
    world.finish();
}

/// Virtual IOPL under the assist `architectural_iopl`: frames show it, `iret` sets it. Real flags never have it.
#[test]
fn privilege_in_flags() {
    const IOPL: u64 = 3 << 12;
    let mut world = world();
    let iopl = |world: &World| u64::from(vcpu(world, 0).iopl.load(Relaxed)) << 12;
    for (cmd, on) in [(1, false), (0, true), (1, false)] {
        put(ARGUMENT, &2u32);
        assert_eq!(world.call(HypercallNr::PHYSDEV_OP, [6, ARGUMENT, 0, 0, 0]), 0);
        assert_eq!(world.call(HypercallNr::VM_ASSIST, [cmd, 4, 0, 0, 0]), 0);
        for (given, kept) in [(1 << 12, 1 << 12), (0, 0), (IOPL, IOPL)] {
            let before = iopl(&world);
            entry::with_frame(|regs| (regs.rip, regs.rsp, regs.rflags) = (va(15), va(11) - 64, 0x202));
            world.exception(6, 0);
            let regs = world.registers();
            let shown = guest::read(regs.rsp + 4 * 8);
            assert_eq!(shown & IOPL, if on { before } else { 0 }, "in the frame");
            put(regs.rsp, &[0, 0, 0, 0, HANDLER, u64::from(FLAT_RING3_CS64) & !3, given | 0x202, va(11), 0xe02b]);
            let current = world.go_back().expect("it runs");
            world.syscall(current, HypercallNr::IRET.0, [0; 5]);
            assert_eq!(world.registers().rip, HANDLER);
            assert_eq!(world.registers().rflags & IOPL, 0, "ring 3 never has it");
            assert_eq!(iopl(&world), if on { kept } else { before });
        }
    }
    world.finish();
}

#[test]
fn a_task_switch_costs_one_fault() {
    let mut world = world();
    for (set, faults) in [(1, true), (0, false), (0x1_0000_0001, true)] {
        assert_eq!(world.call(HypercallNr::FPU_TASKSWITCH, [set, 0, 0, 0, 0]), 0);
        assert_eq!(vcpu(&world, 0).ts.load(Relaxed), faults);
        for due in [faults, false] {
            entry::with_frame(|regs| (regs.rip, regs.rsp) = (va(15), va(11) - 64));
            world.exception(7, 0);
            let handled = world.registers().rip == HANDLER + 7 * 16;
            assert_eq!(handled, due, "the guest hears of it once, and the flag is clear afterwards");
            assert!(!vcpu(&world, 0).ts.load(Relaxed));
        }
    }
    world.finish();
}

#[test]
fn breakpoint_registers() {
    const CR4_DE: u64 = 1 << 3;
    let mut world = world();
    let set = |world: &mut World, reg, value| world.call(HypercallNr::SET_DEBUGREG, [reg, value, 0, 0, 0]);
    let get = |world: &mut World, reg| world.call(HypercallNr::GET_DEBUGREG, [reg, 0, 0, 0, 0]);
    for reg in 0..4 {
        assert_eq!(set(&mut world, reg, GOOD + reg), 0);
        for bad in [HOLE_START, HOLE_END - 1] {
            assert_eq!(set(&mut world, reg, bad), Errno::EPERM.to_ret());
        }
        assert_eq!(get(&mut world, reg), (GOOD + reg).cast_signed(), "a refusal changes nothing");
    }
    assert_eq!(set(&mut world, 7, 0x55), 0);
    for (reg, bad, error) in [(6, 1 << 32, Errno::EINVAL), (7, 1 << 32, Errno::EINVAL), (7, 1 << 13, Errno::EPERM)] {
        assert_eq!(set(&mut world, reg, bad), error.to_ret());
    }
    assert_eq!((get(&mut world, 7), get(&mut world, 5)), (0x455, 0x455), "5 is a name for 7");
    assert_eq!(get(&mut world, 4), get(&mut world, 6));
    // The addresses are loaded where they watch.
    assert_eq!(context::loaded_debug()[..4], [GOOD, GOOD + 1, GOOD + 2, GOOD + 3]);
    vcpu(&world, 0).cr4.store(CR4_DE, Relaxed);
    for reg in [4, 5, 8, 9, u64::from(u32::MAX)] {
        assert_eq!(set(&mut world, reg, 0), Errno::ENODEV.to_ret());
        assert_eq!(get(&mut world, reg), Errno::ENODEV.to_ret());
    }
    vcpu(&world, 0).cr4.store(0, Relaxed);
    assert_eq!(set(&mut world, 7, 0), 0);
    world.finish();
}

/// Changes the kernel's own mapping of a frame.
fn remap(world: &mut World, pfn: usize, rights: u64) -> i64 {
    let value = entry_for(world.guests[0].p2m[pfn], P | US | GUEST_KERNEL | rights);
    world.call(HypercallNr::UPDATE_VA_MAPPING, [va(pfn), value, 2, 0, 0])
}

fn set_gdt(world: &mut World, pfns: &[usize], entries: u64) -> i64 {
    let frames: Vec<u64> = pfns.iter().map(|pfn| world.guests[0].p2m[*pfn].0).collect();
    put(ARGUMENT, frames.as_slice());
    let result = world.call(HypercallNr::SET_GDT, [ARGUMENT, entries, 0, 0, 0]);
    world.check();
    result
}

/// True when a frame of dom0's holds descriptors of some table.
fn holds_descriptors(world: &World, pfn: usize) -> bool {
    let state = mm::page_info(world.guests[0].p2m[pfn]).expect("a frame");
    state.page_type == PageType::SegDesc && state.type_count > 0
}

#[test]
fn descriptor_tables() {
    let mut world = world();
    let [one, two] = DESCRIPTORS;
    assert_eq!(set_gdt(&mut world, &[one], 16), EINVAL, "the kernel can write it");
    for pfn in DESCRIPTORS {
        assert_eq!(remap(&mut world, pfn, 0), 0);
    }
    assert_eq!(set_gdt(&mut world, &[one], 16), 0);
    assert!(holds_descriptors(&world, one));
    assert_eq!(remap(&mut world, one, RW), Errno::EBUSY.to_ret());
    // A list of which one frame cannot be had leaves the old table where it is.
    for bad in [TABLES[1], POOL[0].start] {
        assert_eq!(set_gdt(&mut world, &[two, bad], 600), EINVAL);
        assert!(holds_descriptors(&world, one) && !holds_descriptors(&world, two));
    }
    assert_eq!(set_gdt(&mut world, &[one; 16], 14 * 512 + 1), EINVAL);
    assert_eq!(world.call(HypercallNr::SET_GDT, [va(FRAMES), 1, 0, 0, 0]), Errno::EFAULT.to_ret());
    assert_eq!(vcpu(&world, 0).gdt_entries.load(Relaxed), 16);
    // The largest one; a frame may be in it often.
    assert_eq!(set_gdt(&mut world, &[two; 14], 14 * 512), 0);
    assert!(!holds_descriptors(&world, one) && holds_descriptors(&world, two));
    assert!(vcpu(&world, 1).descriptors.lock().gdt.iter().all(Option::is_none), "each vCPU has its own");
    assert_eq!(set_gdt(&mut world, &[], 0), 0, "none is legal, and the list is not looked at");
    assert!(!holds_descriptors(&world, two));
    for pfn in DESCRIPTORS {
        assert_eq!(remap(&mut world, pfn, RW), 0);
    }
    world.check();
    world.finish();
}

#[test]
fn single_descriptors() {
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    let mut world = world();
    let at = |world: &World, pfn: usize| world.guests[0].p2m[pfn].maddr().0;
    let update = |world: &mut World, at, value| world.call(HypercallNr::UPDATE_DESCRIPTOR, [at, value, 0, 0, 0]);
    let [one, _] = DESCRIPTORS;
    let plain = at(&world, one);
    assert_eq!(update(&mut world, plain + 8, DATA), 0, "a page that the kernel can write too");
    assert_eq!(guest::read(va(one) + 8), DATA | 3 << 45, "with ring 3");
    for (at, value) in [(plain + 4, DATA), (plain + 16, 0x0000_8900_0000_0067), (plain + 16, 0x0000_8200_0000_0fff)] {
        assert_eq!(update(&mut world, at, value), EINVAL);
    }
    assert_eq!(guest::read(va(one) + 16), 0);
    let (table, others) = (at(&world, TABLES[1]), world.guests[1].p2m[40].maddr().0);
    for bad in [table, others, 0xff_ffff_f000] {
        assert_eq!(update(&mut world, bad, DATA), EINVAL, "{bad:#x}");
    }
    world.check();
    world.finish();
}

#[test]
fn local_descriptor_tables() {
    let mut world = world();
    let set = |world: &mut World, base: u64, entries: u64| {
        put(ARGUMENT, &MmuextOp { cmd: MmuextCmd::SET_LDT, arg1: base, arg2: entries, ..MmuextOp::default() });
        world.call(HypercallNr::MMUEXT_OP, [ARGUMENT, 1, 0, u64::from(DomId::SELF.0), 0])
    };
    assert_eq!(set(&mut world, va(13), 8192), 0, "only noted: nothing need be mapped there yet");
    for (base, entries) in [(va(13) + 8, 16), (va(13), 8193), (HOLE_START, 16), (HOLE_START - 4096, 16)] {
        assert_eq!(set(&mut world, base, entries), EINVAL, "{base:#x} {entries}");
        assert_eq!(vcpu(&world, 0).ldt_base.load(Relaxed), va(13));
    }
    assert_eq!(set(&mut world, 0, 0), 0);
    assert_eq!(vcpu(&world, 0).ldt_entries.load(Relaxed), 0);
    world.check();
    world.finish();
}
