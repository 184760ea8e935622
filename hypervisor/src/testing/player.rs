// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody who plays the guests' kernels and users: one action a step, on whatever vCPU a CPU runs.

use alloc::collections::BTreeMap;

use arch::{context, cpu, entry};
use hypercalls::{GuestVa, Mfn, VcpuId};
use mm::hosted::Source;
use zerocopy::{Immutable, IntoBytes};

use super::guest::{self, CALL, POOL, args_of, stack_of, va};
use super::world::World;
use crate::current;
use crate::vcpu::Vcpu;

/// Steps without a page for arguments before the player gives up.
const PATIENCE: u32 = 20;
/// Bytes for arguments.
const ROOM: u64 = 2 * 4096;

/// Plays the guests.
#[derive(Debug)]
pub struct Player<'a> {
    pub(super) source: Source<'a>,
    /// Where the arguments of this step are, and how many bytes are used.
    args: u64,
    used: u64,
    /// Steps in a row in which arguments could not be written.
    lost: u32,
    /// What has happened.
    pub tally: Tally,
}

/// What has happened in a play: shows that it was worth something.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Hypercalls by number: how many were finished well and with an error.
    pub calls: BTreeMap<u64, [u32; 2]>,
    /// How many were cut short.
    pub cut_short: u32,
    /// How many steps were played by user space.
    pub user: u32,
    /// Page-table entries written by instruction, and tried.
    pub table_writes: [u32; 2],
    /// Mappings of grants that began, and that ended.
    pub mappings: [u32; 2],
}

impl Tally {
    /// Adds another play's.
    pub fn add(&mut self, other: &Self) {
        for (number, counts) in &other.calls {
            let mine = self.calls.entry(*number).or_default();
            mine.iter_mut().zip(counts).for_each(|(a, b)| *a += b);
        }
        self.cut_short += other.cut_short;
        self.user += other.user;
        self.table_writes.iter_mut().zip(other.table_writes).for_each(|(a, b)| *a += b);
        self.mappings.iter_mut().zip(other.mappings).for_each(|(a, b)| *a += b);
    }
}

impl<'a> Player<'a> {
    /// Makes a player that decides by `source`.
    pub fn new(source: Source<'a>) -> Self {
        Self { source, args: 0, used: 0, lost: 0, tally: Tally::default() }
    }

    /// True when there is nothing left to decide by, or nothing the guests can do any more.
    pub fn is_over(&self) -> bool {
        self.source.is_empty() || self.lost > PATIENCE
    }

    /// Plays one step on one CPU; false when the machine is at its end.
    pub fn step(&mut self, world: &mut World) -> bool {
        arch::time::advance(self.source.below(3_000_000));
        if self.source.one_in(3) {
            let who = self.source.below(world.guests.len() as u64) as usize;
            self.grant(world, who);
        }
        if self.source.one_in(30) {
            mm::buddy::scrub_some(1);
        }
        world.go_to(self.source.below(u64::from(world.cpus)) as u16);
        entry::take_interrupts();
        if let Some(vcpu) = world.go_back() {
            let budget = (self.source.below(3) != 0).then(|| self.source.below(5));
            cpu::preempt_after(budget);
            let before = mappings(world);
            self.act(world, vcpu);
            cpu::preempt_after(None);
            let now = mappings(world);
            self.tally.mappings[0] += now.saturating_sub(before);
            self.tally.mappings[1] += before.saturating_sub(now);
            if world.end.is_none() {
                world.go_back();
            }
        } else if world.end.is_none() && all_idle(world.cpus) {
            world.disturb();
        }
        world.guests.iter_mut().for_each(guest::Guest::take_stock);
        world.end.is_none()
    }

    fn act(&mut self, world: &mut World, vcpu: &Vcpu) {
        if !context::kernel_mode() {
            self.tally.user += 1;
            return self.user(world);
        }
        let (rip, number) = entry::with_frame(|regs| (regs.rip, regs.rax));
        if rip == CALL && !self.source.one_in(20) {
            world.repeat_syscall(vcpu);
            return self.note(number);
        }
        entry::with_frame(|regs| regs.rsp = stack_of(vcpu.id));
        self.begin(vcpu.id);
        match self.source.below(20) {
            0..=13 => {
                let call = self.call(world, vcpu);
                world.syscall(vcpu, call.number.0, call.args);
                self.note(call.number.0);
            }
            14 => self.acknowledge(world, vcpu),
            _ => self.kernel(world, vcpu),
        }
    }

    /// Notes what came of a hypercall.
    fn note(&mut self, number: u64) {
        let (rip, rax) = entry::with_frame(|regs| (regs.rip, regs.rax.cast_signed()));
        if rip == CALL {
            self.tally.cut_short += 1;
        } else {
            let counts = self.tally.calls.entry(number).or_default();
            counts[usize::from((-4096..0).contains(&rax))] += 1;
        }
    }

    /// Starts anew with the room for arguments.
    fn begin(&mut self, vcpu: VcpuId) {
        (self.args, self.used) = (va(args_of(vcpu)), 0);
        let there = arch::guest::access(GuestVa(self.args), arch::guest::Access::Write).is_ok();
        self.lost = if there { 0 } else { self.lost + 1 };
    }

    /// Puts bytes into guest memory and returns where.
    fn put_bytes(&mut self, bytes: &[u8]) -> u64 {
        let len = bytes.len().next_multiple_of(8) as u64;
        if self.used + len > ROOM {
            self.used = 0;
        }
        let at = self.args + self.used;
        self.used += len;
        // Where the guest has lost the page, the hypervisor will find so too.
        let _ = guest::write(at, bytes);
        at
    }

    /// Puts a value into guest memory and returns where; now and then a place where it is not.
    pub(super) fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> u64 {
        let at = self.put_bytes(value.as_bytes());
        self.bent(at)
    }

    /// Returns an address, now and then another one.
    pub(super) fn bent(&mut self, at: u64) -> u64 {
        if !self.source.one_in(60) {
            return at;
        }
        match self.source.below(6) {
            0 => 0,
            1 => at + 1 + self.source.below(7),
            2 => va(0) + self.source.below(4096),
            3 => va(guest::FRAMES) - self.source.below(64),
            4 => hypercalls::addr::HOLE_START - 8 + self.source.below(16),
            _ => self.source.word(),
        }
    }

    /// Returns a frame of a guest's that usually plays the given level (0: data).
    pub(super) fn frame(&mut self, world: &World, who: usize, level: usize) -> Mfn {
        let pfn = self.pfn(level);
        world.guests[who].p2m[pfn]
    }

    /// Returns the number of such a frame.
    pub(super) fn pfn(&mut self, level: usize) -> usize {
        if self.source.one_in(16) {
            return self.source.below(guest::FRAMES as u64) as usize;
        }
        let range = POOL[level].clone();
        range.start + self.source.below(range.len() as u64) as usize
    }

    /// Returns a number that is mostly small.
    pub(super) fn small(&mut self, limit: u64) -> u64 {
        if self.source.one_in(50) { self.source.word() } else { self.source.below(limit) }
    }
}

fn mappings(world: &World) -> u32 {
    world.guests.iter().map(|g| g.domain.grants.maptrack.lock().iter().count() as u32).sum()
}

fn all_idle(cpus: u16) -> bool {
    let here = cpu::this_cpu();
    let idle = (0..cpus).all(|n| {
        cpu::set_this_cpu(arch::CpuId(n));
        current::vcpu().is_none() && !cpu::has_work()
    });
    cpu::set_this_cpu(here);
    idle
}
