// SPDX-License-Identifier: MIT OR Apache-2.0
//! The QEMU machine: its size, processor and firmware, as one command line.

use anyhow::{Result, bail, ensure};
use clap::value_parser;
use std::path::Path;
use std::process::Command;

/// The machine.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MachineArgs {
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    #[arg(value_parser = value_parser!(u32).range(1..=255))]
    pub(crate) smp: u32,
    /// Memory: MiB, or a number followed by K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = size)]
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

/// Checks an amount of memory, which stays as it was typed: QEMU reads it the same way.
fn size(text: &str) -> Result<String> {
    let number = text.strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']).unwrap_or(text);
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    if !digits || number.bytes().all(|b| b == b'0') {
        bail!("a size is a number above 0, of MiB or of what follows it: K, M, G or T");
    }
    Ok(text.to_owned())
}

impl MachineArgs {
    /// The QEMU command that boots this ISO.
    pub(crate) fn command(&self, iso: &Path, serial: Serial) -> Result<Command> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        machine: MachineArgs,
    }

    fn parse(words: &[&str]) -> std::result::Result<MachineArgs, String> {
        let line = Line::try_parse_from([&["run"], words].concat());
        line.map(|line| line.machine).map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_that_no_machine_has_are_refused_before_anything_is_built() {
        for (flag, value, told) in [
            ("--smp", "0", "1..=255"),
            ("--smp", "256", "1..=255"),
            ("--smp", "-1", "1..=255"),
            ("--smp", "two", "invalid digit"),
            ("--mem", "0", "number above 0"),
            ("--mem", "00G", "number above 0"),
            ("--mem", "", "--mem"),
            ("--mem", "G", "K, M, G or T"),
            ("--mem", "1X", "K, M, G or T"),
        ] {
            let error = parse(&[flag, value]).expect_err(value);
            assert!(error.contains(flag), "{error}");
            assert!(error.contains(told), "{flag} {value}: {error}");
        }
    }

    #[test]
    fn sizes_are_handed_to_qemu_as_they_were_typed() {
        for mem in ["256", "2G", "512M", "1t", "2097152k"] {
            let machine = parse(&["--smp", "4", "--mem", mem]).expect(mem);
            let command = machine.command(Path::new("x.iso"), Serial::Pipes).expect("no firmware is needed");
            let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
            assert!(words.windows(4).any(|w| w == ["-smp", "4", "-m", mem]), "{words:?}");
        }
    }
}
