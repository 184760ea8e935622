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

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    let mut command = Command::new("cargo");
    process::forget_outer_cargo(&mut command);
    command
        .current_dir(&project.root)
        .env("CARGO_TARGET_DIR", &project.target);
    command.args([
        "run",
        "--quiet",
        "--package",
        "hypervisor",
        "--example",
        "abi",
    ]);
    let table = process::output(&mut command).context("the dispatch tables cannot be printed")?;
    ensure!(!table.trim().is_empty(), "the dispatch tables are empty");
    let file = project.root.join("docs/abi.md");
    if args.check {
        let current = fs::read_to_string(&file).is_ok_and(|text| text == table);
        println!(
            "{} is {}",
            project.shown(&file),
            if current { "up to date" } else { "out of date" }
        );
        return Ok(if current {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    project::write(&file, &table)?;
    println!("written: {}", project.shown(&file));
    Ok(ExitCode::SUCCESS)
}
