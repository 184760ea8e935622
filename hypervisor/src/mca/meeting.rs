// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an exception reaches all CPUs at once, they wait for each other, so that none goes on before it is known whether one
//! has found an error, and what that means. A CPU that does not come is not waited for long.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use arch::cpu;

static ARRIVED: AtomicU32 = AtomicU32::new(0);
static LEFT: AtomicU32 = AtomicU32::new(0);
static FOUND: AtomicBool = AtomicBool::new(false);

/// How long is waited, in steps of [`STEP_NS`].
const STEPS: u32 = 1000;
const STEP_NS: u64 = 100_000;

/// Meets the others; false when nobody has found anything. Who ends the machine does not come.
pub(super) fn hold(found: bool) -> bool {
    if found {
        FOUND.store(true, SeqCst);
    }
    let all = cpu::online().count() as u32;
    ARRIVED.fetch_add(1, SeqCst);
    for _ in 0..STEPS {
        if ARRIVED.load(SeqCst) >= all {
            break;
        }
        arch::time::delay_ns(STEP_NS);
    }
    let somebody = FOUND.load(SeqCst);
    if LEFT.fetch_add(1, SeqCst) + 1 == ARRIVED.load(SeqCst) {
        FOUND.store(false, SeqCst);
        LEFT.store(0, SeqCst);
        ARRIVED.store(0, SeqCst);
    }
    somebody
}
