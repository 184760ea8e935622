// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask build`: the hypervisor as a bootable file.
//!
//! Leaves `xenith-syms` (as linked), `xenith` (stripped) and `xenith.gz` in `target/xenith`; with debug assertions, in
//! `target/xenith/debug`.

use crate::project::{self, Project};
use crate::toolchain::Toolchain;
use crate::{multiboot, process, setup};
use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Builds the hypervisor into target/xenith.
///
/// Leaves the multiboot2 ELF as target/xenith/xenith, the same compressed as xenith.gz, and with symbols as
/// xenith-syms.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build with debug assertions, into target/xenith/debug
    #[arg(long)]
    debug: bool,
}

/// How the hypervisor is linked, whichever compiler builds it.
///
/// `code-model` is the target's own, so that link-time optimisation can join our code with a precompiled `core`.
const RUSTFLAGS: &[&str] = &[
    "-Crelocation-model=pic",
    "-Cforce-frame-pointers=yes",
    "-Clink-arg=--no-pie",
    "-Clink-arg=-znoexecstack",
    "-Clink-arg=--build-id",
    // Vector registers are the guests': the digest of XZ payloads does without, whatever the CPU has.
    "--cfg=sha2_backend=\"soft\"",
];

/// The files of a build.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// The multiboot2 ELF, stripped.
    pub(crate) elf: PathBuf,
    /// The same with gzip, as GRUB's generator expects it.
    pub(crate) gz: PathBuf,
    /// The same with symbols.
    pub(crate) syms: PathBuf,
}

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let image = build(project, args.debug)?;
    for file in [&image.elf, &image.gz, &image.syms] {
        println!("{:>9} bytes  {}", fs::metadata(file)?.len(), project.shown(file));
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the hypervisor and checks that a loader will find its header.
pub(crate) fn build(project: &Project, debug: bool) -> Result<Image> {
    let profile = if debug { "checked" } else { "release" };
    let toolchain = Toolchain::choose()?;
    let mut command = toolchain.cargo("build", &project.root, &project.target);
    command.args(["--profile", profile, "--package", "hypervisor", "--bin", "xenith"]);
    command.env("CARGO_ENCODED_RUSTFLAGS", rustflags(project));
    command.env("XENITH_COMMIT", project.commit());
    process::run(&mut command).context("the hypervisor does not build")?;
    let linked = toolchain.products(&project.target, profile).join("xenith");
    let out = if debug { project.out()?.join("debug") } else { project.out()? };
    finish(&out, &linked)
}

/// The compiler flags of the hypervisor, in cargo's encoding.
pub(crate) fn rustflags(project: &Project) -> String {
    let script = format!("-Clink-arg=-T{}", project.root.join("linker.ld").display());
    let flags: Vec<&str> = RUSTFLAGS.iter().copied().chain([script.as_str()]).collect();
    flags.join("\u{1f}")
}

/// Strips and compresses the linked program into a directory.
fn finish(out: &Path, linked: &Path) -> Result<Image> {
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let image = Image { elf: out.join("xenith"), gz: out.join("xenith.gz"), syms: out.join("xenith-syms") };
    fs::copy(linked, &image.syms).with_context(|| format!("cannot copy {}", linked.display()))?;
    let mut strip = Command::new("strip");
    strip.arg("--strip-all").arg("-o").args([&image.elf, &image.syms]);
    process::run(&mut strip)?;
    let elf = project::read(&image.elf)?;
    multiboot::find_header(&elf).with_context(|| format!("{} cannot be booted", image.elf.display()))?;
    project::write(&image.gz, gzip(&elf)?)?;
    Ok(image)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
