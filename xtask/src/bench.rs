// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: instructions for hot paths, on Xenith and on the C hypervisor, from one run.
//!
//! The bench guest reads its own instruction count: under `-icount shift=0` one instruction is one nanosecond of the
//! machine's time, so the figures are the same on each run and on any computer.

use crate::build;
use crate::debian::{self, Flavour};
use crate::guests;
use crate::iso::{self, HV_CONSOLE, Module, Payload};
use crate::machine::{C_HYPERVISOR_CPU, MachineArgs, Serial};
use crate::project::{self, Project};
use crate::runner::{self, Files};
use crate::serial::{Console, Event};
use crate::symbols::Filter;
use crate::{initramfs, scenario, setup};
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Counts instructions of hot paths, on Xenith and on Debian's xen-hypervisor-4.17-amd64.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Put the table into docs/performance.md
    #[arg(long)]
    write: bool,
    /// Count on Xenith only
    #[arg(long, conflicts_with_all = ["write", "only_c"])]
    only_ours: bool,
    /// Count on the C hypervisor only
    #[arg(long, conflicts_with = "write")]
    only_c: bool,
    /// Measure instead how long Linux takes from the loader's hand-over to its first line, to init and to the shell
    #[arg(long, conflicts_with_all = ["write", "only_ours", "only_c"])]
    boot: bool,
    /// Seconds until a run counts as hung
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

/// A measured operation and its instructions.
type Row = (String, f64);

/// A processor that both hypervisors can use in full, since the figures are compared. The C hypervisor does not run with
/// SMAP here.
const BENCH_CPU: &str = "max,-la57,-xsave,-avx";
const BENCH_CPU_C: &str = "max,-la57,-xsave,-avx,-smap";

/// The table stands between these lines of docs/performance.md.
const BEGIN: &str = "<!-- cargo xtask bench --write: begin -->";
const END: &str = "<!-- end -->";

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    if args.boot {
        return boot_times(project);
    }
    let programs = guests::build(project)?;
    let guest = programs.join(guests::BENCH);
    ensure!(guest.exists(), "there is no guest tests/guests/src/bin/{}.rs", guests::BENCH);
    let limit = Duration::from_secs(args.timeout);
    let ours = if args.only_c {
        Vec::new()
    } else {
        let hypervisor = build::build(project, false)?.gz;
        measure(project, "xenith", hypervisor, BENCH_CPU, &guest, limit)?
    };
    let theirs = if args.only_ours {
        Vec::new()
    } else {
        measure(project, "c-hypervisor", debian::c_hypervisor()?, BENCH_CPU_C, &guest, limit)?
    };
    let table = table(&ours, &theirs);
    print!("{table}");
    if args.write {
        let file = project.root.join("docs/performance.md");
        let text = String::from_utf8(project::read(&file)?)?;
        project::write(&file, replaced(&text, &table)?)?;
        println!("written to {}", project.shown(&file));
    }
    Ok(ExitCode::SUCCESS)
}

