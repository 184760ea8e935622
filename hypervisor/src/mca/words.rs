// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machine checks in words (SDM volume 3, section 16.9: error codes).

use core::fmt;

use hypercalls::DomId;
use hypercalls::mca::{MC_FLAG_MCE, McBank};

use super::banks::{CONTEXT_CORRUPT, HAS_ADDRESS, HAS_MISC, OVERFLOW, UNCORRECTED};
use super::telemetry::Record;

/// Writes a record to the log.
pub(super) fn tell(record: &Record) {
    let global = record.global();
    let how = if global.flags & MC_FLAG_MCE != 0 { "an exception" } else { "a look at its banks" };
    log::warn!(
        "machine check: {how} on the CPU with APIC {:#x} tells of {} errors; MCG_STATUS {:#x}",
        global.apicid,
        record.banks().count(),
        global.gstatus
    );
    record.banks().for_each(|error| log::warn!("  {}", of(&error)));
}

/// Returns what displays an error.
pub(super) const fn of(error: &McBank) -> Error<'_> {
    Error(error)
}

/// An error, to be displayed.
pub(super) struct Error<'a>(&'a McBank);

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &McBank { bank, status, addr, misc, domid, .. } = self.0;
        let corrected = if status & UNCORRECTED == 0 { "corrected" } else { "uncorrected" };
        write!(f, "bank {bank}: {corrected} error, {}", Code(status as u16))?;
        if status & HAS_ADDRESS != 0 {
            write!(f, ", at {addr:#x}")?;
        }
        if domid != DomId::INVALID {
            write!(f, " of domain {}", domid.0)?;
        }
        if status & CONTEXT_CORRUPT != 0 {
            f.write_str(", the CPU's state is lost")?;
        }
        if status & OVERFLOW != 0 {
            f.write_str(", and others that were not kept")?;
        }
        write!(f, " (status {status:016x}")?;
        if status & HAS_MISC != 0 {
            write!(f, " misc {misc:016x}")?;
        }
        f.write_str(")")
    }
}

/// The part of a status that all CPUs mean alike.
struct Code(u16);

impl Code {
    const fn level(&self) -> &'static str {
        ["level 0", "level 1", "level 2", "any level"][(self.0 & 3) as usize]
    }

    const fn what(&self) -> &'static str {
        ["instructions", "data", "anything", "unknown"][(self.0 >> 2 & 3) as usize]
    }

    fn access(&self) -> &'static str {
        let names = ["access", "read", "write", "data read", "data write", "fetch", "prefetch", "eviction", "snoop"];
        names.get(usize::from(self.0 >> 4 & 0xf)).unwrap_or(&"access")
    }

    const fn memory(&self) -> &'static str {
        ["access", "read", "write", "command", "scrub", "access", "access", "access"][(self.0 >> 4 & 7) as usize]
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.0;
        // Bit 12 says that further corrected ones are filtered.
        match code & 0xefff {
            0 => f.write_str("no code"),
            1 => f.write_str("unclassified"),
            2 => f.write_str("microcode ROM parity"),
            3 => f.write_str("external"),
            4 => f.write_str("redundancy check"),
            5 => f.write_str("internal parity"),
            0x0400 => f.write_str("internal timer"),
            0x0e0b => f.write_str("I/O"),
            0x000c..=0x000f => write!(f, "cache, {}", self.level()),
            0x0010..=0x001f => write!(f, "TLB of {}, {}", self.what(), self.level()),
            0x0080..=0x00ff if code & 0xf == 0xf => write!(f, "memory {}", self.memory()),
            0x0080..=0x00ff => write!(f, "memory {}, channel {}", self.memory(), code & 0xf),
            0x0100..=0x01ff => write!(f, "cache of {}, {}, {}", self.what(), self.level(), self.access()),
            0x0401..=0x07ff => f.write_str("internal"),
            0x0800..=0x0fff => write!(f, "bus, {}, {}", self.level(), self.access()),
            _ => write!(f, "code {code:#06x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn codes() {
        let code = |code| Code(code).to_string();
        assert_eq!(code(0x0136), "cache of data, level 2, data read");
        assert_eq!(code(0x009f), "memory read");
        assert_eq!(code(0x10c1), "memory scrub, channel 1");
        assert_eq!(code(0x0015), "TLB of data, level 1");
        assert_eq!(code(0x0e0b), "I/O");
        assert_eq!(code(0xffff), "code 0xffff");
        // None is without words.
        (0..=u16::MAX).for_each(|n| assert!(!code(n).is_empty()));
    }

    #[test]
    fn errors() {
        let error =
            McBank { bank: 4, domid: DomId(3), status: 0xd400_0000_0000_009f, addr: 0x1000, ..McBank::default() };
        assert_eq!(
            of(&error).to_string(),
            "bank 4: corrected error, memory read, at 0x1000 of domain 3, and others that were not kept \
             (status d40000000000009f)"
        );
    }
}
