// SPDX-License-Identifier: MIT OR Apache-2.0
//! The wall clock in the CMOS, read once at boot. It is taken to run in UTC.
#![expect(unsafe_code, reason = "port I/O")]

use super::port;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const UPDATING: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const PM: u8 = 1 << 7;

/// The clock's registers at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Raw {
    second: u8,
    minute: u8,
    hour: u8,
    day: u8,
    month: u8,
    year: u8,
    /// None when the machine has no register for it.
    century: Option<u8>,
    status_b: u8,
}

impl Raw {
    /// Returns the seconds since the start of 1970; None when the registers hold no time.
    fn seconds(&self) -> Option<u64> {
        let number = |value: u8| {
            if self.status_b & BINARY != 0 {
                Some(u64::from(value))
            } else {
                let (tens, ones) = (u64::from(value >> 4), u64::from(value & 15));
                (tens < 10 && ones < 10).then_some(tens * 10 + ones)
            }
        };
        let hour = if self.status_b & HOURS_24 != 0 {
            number(self.hour)?
        } else {
            let twelve = number(self.hour & !PM).filter(|h| (1..=12).contains(h))?;
            twelve % 12 + if self.hour & PM != 0 { 12 } else { 0 }
        };
        let (second, minute) = (number(self.second)?, number(self.minute)?);
        let (day, month, short) = (number(self.day)?, number(self.month)?, number(self.year)?);
        let guess = if short < 70 { 20 } else { 19 };
        let century = self.century.and_then(number).filter(|c| (19..=29).contains(c)).unwrap_or(guess);
        let year = century * 100 + short;
        // A leap second may show.
        let sane = second <= 60 && minute < 60 && hour < 24 && short < 100 && year >= 1970;
        let days = days_since_1970(year, month, day).filter(|_| sane)?;
        Some(days * 86_400 + hour * 3600 + minute * 60 + second)
    }
}

/// Returns the days from the start of 1970 to a date; None when there is no such date.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let index = usize::try_from(month).ok()?.checked_sub(1)?;
    if !(1..=*lengths.get(index)?).contains(&day) {
        return None;
    }
    let before = year.checked_sub(1)?;
    let leaps = |y: u64| y / 4 - y / 100 + y / 400;
    let years = year.checked_sub(1970)? * 365 + leaps(before) - leaps(1969);
    Some(years + lengths.iter().take(index).sum::<u64>() + day - 1)
}

fn cmos(register: u8) -> u8 {
    // SAFETY: the CMOS index and data ports; reading the clock's registers changes nothing. The top bit
    // of the index would hold NMIs back, and is clear.
    unsafe {
        port::write8(INDEX, register & 0x7f);
        port::read8(DATA)
    }
}

/// Waits until no update is under way, for some tens of milliseconds at most.
fn settled() -> bool {
    (0..50_000).any(|_| cmos(STATUS_A) & UPDATING == 0)
}

fn read_raw(century: u8) -> Raw {
    Raw {
        second: cmos(0),
        minute: cmos(2),
        hour: cmos(4),
        day: cmos(7),
        month: cmos(8),
        year: cmos(9),
        century: (1..0x80).contains(&century).then(|| cmos(century)),
        status_b: cmos(STATUS_B),
    }
}

/// Reads the wall clock: seconds since the start of 1970. None when there is no clock that runs.
/// `century` is the register that the firmware's tables name, 0 for none.
pub fn read(century: u8) -> Option<u64> {
    for _ in 0..8 {
        if !settled() {
            return None;
        }
        // Twice the same, so that no update came in between.
        let first = read_raw(century);
        if settled() && read_raw(century) == first {
            return first.seconds();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(h: u8, m: u8, s: u8, (y, mo, d): (u8, u8, u8), century: Option<u8>, status_b: u8) -> Option<u64> {
        Raw { second: s, minute: m, hour: h, day: d, month: mo, year: y, century, status_b }.seconds()
    }

    #[test]
    fn forms() {
        // 2024-02-29 23:59:58 UTC.
        let expect = Some(1_709_251_198);
        assert_eq!(raw(0x23, 0x59, 0x58, (0x24, 0x02, 0x29), Some(0x20), HOURS_24), expect);
        assert_eq!(raw(23, 59, 58, (24, 2, 29), Some(20), HOURS_24 | BINARY), expect);
        assert_eq!(raw(0x11 | PM, 0x59, 0x58, (0x24, 0x02, 0x29), None, 0), expect);
        assert_eq!(raw(11 | PM, 59, 58, (24, 2, 29), None, BINARY), expect);
        // Noon and midnight on a clock of twelve hours.
        let noon = 1_709_251_200 - 43_200;
        assert_eq!(raw(0x12 | PM, 0, 0, (0x24, 0x02, 0x29), None, 0), Some(noon));
        assert_eq!(raw(0x12, 0, 0, (0x24, 0x03, 0x01), None, 0), Some(1_709_251_200));
        // Without a century, and with a century register that holds something else.
        assert_eq!(raw(0, 0, 0, (0x70, 1, 1), None, HOURS_24), Some(0));
        assert_eq!(raw(0, 0, 0, (0x70, 1, 1), Some(0xff), HOURS_24), Some(0));
        assert_eq!(raw(0, 0, 0, (0, 1, 1), Some(0x21), HOURS_24), Some(4_102_444_800));
    }

    #[test]
    fn nonsense() {
        assert_eq!(raw(0xff, 0xff, 0xff, (0xff, 0xff, 0xff), Some(0xff), 0xff), None);
        assert_eq!(raw(0, 0, 0, (0x23, 0x02, 0x29), None, HOURS_24), None);
        assert_eq!(raw(0, 0, 0, (0x23, 0x13, 0x01), None, HOURS_24), None);
        assert_eq!(raw(0, 0, 0, (0x23, 0x00, 0x01), None, HOURS_24), None);
        assert_eq!(raw(0x1a, 0, 0, (0x23, 0x01, 0x01), None, HOURS_24), None);
        assert_eq!(raw(0, 0, 0, (0x23, 0x01, 0x01), None, 0), None);
        assert_eq!(raw(0, 0, 0, (0x69, 0x01, 0x01), Some(0x19), HOURS_24), None);
    }

    #[test]
    fn every_day_follows_the_last() {
        let mut expect = 0;
        for year in 1970..2200 {
            for month in 1..=12 {
                for day in 1..=31 {
                    if let Some(days) = days_since_1970(year, month, day) {
                        assert_eq!(days, expect, "{year}-{month}-{day}");
                        expect += 1;
                    }
                }
            }
        }
    }
}
