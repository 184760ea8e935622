// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading the banks of the CPU that runs, and judging what they say (SDM volume 3, chapter 16; AMD's manual volume 2, chapter 9).

use core::fmt;
use core::ops::Range;

use arch::machine_check as registers;
use arch::{CpuId, cpu};
use hypercalls::mca::*;
use hypercalls::{DomId, Mfn};
use mm::frame;

use super::interposed::{forget, read, write};
use super::telemetry::{self, Record};
use crate::cpus::Model;
use crate::{current, host};

/// Bits of a bank's status.
pub(super) const VALID: u64 = 1 << 63;
pub(super) const OVERFLOW: u64 = 1 << 62;
pub(super) const UNCORRECTED: u64 = 1 << 61;
pub(super) const HAS_MISC: u64 = 1 << 59;
pub(super) const HAS_ADDRESS: u64 = 1 << 58;
pub(super) const CONTEXT_CORRUPT: u64 = 1 << 57;
const SIGNALLED: u64 = 1 << 56;
const ACTION: u64 = 1 << 55;

/// Bits of the status of an exception.
const RESTART_VALID: u64 = 1;
const ADDRESS_VALID: u64 = 1 << 1;
const LOCAL: u64 = 1 << 3;

/// What makes a CPU look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It starts: errors are of the time before.
    Boot,
    /// It has time.
    Polled,
    /// It was told to.
    Exception,
}

/// How bad an error is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Nothing is lost.
    #[default]
    Corrected,
    /// Something is lost, and nobody has used it.
    Unused,
    /// What the CPU was about to do needs what is lost.
    ActionRequired,
    /// The CPU does not know what it was doing.
    Fatal,
}

/// How this CPU reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    vendor: [u8; 12],
    /// It tells errors apart by what must be done about them.
    recovers: bool,
    /// Exceptions reach all CPUs.
    pub(super) is_broadcast: bool,
    first_bank: u32,
}

impl Rules {
    /// Those of a model with these capabilities.
    pub(super) fn new(model: &Model, capabilities: u64) -> Self {
        const SOFTWARE_RECOVERY: u64 = 1 << 24;
        let intel = model.vendor == *b"GenuineIntel";
        let p6 = intel && model.family == 6;
        Self {
            vendor: model.vendor,
            recovers: if intel { capabilities & SOFTWARE_RECOVERY != 0 } else { model.family >= 0x10 },
            is_broadcast: intel && (model.family > 6 || p6 && model.model >= 0xe),
            // Bank 0 of old ones is not the system's to touch.
            first_bank: u32::from(p6 && model.model < 0x1a),
        }
    }

    /// Those of the CPU that runs.
    pub(super) fn here() -> Self {
        Self::new(&Model::here(), super::capabilities(cpu::this_cpu()))
    }

    /// Says how bad an error is.
    pub(super) fn judge(&self, status: u64) -> Severity {
        if status & CONTEXT_CORRUPT != 0 {
            return Severity::Fatal;
        }
        if status & UNCORRECTED == 0 {
            return Severity::Corrected;
        }
        if !self.recovers {
            return Severity::Fatal;
        }
        if self.vendor != *b"GenuineIntel" {
            // An error of memory or caches; those of buses and of translations are not survived.
            let of_memory = status & 0x900 == 0x100;
            return if of_memory { Severity::ActionRequired } else { Severity::Fatal };
        }
        match (status & SIGNALLED != 0, status & ACTION != 0) {
            (true, true) if status & OVERFLOW != 0 => Severity::Fatal,
            (true, true) => Severity::ActionRequired,
            _ => Severity::Unused,
        }
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = if self.is_broadcast { "all CPUs" } else { "the CPU that is concerned" };
        let recovers = if self.recovers { "some errors may be survived" } else { "no recovery" };
        write!(f, "exceptions reach {to}, {recovers}")
    }
}

/// What a look at the banks has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// How many errors.
    pub(super) count: u32,
    /// The worst.
    pub(super) worst: Severity,
    /// The status of the exception.
    pub(super) status: u64,
}

impl Found {
    /// True when what was interrupted can go on.
    pub(super) const fn can_resume(&self) -> bool {
        self.status & RESTART_VALID != 0
    }

    /// True when no other CPU was told.
    pub(super) const fn is_local(&self) -> bool {
        self.status & LOCAL != 0
    }

