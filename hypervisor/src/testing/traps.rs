// SPDX-License-Identifier: MIT OR Apache-2.0
//! What guests do without a hypercall: touch memory, execute what the CPU does not let them, call their kernel.

use arch::guest::{Access, PageFault};
use arch::{Regs, entry};
use hypercalls::GuestVa;

use super::guest::{CODE, TABLES, va};
use super::player::Player;
use super::world::World;
use crate::vcpu::Vcpu;

const DEBUG: u32 = 1;
const INVALID_OPCODE: u32 = 6;
const GENERAL_PROTECTION: u32 = 13;
const PAGE_FAULT: u32 = 14;

/// Writes to what RAX points to.
const WRITES: [&[u8]; 9] = [
    b"\x48\x89\x18",
    b"\x48\x87\x18",
    b"\xf0\x48\x0f\xb1\x18",
    b"\x89\x18",
    b"\xf0\x48\x0f\xba\x30\x01",
    b"\x48\x83\x20\xfd",
    b"\x48\xc7\x00\x00\x00\x00\x00",
    b"\x48\xab",
    b"\xc6\x00\x07",
];

/// Instructions that ring 3 may not execute.
const PRIVILEGED: [&[u8]; 26] = [
    b"\x0f\x30",
    b"\x0f\x32",
    b"\x0f\x20\xd8",
    b"\x0f\x22\xd8",
    b"\x0f\x22\xe0",
    b"\x0f\x22\xc0",
    b"\x0f\x22\xd0",
    b"\x0f\x20\xc0",
    b"\x0f\x06",
    b"\x0f\x01\xd1",
    b"\xec",
    b"\xed",
    b"\xee",
    b"\x66\xef",
    b"\xe4\x71",
    b"\xe6\x70",
    b"\xf3\x6c",
    b"\xf3\x6f",
    b"\xfa",
    b"\xfb",
    b"\xf4",
    b"\x0f\x09",
    b"\x0f\x21\xf8",
    b"\x0f\x23\xf8",
    b"\x0f\x31",
    b"\x0f\xa2",
];

const MSRS: [u64; 12] = [
    0x10,
    0x1b,
    0x174,
    0x1a0,
    0x277,
    0x4000_0000,
    0xc000_0080,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
    0xc000_0103,
    0xd90,
];

