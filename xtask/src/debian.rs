// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files out of Debian packages that are downloaded and unpacked, never installed: kernels, the C hypervisor, the Xen tools.
//!
//! Each package is unpacked once into the cache, in a directory named for it; later runs use that and need no network.

use crate::project::{self, made};
use crate::{process, setup};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
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

/// A file of a package, which is fetched if the cache does not have it.
pub(crate) fn file(package: &str, path: &str) -> Result<PathBuf> {
    Ok(tree(package)?.join(path))
}

/// The directory that a package is unpacked to; it is fetched if the cache does not have it.
pub(crate) fn tree(package: &str) -> Result<PathBuf> {
    package_of(package, |name| Ok(name.to_owned()))
}

/// The shared libraries that these programs need, directly or through each other, by the names that programs know them
/// by; each is looked for in these packages.
pub(crate) fn libraries(programs: &[PathBuf], packages: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut dirs = Vec::new();
    for package in packages {
        let tree = tree(package)?;
        dirs.extend(["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|dir| tree.join(dir)));
    }
    let mut found = BTreeMap::new();
    let mut unseen = programs.to_vec();
    while !unseen.is_empty() {
        let said = process::output(Command::new("readelf").args(["-d", "-W"]).args(&unseen))?;
        unseen.clear();
        for name in needed(&said) {
            if !found.contains_key(name) {
                let file = dirs.iter().map(|dir| dir.join(name)).find(|file| file.is_file());
                let file = file.with_context(|| format!("none of the packages has {name}"))?;
                unseen.push(file.clone());
                found.insert(name.to_owned(), file);
            }
        }
    }
    Ok(found)
}

/// The names of libraries in what `readelf -d` says.
fn needed(said: &str) -> impl Iterator<Item = &str> {
    let names = said.lines().filter(|line| line.contains("(NEEDED)"));
    names.filter_map(|line| line.rsplit_once('[')?.1.strip_suffix(']'))
}

/// The files of these kernel modules and of all that they need, each after those it needs. What is built into the kernel
/// has no file.
pub(crate) fn modules(names: &[&str]) -> Result<Vec<PathBuf>> {
    let versions = package_of(Flavour::Amd64.metapackage(), newest_kernel)?.join("lib/modules");
    let tree = only_file(&versions, |_| true)?;
    let builtin = fs::read_to_string(tree.join("modules.builtin"))?;
    let builtin: Vec<String> = builtin.lines().map(|line| module_name(Path::new(line))).collect();
    let mut files = Vec::new();
    collect_modules(&tree.join("kernel"), &mut files)?;
    let mut ordered = Vec::new();
    for name in names {
        add_module(&canonical(name), &files, &builtin, &mut ordered)?;
    }
    Ok(ordered)
}

/// A module's name as the kernel writes it.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn module_name(file: &Path) -> String {
    canonical(file.file_stem().unwrap_or_default().to_string_lossy().as_ref())
}

fn collect_modules(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_modules(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn add_module(name: &str, files: &[PathBuf], builtin: &[String], ordered: &mut Vec<PathBuf>) -> Result<()> {
    let Some(file) = files.iter().find(|file| module_name(file) == name) else {
        ensure!(builtin.iter().any(|other| other == name), "the kernel has no module {name}");
        return Ok(());
    };
    if !ordered.contains(file) {
        for needed in dependencies(&project::read(file)?) {
            add_module(&needed, files, builtin, ordered)?;
        }
        ordered.push(file.clone());
    }
    Ok(())
}

/// What a module says that it depends on, in one of its NUL-terminated strings.
fn dependencies(module: &[u8]) -> Vec<String> {
    let strings = module.split(|&byte| byte == 0);
    let list = strings.filter_map(|string| string.strip_prefix(b"depends=")).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(canonical).collect()
}

/// The C hypervisor of Debian 12 (its gzip-compressed image), fetched if the cache has none.
pub(crate) fn c_hypervisor() -> Result<PathBuf> {
    let dir = tree("xen-hypervisor-4.17-amd64")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_its_libraries() {
        let said = " 0x0000000000000001 (NEEDED)             Shared library: [libxenctrl.so.4.17]\n\
                     0x000000000000000e (SONAME)             Library soname: [libxenstat.so.4.17]\n";
        assert_eq!(needed(said).collect::<Vec<_>>(), ["libxenctrl.so.4.17"]);
    }

    #[test]
    fn a_module_names_what_it_needs() {
        assert_eq!(
            dependencies(b"\x7fELF\0license=GPL\0depends=nvme-core,crc64\0retpoline=Y\0"),
            ["nvme_core", "crc64"]
        );
        assert!(dependencies(b"depends=\0name=evdev\0").is_empty());
        assert_eq!(module_name(Path::new("kernel/drivers/usb/storage/usb-storage.ko")), "usb_storage");
    }
}
