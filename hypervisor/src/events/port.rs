// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports: what one is bound to, in a word that is read without a lock, and the storage of a domain's ports.
//!
//! A port's word says everything about its binding. It changes under the domain's lock only ([`super::Changes`]) and as a
//! whole, so whoever reads it finds one binding or another. Storage is added in chunks and neither moves nor goes before the
//! domain does: a number that was valid once stays so.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

use hypercalls::event::{EvtchnStat, FIFO_PRIORITY_DEFAULT};
use hypercalls::{DomId, Errno, Result, VcpuId, Virq};
use spin::once::Once;

/// What a port is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Closed,
    /// Waits for `remote` to bind to it.
    Unbound {
        /// Who may bind.
        remote: DomId,
    },
    /// A port of another (or the same) domain.
    Interdomain {
        /// The other domain.
        remote: DomId,
        /// The port there.
        port: u32,
    },
    /// A virtual interrupt.
    Virq(Virq),
    /// An interrupt of the machine, by the domain's number for it; [`crate::pirq`] keeps it.
    Pirq(u32),
    /// Another vCPU of the same domain.
    Ipi,
    /// The hypervisor, which serves the domain's console.
    Console,
}

/// A port's binding and where it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// What it is bound to.
    pub state: State,
    /// The vCPU that is notified.
    pub vcpu: VcpuId,
    /// How urgent it is in the FIFO form: 0 comes first, 15 last.
    pub priority: u8,
}

// The word: kind, remote domain, number (remote port, PIRQ or virtual interrupt), vCPU, priority.
const KIND: u64 = 0xf;
const REMOTE: u32 = 4;
const NUMBER: u32 = 20;
const NUMBER_MASK: u64 = 0xf_ffff;
const VCPU: u32 = 40;
const VCPU_MASK: u64 = 0xffff;
const PRIORITY: u32 = 56;
/// The kind of a port to the hypervisor; the ABI calls it a channel to another domain.
const CONSOLE: EvtchnStat = EvtchnStat(6);

impl Channel {
    /// A closed port.
    pub const CLOSED: Self = Self::new(State::Closed, VcpuId(0));

    /// Makes one of default priority.
    pub const fn new(state: State, vcpu: VcpuId) -> Self {
        Self { state, vcpu, priority: FIFO_PRIORITY_DEFAULT as u8 }
    }

    /// Returns the status that the ABI calls this, and the two words that go with it.
    pub const fn describe(&self) -> (EvtchnStat, u32, u32) {
        match self.state {
            State::Closed => (EvtchnStat::CLOSED, 0, 0),
            State::Unbound { remote } => (EvtchnStat::UNBOUND, remote.0 as u32, 0),
            State::Interdomain { remote, port } => (EvtchnStat::INTERDOMAIN, remote.0 as u32, port),
            State::Virq(virq) => (EvtchnStat::VIRQ, virq.0, 0),
            State::Pirq(pirq) => (EvtchnStat::PIRQ, pirq, 0),
            State::Ipi => (EvtchnStat::IPI, 0, 0),
            State::Console => (EvtchnStat::INTERDOMAIN, DomId::XEN.0 as u32, 0),
        }
    }

    fn to_word(self) -> u64 {
        let (remote, number) = match self.state {
            State::Closed | State::Ipi | State::Console => (0, 0),
            State::Unbound { remote } => (remote.0, 0),
            State::Interdomain { remote, port } => (remote.0, port),
            State::Virq(virq) => (0, virq.0),
            State::Pirq(pirq) => (0, pirq),
        };
        debug_assert!(u64::from(number) <= NUMBER_MASK && u64::from(self.vcpu.0) <= VCPU_MASK && self.priority < 16);
        let kind = if self.state == State::Console { CONSOLE } else { self.describe().0 };
        let kind = u64::from(kind.0);
        kind | u64::from(remote) << REMOTE
            | u64::from(number) << NUMBER
            | u64::from(self.vcpu.0) << VCPU
            | u64::from(self.priority) << PRIORITY
    }

