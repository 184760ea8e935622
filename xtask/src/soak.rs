// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask soak`: mixed load for a long time, after which everything must be as before.
//!
//! Disks on three controllers, a network card, processes and the userland workload at once, each of which checks its own
//! results, while CPUs go off line and on line again (`tests/initramfs/root/tests/soak`). With `--guests`, the same kinds of load
//! in four guests, two of which are destroyed and created again all the time (`tests/tools/dom0/tests/soak-guests`). From its
//! beginning to its end the hypervisor may not print a line.

use crate::debian::{self, Flavour};
use crate::iso;
use crate::machine::C_HYPERVISOR_CPU;
use crate::project::Project;
use crate::runner::{self, Files};
use crate::scenario;
use crate::{initramfs, peer, setup, tools};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs mixed load for a long time; then the hypervisor's log must be empty and the disks' contents right.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For how long the load runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    minutes: u64,
    /// CPUs of the machine
    #[arg(long, value_name = "N", default_value_t = 2)]
    smp: u32,
    /// Virtual CPUs of dom0
    #[arg(long, value_name = "N", default_value_t = 4, conflicts_with = "guests")]
    vcpus: u32,
    /// Load four guests, and destroy and create two of them all the time
    #[arg(long)]
    guests: bool,
    /// Build the hypervisor with debug assertions
    #[arg(long)]
    debug: bool,
    /// Load another hypervisor image, or "debian" for the C hypervisor of Debian 12
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<PathBuf>,
}

/// What the load prints first and last.
const BEGINS: &str = "soak begins";
const ENDS: &str = "soak ends";
/// What both hypervisors' own lines begin with.
const PREFIXES: &[&str] = &["(xenith) ", "(XEN) "];

pub(crate) fn main(project: &Project, args: &Args) -> Result<ExitCode> {
    setup::ensure()?;
    let hypervisor = iso::hypervisor(project, args.hypervisor.as_deref(), args.debug)?;
    let of_debian = args.hypervisor.as_deref().is_some_and(iso::is_debian);
    let files = Files {
        cpu: if of_debian { C_HYPERVISOR_CPU } else { "max" }.to_owned(),
        linux: Some((debian::kernel(Flavour::Amd64)?, initramfs::make(project)?)),
        drivers: if args.guests { None } else { Some(initramfs::make_with_drivers(project)?) },
        tools: if args.guests { Some(tools::make(project)?) } else { None },
        peer: peer::start()?,
        ..Files::new(Some(hypervisor))
    };
    let scenario = if args.guests {
        scenario::soak_guests(args.minutes, args.smp)
    } else {
        scenario::soak(args.minutes, args.smp, args.vcpus)
    };
    let log = project.logs()?.join(format!("{}.log", scenario.file_stem()));
    println!("{} minutes of load; the serial line goes to {}", args.minutes, project.shown(&log));
    let outcome = runner::run(project, &files, &scenario);
    if let Some(failure) = outcome.failure {
        bail!("{failure}; see {}", project.shown(&log));
    }
    let text = String::from_utf8_lossy(&crate::project::read(&log)?).into_owned();
    text.lines().filter(|line| line.starts_with("soak ")).for_each(|line| println!("{}", line.trim_end()));
    let said = messages(&text);
    said.iter().for_each(|line| println!("{line}"));
    if !said.is_empty() {
        bail!("the hypervisor printed {} lines; see {}", said.len(), project.shown(&log));
    }
    println!("all is well");
    Ok(ExitCode::SUCCESS)
}

/// The hypervisor's lines between the load's beginning and its end.
fn messages(text: &str) -> Vec<&str> {
    let begin = text.find(BEGINS).unwrap_or(0);
    let end = text.find(ENDS).unwrap_or(text.len());
    text[begin..end].lines().filter(|line| PREFIXES.iter().any(|prefix| line.contains(prefix))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_under_load_counts() {
        let text = "(xenith) dom0 starts\r\nsoak begins\r\nsoak: 3 minutes left\r\n(xenith) spurious\r\nsoak ends\r\n(xenith) off";
        assert_eq!(messages(text), ["(xenith) spurious"]);
        assert!(messages("(xenith) a\nsoak begins\nsoak ends\n").is_empty());
    }
}
