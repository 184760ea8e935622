// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things lie: the checkout, its build directory, the user's cache; and which commit this is.

use anyhow::{Context, Result};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The checkout and the directories that belong to it.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The workspace root.
    pub(crate) root: PathBuf,
    /// Cargo's target directory (`CARGO_TARGET_DIR`, else `target` in the checkout).
    pub(crate) target: PathBuf,
}

impl Project {
    /// Finds the checkout this program was built from.
    pub(crate) fn locate() -> Result<Self> {
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask does not lie in a workspace")?.to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => std::path::absolute(dir)?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The directory all products go to, made if missing.
    pub(crate) fn out(&self) -> Result<PathBuf> {
        made(self.target.join("xenith"))
    }

    /// The directory of the test logs, made if missing.
    pub(crate) fn logs(&self) -> Result<PathBuf> {
        made(self.target.join("xenith/logs"))
    }

    /// `git describe` of the checkout, or "unknown" outside a repository.
    pub(crate) fn commit(&self) -> String {
        Command::new("git")
            .arg("-C")
            .arg(&self.root)
            .args(["describe", "--always", "--dirty", "--abbrev=12"])
            .output()
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_else(|| "unknown".to_owned())
    }

    /// A path as a person would type it from the checkout.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// The user's cache directory for downloaded packages, outside the tree.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    made(base.join("xenith"))
}

/// Makes a directory with its parents and returns it.
pub(crate) fn made(dir: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Writes a file; names it when that fails.
pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a file; names it when that fails.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
