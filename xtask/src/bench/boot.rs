// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long boots take, from the loader's hand-over.

use super::Args;
use crate::debian::{self, Flavour};
use crate::initramfs;
use crate::machine::C_HYPERVISOR_CPU;
use crate::project::Project;
use crate::runner::{self, Files};
use crate::scenario;
use anyhow::{Result, bail};
use std::fmt::Write;

/// Boots Linux to the shell on each hypervisor and says when what was reached.
pub(super) fn table(project: &Project, args: &Args) -> Result<String> {
    let linux = (debian::kernel(Flavour::Amd64)?, initramfs::make(project)?);
    let mut text = String::from(
        "| hypervisor | reached | s after the hand-over | s of QEMU's CPU time |\n| --- | --- | ---: | ---: |\n",
    );
    for subject in args.hypervisors(project)? {
        // The same processor for both, since the times are compared.
        let cpu = C_HYPERVISOR_CPU.to_owned();
        let files = Files { cpu, linux: Some(linux.clone()), ..Files::new(subject.hypervisor) };
        let outcome = runner::run(project, &files, &scenario::boot_to_shell(subject.stem));
        if let Some(failure) = outcome.failure {
            bail!("Linux did not boot on {}: {failure}", subject.name);
        }
        for (mark, time) in outcome.marks {
            let (wall, cpu) = (time.wall.as_secs_f64(), time.cpu.as_secs_f64());
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {} | {mark} | {wall:.2} | {cpu:.2} |", subject.name);
        }
    }
    Ok(text)
}
