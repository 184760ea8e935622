// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each CPU's thermal sensor: an interrupt when it becomes too hot, and one when it has cooled down (SDM volume 3, "thermal
//! monitoring").

use super::{VECTOR_THERMAL, apic};
use crate::features::cpuid;
use crate::msr;

const INTERRUPT: u32 = 0x19b;
const STATUS: u32 = 0x19c;

const WHEN_HOT: u64 = 1 << 0;
const WHEN_COOL: u64 = 1 << 1;
const IS_HOT: u64 = 1 << 0;
/// CPUID leaf 1, EDX: the registers exist; the CPU slows itself down.
const ACPI: u32 = 1 << 22;
const MONITOR: u32 = 1 << 29;

/// What became of [`admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is no sensor, or none that interrupts.
    Absent,
    /// The firmware handles its interrupts.
    Firmware,
    /// Its interrupts come, with [`VECTOR_THERMAL`].
    Ours,
}

/// Lets the sensor of this CPU interrupt it, unless the firmware has taken its interrupts for itself. After [`apic::init_cpu`].
pub fn admit() -> Admission {
    let [_, _, _, d] = cpuid(1, 0);
    if d & (ACPI | MONITOR) != ACPI | MONITOR {
        return Admission::Absent;
    }
    match apic::admit_thermal(VECTOR_THERMAL) {
        None => Admission::Absent,
        Some(false) => Admission::Firmware,
        Some(true) => {
            msr::write(INTERRUPT, msr::read(INTERRUPT) | WHEN_HOT | WHEN_COOL);
            Admission::Ours
        }
    }
}

/// True while this CPU is too hot; only after [`admit`] let its interrupts come.
pub fn is_hot() -> bool {
    msr::read(STATUS) & IS_HOT != 0
}
