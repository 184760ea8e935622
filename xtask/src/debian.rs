// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files out of Debian packages that are downloaded and unpacked, never installed: kernels and the C hypervisor.
//!
//! Each package is unpacked once into the cache, in a directory named for it; later runs use that and need no network.

use crate::project::{self, made};
use crate::{process, setup};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which build of the distribution's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Flavour {
    /// linux-image-amd64, which can be dom0
    Amd64,
    /// linux-image-cloud-amd64, which can only be a guest of another domain
    Cloud,
}

impl Flavour {
    fn metapackage(self) -> &'static str {
        match self {
            Self::Amd64 => "linux-image-amd64",
            Self::Cloud => "linux-image-cloud-amd64",
        }
    }
}

/// The image of the distribution's kernel, fetched if the cache has none of this flavour.
pub(crate) fn kernel(flavour: Flavour) -> Result<PathBuf> {
    let dir = package_of(flavour.metapackage(), newest_kernel)?;
    only_file(&dir.join("boot"), |name| name.starts_with("vmlinuz-"))
}

/// The C hypervisor of Debian 12 (its gzip-compressed image), fetched if the cache has none.
pub(crate) fn c_hypervisor() -> Result<PathBuf> {
    let dir = package_of("xen-hypervisor-4.17-amd64", |name| Ok(name.to_owned()))?;
    only_file(&dir.join("boot"), |name| name.starts_with("xen-") && name.ends_with(".gz"))
}

/// The unpacked package for a cache key; `resolve` names the real package when it has to be fetched.
fn package_of(key: &str, resolve: impl Fn(&str) -> Result<String>) -> Result<PathBuf> {
    let dir = project::cache()?.join(key);
    if !dir.exists() {
        setup::update_lists()?;
        fetch(&resolve(key)?, &dir)?;
    }
    Ok(dir)
}

/// The versioned image package that a kernel metapackage depends on.
fn newest_kernel(metapackage: &str) -> Result<String> {
    let said = process::output(Command::new("apt-cache").args(["depends", metapackage]))?;
    said.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
        .with_context(|| format!("{metapackage} depends on no kernel image"))
}

/// Downloads a package and unpacks it to `dir`, which appears only when it is complete.
fn fetch(package: &str, dir: &Path) -> Result<()> {
    let work = made(dir.with_extension(format!("partial-{}", std::process::id())))?;
    println!("fetching {package}");
    let mut download = Command::new("apt-get");
    download.args(["-q", "download", package]).current_dir(&work);
    if setup::is_root()? {
        download.args(["-o", "APT::Sandbox::User=root"]);
    }
    process::output(&mut download).with_context(|| format!("cannot download {package}"))?;
    let archive = only_file(&work, |name| name.ends_with(".deb"))?;
    println!("unpacking {package} to {}", dir.display());
    let tree = work.join("tree");
    process::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree))?;
    if fs::rename(&tree, dir).is_err() && !dir.exists() {
        bail!("cannot move {} to {}", tree.display(), dir.display());
    }
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn only_file(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| wanted(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.pop().with_context(|| format!("{} holds no such file", dir.display()))
}
