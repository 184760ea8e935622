// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask abi`: docs/abi.md from the dispatch tables themselves.
//!
//! The tables are compiled into the host build of the `hypervisor` library; its example `abi` prints them.

use crate::process;
use crate::project::{self, Project};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::{Command, ExitCode};

/// Writes the table of implemented hypercalls to docs/abi.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only compare; exit status 1 if the file is out of date
    #[arg(long)]
    check: bool,
}

const FILE: &str = "docs/abi.md";

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    if args.check {
        let current = is_current(project)?;
        println!("{FILE} is {}", if current { "up to date" } else { "out of date" });
        return Ok(if current { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    project::write(&project.root.join(FILE), table(project)?)?;
    println!("written: {FILE}");
    Ok(ExitCode::SUCCESS)
}

/// True when the file says what the dispatch tables say.
pub(crate) fn is_current(project: &Project) -> Result<bool> {
    let table = table(project)?;
    Ok(fs::read_to_string(project.root.join(FILE)).is_ok_and(|text| text == table))
}

/// The table, from the dispatch tables.
fn table(project: &Project) -> Result<String> {
    let mut command = Command::new("cargo");
    process::forget_outer_cargo(&mut command);
    command.current_dir(&project.root).env("CARGO_TARGET_DIR", &project.target);
    command.args(["run", "--quiet", "--package", "hypervisor", "--example", "abi"]);
    let table = process::output(&mut command).context("the dispatch tables cannot be printed")?;
    ensure!(!table.trim().is_empty(), "the dispatch tables are empty");
    Ok(table)
}
