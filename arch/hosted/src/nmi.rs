// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reasons for NMIs: those that a test [`give`]s.

use core::sync::atomic::{AtomicU8, Ordering::SeqCst};

/// A device has seen an error on the bus.
pub const SERR: u8 = 1 << 7;
/// An expansion card has.
pub const IOCHK: u8 = 1 << 6;

static REASONS: AtomicU8 = AtomicU8::new(0);

/// Returns the reasons.
pub fn reasons() -> u8 {
    REASONS.load(SeqCst)
}

/// Takes the reasons back.
pub fn acknowledge(reasons: u8) {
    REASONS.fetch_and(!reasons, SeqCst);
}

/// Has the chipset have reasons.
pub fn give(reasons: u8) {
    REASONS.fetch_or(reasons, SeqCst);
}
