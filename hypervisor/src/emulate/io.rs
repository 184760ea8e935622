// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port access of a guest: may it, and what does each of its bytes reach.
//!
//! Two checks that know nothing of each other. The guest's own: [`Privilege::allows`] (else the fault is reflected).
//! Then the domain's: [`PortSet`]; a port that is not permitted reads as all ones and ignores writes.

mod ports;
#[cfg(test)]
mod tests;

use super::Width;
pub use ports::PortSet;

/// How much a guest trusts the code that is running.
#[derive(Clone, Copy, Debug)]
pub struct Privilege {
    /// The vCPU is in its kernel.
    pub kernel_mode: bool,
    /// The virtual I/O privilege level, 0 to 3.
    pub iopl: u8,
    /// The kernel counts as privilege level 0 rather than 1.
    pub architectural_iopl: bool,
    /// Number of ports in the I/O bitmap.
    pub bitmap_ports: u32,
}

impl Privilege {
    /// True when the I/O privilege level alone allows port access, CLI and STI.
    pub const fn iopl_ok(&self) -> bool {
        let level = match (self.kernel_mode, self.architectural_iopl) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 3,
        };
        level <= self.iopl
    }

    /// True when the guest allows itself the access. `bitmap(n)` is byte `n` of the I/O bitmap in the guest's kernel
    /// address space, if it can be read; each byte is asked for once.
    pub fn allows(&self, port: u16, width: Width, mut bitmap: impl FnMut(u32) -> Option<u8>) -> bool {
        if self.iopl_ok() {
            return true;
        }
        let (port, bytes) = (u32::from(port), width.bytes());
        if port + bytes > self.bitmap_ports {
            return false;
        }
        let wanted = ((1u32 << bytes) - 1) << (port % 8);
        let mut denied = |n: u32| u32::from(bitmap(port / 8 + n).unwrap_or(0xff));
        wanted & denied(0) == 0 && (wanted >> 8 == 0 || (wanted >> 8) & denied(1) == 0)
    }
}

/// What a piece of an access reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The port itself.
    Port,
    /// Channel 2 and control of the interval timer, the speaker's gate: emulated.
    Timer,
    /// The real-time clock and its memory: shared with the hypervisor.
    Clock,
    /// The domain's own configuration-address register.
    ConfigAddress,
    /// PCI configuration space, at the address in that register.
    ConfigData,
    /// Nothing: all ones, or no effect.
    Nothing,
}

/// A part of an access that goes to one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its first port.
    pub port: u16,
    /// Where its bytes lie in the value, in bits.
    pub shift: u32,
    /// How wide it is.
    pub width: Width,
    /// Where it goes.
    pub target: Target,
}

impl Piece {
    /// Returns the piece's part of a value that is written.
    pub const fn part(&self, value: u32) -> u32 {
        value >> self.shift & self.width.mask() as u32
    }

    /// Puts what the piece read into the value.
    #[must_use]
    pub const fn put(&self, value: u32, part: u32) -> u32 {
        let mask = self.width.mask() as u32;
        value & !(mask << self.shift) | (part & mask) << self.shift
    }
}

/// Splits an access of at most four bytes.
pub fn pieces(port: u16, width: Width, permitted: &PortSet) -> Pieces<'_> {
    Pieces { next: u32::from(port), end: u32::from(port) + width.bytes().min(4), shift: 0, permitted, whole: true }
}

/// The pieces of an access, in ascending order.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    next: u32,
    end: u32,
    shift: u32,
    permitted: &'a PortSet,
    /// Nothing has been split off yet.
    whole: bool,
}

const TIMER: [u32; 3] = [0x42, 0x43, 0x61];
const CLOCK: [u32; 2] = [0x70, 0x71];
const CONFIG_ADDRESS: u32 = 0xcf8;
const CONFIG_DATA: u32 = 0xcfc;

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let left = self.end.checked_sub(self.next).filter(|&left| left > 0)?;
        let (width, target) = self.classify(left);
        let piece = Piece { port: self.next as u16, shift: self.shift, width, target };
        self.whole = false;
        self.next += width.bytes();
        self.shift += width.bits();
        Some(piece)
    }
}

impl Pieces<'_> {
    fn classify(&self, left: u32) -> (Width, Target) {
        let port = self.next;
        let whole = match left {
            4 => Width::Dword,
            2 | 3 => Width::Word,
            _ => Width::Byte,
        };
        if self.whole && self.direct(left) {
            return (whole, Target::Port);
        }
        if TIMER.contains(&port) {
            (Width::Byte, Target::Timer)
        } else if CLOCK.contains(&port) {
            (Width::Byte, Target::Clock)
        } else if port == CONFIG_ADDRESS && left == 4 {
            (Width::Dword, Target::ConfigAddress)
        } else if port & !3 == CONFIG_DATA {
            (config_width(port, left), Target::ConfigData)
        } else if !self.permitted.contains(port, port) {
            (Width::Byte, Target::Nothing)
        } else if left > 1 && port & 1 == 0 && self.permitted.contains(port, port + 1) {
            (Width::Word, Target::Port)
        } else {
            (Width::Byte, Target::Port)
        }
    }

    /// True when the whole access goes to the ports as it is.
    fn direct(&self, bytes: u32) -> bool {
        let (first, last) = (self.next, self.next + bytes - 1);
        let address = first == CONFIG_ADDRESS && bytes == 4;
        let clock = first <= CLOCK[1] && last >= CLOCK[0];
        !address && !clock && self.permitted.contains(first, last)
    }
}

fn config_width(port: u32, left: u32) -> Width {
    match left.min(4 - (port & 3)) {
        4 => Width::Dword,
        2 | 3 => Width::Word,
        _ => Width::Byte,
    }
}

/// The configuration-address register at port 0xcf8, one per domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigLatch(pub u32);

/// A place in PCI configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigPlace {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
    /// Offset in the function's space.
    pub offset: u8,
}

impl ConfigLatch {
    /// Where an access to port 0xcfc to 0xcff goes; `None` while the register does not enable it.
    pub const fn place(self, port: u16) -> Option<ConfigPlace> {
        if self.0 >> 31 == 0 {
            return None;
        }
        Some(ConfigPlace {
            bus: (self.0 >> 16) as u8,
            device: (self.0 >> 11) as u8 & 31,
            function: (self.0 >> 8) as u8 & 7,
            offset: self.0 as u8 & !3 | port as u8 & 3,
        })
    }
}
