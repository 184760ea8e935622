// SPDX-License-Identifier: MIT OR Apache-2.0
//! What programs pay on Linux: the program of `tests/bench` on bare Linux, on the C hypervisor and on Xenith, with the same
//! kernel, initramfs and machine.
//!
//! Twice: by the clock on the wall, disks and network included; and in instructions under `-icount`, where nothing depends
//! on another computer's speed, without what happens outside the machine.

use super::{Args, Row, Subject, figure, names, rows, shown, split};
use crate::debian::{self, Flavour};
use crate::devices::{self, Bus, Card, FIRST_NETWORK, Writes};
use crate::initramfs;
use crate::iso::{self, Module, Payload};
use crate::machine::{MachineArgs, Serial};
use crate::peer;
use crate::process::Scratch;
use crate::project::Project;
use crate::serial::{Console, Event};
use crate::symbols::Filter;
use anyhow::{Result, bail, ensure};
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How time is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Clock {
    /// Nanoseconds of the computer that emulates
    Wall,
    /// Instructions of the emulated machine
    Instructions,
}

/// A processor that all three can use in full: the C hypervisor does not run with SMAP here.
const CPU: &str = "max,-la57,-xsave,-avx,-smap";
const DISK: u64 = 64 << 20;
/// The program's last line.
const DONE: &str = "bench-done";

/// What all machines of one run share.
struct Setting {
    kernel: PathBuf,
    initrd: PathBuf,
    peer: u16,
    rows: String,
    /// What tells whose instructions they are.
    plugin: Option<PathBuf>,
}

/// Measures with both clocks, or with the one that was asked for.
pub(super) fn tables(project: &Project, args: &Args) -> Result<String> {
    let mut subjects = args.hypervisors(project)?;
    if !args.only_ours && !args.only_c {
        subjects.insert(0, Subject { name: "bare Linux", stem: "bare", hypervisor: None });
    }
    let setting = Setting {
        kernel: debian::kernel(Flavour::Amd64)?,
        initrd: initramfs::make_with_drivers(project)?,
        peer: peer::start()?,
        rows: args.rows.clone().unwrap_or_default(),
        plugin: split::plugin(project)?,
    };
    let mut text = String::new();
    for clock in [Clock::Instructions, Clock::Wall] {
        if args.only.is_some_and(|only| only != clock) {
            continue;
        }
        let mut columns: Vec<_> = subjects.iter().map(|subject| (subject.stem, Column::default())).collect();
        // In turn, so that what slows the computer down for a while slows all of them down.
        for _ in 0..if clock == Clock::Wall { args.rounds } else { 1 } {
            for (subject, column) in subjects.iter().zip(&mut columns) {
                let round = measure(project, args, &setting, subject, clock)?;
                best(&mut column.1.rows, round.rows);
                column.1.own = round.own;
            }
        }
        let unit = if clock == Clock::Wall { "ns" } else { "instructions" };
        let nothing = Column::default();
        let find = |stem| columns.iter().find(|column| column.0 == stem).map_or(&nothing, |column| &column.1);
        let [bare, c, ours] = ["bare", "c-hypervisor", "xenith"].map(find);
        text.push_str(&compared(unit, &bare.rows, &c.rows, &ours.rows));
        if !c.own.is_empty() || !ours.own.is_empty() {
            text.push('\n');
            text.push_str(&own(&c.own, &ours.own));
        }
        text.push('\n');
    }
    Ok(text)
}

/// What was measured on one subject.
#[derive(Debug, Default)]
struct Column {
    rows: Vec<Row>,
    /// The part of the instructions that is the hypervisor's, where that was counted.
    own: Vec<Row>,
}

/// Keeps the lower figure of each row.
fn best(column: &mut Vec<Row>, round: Vec<Row>) {
    for (name, figure) in round {
        match column.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.1 = row.1.min(figure),
            None => column.push((name, figure)),
        }
    }
}

