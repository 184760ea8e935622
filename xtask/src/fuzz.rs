// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz`, by cargo-fuzz.

use crate::process;
use crate::project::Project;
use anyhow::{Result, bail, ensure};
use std::process::{Command, ExitCode, Stdio};

/// Runs the fuzz targets of tests/fuzz.
///
/// Needs cargo-fuzz and a nightly toolchain, since the sanitizers are not in stable Rust.
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
        let mut command = cargo(project);
        command.args(["fuzz", "run", "--fuzz-dir", ".", target, "--"]);
        command.arg(format!("-max_total_time={}", args.seconds));
        process::run(&mut command)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cargo(project: &Project) -> Command {
    let mut command = Command::new("cargo");
    process::forget_outer_cargo(&mut command);
    command.arg("+nightly").current_dir(project.root.join("tests/fuzz"));
    command.env("CARGO_TARGET_DIR", project.target.join("fuzz"));
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

fn ensure_tools() -> Result<()> {
    let works = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        process::forget_outer_cargo(&mut command);
        let status = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !works(&["+nightly", "--version"]) {
        bail!("fuzzing needs a nightly toolchain: rustup toolchain install nightly --profile minimal");
    }
    if !works(&["fuzz", "--version"]) {
        bail!("fuzzing needs cargo-fuzz: cargo install cargo-fuzz");
    }
    Ok(())
}
