// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions of a guest kernel from the fault to what it finds afterwards.

use super::*;
use crate::emulate::crdr::CR4_DE;
use crate::operand::Access;
use crate::testing::World;
use crate::testing::guest::{self, CODE, FRAMES, HANDLER, POOL, TABLES, read, va};

/// The first address behind the guest's memory, where nothing is mapped.
const END: u64 = va(FRAMES);
const DATA: u64 = va(POOL[0].start);
const FETCH: u64 = 16;
const WRITE: u64 = 2;
const PRESENT: u64 = 1;

/// A world in which a kernel of dom0 runs, with the right to all ports.
fn dom0() -> (World, &'static Vcpu) {
    let mut world = World::new(1);
    world.boot_kernels();
    for _ in 0..1000 {
        if let Some(vcpu) = world.go_back()
            && vcpu.domid.0 == 0
        {
            vcpu.iopl.store(3, Relaxed);
            return (world, vcpu);
        }
        arch::time::advance(20_000_000);
        entry::take_interrupts();
    }
    panic!("dom0 never gets its turn");
}

/// Executes an instruction at an address with registers as `set` makes them.
fn execute_at(world: &mut World, at: u64, code: &[u8], set: impl FnOnce(&mut Regs)) -> Regs {
    assert!(guest::write(at, code));
    entry::with_frame(|regs| {
        (regs.rip, regs.rsp) = (at, va(11) - 64);
        set(regs);
    });
    world.exception(13, 0);
    world.registers()
}

fn execute_here(world: &mut World, code: &[u8], set: impl FnOnce(&mut Regs)) -> Regs {
    execute_at(world, va(CODE), code, set)
}

/// Where the kernels of these worlds handle an exception.
const fn handler(vector: u64) -> u64 {
    HANDLER + vector * 16
}

/// The error code that the handler finds behind rcx and r11, with the instruction's address behind it.
fn error_code(regs: &Regs, vector: u64, instruction: u64) -> u64 {
    assert_eq!(regs.rip, handler(vector), "the exception was delivered");
    assert_eq!(read(regs.rsp + 24), instruction, "with an error code, and at the instruction");
    read(regs.rsp + 16)
}

#[test]
fn code_that_ends_with_its_page_is_a_fault_of_the_next_one() {
    let (mut world, vcpu) = dom0();
    let at = END - 1;
    let regs = execute_at(&mut world, at, b"\x0f", |_| {});
    assert_eq!((error_code(&regs, 14, at), vcpu.cr2.load(Relaxed)), (FETCH, END));
    // Complete, it is executed.
    let regs = execute_at(&mut world, END - 2, b"\x0f\x06", |_| {});
    assert_eq!(regs.rip, END);
    // What is not emulated stays a #GP.
    let regs = execute_here(&mut world, b"\xf4\x90", |_| {});
    assert_eq!(error_code(&regs, 13, va(CODE)), 0);
    world.finish();
}

#[test]
fn string_instructions_fault_where_their_memory_is_missing() {
    let (mut world, vcpu) = dom0();
    let at = va(CODE);
    let regs = execute_here(&mut world, b"\x6e", |regs| (regs.rdx, regs.rsi) = (0x80, END));
    assert_eq!((error_code(&regs, 14, at), vcpu.cr2.load(Relaxed)), (0, END));
    let regs = execute_here(&mut world, b"\x6d", |regs| (regs.rdx, regs.rdi) = (0x80, END - 2));
    assert_eq!((error_code(&regs, 14, at), vcpu.cr2.load(Relaxed)), (WRITE, END));
    let table = va(TABLES[3]);
    let regs = execute_here(&mut world, b"\x6c", |regs| (regs.rdx, regs.rdi) = (0x80, table));
    assert_eq!((error_code(&regs, 14, at), vcpu.cr2.load(Relaxed)), (PRESENT | WRITE, table));
    assert_eq!(operand::probe(vcpu, GuestVa(table), 8, Access::Read), Ok(()));
    world.finish();
}

