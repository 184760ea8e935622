// SPDX-License-Identifier: MIT OR Apache-2.0
//! Consoles of static domains: what they write appears on the serial line, each line with the domain's name; what is typed is
//! theirs when the switch says so.
//!
//! A domain that does not get the input is heard in whole lines of printable text: it can neither cut others' lines nor move the
//! cursor. One that gets it is heard at once and as it is. At most [`PART`] bytes are printed at a time; then the domain rests as
//! long as that took, so a flood leaves room on the line and the processor.
//!
//! # Locking
//! [`GuestConsole::state`] is a plain lock between the switch's and `OUTPUT`. Ports are raised with none of them held.

use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU16};

use arrayvec::{ArrayString, ArrayVec};
use boot::static_domain::MAX_NAME;
use hypercalls::{DomId, Mfn, Result};
use mm::WritableRef;
use spin::mutex::Mutex;

use super::receive::{self, MOST_GUESTS};
use super::ring::Ring;
use super::{events, named_output};
use crate::domain::{self, Domain};
use crate::events::State as PortState;
use crate::grace::Node;
use crate::irq::chores;

/// Bytes that are printed at a time.
const PART: usize = 128;
/// The shortest rest after that.
const REST_NS: u64 = 500_000;
/// The longest line that is waited for.
const LINE: usize = 200;

/// The domain that gets what is typed, of those here; [`NOBODY`] when none does.
static FOCUS: AtomicU16 = AtomicU16::new(NOBODY);
const NOBODY: u16 = u16::MAX;
/// A console has more to say after its rest.
static MORE: AtomicBool = AtomicBool::new(false);

/// A console that the hypervisor serves.
#[derive(Debug)]
pub struct GuestConsole {
    domain: DomId,
    name: ArrayString<MAX_NAME>,
    port: u32,
    state: Mutex<State, arch::sync::Relax>,
}

#[derive(Debug)]
struct State {
    ring: Ring,
    /// What was said of a line that is not at its end.
    line: ArrayVec<u8, LINE>,
    rests_until: u64,
    has_more: bool,
}

/// Serves a domain's console from now on: the ring is in this page of zeros, the port from [`events::open_console`].
///
/// # Errors
/// `ENOMEM`.
pub fn serve(domain: &Domain, name: &str, frame: WritableRef, port: u32) -> Result<()> {
    let name = ArrayString::from(name).unwrap_or_default();
    let state = State { ring: Ring::new(frame), line: ArrayVec::new(), rests_until: 0, has_more: false };
    let console = GuestConsole { domain: domain.id, name, port, state: Mutex::new(state) };
    domain.console.replace(Some(Node::new(console)?));
    receive::add_guest(domain.id, name);
    Ok(())
}

/// Lets go of a dying domain's console.
pub fn forget_guest(domain: &Domain) {
    if domain.console.replace(None).is_some() {
        receive::remove_guest(domain.id);
    }
}

/// The guest says that there is news in the ring.
#[cold]
#[inline(never)]
pub fn served(domain: &Domain) {
    domain.console.with(|console| console.pass(domain));
}

/// True when a console has more to say after its rest.
pub fn has_more() -> bool {
    MORE.load(SeqCst)
}

/// Goes on with consoles that have rested.
pub(super) fn go_on() {
    if !MORE.swap(false, SeqCst) {
        return;
    }
    for id in receive::guests() {
        domain::with(id, |domain| {
            domain.console.with(|console| {
                let has_more = console.state.lock().has_more;
                if has_more {
                    console.pass(domain);
                }
            })
        });
    }
}

/// Notes who gets what is typed; what it has begun to say appears.
pub(super) fn focus(id: Option<DomId>) {
    FOCUS.store(id.map_or(NOBODY, |id| id.0), SeqCst);
    let flush = |domain: &Domain| domain.console.with(|console| console.flush(&mut console.state.lock()));
    id.and_then(|id| domain::with(id, flush));
}

/// Gives a domain what was typed; [`tell`] has it look.
pub(super) fn type_in(id: DomId, bytes: &[u8]) {
    domain::with(id, |domain| domain.console.with(|console| console.state.lock().ring.give(bytes)));
}

/// Tells domains that there is news in their rings.
pub(super) fn tell(ids: &ArrayVec<DomId, MOST_GUESTS>) {
    for id in ids {
        domain::with(*id, |domain| domain.console.with(|console| console.notify(domain)));
    }
}

impl GuestConsole {
    /// Returns the page of the ring.
    pub fn frame(&self) -> Mfn {
        self.state.lock().ring.frame()
    }

    /// Returns the domain's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Raises the port, unless the guest has closed it and got the number for something else.
    fn notify(&self, domain: &Domain) {
        if domain.events.get(self.port).is_some_and(|channel| channel.state == PortState::Console) {
            events::raise(domain, self.port);
        }
    }

    /// Prints a part of what the guest wrote, unless it has to rest.
    fn pass(&self, domain: &Domain) {
        let mut state = self.state.lock();
        let now = arch::time::now();
        let mut count = 0;
        if now >= state.rests_until {
            let mut part = [0; PART];
            (count, state.has_more) = state.ring.take(&mut part);
            self.print(&mut state, part.get(..count).unwrap_or(&[]));
            let end = arch::time::now();
            state.rests_until = end + end.saturating_sub(now).max(REST_NS);
        } else {
            state.has_more = true;
        }
        if state.has_more {
            MORE.store(true, SeqCst);
            chores::want(arch::cpu::this_cpu(), state.rests_until);
        }
        drop(state);
        if count > 0 {
            self.notify(domain);
        }
    }

    fn print(&self, state: &mut State, bytes: &[u8]) {
        if FOCUS.load(SeqCst) == self.domain.0 {
            self.flush(state);
            return named_output(self.domain, &self.name, bytes);
        }
        for byte in bytes {
            if matches!(byte, b'\t' | b' '..=b'~' | 0x80..) {
                // There is room: a full line is printed below.
                let _ = state.line.try_push(*byte);
            }
            if *byte == b'\n' || state.line.remaining_capacity() == 1 {
                let _ = state.line.try_push(b'\n');
                self.flush(state);
            }
        }
    }

    fn flush(&self, state: &mut State) {
        if !state.line.is_empty() {
            named_output(self.domain, &self.name, &state.line);
            state.line.clear();
        }
    }
}
