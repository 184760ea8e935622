// SPDX-License-Identifier: MIT OR Apache-2.0
//! A domain's event channels: its ports, which of them are free, and the form in which they reach it.
//!
//! # Locking
//! Looking ports up and raising them takes no lock. What changes bindings holds [`Events::lock`]; for a channel between two
//! domains both, in ascending order of their numbers ([`lock_two`]).

use hypercalls::event::FIFO_NR_CHANNELS;
use hypercalls::shared_info::EVTCHN_2L_NR_CHANNELS;
use hypercalls::{Errno, Mfn, Result, VcpuId};
use mm::{Lock, LockGuard};

use super::fifo::Fifo;
use super::free::PortSet;
use super::port::{CHUNK, Channel, Port, Ports, State};
use crate::grace::{Published, Ticket};
use crate::{domain::Domain, rank};

/// Busy ports that are looked at again by one allocation.
const RECHECKS: usize = 4;
/// The same, when nothing else is left.
const LAST_RECHECKS: usize = 256;
/// Free ports that may turn out to be busy before an allocation gives up: only a guest that writes event words of ports that
/// it does not have makes one so.
const TRIES: usize = 64;

/// A domain's event channels.
#[derive(Debug)]
pub struct Events {
    ports: Ports,
    /// Ports from this number on do not exist.
    end: u32,
    /// The FIFO form, if the domain uses it.
    pub(super) fifo: Published<Fifo>,
    table: Lock<Table>,
}

/// Which ports are free.
#[derive(Debug, Default)]
struct Table {
    /// How many chunks of ports there are.
    chunks: usize,
    /// Closed ports that can be given out.
    free: PortSet,
    /// Closed ports that were still in a queue of events when they were looked at last.
    busy: PortSet,
    /// How many ports are open.
    open: u32,
    /// A reset is under way.
    reset: Option<Reset>,
    /// The domain is dying: no port is opened any more.
    refuses: bool,
}

/// How far a reset has got.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reset {
    /// Ports below this one are closed.
    Closing(u32),
    /// All is done but that the FIFO form waits for its end.
    Leaving(Ticket),
}

impl Reset {
    /// True when nothing is left to be done.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Leaving(ticket) if ticket.is_over())
    }
}

impl Events {
    /// Makes a domain's event channels: `max_port` is the highest port that it may have.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(max_port: u32) -> Result<Self> {
        let end = max_port.saturating_add(1).min(FIFO_NR_CHANNELS);
        Ok(Self {
            ports: Ports::new(end)?,
            end,
            fifo: Published::new(),
            table: Lock::new(rank::EVENTS, Table::default()),
        })
    }

    /// Returns a port that has storage.
    #[inline(always)]
    pub(super) fn port(&self, port: u32) -> Option<&Port> {
        self.ports.get(port)
    }

    /// Returns a port that exists, closed or not.
    ///
    /// # Errors
    /// `EINVAL`.
    #[inline(always)]
    pub(super) fn valid(&self, port: u32) -> Result<&Port> {
        self.ports.get(port).ok_or(Errno::EINVAL)
    }

    /// Returns a port that exists and is not closed.
    #[inline(always)]
    pub fn get(&self, port: u32) -> Option<Channel> {
        self.ports.get(port).map(Port::channel).filter(|c| c.state != State::Closed)
    }

    /// Iterates over the ports that are not closed, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Channel)> + '_ {
        self.iter_from(0)
    }

    /// Iterates over the ports from `first` on that are not closed.
    pub fn iter_from(&self, first: u32) -> impl Iterator<Item = (u32, Channel)> + '_ {
        let all = (first..).map_while(|number| Some((number, self.ports.get(number)?.channel())));
        all.filter(|(_, channel)| channel.state != State::Closed)
    }

    /// Calls `f` with every frame of the domain that the FIFO form holds.
    pub fn for_each_frame(&self, f: impl FnMut(Mfn)) {
        self.fifo.with(|fifo| fifo.for_each_frame(f));
    }

    /// Waits for the right to change bindings.
    #[inline]
    pub fn lock(&self) -> Changes<'_> {
        Changes { events: self, table: self.table.lock() }
    }

    fn lock_second(&self) -> Changes<'_> {
        Changes { events: self, table: self.table.lock_second() }
    }

    /// True when somebody is changing bindings.
    pub fn is_locked(&self) -> bool {
        self.table.is_locked()
    }

    /// Returns how many ports there can be in the form that is in use.
    fn limit(&self) -> u32 {
        if self.fifo.is_some() { self.end } else { self.end.min(EVTCHN_2L_NR_CHANNELS) }
    }
}

