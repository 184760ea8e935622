// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console UART: usable before anything else works, and from a panic.
//!
//! Writing waits for the device, but never for ever: a port that does not drain is given up on after a
//! bounded time and tried again, without waiting, at the next write.
#![expect(unsafe_code, reason = "port I/O through the driver crate")]

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::mutex::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::{FifoTriggerLevel, IER, LSR, WordLength};
use uart_16550::{BaudRate, Config, Uart16550};

use super::port;
use crate::sync::Relax;

/// How the parity bit is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parity {
    /// No parity bit.
    #[default]
    None,
    /// An odd number of ones.
    Odd,
    /// An even number of ones.
    Even,
    /// Always one.
    Mark,
    /// Always zero.
    Space,
}

/// What the line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// First I/O port: 0x3f8 is COM1, 0x2f8 COM2.
    pub base: u16,
    /// Bits a second; None keeps what the firmware has set.
    pub baud: Option<u32>,
    /// Bits a character, 5 to 8.
    pub data_bits: u8,
    /// Parity.
    pub parity: Parity,
    /// Stop bits, 1 or 2.
    pub stop_bits: u8,
    /// The clock that the divisor divides, in Hz; 1843200 on nearly every board.
    pub clock_hz: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self { base: 0x3f8, baud: None, data_bits: 8, parity: Parity::None, stop_bits: 1, clock_hz: 1_843_200 }
    }
}

/// Why there is no console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialError {
    /// The I/O ports do not fit.
    BadPort(u16),
    /// The UART's clock cannot be divided to this rate.
    BadBaud(u32),
    /// Data or stop bits that a UART does not have.
    BadFormat,
    /// No UART answers at this port.
    Absent(u16),
}

impl fmt::Display for SerialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadPort(base) => write!(f, "serial: no UART can be at port {base:#x}"),
            Self::BadBaud(baud) => write!(f, "serial: {baud} baud cannot be had, 115200 divided by a whole number can"),
            Self::BadFormat => f.write_str("serial: 5 to 8 data bits and 1 or 2 stop bits are possible"),
            Self::Absent(base) => write!(f, "serial: no UART answers at port {base:#x}"),
        }
    }
}

type Uart = Uart16550<PioBackend>;

static UART: Mutex<Option<Uart>, Relax> = Mutex::new(None);
/// The device has not drained in time; do not wait for it until it does.
static STUCK: AtomicBool = AtomicBool::new(false);

/// Polls before a device that takes nothing counts as stuck. A poll costs about a microsecond, and
/// sixteen characters at 9600 baud take seventeen milliseconds.
const PATIENCE: u32 = 400_000;
/// What a UART's FIFO takes at a time.
const FIFO: usize = 16;

/// Finds the rate that the firmware has left in the divisor.
fn firmware_baud(params: &Params) -> Option<u32> {
    // SAFETY: the port is said to be a UART's; the divisor latch is closed again.
    let divisor = unsafe {
        let line = port::read8(params.base + 3);
        port::write8(params.base + 3, line | 0x80);
        let divisor = u32::from(port::read8(params.base)) | u32::from(port::read8(params.base + 1)) << 8;
        port::write8(params.base + 3, line & 0x7f);
        divisor
    };
    rate_of(params.clock_hz, divisor)
}

/// Returns the rate that a divisor makes, when it is one that can be set again.
fn rate_of(clock_hz: u32, divisor: u32) -> Option<u32> {
    let rate = (clock_hz / 16).checked_div(divisor)?;
    (rate != 0 && rate * divisor * 16 == clock_hz).then_some(rate)
}

/// Translates the parameters into the driver's.
fn config(params: &Params, baud: u32) -> Result<Config, SerialError> {
    if baud == 0 || !(clock_fits(params.clock_hz, baud)) {
        return Err(SerialError::BadBaud(baud));
    }
    let data_bits = match params.data_bits {
        5 => WordLength::FiveBits,
        6 => WordLength::SixBits,
        7 => WordLength::SevenBits,
        8 => WordLength::EightBits,
        _ => return Err(SerialError::BadFormat),
    };
    if !(1..=2).contains(&params.stop_bits) {
        return Err(SerialError::BadFormat);
    }
    use uart_16550::spec::registers::Parity as P;
    Ok(Config {
        interrupts: IER::empty(),
        frequency: params.clock_hz,
        prescaler_division_factor: None,
        // A single typed character must be seen at once.
        fifo_trigger_level: Some(FifoTriggerLevel::One),
        baud_rate: BaudRate::from_integer(baud),
        data_bits,
        extra_stop_bits: params.stop_bits == 2,
        parity: match params.parity {
            Parity::None => P::Disabled,
            Parity::Odd => P::Odd,
            Parity::Even => P::Even,
            Parity::Mark => P::Forced1,
            Parity::Space => P::Forced0,
        },
        check_cts_before_sending: false,
    })
}

/// True when the clock divides evenly to the rate, by a divisor of 16 bits.
fn clock_fits(clock_hz: u32, baud: u32) -> bool {
    let divisor = clock_hz / 16 / baud;
    clock_hz == divisor.wrapping_mul(baud).wrapping_mul(16) && (1..=0xffff).contains(&divisor)
}

