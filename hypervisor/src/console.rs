// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console: what the hypervisor says and what dom0 prints on the serial line, and what is typed there.
//!
//! Messages of the hypervisor come through the `log` crate, each line with a prefix, and are kept in a [`LogRing`]
//! too. Lines that a guest causes (their target or text begins with `d<number>`) are limited in number. A message that
//! comes while a domain is in the middle of a line starts a line of its own. What is typed goes to dom0, to the
//! hypervisor's own console ([`crate::keys`]) or to a static domain, whose console is served here, as a [`Receiver`] says.
//!
//! All of this works before there is a heap and before a CPU knows its number. After [`panic_mode`] nothing waits for a lock.
//!
//! # Locking
//! `OUTPUT` is held around writes to the line, so that lines stay whole; those of [`receive`] around what is typed. All are
//! plain spin locks, because ranks are checked by CPU number; they are innermost but for the line's own.

mod guests;
mod input;
mod limit;
mod receive;
mod ring;
mod switch;

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use alloc::boxed::Box;
use arch::cpu::{self, Work};
use arrayvec::ArrayString;
use boot::options::Level;
use hypercalls::{DomId, Virq};
use log::{LevelFilter, Metadata, Record};
use spin::mutex::{Mutex, MutexGuard};

pub use self::guests::{GuestConsole, forget_guest, has_more, serve, served};
use self::limit::{Limiter, domain_of};
#[cfg(not(target_os = "none"))]
pub use self::receive::forget_guests;
pub use self::receive::{give_input, input_to, read_input, set_switch, start_input, switch_letter};
pub use self::switch::Receiver;
use crate::log_ring::LogRing;
use crate::{events, keys, snapshot};

/// What each line of the hypervisor's begins with.
const PREFIX: &str = "(xenith) ";
/// Longest message; the rest is left out.
const LONGEST: usize = 480;
/// How often a panicking CPU asks for the lock before it goes on without.
const PATIENCE: u32 = 1_000_000;

struct Output {
    ring: LogRing,
    limiter: Limiter,
    /// Whose text was written last, if it did not end a line.
    in_line: Option<DomId>,
}

static OUTPUT: Mutex<Output, arch::sync::Relax> =
    Mutex::new(Output { ring: LogRing::new(), limiter: Limiter::new(), in_line: None });

/// Shows text somewhere else than on the serial line.
pub type Show = fn(&[u8]);

/// Where messages appear besides the serial line.
static SCREEN: Mutex<Option<Show>, arch::sync::Relax> = Mutex::new(None);

/// Whose console this is first of all.
const DOM0: DomId = DomId(0);

static PANICKING: AtomicBool = AtomicBool::new(false);
/// There are messages of which whoever reads them has not been told.
static NEWS: AtomicBool = AtomicBool::new(false);
/// What dom0 prints is kept with the messages.
static KEEP_GUESTS: AtomicBool = AtomicBool::new(false);
static LEVEL: AtomicUsize = AtomicUsize::new(LevelFilter::Info as usize);
static GUEST_LEVEL: AtomicUsize = AtomicUsize::new(LevelFilter::Info as usize);

/// Returns the output, or `None` in a panic when whoever has it does not give it back.
fn output() -> Option<MutexGuard<'static, Output>> {
    if !PANICKING.load(Relaxed) {
        return Some(OUTPUT.lock());
    }
    for _ in 0..PATIENCE {
        if let Some(output) = OUTPUT.try_lock() {
            return Some(output);
        }
        core::hint::spin_loop();
    }
    None
}

/// A message while it is being formatted: what does not fit is left out, and dots say so.
#[derive(Default)]
struct Message {
    text: ArrayString<{ LONGEST + 4 }>,
    is_cut: bool,
}