#[test]
fn string_instructions_count_in_the_width_of_their_addresses() {
    let (mut world, _vcpu) = dom0();
    const HIGH: u64 = 0xdead_beef_0000_0000;
    // OUTSB FS:[ESI], repeated: one element at a time.
    context::set_fs_base(GuestVa(DATA));
    let code = b"\xf3\x67\x64\x6e";
    let regs = execute_here(&mut world, code, |regs| {
        (regs.rdx, regs.rsi, regs.rcx) = (0x80, HIGH | 0x10, HIGH | 2);
    });
    assert_eq!((regs.rip, regs.rsi, regs.rcx), (va(CODE), 0x11, 1));
    let regs = execute_here(&mut world, code, |_| {});
    assert_eq!((regs.rip, regs.rsi, regs.rcx), (va(CODE) + 4, 0x12, 0));
    // A whole register is as wide as it is.
    let regs = execute_here(&mut world, b"\x6f", |regs| (regs.rdx, regs.rsi) = (0x80, DATA));
    assert_eq!((regs.rip, regs.rsi), (va(CODE) + 1, DATA + 4));
    world.finish();
}

#[test]
fn debug_registers_that_do_not_exist_are_undefined() {
    let (mut world, vcpu) = dom0();
    let at = va(CODE);
    let from_dr4 = b"\x0f\x21\xe0";
    assert_eq!(execute_here(&mut world, from_dr4, |_| {}).rax, 0xffff_0ff0);
    vcpu.cr4.store(CR4_DE, Relaxed);
    let regs = execute_here(&mut world, from_dr4, |_| {});
    assert_eq!((regs.rip, read(regs.rsp + 16)), (handler(6), at), "no error code");
    // A reserved bit of DR7; a breakpoint in the hypervisor's memory.
    let regs = execute_here(&mut world, b"\x0f\x23\xf8", |regs| regs.rax = 1 << 32);
    assert_eq!(error_code(&regs, 13, at), 0);
    let regs = execute_here(&mut world, b"\x0f\x23\xc0", |regs| regs.rax = hypercalls::addr::HOLE_START);
    assert_eq!(error_code(&regs, 13, at), 0);
    vcpu.cr4.store(0, Relaxed);
    world.finish();
}

#[test]
fn breakpoints_on_ports_trap_behind_the_access() {
    let (mut world, vcpu) = dom0();
    vcpu.cr4.store(CR4_DE, Relaxed);
    registers::set_debug(vcpu, 0, 0x82).expect("a port");
    registers::set_debug(vcpu, 7, 1 | 2 << 16).expect("a breakpoint on it");
    assert_eq!(execute_here(&mut world, b"\xe6\x80", |_| {}).rip, va(CODE) + 2);
    // A word at 0x81 reaches 0x82.
    let regs = execute_here(&mut world, b"\x66\xe7\x81", |_| {});
    assert_eq!((regs.rip, read(regs.rsp + 16)), (handler(1), va(CODE) + 3));
    assert_eq!(vcpu.debug.lock().dr6 & 0xf, 1);
    vcpu.cr4.store(0, Relaxed);
    world.finish();
}

#[test]
fn a_base_that_is_no_table_is_refused() {
    let (mut world, vcpu) = dom0();
    let root = vcpu.kernel_mfn();
    let to_cr3 = b"\x0f\x22\xd8";
    for value in [u64::MAX, 0, world.guests[0].p2m[POOL[0].start].maddr().0] {
        let regs = execute_here(&mut world, to_cr3, |regs| regs.rax = value);
        assert_eq!(error_code(&regs, 13, va(CODE)), 0, "{value:#x}");
        assert_eq!(vcpu.kernel_mfn(), root);
    }
    let regs = execute_here(&mut world, to_cr3, |regs| regs.rax = root.maddr().0);
    assert_eq!(regs.rip, va(CODE) + 3);
    world.finish();
}
