// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: the checks of the host, then the scenarios under QEMU, then the count.

use crate::debian::{self, Flavour};
use crate::machine::C_HYPERVISOR_CPU;
use crate::project::Project;
use crate::runner::{self, Files, Outcome};
use crate::scenario::{self, Boot, Scenario};
use crate::{disk, guests, hostcheck, initramfs, iso, peer, setup, tools};
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Runs the tests; ends with "N passed, N failed, N skipped".
///
/// First what runs on this machine (unit tests, formatting, lints), then scenarios under QEMU, one machine a core.
/// The serial log of each scenario is kept as target/xenith/logs/NAME.log.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains this text
    filter: Option<String>,
    /// Only what needs no QEMU
    #[arg(long, conflicts_with = "qemu")]
    host: bool,
    /// The scenarios too that take minutes; without it they run when a filter names them
    #[arg(long)]
    long: bool,
    /// Only what needs QEMU
    #[arg(long)]
    qemu: bool,
    /// Print the names and run nothing
    #[arg(long)]
    list: bool,
    /// Machines at a time [default: one a core]
    #[arg(long, short, value_name = "N")]
    jobs: Option<usize>,
    /// Run each scenario this many times
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: usize,
    /// Stretch all time limits by this factor
    #[arg(long, value_name = "FACTOR", default_value_t = 1)]
    slow: u32,
    /// Test another hypervisor image, or "debian" for the C hypervisor of Debian 12
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<PathBuf>,
    /// Boot without a hypervisor, for comparison
    #[arg(long, conflicts_with = "hypervisor")]
    bare: bool,
}

/// How many tests went which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Held.
    pub(crate) passed: usize,
    /// Did not.
    pub(crate) failed: usize,
    /// Could not be run here.
    pub(crate) skipped: usize,
}

impl Tally {
    /// Adds another count to this one.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    let wanted = |name: &str| args.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
    let checks: Vec<_> = hostcheck::CHECKS.iter().filter(|check| !args.qemu && wanted(check.name)).collect();
    let mut scenarios = if args.host { Vec::new() } else { all_scenarios(project)? };
    let all = args.long || args.list || args.filter.is_some();
    scenarios.retain(|scenario| wanted(&scenario.name) && (all || !scenario.long));
    if args.list {
        checks.iter().for_each(|check| println!("{}", check.name));
        scenarios.iter().for_each(|scenario| println!("{}", scenario.name));
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        !checks.is_empty() || !scenarios.is_empty(),
        "no test has '{}' in its name; --list prints them",
        args.filter.as_deref().unwrap_or_default()
    );
    setup::ensure()?;
    let mut tally = Tally::default();
    for check in checks {
        tally.add(hostcheck::run(project, check));
    }
    if !scenarios.is_empty() {
        tally.add(in_qemu(project, args, &scenarios));
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The guests first, since they say most about what is wrong, then what is described.
fn all_scenarios(project: &Project) -> Result<Vec<Scenario>> {
    let listed = guests::listed(project)?.into_iter().filter(|guest| !guest.icount);
    let all: Vec<Scenario> = listed.map(scenario::of_guest).chain(scenario::described(project)?).collect();
    for (index, scenario) in all.iter().enumerate() {
        ensure!(
            all[..index].iter().all(|other| other.name != scenario.name),
            "two scenarios have the name {}",
            scenario.name
        );
    }
    Ok(all)
}

/// Runs the scenarios; a build that fails counts as one failed test.
fn in_qemu(project: &Project, args: &Args, scenarios: &[Scenario]) -> Tally {
    match prepare(project, args, scenarios) {
        Ok(files) => run_all(project, args, &files, scenarios),
        Err(error) => {
            println!("FAIL  build: {error:#}");
            Tally { passed: 0, failed: 1, skipped: scenarios.len() }
        }
    }
}

fn prepare(project: &Project, args: &Args, scenarios: &[Scenario]) -> Result<Files> {
    let linux = |boot: &Boot| matches!(boot, Boot::Linux | Boot::Drivers | Boot::Tools | Boot::Packed(_));
    let linux = scenarios.iter().any(|scenario| linux(&scenario.boot) || !scenario.statics.is_empty());
    let drivers = scenarios.iter().any(|scenario| scenario.boot == Boot::Drivers);
    let tools = scenarios.iter().any(|scenario| scenario.boot == Boot::Tools);
    let guest = scenarios.iter().any(|scenario| matches!(scenario.boot, Boot::Guest(_)));
    let disk = scenarios.iter().any(|scenario| scenario.boot == Boot::Disk);
    let debug = scenarios.iter().any(|scenario| scenario.debug) && !args.bare && args.hypervisor.is_none();
    let of_debian = args.hypervisor.as_deref().is_some_and(iso::is_debian);
    Ok(Files {
        hypervisor: match args.bare {
            true => None,
            false => Some(iso::hypervisor(project, args.hypervisor.as_deref(), false)?),
        },
        debug: if debug { Some(iso::hypervisor(project, None, true)?) } else { None },
        cpu: if of_debian { C_HYPERVISOR_CPU } else { "max" }.to_owned(),
        linux: if linux { Some((debian::kernel(Flavour::Amd64)?, initramfs::make(project)?)) } else { None },
        disk: if disk { Some(disk::ensure(project)?) } else { None },
        drivers: if drivers { Some(initramfs::make_with_drivers(project)?) } else { None },
        tools: if tools { Some(tools::make(project)?) } else { None },
        peer: peer::start()?,
        guests: if guest { Some(guests::build(project)?) } else { None },
        slow: args.slow.max(1),
    })
}

/// Hands the scenarios to as many workers as machines may run at a time.
fn run_all(project: &Project, args: &Args, files: &Files, scenarios: &[Scenario]) -> Tally {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let repeated =
        (0..args.repeat.max(1)).flat_map(|round| scenarios.iter().map(move |scenario| scenario.round(round)));
    let queue = Mutex::new(repeated);
    let tally = Mutex::new(Tally::default());
    let started = Instant::now();
    println!("{} scenarios under QEMU", scenarios.len() * args.repeat.max(1));
    thread::scope(|scope| {
        for _ in 0..args.jobs.unwrap_or(cores).max(1) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(scenario) = next else { break };
                    let outcome = runner::run(project, files, &scenario);
                    let counted = report(project, &scenario, &outcome);
                    tally.lock().unwrap_or_else(PoisonError::into_inner).add(counted);
                }
            });
        }
    });
    println!("scenarios took {}", seconds(started.elapsed()));
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Prints one line about a scenario (more when it failed) and counts it.
fn report(project: &Project, scenario: &Scenario, outcome: &Outcome) -> Tally {
    let name = &scenario.name;
    let took = seconds(outcome.took);
    if let Some(failure) = &outcome.failure {
        let log = project.target.join(format!("xenith/logs/{}.log", scenario.file_stem()));
        println!("FAIL  {name} ({took}): {failure}\n      log: {}", project.shown(&log));
        return Tally { failed: 1, ..Tally::default() };
    }
    let mut notes = vec![took];
    if outcome.checks > 0 {
        notes.push(format!("{} checks", outcome.checks));
    }
    notes.extend(outcome.marks.iter().map(|(mark, time)| format!("{mark} {}", seconds(time.wall))));
    println!("ok    {name} ({})", notes.join(", "));
    Tally { passed: 1, ..Tally::default() }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
