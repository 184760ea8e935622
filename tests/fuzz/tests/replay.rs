// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every target on its seeds and on random bytes for a while. `XENITH_SEED=n` replays a run, `XENITH_SECONDS=n` makes it longer.
//!
//! A run that finds something prints the bytes; as a file they are an argument to the target's program.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use mm::hosted::Random;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds of a target, which are files.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a directory that can be read").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a seed that can be read")).collect()
}

fn run(target: fn(&[u8]), bytes: &[u8]) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| target(bytes))) {
        println!("on the bytes {bytes:02x?}");
        resume_unwind(payload);
    }
}

/// Changes a few bytes of a seed, or makes all of them up.
fn made_up(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let byte = |random: &mut Random| random.below(256) as u8;
    if seeds.is_empty() || random.one_in(2) {
        let len = random.pick(&[8, 32, 200, 1000]);
        return (0..random.below(len)).map(|_| byte(random)).collect();
    }
    let mut bytes = seeds[random.below(seeds.len() as u64) as usize].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() as u64) as usize;
        if let Some(changed) = bytes.get_mut(at) {
            *changed = if random.one_in(2) { byte(random) } else { *changed ^ 1 << random.below(8) };
        }
    }
    bytes
}

fn replay(name: &str) {
    let (_, target) = fuzz::TARGETS.iter().find(|(n, _)| *n == name).expect("a target");
    let seeds = seeds(name);
    seeds.iter().for_each(|seed| run(*target, seed));
    run(*target, &[]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64 >> 10);
    let mut random = Random::from_env(now);
    let end = Instant::now() + Duration::from_secs(number("XENITH_SECONDS").unwrap_or(1));
    let mut count = 0;
    while Instant::now() < end {
        run(*target, &made_up(&mut random, &seeds));
        count += 1;
    }
    println!("{name}: {} seeds, {count} runs", seeds.len());
}

macro_rules! replays {
    ($($test:ident: $name:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            replay($name);
        })*

        #[test]
        fn every_target_is_replayed_and_a_program() {
            let names: Vec<&str> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$($name),*]);
            let manifest = include_str!("../Cargo.toml");
            for name in names {
                assert!(manifest.contains(&format!("[[bin]]\nname = \"{name}\"\n")), "{name}");
            }
        }
    };
}

replays! {
    acpi: "acpi",
    boot_information: "boot-information",
    emulate: "emulate",
    hypercalls: "hypercalls",
    image: "image",
    options: "options",
    page_table_writes: "page-table-writes",
    page_tables: "page-tables",
    policy: "policy",
    scheduler: "scheduler",
}

#[test]
fn the_seed_kernels_are_good_ones() {
    let seeds = seeds("image");
    assert_eq!(seeds.len(), 5);
    for seed in seeds {
        assert!(fuzz::image::load(&seed).is_ok(), "{:?}", fuzz::image::load(&seed));
    }
}
