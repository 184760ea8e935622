// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of guests that measure, in ticks of the TSC: instructions under QEMU's `-icount shift=0,sleep=off`.

use crate::println;
use crate::time::tsc;
use core::fmt::Display;

/// How often everything is measured; the least counts.
pub const RUNS: usize = 64;

/// Prints a figure given in tenths.
pub fn show(name: impl Display, tenths: u64) {
    println!("bench {name} {}.{}", tenths / 10, tenths % 10);
}

/// Returns the least ticks of many runs.
pub fn raw(mut work: impl FnMut()) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..RUNS {
        let start = tsc();
        work();
        least = least.min(tsc() - start);
    }
    least
}

/// Returns the least ticks of many runs, less those of measuring.
pub fn ticks(work: impl FnMut()) -> u64 {
    raw(work).saturating_sub(raw(|| ()))
}

/// Prints `calibration`, which must be 1000.
pub fn calibrate() {
    let loops = ticks(|| {
        // SAFETY: a loop of 2 times 500 instructions.
        unsafe {
            core::arch::asm!("mov {n:e}, 500", "2: dec {n:e}", "jnz 2b", n = out(reg) _);
        }
    });
    // One for the load of the counter.
    show("calibration", 10 * (loops - 1));
}
