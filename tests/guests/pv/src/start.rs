// SPDX-License-Identifier: MIT OR Apache-2.0
//! The start_info page, read once and kept by reference.

use crate::abi::StartInfo;
use core::sync::atomic::{AtomicU64, Ordering};

static START_INFO: AtomicU64 = AtomicU64::new(0);

/// Remembers where the start_info page is.
pub(crate) fn init(address: u64) {
    START_INFO.store(address, Ordering::Relaxed);
}

/// Returns the start_info page.
pub fn info() -> &'static StartInfo {
    let address = START_INFO.load(Ordering::Relaxed);
    // SAFETY: the builder passed this address to `_start`; nobody writes or unmaps the page.
    unsafe { &*(address as *const StartInfo) }
}

/// Returns the command line up to its NUL.
pub fn cmd_line() -> &'static [u8] {
    let line = &info().cmd_line;
    let end = line.iter().position(|&b| b == 0).unwrap_or(line.len());
    &line[..end]
}
