// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask setup`: the Debian packages that the project needs, and their installation.
//!
//! What is installed already is never touched, so a second run does nothing and needs no network.

use crate::process;
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::{Command, ExitCode, Stdio};

/// Installs the Debian packages that are missing.
///
/// Names each with its purpose first; uses sudo when not root. With everything in place it does nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only say what is missing; exit status 1 if something is
    #[arg(long)]
    check: bool,
}

/// A Debian package and what it is for.
pub(crate) type Package = (&'static str, &'static str);

/// What building, running and testing need, whatever the compiler.
const PACKAGES: &[Package] = &[
    ("binutils", "strip, for the bootable image"),
    ("busybox-static", "the shell of the test initramfs"),
    ("cpio", "to look into initramfs archives"),
    ("gcc", "links host programs; builds the userland workload"),
    ("gcc-multilib", "the workload's 32-bit build"),
    ("gdb", "cargo xtask gdb"),
    ("grub-common", "grub-mkrescue"),
    ("grub-efi-amd64-bin", "GRUB for UEFI machines"),
    ("grub-pc-bin", "GRUB for BIOS machines"),
    ("libxen-dev", "the C headers that ABI layouts are compared with"),
    ("lld", "links the hypervisor"),
    ("mtools", "the UEFI part of the ISO"),
    ("ovmf", "UEFI firmware for QEMU"),
    ("qemu-system-x86", "the machine everything runs on"),
    ("xorriso", "writes the ISO"),
    ("xz-utils", "kernel images compressed with XZ, for tests"),
    ("zstd", "kernel images compressed with zstd, for tests"),
];

/// What the distribution's compiler needs, where rustup cannot supply the bare-metal target.
pub(crate) const COMPILER: &[Package] = &[
    ("cargo-web", "builds the hypervisor where rustup has no bare-metal target"),
    ("rustc-web", "likewise: a compiler new enough for the hypervisor"),
    ("rust-web-src", "likewise: the source of `core` and `alloc`"),
];

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let mut missing = missing(PACKAGES)?;
    if !crate::toolchain::rustup_target_usable() {
        missing.extend(self::missing(COMPILER)?);
    }
    if missing.is_empty() {
        println!("everything is installed");
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        name_each(&missing);
        return Ok(ExitCode::FAILURE);
    }
    install(&missing)?;
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing of the general packages; silent when nothing is.
pub(crate) fn ensure() -> Result<()> {
    ensure_these(PACKAGES)
}

/// Installs what is missing of these packages; silent when nothing is.
pub(crate) fn ensure_these(packages: &[Package]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

fn name_each(packages: &[Package]) {
    println!("missing Debian packages:");
    for (name, purpose) in packages {
        println!("  {name:<20} {purpose}");
    }
}

/// Those of the packages that dpkg does not know as installed.
fn missing(packages: &[Package]) -> Result<Vec<Package>> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(packages.iter().map(|(name, _)| name))
        .stderr(Stdio::null())
        .output()
        .context("cannot run dpkg-query: this needs Debian 12 or a relative of it")?;
    let known = String::from_utf8_lossy(&output.stdout);
    Ok(packages
        .iter()
        .filter(|(name, _)| !known.lines().any(|line| line == format!("{name} installed")))
        .copied()
        .collect())
}

fn install(packages: &[Package]) -> Result<()> {
    name_each(packages);
    update_lists()?;
    let mut command = apt_get()?;
    command
        .args(["install", "-y", "--no-install-recommends"])
        .args(packages.iter().map(|(name, _)| name))
        .env("DEBIAN_FRONTEND", "noninteractive");
    process::run(&mut command).context("the packages above could not be installed")
}

/// Fetches the package lists if the machine has none.
pub(crate) fn update_lists() -> Result<()> {
    let present = fs::read_dir("/var/lib/apt/lists")
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages")));
    if present {
        return Ok(());
    }
    println!("fetching the package lists");
    process::run(apt_get()?.args(["-q", "update"]))
}

/// True when this process is the superuser's.
pub(crate) fn is_root() -> Result<bool> {
    Ok(process::output(Command::new("id").arg("-u"))?.trim() == "0")
}

/// `apt-get`, through sudo when that is needed.
fn apt_get() -> Result<Command> {
    if is_root()? {
        return Ok(Command::new("apt-get"));
    }
    let sudo = Command::new("sudo").arg("-V").stdout(Stdio::null()).status();
    if !sudo.is_ok_and(|status| status.success()) {
        bail!("installing packages needs root or sudo");
    }
    let mut command = Command::new("sudo");
    command.args(["--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
    Ok(command)
}
