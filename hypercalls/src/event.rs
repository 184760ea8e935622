// SPDX-License-Identifier: MIT OR Apache-2.0
//! `event_channel_op`, the virtual interrupts and the words of the FIFO form.

use crate::DomId;
use crate::layout::{codes, constants, record};

codes! {
    /// A sub-operation of `event_channel_op`.
    pub struct EvtchnOp(u32) {
        BIND_INTERDOMAIN(EVTCHNOP_bind_interdomain) = 0,
        BIND_VIRQ(EVTCHNOP_bind_virq) = 1,
        BIND_PIRQ(EVTCHNOP_bind_pirq) = 2,
        CLOSE(EVTCHNOP_close) = 3,
        SEND(EVTCHNOP_send) = 4,
        STATUS(EVTCHNOP_status) = 5,
        ALLOC_UNBOUND(EVTCHNOP_alloc_unbound) = 6,
        BIND_IPI(EVTCHNOP_bind_ipi) = 7,
        BIND_VCPU(EVTCHNOP_bind_vcpu) = 8,
        UNMASK(EVTCHNOP_unmask) = 9,
        RESET(EVTCHNOP_reset) = 10,
        INIT_CONTROL(EVTCHNOP_init_control) = 11,
        EXPAND_ARRAY(EVTCHNOP_expand_array) = 12,
        SET_PRIORITY(EVTCHNOP_set_priority) = 13,
        RESET_CONT(-) = 14,
    }

    /// A virtual interrupt.
    pub struct Virq(u32) {
        TIMER(VIRQ_TIMER) = 0,
        DEBUG(VIRQ_DEBUG) = 1,
        CONSOLE(VIRQ_CONSOLE) = 2,
        DOM_EXC(VIRQ_DOM_EXC) = 3,
        TBUF(VIRQ_TBUF) = 4,
        DEBUGGER(VIRQ_DEBUGGER) = 6,
        XENOPROF(VIRQ_XENOPROF) = 7,
        CON_RING(VIRQ_CON_RING) = 8,
        PCPU_STATE(VIRQ_PCPU_STATE) = 9,
        MEM_EVENT(VIRQ_MEM_EVENT) = 10,
        ARGO(VIRQ_ARGO) = 11,
        ENOMEM(VIRQ_ENOMEM) = 12,
        XENPMU(VIRQ_XENPMU) = 13,
        /// Machine checks.
        MCA(VIRQ_ARCH_0) = 16,
        ARCH_1(VIRQ_ARCH_1) = 17,
        ARCH_2(VIRQ_ARCH_2) = 18,
        ARCH_3(VIRQ_ARCH_3) = 19,
        ARCH_4(VIRQ_ARCH_4) = 20,
        ARCH_5(VIRQ_ARCH_5) = 21,
        ARCH_6(VIRQ_ARCH_6) = 22,
        ARCH_7(VIRQ_ARCH_7) = 23,
    }

    /// What a port is bound to, as `status` reports it.
    pub struct EvtchnStat(u32) {
        CLOSED(EVTCHNSTAT_closed) = 0,
        UNBOUND(EVTCHNSTAT_unbound) = 1,
        INTERDOMAIN(EVTCHNSTAT_interdomain) = 2,
        PIRQ(EVTCHNSTAT_pirq) = 3,
        VIRQ(EVTCHNSTAT_virq) = 4,
        IPI(EVTCHNSTAT_ipi) = 5,
    }
}

/// Whose a virtual interrupt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirqScope {
    /// Each vCPU has its own.
    Vcpu,
    /// Each domain has one, bound on vCPU 0.
    Domain,
    /// The whole machine has one, handled by one domain.
    Global,
}

impl Virq {
    /// Returns whose it is, or None for a number that is out of range.
    pub const fn scope(self) -> Option<VirqScope> {
        match self {
            Self::TIMER | Self::DEBUG | Self::XENOPROF | Self::XENPMU => Some(VirqScope::Vcpu),
            Self::ARGO => Some(VirqScope::Domain),
            Self(n) if n < NR_VIRQS => Some(VirqScope::Global),
            _ => None,
        }
    }
}

