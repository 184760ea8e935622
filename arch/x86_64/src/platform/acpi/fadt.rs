// SPDX-License-Identifier: MIT OR Apache-2.0
//! The FADT: timer, reset and sleep registers.

use acpi::address::{AddressSpace, GenericAddress};
use acpi::fadt::Fadt;

use super::{AcpiError, Memory, Platform, PmTimer, Root, s5, table, view};

/// Offset of that byte in the table.
const PM1_CONTROL_LENGTH: usize = 89;

/// Where a hardware register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// In the I/O space.
    Io {
        /// The port.
        port: u16,
        /// How wide it is.
        bits: u8,
    },
    /// In the configuration space of a PCI device on bus 0.
    Pci {
        /// Device, function and offset, as the type 1 access mechanism wants them.
        address: u32,
    },
}

/// How to sleep and to reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Power {
    /// There is a FADT; without one only guesses remain.
    pub acpi: bool,
    /// The first sleep control register.
    pub pm1a_control: Option<u16>,
    /// The second one, where the chipset has two.
    pub pm1b_control: Option<u16>,
    /// Sleep types of the state "off" for the two registers.
    pub s5: Option<(u8, u8)>,
    /// The sleep control register of hardware-reduced ACPI.
    pub sleep_control: Option<u16>,
    /// The reset register and what to write to it.
    pub reset: Option<(Register, u8)>,
    /// The SMI command port and what to write there so that the firmware hands the registers over.
    pub enable: Option<(u16, u8)>,
    /// The interrupt that announces power-management events.
    pub sci: u16,
}

fn io(address: GenericAddress) -> Option<u16> {
    let port = u16::try_from(address.address).ok().filter(|p| *p != 0)?;
    (address.address_space == AddressSpace::SystemIo).then_some(port)
}

fn register(address: GenericAddress) -> Option<Register> {
    match address.address_space {
        AddressSpace::SystemIo => io(address).map(|port| Register::Io { port, bits: address.bit_width }),
        AddressSpace::PciConfigSpace => {
            let (device, function) = ((address.address >> 32) as u32 & 0x1f, (address.address >> 16) as u32 & 7);
            Some(Register::Pci { address: device << 11 | function << 8 | address.address as u32 & 0xff })
        }
        _ => None,
    }
}

/// Reads the table's structure. The length of the PM1 control registers is 2 by the specification
/// whatever the table says; the crate multiplies it, and a large one would overflow there.
fn view_checked(bytes: &[u8]) -> Fadt {
    let mut copy = [0; size_of::<Fadt>()];
    for (to, from) in copy.iter_mut().zip(bytes) {
        *to = *from;
    }
    copy[PM1_CONTROL_LENGTH] = 2;
    view(&copy)
}

/// Reads the table into the platform, and the sleep types from the AML tables.
pub(super) fn read<'a>(bytes: &[u8], memory: Memory<'_, 'a>, root: Root<'a>, out: &mut Platform) {
    let fadt = view_checked(bytes);
    let flags = fadt.flags;
    out.rtc_century = fadt.century;
    if let Some(port) = fadt.pm_timer_block().ok().flatten().and_then(io) {
        out.pm_timer = Some(PmTimer { port, bits: if flags.pm_timer_is_32_bit() { 32 } else { 24 } });
    }
    let reduced = flags.system_is_hw_reduced_acpi();
    let command = u16::try_from(fadt.smi_cmd_port).ok().filter(|p| *p != 0 && fadt.acpi_enable != 0);
    out.power = Power {
        acpi: true,
        pm1a_control: fadt.pm1a_control_block().ok().and_then(io).filter(|_| !reduced),
        pm1b_control: fadt.pm1b_control_block().ok().flatten().and_then(io).filter(|_| !reduced),
        s5: find_s5(&fadt, memory, root, out),
        sleep_control: fadt.sleep_control_register().ok().flatten().and_then(io).filter(|_| reduced),
        reset: flags
            .supports_system_reset_via_fadt()
            .then(|| fadt.reset_register().ok().and_then(register))
            .flatten()
            .map(|r| (r, fadt.reset_value)),
        enable: command.map(|port| (port, fadt.acpi_enable)),
        sci: fadt.sci_interrupt,
    };
}

/// Searches the DSDT, then the SSDTs, for the sleep types of "off".
fn find_s5<'a>(fadt: &Fadt, memory: Memory<'_, 'a>, root: Root<'a>, out: &mut Platform) -> Option<(u8, u8)> {
    let dsdt = fadt.dsdt_address().map_err(|_| AcpiError::Missing(*b"DSDT"));
    match dsdt.and_then(|maddr| table(memory, maddr as u64, b"DSDT")) {
        Ok(bytes) => {
            if let Some(types) = s5::find(bytes) {
                return Some(types);
            }
        }
        Err(error) => out.problem(error),
    }
    let named = |maddr: &u64| super::signature(memory, *maddr) == Some(*b"SSDT");
    root.addresses().filter(named).find_map(|maddr| s5::find(table(memory, maddr, b"SSDT").ok()?))
}
