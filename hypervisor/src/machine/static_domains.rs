// SPDX-License-Identifier: MIT OR Apache-2.0
//! From boot modules to static domains.

use alloc::sync::Arc;

use arch::{CpuId, CpuMask};
use arrayvec::ArrayVec;
use boot::BootInfo;
use boot::info::MAX_MODULES;
use boot::static_domain::{self, Description};
use hypercalls::DomId;
use hypervisor::construct::{self, Guest};
use hypervisor::domain::Domain;
use hypervisor::placement::{self, Places};

use super::memory;

/// The static domains that were built.
pub(super) type Built = ArrayVec<Arc<Domain>, MAX_MODULES>;

/// Returns the number of the first module that describes one: those before it are dom0's.
pub(super) fn first_module(info: &BootInfo) -> usize {
    let describes = |module| static_domain::describes(info.module_cmdline(module));
    info.modules.iter().position(describes).unwrap_or(info.modules.len())
}

/// Builds all that are described from this module on. What is wrong with one is told, and the others are built.
pub(super) fn build(info: &BootInfo, first: usize) -> Built {
    let mut built = Built::new();
    let mut names = ArrayVec::<&str, MAX_MODULES>::new();
    for (number, module) in info.modules.iter().enumerate().skip(first) {
        let line = info.module_cmdline(module);
        if !static_domain::describes(line) {
            continue;
        }
        let described = match static_domain::parse(line, number, info.modules.len()) {
            Ok(described) if names.contains(&described.name) => {
                log::error!(
                    "module {number}: there is a static domain {} already; this one is not started",
                    described.name
                );
                continue;
            }
            Ok(described) => described,
            Err(wrong) => {
                log::error!("module {number}: {wrong}; the static domain is not started");
                continue;
            }
        };
        // There can be no more of either than modules.
        let _ = names.try_push(described.name);
        if let Some(domain) = build_one(info, DomId(names.len() as u16), &described) {
            let _ = built.try_push(domain);
        }
    }
    built
}

fn build_one(info: &BootInfo, id: DomId, described: &Description<'_>) -> Option<Arc<Domain>> {
    let name = described.name;
    let cpus = cpus(described);
    if cpus.is_some_and(|cpus| cpus.is_empty()) {
        log::error!("static domain {name}: none of the CPUs of cpus= is there; it is not started");
        return None;
    }
    let module = |number: usize| info.modules.get(number).map_or(&[][..], |m| memory::module(m.start..m.end));
    let guest = Guest {
        id,
        name,
        kernel: module(described.kernel),
        initrd: described.ramdisk.map_or(&[], module),
        cmdline: described.cmdline,
        pages: described.pages,
        vcpus: described.vcpus,
        console: described.console,
    };
    log::info!("building static domain {name} as d{}: {} MiB, {} vCPUs", id.0, guest.pages >> 8, guest.vcpus);
    match construct::guest(&guest) {
        Ok(domain) => {
            for vcpu in domain.vcpus.iter().filter(|_| cpus.is_some()) {
                let places = placement::places(vcpu);
                placement::set_places(vcpu, &Places { hard: cpus.unwrap_or(places.hard), ..places });
            }
            Some(domain)
        }
        Err(failure) => {
            log::error!("static domain {name}: {failure}; it is not started");
            None
        }
    }
}

/// Returns the CPUs that it may use, of those that there are; `None` when it does not care.
fn cpus(described: &Description<'_>) -> Option<CpuMask> {
    let mut cpus = CpuMask::default();
    for (first, last) in &described.cpus {
        (*first..=*last).for_each(|n| cpus.insert(CpuId(n)));
    }
    cpus.intersect(&arch::cpu::online());
    (!described.cpus.is_empty()).then_some(cpus)
}

/// Lets them run.
pub(super) fn start(built: &Built) {
    for domain in built {
        // It was built with the pause that is taken back here.
        let _ = domain.unpause_by_controller();
    }
}
