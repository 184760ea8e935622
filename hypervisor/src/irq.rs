// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's interrupts: on which CPU and vector each arrives, who is told, and when its line is masked.
//!
//! Numbers: the global interrupts of the I/O APICs as they are, messages behind them. Each interrupt is one [`Irq`] with a
//! lock of its own; the way from a vector to its interrupt ([`vectors`]) takes none. Who listens and when the line is masked
//! is [`flow`]'s to say, here it is carried out.
//!
//! An interrupt goes to the CPU that runs the vCPU which is notified. When that vCPU moves, the interrupt follows at one of
//! its next arrivals: then none is on its way. The old vector is retired and freed by its own CPU ([`chores`]).
//!
//! # Locking
//! An interrupt's lock is taken under a domain's list of PIRQs; nothing is taken under it but the hardware's. Events are
//! raised after it was dropped. Interrupts arrive in guests and in idle CPUs only, so no lock is held then.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;

use arch::cpu::{self, Work};
use arch::{CpuId, LineMode, apic, ioapic};
use arrayvec::ArrayVec;
use hypercalls::{DomId, Errno, Result, VcpuId};
use mm::Lock;
use spin::once::Once;

use crate::domain::Domain;
use crate::pci::msi::Message;
use crate::{events, rank};

pub mod chores;
pub mod dump;
pub mod flow;
mod messages;
mod placing;
pub mod storm;
pub mod vectors;

pub use messages::{allocate_messages, of_device};

use placing::cpu_of;

use flow::{Change, Flow, MOST_LISTENERS};
use storm::Storm;

/// How many arrivals in a row find the vCPU on another CPU until the interrupt follows it there.
const PATIENCE: u8 = 4;

/// Where an interrupt comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Nowhere: the number is not in use.
    None,
    /// A line of an I/O APIC, whose number is the interrupt's.
    Line(LineMode),
    /// A message of a PCI function.
    Message(Message),
}

/// A domain that listens to an interrupt.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The domain.
    pub domain: Arc<Domain>,
    /// What it calls the interrupt.
    pub pirq: u32,
    /// Its port.
    pub port: u32,
    /// The vCPU that is notified.
    pub vcpu: VcpuId,
}

impl flow::Listener for Guest {
    type Key = (DomId, u32);
    fn key(&self) -> Self::Key {
        (self.domain.id, self.pirq)
    }
}

/// An interrupt that the hypervisor handles itself.
#[derive(Clone, Copy, Debug)]
struct Own {
    name: &'static str,
    work: Work,
}

#[derive(Debug)]
struct State {
    source: Source,
    own: Option<Own>,
    flow: Flow<Guest>,
    storm: Storm,
    /// Where it arrives.
    place: Option<(CpuId, u8)>,
    /// Arrivals in a row that found the vCPU elsewhere.
    away: u8,
    /// Its trigger was set by `setup_gsi`.
    is_set_up: bool,
    arrivals: u64,
}

/// An interrupt.
#[derive(Debug)]
pub struct Irq {
    number: u32,
    state: Lock<State>,
}

static TABLE: Once<Box<[Irq]>, arch::sync::Relax> = Once::new();

fn table() -> &'static [Irq] {
    TABLE.get().map_or(&[], |table| table)
}

/// Returns an interrupt by number.
pub fn get(number: u32) -> Option<&'static Irq> {
    table().get(number as usize)
}

/// Returns how many numbers there are.
pub fn count() -> u32 {
    table().len() as u32
}

/// Makes the table, for the lines that there are and `messages` more. `mode` says how a line behaves until `setup_gsi` says
/// otherwise.
pub fn init(messages: u32, mode: impl Fn(u32) -> LineMode) {
    TABLE.call_once(|| (0..ioapic::gsi_end() + messages).map(Irq::new).collect());
    for irq in table() {
        *irq.state.lock() = State::new();
        if ioapic::exists(irq.number) {
            irq.state.lock().set_line(mode(irq.number));
        }
    }
}

impl State {
    fn new() -> Self {
        Self {
            source: Source::None,
            own: None,
            flow: Flow::new(),
            storm: Storm::default(),
            place: None,
            away: 0,
            is_set_up: false,
            arrivals: 0,
        }
    }

    fn set_line(&mut self, mode: LineMode) {
        self.source = Source::Line(mode);
        self.flow.set_level(mode.level);
    }
}

