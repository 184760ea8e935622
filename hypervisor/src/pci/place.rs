// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a PCI function is.

use core::fmt;

/// The address of a PCI function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The segment.
    pub segment: u16,
    /// The bus.
    pub bus: u8,
    /// Device in bits 7 to 3, function in bits 2 to 0.
    pub devfn: u8,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.segment, self.bus, self.devfn >> 3, self.devfn & 7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_lspci_writes_it() {
        let place = Place { segment: 1, bus: 0xa2, devfn: 0xfa };
        assert_eq!(std::format!("{place}"), "0001:a2:1f.2");
    }
}
