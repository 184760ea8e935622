// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two I/O APICs, of [`FIRST`] and [`SECOND`] lines with a hole between them, and wires that a test pulls.
//!
//! As on the machine: an edge while the line is masked is lost; a level-triggered line that is asserted sends once, and again
//! only after the end of that interrupt, named by the vector that the line has then.

use crate::apic;
use crate::area::locked;
use arch_types::{CpuId, LineMode, NoSuchLine};
use std::sync::{Mutex, MutexGuard};

/// Lines of the first I/O APIC, from 0 on.
pub const FIRST: u32 = 24;
/// Where the second one's begin.
pub const SECOND_BASE: u32 = 32;
/// Lines of the second one.
pub const SECOND: u32 = 8;
const END: usize = (SECOND_BASE + SECOND) as usize;

/// Machine addresses of their registers.
pub const MADDRS: [u64; 2] = [0xfec0_0000, 0xfec0_1000];

#[derive(Clone, Copy, Debug)]
struct Line {
    vector: u8,
    cpu: CpuId,
    mode: LineMode,
    masked: bool,
    asserted: bool,
    remote_irr: bool,
}

const IDLE: Line = Line {
    vector: 0,
    cpu: CpuId(0),
    mode: LineMode { level: false, active_low: false },
    masked: true,
    asserted: false,
    remote_irr: false,
};
static LINES: Mutex<[Line; END]> = Mutex::new([IDLE; END]);

fn lines() -> MutexGuard<'static, [Line; END]> {
    locked(&LINES)
}

impl Line {
    fn send_if_due(&mut self) {
        if self.mode.level && self.asserted && !self.masked && !self.remote_irr {
            self.remote_irr = true;
            apic::send(self.cpu, self.vector);
        }
    }
}

fn with<T>(gsi: u32, act: impl FnOnce(&mut Line) -> T) -> Result<T, NoSuchLine> {
    if exists(gsi) { Ok(act(&mut lines()[gsi as usize])) } else { Err(NoSuchLine) }
}

pub(crate) fn reset() {
    lines().fill(IDLE);
}

/// True when some I/O APIC has this global interrupt.
pub fn exists(gsi: u32) -> bool {
    gsi < FIRST || (SECOND_BASE..SECOND_BASE + SECOND).contains(&gsi)
}

/// Returns one more than the highest global interrupt.
pub fn gsi_end() -> u32 {
    SECOND_BASE + SECOND
}

/// Lets a global interrupt arrive at one CPU as a vector; it stays masked if it is.
///
/// # Errors
/// [`NoSuchLine`] when there is none, or it cannot name that CPU.
pub fn route(gsi: u32, vector: u8, cpu: CpuId, mode: LineMode) -> Result<(), NoSuchLine> {
    if !apic::can_target(cpu) {
        return Err(NoSuchLine);
    }
    with(gsi, |line| {
        (line.vector, line.cpu, line.mode) = (vector, cpu, mode);
        line.send_if_due();
    })
}

/// Lets a global interrupt through.
///
/// # Errors
/// [`NoSuchLine`].
pub fn unmask(gsi: u32) -> Result<(), NoSuchLine> {
    with(gsi, |line| {
        line.masked = false;
        line.send_if_due();
    })
}

/// Holds a global interrupt back.
///
/// # Errors
/// [`NoSuchLine`].
pub fn mask(gsi: u32) -> Result<(), NoSuchLine> {
    with(gsi, |line| line.masked = true)
}

/// True when the last interrupt of a level-triggered line was ended.
pub fn is_settled(gsi: u32) -> bool {
    with(gsi, |line| !line.remote_irr).unwrap_or(true)
}

/// An interrupt of that vector was ended on some CPU.
pub(crate) fn ended(vector: u8) {
    for line in lines().iter_mut().filter(|l| l.vector == vector) {
        line.remote_irr = false;
        line.send_if_due();
    }
}

/// Pulls the wire, or lets it go.
///
/// # Errors
/// [`NoSuchLine`].
pub fn assert_line(gsi: u32, asserted: bool) -> Result<(), NoSuchLine> {
    with(gsi, |line| {
        let edge = asserted && !line.asserted;
        line.asserted = asserted;
        if !line.mode.level && edge && !line.masked {
            apic::send(line.cpu, line.vector);
        }
        line.send_if_due();
    })
}

/// True when the line is masked.
pub fn is_masked(gsi: u32) -> bool {
    with(gsi, |line| line.masked).unwrap_or(true)
}

/// Returns where the line is sent: CPU and vector.
pub fn target(gsi: u32) -> Option<(CpuId, u8)> {
    with(gsi, |line| (line.cpu, line.vector)).ok()
}

/// Reads a register of the I/O APIC at a machine address; `None` when there is none. Of the lines only the low words are there.
pub fn read_register(maddr: u64, register: u32) -> Option<u32> {
    let (first, count) = lines_at(maddr)?;
    let word = |line: &Line| {
        u32::from(line.vector)
            | u32::from(line.mode.active_low) << 13
            | u32::from(line.mode.level) << 15
            | u32::from(line.masked) << 16
    };
    Some(match register {
        1 => (count - 1) << 16 | 0x20,
        0x10.. if (register - 0x10) / 2 < count && register.is_multiple_of(2) => {
            with(first + (register - 0x10) / 2, |line| word(line)).unwrap_or(0)
        }
        _ => 0,
    })
}

/// Returns the global interrupts of the I/O APIC at a machine address: the first one and how many.
pub fn lines_at(maddr: u64) -> Option<(u32, u32)> {
    [(MADDRS[0], (0, FIRST)), (MADDRS[1], (SECOND_BASE, SECOND))]
        .into_iter()
        .find(|(at, _)| *at == maddr)
        .map(|(_, l)| l)
}