impl Player<'_> {
    /// Something a kernel does that is no hypercall.
    pub(super) fn kernel(&mut self, world: &mut World, vcpu: &Vcpu) {
        match self.source.below(12) {
            0..=3 => self.store(world, vcpu),
            4 => {
                let at = va(self.pfn(0)) + self.source.below(4096);
                self.touch(world, at, Access::Read);
            }
            5..=7 => self.privileged(world, vcpu),
            8 => {
                // As if a selector of the LDT had been loaded.
                let at = vcpu.window.ldt_base() + self.source.below(0x1200);
                self.touch(world, at, Access::Read);
            }
            9 => arch::fpu::guest_write(self.source.below(512) as usize, vcpu.id.0 as u8),
            _ => self.exception(world),
        }
    }

    /// Something user space does.
    pub(super) fn user(&mut self, world: &mut World) {
        match self.source.below(6) {
            0..=2 => {
                world.guarded(|| entry::with_frame(crate::traps::guest_syscall));
            }
            3 => {
                let at = self.source.pick(&[0, 0x1000, 0x7fff_ffff_f000, va(1), va(CODE)]);
                self.touch(world, at, Access::Write);
            }
            4 => world.exception(self.source.pick(&[entry::VECTOR_SYSENTER, entry::VECTOR_SYSCALL32]), 0),
            _ => self.exception(world),
        }
    }

    /// Lets the guest touch memory; what the MMU refuses is taken to the hypervisor.
    fn touch(&mut self, world: &mut World, at: u64, how: Access) {
        if !GuestVa(at).is_canonical() {
            return world.exception(GENERAL_PROTECTION, 0);
        }
        if let Err(PageFault { code, .. }) = arch::guest::access(GuestVa(at), how) {
            world.exception(PAGE_FAULT, code);
        }
    }

    /// Puts an instruction where the kernel goes on.
    fn execute(&mut self, code: &[u8], set: impl FnOnce(&mut Regs)) {
        let at = va(CODE) + self.source.pick(&[0, 0, 0x100, 0xff8, 0xffe]);
        let _ = super::guest::write(at, code);
        entry::with_frame(|regs| {
            regs.rip = at;
            set(regs);
        });
    }

    /// Stores by instruction: to a page table, and the hypervisor may carry it out.
    fn store(&mut self, world: &mut World, vcpu: &Vcpu) {
        let who = usize::from(vcpu.domid.0);
        let level = self.source.below(4) as usize;
        let pfn = if self.source.one_in(3) { TABLES[3] } else { self.pfn(level) };
        let at = va(pfn) + self.source.below(512) * 8;
        let value = self.entry(world, who, 1 + level.min(3));
        let code = self.source.pick(&WRITES);
        let old = super::guest::read(at);
        self.execute(code, |regs| (regs.rax, regs.rdi, regs.rbx) = (at, at, value));
        if code.contains(&0xb1) {
            entry::with_frame(|regs| (regs.rax, regs.rbx) = (old, value));
        }
        match arch::guest::access(GuestVa(at), Access::Write) {
            Ok(_) => {
                let _ = super::guest::write(at, &value.to_le_bytes());
            }
            Err(fault) => {
                let before = entry::with_frame(|regs| regs.rip);
                world.exception(PAGE_FAULT, fault.code);
                let after = entry::with_frame(|regs| regs.rip);
                self.tally.table_writes[0] += u32::from(after == before + code.len() as u64);
                self.tally.table_writes[1] += 1;
            }
        }
    }

    fn privileged(&mut self, world: &mut World, vcpu: &Vcpu) {
        let who = usize::from(vcpu.domid.0);
        let mut any = [0u8; 15];
        any.fill_with(|| self.source.below(256) as u8);
        let code = if self.source.one_in(6) { &any } else { self.source.pick(&PRIVILEGED) };
        let root = self.frame(world, who, 4).maddr().0;
        let rax = match self.source.below(4) {
            0 => root,
            1 => world.guests[who].p2m[TABLES[0]].maddr().0,
            2 => self.source.below(1 << 22),
            _ => self.source.word(),
        };
        let rcx = if self.source.one_in(4) { self.source.below(8) } else { self.source.pick(&MSRS) };
        let rdx = self.source.pick(&[0, 0x3f8, 0xcf8, 0xcfc, 0x70, 0x71, 0x80, 0x608, 0xffff_8880]);
        let memory = va(self.pfn(0)) + self.source.below(4096);
        self.execute(code, |regs| {
            (regs.rax, regs.rcx, regs.rdx) = (rax, rcx, rdx);
            (regs.rsi, regs.rdi) = (memory, memory);
        });
        world.exception(GENERAL_PROTECTION, 0);
    }

    /// Exceptions that come of themselves.
    fn exception(&mut self, world: &mut World) {
        match self.source.below(6) {
            0 => {
                self.execute(b"\x0f\x0bxen\x0f\xa2", |regs| (regs.rax, regs.rcx) = (1, 0));
                world.exception(INVALID_OPCODE, 0);
            }
            1 => {
                self.execute(b"\xcd\x80", |_| {});
                world.exception(GENERAL_PROTECTION, 0x80 << 3 | 2);
            }
            2 => world.exception(DEBUG, 0),
            3 => world.exception(7, 0),
            4 => {
                let vector = self.source.pick(&[0, 2, 3, 4, 5, 6, 9, 10, 11, 12, 16, 17, 19]);
                world.exception(vector, self.source.below(0x100) as u32);
            }
            _ => {
                let vector = self.source.below(256) as u32;
                self.execute(&[0xcd, vector as u8], |_| {});
                world.exception(GENERAL_PROTECTION, vector << 3 | 2);
            }
        }
    }
}
