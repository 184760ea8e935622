// SPDX-License-Identifier: MIT OR Apache-2.0
//! The test initramfs: busybox, the files of `tests/initramfs/root`, the userland workload in 64 and 32 bits, and the few
//! modules of the kernel that tests need everywhere. Another one has the distribution's drivers too, and the program that
//! tests them; [`crate::tools`] makes one with the Xen tools, and one for their guests.
//!
//! The archives depend on nothing but these, so they are the same for every machine and command line.

use crate::cpio::Archive;
use crate::debian;
use crate::process;
use crate::project::{self, Project};
use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const BUSYBOX: &str = "/bin/busybox";
/// Modules that tests load by name.
const FEW_MODULES: &[&str] = &["efivarfs"];

/// The drivers, besides those that they need.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "sd_mod",
    "ahci",
    "ata_piix",
    "nvme",
    "e1000",
    "e1000e",
    "xhci_pci",
    "usb_storage",
    "usbhid",
    "hid_generic",
    "evdev",
];

/// Makes the archive (only if its bytes changed) and returns its path.
pub(crate) fn make(project: &Project) -> Result<PathBuf> {
    store(project, "initrd.img", basis(project)?)
}

/// The program that tests drivers, from `tests/drivers`.
pub(crate) const DRIVER_TEST: &str = "drivertest";

/// Makes the archive with drivers.
pub(crate) fn make_with_drivers(project: &Project) -> Result<PathBuf> {
    let mut archive = basis(project)?;
    add_modules(&mut archive, MODULES)?;
    for (dir, name) in [("drivers", DRIVER_TEST), ("bench", "benchmark")] {
        add_program(&mut archive, project, dir, name)?;
    }
    add_compiler(&mut archive)?;
    store(project, "initrd-drivers.img", archive)
}

/// Adds a test program, compiled from the sources in this directory of `tests`.
pub(crate) fn add_program(archive: &mut Archive, project: &Project, dir: &str, name: &str) -> Result<()> {
    let program = compiled(project, dir, name, "64")?;
    archive.file(&format!("tests/{name}"), 0o755, &project::read(&program)?);
    Ok(())
}

/// Adds these modules and those that they need, with a list of them in the order in which they can be loaded.
pub(crate) fn add_modules(archive: &mut Archive, names: &[&str]) -> Result<()> {
    let mut order = String::new();
    for module in debian::modules(names)? {
        let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.file(&format!("modules/{name}"), 0o644, &project::read(&module)?);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    Ok(())
}

/// A small compiler of the distribution's, with the libraries that it needs.
fn add_compiler(archive: &mut Archive) -> Result<()> {
    let library = |name: &str| debian::file("libc6", &format!("lib/x86_64-linux-gnu/{name}"));
    archive.file("bin/tcc", 0o755, &project::read(&debian::file("tcc", "usr/bin/tcc")?)?);
    for dir in ["lib", "lib64"] {
        archive.directory(dir, 0o755);
    }
    archive.file(LOADER, 0o755, &project::read(&library("ld-linux-x86-64.so.2")?)?);
    for name in ["libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"] {
        archive.file(&format!("lib/{name}"), 0o644, &project::read(&library(name)?)?);
    }
    Ok(())
}

/// The loader of programs with libraries, by the name that they know.
pub(crate) const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// What all test machines have.
pub(crate) fn basis(project: &Project) -> Result<Archive> {
    let mut archive = shell(project)?;
    for module in debian::modules(FEW_MODULES)? {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{name}"), 0o644, &project::read(&module)?);
    }
    for bits in ["64", "32"] {
        let program = compiled(project, "workload", &format!("workload{bits}"), bits)?;
        archive.file(&format!("tests/workload{bits}"), 0o755, &project::read(&program)?);
    }
    Ok(archive)
}

/// Enough for a shell.
pub(crate) fn shell(project: &Project) -> Result<Archive> {
    let mut archive = Archive::default();
    for dir in ["bin", "sbin", "dev", "proc", "sys", "run", "tmp", "root", "usr", "usr/bin", "usr/sbin"] {
        archive.directory(dir, 0o755);
    }
    archive.character("dev/console", 0o600, (5, 1));
    archive.character("dev/null", 0o666, (1, 3));
    archive.file("bin/busybox", 0o755, &project::read(Path::new(BUSYBOX))?);
    archive.symlink("bin/sh", "busybox");
    add_tree(&mut archive, &project.root.join("tests/initramfs/root"), "")?;
    archive.directory("modules", 0o755);
    Ok(archive)
}

/// Writes the archive, compressed, if its bytes have changed.
pub(crate) fn store(project: &Project, name: &str, archive: Archive) -> Result<PathBuf> {
    store_bytes(project, name, &packed(archive)?)
}

/// The archive, compressed for speed.
pub(crate) fn packed(archive: Archive) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&archive.finish())?;
    Ok(encoder.finish()?)
}

/// Writes a file of the output directory, if its bytes have changed.
pub(crate) fn store_bytes(project: &Project, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let path = project.out()?.join(name);
    if fs::read(&path).ok().as_deref() != Some(bytes) {
        project::write(&path, bytes)?;
    }
    Ok(path)
}

/// Adds a directory of the host with its modes and links, in the order of names.
pub(crate) fn add_tree(archive: &mut Archive, dir: &Path, prefix: &str) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut entries: Vec<_> = entries.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata()?;
        if metadata.is_symlink() {
            archive.symlink(&name, &fs::read_link(entry.path())?.to_string_lossy());
            continue;
        }
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        if metadata.is_dir() {
            archive.directory(&name, 0o755);
            add_tree(archive, &entry.path(), &format!("{name}/"))?;
        } else {
            archive.file(&name, mode, &project::read(&entry.path())?);
        }
    }
    Ok(())
}

/// Compiles a directory of `tests` for this word size, if a file of its source is newer than the program.
fn compiled(project: &Project, dir: &str, program: &str, bits: &str) -> Result<PathBuf> {
    let dir = project.root.join("tests").join(dir);
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut sources: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    sources.sort();
    let program = project.out()?.join(program);
    let modified = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
    let wrote = sources.iter().filter_map(|file| modified(file).ok()).max();
    if modified(&program).ok() <= wrote {
        sources.retain(|file| file.extension().is_some_and(|extension| extension == "c"));
        let mut gcc = Command::new("gcc");
        gcc.arg(format!("-m{bits}"))
            .args(["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-s", "-o"])
            .arg(&program)
            .args(&sources);
        process::run(&mut gcc).with_context(|| format!("{} does not build", program.display()))?;
    }
    Ok(program)
}
