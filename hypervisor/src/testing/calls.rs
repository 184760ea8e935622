// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hypercalls that the player makes: which, and the families that need few words.

use alloc::vec::Vec;

use hypercalls::physdev::{PhysdevSetIobitmap, PhysdevSetIopl};
use hypercalls::{DomId, GuestPtr, HypercallNr, MulticallEntry};

use super::player::Player;
use super::world::World;
use crate::vcpu::Vcpu;

/// A hypercall whose arguments lie in guest memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: HypercallNr,
    pub(super) args: [u64; 5],
}

impl Call {
    pub(super) fn new<const N: usize>(number: HypercallNr, args: [u64; N]) -> Self {
        let mut all = [0; 5];
        for (to, from) in all.iter_mut().zip(args) {
            *to = from;
        }
        Self { number, args: all }
    }
}

impl Player<'_> {
    /// Makes up a hypercall.
    pub(super) fn call(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        match self.source.below(22) {
            0 => self.multicall(world, vcpu),
            1 | 2 => self.scaffold(world, vcpu),
            3 => self.descriptors(world, vcpu),
            4 => self.iret(vcpu),
            5 => self.surrender(world, vcpu),
            6 => self.populate(vcpu),
            7..=9 => self.grants(world, vcpu),
            10 | 11 => self.foreign(world, vcpu),
            12 => self.steer_domains(world, vcpu),
            _ => self.single(world, vcpu),
        }
    }

    fn single(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        match self.source.below(40) {
            0..=6 => self.mmu_update(world, vcpu),
            7..=10 => self.update_va_mapping(world, vcpu),
            11..=15 => self.mmuext(world, vcpu),
            16..=25 => self.event_channel(world, vcpu),
            26..=28 => self.memory(world, vcpu),
            29..=31 => self.vcpu_op(world, vcpu),
            32..=33 => self.sched(vcpu),
            34..=36 => self.registers(world, vcpu),
            37 => self.grants(world, vcpu),
            38 => self.io(),
            _ => self.anything(),
        }
    }

    fn multicall(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let count = 1 + self.source.below(5);
        let calls = (0..count).map(|_| self.single(world, vcpu)).collect();
        self.list_of(calls)
    }

    /// Makes one multicall of calls whose arguments are in place.
    pub(super) fn list_of(&mut self, calls: Vec<Call>) -> Call {
        let list: Vec<MulticallEntry> = calls
            .iter()
            .map(|call| {
                let [a, b, c, d, e] = call.args;
                MulticallEntry { op: call.number, result: 0, args: [a, b, c, d, e, 0] }
            })
            .collect();
        let at = self.put(list.as_slice());
        let count = if self.source.one_in(40) { self.source.word() } else { list.len() as u64 };
        Call::new(HypercallNr::MULTICALL, [at, count])
    }

    /// Any number with any arguments, addresses among them.
    fn anything(&mut self) -> Call {
        let number = HypercallNr(self.source.below(56));
        // A domain that ends itself ends the play.
        let ends = matches!(number, HypercallNr::SCHED_OP | HypercallNr::SCHED_OP_COMPAT | HypercallNr::IRET);
        let number = if ends { HypercallNr::XEN_VERSION } else { number };
        let args = [0; 5].map(|_: u64| match self.source.below(4) {
            0 => self.source.below(40),
            1 => self.source.word(),
            2 => {
                let words = [0; 8].map(|_: u64| self.source.below(64));
                self.put(&words)
            }
            _ => 0,
        });
        // VCPUOP_down on the last vCPU ends the domain likewise.
        let args = if number == HypercallNr::VCPU_OP && args[0] as u32 == 2 { [3, 0, 0, 0, 0] } else { args };
        Call { number, args }
    }

    /// Returns a domain: mostly the caller itself.
    pub(super) fn domain(&mut self, vcpu: &Vcpu) -> DomId {
        match self.source.below(16) {
            0 => DomId(1 - (vcpu.domid.0 & 1)),
            1 => DomId::IO,
            2 => DomId::XEN,
            3 => DomId(self.source.below(1 << 16) as u16),
            4..=6 => vcpu.domid,
            _ => DomId::SELF,
        }
    }

    fn io(&mut self) -> Call {
        match self.source.below(6) {
            0 => {
                let iopl = self.small(4) as u32;
                let at = self.put(&PhysdevSetIopl { iopl });
                Call::new(HypercallNr::PHYSDEV_OP, [6, at])
            }
            1 => {
                let bitmap = self.put(&[0x55u8; 64]);
                let nr_ports = self.small(1 << 16) as u32;
                let bitmap = GuestPtr::new(bitmap);
                let at = self.put(&PhysdevSetIobitmap { bitmap, nr_ports, ..PhysdevSetIobitmap::default() });
                Call::new(HypercallNr::PHYSDEV_OP, [7, at])
            }
            2 => {
                let text = self.put(b"what a guest says\n");
                let count = self.small(400);
                Call::new(HypercallNr::CONSOLE_IO, [self.source.below(3), count, text])
            }
            3 => {
                arch::console::type_in(b"typed");
                arch::cpu::raise_here(arch::cpu::Work::CONSOLE);
                let to = self.put(&[0u8; 16]);
                Call::new(HypercallNr::CONSOLE_IO, [1, 16, to])
            }
            4 => {
                let words: [u64; 8] = [17, 0x0300_0000, 5, 6, 7, 8, 9, 10];
                let at = self.put(&words);
                Call::new(HypercallNr::PLATFORM_OP, [at])
            }
            _ => {
                let to = self.put(&[0u64; 140]);
                Call::new(HypercallNr::XEN_VERSION, [self.source.below(12), to])
            }
        }
    }
}
