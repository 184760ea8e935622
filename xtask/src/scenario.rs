// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scenarios: what is booted on which machine, what is typed, and what must and must not appear.
//!
//! They are described in `tests/integration/*.toml`. A scenario may list variants, each of which overrides some of its
//! settings and is a test of its own, named `SCENARIO/VARIANT`.

use crate::devices::{Bus, Card};
use crate::guests;
use crate::kernels::Packing;
use crate::machine::MachineArgs;
use crate::monitor::Screen;
use crate::project::{self, Project};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// What dom0's kernel is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Boot {
    /// The distribution's kernel with the test initramfs.
    #[default]
    Linux,
    /// The distribution's kernel with the test initramfs that has drivers.
    Drivers,
    /// The distribution's kernel with the Xen tools.
    Tools,
    /// The same kernel in another packing.
    Packed(Packing),
    /// The program of this name from `tests/guests`, which prints `ok`, `not ok` and `skip` lines and `done N`.
    Guest(String),
    /// Debian from the disk of `cargo xtask run --disk`; what it writes is forgotten.
    Disk,
    /// A file of random bytes in the kernel's place.
    Garbage,
    /// No module at all.
    Nothing,
}

/// How a scenario ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    /// The machine powers itself off; QEMU's exit status is 0.
    #[default]
    PowerOff,
    /// The machine starts afresh after the last step.
    Reset,
    /// After the last step; the machine is then stopped from outside.
    Stop,
}

/// One thing to wait for, in order, and what to type then.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// Text that must appear after the previous step's.
    pub(crate) wait: String,
    /// What is typed when it has.
    pub(crate) send: Option<String>,
    /// The letters that are pressed on the machine's keyboard when it has.
    pub(crate) press: Option<String>,
    /// What the machine's screen must show when it has.
    pub(crate) screen: Option<Screen>,
    /// The command that QEMU's monitor gets when it has.
    pub(crate) monitor: Option<String>,
    /// For how many seconds the machine must be idle then, before anything is typed.
    pub(crate) idle: Option<u64>,
}

/// The settings of a scenario; the same keys may stand in a variant.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Settings {
    name: String,
    boot: Option<Boot>,
    cmdline: Option<String>,
    pad_cmdline: Option<usize>,
    hv_cmdline: Option<String>,
    statics: Option<Vec<String>>,
    debug: Option<bool>,
    smp: Option<u32>,
    mem: Option<String>,
    cpu: Option<String>,
    machine: Option<String>,
    uefi: Option<bool>,
    disk_bus: Option<Bus>,
    disks: Option<Vec<Bus>>,
    nets: Option<Vec<Card>>,
    qemu: Option<Vec<String>>,
    steps: Option<Vec<Step>>,
    expect: Option<Vec<String>>,
    forbid: Option<Vec<String>>,
    end: Option<End>,
    drift_ppm: Option<u32>,
    timeout: Option<u64>,
    long: Option<bool>,
    #[serde(default)]
    variants: Vec<Settings>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    #[serde(default)]
    scenario: Vec<Settings>,
}

/// A scenario with every setting decided.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// Its name, unique among all.
    pub(crate) name: String,
    /// What dom0's kernel is.
    pub(crate) boot: Boot,
    /// Text appended to the kernel's command line.
    pub(crate) cmdline: String,
    /// Text appended to the hypervisor's command line.
    pub(crate) hv_cmdline: String,
    /// The lines of static domains.
    pub(crate) statics: Vec<String>,
    /// The hypervisor has debug assertions.
    pub(crate) debug: bool,
    /// The machine.
    pub(crate) machine: MachineArgs,
    /// The controller of the disk, when it boots from one.
    pub(crate) disk_bus: Bus,
    /// The test disks.
    pub(crate) disks: Vec<Bus>,
    /// The network cards.
    pub(crate) nets: Vec<Card>,
    /// What is waited for and typed, in order.
    pub(crate) steps: Vec<Step>,
    /// What must have appeared at the end, anywhere.
    pub(crate) expect: Vec<String>,
    /// What must never appear.
    pub(crate) forbid: Vec<String>,
    /// How it ends.
    pub(crate) end: End,
    /// The most millionths by which its clock may depart from this computer's, by the lines `clock SECONDS`.
    pub(crate) drift_ppm: Option<u32>,
    /// Seconds until it counts as hung.
    pub(crate) timeout: u64,
    /// It takes minutes: it runs when it is named, or when all are asked for.
    pub(crate) long: bool,
    /// The least number of checks that a guest must have made.
    pub(crate) passed: usize,
    /// Further arguments for QEMU.
    pub(crate) qemu: Vec<String>,
}

