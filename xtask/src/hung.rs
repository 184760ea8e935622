// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine that hangs, or has said something bad, can still tell: evidence for its log, gathered before it is ended.

use crate::monitor::Monitor;
use crate::serial::{Console, Event};
use anyhow::Result;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Switches the serial line's input to the hypervisor, which takes the key that has all others tell what they know.
const ALL_KEYS: &str = "\x01\x01\x01*";
/// The monitor's command for what all CPUs do.
const REGISTERS: &str = "info registers -a";
/// How long the hypervisor may take to answer, and how long it may be silent.
const PATIENCE: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(3);

/// Asks QEMU what each CPU does and the hypervisor, if it answers, for everything its keys tell. All of it goes to the log;
/// returns where each CPU is.
pub(crate) fn question(console: &mut Console, monitor: &Monitor) -> String {
    let places = look(console, monitor).unwrap_or_else(|error| format!("QEMU does not answer ({error:#})"));
    // It may have no hypervisor that listens; then silence is the answer.
    let _ = press(console);
    places
}

/// Looks twice, which tells CPUs that go round in circles from those that stand still.
fn look(console: &mut Console, monitor: &Monitor) -> Result<String> {
    let registers = monitor.command(REGISTERS)?;
    let now = places(&registers);
    let later = places(&monitor.command(REGISTERS)?);
    console.note(&format!("\n*** what the machine does\n{registers}\n{}\n{}\n", now.long, later.long))?;
    Ok(now.short)
}

fn press(console: &mut Console) -> Result<()> {
    console.send(ALL_KEYS)?;
    let end = Instant::now() + PATIENCE;
    while console.next(end.min(Instant::now() + SILENCE))? == Event::Text {}
    Ok(())
}

/// Where CPUs are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    /// In one line.
    short: String,
    /// As lines of a backtrace, which get the functions' names.
    long: String,
}

/// Reads what each CPU executes from QEMU's registers.
fn places(registers: &str) -> Places {
    let mut found = Places::default();
    let mut cpu = "";
    for line in registers.lines().map(str::trim) {
        if let Some(number) = line.strip_prefix("CPU#") {
            cpu = number;
        }
        let Some(rip) = line.strip_prefix("RIP=").and_then(|rest| rest.split_whitespace().next()) else { continue };
        let state = if line.contains("HLT=1") { " (halted)" } else { "" };
        let comma = if found.short.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(found.short, "{comma}CPU {cpu} at 0x{rip}{state}");
        let _ = writeln!(found.long, "CPU {cpu}{state}:\n(xenith)   0x{rip} interrupted");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_the_registers_of_all_cpus() {
        let registers = "info registers -a\r\n\r\nCPU#0\r\nRAX=0000000000000001 RBX=0000000000000000\r\n\
            RIP=ffff82d040012345 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\r\nCPU#1\r\n\
            RIP=ffffffff81001234 RFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=0\r\n(qemu) ";
        let found = places(registers);
        assert_eq!(found.short, "CPU 0 at 0xffff82d040012345 (halted), CPU 1 at 0xffffffff81001234");
        assert!(found.long.contains("CPU 0 (halted):\n(xenith)   0xffff82d040012345 interrupted\n"), "{}", found.long);
        assert_eq!(places("(qemu) "), Places::default());
    }
}
