// SPDX-License-Identifier: MIT OR Apache-2.0
//! What entries that are not present may hold on CPUs that look at them all the same (L1TF, XSA-273).
//!
//! Such a CPU takes the address in an absent entry for a moment and reads what its L1 cache has of it, whoever's it is. An
//! entry is harmless if nothing is cached at its address: frame 0, which holds nobody's secrets, or addresses above all
//! memory. Above L1 it must not look like a large page either, which would reach much further.

use crate::flags::PSE;

/// Which absent entries a domain may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsentRule {
    /// The bits of an entry by which the cache finds an address; it may have more than the CPU admits to.
    pub mask: u64,
    /// From this address on nothing is ever cached.
    pub safe: u64,
}

impl AbsentRule {
    /// True when the entry of a table of this level is harmless.
    pub const fn allows(&self, entry: u64, level: u8) -> bool {
        let maddr = entry & self.mask;
        (maddr == 0 || maddr >= self.safe) && (level == 1 || entry & PSE == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_is_what_no_cache_holds() {
        // A cache of 46 bits behind an address width of 46.
        let rule = AbsentRule { mask: ((1 << 46) - 1) & !0xfff, safe: 3 << 44 };
        for entry in [0, 0xffe, 3 << 44, (1 << 46) - 4096, !1, 1 << 46] {
            assert!(rule.allows(entry, 1), "{entry:#x}");
        }
        for entry in [0x1000, 1 << 44, (3 << 44) - 4096, 1 << 46 | 0x1000, 1 << 62 | 0x5000] {
            assert!(!rule.allows(entry, 1) && !rule.allows(entry, 4), "{entry:#x}");
        }
        assert!(rule.allows(PSE, 1) && !rule.allows(PSE, 2));
    }
}
