// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzz targets: everything that reads what guests, tools, loaders or firmware wrote, driven by arbitrary bytes.
//!
//! A target is a function of bytes that panics when a rule is broken. There are two kinds. Parsers get the bytes as they
//! are. Players ([`hypercalls`], [`page_tables`], [`scheduler`]) decide by them, through the entry points of the random
//! tests, with the rules checked after each step. Where there is an independent implementation, results are compared.
//!
//! Under cargo-fuzz (`cargo xtask fuzz`) libFuzzer makes the bytes up. On stable Rust the same targets are built as programs
//! that replay files, and `tests/replay.rs` runs each for a while, so that none rots.

pub mod acpi;
pub mod boot_information;
pub mod emulate;
pub mod hypercalls;
pub mod image;
pub mod options;
pub mod page_table_writes;
pub mod page_tables;
pub mod policy;
pub mod scheduler;

/// A target: its name, which is that of its program, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("acpi", acpi::run),
    ("boot-information", boot_information::run),
    ("emulate", emulate::run),
    ("hypercalls", hypercalls::run),
    ("image", image::run),
    ("options", options::run),
    ("page-table-writes", page_table_writes::run),
    ("page-tables", page_tables::run),
    ("policy", policy::run),
    ("scheduler", scheduler::run),
];

/// Makes a fuzz target of a function: libFuzzer's under cargo-fuzz, else a program that replays the files it is given.
#[macro_export]
macro_rules! target {
    ($run:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $run(bytes));
        #[cfg(not(fuzzing))]
        fn main() {
            $crate::replay_files($run);
        }
    };
}

/// Runs a target on each of the files that the command line names.
///
/// # Panics
/// When a file cannot be read, or the target finds something.
pub fn replay_files(run: fn(&[u8])) {
    for file in std::env::args_os().skip(1) {
        println!("{}", file.display());
        run(&std::fs::read(&file).expect("the file can be read"));
    }
}