/// Boots Linux to the shell on both hypervisors and prints when what was reached.
fn boot_times(project: &Project) -> Result<ExitCode> {
    let linux = (debian::kernel(Flavour::Amd64)?, initramfs::make(project)?);
    let subjects = [
        ("Xenith", build::build(project, false)?.gz, "max"),
        ("C hypervisor", debian::c_hypervisor()?, C_HYPERVISOR_CPU),
    ];
    println!("| hypervisor | reached | s after the hand-over | s of QEMU's CPU time |");
    println!("| --- | --- | ---: | ---: |");
    for (name, hypervisor, cpu) in subjects {
        let files = Files { cpu: cpu.to_owned(), linux: Some(linux.clone()), ..Files::new(Some(hypervisor)) };
        let outcome = runner::run(project, &files, &scenario::boot_to_shell(name));
        if let Some(failure) = outcome.failure {
            bail!("Linux did not boot on {name}: {failure}");
        }
        for (mark, time) in outcome.marks {
            let (wall, cpu) = (time.wall.as_secs_f64(), time.cpu.as_secs_f64());
            println!("| {name} | {mark} | {wall:.2} | {cpu:.2} |");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Boots the bench guest on a hypervisor and reads its lines.
fn measure(
    project: &Project,
    name: &str,
    hypervisor: PathBuf,
    cpu: &str,
    guest: &Path,
    limit: Duration,
) -> Result<Vec<Row>> {
    println!("measuring on {name}");
    let logs = project.logs()?;
    let iso_path = logs.join(format!("bench-{name}.iso"));
    let kernel = Module { name: "vmlinuz", file: guest.to_path_buf(), cmdline: Some(String::new()) };
    let names = Filter::new(&hypervisor);
    let payload = Payload { hypervisor: Some(hypervisor), hv_cmdline: HV_CONSOLE.to_owned(), modules: vec![kernel] };
    iso::make(&payload, &iso_path)?;
    let machine = MachineArgs {
        smp: 1,
        mem: "512M".to_owned(),
        uefi: false,
        cpu: Some(cpu.to_owned()),
        machine: "q35".to_owned(),
        accel: "tcg".to_owned(),
    };
    let mut command = machine.command(&iso_path, Serial::Pipes)?;
    command.args(["-icount", "shift=0,sleep=off"]);
    let log = logs.join(format!("bench-{name}.log"));
    let mut console = Console::start(&mut command, &log, names)?;
    let deadline = Instant::now() + limit;
    while !guests_end(console.text()) {
        match console.next(deadline)? {
            Event::Text => {}
            Event::Ended(_) => break,
            Event::Timeout => bail!("the bench guest did not finish on {name}; see {}", log.display()),
        }
    }
    let rows = rows(console.text());
    ensure!(!rows.is_empty(), "the bench guest printed no figures on {name}; see {}", log.display());
    Ok(rows)
}

fn guests_end(text: &str) -> bool {
    guests::Report::parse(text).done.is_some()
}

/// The `bench NAME INSTRUCTIONS` lines; names may have several words.
fn rows(text: &str) -> Vec<Row> {
    let parse = |line: &str| {
        let (name, figure) = line.trim().strip_prefix("bench ")?.rsplit_once(' ')?;
        Some((name.trim().to_owned(), figure.parse().ok()?))
    };
    text.lines().filter_map(parse).collect()
}

/// Both columns and their ratio, as Markdown.
fn table(ours: &[Row], theirs: &[Row]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in ours.iter().chain(theirs) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut text = String::from("| operation | Xenith | C hypervisor | ratio |\n| --- | ---: | ---: | ---: |\n");
    let find = |rows: &[Row], name: &str| rows.iter().find(|row| row.0 == name).map(|row| row.1);
    for name in names {
        let (our, their) = (find(ours, name), find(theirs, name));
        let shown =
            |figure: Option<f64>, digits| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.digits$}"));
        let ratio = our.zip(their).filter(|(_, their)| *their > 0.0).map(|(our, their)| our / their);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {} | {} | {} |", shown(our, 0), shown(their, 0), shown(ratio, 2));
    }
    text
}

/// The document with the table between its marks.
fn replaced(text: &str, table: &str) -> Result<String> {
    let begin = text.find(BEGIN).with_context(|| format!("docs/performance.md has no line '{BEGIN}'"))?;
    let end = begin + text[begin..].find(END).with_context(|| format!("docs/performance.md has no line '{END}'"))?;
    Ok(format!("{}{BEGIN}\n{table}{}", &text[..begin], &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_become_a_table_with_ratios() {
        let ours = rows("noise\nbench null hypercall 150.2\nbench page fault 900\n");
        let theirs = rows("bench null hypercall 300\r\n");
        let table = table(&ours, &theirs);
        assert!(table.contains("| null hypercall | 150 | 300 | 0.50 |\n"));
        assert!(table.contains("| page fault | 900 | - | - |\n"));
    }

    #[test]
    fn only_the_marked_part_of_the_document_changes() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replaced(&text, "new\n").expect("the marks are there");
        assert_eq!(new, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert!(replaced("no marks", "new\n").is_err());
    }
}