impl Irq {
    fn new(number: u32) -> Self {
        Self { number, state: Lock::new(rank::IRQ, State::new()) }
    }

    /// Returns its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns how its line behaves, `None` when it is no line.
    pub fn line_mode(&self) -> Option<LineMode> {
        match self.state.lock().source {
            Source::Line(mode) => Some(mode),
            Source::None | Source::Message(_) => None,
        }
    }

    /// Says how the line behaves, once.
    ///
    /// # Errors
    /// `EINVAL` when it is no line, `EEXIST` when it was said before or somebody uses it.
    pub fn set_up(&self, mode: LineMode) -> Result<()> {
        let mut state = self.state.lock();
        if !matches!(state.source, Source::Line(_)) {
            return Err(Errno::EINVAL);
        }
        if state.is_set_up || state.own.is_some() || state.flow.count() > 0 {
            return Err(Errno::EEXIST);
        }
        state.is_set_up = true;
        state.set_line(mode);
        Ok(())
    }

    /// Gives the line to the hypervisor: each arrival on this CPU is that work.
    ///
    /// # Errors
    /// `EINVAL` when it is no edge-triggered line, `EBUSY` when somebody uses it, `ENOSPC` when there is no vector.
    pub fn claim(&self, name: &'static str, work: Work) -> Result<()> {
        let mut state = self.state.lock();
        if !matches!(state.source, Source::Line(mode) if !mode.level) {
            return Err(Errno::EINVAL);
        }
        if state.own.is_some() || state.flow.count() > 0 {
            return Err(Errno::EBUSY);
        }
        self.find_place(&mut state, cpu::this_cpu())?;
        state.own = Some(Own { name, work });
        ioapic::unmask(self.number).map_err(|_| Errno::EINVAL)
    }

    /// Lets a domain listen. Returns whether it must say when it is done.
    ///
    /// # Errors
    /// `EINVAL` when the interrupt is none, `EBUSY` when it is the hypervisor's or somebody does not share, `ENOSPC` when
    /// there is no vector.
    pub fn bind(&self, guest: Guest, shares: bool) -> Result<bool> {
        let mut state = self.state.lock();
        if matches!(state.source, Source::None) {
            return Err(Errno::EINVAL);
        }
        let domid = guest.domain.id.0;
        if let Some(own) = state.own {
            log::info!("d{domid}: IRQ {} is not for guests: in use by the hypervisor's {}", self.number, own.name);
            return Err(Errno::EBUSY);
        }
        let cpu = cpu_of(&guest);
        let key = flow::Listener::key(&guest);
        state.flow.bind(guest, shares).inspect_err(|_| {
            log::info!("d{domid}: IRQ {} cannot be bound: not all who listen share it", self.number);
        })?;
        if state.place.is_none()
            && let Err(error) = self.find_place(&mut state, cpu)
        {
            state.flow.unbind(&key);
            log::error!("d{domid}: IRQ {}: no vector is free", self.number);
            return Err(error);
        }
        self.settle(&mut state);
        Ok(state.flow.is_level())
    }

    /// Ends a domain's listening.
    pub fn unbind(&self, domid: DomId, pirq: u32) {
        let mut state = self.state.lock();
        let gone = state.flow.unbind(&(domid, pirq));
        self.settle(&mut state);
        if state.flow.count() == 0 && matches!(state.source, Source::Line(_)) {
            self.withdraw(&mut state);
        }
        drop(state);
        // Perhaps the last reference to the domain: never under the lock.
        drop(gone);
    }

    /// A domain has handled the interrupt.
    pub fn done(&self, domid: DomId, pirq: u32) {
        let mut state = self.state.lock();
        state.flow.done(&(domid, pirq));
        self.settle(&mut state);
    }

    /// Another vCPU is to be notified.
    pub fn notify(&self, domid: DomId, pirq: u32, vcpu: VcpuId) {
        let mut state = self.state.lock();
        if let Some(guest) = state.flow.listener_mut(&(domid, pirq)) {
            guest.vcpu = vcpu;
        }
        if state.flow.is_masked() {
            self.follow(&mut state, 0);
        } else {
            // The next arrival is the time.
            state.away = PATIENCE;
        }
    }

    /// Returns who listens: the domain and what it calls the interrupt.
    pub fn listeners(&self) -> impl Iterator<Item = (DomId, u32)> + use<> {
        let state = self.state.lock();
        let keys: ArrayVec<_, MOST_LISTENERS> = state.flow.listeners().map(flow::Listener::key).collect();
        keys.into_iter()
    }