    /// True when nothing can go on after that.
    pub(super) fn ends_the_machine(&self, in_guest: bool) -> bool {
        let belongs_to_guest = in_guest && self.status & (RESTART_VALID | ADDRESS_VALID) != 0;
        self.count > 0
            && match self.worst {
                Severity::Fatal => true,
                Severity::ActionRequired => !belongs_to_guest,
                _ => !self.can_resume() && !belongs_to_guest,
            }
    }
}

/// Returns the numbers of the banks of a CPU, which is one like this.
pub(super) fn numbers(cpu: CpuId) -> Range<u32> {
    Rules::here().first_bank..super::bank_count(cpu)
}

/// Reads the error of a bank, if it has one.
fn error_of(bank: u32) -> Option<McBank> {
    let status = read(registers::status(bank));
    let also = |bit, register| if status & bit != 0 { read(register) } else { 0 };
    (status & VALID != 0).then(|| McBank {
        bank: bank as u16,
        domid: DomId::INVALID,
        status,
        addr: also(HAS_ADDRESS, registers::address(bank)),
        misc: also(HAS_MISC, registers::misc(bank)),
        ..McBank::default()
    })
}

/// Calls `f` for each error of this CPU.
pub(super) fn for_each_error(f: impl FnMut(McBank)) {
    numbers(cpu::this_cpu()).filter_map(error_of).for_each(f);
}

/// The domain that owns the memory at the address of an error, if that is an address of memory.
fn owner(error: &McBank, rules: &Rules) -> DomId {
    const MODE: u64 = 7 << 6;
    const PHYSICAL: u64 = 2 << 6;
    let both = HAS_ADDRESS | HAS_MISC;
    let intel = rules.vendor == *b"GenuineIntel";
    if error.status & both != both || intel && error.misc & MODE != PHYSICAL {
        return DomId::INVALID;
    }
    frame::get(Mfn(error.addr >> hypercalls::PAGE_SHIFT)).map_or(DomId::INVALID, |frame| frame.owner())
}

/// Reads all banks, keeps a record of what they say, and clears them unless the machine's end is near.
pub(super) fn scan_and_keep(source: Source, in_guest: bool) -> Found {
    let here = cpu::this_cpu();
    let rules = Rules::here();
    let mut found = Found { status: read(registers::STATUS), ..Found::default() };
    let mut record = None;
    for mut error in numbers(here).filter_map(error_of) {
        found.count += 1;
        found.worst = found.worst.max(rules.judge(error.status));
        if source != Source::Exception {
            error.domid = owner(&error, &rules);
        }
        record.get_or_insert_with(|| Record::new(global(here, found.status))).push(error);
    }
    let Some(mut record) = record else { return found };
    record.set_flags(flags(source, found.worst));
    if source != Source::Exception || !found.ends_the_machine(in_guest) {
        numbers(here).filter(|bank| read(registers::status(*bank)) & VALID != 0).for_each(clear);
    }
    telemetry::keep(source == Source::Exception, &record);
    found
}

fn clear(bank: u32) {
    write(registers::status(bank), 0);
    [registers::address(bank), registers::misc(bank)].into_iter().for_each(forget);
}

fn flags(source: Source, worst: Severity) -> u32 {
    let source = if source == Source::Exception { MC_FLAG_MCE } else { MC_FLAG_POLLED };
    let severity = match worst {
        Severity::Corrected => MC_FLAG_CORRECTABLE,
        Severity::Unused | Severity::ActionRequired => MC_FLAG_RECOVERABLE,
        Severity::Fatal => MC_FLAG_UNCORRECTABLE,
    };
    source | severity
}

fn global(here: CpuId, status: u64) -> McGlobal {
    let apic_id = cpu::apic_id(here);
    let place = host::topology().locate(apic_id);
    let (domid, vcpuid) = current::vcpu().map_or((DomId::IDLE, here.0), |vcpu| (vcpu.domid, vcpu.id.0 as u16));
    McGlobal {
        domid,
        vcpuid,
        socketid: place.socket,
        coreid: place.core as u16,
        core_threadid: host::topology().thread(apic_id) as u16,
        apicid: apic_id,
        gstatus: status,
        ..McGlobal::default()
    }
}

#[cfg(test)]
mod tests;
