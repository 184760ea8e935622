// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a domain sees the time-stamp counter: the machine's, or one of its own that goes on from zero at the rate that its tools
//! want. Reading that one traps: CR4.TSD is set while the domain's vCPUs run.
//!
//! What must hold: a counter of a domain's own never reads less than it has before, on any of its vCPUs, and what the domain is
//! told to make time of (`vcpu_time_info`) belongs to the counter that it reads. The settings change only while the domain is
//! stopped.
//!
//! Modes and the record that tools keep: `settscinfo` and `gettscinfo` (runtime rules 9). By default a domain gets the machine's
//! counter, by which all time here is made, unless it is to have another rate.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicI8, AtomicU32, AtomicU64};

use arch::time::TscScale;
use hypercalls::domctl_args::TscInfo as Record;
use hypercalls::{Errno, Result};

use crate::emulate::cpuid::TscInfo;
use crate::emulate::crdr::CR4_TSD;

/// The machine's counter if it does, else an own one.
const DEFAULT: u32 = 0;
/// An own one.
const EMULATED: u32 = 1;
/// The machine's, as it is.
const NATIVE: u32 = 2;

/// A domain's view of the counter.
#[derive(Debug)]
pub struct Tsc {
    emulated: AtomicBool,
    mode: AtomicU32,
    khz: AtomicU32,
    incarnation: AtomicU32,
    /// System time at which the domain's own counter was 0; wraps.
    zero: AtomicU64,
    /// Ticks of the domain's own in a nanosecond, in units of 2^-32.
    per_ns: AtomicU64,
    /// From these to nanoseconds; see [`Tsc::scale`].
    mul: AtomicU32,
    shift: AtomicI8,
    /// System time of the last reading: the next one is of a later moment.
    last: AtomicU64,
}

impl Tsc {
    /// The machine's.
    pub fn native() -> Self {
        Self {
            emulated: AtomicBool::new(false),
            mode: AtomicU32::new(DEFAULT),
            khz: AtomicU32::new(0),
            incarnation: AtomicU32::new(0),
            zero: AtomicU64::new(0),
            per_ns: AtomicU64::new(0),
            mul: AtomicU32::new(0),
            shift: AtomicI8::new(0),
            last: AtomicU64::new(0),
        }
    }

    /// Changes it as a record says. The domain does not run.
    ///
    /// # Errors
    /// `EINVAL` for a mode that there is not; nothing is changed then.
    pub fn set(&self, record: &Record) -> Result<()> {
        let machine = arch::time::scale().khz;
        let khz = if record.gtsc_khz == 0 { machine } else { record.gtsc_khz };
        let emulated = match record.tsc_mode {
            DEFAULT => khz != machine,
            EMULATED => true,
            NATIVE => false,
            _ => return Err(Errno::EINVAL),
        };
        self.emulated.store(emulated, SeqCst);
        self.mode.store(record.tsc_mode, Relaxed);
        // Saving and restoring asks for the next one each time.
        self.incarnation.store(record.incarnation.wrapping_add(1), Relaxed);
        let scale = TscScale::from_hz(u64::from(khz) * 1000);
        self.mul.store(scale.mul, Relaxed);
        self.shift.store(scale.shift, Relaxed);
        self.khz.store(khz, Relaxed);
        self.per_ns.store((u64::from(khz) << 32) / 1_000_000, Relaxed);
        self.zero.store(arch::time::now().wrapping_sub(record.elapsed_nsec), Relaxed);
        Ok(())
    }

    /// Returns the record that has the same seen elsewhere.
    pub fn record(&self) -> Record {
        let mode = self.mode.load(Relaxed);
        let incarnation = self.incarnation.load(Relaxed);
        let (gtsc_khz, elapsed_nsec) = match mode {
            NATIVE => (0, 0),
            _ if self.is_emulated() => {
                (self.khz.load(Relaxed), arch::time::now().wrapping_sub(self.zero.load(Relaxed)))
            }
            _ => (arch::time::scale().khz, arch::time::scale().ns(arch::time::tsc())),
        };
        Record { tsc_mode: mode, gtsc_khz, incarnation, elapsed_nsec, ..Record::default() }
    }

    /// True when reading the counter traps.
    #[inline]
    pub fn is_emulated(&self) -> bool {
        self.emulated.load(Relaxed)
    }

    /// Returns the CR4 to load for a vCPU that has chosen `wanted`.
    #[inline]
    pub fn cr4(&self, wanted: u64) -> u64 {
        if self.is_emulated() { wanted | CR4_TSD } else { wanted }
    }

    /// Reads the counter, for a vCPU whose reading trapped.
    pub fn read(&self) -> u64 {
        if !self.is_emulated() {
            return arch::time::tsc();
        }
        let now = arch::time::now();
        let later = |last: u64| now.max(last.wrapping_add(1));
        let last = self.last.fetch_update(SeqCst, SeqCst, |last| Some(later(last)));
        self.at(last.map_or(now, later))
    }

    /// Returns what the domain's own counter reads at a system time.
    fn at(&self, system: u64) -> u64 {
        let since = system.wrapping_sub(self.zero.load(Relaxed));
        ((u128::from(since) * u128::from(self.per_ns.load(Relaxed))) >> 32) as u64
    }

    /// Returns the scale from what the domain reads to nanoseconds.
    fn scale(&self) -> TscScale {
        if !self.is_emulated() {
            return arch::time::scale();
        }
        let (mul, shift) = (self.mul.load(Relaxed), self.shift.load(Relaxed));
        TscScale { mul, shift, khz: self.khz.load(Relaxed) }
    }

    /// Returns one moment by the counter and in system time, and the scale between the two.
    pub fn moment(&self) -> (u64, u64, TscScale) {
        let (tsc, system) = if self.is_emulated() {
            let system = arch::time::now();
            (self.at(system), system)
        } else {
            let tsc = arch::time::tsc();
            (tsc, arch::time::from_tsc(tsc))
        };
        (tsc, system, self.scale())
    }

    /// Returns what CPUID tells of it.
    pub fn told(&self) -> TscInfo {
        TscInfo {
            emulated: self.is_emulated(),
            mode: self.mode.load(Relaxed),
            incarnation: self.incarnation.load(Relaxed),
            offset: self.zero.load(Relaxed),
            host_khz: arch::time::scale().khz,
            ..TscInfo::native(&self.scale(), arch::time::tsc_is_stable())
        }
    }
}

#[cfg(test)]
mod tests;
