// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console: what the hypervisor says and what dom0 prints on the serial line, and what is typed there.
//!
//! Messages of the hypervisor come through the `log` crate, each line with a prefix, and are kept in a [`LogRing`]
//! too. Lines that a guest causes (their target or text begins with `d<number>`) are limited in number. A message that
//! comes while dom0 is in the middle of a line starts a line of its own.
//!
//! All of this works before there is a heap and before a CPU knows its number. After [`panic_mode`] nothing waits for a lock.
//!
//! # Locking
//! `OUTPUT` is held around writes to the line, so that lines stay whole; `INPUT` around the input ring. Both are plain
//! spin locks, because ranks are checked by CPU number; they are innermost but for the line's own.

mod input;
mod limit;

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use arrayvec::ArrayString;
use hypercalls::{Result, Virq};
use log::{LevelFilter, Metadata, Record};
use spin::mutex::{Mutex, MutexGuard};

use self::input::InputRing;
use self::limit::{Limiter, domain_of};
use crate::events;
use crate::log_ring::LogRing;

/// What each line of the hypervisor's begins with.
const PREFIX: &str = "(xenith) ";
/// Longest message; the rest is left out.
const LONGEST: usize = 480;
/// How often a panicking CPU asks for the lock before it goes on without.
const PATIENCE: u32 = 1_000_000;

struct Output {
    ring: LogRing,
    limiter: Limiter,
    /// What was written last did not end a line.
    in_line: bool,
}

static OUTPUT: Mutex<Output, arch::sync::Relax> =
    Mutex::new(Output { ring: LogRing::new(), limiter: Limiter::new(), in_line: false });
static INPUT: Mutex<InputRing, arch::sync::Relax> = Mutex::new(InputRing::new());

static PANICKING: AtomicBool = AtomicBool::new(false);
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

/// Writes a message, line by line, to the serial line and into the ring.
fn emit(output: Option<&mut Output>, text: &str) {
    let (mut ring, in_line) = match output {
        Some(output) => (Some(&mut output.ring), core::mem::take(&mut output.in_line)),
        None => (None, false),
    };
    if in_line {
        arch::console::write(b"\n");
    }
    for line in text.lines() {
        for part in [PREFIX, line, "\n"] {
            arch::console::write(part.as_bytes());
            if let Some(ring) = ring.as_deref_mut() {
                ring.push(part.as_bytes());
            }
        }
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
    arch::console::write(bytes);
    if let Some(output) = output.as_deref_mut() {
        output.in_line = *last != b'\n';
    }
}

/// Fetches what has been typed, and tells dom0 that there is something to read.
#[inline(never)]
pub fn input() {
    let mut buffer = [0; 64];
    let mut any = false;
    // A line that never falls silent does not keep this CPU.
    for _ in 0..16 {
        let count = arch::console::read(&mut buffer);
        let Some(bytes) = buffer.get(..count).filter(|b| !b.is_empty()) else {
            break;
        };
        INPUT.lock().push(bytes);
        any = true;
    }
    if any {
        events::send_global_virq(Virq::CONSOLE);
    }
}

/// Hands at most `most` bytes of what was typed to `take`, in parts, each with its offset; what `take` took is gone.
/// Returns how many there were.
///
/// # Errors
/// That of `take`: the part it failed on stays.
pub fn read_input(most: usize, mut take: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<usize> {
    let mut input = INPUT.lock();
    let mut done = 0;
    while done < most {
        let part = input.first();
        let count = part.len().min(most - done);
        if count == 0 {
            break;
        }
        take(done, part.get(..count).unwrap_or(&[]))?;
        input.consume(count);
        done += count;
    }
    Ok(done)
}

/// Copies messages from number `from` on, as [`LogRing::read`].
pub fn read_log(from: u32, buffer: &mut [u8]) -> (usize, u32) {
    output().map_or((0, from), |output| output.ring.read(from, buffer))
}

/// Forgets the messages that are kept.
pub fn clear_log() {
    if let Some(mut output) = output() {
        output.ring.clear();
    }
}

#[cfg(test)]
mod tests;