/// What no scenario may print, unless it says otherwise.
const FORBIDDEN: &[&str] =
    &["Kernel panic", "fatal: ", " crashes: ", "Oops:", "BUG:", "not ok", "the stack is nearly used up"];
const TIMEOUT: u64 = 240;

impl Settings {
    /// This scenario's settings where the variant has none.
    fn with_defaults_of(self, base: &Self) -> Self {
        Self {
            name: format!("{}/{}", base.name, self.name),
            boot: self.boot.or_else(|| base.boot.clone()),
            cmdline: self.cmdline.or_else(|| base.cmdline.clone()),
            pad_cmdline: self.pad_cmdline.or(base.pad_cmdline),
            hv_cmdline: self.hv_cmdline.or_else(|| base.hv_cmdline.clone()),
            statics: self.statics.or_else(|| base.statics.clone()),
            debug: self.debug.or(base.debug),
            smp: self.smp.or(base.smp),
            mem: self.mem.or_else(|| base.mem.clone()),
            cpu: self.cpu.or_else(|| base.cpu.clone()),
            machine: self.machine.or_else(|| base.machine.clone()),
            uefi: self.uefi.or(base.uefi),
            disk_bus: self.disk_bus.or(base.disk_bus),
            disks: self.disks.or_else(|| base.disks.clone()),
            nets: self.nets.or_else(|| base.nets.clone()),
            qemu: self.qemu.or_else(|| base.qemu.clone()),
            steps: self.steps.or_else(|| base.steps.clone()),
            expect: self.expect.or_else(|| base.expect.clone()),
            forbid: self.forbid.or_else(|| base.forbid.clone()),
            end: self.end.or(base.end),
            drift_ppm: self.drift_ppm.or(base.drift_ppm),
            timeout: self.timeout.or(base.timeout),
            long: self.long.or(base.long),
            variants: Vec::new(),
        }
    }

    fn decide(self) -> Scenario {
        let smp = self.smp.unwrap_or(1);
        let mut cmdline = self.cmdline.unwrap_or_default().replace("{smp}", &smp.to_string());
        let wanted = self.pad_cmdline.unwrap_or(0);
        while cmdline.len() < wanted {
            cmdline.push_str(" xenith.padding=0123456789");
        }
        let forbidden = || FORBIDDEN.iter().map(|&text| text.to_owned()).collect();
        Scenario {
            name: self.name,
            boot: self.boot.unwrap_or_default(),
            cmdline,
            hv_cmdline: self.hv_cmdline.unwrap_or_default(),
            statics: self.statics.unwrap_or_default(),
            debug: self.debug.unwrap_or(false),
            machine: MachineArgs {
                smp,
                mem: self.mem.unwrap_or_else(|| "1G".to_owned()),
                uefi: self.uefi.unwrap_or(false),
                cpu: self.cpu,
                machine: self.machine.unwrap_or_else(|| "q35".to_owned()),
                accel: "tcg".to_owned(),
            },
            disk_bus: self.disk_bus.unwrap_or_default(),
            disks: self.disks.unwrap_or_default(),
            nets: self.nets.unwrap_or_default(),
            steps: self.steps.unwrap_or_default(),
            expect: self.expect.unwrap_or_default(),
            forbid: self.forbid.unwrap_or_else(forbidden),
            end: self.end.unwrap_or_default(),
            drift_ppm: self.drift_ppm,
            timeout: self.timeout.unwrap_or(TIMEOUT),
            long: self.long.unwrap_or(false),
            passed: 0,
            qemu: self.qemu.unwrap_or_default(),
        }
    }
}

impl Scenario {
    /// True when it boots a guest that reports what it checked. A guest of which the log must tell something is there to be
    /// crashed and has no report, unless it says how many checks it makes.
    pub(crate) fn reports(&self) -> bool {
        matches!(self.boot, Boot::Guest(_)) && self.steps.is_empty() && (self.expect.is_empty() || self.passed > 0)
    }

    /// The stem of its log's name.
    pub(crate) fn file_stem(&self) -> String {
        self.name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "-")
    }

    /// The same scenario once more, under a name (and so with files) of its own.
    pub(crate) fn round(&self, round: usize) -> Self {
        let mut again = self.clone();
        if round > 0 {
            again.name = format!("{}#{}", self.name, round + 1);
        }
        again
    }
}

/// The scenario of a guest, as its list describes it.
pub(crate) fn of_guest(guest: guests::Entry) -> Scenario {
    let settings = Settings {
        name: format!("guest/{}", guest.name),
        boot: Some(Boot::Guest(guest.binary)),
        cmdline: Some(guest.cmdline),
        hv_cmdline: Some(guest.hypervisor),
        smp: guest.cpus,
        mem: Some(format!("{}M", guest.memory.unwrap_or(512))),
        timeout: Some(guest.timeout.unwrap_or(60)),
        ..Settings::default()
    };
    Scenario {
        passed: guest.passed,
        expect: guest.expect,
        qemu: guest.qemu.split_whitespace().map(str::to_owned).collect(),
        ..settings.decide()
    }
}

