// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests that need no QEMU: formatting, lints, unit and property tests.

use crate::project::Project;
use crate::test::Tally;
use crate::toolchain::{self, BARE};
use crate::{abi, build, lints, process};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A check of the host part.
#[derive(Debug)]
pub(crate) struct Check {
    /// Its name.
    pub(crate) name: &'static str,
    /// Runs it; an error counts as one failed test.
    run: fn(&Project) -> Result<Tally>,
}

/// All of them, cheapest first.
pub(crate) const CHECKS: &[Check] = &[
    Check { name: "host/format", run: format },
    Check { name: "host/rules", run: lints::check },
    Check { name: "host/clippy", run: clippy },
    Check { name: "host/clippy-bare", run: clippy_bare },
    Check { name: "host/abi-table", run: abi_table },
    Check { name: "host/tests", run: unit_tests },
    Check { name: "host/fuzz-targets", run: fuzz_targets },
];

const PASSED: Tally = Tally { passed: 1, failed: 0, skipped: 0 };
const SKIPPED: Tally = Tally { passed: 0, failed: 0, skipped: 1 };

/// Runs a check and prints one line about it.
pub(crate) fn run(project: &Project, check: &Check) -> Tally {
    let name = check.name;
    match (check.run)(project) {
        Ok(tally) if tally.failed > 0 => {
            println!("FAIL  {name}: {} of {}", tally.failed, tally.passed + tally.failed);
            tally
        }
        Ok(tally) => {
            println!("{}  {name}", if tally.passed == 0 { "skip" } else { "ok  " });
            tally
        }
        Err(error) => {
            println!("FAIL  {name}: {error:#}");
            Tally { failed: 1, ..Tally::default() }
        }
    }
}

fn cargo(project: &Project) -> Command {
    let mut command = Command::new("cargo");
    process::forget_outer_cargo(&mut command);
    command.current_dir(&project.root).env("CARGO_TARGET_DIR", &project.target);
    command
}

/// The workspaces of the checkout: ours, and those that are built for other machines.
fn workspaces(project: &Project) -> Vec<PathBuf> {
    let inner = ["tests/guests", "tests/fuzz"].map(|dir| project.root.join(dir));
    let present = inner.into_iter().filter(|dir| dir.join("Cargo.toml").exists());
    std::iter::once(project.root.clone()).chain(present).collect()
}

/// True when cargo has this subcommand; the distribution's has neither fmt nor clippy.
fn has(project: &Project, subcommand: &str) -> bool {
    let mut command = cargo(project);
    command.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn format(project: &Project) -> Result<Tally> {
    if !has(project, "fmt") {
        return Ok(SKIPPED);
    }
    for workspace in workspaces(project) {
        process::run(cargo(project).current_dir(workspace).args(["fmt", "--all", "--check", "--", "-l"]))?;
    }
    Ok(PASSED)
}

fn clippy(project: &Project) -> Result<Tally> {
    if !has(project, "clippy") {
        return Ok(SKIPPED);
    }
    let arguments = ["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"];
    process::run(cargo(project).args(arguments))?;
    process::run(cargo(project).current_dir(project.root.join("tests/fuzz")).args(arguments))?;
    Ok(PASSED)
}

/// Clippy on what only the machine runs; the distribution has no clippy, so this needs rustup's target.
fn clippy_bare(project: &Project) -> Result<Tally> {
    if !toolchain::rustup_target_usable() || !has(project, "clippy") {
        return Ok(SKIPPED);
    }
    let target = project.target.join("clippy-bare");
    let mut ours = cargo(project);
    ours.env("CARGO_TARGET_DIR", &target).env("CARGO_ENCODED_RUSTFLAGS", build::rustflags(project));
    ours.args(["clippy", "--quiet", "--target", BARE]);
    ours.args(["-p", "hypervisor", "-p", "boot", "-p", "arch-x86_64", "-p", "mm"]);
    process::run(ours.args(["--", "-D", "warnings"]))?;
    let guests = project.root.join("tests/guests");
    if guests.exists() {
        let mut guest = cargo(project);
        guest.current_dir(guests).env("CARGO_TARGET_DIR", target.join("guests"));
        process::run(guest.args(["clippy", "--quiet", "--workspace", "--", "-D", "warnings"]))?;
    }
    Ok(PASSED)
}

/// The document of what is implemented agrees with the dispatch tables.
fn abi_table(project: &Project) -> Result<Tally> {
    if !abi::is_current(project)? {
        bail!("docs/abi.md is out of date: run `cargo xtask abi`");
    }
    Ok(PASSED)
}

/// The tests of the workspace.
fn unit_tests(project: &Project) -> Result<Tally> {
    cargo_test(project, &project.root)
}

/// Every fuzz target on its seeds and some random bytes, built by the stable compiler.
fn fuzz_targets(project: &Project) -> Result<Tally> {
    cargo_test(project, &project.root.join("tests/fuzz"))
}

/// `cargo test` in a workspace, with its counts added up.
fn cargo_test(project: &Project, workspace: &Path) -> Result<Tally> {
    let mut build = cargo(project);
    process::run(build.current_dir(workspace).args(["test", "--quiet", "--no-run"]))?;
    let mut test = cargo(project);
    test.current_dir(workspace).args(["test", "--no-fail-fast"]);
    let output = test.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let tally = counts(&text);
    if !output.status.success() {
        println!("{text}");
        if tally.failed == 0 {
            bail!("cargo test ended with {}", output.status);
        }
    }
    Ok(tally)
}

/// Adds up the "test result:" lines of `cargo test`.
fn counts(text: &str) -> Tally {
    let mut tally = Tally::default();
    for line in text.lines().filter(|line| line.starts_with("test result:")) {
        let count = |what: &str| {
            let words: Vec<&str> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
            let at = words.iter().position(|word| *word == what);
            at.and_then(|at| words[at - 1].parse().ok()).unwrap_or(0)
        };
        tally.add(Tally { passed: count("passed"), failed: count("failed"), skipped: count("ignored") });
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_all_crates_are_added_up() {
        let text = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
                    noise\n\
                    test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s\n";
        assert_eq!(counts(text), Tally { passed: 15, failed: 2, skipped: 1 });
    }
}