/// Boots Linux with the program and reads its lines.
fn measure(project: &Project, args: &Args, setting: &Setting, subject: &Subject, clock: Clock) -> Result<Column> {
    println!("measuring on {} ({clock:?})", subject.name);
    let stem = project.logs()?.join(format!("bench-linux-{}-{clock:?}", subject.stem).to_lowercase());
    let scratch = Scratch::new(stem.with_extension("files"))?;
    let (iso_path, log) = (scratch.path().join("boot.iso"), stem.with_extension("log"));
    iso::make(&payload(setting, subject, clock), &iso_path)?;
    let machine = MachineArgs {
        smp: 1,
        mem: "1G".to_owned(),
        uefi: false,
        cpu: Some(CPU.to_owned()),
        machine: "q35".to_owned(),
        accel: "tcg".to_owned(),
    };
    let mut command = machine.command(&iso_path, Serial::Pipes)?;
    let mut counts = None;
    if clock == Clock::Wall {
        for (name, bus) in [("virtio", Bus::Virtio), ("nvme", Bus::Nvme)] {
            let image = scratch.path().join(name);
            File::create(&image)?.set_len(DISK)?;
            devices::attach_disk(&mut command, name, &image, bus, Writes::Raw);
        }
        devices::attach_card(&mut command, Card::Virtio, FIRST_NETWORK);
    } else {
        command.args(["-icount", "shift=0,sleep=off"]);
        counts =
            setting.plugin.as_ref().filter(|_| subject.hypervisor.is_some()).map(|_| stem.with_extension("counts"));
        if let (Some(plugin), Some(counts)) = (&setting.plugin, &counts) {
            split::attach(&mut command, plugin, counts);
        }
    }
    let names = Filter::new(subject.hypervisor.as_deref().unwrap_or(Path::new("")));
    let mut console = Console::start(&mut command, &log, names)?;
    let deadline = Instant::now() + args.limit();
    let complete = |text: &str| text.lines().any(|line| line.trim() == DONE);
    while !complete(console.text()) {
        match console.next(deadline)? {
            Event::Text => {}
            Event::Ended(_) => break,
            Event::Timeout => bail!("the benchmark did not finish on {}; see {}", subject.name, log.display()),
        }
    }
    ensure!(complete(console.text()), "the benchmark failed on {}; see {}", subject.name, log.display());
    let own = counts.map_or(Ok(Vec::new()), |counts| split::own(&counts, console.text()))?;
    Ok(Column { rows: rows(console.text()), own })
}

fn payload(setting: &Setting, subject: &Subject, clock: Clock) -> Payload {
    let console = if subject.hypervisor.is_some() { "console=hvc0" } else { "console=ttyS0,115200" };
    let peer = if clock == Clock::Wall { setting.peer.to_string() } else { String::new() };
    let cmdline = format!("quiet xenith.test=bench xenith.rows={} xenith.peer={peer} {console}", setting.rows);
    Payload {
        hypervisor: subject.hypervisor.clone(),
        // No log of guests' doings, which would be measured with them.
        hv_cmdline: "com1=115200,8n1 console=com1".to_owned(),
        modules: vec![
            Module { name: "vmlinuz", file: setting.kernel.clone(), cmdline: Some(cmdline) },
            Module { name: "initrd.img", file: setting.initrd.clone(), cmdline: None },
        ],
    }
}

/// All columns, as Markdown. The last one is the part of the C hypervisor's overhead that Xenith has.
fn compared(unit: &str, bare: &[Row], c: &[Row], ours: &[Row]) -> String {
    let mut text = format!(
        "| operation ({unit}) | bare Linux | C hypervisor | Xenith | C / bare | Xenith / bare | overheads' ratio |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    for name in names(&[bare, c, ours]) {
        let [alone, theirs, our] = [bare, c, ours].map(|rows| figure(rows, name));
        let over = |figure: Option<f64>| figure.zip(alone).filter(|(_, alone)| *alone > 0.0).map(|(a, b)| a / b);
        let (their_ratio, our_ratio) = (over(theirs), over(our));
        // An overhead within the noise has no ratio worth printing.
        let overheads = their_ratio.zip(our_ratio).filter(|(their, _)| *their > 1.02);
        let overheads = overheads.map(|(their, our)| (our - 1.0) / (their - 1.0));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} |",
            shown(alone, 0),
            shown(theirs, 0),
            shown(our, 0),
            shown(their_ratio, 2),
            shown(our_ratio, 2),
            shown(overheads, 2)
        );
    }
    text
}

/// The hypervisors' own parts of the instructions, as Markdown.
fn own(c: &[Row], ours: &[Row]) -> String {
    let mut text = "| operation (the hypervisor's own instructions) | C hypervisor | Xenith | ratio |\n\
                    | --- | ---: | ---: | ---: |\n"
        .to_owned();
    for name in names(&[c, ours]) {
        let [theirs, our] = [c, ours].map(|rows| figure(rows, name));
        // What a clock interrupt costs now and then is no ratio worth printing.
        let ratio = theirs.zip(our).filter(|(theirs, _)| *theirs >= 50.0).map(|(theirs, our)| our / theirs);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {} | {} | {} |", shown(theirs, 0), shown(our, 0), shown(ratio, 2));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_round_counts() {
        let mut column = rows("bench fork 300\nbench exec 500\n");
        best(&mut column, rows("bench exec 400\nbench fork 310\nbench pipe 7\n"));
        assert_eq!(column, rows("bench fork 300\nbench exec 400\nbench pipe 7\n"));
    }

    #[test]
    fn overheads_are_compared() {
        let [bare, c, ours] = ["100", "300", "200"].map(|figure| rows(&format!("bench fork {figure}\n")));
        let table = compared("ns", &bare, &c, &ours);
        assert!(table.ends_with("| fork | 100 | 300 | 200 | 3.00 | 2.00 | 0.50 |\n"));
        assert!(compared("ns", &bare, &bare, &ours).ends_with("| 100 | 100 | 200 | 1.00 | 2.00 | - |\n"));
    }
}