    #[inline(always)]
    fn from_word(word: u64) -> Self {
        let remote = DomId((word >> REMOTE) as u16);
        let number = (word >> NUMBER & NUMBER_MASK) as u32;
        let state = match EvtchnStat((word & KIND) as u32) {
            EvtchnStat::UNBOUND => State::Unbound { remote },
            EvtchnStat::INTERDOMAIN => State::Interdomain { remote, port: number },
            EvtchnStat::VIRQ => State::Virq(Virq(number)),
            EvtchnStat::PIRQ => State::Pirq(number),
            EvtchnStat::IPI => State::Ipi,
            CONSOLE => State::Console,
            _ => State::Closed,
        };
        Self { state, vcpu: VcpuId((word >> VCPU & VCPU_MASK) as u32), priority: (word >> PRIORITY) as u8 & 15 }
    }
}

/// A port. The word of a closed one is 0.
#[derive(Debug, Default)]
pub(super) struct Port {
    word: AtomicU64,
    /// FIFO form: the queue that it was in last, vCPU times 16 plus priority; changes under that queue's lock.
    pub(super) queue: AtomicU32,
    /// FIFO form: it is pending and has no word yet.
    pub(super) remembered: AtomicBool,
}

impl Port {
    /// Returns what it is bound to.
    #[inline(always)]
    pub(super) fn channel(&self) -> Channel {
        Channel::from_word(self.word.load(SeqCst))
    }

    /// Forgets that it is pending without a word; true when it was.
    pub(super) fn take_remembered(&self) -> bool {
        self.remembered.load(SeqCst) && self.remembered.swap(false, SeqCst)
    }

    /// Binds or closes it; the domain's lock is held.
    pub(super) fn set(&self, channel: Channel) {
        let word = if channel.state == State::Closed { 0 } else { channel.to_word() };
        self.word.store(word, SeqCst);
    }
}

/// Ports in a chunk: a page of them.
pub(super) const CHUNK: usize = 256;
type Chunk = Once<Box<[Port; CHUNK]>, arch::sync::Relax>;

/// Storage for a domain's ports.
#[derive(Debug)]
pub(super) struct Ports {
    chunks: Box<[Chunk]>,
}

impl Ports {
    /// Makes storage for ports below `end`; none has any yet.
    pub(super) fn new(end: u32) -> Result<Self> {
        let count = (end as usize).div_ceil(CHUNK);
        let mut chunks = Vec::new();
        chunks.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        chunks.resize_with(count, Once::new);
        Ok(Self { chunks: chunks.into() })
    }

    /// Returns a port that has storage.
    #[inline(always)]
    pub(super) fn get(&self, port: u32) -> Option<&Port> {
        let port = port as usize;
        self.chunks.get(port / CHUNK)?.get()?.get(port % CHUNK)
    }

    /// Makes chunk number `chunks`, when those before it are there.
    pub(super) fn grow(&self, chunks: usize) -> Result<()> {
        let chunk = self.chunks.get(chunks).ok_or(Errno::ENOSPC)?;
        chunk.try_call_once(|| {
            let mut ports = Vec::new();
            ports.try_reserve_exact(CHUNK).map_err(|_| Errno::ENOMEM)?;
            ports.resize_with(CHUNK, Port::default);
            Box::try_from(ports.into_boxed_slice()).map_err(|_| Errno::ENOMEM)
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_what_was_put_into_it() {
        let states = [
            State::Unbound { remote: DomId(0x7fef) },
            State::Unbound { remote: DomId::SELF },
            State::Interdomain { remote: DomId(0xffff), port: 131_071 },
            State::Interdomain { remote: DomId(0), port: 0 },
            State::Virq(Virq(23)),
            State::Pirq(4096 * 8 - 1),
            State::Ipi,
            State::Console,
            State::Closed,
        ];
        for state in states {
            for (vcpu, priority) in [(0, 0), (8191, 15), (1, 7)] {
                let channel = Channel { state, vcpu: VcpuId(vcpu), priority };
                assert_eq!(Channel::from_word(channel.to_word()), channel);
            }
        }
        assert_eq!(Port::default().channel().state, State::Closed);
    }
}
