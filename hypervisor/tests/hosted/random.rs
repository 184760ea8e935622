// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random sequences of everything that guests do, from two domains, cut short anywhere. `XENITH_SEED=n` replays a run,
//! `XENITH_STEPS=n` makes it longer.

use hypervisor::testing::{Source, Tally, play};
use mm::hosted::Random;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays worlds of some steps each, one seed after the other.
fn play_from(seed: u64) {
    let first = number("XENITH_SEED").unwrap_or(seed);
    let mut left = number("XENITH_STEPS").unwrap_or(2500) as usize;
    let mut seed = first;
    let mut tally = Tally::default();
    while left > 0 {
        println!("XENITH_SEED={seed}");
        let (steps, seen) = play(Source::Random(Random::new(seed)), left.min(250));
        tally.add(&seen);
        left -= steps.clamp(1, left);
        seed = seed.wrapping_add(1);
    }
    println!("{tally:?}");
}

#[test]
fn random_sequences_keep_all_rules_1() {
    play_from(1);
}

#[test]
fn random_sequences_keep_all_rules_2() {
    play_from(1_000_000);
}

#[test]
fn random_sequences_keep_all_rules_3() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    play_from(now.map_or(3, |now| now.as_nanos() as u64 >> 20));
}