    /// True when several domains listen.
    pub fn is_shared(&self) -> bool {
        self.state.lock().flow.count() > 1
    }

    /// Ends a time in which the line was held back for coming too often. What came meanwhile is made up for.
    fn release(&self) {
        let mut state = self.state.lock();
        if !state.flow.is_held() {
            return;
        }
        state.flow.hold(false);
        self.settle(&mut state);
        let to = told(&state);
        drop(state);
        tell(&to);
    }

    /// Tells the hardware what the flow wants.
    #[inline]
    fn settle(&self, state: &mut State) {
        let Some(change) = state.flow.settle() else { return };
        let done = match (change, &state.source) {
            (Change::Mask, Source::Line(_)) => ioapic::mask(self.number),
            (Change::Unmask, Source::Line(_)) => ioapic::unmask(self.number),
            (change, Source::Message(message)) => {
                message.set_masked(change == Change::Mask, state.flow.is_held());
                Ok(())
            }
            (_, Source::None) => Ok(()),
        };
        debug_assert!(done.is_ok(), "line {} exists", self.number);
    }

    /// An interrupt has come to this CPU.
    #[inline]
    fn arrive(&self) {
        let mut state = self.state.lock();
        state.arrivals += 1;
        if let Some(own) = state.own {
            apic::end_of_interrupt();
            return cpu::raise_here(own.work);
        }
        state.flow.arrive();
        let State { storm, flow, .. } = &mut *state;
        let is_unhandled = || flow.listeners().all(|g| events::is_pending(&g.domain, g.port));
        if flow.count() == 0 {
            self.unheard(&mut state);
        } else if !flow.is_level() && storm.count(arch::time::now(), is_unhandled) {
            self.hold(&mut state);
        }
        // A level-triggered line is masked before its interrupt is ended, or it would come again at once.
        self.settle(&mut state);
        apic::end_of_interrupt();
        self.follow(&mut state, PATIENCE);
        let to = told(&state);
        drop(state);
        tell(&to);
    }

    /// Nobody listens: one that was on its way when the last listener went, or a message that cannot be masked.
    #[cold]
    fn unheard(&self, state: &mut State) {
        if let Source::Message(message) = &state.source
            && state.storm.count(arch::time::now(), || true)
        {
            log::warn!("IRQ {}: {message} comes all the time, and nobody listens: switched off", self.number);
            message.set_masked(true, true);
        }
    }

    #[cold]
    fn hold(&self, state: &mut State) {
        if !chores::release_later(self.number) {
            return;
        }
        state.flow.hold(true);
        if state.storm.is_worth_a_line() {
            let times = state.storm.times();
            log::warn!("IRQ {} comes too often and is held back for a while ({times} times now)", self.number);
        }
    }
}

/// Those who are to be told of an interrupt.
type Told = ArrayVec<(Arc<Domain>, u32), MOST_LISTENERS>;

#[inline]
fn told(state: &State) -> Told {
    state.flow.listeners().map(|g| (g.domain.clone(), g.port)).collect()
}

#[inline]
fn tell(to: &Told) {
    for (domain, port) in to {
        events::raise(domain, *port);
    }
}

/// Handles an interrupt that has come to this CPU.
#[inline]
pub fn interrupt(vector: u8) {
    match vectors::of(cpu::this_cpu()).lookup(vector).and_then(|taken| get(taken.irq)) {
        Some(irq) => irq.arrive(),
        None => stray(vector),
    }
}

/// An interrupt that is nobody's.
#[cold]
fn stray(vector: u8) {
    static SEEN: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
    let is_real = apic::in_service(vector);
    if is_real {
        apic::end_of_interrupt();
    }
    let seen = SEEN.fetch_add(1, SeqCst) + 1;
    if seen.is_power_of_two() {
        let kind = if is_real { "" } else { "spurious " };
        log::warn!("CPU {}: {kind}interrupt on unused vector {vector:#x} ({seen} so far)", cpu::this_cpu().0);
    }
}

/// Forgets who listens, for a new machine.
#[cfg(not(target_os = "none"))]
pub fn forget_all() {
    for irq in table() {
        core::mem::forget(core::mem::replace(&mut *irq.state.lock(), State::new()));
    }
    (0..arch::MAX_CPUS).for_each(|cpu| vectors::of(CpuId(cpu as u16)).forget());
    chores::forget_all();
}
