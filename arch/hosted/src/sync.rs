// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a CPU does while it waits for a lock.

/// Lets another thread run; flushes of simulated TLBs need no answer.
#[derive(Debug)]
pub struct Relax;

impl spin::RelaxStrategy for Relax {
    fn relax() {
        std::thread::yield_now();
    }
}
