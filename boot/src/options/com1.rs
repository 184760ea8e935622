// SPDX-License-Identifier: MIT OR Apache-2.0
//! `com1=`: how the first serial port is driven.

use super::parse::{Refusal, number, whole_number};

/// What may be written.
pub(super) const ACCEPTED: &str = "BAUD[/BASE BAUD][,DPS[,IO-BASE[,IRQ]]] with BAUD auto or 1200 to 115200, D 5 to 8, P one of \
     n, o, e, m, s, S 1 or 2 (like com1=115200,8n1,0x3f8,4), then NAME=VALUE of baud, clock-hz, data-bits, parity, \
     stop-bits, io-base, irq";

/// The speed of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baud {
    /// As firmware or the loader has set it.
    Auto,
    /// In bits a second.
    Rate(u32),
}

/// The parity bit; the discriminant is what the line control register takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// No parity bit.
    None = 0,
    /// Odd.
    Odd = 1,
    /// Even.
    Even = 3,
    /// Always one.
    Mark = 5,
    /// Always zero.
    Space = 7,
}

/// The first serial port's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Com1 {
    /// Speed.
    pub baud: Baud,
    /// Input clock of the UART in Hz: sixteen times the base baud rate.
    pub clock_hz: u32,
    /// 5 to 8.
    pub data_bits: u8,
    /// Parity.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
    /// First I/O port.
    pub io_base: u16,
    /// Interrupt line; 0 is polled.
    pub irq: u8,
}

impl Default for Com1 {
    fn default() -> Self {
        Self {
            baud: Baud::Auto,
            clock_hz: 1_843_200,
            data_bits: 8,
            parity: Parity::None,
            stop_bits: 1,
            io_base: 0x3f8,
            irq: 4,
        }
    }
}

impl Com1 {
    /// What the divisor latch takes; `None` leaves it as it is.
    #[must_use]
    pub fn divisor(&self) -> Option<u16> {
        match self.baud {
            Baud::Auto => None,
            Baud::Rate(baud) => {
                let divisor = self.clock_hz.checked_div(baud.saturating_mul(16))?;
                Some(u16::try_from(divisor).unwrap_or(u16::MAX).max(1))
            }
        }
    }

    /// What the line control register takes.
    #[must_use]
    pub fn line_control(&self) -> u8 {
        (self.data_bits - 5) | (self.stop_bits - 1) << 2 | (self.parity as u8) << 3
    }
}

fn below<T: TryFrom<u64>>(value: u64) -> Result<T, Refusal> {
    T::try_from(value).map_err(|_| Refusal::Malformed)
}

fn baud(text: &str) -> Result<Baud, Refusal> {
    if text == "auto" {
        return Ok(Baud::Auto);
    }
    match whole_number(text)? {
        rate @ 1200..=115_200 => Ok(Baud::Rate(below(rate)?)),
        _ => Err(Refusal::Malformed),
    }
}

fn clock_hz(base_baud: &str) -> Result<u32, Refusal> {
    match below(whole_number(base_baud)?.saturating_mul(16))? {
        0 => Err(Refusal::Malformed),
        hz => Ok(hz),
    }
}

fn in_range(value: u64, low: u8, high: u8) -> Result<u8, Refusal> {
    let value = below(value)?;
    if (low..=high).contains(&value) { Ok(value) } else { Err(Refusal::Malformed) }
}

fn parity(text: &str) -> Result<Parity, Refusal> {
    Ok(match text {
        "n" => Parity::None,
        "o" => Parity::Odd,
        "e" => Parity::Even,
        "m" => Parity::Mark,
        "s" => Parity::Space,
        _ => return Err(Refusal::Malformed),
    })
}

fn positional(com1: &mut Com1, index: usize, part: &str) -> Result<(), Refusal> {
    match (index, part) {
        (_, "") => {}
        (0, _) => {
            let (rate, base) = part.split_once('/').unwrap_or((part, ""));
            if !rate.is_empty() {
                com1.baud = baud(rate)?;
            }
            if !base.is_empty() {
                com1.clock_hz = clock_hz(base)?;
            }
        }
        (1, _) => {
            let (data, rest) = number(part)?;
            let (sign, stop) = rest.split_at_checked(1).ok_or(Refusal::Malformed)?;
            com1.data_bits = in_range(data, 5, 8)?;
            com1.parity = parity(sign)?;
            com1.stop_bits = in_range(whole_number(stop)?, 1, 2)?;
        }
        (2, "pci" | "amt") | (3, "msi") | (4 | 5, _) => return Err(Refusal::NotImplemented),
        (2, _) => com1.io_base = below(whole_number(part)?)?,
        (3, _) => com1.irq = in_range(whole_number(part)?, 0, 15)?,
        _ => return Err(Refusal::Malformed),
    }
    Ok(())
}

fn named(com1: &mut Com1, name: &str, value: &str) -> Result<(), Refusal> {
    match name {
        "baud" => com1.baud = baud(value)?,
        "clock-hz" => com1.clock_hz = clock_hz(value)?,
        "data-bits" => com1.data_bits = in_range(whole_number(value)?, 5, 8)?,
        "parity" => com1.parity = parity(value)?,
        "stop-bits" => com1.stop_bits = in_range(whole_number(value)?, 1, 2)?,
        "io-base" => com1.io_base = below(whole_number(value)?)?,
        "irq" => com1.irq = in_range(whole_number(value)?, 0, 15)?,
        "bridge" | "dev" | "port" | "reg-shift" | "reg-width" => {
            return Err(Refusal::NotImplemented);
        }
        _ => return Err(Refusal::Malformed),
    }
    Ok(())
}

/// Reads a value: positional parts first, then named ones.
pub(super) fn parse(value: &str) -> Result<Com1, Refusal> {
    let mut com1 = Com1::default();
    let mut names = false;
    if value.is_empty() {
        return Err(Refusal::Malformed);
    }
    for (index, part) in value.split(',').enumerate() {
        match part.split_once('=') {
            Some((name, value)) => {
                names = true;
                named(&mut com1, name, value)?;
            }
            None if names => return Err(Refusal::Malformed),
            None => positional(&mut com1, index, part)?,
        }
    }
    Ok(com1)
}