impl fmt::Write for Message {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.is_cut {
            return Ok(());
        }
        let mut fits = s.len().min(LONGEST - self.text.len());
        while !s.is_char_boundary(fits) {
            fits -= 1;
        }
        self.text.push_str(s.get(..fits).unwrap_or(""));
        if fits < s.len() {
            self.text.push_str(" ...");
            self.is_cut = true;
        }
        Ok(())
    }
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() as usize <= LEVEL.load(Relaxed).max(GUEST_LEVEL.load(Relaxed))
    }

    fn log(&self, record: &Record<'_>) {
        // Formatted before the lock is taken: the arguments may have something to say themselves.
        let mut message = Message::default();
        // `Message` takes everything; an argument that fails to format leaves what came before it.
        let _ = message.write_fmt(*record.args());
        let domain = domain_of(record.target(), &message.text);
        let level = if domain.is_some() { &GUEST_LEVEL } else { &LEVEL };
        if record.level() as usize <= level.load(Relaxed) {
            say(output().as_deref_mut(), domain, &message.text);
        }
    }

    fn flush(&self) {
        flush();
    }
}

/// Writes a message, unless its domain has caused too many.
fn say(mut output: Option<&mut Output>, domain: Option<u16>, text: &str) {
    if let (Some(output), Some(domain)) = (output.as_deref_mut(), domain) {
        let Some(dropped) = output.limiter.admit(domain, arch::time::now()) else {
            return;
        };
        if dropped != 0 {
            let mut note = Message::default();
            // `Message` takes everything.
            let _ = write!(note, "d{domain}: {dropped} messages left out");
            emit(Some(output), &note.text);
        }
    }
    emit(output, text);
}

/// Writes a message whatever the levels say: an answer to somebody at the console.
pub fn print(text: fmt::Arguments<'_>) {
    let mut message = Message::default();
    // `Message` takes everything.
    let _ = message.write_fmt(text);
    emit(output().as_deref_mut(), &message.text);
}

/// Writes bytes to the line as they are; they are not kept.
pub fn print_raw(bytes: &[u8]) {
    let _whole_lines = output();
    arch::console::write(bytes);
}

/// Returns the levels up to which messages appear: of the hypervisor's own doings, and of what guests do.
pub fn levels() -> [LevelFilter; 2] {
    let level = |of: &AtomicUsize| LevelFilter::iter().nth(of.load(Relaxed)).unwrap_or(LevelFilter::Trace);
    [level(&LEVEL), level(&GUEST_LEVEL)]
}

/// Writes a message, line by line, to the serial line and into the ring.
fn emit(output: Option<&mut Output>, text: &str) {
    let (mut ring, in_line) = match output {
        Some(output) => (Some(&mut output.ring), core::mem::take(&mut output.in_line)),
        None => (None, None),
    };
    if in_line.is_some() {
        arch::console::write(b"\n");
    }
    let screen = SCREEN.try_lock().and_then(|screen| *screen);
    for line in text.lines() {
        for part in [PREFIX, line, "\n"] {
            arch::console::write(part.as_bytes());
            if let Some(show) = screen {
                show(part.as_bytes());
            }
            if let Some(ring) = ring.as_deref_mut() {
                ring.push(part.as_bytes());
            }
        }
    }
    announce_news();
}

/// Lets the domain that reads the messages know, on this CPU's way out of the hypervisor, that there are more.
fn announce_news() {
    if !NEWS.swap(true, Relaxed) && cpu::started() {
        cpu::raise_here(Work::CONSOLE);
    }
}

/// Returns up to which of our levels an option's level lets messages appear.
pub const fn filter(level: Level) -> LevelFilter {
    match level {
        Level::None => LevelFilter::Off,
        Level::Error => LevelFilter::Error,
        Level::Warning => LevelFilter::Warn,
        Level::Info => LevelFilter::Info,
        Level::Debug => LevelFilter::Debug,
    }
}

/// Sets which messages appear: of the hypervisor's own doings, and of what guests do. May be called again.
pub fn init(level: LevelFilter, guest_level: LevelFilter) {
    LEVEL.store(level as usize, Relaxed);
    GUEST_LEVEL.store(guest_level as usize, Relaxed);
    // The second time it is there already.
    let _ = log::set_logger(&Logger);
    log::set_max_level(level.max(guest_level));
}

