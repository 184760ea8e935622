// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz`, by cargo-fuzz.

use crate::project::{self, Project};
use crate::{process, setup};
use anyhow::{Context, Result, ensure};
use std::process::{Command, ExitCode, Stdio};

/// Runs the fuzz targets of tests/fuzz.
///
/// Installs cargo-fuzz and a nightly toolchain where they are missing, since the sanitizers are not in stable Rust. What a
/// target finds is kept under tests/fuzz/artifacts, what it learnt under tests/fuzz/corpus.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The target to run [default: each in turn]
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
    /// Print the targets and run nothing
    #[arg(long)]
    list: bool,
}

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    let targets = targets(project)?;
    if args.list {
        targets.iter().for_each(|target| println!("{target}"));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen: Vec<&String> = match &args.target {
        Some(name) => targets.iter().filter(|target| *target == name).collect(),
        None => targets.iter().collect(),
    };
    ensure!(!chosen.is_empty(), "no such fuzz target; there are: {}", targets.join(", "));
    ensure_tools()?;
    for target in chosen {
        println!("fuzzing {target} for {} s", args.seconds);
        process::run(&mut run(project, target, args.seconds)?)
            .with_context(|| format!("{target} found something; cargo-fuzz says above how to run it again"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `cargo fuzz run`, with the corpus that grows and the seeds that do not.
fn run(project: &Project, target: &str, seconds: u32) -> Result<Command> {
    let corpus = project::made(project.root.join("tests/fuzz/corpus").join(target))?;
    let seeds = project.root.join("tests/fuzz/seeds").join(target);
    let mut command = cargo();
    command.current_dir(project.root.join("tests/fuzz"));
    command.env("CARGO_TARGET_DIR", project.target.join("fuzz"));
    command.args(["fuzz", "run", "--fuzz-dir", ".", target]).arg(corpus);
    if seeds.exists() {
        command.arg(seeds);
    }
    // Players need long inputs from the start.
    command
        .args(["--", "-timeout=60", "-rss_limit_mb=4096", "-len_control=0", "-max_len=4096"])
        .arg(format!("-max_total_time={seconds}"));
    Ok(command)
}

fn cargo() -> Command {
    let mut command = Command::new("cargo");
    process::forget_outer_cargo(&mut command);
    command.arg("+nightly");
    command
}

/// The targets, from the programs that the manifest names.
fn targets(project: &Project) -> Result<Vec<String>> {
    let manifest = project.root.join("tests/fuzz/Cargo.toml");
    ensure!(manifest.exists(), "there are no fuzz targets: {} does not exist", project.shown(&manifest));
    let text = std::fs::read_to_string(&manifest)?;
    let table: toml::Table = text.parse()?;
    let programs = table.get("bin").and_then(|bin| bin.as_array()).into_iter().flatten();
    let names = programs.filter_map(|program| program.get("name")?.as_str());
    Ok(names.map(str::to_owned).collect())
}

/// What libFuzzer is made with.
const COMPILER: &[setup::Package] = &[("g++", "builds libFuzzer, which is part of every fuzz target")];

fn works(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Installs what is missing, or says what to do about it.
fn ensure_tools() -> Result<()> {
    setup::ensure_these(COMPILER)?;
    if !works(cargo().arg("--version")) {
        println!("installing a nightly toolchain");
        let mut rustup = Command::new("rustup");
        process::forget_outer_cargo(&mut rustup);
        process::run(rustup.args(["toolchain", "install", "nightly", "--profile", "minimal"]))
            .context("fuzzing needs a nightly toolchain: rustup toolchain install nightly --profile minimal")?;
    }
    if !works(cargo().args(["fuzz", "--version"])) {
        println!("installing cargo-fuzz");
        process::run(cargo().args(["install", "--locked", "cargo-fuzz"]))
            .context("fuzzing needs cargo-fuzz: cargo +nightly install --locked cargo-fuzz")?;
    }
    Ok(())
}
