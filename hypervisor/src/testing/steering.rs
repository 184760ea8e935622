// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tools in one of the player's guests do with domains: they create, set up, steer and destroy them, the other guest among
//! them, sensibly or not. The other guest tries the same.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

use hypercalls::domctl::{Domctl, DomctlCmd, XEN_DOMCTL_INTERFACE_VERSION};
use hypercalls::domctl_args::*;
use hypercalls::sched::{SchedOp, SchedRemoteShutdown, ShutdownReason};
use hypercalls::vcpu::VGCF_ONLINE;
use hypercalls::{DomId, GuestPtr, HypercallNr, Payload};

use super::calls::Call;
use super::guest::TABLES;
use super::player::Player;
use super::world::World;
use super::{tools, vcpus};
use crate::domain;
use crate::vcpu::Vcpu;

/// Domains that there are at most, of those that tools create.
const MOST: usize = 12;

impl Player<'_> {
    /// Makes up what tools do.
    pub(super) fn steer_domains(&mut self, world: &World, _: &Vcpu) -> Call {
        let others: Vec<DomId> = domain::from(DomId(1)).map(|domain| domain.id).collect();
        let domain = match self.source.below(10) {
            0 => DomId(self.source.below(1 << 16) as u16),
            1 => DomId(0),
            _ => others.get(self.source.below(others.len() as u64 + 1) as usize).copied().unwrap_or(DomId(1)),
        };
        if self.source.one_in(12) {
            let reason = ShutdownReason(self.source.below(8) as u32);
            let at = self.put(&SchedRemoteShutdown { domain_id: domain, reason, ..SchedRemoteShutdown::default() });
            return Call::new(HypercallNr::SCHED_OP, [u64::from(SchedOp::REMOTE_SHUTDOWN.0), at]);
        }
        let (cmd, u) = self.command(world, domain, others.len());
        let interface_version = if self.source.one_in(40) { 0x14 } else { XEN_DOMCTL_INTERFACE_VERSION };
        let at = self.put(&Domctl { cmd, interface_version, domain, u, ..Domctl::default() });
        Call::new(HypercallNr::DOMCTL, [at])
    }

    fn command(&mut self, world: &World, domain: DomId, others: usize) -> (DomctlCmd, Payload) {
        let mut u = Payload::default();
        let cmd = match self.source.below(20) {
            0..=3 if others < MOST => {
                u.put(&self.wanted());
                DomctlCmd::CREATEDOMAIN
            }
            // The guest that plays dies only now and then.
            0..=5 if domain != DomId(1) || self.source.one_in(60) => DomctlCmd::DESTROYDOMAIN,
            0..=9 => {
                u = self.state(world, domain);
                DomctlCmd::SETVCPUCONTEXT
            }
            10 => DomctlCmd::PAUSEDOMAIN,
            11..=13 => DomctlCmd::UNPAUSEDOMAIN,
            14 => DomctlCmd::RESUMEDOMAIN,
            15 => {
                u.put(&MaxMem { max_memkb: 256 + self.small(64) });
                DomctlCmd::MAX_MEM
            }
            16 => {
                u = self.state(world, domain);
                DomctlCmd::GETVCPUCONTEXT
            }
            17 => {
                let gmfn = self.frame(world, 1, 0).0;
                u.put(&HypercallInit { gmfn });
                DomctlCmd::HYPERCALL_INIT
            }
            _ => {
                let words: [u64; 16] = core::array::from_fn(|_| self.small(4));
                u.put(&words);
                // Those that only ask, mostly.
                DomctlCmd(self.source.below(90) as u32)
            }
        };
        // What was made up for another call must not be a death.
        let deadly = cmd == DomctlCmd::DESTROYDOMAIN && domain == DomId(1) && !self.source.one_in(4);
        (if deadly { DomctlCmd::GETDOMAININFO } else { cmd }, u)
    }

    fn wanted(&mut self) -> CreateDomain {
        let mut wanted = tools::wanted();
        wanted.max_vcpus = 1 + self.source.below(3) as u32;
        match self.source.below(12) {
            0 => wanted.max_vcpus = self.small(10) as u32,
            1 => wanted.flags = self.source.word() as u32,
            2 => wanted.max_evtchn_port = self.source.word() as u32,
            3 => wanted.max_grant_frames = self.small(70) as i32,
            4 => wanted.max_maptrack_frames = self.small(1200) as i32,
            5 => wanted.grant_opts = self.small(4) as u32,
            6 => wanted.arch.emulation_flags = self.small(0x1000) as u32,
            _ => {}
        }
        wanted
    }

    /// A state of a vCPU, or the lack of one; of the other guest mostly one that is right.
    fn state(&mut self, world: &World, domain: DomId) -> Payload {
        let vcpu = self.source.below(3) as u32;
        let ctxt = if self.source.one_in(5) {
            0
        } else {
            let guest = &world.guests[usize::from(domain.0 == 1)];
            let mut context = vcpus::context(guest, hypercalls::VcpuId(vcpu));
            context.flags |= if self.source.one_in(4) { 0 } else { VGCF_ONLINE };
            if self.source.one_in(3) {
                context.ctrlreg[3] = self.frame(world, 1, 4).maddr().0;
            }
            if let Some(user) = guest.domain.vcpu(hypercalls::VcpuId(vcpu)).map(|v| v.user_root.load(Relaxed)) {
                let ours = guest.p2m[TABLES[4]].maddr().0;
                context.ctrlreg[1] = if user == hypercalls::Mfn::INVALID.0 { 0 } else { ours };
            }
            self.put(&*context)
        };
        let mut u = Payload::default();
        u.put(&DomctlVcpuContext { vcpu, ctxt: GuestPtr::new(ctxt), ..DomctlVcpuContext::default() });
        u
    }
}