/// Makes the console usable in a panic, whatever was going on: nothing waits for a lock any more. The other CPUs
/// are to be stopped first, and the line taken from whoever has it.
pub fn panic_mode() {
    PANICKING.store(true, Relaxed);
}

/// Waits until everything is on the line.
pub fn flush() {
    drop(output());
    arch::console::flush();
}

/// Prints what dom0 wrote.
pub fn guest_output(bytes: &[u8]) {
    let Some(last) = bytes.last() else { return };
    let mut output = output();
    if output.as_ref().is_some_and(|output| output.in_line.is_some_and(|whose| whose != DOM0)) {
        arch::console::write(b"\n");
    }
    arch::console::write(bytes);
    if let Some(output) = output.as_deref_mut() {
        output.in_line = (*last != b'\n').then_some(DOM0);
        if KEEP_GUESTS.load(Relaxed) {
            output.ring.push(bytes);
            announce_news();
        }
    }
}

/// Prints what another domain wrote, each line with its name.
fn named_output(domain: DomId, name: &str, bytes: &[u8]) {
    let mut output = output();
    let goes_on = |whose| whose == domain;
    let in_line = output.as_ref().and_then(|output| output.in_line);
    let mut put = |part: &[u8]| {
        arch::console::write(part);
        if let Some(output) = output.as_deref_mut().filter(|_| KEEP_GUESTS.load(Relaxed)) {
            output.ring.push(part);
        }
    };
    if in_line.is_some_and(|whose| !goes_on(whose)) {
        put(b"\n");
    }
    let mut begins = !in_line.is_some_and(goes_on);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if begins {
            [b"(", name.as_bytes(), b") "].into_iter().for_each(&mut put);
        }
        put(line);
        begins = line.ends_with(b"\n");
    }
    if let Some(output) = output.as_deref_mut() {
        output.in_line = (!begins).then_some(domain);
    }
    if KEEP_GUESTS.load(Relaxed) {
        announce_news();
    }
}

/// Does what is due on this CPU: passes on what was typed, goes on with dumps, tells of new messages.
#[inline(never)]
pub fn work() {
    snapshot::answer();
    receive::input();
    guests::go_on();
    keys::run();
    if NEWS.swap(false, Relaxed) {
        events::send_global_virq(Virq::CON_RING);
    }
}

/// Keeps at least so many bytes of messages from now on, as far as there is memory, and what dom0 prints too if that is
/// wanted.
pub fn keep(bytes: usize, guests: bool) {
    KEEP_GUESTS.store(guests, Relaxed);
    let size = bytes.checked_next_power_of_two().unwrap_or(1 << 31).min(1 << 31);
    let mut storage = alloc::vec::Vec::new();
    if storage.try_reserve_exact(size).is_err() {
        log::warn!("no memory for {size} bytes of messages");
        return;
    }
    storage.resize(size, 0);
    let storage: Box<[u8]> = storage.into();
    if let Some(mut output) = output()
        && output.ring.size() < size
    {
        output.ring.enlarge(storage);
    }
}

/// Shows messages by `show` too from now on, first those that are kept; or on the serial line only.
pub fn show_on(show: Option<Show>) {
    if let Some(show) = show {
        let (mut from, end) = log_range();
        let mut part = [0; 256];
        while from != end {
            let (count, next) = read_log(from, &mut part);
            show(part.get(..count).unwrap_or(&[]));
            if count == 0 {
                break;
            }
            from = next;
        }
    }
    *SCREEN.lock() = show;
}

/// Copies messages from number `from` on, as [`LogRing::read`].
pub fn read_log(from: u32, buffer: &mut [u8]) -> (usize, u32) {
    output().map_or((0, from), |output| output.ring.read(from, buffer))
}

/// Returns the numbers of the oldest message's first byte and of the next byte that will be written.
pub fn log_range() -> (u32, u32) {
    output().map_or((0, 0), |output| output.ring.range())
}

/// Forgets the messages before a number.
pub fn forget_log(before: u32) {
    if let Some(mut output) = output() {
        output.ring.forget_before(before);
    }
}

#[cfg(test)]
mod tests;
