// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: what things cost on Xenith, on the C hypervisor and without either, from one run.
//!
//! Parts, each a table of docs/performance.md: instructions of hot paths, of one domain's and of several's ([`paths`]), what
//! programs pay on Linux ([`linux`]), and boots ([`boot`]).

mod boot;
mod linux;
mod paths;
mod split;

use crate::debian;
use crate::project::{self, Project};
use crate::{build, guests, setup};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures hot paths, what programs pay on Linux, and boots, beside Debian's xen-hypervisor-4.17-amd64.
///
/// Without --paths, --guests, --linux and --boot it does all of them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Put the tables into docs/performance.md
    #[arg(long)]
    write: bool,
    /// Count the instructions of hot paths
    #[arg(long)]
    paths: bool,
    /// Count the instructions of what domains do with each other
    #[arg(long)]
    guests: bool,
    /// Measure what programs pay, on bare Linux too
    #[arg(long)]
    linux: bool,
    /// Measure how long Linux takes from the loader's hand-over to its first line, to init and to the shell
    #[arg(long)]
    boot: bool,
    /// Of the programs' rows, only those whose name contains one of these texts
    #[arg(long, value_name = "TEXT,...", requires = "linux", conflicts_with = "write")]
    rows: Option<String>,
    /// Of the programs' rows, only wall time or only instructions
    #[arg(long, value_enum, requires = "linux", conflicts_with = "write")]
    only: Option<linux::Clock>,
    /// How often each machine is booted for wall time; the best round counts
    #[arg(long, value_name = "COUNT", requires = "linux", default_value_t = 3)]
    rounds: u32,
    /// Measure on Xenith only (hot paths, unless another part is named)
    #[arg(long, conflicts_with_all = ["write", "only_c"])]
    only_ours: bool,
    /// Measure on the C hypervisor only (hot paths, unless another part is named)
    #[arg(long, conflicts_with = "write")]
    only_c: bool,
    /// Seconds until a machine counts as hung
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    timeout: u64,
}

/// A measured operation and its figure.
type Row = (String, f64);

/// What is measured.
#[derive(Debug, Clone)]
struct Subject {
    /// Its name in tables.
    name: &'static str,
    /// Its name in the names of files.
    stem: &'static str,
    /// The hypervisor, if it has one.
    hypervisor: Option<PathBuf>,
}

impl Args {
    fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// Xenith and the C hypervisor, as far as they are wanted.
    fn hypervisors(&self, project: &Project) -> Result<Vec<Subject>> {
        let mut subjects = Vec::new();
        if !self.only_ours {
            let hypervisor = Some(debian::c_hypervisor()?);
            subjects.push(Subject { name: "C hypervisor", stem: "c-hypervisor", hypervisor });
        }
        if !self.only_c {
            let hypervisor = Some(build::build(project, false)?.gz);
            subjects.push(Subject { name: "Xenith", stem: "xenith", hypervisor });
        }
        Ok(subjects)
    }
}

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let named = args.paths || args.guests || args.linux || args.boot;
    let alone = args.only_ours || args.only_c;
    if args.paths || !named {
        publish(project, args, "paths", &paths::table(project, args, guests::BENCH)?)?;
    }
    if args.guests || !named {
        publish(project, args, "guests", &paths::table(project, args, guests::BENCH_DOMAINS)?)?;
    }
    if args.linux || (!named && !alone) {
        publish(project, args, "linux", &linux::tables(project, args)?)?;
    }
    if args.boot || (!named && !alone) {
        publish(project, args, "boot", &boot::table(project, args)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a part's tables and, if asked to, puts them between the part's marks in the document.
fn publish(project: &Project, args: &Args, part: &str, tables: &str) -> Result<()> {
    print!("{tables}");
    if args.write {
        let file = project.root.join("docs/performance.md");
        let text = String::from_utf8(project::read(&file)?)?;
        project::write(&file, replaced(&text, part, tables)?)?;
        println!("written to {}", project.shown(&file));
    }
    Ok(())
}

const END: &str = "<!-- end -->";

/// The document with other text between the marks of a part.
fn replaced(text: &str, part: &str, tables: &str) -> Result<String> {
    let mark = format!("<!-- cargo xtask bench --write: {part} -->");
    let begin = text.find(&mark).with_context(|| format!("docs/performance.md has no line '{mark}'"))?;
    let end = begin + text[begin..].find(END).with_context(|| format!("docs/performance.md has no line '{END}'"))?;
    Ok(format!("{}{mark}\n{tables}{}", &text[..begin], &text[end..]))
}

/// The `bench NAME FIGURE` lines; names may have several words.
fn rows(text: &str) -> Vec<Row> {
    let parse = |line: &str| {
        let (name, figure) = line.trim().strip_prefix("bench ")?.rsplit_once(' ')?;
        Some((name.trim().to_owned(), figure.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}

/// The names of all rows, in the order of the first list that has them.
fn names<'a>(lists: &[&'a [Row]]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in lists.iter().copied().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// The figure of a row, if it was measured.
fn figure(rows: &[Row], name: &str) -> Option<f64> {
    rows.iter().find(|row| row.0 == name).map(|row| row.1)
}

/// A figure in a table.
fn shown(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marked_part_of_the_document_changes() {
        let mark = |part| format!("<!-- cargo xtask bench --write: {part} -->\nold\n{END}\n");
        let text = format!("before\n{}between\n{}after\n", mark("a"), mark("b"));
        let new = replaced(&text, "b", "new\n").expect("the marks are there");
        assert_eq!(new, text.replace(&mark("b"), &mark("b").replace("old", "new")));
        assert!(replaced("no marks", "a", "new\n").is_err());
    }

    #[test]
    fn lines_become_rows() {
        let rows = rows("noise\nbench null hypercall 150.2\r\nbench page fault 900\n");
        assert_eq!(names(&[&rows, &rows]), ["null hypercall", "page fault"]);
        assert_eq!(figure(&rows, "page fault"), Some(900.0));
        assert_eq!(shown(figure(&rows, "fork"), 2), "-");
    }
}