/// Locks two domains' event channels.
pub(super) fn lock_two<'a>(ours: &'a Domain, theirs: &'a Domain) -> (Changes<'a>, Changes<'a>) {
    if ours.id < theirs.id {
        let first = ours.events.lock();
        (first, theirs.events.lock_second())
    } else {
        let first = theirs.events.lock();
        (ours.events.lock_second(), first)
    }
}

/// The right to change a domain's bindings.
#[derive(Debug)]
pub struct Changes<'a> {
    events: &'a Events,
    table: LockGuard<'a, Table>,
}

impl Changes<'_> {
    /// Returns a port that exists and is not closed.
    pub fn get(&self, port: u32) -> Option<Channel> {
        self.events.get(port)
    }

    /// Binds the lowest port that is free.
    ///
    /// # Errors
    /// `ENOSPC` when there is none, `ENOMEM`, `EINVAL` when the domain is dying.
    pub fn allocate(&mut self, state: State, vcpu: VcpuId) -> Result<u32> {
        if self.table.refuses {
            return Err(Errno::EINVAL);
        }
        let port = self.take_free()?;
        self.set(port, Channel::new(state, vcpu));
        self.table.open += 1;
        Ok(port)
    }

    /// Gives an open port another binding.
    pub(super) fn set(&mut self, port: u32, channel: Channel) {
        if let Some(port) = self.events.port(port) {
            port.set(channel);
        }
    }

    /// Makes a port that was just closed one that can be given out again.
    pub(super) fn release(&mut self, port: u32) {
        self.table.open -= 1;
        let set = if self.is_busy(port) { &mut self.table.busy } else { &mut self.table.free };
        set.insert(port);
    }

    /// True while the port is in a queue: handed out again now, its next event would come in the wrong place.
    fn is_busy(&self, port: u32) -> bool {
        self.events.fifo.with(|fifo| fifo.is_linked(port)).unwrap_or(false)
    }

    fn take_free(&mut self) -> Result<u32> {
        self.recheck(RECHECKS);
        for _ in 0..TRIES {
            let Some(port) = self.lowest_free()? else { break };
            self.table.free.remove(port);
            if !self.is_busy(port) {
                return Ok(port);
            }
            self.table.busy.insert(port);
        }
        self.recheck(LAST_RECHECKS);
        let port = self.table.free.lowest().filter(|port| *port < self.events.limit()).ok_or(Errno::ENOSPC)?;
        self.table.free.remove(port);
        Ok(port)
    }

    /// Returns the lowest port that is free, of those that have no storage yet too.
    fn lowest_free(&mut self) -> Result<Option<u32>> {
        let limit = self.events.limit();
        loop {
            if let Some(port) = self.table.free.lowest() {
                return Ok(Some(port).filter(|port| *port < limit));
            }
            if self.table.chunks * CHUNK >= limit as usize {
                return Ok(None);
            }
            self.grow()?;
        }
    }

    fn grow(&mut self) -> Result<()> {
        let (first, end) = (self.table.chunks * CHUNK, (self.table.chunks + 1) * CHUNK);
        let table = &mut *self.table;
        table.free.make_room(end as u32)?;
        table.busy.make_room(end as u32)?;
        self.events.ports.grow(table.chunks)?;
        table.chunks += 1;
        // Port 0 is never given out.
        (first.max(1) as u32..self.events.end.min(end as u32)).for_each(|port| table.free.insert(port));
        Ok(())
    }

    /// Looks at some of the busy ports again.
    fn recheck(&mut self, count: usize) {
        for _ in 0..count {
            let Some(port) = self.table.busy.lowest() else { return };
            if self.is_busy(port) {
                return;
            }
            self.table.busy.remove(port);
            self.table.free.insert(port);
        }
    }
}

/// Leaving the FIFO form.
impl Changes<'_> {
    /// Returns how far the reset that is under way has got.
    pub(super) fn reset(&mut self) -> &mut Option<Reset> {
        &mut self.table.reset
    }

    /// Refuses to open ports from now on.
    pub(super) fn refuse(&mut self) {
        self.table.refuses = true;
    }

    /// Makes all ports free that have storage, and goes back to the two-level form. Says when the other's pages will be let go.
    ///
    /// # Errors
    /// `EAGAIN` when a port is open.
    pub(super) fn leave_fifo(&mut self) -> Result<Option<Ticket>> {
        if self.table.open != 0 {
            return Err(Errno::EAGAIN);
        }
        let ticket = self.events.fifo.replace(None);
        let table = &mut *self.table;
        table.busy.clear();
        let end = self.events.end.min((table.chunks * CHUNK) as u32);
        (1..end).for_each(|port| table.free.insert(port));
        Ok(ticket)
    }
}
