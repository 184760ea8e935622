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
mod hung;
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

/// Each is introduced by its arguments' text, whose first line stands in the list.
#[derive(Debug, Subcommand)]
enum Command {
    Setup(setup::Args),
    Build(build::Args),
    Iso(iso::Args),
    Run(run::Args),
    Test(test::Args),
    Bench(bench::Args),
    Soak(soak::Args),
    Fuzz(fuzz::Args),
    Gdb(gdb::Args),
    Backtrace(symbols::Args),
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_tells_what_the_source_says() {
        let mut cli = Cli::command();
        for (name, told) in [
            ("build", "xenith-syms"),
            ("fuzz", "tests/fuzz/artifacts"),
            ("gdb", "hbreak"),
            ("run", "Ctrl-A X"),
            ("setup", "does nothing"),
            ("test", "target/xenith/logs"),
        ] {
            let help = cli.find_subcommand_mut(name).expect("it exists").render_long_help().to_string();
            let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(help.contains(told), "{name} --help does not tell of {told}:\n{help}");
        }
    }
}
