// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two domains that run side by side.

use arch::entry;
use hypercalls::event::EvtchnOp;
use hypercalls::sched::SchedOp;
use hypercalls::{DomId, HypercallNr, VcpuId};
use hypervisor::testing::World;
use hypervisor::testing::guest::{self, HANDLER, args_of, va};
use hypervisor::vcpu::Vcpu;
use zerocopy::{Immutable, IntoBytes};

/// A world with a CPU for each domain: dom0's first vCPU runs on CPU 0, the other domain's on CPU 1, nothing else does.
pub(crate) struct Pair(pub(crate) World);

impl Pair {
    pub(crate) fn new() -> Self {
        let mut pair = Self(World::new(2));
        for n in 0..2 {
            let vcpu = pair.on(n);
            assert_eq!((vcpu.domid, vcpu.id), (DomId(n), VcpuId(0)), "each domain has a CPU of its own");
            // Handlers for everything.
            pair.call(HypercallNr::SET_CALLBACKS, [HANDLER; 5]);
        }
        pair
    }

    /// Goes to a CPU and lets its vCPU run.
    pub(crate) fn on(&mut self, cpu: u16) -> &'static Vcpu {
        self.0.go_to(cpu);
        entry::take_interrupts();
        self.0.go_back().expect("a vCPU runs")
    }

    pub(crate) fn call(&mut self, number: HypercallNr, args: [u64; 5]) -> i64 {
        let result = self.0.call(number, args);
        self.0.check();
        result
    }

    /// Makes a call on an argument.
    pub(crate) fn ask<T: IntoBytes + Immutable>(&mut self, number: HypercallNr, op: u32, arg: &T) -> i64 {
        let at = va(args_of(VcpuId(0)));
        assert!(guest::write(at, arg.as_bytes()));
        self.call(number, [u64::from(op), at, 0, 0, 0])
    }

    pub(crate) fn channel<T: IntoBytes + Immutable>(&mut self, op: EvtchnOp, arg: &T) -> i64 {
        self.ask(HypercallNr::EVENT_CHANNEL_OP, op.0, arg)
    }

    /// Returns the answer that a call left at the 4 bytes `at` of its argument.
    pub(crate) fn answer(&self, at: u64) -> u32 {
        guest::read(va(args_of(VcpuId(0))) + at) as u32
    }

    /// Blocks the current vCPU; its CPU idles afterwards.
    pub(crate) fn block(&mut self) {
        let vcpu = self.0.go_back().expect("a vCPU runs");
        self.0.syscall(vcpu, HypercallNr::SCHED_OP.0, [u64::from(SchedOp::BLOCK.0), 0, 0, 0, 0]);
        assert!(self.0.go_back().is_none(), "the CPU idles");
        self.0.check();
    }
}