/// Linux to the shell, and off.
pub(crate) fn boot_to_shell(name: &str) -> Scenario {
    let (wait, send) = ("dom0:/# ".to_owned(), Some("poweroff\n".to_owned()));
    let step = Step { wait, send, press: None, screen: None, monitor: None, idle: None };
    let settings = Settings {
        name: format!("boot/{name}"),
        mem: Some("2G".to_owned()),
        steps: Some(vec![step]),
        ..Settings::default()
    };
    settings.decide()
}

/// Mixed load on every kind of device for so many minutes.
pub(crate) fn soak(minutes: u64, smp: u32, vcpus: u32) -> Scenario {
    let settings = Settings {
        name: "soak".to_owned(),
        boot: Some(Boot::Drivers),
        cmdline: Some(format!("xenith.test=soak xenith.minutes={minutes} xenith.peer={{peer}}")),
        hv_cmdline: Some(format!("dom0_max_vcpus={vcpus}")),
        smp: Some(smp),
        mem: Some("2G".to_owned()),
        disks: Some(vec![Bus::Virtio, Bus::Nvme, Bus::Ahci]),
        nets: Some(vec![Card::Virtio]),
        expect: Some(vec!["XENITH-TEST soak ok".to_owned()]),
        timeout: Some(60 * minutes + 900),
        ..Settings::default()
    };
    settings.decide()
}

/// Four guests under load for so many minutes, two of which are destroyed and created again all the time.
pub(crate) fn soak_guests(minutes: u64, smp: u32) -> Scenario {
    let settings = Settings {
        name: "soak-guests".to_owned(),
        boot: Some(Boot::Tools),
        cmdline: Some(format!("quiet xenith.test=soak-guests xenith.minutes={minutes}")),
        // What it tells of domains that come and go is no complaint.
        hv_cmdline: Some("dom0_mem=640M loglvl=info guest_loglvl=info".to_owned()),
        smp: Some(smp),
        mem: Some("2G".to_owned()),
        expect: Some(vec!["XENITH-TEST soak-guests ok".to_owned()]),
        timeout: Some(60 * minutes + 900),
        ..Settings::default()
    };
    settings.decide()
}

/// All described scenarios, in the order of files and lines.
pub(crate) fn described(project: &Project) -> Result<Vec<Scenario>> {
    let dir = project.root.join("tests/integration");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut scenarios = Vec::new();
    for file in files {
        scenarios.extend(parse(&file)?);
    }
    Ok(scenarios)
}

fn parse(file: &Path) -> Result<Vec<Scenario>> {
    let text = String::from_utf8(project::read(file)?)?;
    expand(&text).with_context(|| format!("in {}", file.display()))
}

fn expand(text: &str) -> Result<Vec<Scenario>> {
    let description: Description = toml::from_str(text)?;
    let mut scenarios = Vec::new();
    for mut base in description.scenario {
        let variants = std::mem::take(&mut base.variants);
        if variants.is_empty() {
            scenarios.push(base.decide());
        } else {
            scenarios.extend(variants.into_iter().map(|variant| variant.with_defaults_of(&base).decide()));
        }
    }
    Ok(scenarios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_overrides_its_scenario() {
        let text = r#"
            [[scenario]]
            name = "a"
            cmdline = "cpus={smp}"
            mem = "2G"
            steps = [{ wait = "login", send = "root\n" }]
            variants = [{ name = "one" }, { name = "four", smp = 4, uefi = true, mem = "6G" }]
            [[scenario]]
            name = "b"
            boot = { guest = "traps" }
            end = "stop"
        "#;
        let all = expand(text).expect("the description is well-formed");
        let names: Vec<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
        assert_eq!(names, ["a/one", "a/four", "b"]);
        assert_eq!((all[1].machine.smp, all[1].machine.mem.as_str(), all[1].machine.uefi), (4, "6G", true));
        assert_eq!((all[0].cmdline.as_str(), all[1].cmdline.as_str()), ("cpus=1", "cpus=4"));
        assert_eq!(all[1].steps.len(), 1);
        assert_eq!((&all[2].boot, all[2].end), (&Boot::Guest("traps".to_owned()), End::Stop));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = expand("[[scenario]]\nname = 'a'\ncolour = 'red'").expect_err("there is no such key");
        assert!(format!("{error:#}").contains("colour"));
    }
}
