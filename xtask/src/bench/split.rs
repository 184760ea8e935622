// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many of a row's instructions are the hypervisor's own: QEMU counts them with the plugin of `tests/profile`.

use super::Row;
use crate::process;
use crate::project::{self, Project};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The last release of QEMU whose interface for plugins is the one that the plugin was written for.
const LAST: u32 = 8;

/// The plugin, built; `None` where QEMU does not take it.
pub(super) fn plugin(project: &Project) -> Result<Option<PathBuf>> {
    static SAID: OnceLock<()> = OnceLock::new();
    let version = process::output(Command::new("qemu-system-x86_64").arg("--version"))?;
    if major(&version).is_none_or(|major| major > LAST) {
        SAID.get_or_init(|| {
            println!("this QEMU is newer than {LAST}: the hypervisors' own instructions are not counted")
        });
        return Ok(None);
    }
    let plugin = project.out()?.join("split.so");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(&plugin);
    gcc.arg(project.root.join("tests/profile/split.c"));
    process::run(&mut gcc).context("tests/profile does not build")?;
    Ok(Some(plugin))
}

/// The number in `QEMU emulator version 7.2.22 (Debian ...)`.
fn major(version: &str) -> Option<u32> {
    version.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// Has a machine write what it counts into a file.
pub(super) fn attach(command: &mut Command, plugin: &Path, out: &Path) {
    command.arg("-plugin").arg(format!("{},out={}", plugin.display(), out.display()));
}

/// The hypervisor's instructions for one operation of each row: what the plugin wrote, by what the program says it did.
pub(super) fn own(out: &Path, text: &str) -> Result<Vec<Row>> {
    let counts = String::from_utf8(project::read(out)?)?;
    Ok(per_operation(&counts, text))
}

fn per_operation(counts: &str, text: &str) -> Vec<Row> {
    let operations = text.lines().filter_map(|line| {
        let (name, count) = line.trim().strip_prefix("operations ")?.rsplit_once(' ')?;
        Some((name.to_owned(), count.parse::<f64>().ok()?))
    });
    let hypervisor = counts.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok());
    operations.zip(hypervisor).map(|((name, operations), count)| (name, count / operations)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_meet_their_rows() {
        let text = "bench fork 300\noperations fork 10\nnoise\noperations exec 4\n";
        assert_eq!(per_operation("1 2 30\n5 6 20\n", text), [("fork".to_owned(), 3.0), ("exec".to_owned(), 5.0)]);
        assert_eq!(major("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright"), Some(7));
        assert_eq!(major("nonsense"), None);
    }
}
