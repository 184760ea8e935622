// SPDX-License-Identifier: MIT OR Apache-2.0
//! From boot modules and options to dom0.

use core::fmt;
use core::ops::RangeInclusive;

use arch::platform::acpi::Platform;
use arrayvec::ArrayVec;
use boot::BootInfo;
use boot::info::MAX_MODULES;
use boot::memory_map::{MemRegion, RegionKind};
use boot::modules::{self, ModuleKind};
use hypercalls::Errno;
use hypercalls::memory::{E820Entry, E820Type};
use hypervisor::construct::{self, Dom0};
use hypervisor::emulate::io::PortSet;
use hypervisor::io_rights::{IoRights, message_range};
use hypervisor::{l1tf, machine_map};

use super::memory;

/// Builds dom0 from the first two of so many modules that are a kernel and an initrd.
pub(super) fn build(info: &BootInfo, count: usize, platform: &Platform) -> Result<(), fmt::Arguments<'static>> {
    let kinds: ArrayVec<ModuleKind, MAX_MODULES> = info
        .modules
        .iter()
        .take(count)
        .map(|m| {
            let whole = memory::module(m.start..m.end);
            modules::identify(&whole[..whole.len().min(modules::HEAD)])
        })
        .collect();
    let roles = modules::assign(&kinds);
    let pick = |index: Option<usize>| index.and_then(|i| info.modules.get(i));
    let Some(kernel) = pick(roles.kernel) else {
        return Err(format_args!(
            "there is no dom0 kernel: load one with `module2 /boot/vmlinuz ...` behind the `multiboot2` line"
        ));
    };
    let initrd = pick(roles.initrd).map_or(&[][..], |m| memory::module(m.start..m.end));
    let cmdline = info.dom0_cmdline(kernel);
    let options = super::command_line_options();
    let cpus = arch::cpu::online().count() as u32;
    let free = mm::buddy::frames_for_domains();
    let from = Dom0 {
        kernel: memory::module(kernel.start..kernel.end),
        initrd,
        cmdline: cmdline.as_str(),
        pages: options.dom0_mem.initial_pages(free),
        max_pages: options.dom0_mem.max_pages(free),
        vcpus: options.dom0_max_vcpus.count(cpus),
        screen: super::screen::for_dom0(info),
        io: rights(info, platform).unwrap_or_else(|_| super::give_up(format_args!("no memory for dom0's rights"))),
    };
    log::info!("building dom0: {} MiB, {} vCPUs, command line: {}", from.pages >> 8, from.vcpus, from.cmdline);
    match construct::dom0(from) {
        Ok(_) => Ok(()),
        Err(failure) => super::give_up(format_args!("dom0 cannot be built: {failure}")),
    }
}

/// Settles what holds for all domains, before the first is built.
pub(super) fn prepare(info: &BootInfo) {
    let entry = |r: &MemRegion| E820Entry { addr: r.start, size: r.end - r.start, kind: E820Type(r.kind.to_e820()) };
    machine_map::MACHINE_MAP.call_once(|| info.memory.iter().map(entry).collect());
    let options = super::command_line_options();
    let chosen = l1tf::Choice { privileged: options.pv_l1tf.dom0, others: options.pv_l1tf.domu };
    l1tf::init(chosen, machine_map::MACHINE_MAP.get().map_or(&[], |map| map));
}

/// What dom0 may use: everything but what is the hypervisor's own (runtime rules 6.3 and 11.2).
fn rights(info: &BootInfo, platform: &Platform) -> Result<IoRights, Errno> {
    let page = |maddr: u64| (maddr >> 12)..=(maddr >> 12);
    let mut denied: ArrayVec<RangeInclusive<u64>, 128> = ArrayVec::new();
    denied.push(page(platform.lapic_base));
    denied.push(message_range());
    denied.extend(hypertransport());
    denied.extend(platform.ioapics.iter().map(|io| page(io.maddr)));
    let unusable = info.memory.iter().filter(|r| r.kind == RegionKind::Unusable && r.start >= 1 << 20);
    denied.extend(unusable.map(|r| (r.start >> 12)..=((r.end - 1) >> 12)).take(60));
    let options = super::command_line_options();
    let mut ports = PortSet::hardware_domain(platform.pm_timer.map(|t| t.port))?;
    if options.console.com1 {
        ports.remove(options.com1.io_base..=options.com1.io_base + 7)?;
    }
    let read_only = platform.hpet_base.map(page);
    IoRights::dom0(&denied, read_only.as_slice(), ports)
}

/// The frames that AMD's processors keep for HyperTransport messages: writes there are commands to the machine.
fn hypertransport() -> Option<RangeInclusive<u64>> {
    const FRAMES: u64 = 12 << (30 - 12);
    if !arch::features::get().amd {
        return None;
    }
    let family = hypervisor::cpus::Model::here().family;
    // The last 12 GiB of 40 bits, and since family 17h of what the processor addresses.
    let bits = if family < 0x17 { 40 } else { arch::phys::maddr_bits() };
    let end = 1u64 << (bits - 12);
    Some(end.saturating_sub(FRAMES)..=end - 1)
}
