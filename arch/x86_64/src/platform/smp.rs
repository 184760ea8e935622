// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting the other CPUs, and reaching them all.

use super::{VECTOR_CALL, apic, clock};

/// The CPU did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// Waits until the CPU is there, but not longer than so long.
fn wait(ns: u64, alive: &mut impl FnMut() -> bool) -> bool {
    let start = clock::tsc();
    let khz = clock::scale().khz.max(1_000);
    let ticks = (u128::from(ns) * u128::from(khz) / 1_000_000) as u64;
    loop {
        if alive() {
            return true;
        }
        if clock::tsc().saturating_sub(start) > ticks {
            return false;
        }
        core::hint::spin_loop();
    }
}

/// Starts one CPU at a trampoline in a page below 1 MiB. `alive` tells whether it has come up.
///
/// The time after a reset that old CPUs need is given only when a quick try has failed.
pub fn start(apic_id: u32, trampoline: u64, mut alive: impl FnMut() -> bool) -> Result<(), NoAnswer> {
    let page = u8::try_from(trampoline >> 12).map_err(|_| NoAnswer)?;
    for (after_reset, patience) in [(200 * US, 100 * MS), (10 * MS, 1_000 * MS)] {
        apic::take_errors();
        apic::send_init(apic_id);
        clock::delay_ns(after_reset);
        apic::send_startup(apic_id, page);
        if wait(300 * US, &mut alive) {
            return Ok(());
        }
        // A CPU that has started does not hear the second one.
        apic::send_startup(apic_id, page);
        if wait(patience, &mut alive) {
            return Ok(());
        }
    }
    log::warn!("CPU with APIC number {apic_id} does not answer; APIC errors {:#x}", apic::take_errors());
    Err(NoAnswer)
}

/// Asks every other CPU to stop, by an interrupt that it takes when it next admits any.
pub fn stop_others() {
    apic::send_all_but_self(VECTOR_CALL);
}

/// Stops every other CPU wherever it is; their NMI handlers must know what is meant.
pub fn stop_others_now() {
    apic::send_nmi_all_but_self();
}
