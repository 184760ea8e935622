// SPDX-License-Identifier: MIT OR Apache-2.0
//! The serial line of a machine under test: everything it prints, when, and what is typed into it.
//!
//! A thread reads the pipe; the text is kept whole, without carriage returns and terminal escapes, and the raw bytes
//! go to a log file at once, so that a run that is cut short leaves its log.

use crate::process::Tracked;
use crate::symbols::Filter;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long output is gathered: a serial line hands over a few bytes at a time.
const GATHER: Duration = Duration::from_millis(20);

/// A running machine and its serial line.
#[derive(Debug)]
pub(crate) struct Console {
    child: Tracked,
    input: ChildStdin,
    chunks: Receiver<Vec<u8>>,
    log: File,
    escapes: Escapes,
    names: Filter,
    started: Instant,
    text: String,
    /// When the first byte of each line came, and where in the text it is.
    lines: Vec<(Moment, usize)>,
}

/// A moment of a machine's life, or the span between two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// By the clock on the wall.
    pub(crate) wall: Duration,
    /// By the CPU time that QEMU has used, which other programs disturb little.
    pub(crate) cpu: Duration,
}

impl Moment {
    /// The span from an earlier moment to this one.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { wall: self.wall.saturating_sub(earlier.wall), cpu: self.cpu.saturating_sub(earlier.cpu) }
    }
}

/// What happened while waiting for output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// More text came.
    Text,
    /// The time is over.
    Timeout,
    /// The machine ended.
    Ended(ExitStatus),
}

impl Console {
    /// Starts the machine with its serial line on pipes and its log at `log`; `names` adds to both what it knows.
    pub(crate) fn start(command: &mut Command, log: &Path, names: Filter) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file.try_clone()?);
        let child = Tracked::spawn(command)?;
        let (input, mut output) = child.with(|child| (child.stdin.take(), child.stdout.take().map(Box::new)));
        let (sender, chunks) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(Ok(length @ 1..)) = output.as_mut().map(|pipe| pipe.read(&mut buffer)) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            input: input.context("the machine has no standard input")?,
            chunks,
            log: file,
            escapes: Escapes::Outside,
            names,
            started: Instant::now(),
            text: String::new(),
            lines: vec![(Moment::default(), 0)],
        })
    }

    /// Waits for the next output, at most until `deadline`; takes what comes within a moment together, because whoever
    /// watches looks at the whole text each time.
    pub(crate) fn next(&mut self, deadline: Instant) -> Result<Event> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.chunks.recv_timeout(left) {
            Ok(mut chunk) => {
                thread::sleep(GATHER);
                self.chunks.try_iter().for_each(|more| chunk.extend(more));
                let chunk = self.names.pass(&chunk);
                self.log.write_all(&chunk)?;
                self.append(&chunk);
                Ok(Event::Text)
            }
            Err(RecvTimeoutError::Timeout) => Ok(Event::Timeout),
            Err(RecvTimeoutError::Disconnected) => Ok(Event::Ended(self.child.wait()?)),
        }
    }

    /// Adds to the log what the machine did not print.
    pub(crate) fn note(&mut self, text: &str) -> Result<()> {
        let text = self.names.pass(text.as_bytes());
        self.log.write_all(&text).context("cannot write the log")
    }

    /// Types text into the machine.
    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        self.input.write_all(text.as_bytes()).context("the machine takes no input")?;
        self.input.flush()?;
        Ok(())
    }

    /// How much of a CPU the machine uses for the next while, in percent.
    pub(crate) fn load(&self, span: Duration) -> Result<u64> {
        let before = self.cpu_time()?;
        thread::sleep(span);
        let used = self.cpu_time()?.saturating_sub(before).as_millis();
        Ok(u64::try_from(used * 100 / span.as_millis().max(1))?)
    }

    /// The CPU time QEMU has used.
    fn cpu_time(&self) -> Result<Duration> {
        let stat = format!("/proc/{}/stat", self.child.with(|child| child.id()));
        let stat = std::fs::read_to_string(&stat).with_context(|| format!("cannot read {stat}"))?;
        // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it, in
        // hundredths of a second for every program (USER_HZ).
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
        Ok(Duration::from_millis(10 * ticks.sum::<u64>()))
    }

    /// Everything printed so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// When the line that holds this offset of the text began, since the machine's start.
    pub(crate) fn time_of(&self, offset: usize) -> Moment {
        let after = self.lines.partition_point(|(_, start)| *start <= offset);
        self.lines[after.saturating_sub(1)].0
    }

    fn append(&mut self, chunk: &[u8]) {
        let now = Moment { wall: self.started.elapsed(), cpu: self.cpu_time().unwrap_or_default() };
        let mut at_start = self.text.is_empty() || self.text.ends_with('\n');
        for &byte in chunk {
            let Some(byte) = self.escapes.filter(byte) else {
                continue;
            };
            if at_start {
                self.lines.push((now, self.text.len()));
            }
            at_start = byte == b'\n';
            self.text.push(if byte.is_ascii() { char::from(byte) } else { '?' });
        }
    }
}

/// Removes carriage returns and terminal escape sequences from a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Outside,
    Escape,
    Control,
}

impl Escapes {
    fn filter(&mut self, byte: u8) -> Option<u8> {
        match (*self, byte) {
            (_, 0x1b) => *self = Self::Escape,
            (Self::Escape, b'[') => *self = Self::Control,
            (Self::Control, 0x20..=0x3f) => {}
            (Self::Escape | Self::Control, _) => *self = Self::Outside,
            (Self::Outside, b'\r' | 0) => {}
            (Self::Outside, byte) => return Some(byte),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_removed_even_when_split() {
        let mut escapes = Escapes::Outside;
        let input = b"a\x1b[2;10Hb\r\n\x1bMc\x1b[0m.";
        let kept: Vec<u8> = input.iter().filter_map(|&byte| escapes.filter(byte)).collect();
        assert_eq!(kept, b"ab\nc.");
    }
}
