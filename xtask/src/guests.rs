// SPDX-License-Identifier: MIT OR Apache-2.0
//! The test guests: which there are, their build, and what their report says.

use crate::process;
use crate::project::{self, Project};
use crate::toolchain::Toolchain;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::PathBuf;

/// The guest that measures one domain's hot paths; it is no test.
pub(crate) const BENCH: &str = "bench";
/// The guest that measures what domains do with each other.
pub(crate) const BENCH_DOMAINS: &str = "benchdomains";

/// What `tests/guests/guests.toml` says of one guest: the machine it needs, and how much it checks there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// What the test is called.
    pub(crate) name: String,
    /// The program.
    pub(crate) binary: String,
    /// CPUs.
    pub(crate) cpus: Option<u32>,
    /// MiB of memory.
    pub(crate) memory: Option<u32>,
    /// Further QEMU options.
    #[serde(default)]
    pub(crate) qemu: String,
    /// Further options of the hypervisor.
    #[serde(default)]
    pub(crate) hypervisor: String,
    /// The guest's command line.
    #[serde(default)]
    pub(crate) cmdline: String,
    /// Seconds until it counts as hung.
    pub(crate) timeout: Option<u64>,
    /// The least number of checks that must have held.
    #[serde(default)]
    pub(crate) passed: usize,
    /// What the hypervisor's log must tell of it.
    #[serde(default)]
    pub(crate) expect: Vec<String>,
    /// True for a guest that counts instructions instead of checking.
    #[serde(default)]
    pub(crate) icount: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    guest: Vec<Entry>,
}

/// The guests that `tests/guests/guests.toml` lists.
pub(crate) fn listed(project: &Project) -> Result<Vec<Entry>> {
    let file = project.root.join("tests/guests/guests.toml");
    let text = String::from_utf8(project::read(&file)?)?;
    let list: List = toml::from_str(&text).with_context(|| format!("in {}", file.display()))?;
    Ok(list.guest)
}

/// Builds all guests and returns the directory that holds their programs.
pub(crate) fn build(project: &Project) -> Result<PathBuf> {
    let toolchain = Toolchain::choose()?;
    let target = project.target.join("guests");
    let mut command = toolchain.cargo("build", &project.root.join("tests/guests"), &target);
    command.args(["--release", "--bins"]);
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    process::run(&mut command).context("the test guests do not build")?;
    Ok(toolchain.products(&target, "release"))
}

/// What a guest's lines say: `ok NAME`, `not ok NAME: WHY`, `skip NAME: WHY`, and `done PASSED FAILED` at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Checks that held.
    pub(crate) passed: usize,
    /// The lines of those that did not.
    pub(crate) failed: Vec<String>,
    /// Checks that could not be made.
    pub(crate) skipped: usize,
    /// The guest's own counts, once it is done.
    pub(crate) done: Option<(usize, usize)>,
}

impl Report {
    /// Reads the complete lines of a serial log.
    pub(crate) fn parse(text: &str) -> Self {
        let mut report = Self::default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in complete.lines().map(str::trim) {
            if line.starts_with("ok ") {
                report.passed += 1;
            } else if line.starts_with("not ok ") {
                report.failed.push(line.to_owned());
            } else if line.starts_with("skip ") {
                report.skipped += 1;
            } else if let Some(counts) = line.strip_prefix("done ") {
                let mut numbers = counts.split_whitespace().map(str::parse);
                if let (Some(Ok(passed)), Some(Ok(failed))) = (numbers.next(), numbers.next()) {
                    report.done = Some((passed, failed));
                }
            }
        }
        report
    }

    /// Why the report is no success, if it is none.
    pub(crate) fn complaint(&self, least: usize) -> Option<String> {
        match self.done {
            _ if !self.failed.is_empty() => Some(self.failed.join("\n  ")),
            None => Some("the guest did not finish".to_owned()),
            Some((0, 0)) => Some("the guest checked nothing".to_owned()),
            Some((passed, 0)) if passed < least => {
                Some(format!("the guest made {passed} checks, at least {least} were expected"))
            }
            Some((passed, 0)) if passed == self.passed => None,
            Some((passed, failed)) => Some(format!(
                "the guest counts {passed} passed and {failed} failed, its lines say {} and 0",
                self.passed
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_report_without_failures_passes() {
        let report = Report::parse("(XEN) boot\nok a\nok b\nskip c: no such CPU\ndone 2 0\n");
        assert_eq!((report.passed, report.skipped, report.complaint(0)), (2, 1, None));
    }

    #[test]
    fn lost_lines_and_failures_are_complaints() {
        assert!(Report::parse("ok a\ndone 2 0\n").complaint(0).is_some());
        assert!(Report::parse("ok a\ndone 1 0\n").complaint(2).is_some());
        assert!(Report::parse("ok a\nnot ok b: 1\ndone 1 1\n").complaint(0).is_some());
        assert!(Report::parse("ok a\n").complaint(0).is_some());
        assert!(Report::parse("ok a\ndone 1 0").complaint(0).is_some());
    }
}
