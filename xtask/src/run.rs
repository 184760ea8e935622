// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask run`: from a clean checkout to a shell in dom0, on this terminal.

use crate::devices::{self, Bus, Card, FIRST_NETWORK, Writes};
use crate::disk;
use crate::iso::{self, PayloadArgs};
use crate::machine::{C_HYPERVISOR_CPU, MachineArgs, Serial};
use crate::process::Tracked;
use crate::project::Project;
use crate::setup;
use crate::symbols::Filter;
use anyhow::{Context, Result};
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

/// Boots the distribution's kernel on the hypervisor under QEMU.
///
/// Installs and downloads what is missing, builds, makes an ISO and connects this terminal to the serial line. Every
/// key goes to the machine, Ctrl-C too; "poweroff" in the shell ends QEMU, and so does Ctrl-A X.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Boot Debian 12 from a disk, which is made into the cache first, if it is not there
    #[arg(long)]
    disk: bool,
    /// The controller that the disk is attached to
    #[arg(long, value_enum, value_name = "BUS", default_value = "virtio", requires = "disk")]
    disk_bus: Bus,
    /// The network card, on QEMU's user network [default: virtio with --disk, else none]
    #[arg(long, value_enum, value_name = "MODEL")]
    net: Option<Card>,
    /// Forget at the end what is changed on the disk
    #[arg(long, requires = "disk")]
    snapshot: bool,
    /// Forget first what earlier runs changed on the disk
    #[arg(long, requires = "disk", conflicts_with = "snapshot")]
    fresh: bool,
    /// Further arguments for QEMU
    #[arg(last = true)]
    qemu: Vec<String>,
}

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let iso_path = project.out()?.join("run.iso");
    let disk = if args.disk { Some(disk::ensure(project)?) } else { None };
    args.disk_bus.check(&args.machine.machine)?;
    let payload = iso::resolve(project, &args.payload, disk.as_ref())?;
    iso::make(&payload, &iso_path)?;
    let mut machine = args.machine.clone();
    if args.payload.hypervisor.as_deref().is_some_and(iso::is_debian) && machine.cpu.is_none() {
        machine.cpu = Some(C_HYPERVISOR_CPU.to_owned());
    }
    println!(
        "starting QEMU: {} CPU(s), {}, {}; Ctrl-A X ends it",
        machine.smp,
        machine.mem,
        if machine.uefi { "UEFI" } else { "BIOS" }
    );
    let mut command = machine.command(&iso_path, Serial::Terminal)?;
    if let Some(disk) = &disk {
        let (image, writes) = if args.snapshot {
            (disk.image.clone(), Writes::Forgotten)
        } else {
            (disk.overlay(args.fresh)?, Writes::Kept)
        };
        devices::attach_disk(&mut command, "root", &image, args.disk_bus, writes);
    }
    let card = args.net.unwrap_or(if args.disk { Card::Virtio } else { Card::None });
    devices::attach_card(&mut command, card, FIRST_NETWORK);
    command.args(&args.qemu);
    let status = match &payload.hypervisor {
        Some(image) => with_names(&mut command, Filter::new(image))?,
        None => Tracked::spawn(&mut command)?.wait()?,
    };
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the machine with its output on this terminal, and names behind the addresses of a backtrace.
fn with_names(command: &mut Command, mut filter: Filter) -> Result<ExitStatus> {
    let machine = Tracked::spawn(command.stdout(Stdio::piped()))?;
    let mut output = machine.with(|child| child.stdout.take()).context("the machine has no standard output")?;
    let mut part = [0; 4096];
    let mut shown = io::stdout().lock();
    loop {
        match output.read(&mut part)? {
            0 => break,
            length => shown.write_all(&filter.pass(&part[..length]))?,
        }
        shown.flush()?;
    }
    machine.wait()
}
