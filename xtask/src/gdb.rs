// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask gdb`: QEMU halted at its first instruction, gdb attached, symbols loaded.

use crate::iso::{self, PayloadArgs};
use crate::machine::{MachineArgs, Serial};
use crate::process::{self, Tracked};
use crate::project::Project;
use crate::setup;
use anyhow::{Result, ensure};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Boots under QEMU halted at the first instruction, with gdb attached.
///
/// Set breakpoints with hbreak, as in "hbreak timers.rs:reprogram" or "hbreak timers.rs:90", and type "continue". The
/// serial line goes to target/xenith/logs/gdb.log. Leaving gdb ends the machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Commands for gdb, run after it is attached
    #[arg(long, short = 'x', value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let iso_path = project.out()?.join("gdb.iso");
    iso::make(&iso::resolve(project, &args.payload, None)?, &iso_path)?;
    let log = project.logs()?.join("gdb.log");
    let socket = project.out()?.join(format!("gdb-{}.socket", std::process::id()));
    let mut command = args.machine.command(&iso_path, Serial::Pipes)?;
    command.arg("-S").arg("-gdb").arg(format!("unix:path={},server=on,wait=off", socket.display()));
    command.stdin(Stdio::null()).stdout(File::create(&log)?);
    let machine = Tracked::spawn(&mut command)?;
    await_socket(&machine, &socket)?;
    println!("the serial line goes to {}", project.shown(&log));
    let mut gdb = Command::new("gdb");
    gdb.args(["-q", "-ex", "set architecture i386:x86-64", "-ex"]);
    gdb.arg(format!("target remote {}", socket.display()));
    for command in &args.command {
        gdb.args(["-ex", command]);
    }
    if args.payload.hypervisor.is_none() && !args.payload.bare {
        gdb.arg(project.out()?.join("xenith-syms"));
    }
    let status = process::status(&mut gdb)?;
    // QEMU removes it itself when gdb ended the machine.
    let _ = fs::remove_file(&socket);
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until QEMU listens for a debugger.
fn await_socket(machine: &Tracked, socket: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        let ended = machine.ended()?;
        ensure!(ended.is_none(), "QEMU did not start");
        ensure!(Instant::now() < deadline, "QEMU does not listen on {}", socket.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