/// Sets the UART up; from then on [`write`] and [`read`] use it.
///
/// # Safety
/// The eight ports from `params.base` must be a UART's or nobody's.
pub unsafe fn init(params: &Params) -> Result<(), SerialError> {
    if params.base == 0 || params.base.checked_add(7).is_none() {
        return Err(SerialError::BadPort(params.base));
    }
    // SAFETY: the caller's promise.
    let mut uart = unsafe { Uart::new_port(params.base) }.map_err(|_| SerialError::BadPort(params.base))?;
    if !uart.check_present() {
        return Err(SerialError::Absent(params.base));
    }
    let baud = params.baud.or_else(|| firmware_baud(params)).unwrap_or(115_200);
    uart.init(config(params, baud)?).map_err(|_| SerialError::Absent(params.base))?;
    STUCK.store(false, Ordering::Relaxed);
    *UART.lock() = Some(uart);
    Ok(())
}

/// Leaves the UART alone: nothing is written to it or read from it any more.
pub fn close() {
    *UART.lock() = None;
}

/// Sends all bytes, or gives up.
fn send(uart: &mut Uart, mut bytes: &[u8]) {
    let mut polls = 0;
    while !bytes.is_empty() {
        let sent = uart.send_bytes(bytes);
        bytes = bytes.get(sent..).unwrap_or(&[]);
        if sent != 0 {
            polls = 0;
            STUCK.store(false, Ordering::Relaxed);
        } else if polls == PATIENCE || STUCK.load(Ordering::Relaxed) {
            STUCK.store(true, Ordering::Relaxed);
            return;
        } else {
            polls += 1;
            core::hint::spin_loop();
        }
    }
}

/// Splits text into chunks for the FIFO, with a carriage return before each line feed.
fn for_each_chunk(text: &[u8], mut out: impl FnMut(&[u8])) {
    let mut chunk = [0; FIFO];
    let mut used = 0;
    for &byte in text {
        if used + 2 > FIFO {
            out(&chunk[..used]);
            used = 0;
        }
        if byte == b'\n' {
            chunk[used] = b'\r';
            used += 1;
        }
        chunk[used] = byte;
        used += 1;
    }
    out(&chunk[..used]);
}

/// Writes text, `\n` as `\r\n`; without a console it is dropped.
pub fn write(text: &[u8]) {
    if let Some(uart) = UART.lock().as_mut() {
        for_each_chunk(text, |chunk| send(uart, chunk));
    }
}

/// Writes bytes as they are: for a guest that makes its own line ends.
pub fn write_raw(bytes: &[u8]) {
    if let Some(uart) = UART.lock().as_mut() {
        send(uart, bytes);
    }
}

/// Waits until the device has sent all that it took, for a bounded time: the machine is about to stop.
pub fn flush() {
    if let Some(uart) = UART.lock().as_mut() {
        for _ in 0..PATIENCE {
            if uart.lsr().contains(LSR::TRANSMITTER_EMPTY) {
                return;
            }
            core::hint::spin_loop();
        }
    }
}

/// Takes the console away from whoever has it.
///
/// # Safety
/// Only on the way down, when the other CPUs are stopped: their output may be cut in the middle.
pub unsafe fn seize() {
    for _ in 0..PATIENCE {
        if !UART.is_locked() {
            return;
        }
        core::hint::spin_loop();
    }
    // SAFETY: the holder does not run any more, or is this CPU itself below the panic.
    unsafe { UART.force_unlock() }
}

/// Takes what has been received; never waits. Returns how many bytes there were.
pub fn read(buffer: &mut [u8]) -> usize {
    UART.lock().as_mut().map_or(0, |uart| uart.receive_bytes(buffer))
}

/// True when a byte can be read.
pub fn poll() -> bool {
    UART.lock().as_mut().is_some_and(|uart| uart.ready_to_receive().is_ok())
}

/// Turns the interrupt for received bytes on or off.
pub fn receive_interrupt(on: bool) {
    if let Some(uart) = UART.lock().as_mut() {
        if on {
            uart.enable_interrupts(IER::DATA_READY);
        } else {
            uart.disable_interrupts(IER::DATA_READY);
        }
    }
}

/// Returns the legacy interrupt line of a UART at one of the four usual ports.
pub fn legacy_irq(base: u16) -> Option<u8> {
    match base {
        0x3f8 | 0x3e8 => Some(4),
        0x2f8 | 0x2e8 => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends() {
        let mut out = Vec::new();
        let mut longest = 0;
        for_each_chunk(b"ab\n\n0123456789abcdef\nx", |chunk| {
            longest = longest.max(chunk.len());
            out.extend_from_slice(chunk);
        });
        assert_eq!(out, b"ab\r\n\r\n0123456789abcdef\r\nx");
        assert!(longest <= FIFO);
    }

    #[test]
    fn rates() {
        assert_eq!(rate_of(1_843_200, 1), Some(115_200));
        assert_eq!(rate_of(1_843_200, 12), Some(9600));
        assert_eq!(rate_of(1_843_200, 0), None);
        assert_eq!(rate_of(1_843_200, 0xffff), None);
        let params = Params::default();
        assert!(config(&params, 115_200).is_ok());
        assert_eq!(config(&params, 0), Err(SerialError::BadBaud(0)));
        assert_eq!(config(&params, 115_201), Err(SerialError::BadBaud(115_201)));
        assert_eq!(config(&params, 1), Err(SerialError::BadBaud(1)));
        assert_eq!(config(&Params { data_bits: 9, ..params }, 9600), Err(SerialError::BadFormat));
        assert_eq!(config(&Params { stop_bits: 3, ..params }, 9600), Err(SerialError::BadFormat));
    }
}
