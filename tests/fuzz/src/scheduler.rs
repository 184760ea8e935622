// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scheduler on a machine made of events.

use mm::hosted::Source;

#[path = "../../../sched/tests/scheduler/simulation.rs"]
#[expect(dead_code, reason = "the tests measure, here only the rules count")]
mod simulation;
#[path = "../../../sched/tests/scheduler/storm.rs"]
mod storm;

/// Makes changes as the bytes say, about one for every eight bytes.
pub fn run(bytes: &[u8]) {
    let mut source = Source::Bytes(bytes);
    storm::storm(&mut |limit| source.below(limit), bytes.len() as u32 / 8);
}
