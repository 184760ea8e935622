// SPDX-License-Identifier: MIT OR Apache-2.0
//! Instructions of hot paths, which the bench guests (`tests/guests/src/bin/bench.rs`, `benchdomains.rs`) count by themselves.
//!
//! Under `-icount shift=0` one instruction is one nanosecond of the machine's time, so the figures are the same on each run
//! and on any computer.

use super::{Args, Row, Subject, figure, names, rows, shown};
use crate::guests;
use crate::iso::{self, HV_CONSOLE, Module, Payload};
use crate::machine::{MachineArgs, Serial};
use crate::process::Scratch;
use crate::project::Project;
use crate::serial::{Console, Event};
use crate::symbols::Filter;
use anyhow::{Result, bail, ensure};
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

/// A processor that both hypervisors can use in full, since the figures are compared. The C hypervisor does not run with
/// SMAP here.
const CPU: &str = "max,-la57,-xsave,-avx";
const CPU_OF_C: &str = "max,-la57,-xsave,-avx,-smap";

/// Runs a guest that measures on each hypervisor.
pub(super) fn table(project: &Project, args: &Args, name: &str) -> Result<String> {
    let guest = guests::build(project)?.join(name);
    ensure!(guest.exists(), "there is no guest tests/guests/src/bin/{name}.rs");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for subject in args.hypervisors(project)? {
        let is_ours = subject.stem == "xenith";
        let cpu = if is_ours { CPU } else { CPU_OF_C };
        let rows = measure(project, args, &subject, cpu, &guest)?;
        if is_ours { ours = rows } else { theirs = rows }
    }
    Ok(compared(&ours, &theirs))
}

/// Boots the bench guest on a hypervisor and reads its lines.
fn measure(project: &Project, args: &Args, subject: &Subject, cpu: &str, guest: &Path) -> Result<Vec<Row>> {
    println!("counting on {}", subject.name);
    let logs = project.logs()?;
    let name = guest.file_name().unwrap_or_default().display();
    let scratch = Scratch::new(logs.join(format!("{name}-{}.files", subject.stem)))?;
    let iso_path = scratch.path().join("boot.iso");
    let kernel = Module { name: "vmlinuz", file: guest.to_path_buf(), cmdline: Some(String::new()) };
    let hypervisor = subject.hypervisor.clone();
    let names = Filter::new(&hypervisor.clone().unwrap_or_default());
    iso::make(
        &Payload { hypervisor, hv_cmdline: format!("{HV_CONSOLE} dom0_mem=256M"), modules: vec![kernel] },
        &iso_path,
    )?;
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
    let log = logs.join(format!("{name}-{}.log", subject.stem));
    let mut console = Console::start(&mut command, &log, names)?;
    let deadline = Instant::now() + args.limit();
    while guests::Report::parse(console.text()).done.is_none() {
        match console.next(deadline)? {
            Event::Text => {}
            Event::Ended(_) => break,
            Event::Timeout => bail!("the bench guest did not finish on {}; see {}", subject.name, log.display()),
        }
    }
    let rows = rows(console.text());
    ensure!(!rows.is_empty(), "the bench guest printed no figures on {}; see {}", subject.name, log.display());
    Ok(rows)
}

/// Both columns and their ratio, as Markdown.
fn compared(ours: &[Row], theirs: &[Row]) -> String {
    let mut text = String::from("| operation | Xenith | C hypervisor | ratio |\n| --- | ---: | ---: | ---: |\n");
    for name in names(&[ours, theirs]) {
        let (our, their) = (figure(ours, name), figure(theirs, name));
        let ratio = our.zip(their).filter(|(_, their)| *their > 0.0).map(|(our, their)| our / their);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {} | {} | {} |", shown(our, 0), shown(their, 0), shown(ratio, 2));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_become_a_table_with_ratios() {
        let table =
            compared(&rows("bench null hypercall 150.2\nbench page fault 900\n"), &rows("bench null hypercall 300\n"));
        assert!(table.contains("| null hypercall | 150 | 300 | 0.50 |\n"));
        assert!(table.contains("| page fault | 900 | - | - |\n"));
    }
}
