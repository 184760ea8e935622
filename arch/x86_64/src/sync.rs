// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a CPU waits for a lock.

use crate::{cpu, tlb};

/// Keeps serving TLB shootdowns, because interrupts are off while a lock is waited for.
#[derive(Debug)]
pub struct Relax;

impl spin::RelaxStrategy for Relax {
    #[inline]
    fn relax() {
        if cpu::started() {
            tlb::serve();
        }
        core::hint::spin_loop();
    }
}
