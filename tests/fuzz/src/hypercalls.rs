// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole hypervisor, by what two guests' kernels do: hypercalls, faults, stores to page tables, cut short anywhere.

use hypervisor::testing::{Source, play};

/// Plays as long as there are bytes to decide by.
pub fn run(bytes: &[u8]) {
    play(Source::Bytes(bytes), usize::MAX);
}
