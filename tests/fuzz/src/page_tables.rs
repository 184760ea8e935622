// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page types and page tables alone, with domains that are mere accounts.

use mm::hosted::Source;

#[path = "../../../mm/tests/player/mod.rs"]
mod player;
#[path = "../../../mm/tests/world/mod.rs"]
mod world;

/// Plays as long as there are bytes to decide by.
pub fn run(bytes: &[u8]) {
    player::play(Source::Bytes(bytes), usize::MAX);
}
