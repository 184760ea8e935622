// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random sequences of everything that changes page tables. `XENITH_SEED=n` replays a run, `XENITH_STEPS=n` makes it longer.

mod player;
mod world;

use mm::hosted::{Random, Source};

fn play_from(seed: u64) {
    let steps = std::env::var("XENITH_STEPS").ok().and_then(|s| s.parse().ok()).unwrap_or(1500);
    player::play(Source::Random(Random::from_env(seed)), steps);
}

#[test]
fn random_sequences_keep_all_rules_1() {
    play_from(1);
}

#[test]
fn random_sequences_keep_all_rules_2() {
    play_from(20_240_229);
}

#[test]
fn random_sequences_keep_all_rules_3() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    play_from(now.map_or(3, |now| now.as_nanos() as u64 >> 10));
}
