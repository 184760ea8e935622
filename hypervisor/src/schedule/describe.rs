// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scheduler for debug keys: what runs where, what waits, without waiting for a lock.

use super::{UNITS, Unit, scheduler, slice_end};
use crate::keys::{Text, line, part};
use arch::cpu;
use sched::{Cpu, GroupId, UnitId};

/// Writes what the scheduler knows of the unit that has the number `at`, before the first one of the CPUs. Returns the
/// next unit.
pub(crate) fn describe(at: u64, to: &mut Text) -> Option<u64> {
    use core::fmt::Write as _;
    let Some(s) = scheduler().try_lock() else {
        line!(to, "the run queues are busy");
        return None;
    };
    if at == 0 {
        for cpu in cpu::online().iter() {
            match s.current(Cpu(cpu.0)) {
                Some(unit) => part!(to, "CPU {}: unit {}", cpu.0, unit.0),
                None => part!(to, "CPU {}: idle", cpu.0),
            }
            match slice_end(cpu) {
                u64::MAX => line!(to, ", alone"),
                end => line!(to, ", for {} us yet", end.saturating_sub(arch::time::now()) / 1000),
            }
        }
    }
    let unit = u32::try_from(at).ok()?;
    let units = UNITS.try_read()?;
    if let Unit::Vcpu(domain, id) = units.get(unit as usize)? {
        let (weight, cap) = s.weight_cap(GroupId(domain.id.0)).unwrap_or_default();
        line!(
            to,
            "unit {unit} is d{}v{}: {:?}, ran {} ms, weight {weight} cap {cap}",
            domain.id.0,
            id.0,
            s.whereabouts(UnitId(unit)),
            s.runtime(arch::time::now(), UnitId(unit)) / 1_000_000
        );
    }
    Some(at + 1)
}
