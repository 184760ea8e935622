// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs one scenario: makes its ISO, boots it, types, watches, and says how it went.

use crate::devices::{self, FIRST_NETWORK, TestDisks, Writes};
use crate::disk::Disk;
use crate::drift;
use crate::guests::Report;
use crate::hung;
use crate::iso::{self, HAND_OVER, HV_CONSOLE, Module, Payload};
use crate::kernels;
use crate::machine::Serial;
use crate::monitor::Monitor;
use crate::process::Scratch;
use crate::project::{self, Project};
use crate::scenario::{Boot, End, Scenario};
use crate::serial::{Console, Event, Moment};
use crate::symbols::Filter;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// The files all scenarios share.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The hypervisor under test; `None` boots the kernel alone.
    pub(crate) hypervisor: Option<PathBuf>,
    /// The same with debug assertions, if a scenario is for that.
    pub(crate) debug: Option<PathBuf>,
    /// The CPU model where a scenario names none.
    pub(crate) cpu: String,
    /// The distribution's kernel and the initramfs, if a scenario boots Linux.
    pub(crate) linux: Option<(PathBuf, PathBuf)>,
    /// The disk, if a scenario boots from it.
    pub(crate) disk: Option<Disk>,
    /// The initramfs with drivers, if a scenario boots it.
    pub(crate) drivers: Option<PathBuf>,
    /// The initramfs with the Xen tools, if a scenario boots it.
    pub(crate) tools: Option<PathBuf>,
    /// The port of the other end of network connections.
    pub(crate) peer: u16,
    /// The directory of the test guests' programs, if a scenario boots one.
    pub(crate) guests: Option<PathBuf>,
    /// By how much the time limits are stretched.
    pub(crate) slow: u32,
}

impl Files {
    /// This hypervisor and nothing else.
    pub(crate) fn new(hypervisor: Option<PathBuf>) -> Self {
        let cpu = "max".to_owned();
        Self {
            hypervisor,
            debug: None,
            cpu,
            linux: None,
            disk: None,
            drivers: None,
            tools: None,
            peer: 0,
            guests: None,
            slow: 1,
        }
    }

    /// The hypervisor that a scenario boots.
    fn image(&self, scenario: &Scenario) -> Option<&Path> {
        self.debug.as_deref().filter(|_| scenario.debug).or(self.hypervisor.as_deref())
    }
}

/// How a scenario went.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// What went wrong; `None` is a pass.
    pub(crate) failure: Option<String>,
    /// Checks that a guest made from inside.
    pub(crate) checks: usize,
    /// From QEMU's start to the end.
    pub(crate) took: Duration,
    /// From the loader's hand-over to these marks, where they were reached.
    pub(crate) marks: Vec<(&'static str, Moment)>,
}

/// The lines whose times are worth knowing.
const MARKS: &[(&str, &str)] =
    &[("hypervisor", "Xen"), ("dom0", "Linux version"), ("init", "Run /init"), ("shell", "dom0:/# ")];

/// How much of a CPU QEMU may use for an idle machine.
const IDLE_PERCENT: u64 = 30;

/// Runs the scenario; its log goes to `target/xenith/logs`.
pub(crate) fn run(project: &Project, files: &Files, scenario: &Scenario) -> Outcome {
    let started = Instant::now();
    match attempt(project, files, scenario) {
        Ok((failure, checks, marks)) => Outcome { failure, checks, took: started.elapsed(), marks },
        Err(error) => {
            Outcome { failure: Some(format!("{error:#}")), checks: 0, took: started.elapsed(), marks: Vec::new() }
        }
    }
}

