// SPDX-License-Identifier: MIT OR Apache-2.0
//! The QEMU machine: its size, processor and firmware, as one command line.

use anyhow::{Result, ensure};
use std::path::Path;
use std::process::Command;

/// The machine.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MachineArgs {
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) smp: u32,
    /// Memory, in QEMU's notation
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    pub(crate) mem: String,
    /// Boot by UEFI instead of BIOS
    #[arg(long)]
    pub(crate) uefi: bool,
    /// QEMU's CPU model [default: max, or less for the C hypervisor]
    #[arg(long, value_name = "MODEL")]
    pub(crate) cpu: Option<String>,
    /// QEMU's machine type
    #[arg(long, value_name = "TYPE", default_value = "q35")]
    pub(crate) machine: String,
    /// QEMU's accelerator
    #[arg(long, value_name = "NAME", default_value = "tcg")]
    pub(crate) accel: String,
}

const FIRMWARE: &str = "/usr/share/ovmf/OVMF.fd";

/// The C hypervisor of Debian 12 does not run with SMAP under QEMU's emulation, nor do programs with AVX on it.
pub(crate) const C_HYPERVISOR_CPU: &str = "max,-smap,-la57,-xsave,-avx";

/// How the serial line is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serial {
    /// To the terminal: every key goes to the machine, but Ctrl-A is QEMU's (Ctrl-A X ends it).
    Terminal,
    /// To plain pipes on standard input and output.
    Pipes,
}

impl MachineArgs {
    /// The QEMU command that boots this ISO.
    pub(crate) fn command(&self, iso: &Path, serial: Serial) -> Result<Command> {
        ensure!(self.smp > 0, "--smp 0: a machine has at least one CPU");
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-machine", &self.machine, "-accel", &self.accel])
            .args(["-cpu", self.cpu.as_deref().unwrap_or("max")])
            .args(["-smp", &self.smp.to_string(), "-m", &self.mem])
            .args(["-display", "none", "-nic", "none", "-boot", "d", "-cdrom"])
            .arg(iso);
        match serial {
            Serial::Terminal => {
                command.args(["-chardev", "stdio,id=console,mux=on,signal=off"]).args(["-mon", "console"])
            }
            Serial::Pipes => command.args(["-chardev", "stdio,id=console,signal=off"]).args(["-monitor", "none"]),
        };
        command.args(["-serial", "chardev:console"]);
        if self.uefi {
            ensure!(Path::new(FIRMWARE).exists(), "{FIRMWARE} is missing (package ovmf)");
            command.args(["-bios", FIRMWARE]);
        }
        Ok(command)
    }
}
