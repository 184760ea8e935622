// SPDX-License-Identifier: MIT OR Apache-2.0
//! Event-channel calls that the player makes.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;

use hypercalls::event::*;
use hypercalls::shared_info::{shared_offset, vcpu_offset};
use hypercalls::{HypercallNr, Virq};

use super::calls::Call;
use super::player::Player;
use super::world::World;
use crate::domain::{self, Domain};
use crate::events::State;
use crate::vcpu::Vcpu;

impl Player<'_> {
    /// A port of a domain's in a certain state, if there is one; else, and now and then, any number.
    fn port(&mut self, domain: &Domain, fits: impl Fn(State) -> bool) -> u32 {
        let open: Vec<u32> = domain.events.iter().filter(|(_, c)| fits(c.state)).map(|(port, _)| port).collect();
        if !open.is_empty() && !self.source.one_in(4) {
            return self.source.pick(&open);
        }
        match self.source.below(30) {
            0 => 4095 + self.source.below(3) as u32,
            1 => self.source.word() as u32,
            _ => self.source.below(12) as u32,
        }
    }

    /// A call of the FIFO form.
    fn fifo(&mut self, world: &World, vcpu: &Vcpu, notified: u32, port: u32) -> (EvtchnOp, u64) {
        let frame = self.frame(world, usize::from(vcpu.domid.0), 0);
        match self.source.below(3) {
            0 => {
                let offset = (self.small(520) as u32).wrapping_mul(8);
                let a = EvtchnInitControl { control_gfn: frame.0, offset, vcpu: notified, ..Default::default() };
                (EvtchnOp::INIT_CONTROL, self.put(&a))
            }
            1 => (EvtchnOp::EXPAND_ARRAY, self.put(&EvtchnExpandArray { array_gfn: frame.0 })),
            _ => {
                let priority = self.small(17) as u32;
                (EvtchnOp::SET_PRIORITY, self.put(&EvtchnSetPriority { port, priority }))
            }
        }
    }

    /// Writes something into a word of the array or of a control block, if there is one.
    fn scribble(&mut self, domain: &Domain) {
        let mut frames = Vec::new();
        domain.events.for_each_frame(|mfn| frames.push(mfn));
        if frames.is_empty() {
            return;
        }
        let (frame, word) = (self.source.pick(&frames), self.source.below(16) as usize);
        let bits = self.source.word() & 0xf000_00ff_f000_00ff;
        let value = if self.source.one_in(3) { 0 } else { bits };
        mm::hosted::poke(frame, word, value);
    }

    pub(super) fn event_channel(&mut self, world: &World, vcpu: &Vcpu) -> Call {
        let remote_dom =
            if self.source.one_in(4) { self.domain(vcpu) } else { hypercalls::DomId(1 - (vcpu.domid.0 & 1)) };
        let notified = self.small(3) as u32;
        let port = self.port(vcpu.domain(), |_| true);
        let (op, at) = match self.source.below(16) {
            0 | 1 => {
                let peer = domain::find(remote_dom);
                let waits = |state| state == State::Unbound { remote: vcpu.domid };
                let remote_port = peer.map_or(port, |peer| self.port(&peer, waits));
                let a = EvtchnBindInterdomain { remote_dom, remote_port, ..Default::default() };
                (EvtchnOp::BIND_INTERDOMAIN, self.put(&a))
            }
            2 => {
                let a = EvtchnBindVirq { virq: Virq(self.small(26) as u32), vcpu: notified, port: 0 };
                (EvtchnOp::BIND_VIRQ, self.put(&a))
            }
            3 => {
                let port = if self.source.one_in(3) {
                    port
                } else {
                    self.port(vcpu.domain(), |s| matches!(s, State::Interdomain { .. }))
                };
                (EvtchnOp::CLOSE, self.put(&EvtchnClose { port }))
            }
            4 | 5 => (EvtchnOp::SEND, self.put(&EvtchnSend { port })),
            6 => {
                let a = EvtchnStatus { dom: self.domain(vcpu), port, ..Default::default() };
                (EvtchnOp::STATUS, self.put(&a))
            }
            7 => {
                let a = EvtchnAllocUnbound { dom: self.domain(vcpu), remote_dom, port: 0 };
                (EvtchnOp::ALLOC_UNBOUND, self.put(&a))
            }
            8 => (EvtchnOp::BIND_IPI, self.put(&EvtchnBindIpi { vcpu: notified, port: 0 })),
            9 => (EvtchnOp::BIND_VCPU, self.put(&EvtchnBindVcpu { port, vcpu: notified })),
            11..=13 => self.fifo(world, vcpu, notified, port),
            14 => {
                let op = if self.source.one_in(3) { EvtchnOp::RESET } else { EvtchnOp::SEND };
                let dom = self.domain(vcpu);
                (op, self.put(&[u32::from(dom.0); 6]))
            }
            _ => {
                let op = EvtchnOp(self.source.below(16) as u32);
                (if self.source.one_in(2) { EvtchnOp::UNMASK } else { op }, self.put(&[port; 6]))
            }
        };
        Call::new(HypercallNr::EVENT_CHANNEL_OP, [u64::from(op.0), at])
    }

    /// Does what a kernel does with the pages it shares with the hypervisor: mask, unmask, take events. Or fills
    /// them with anything.
    pub(super) fn acknowledge(&mut self, world: &World, vcpu: &Vcpu) {
        let info = vcpu.vcpu_info();
        let shared = world.guests[usize::from(vcpu.domid.0)].domain.shared_info();
        let word = self.source.below(3) as usize * 8;
        match self.source.below(9) {
            7 | 8 => self.scribble(&world.guests[usize::from(vcpu.domid.0)].domain),
            0 => info.u8(vcpu_offset::EVTCHN_UPCALL_MASK).store(0, SeqCst),
            1 => info.u8(vcpu_offset::EVTCHN_UPCALL_MASK).store(1, SeqCst),
            2 => shared.u64(shared_offset::EVTCHN_MASK + word).store(self.source.word(), SeqCst),
            3 => shared.u64(shared_offset::EVTCHN_PENDING + word).store(self.source.word(), SeqCst),
            4 => info.u64(self.source.below(8) as usize * 8).store(self.source.word(), SeqCst),
            _ => {
                info.u8(vcpu_offset::EVTCHN_UPCALL_PENDING).store(0, SeqCst);
                info.u64(vcpu_offset::EVTCHN_PENDING_SEL).store(0, SeqCst);
                shared.u64(shared_offset::EVTCHN_PENDING + word).store(0, SeqCst);
                info.u8(vcpu_offset::EVTCHN_UPCALL_MASK).store(0, SeqCst);
            }
        }
    }
}