type Verdict = (Option<String>, usize, Vec<(&'static str, Moment)>);

fn attempt(project: &Project, files: &Files, scenario: &Scenario) -> Result<Verdict> {
    let name = scenario.file_stem();
    let logs = project.logs()?;
    let scratch = Scratch::new(logs.join(format!("{name}.files")))?;
    let iso_path = scratch.path().join("boot.iso");
    iso::make(&payload(project, files, scenario)?, &iso_path)?;
    let mut machine = scenario.machine.clone();
    machine.cpu.get_or_insert_with(|| files.cpu.clone());
    let mut command = machine.command(&iso_path, Serial::Pipes)?;
    if let (Boot::Disk, Some(disk)) = (&scenario.boot, &files.disk) {
        scenario.disk_bus.check(&machine.machine)?;
        devices::attach_disk(&mut command, "root", &disk.image, scenario.disk_bus, Writes::Forgotten);
    }
    for bus in &scenario.disks {
        bus.check(&machine.machine)?;
    }
    let disks = TestDisks::attach(&mut command, &scratch.path().join("disk"), &scenario.disks)?;
    for (index, card) in scenario.nets.iter().enumerate() {
        devices::attach_card(&mut command, *card, FIRST_NETWORK + index);
    }
    command.args(&scenario.qemu);
    let monitor = Monitor::attach(&mut command, &name);
    let log = logs.join(format!("{name}.log"));
    let console = Console::start(&mut command, &log, Filter::new(files.image(scenario).unwrap_or(Path::new(""))))?;
    let mut watch = Watch::new(scenario, console, monitor);
    let limit = Duration::from_secs(scenario.timeout * u64::from(files.slow));
    let mut failure = watch.watch(Instant::now() + limit)?;
    if failure.is_none() {
        failure = disks.verify().err().map(|error| format!("{error:#}"));
    }
    if let (None, Some(most)) = (&failure, scenario.drift_ppm) {
        failure = check_clock(&watch.console, most);
    }
    let report = Report::parse(watch.console.text());
    Ok((failure, report.passed, marks(&watch.console)))
}

/// The files and command lines of this scenario.
fn payload(project: &Project, files: &Files, scenario: &Scenario) -> Result<Payload> {
    let mut modules = Vec::new();
    let kernel = match (&scenario.boot, &files.linux, &files.guests) {
        (Boot::Linux | Boot::Drivers | Boot::Tools, Some((kernel, _)), _) => Some(kernel.clone()),
        (Boot::Packed(packing), Some((kernel, _)), _) => Some(kernels::repack(project, kernel, *packing)?),
        (Boot::Guest(guest), _, Some(dir)) => Some(dir.join(guest)),
        (Boot::Garbage, _, _) => {
            let file = project.out()?.join("garbage");
            project::write(&file, garbage())?;
            Some(file)
        }
        _ => None,
    };
    if let Some(file) = kernel {
        let cmdline = scenario.cmdline.replace("{peer}", &files.peer.to_string());
        let cmdline = format!("{cmdline} {}", console(files));
        modules.push(Module { name: "vmlinuz", file, cmdline: Some(cmdline) });
    }
    if let (Boot::Linux | Boot::Packed(_), Some((_, initrd))) = (&scenario.boot, &files.linux) {
        modules.push(Module { name: "initrd.img", file: initrd.clone(), cmdline: None });
    }
    if let (Boot::Drivers, Some(initrd)) = (&scenario.boot, &files.drivers) {
        modules.push(Module { name: "initrd.img", file: initrd.clone(), cmdline: None });
    }
    if let (Boot::Tools, Some(initrd)) = (&scenario.boot, &files.tools) {
        modules.push(Module { name: "initrd.img", file: initrd.clone(), cmdline: None });
    }
    if let (Boot::Disk, Some(disk)) = (&scenario.boot, &files.disk) {
        let cmdline = format!("{} {} {}", disk.root(), scenario.cmdline, console(files));
        modules.push(Module { name: "vmlinuz", file: disk.kernel.clone(), cmdline: Some(cmdline) });
        modules.push(Module { name: "initrd.img", file: disk.initrd.clone(), cmdline: None });
    }
    if let (false, Some((kernel, initrd))) = (scenario.statics.is_empty(), &files.linux) {
        modules.extend(iso::static_domains(modules.len(), &scenario.statics, kernel, initrd));
    }
    Ok(Payload {
        hypervisor: files.image(scenario).map(Path::to_owned),
        hv_cmdline: format!("{HV_CONSOLE} {}", scenario.hv_cmdline),
        modules,
    })
}

/// The kernel's option for the console that the log shows; the last of several is the one that programs get.
fn console(files: &Files) -> &'static str {
    if files.hypervisor.is_some() { "console=hvc0" } else { "console=ttyS0,115200" }
}

/// Bytes that are no kernel, the same on each run.
fn garbage() -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let bytes = (0..64 << 10).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    bytes.collect()
}

/// The lines in which the machine says what time it is, and when they came.
fn clock_lines(console: &Console) -> Vec<(Duration, f64)> {
    let mut offset = 0;
    let mut found = Vec::new();
    for line in console.text().split_inclusive('\n') {
        if let Some(told) = line.strip_prefix("clock ").and_then(|told| told.trim().parse().ok()) {
            found.push((console.time_of(offset).wall, told));
        }
        offset += line.len();
    }
    found
}

/// Compares the machine's clock with this computer's.
fn check_clock(console: &Console, most: u32) -> Option<String> {
    match drift::ppm(&clock_lines(console)) {
        None => Some("it told the time too seldom".to_owned()),
        Some(ppm) if ppm.abs() > f64::from(most) => {
            Some(format!("its clock is slow by {ppm:.0} ppm; {most} are allowed"))
        }
        Some(ppm) => {
            println!("      its clock is slow by {ppm:.0} ppm");
            None
        }
    }
}

/// The times of the marks since the hand-over.
pub(crate) fn marks(console: &Console) -> Vec<(&'static str, Moment)> {
    let text = console.text();
    let Some(start) = text.find(HAND_OVER) else {
        return Vec::new();
    };
    let handed_over = console.time_of(start);
    let mut found = Vec::new();
    for (name, pattern) in MARKS {
        if let Some(offset) = text[start..].find(pattern) {
            found.push((*name, console.time_of(start + offset).since(handed_over)));
        }
    }
    found
}

/// A scenario in progress.
struct Watch<'a> {
    scenario: &'a Scenario,
    console: Console,
    monitor: Monitor,
    /// The next step.
    step: usize,
    /// Where in the text that step is looked for.
    from: usize,
    /// How busy QEMU was while the machine should have been idle, at most, in percent of a CPU.
    busy: u64,
}

