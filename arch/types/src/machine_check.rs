// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers of the machine-check architecture by number (SDM volume 3, chapter 16).

/// What there is: the number of banks, and bits of what they can do.
pub const CAPABILITIES: u32 = 0x179;
/// What an exception is about.
pub const STATUS: u32 = 0x17a;
/// Which of the CPU's parts report, where [`CAPABILITIES`] says that there is such a register.
pub const CONTROL: u32 = 0x17b;
/// Further registers of AMD's bank 4.
pub const AMD_MISC4: core::ops::RangeInclusive<u32> = 0xc000_0408..=0xc000_040a;

const BANKS: u32 = 0x400;
/// Banks whose registers lie side by side.
pub const MOST_BANKS: u32 = 32;

/// The register of a bank that says which errors it reports.
pub const fn control(bank: u32) -> u32 {
    BANKS + 4 * bank
}

/// The register of a bank that tells of an error.
pub const fn status(bank: u32) -> u32 {
    BANKS + 4 * bank + 1
}

/// The register of a bank that tells where.
pub const fn address(bank: u32) -> u32 {
    BANKS + 4 * bank + 2
}

/// The register of a bank that tells more.
pub const fn misc(bank: u32) -> u32 {
    BANKS + 4 * bank + 3
}

/// True for the registers that are named here.
pub fn is_register(register: u32) -> bool {
    (CAPABILITIES..=CONTROL).contains(&register)
        || (BANKS..BANKS + 4 * MOST_BANKS).contains(&register)
        || AMD_MISC4.contains(&register)
}
