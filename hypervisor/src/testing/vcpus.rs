// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls about vCPUs that the player makes: their state, their registers, their turns.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hypercalls::sched::{SchedOp, SchedPoll, SchedShutdown, ShutdownReason};
use hypercalls::segment::{FLAT_RING3_CS64, FLAT_RING3_SS64};
use hypercalls::trap::*;
use hypercalls::vcpu::*;
use hypercalls::{GuestPtr, GuestVa, HypercallNr, TrapInfo, VcpuGuestContext, VcpuId};
use zerocopy::FromZeros;

use super::calls::Call;
use super::guest::{AREAS, DESCRIPTORS, Guest, HANDLER, INFO, TABLES, stack_of, va};
use super::player::Player;
use super::world::World;
use crate::vcpu::Vcpu;

/// A trap table that sends every exception to a handler, and its end.
pub(super) fn trap_table() -> Vec<TrapInfo> {
    let handler = |vector| TrapInfo {
        vector,
        flags: if vector == 3 || vector == 0x80 { 3 } else { 0 },
        cs: FLAT_RING3_CS64,
        _pad: 0,
        address: HANDLER + u64::from(vector) * 16,
    };
    (0..32).chain([0x80]).map(handler).chain([TrapInfo::default()]).collect()
}

/// The state in which a guest's second vCPU starts.
pub(super) fn second_context(guest: &Guest) -> Box<VcpuGuestContext> {
    context(guest, VcpuId(1))
}

/// A state in which one of a guest's vCPUs can start: everything in place, and down.
pub fn context(guest: &Guest, vcpu: VcpuId) -> Box<VcpuGuestContext> {
    let mut context = Box::new(VcpuGuestContext::new_zeroed());
    context.flags = VGCF_IN_KERNEL;
    context.user_regs.rip = HANDLER;
    context.user_regs.rsp = stack_of(vcpu);
    context.user_regs.cs = FLAT_RING3_CS64;
    context.user_regs.ss = FLAT_RING3_SS64;
    context.kernel_ss = u64::from(FLAT_RING3_SS64);
    context.kernel_sp = stack_of(vcpu);
    context.ctrlreg[1] = guest.p2m[TABLES[4]].maddr().0;
    context.ctrlreg[3] = guest.p2m[TABLES[0]].maddr().0;
    context.event_callback_eip = HANDLER;
    context.failsafe_callback_eip = HANDLER;
    context.syscall_callback_eip = HANDLER;
    for info in trap_table().into_iter().filter(|t| t.address != 0) {
        context.trap_ctxt[usize::from(info.vector)] = info;
    }
    context
}

