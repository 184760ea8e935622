// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segment descriptors: what a guest may have in its GDT and LDT.
//!
//! A descriptor that passes can be loaded in ring 3 without harm: it is not present, or code or data of privilege
//! level 3, or a call gate that always faults (its level is 0) so that it can be emulated.

use crate::entry::entry;
use core::sync::atomic::Ordering;
use hypercalls::Mfn;

const PRESENT: u64 = 1 << 47;
const DPL: u64 = 3 << 45;
const CODE_OR_DATA: u64 = 1 << 44;
const KIND: u64 = 0xf << 40;
const CALL_GATE: u64 = 0xc << 40;
/// Parameter count and reserved bits of a call gate.
const GATE_RESERVED: u64 = 0xff << 32;
/// Selectors from here on are the hypervisor's, in the GDT.
const RESERVED_SELECTOR: u16 = 0xe000;

/// Adjusts a descriptor so that it is harmless; false if that cannot be.
pub fn check_descriptor(descriptor: &mut u64) -> bool {
    let d = *descriptor;
    if d & PRESENT == 0 {
        return true;
    }
    if d & CODE_OR_DATA != 0 {
        *descriptor = d | DPL;
        return true;
    }
    match d & KIND {
        // The second half of a call gate.
        0 => true,
        CALL_GATE => {
            let selector = (d >> 16) as u16;
            if !gate_selector_ok(selector) || d & GATE_RESERVED != 0 {
                return false;
            }
            // Level 0 makes every use fault; the level that the guest meant (3) is kept in the selector.
            *descriptor = d & !DPL & !(0xffff << 16) | u64::from(selector | 3) << 16;
            true
        }
        _ => false,
    }
}

/// True when a gate may lead to the selector: not null, and not one of the hypervisor's but the guest's flat code.
const fn gate_selector_ok(selector: u16) -> bool {
    const FLAT_CODE64: u16 = 0xe033;
    let ldt = selector & 4 != 0;
    selector & !3 != 0 && (ldt || selector < RESERVED_SELECTOR || selector | 3 == FLAT_CODE64)
}

/// Checks and adjusts all descriptors of a frame that nobody can write.
pub(crate) fn validate(mfn: Mfn) -> bool {
    (0..512).all(|i| {
        let slot = entry(mfn, i);
        let old = slot.load(Ordering::Relaxed);
        let mut new = old;
        let fine = check_descriptor(&mut new);
        if new != old {
            slot.store(new, Ordering::Relaxed);
        }
        fine
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAT_CODE: u64 = 0x00af_9b00_0000_ffff;

    #[test]
    fn absent_descriptors_are_left_alone() {
        let mut d = 0xffff_7fff_ffff_ffff;
        assert!(check_descriptor(&mut d));
        assert_eq!(d, 0xffff_7fff_ffff_ffff);
    }

    #[test]
    fn code_and_data_get_level_3() {
        let mut d = FLAT_CODE;
        assert!(check_descriptor(&mut d));
        assert_eq!(d, FLAT_CODE | DPL);
    }

    #[test]
    fn system_descriptors_but_call_gates_are_refused() {
        for kind in 1..16u64 {
            let mut d = PRESENT | kind << 40 | 8 << 16;
            assert_eq!(check_descriptor(&mut d), kind == 0xc, "kind {kind}");
        }
    }

    #[test]
    fn call_gates_fault_and_lead_only_to_guest_code() {
        let gate = |selector: u64| PRESENT | DPL | CALL_GATE | selector << 16;
        let mut d = gate(0x10);
        assert!(check_descriptor(&mut d));
        assert_eq!((d & DPL, d >> 16 & 0xffff), (0, 0x13));
        assert!(!check_descriptor(&mut gate(0)));
        assert!(!check_descriptor(&mut gate(0xe008)));
        assert!(check_descriptor(&mut gate(0xe030)));
        assert!(!check_descriptor(&mut (gate(0x10) | 1 << 32)));
    }
}