constants! { Constants {
    NR_VIRQS(NR_VIRQS): u32 = 24,
    BIND_PIRQ_WILL_SHARE(BIND_PIRQ__WILL_SHARE): u32 = 1,
    FIFO_PRIORITY_MAX(EVTCHN_FIFO_PRIORITY_MAX): u32 = 0,
    FIFO_PRIORITY_DEFAULT(EVTCHN_FIFO_PRIORITY_DEFAULT): u32 = 7,
    FIFO_PRIORITY_MIN(EVTCHN_FIFO_PRIORITY_MIN): u32 = 15,
    FIFO_MAX_QUEUES(EVTCHN_FIFO_MAX_QUEUES): usize = 16,
    /// Bit number in an event word.
    FIFO_PENDING(EVTCHN_FIFO_PENDING): u32 = 31,
    /// Bit number in an event word.
    FIFO_MASKED(EVTCHN_FIFO_MASKED): u32 = 30,
    /// Bit number in an event word.
    FIFO_LINKED(EVTCHN_FIFO_LINKED): u32 = 29,
    /// Bit number in an event word.
    FIFO_BUSY(EVTCHN_FIFO_BUSY): u32 = 28,
    FIFO_LINK_BITS(EVTCHN_FIFO_LINK_BITS): u32 = 17,
    FIFO_LINK_MASK(EVTCHN_FIFO_LINK_MASK): u32 = (1 << 17) - 1,
    FIFO_NR_CHANNELS(EVTCHN_FIFO_NR_CHANNELS): u32 = 1 << 17,
}}

record! {
    /// `alloc_unbound`.
    pub struct EvtchnAllocUnbound = "struct evtchn_alloc_unbound", 8 {
        0 dom: DomId,
        2 remote_dom: DomId,
        4 port: u32,
    }

    /// `bind_interdomain`.
    pub struct EvtchnBindInterdomain = "struct evtchn_bind_interdomain", 12 {
        0 remote_dom: DomId,
        2 _pad: u16,
        4 remote_port: u32,
        8 local_port: u32,
    }

    /// `bind_virq`.
    pub struct EvtchnBindVirq = "struct evtchn_bind_virq", 12 {
        0 virq: Virq,
        4 vcpu: u32,
        8 port: u32,
    }

    /// `bind_pirq`.
    pub struct EvtchnBindPirq = "struct evtchn_bind_pirq", 12 {
        0 pirq: u32,
        4 flags: u32,
        8 port: u32,
    }

    /// `bind_ipi`.
    pub struct EvtchnBindIpi = "struct evtchn_bind_ipi", 8 {
        0 vcpu: u32,
        4 port: u32,
    }

    /// `close`.
    pub struct EvtchnClose = "struct evtchn_close", 4 {
        0 port: u32,
    }

    /// `send`.
    pub struct EvtchnSend = "struct evtchn_send", 4 {
        0 port: u32,
    }

    /// `status`; the union's two words are `arg` and `arg2`.
    pub struct EvtchnStatus = "struct evtchn_status", 24 {
        0 dom: DomId,
        2 _pad: u16,
        4 port: u32,
        8 status: EvtchnStat,
        12 vcpu: u32,
        /// The remote domain (low 16 bits), the PIRQ or the VIRQ.
        16 arg: u32 = "u.pirq",
        /// The remote port of an interdomain channel.
        20 arg2: u32 = "u.interdomain.port",
    }

    /// `bind_vcpu`.
    pub struct EvtchnBindVcpu = "struct evtchn_bind_vcpu", 8 {
        0 port: u32,
        4 vcpu: u32,
    }

    /// `unmask`.
    pub struct EvtchnUnmask = "struct evtchn_unmask", 4 {
        0 port: u32,
    }

    /// `reset`.
    pub struct EvtchnReset = "struct evtchn_reset", 2 {
        0 dom: DomId,
    }

    /// `init_control`.
    pub struct EvtchnInitControl = "struct evtchn_init_control", 24 {
        0 control_gfn: u64,
        8 offset: u32,
        12 vcpu: u32,
        16 link_bits: u8,
        17 _pad: [u8; 7],
    }

    /// `expand_array`.
    pub struct EvtchnExpandArray = "struct evtchn_expand_array", 8 {
        0 array_gfn: u64,
    }

    /// `set_priority`.
    pub struct EvtchnSetPriority = "struct evtchn_set_priority", 8 {
        0 port: u32,
        4 priority: u32,
    }

    /// One vCPU's control block of the FIFO form.
    pub struct EvtchnFifoControlBlock = "struct evtchn_fifo_control_block", 72 {
        0 ready: u32,
        4 _rsvd: u32,
        8 head: [u32; 16],
    }

    /// The argument of `event_channel_op_compat`.
    pub struct EvtchnOpCompat = "struct evtchn_op", 28 {
        0 cmd: EvtchnOp,
        4 u: [u32; 6],
    }
}