impl Player<'_> {
    pub(super) fn vcpu_op(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let guest = &world.guests[usize::from(vcpu.domid.0)];
        let mut target = self.small(3);
        let op = VcpuOp(self.source.below(15) as u32);
        let at = match op {
            VcpuOp::INITIALISE => {
                let mut context = second_context(guest);
                if self.source.one_in(3) {
                    context.ctrlreg[1] = self.source.pick(&[0, guest.p2m[TABLES[0]].maddr().0]);
                    context.gdt_frames[0] = guest.p2m[DESCRIPTORS[0]].0;
                    context.gdt_ents = self.small(520);
                    context.user_regs.gs = self.source.word() as u16;
                }
                self.put(&*context)
            }
            VcpuOp::DOWN => {
                // The last one that goes down ends the domain.
                let up = |v: &&Vcpu| !v.status.down.load(core::sync::atomic::Ordering::Relaxed);
                if guest.domain.vcpus.iter().filter(up).count() < 2 && !self.source.one_in(40) {
                    target = 99;
                }
                0
            }
            VcpuOp::REGISTER_VCPU_INFO => {
                let offset = self.source.pick(&[0, 64, 128, 4032, 4033, 4096]);
                let mfn = if self.source.one_in(2) {
                    guest.p2m[INFO]
                } else {
                    self.frame(world, usize::from(vcpu.domid.0), 0)
                };
                self.put(&RegisterVcpuInfo { mfn, offset, rsvd: 0 })
            }
            VcpuOp::REGISTER_RUNSTATE_MEMORY_AREA | VcpuOp::REGISTER_VCPU_TIME_MEMORY_AREA => {
                let at = va(AREAS) + self.source.below(4) * 64;
                let at = self.bent(at);
                self.put(&RegisterArea { addr: GuestVa(at) })
            }
            VcpuOp::SEND_NMI => 0,
            _ => {
                let soon = arch::time::now() + self.source.below(10_000_000);
                let words = [soon, self.source.below(4), 0, 0, 0, 0];
                self.put(&words)
            }
        };
        Call::new(HypercallNr::VCPU_OP, [u64::from(op.0), target, at])
    }

    pub(super) fn sched(&mut self, vcpu: &Vcpu) -> Call {
        let (op, at) = match self.source.below(10) {
            0..=2 => (SchedOp::YIELD, 0),
            3..=5 => (SchedOp::BLOCK, 0),
            6..=7 => {
                let ports: [u32; 4] = [0; 4].map(|_: u32| self.source.below(12) as u32);
                let ports = GuestPtr::new(self.put(&ports));
                let timeout = if self.source.one_in(2) { 0 } else { arch::time::now() + self.source.below(5_000_000) };
                let poll = SchedPoll { ports, nr_ports: self.small(5) as u32, timeout, ..SchedPoll::default() };
                (SchedOp::POLL, self.put(&poll))
            }
            8 => (SchedOp(self.source.pick(&[4, 5, 6, 7, 8])), self.put(&[0u64; 4])),
            _ => {
                // What ends dom0 ends the machine.
                let rare = if vcpu.domid.0 == 0 { 200 } else { 20 };
                let reason = if self.source.one_in(rare) { self.source.below(7) } else { 6 + self.source.below(2) };
                (SchedOp::SHUTDOWN, self.put(&SchedShutdown { reason: ShutdownReason(reason as u32) }))
            }
        };
        Call::new(HypercallNr::SCHED_OP, [u64::from(op.0), at])
    }

    /// Registers, tables and callbacks.
    pub(super) fn registers(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let guest = &world.guests[usize::from(vcpu.domid.0)];
        match self.source.below(14) {
            0 => {
                let frames = DESCRIPTORS.map(|pfn| guest.p2m[pfn].0);
                let list = self.put(&frames);
                let entries = self.source.pick(&[0, 1, 512, 513, 1024, 1025, 7168, 7169]);
                Call::new(HypercallNr::SET_GDT, [list, entries])
            }
            1 => {
                let table = trap_table();
                let at = self.put(table.as_slice());
                Call::new(HypercallNr::SET_TRAP_TABLE, [at])
            }
            2 => Call::new(HypercallNr::STACK_SWITCH, [u64::from(FLAT_RING3_SS64), stack_of(vcpu.id)]),
            3 => Call::new(HypercallNr::SET_CALLBACKS, [HANDLER, HANDLER + 16, HANDLER + 32]),
            4 => Call::new(HypercallNr::FPU_TASKSWITCH, [self.source.below(2)]),
            5 => {
                let value = self.source.pick(&[0, 1, 0xffff_0ff0, 0x401, va(20), 0x2_0000, 1 << 13]);
                Call::new(HypercallNr::SET_DEBUGREG, [self.small(9), value])
            }
            6 => Call::new(HypercallNr::GET_DEBUGREG, [self.small(9)]),
            7 | 8 => {
                let page = guest.p2m[self.source.pick(&DESCRIPTORS)];
                let at = page.maddr().0 + self.source.below(512) * 8;
                let descriptor = self.source.pick(&[
                    0,
                    0x00cf_f200_0000_ffff,
                    0x00af_fb00_0000_ffff,
                    0x00af_9b00_0000_ffff,
                    u64::MAX,
                ]);
                Call::new(HypercallNr::UPDATE_DESCRIPTOR, [at, descriptor])
            }
            9 => Call::new(HypercallNr::VM_ASSIST, [self.small(3), self.source.pick(&[0, 2, 4, 5, 32, 33])]),
            10 => {
                let base = self.source.pick(&[0, 0xe033, 8, 4, 0x7fff_ffff_f000, 1 << 47, va(20)]);
                Call::new(HypercallNr::SET_SEGMENT_BASE, [self.small(5), base])
            }
            11 => {
                let what =
                    CallbackRegister { kind: CallbackType(self.small(9) as u16), flags: 1, _pad: 0, address: HANDLER };
                let at = self.put(&what);
                let op = if self.source.one_in(30) { self.source.below(3) } else { 0 };
                Call::new(HypercallNr::CALLBACK_OP, [op, at])
            }
            12 => Call::new(HypercallNr::SET_TIMER_OP, [self.source.pick(&[0, arch::time::now() + 1000, 1, u64::MAX])]),
            _ => self.iret(vcpu),
        }
    }

    /// A return to user mode, or to somewhere in the kernel.
    pub(super) fn iret(&mut self, vcpu: &Vcpu) -> Call {
        let to_user = vcpu.user_root.load(core::sync::atomic::Ordering::Relaxed) != u64::MAX && !self.source.one_in(4);
        let frame = IretContext {
            rax: self.source.below(10),
            flags: self.source.pick(&[0, VGCF_IN_SYSCALL]),
            rip: if self.source.one_in(20) { self.source.word() } else { HANDLER },
            cs: if to_user { u64::from(FLAT_RING3_CS64) } else { 0xe030 },
            rflags: self.source.below(1 << 22),
            rsp: stack_of(vcpu.id),
            ss: u64::from(FLAT_RING3_SS64),
            ..IretContext::default()
        };
        let at = self.put(&frame);
        arch::entry::with_frame(|regs| regs.rsp = at);
        Call::new(HypercallNr::IRET, [])
    }
}