impl<'a> Watch<'a> {
    fn new(scenario: &'a Scenario, console: Console, monitor: Monitor) -> Self {
        Self { scenario, console, monitor, step: 0, from: 0, busy: 0 }
    }

    /// Watches until the scenario ends; returns what went wrong, if something did.
    fn watch(&mut self, deadline: Instant) -> Result<Option<String>> {
        loop {
            match self.console.next(deadline)? {
                Event::Text => self.advance()?,
                Event::Timeout => {
                    let complaint = self.hung();
                    return Ok(Some(self.with_evidence(&complaint)));
                }
                Event::Ended(status) => return Ok(self.judge(Some(status))),
            }
            if let Some(complaint) = self.forbidden() {
                // A little more time, so that the log holds what follows the bad line.
                let grace = Instant::now() + Duration::from_secs(2);
                while self.console.next(grace.min(deadline))? == Event::Text {}
                return Ok(Some(self.with_evidence(&complaint)));
            }
            if self.complete() {
                return Ok(self.judge(None));
            }
        }
    }

    /// Takes every step whose text has appeared.
    fn advance(&mut self) -> Result<()> {
        while let Some(step) = self.scenario.steps.get(self.step) {
            let Some(at) = self.console.text()[self.from..].find(&step.wait) else {
                break;
            };
            self.from += at + step.wait.len();
            self.step += 1;
            if let Some(seconds) = step.idle {
                self.busy = self.busy.max(self.console.load(Duration::from_secs(seconds))?);
            }
            step.screen.iter().try_for_each(|screen| self.monitor.expect(screen))?;
            step.press.iter().try_for_each(|word| self.monitor.press(word))?;
            if let Some(command) = &step.monitor {
                self.monitor.command(command)?;
            }
            if let Some(input) = &step.send {
                self.console.send(input)?;
            }
        }
        Ok(())
    }

    fn steps_taken(&self) -> bool {
        self.step == self.scenario.steps.len()
    }

    fn starts(&self) -> usize {
        self.console.text().matches(HAND_OVER).count()
    }

    /// What happened that must not, if something did.
    fn forbidden(&self) -> Option<String> {
        let text = self.console.text();
        let allowed_starts = if self.scenario.end == End::Reset { 2 } else { 1 };
        if self.starts() > allowed_starts {
            return Some("the machine was reset".to_owned());
        }
        if self.scenario.reports() {
            // A guest's report is judged at its end, with all its lines.
            return None;
        }
        let found = self.scenario.forbid.iter().find(|pattern| text.contains(*pattern))?;
        let line = text.lines().find(|line| line.contains(found))?;
        Some(format!("printed: {}", line.trim()))
    }

    /// True when nothing further is waited for, though the machine may still run.
    fn complete(&self) -> bool {
        if self.scenario.reports() {
            return Report::parse(self.console.text()).done.is_some();
        }
        let steps = self.steps_taken() && self.missing().is_none();
        match self.scenario.end {
            End::PowerOff => false,
            End::Reset => steps && self.starts() == 2,
            End::Stop => steps,
        }
    }

    fn missing(&self) -> Option<&str> {
        let text = self.console.text();
        let missing = self.scenario.expect.iter().find(|pattern| !text.contains(*pattern));
        missing.map(String::as_str)
    }

    fn judge(&self, ended: Option<ExitStatus>) -> Option<String> {
        let missing = || self.missing().map(|missing| format!("'{missing}' did not appear"));
        if self.scenario.reports() {
            return Report::parse(self.console.text()).complaint(self.scenario.passed).or_else(missing);
        }
        if let Some(step) = self.scenario.steps.get(self.step) {
            return Some(format!("the machine ended before '{}' appeared", step.wait));
        }
        if let Some(complaint) = missing() {
            return Some(complaint);
        }
        if self.busy > IDLE_PERCENT {
            return Some(format!("QEMU used {} % of a CPU while the machine was idle", self.busy));
        }
        match ended {
            Some(status) if self.scenario.end != End::PowerOff => {
                Some(format!("the machine ended by itself ({status})"))
            }
            Some(status) if !status.success() => Some(format!("QEMU ended with {status}")),
            _ => None,
        }
    }

    fn hung(&self) -> String {
        let waited = match (self.scenario.steps.get(self.step), self.missing()) {
            (Some(step), _) => format!("'{}'", step.wait),
            (None, Some(pattern)) => format!("'{pattern}'"),
            (None, None) => "the machine's end".to_owned(),
        };
        let last = self.console.text().trim_end().lines().next_back().unwrap_or("nothing");
        format!("timed out waiting for {waited}; its last line was: {last}")
    }

    /// Adds to a complaint where the CPUs are, and to the log what else the machine tells of itself.
    fn with_evidence(&mut self, complaint: &str) -> String {
        let places = hung::question(&mut self.console, &self.monitor);
        format!("{complaint}\n      {places}; more is in the log")
    }
}
