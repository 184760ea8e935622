// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys on their way from the console or a tool to what they do, a few lines at a time.
//!
//! One CPU at a time runs a key. It prints for [`PASS_NS`], at least one line, then rests as long as it took and goes on by
//! its timer, so that guests get half of the CPU however slow the line is.
//!
//! # Locking
//! `RUNNER` is never waited for: whoever finds it taken leaves the key in the queue, and who has it looks there again after
//! letting go. `QUEUE` is innermost.

use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering::SeqCst};

use arch::cpu::{self, Work};
use arch::{CpuId, MAX_CPUS};
use spin::mutex::Mutex;

use super::{KEYS, Key, Text};
use crate::{console, timers};

/// Keys that may wait.
pub const WAITING: usize = 64;
/// How long a pass prints.
const PASS_NS: u64 = 500_000;
/// The shortest rest between two passes.
const REST_NS: u64 = 200_000;
/// Steps of a pass, however fast they are.
const STEPS: u32 = 64;

static QUEUE: Mutex<ArrayVec<u8, WAITING>, arch::sync::Relax> = Mutex::new(ArrayVec::new_const());
static RUNNER: Mutex<Runner, arch::sync::Relax> = Mutex::new(Runner { key: None, at: 0, text: Text::new() });

/// The CPU that goes on with the key, and when; [`NOBODY`] and `u64::MAX` when there is nothing to go on with.
static RESTING_ON: AtomicU16 = AtomicU16::new(NOBODY);
static RESTS_UNTIL: AtomicU64 = AtomicU64::new(u64::MAX);
const NOBODY: u16 = MAX_CPUS as u16;

struct Runner {
    key: Option<&'static Key>,
    at: u64,
    text: Text,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Nothing is left to do.
    Finished,
    /// There is more, later.
    Rest,
}

/// Presses a key: it is run on this CPU's way out of the hypervisor, or when the keys before it are done.
pub fn press(letter: u8) {
    if QUEUE.lock().try_push(letter).is_ok() {
        cpu::raise_here(Work::CONSOLE);
    }
}

/// True when so many keys more may wait.
pub fn has_room(keys: usize) -> bool {
    QUEUE.lock().remaining_capacity() >= keys
}

/// Forgets what was pressed, for a new machine.
#[cfg(not(target_os = "none"))]
pub fn forget_all() {
    QUEUE.lock().clear();
    *RUNNER.lock() = Runner { key: None, at: 0, text: Text::new() };
    RESTING_ON.store(NOBODY, SeqCst);
}

/// Returns when a CPU is to go on with a key, `u64::MAX` when it is not.
#[inline]
pub fn due_on(here: CpuId) -> u64 {
    if RESTING_ON.load(SeqCst) == here.0 { RESTS_UNTIL.load(SeqCst) } else { u64::MAX }
}

/// Runs keys that wait, and goes on with one that has rested.
pub fn run() {
    if RESTING_ON.load(SeqCst) != NOBODY && arch::time::now() < RESTS_UNTIL.load(SeqCst) {
        return;
    }
    while let Some(mut runner) = RUNNER.try_lock() {
        let started = arch::time::now();
        let how = runner.pass(started);
        drop(runner);
        match how {
            Pass::Rest => return rest(started),
            Pass::Finished => RESTING_ON.store(NOBODY, SeqCst),
        }
        // Pressed by somebody who found the runner taken.
        if QUEUE.lock().is_empty() {
            return;
        }
    }
}

/// Rests for as long as the pass took.
fn rest(started: u64) {
    let now = arch::time::now();
    let until = now + now.saturating_sub(started).max(REST_NS);
    RESTS_UNTIL.store(until, SeqCst);
    RESTING_ON.store(cpu::this_cpu().0, SeqCst);
    timers::reprogram();
}

impl Runner {
    fn pass(&mut self, started: u64) -> Pass {
        for _ in 0..STEPS {
            while let Some(line) = self.text.next_line() {
                console::print(format_args!("{line}"));
                if is_over(started) {
                    return Pass::Rest;
                }
            }
            if is_over(started) {
                return Pass::Rest;
            }
            let Some(key) = self.key else {
                match next() {
                    Some(letter) => self.begin(letter),
                    None => return Pass::Finished,
                }
                continue;
            };
            let at = self.at;
            match (key.step)(at, &mut self.text) {
                Some(next) => self.at = next,
                None => self.key = None,
            }
            if self.key.is_some() && self.at == at && self.text.is_empty() {
                // It waits for something.
                return Pass::Rest;
            }
        }
        Pass::Rest
    }

    fn begin(&mut self, letter: u8) {
        use core::fmt::Write as _;
        self.at = 0;
        self.key = KEYS.iter().find(|key| key.letter == letter);
        if let Some(Key { what, .. }) = self.key {
            super::text::line!(self.text, "'{}' pressed -> {what}", letter.escape_ascii());
        }
    }
}

/// True when a pass has had its time.
fn is_over(started: u64) -> bool {
    arch::time::now().saturating_sub(started) >= PASS_NS
}

/// Takes the key that waits longest.
fn next() -> Option<u8> {
    QUEUE.lock().pop_at(0)
}
