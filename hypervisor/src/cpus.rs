// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's CPUs, whether they run or not, and their numbers in the firmware's tables.

use alloc::vec::Vec;
use arch::CpuId;

/// A CPU that the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Number of its local APIC.
    pub apic_id: u32,
    /// Its number in the ACPI namespace, `u32::MAX` when the tables do not tell.
    pub acpi_id: u32,
}

/// By number, those that run first.
static PRESENT: spin::rwlock::RwLock<Vec<Present>, arch::sync::Relax> = spin::rwlock::RwLock::new(Vec::new());

/// Notes the machine's CPUs, in the order of their numbers; once, at boot.
pub fn note(cpus: Vec<Present>) {
    *PRESENT.write() = cpus;
}

/// Returns how many CPUs there are, those that do not run included.
pub fn count() -> u32 {
    let known = PRESENT.read().len() as u32;
    let last_online = arch::cpu::online().iter().last().map_or(0, |cpu| u32::from(cpu.0));
    known.max(last_online + 1)
}

/// Returns a CPU by its number.
pub fn get(number: u32) -> Option<Present> {
    let known = PRESENT.read().get(number as usize).copied();
    // Without tables CPUs are numbered alike everywhere.
    known.or_else(|| online(number).map(|_| Present { apic_id: number, acpi_id: u32::MAX }))
}

/// Returns the CPU of that number if it runs.
pub fn online(number: u32) -> Option<CpuId> {
    let cpu = CpuId(u16::try_from(number).ok().filter(|n| usize::from(*n) < arch::MAX_CPUS)?);
    arch::cpu::is_online(cpu).then_some(cpu)
}

/// Returns the number of the CPU that has this number in the ACPI namespace.
pub fn by_acpi_id(acpi_id: u32) -> Option<u32> {
    (0..count()).filter(|_| acpi_id != u32::MAX).find(|number| get(*number).is_some_and(|cpu| cpu.acpi_id == acpi_id))
}

/// What identifies the model of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// The vendor's name, as CPUID spells it.
    pub vendor: [u8; 12],
    /// Family, extension included.
    pub family: u32,
    /// Model, extension included.
    pub model: u32,
    /// Stepping.
    pub stepping: u32,
}

impl Model {
    /// Reads words of CPUID: leaf 0, and EAX of leaf 1.
    pub fn new(vendor: [u32; 4], signature: u32) -> Self {
        let [_, b, c, d] = vendor;
        let mut name = [0; 12];
        for (to, word) in name.chunks_exact_mut(4).zip([b, d, c]) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let base = signature >> 8 & 0xf;
        let family = if base == 0xf { base + (signature >> 20 & 0xff) } else { base };
        let extended = if base == 0xf || base == 6 { signature >> 12 & 0xf0 } else { 0 };
        Self { vendor: name, family, model: extended | signature >> 4 & 0xf, stepping: signature & 0xf }
    }

    /// Returns the model of the CPU that runs; all CPUs of a machine are alike.
    pub fn here() -> Self {
        Self::new(arch::features::cpuid(0, 0), arch::features::cpuid(1, 0)[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models() {
        let intel = [0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69];
        let model = Model::new(intel, 0x0009_06ea);
        assert_eq!(&model.vendor, b"GenuineIntel");
        assert_eq!((model.family, model.model, model.stepping), (6, 0x9e, 10));
        let amd = Model::new([0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65], 0x0083_0f10);
        assert_eq!(&amd.vendor, b"AuthenticAMD");
        assert_eq!((amd.family, amd.model, amd.stepping), (0x17, 0x31, 0));
        // Neither extension counts for an old family.
        assert_eq!(Model::new(intel, 0x0ff0_0543).family, 5);
        assert_eq!(Model::new(intel, 0x0ff0_0543).model, 4);
    }

    #[test]
    fn cpus_of_a_machine_without_tables() {
        let _machine = arch::hosted::boot(1 << 20, 3);
        note(Vec::new());
        assert_eq!(count(), 3);
        assert_eq!(get(2), Some(Present { apic_id: 2, acpi_id: u32::MAX }));
        assert_eq!((get(3), online(3), online(u32::MAX), by_acpi_id(0)), (None, None, None, None));
        assert_eq!(by_acpi_id(u32::MAX), None);
        assert_eq!(online(1), Some(CpuId(1)));
    }
}
