// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask`: everything a person types to build, run and test Xenith.
//!
//! Each subcommand is a module of the same name; what several of them need has a module named for the thing:
//! [`project`] (paths), [`process`] (children), [`debian`] (packages and their files), [`toolchain`], [`machine`]
//! (QEMU), [`serial`] (its console). Every file that is made lies below `target/xenith` or in the user's cache.

mod abi;
mod bench;
mod build;
mod cpio;
mod debian;
mod devices;
mod disk;
mod drift;
mod fuzz;
mod gdb;
mod guests;
mod hostcheck;
mod initramfs;
mod iso;
mod kernels;
mod lints;
mod machine;
mod monitor;
mod multiboot;
mod peer;
mod process;
mod project;
mod run;
mod runner;
mod scenario;
mod serial;
mod setup;
mod soak;
mod symbols;
mod test;
mod toolchain;
mod tools;

use anyhow::Result;
use clap::{Parser, Subcommand};
use project::Project;
use std::process::ExitCode;

/// Builds, runs and tests Xenith, a hypervisor that speaks the Xen PV ABI.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs the Debian packages that are missing
    Setup(setup::Args),
    /// Builds the hypervisor into target/xenith
    Build(build::Args),
    /// Makes a bootable ISO (BIOS and UEFI) of hypervisor, kernel and initramfs
    Iso(iso::Args),
    /// Boots the distribution's kernel on the hypervisor under QEMU
    Run(run::Args),
    /// Runs the tests; ends with "N passed, N failed, N skipped"
    Test(test::Args),
    /// Counts instructions of hot paths, beside the C hypervisor's
    Bench(bench::Args),
    /// Runs mixed load for a long time
    Soak(soak::Args),
    /// Runs the fuzz targets of tests/fuzz
    Fuzz(fuzz::Args),
    /// Boots under QEMU halted at the first instruction, with gdb attached
    Gdb(gdb::Args),
    /// Adds names of functions to a report of the hypervisor's failure
    Backtrace(symbols::Args),
    /// Writes the table of implemented hypercalls to docs/abi.md
    Abi(abi::Args),
}

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> Result<ExitCode> {
    let project = Project::locate()?;
    match cli.command {
        Command::Setup(args) => setup::main(&args),
        Command::Build(args) => build::main(&project, &args),
        Command::Iso(args) => iso::main(&project, &args),
        Command::Run(args) => run::main(&project, &args),
        Command::Test(args) => test::main(&project, &args),
        Command::Bench(args) => bench::main(&project, &args),
        Command::Soak(args) => soak::main(&project, &args),
        Command::Fuzz(args) => fuzz::main(&project, &args),
        Command::Gdb(args) => gdb::main(&project, &args),
        Command::Backtrace(args) => symbols::main(&project, &args),
        Command::Abi(args) => abi::main(&project, &args),
    }
}
