// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devices that are the hypervisor's own: console, interrupt controllers, clocks.
#![expect(unsafe_code, reason = "takes over devices, once each")]

use arch::cpu::Work;
use arch::platform::acpi::Platform;
use arch::platform::serial::{self, Params};
use arch::platform::{acpi, apic, clock, ioapic, machine, pic, rtc, timer};
use boot::BootInfo;
use boot::memory_map::{MemRegion, RegionKind};
use boot::options::{self, Baud, ClockSource, Com1, Options};
use hypercalls::Errno;
use hypervisor::grants::Limits;
use hypervisor::pci::ecam;
use hypervisor::{console, host, irq, nmi, time};

use super::memory;

/// Brings up the first serial port as the firmware left it, so that early messages are seen.
pub(super) fn early_console() {
    // SAFETY: nobody else uses the port.
    let _ = unsafe { serial::init(&Params { baud: Some(115_200), ..Params::default() }) };
    console::init(log::LevelFilter::Info, log::LevelFilter::Info);
}

fn params(com1: &Com1) -> Params {
    Params {
        base: com1.io_base,
        baud: match com1.baud {
            Baud::Auto => None,
            Baud::Rate(rate) => Some(rate),
        },
        data_bits: com1.data_bits,
        stop_bits: com1.stop_bits,
        clock_hz: com1.clock_hz,
        parity: match com1.parity {
            options::Parity::None => serial::Parity::None,
            options::Parity::Odd => serial::Parity::Odd,
            options::Parity::Even => serial::Parity::Even,
            options::Parity::Mark => serial::Parity::Mark,
            options::Parity::Space => serial::Parity::Space,
        },
    }
}

/// Sets the console up as the options say.
pub(super) fn configured_console(options: &Options) {
    // The number of messages that guests cause is limited whatever their level; our own are few.
    console::init(console::filter(options.loglvl.limited), console::filter(options.guest_loglvl.limited));
    if !options.console.com1 {
        return serial::close();
    }
    // SAFETY: as in `early_console`; no other CPU runs.
    if let Err(error) = unsafe { serial::init(&params(&options.com1)) } {
        log::error!("com1: {error}");
    }
}

/// Sets up who gets what is typed and how many messages are kept, now that there is memory.
pub(super) fn complete_console(options: &Options) {
    console::keep(usize::try_from(options.conring_size).unwrap_or(usize::MAX), options.console_to_ring);
    console::set_switch(options.conswitch.letter);
}

/// Sets how large domains' grant tables may become.
pub(super) fn limit_grants(options: &Options) {
    let usual = Limits::most();
    let wanted = Limits {
        frames: options.gnttab_max_frames.unwrap_or(usual.frames),
        maptrack_frames: options.gnttab_max_maptrack_frames.unwrap_or(usual.maptrack_frames),
        ..usual
    };
    if wanted.set_most().is_err() {
        log::error!("gnttab_max_frames, gnttab_max_maptrack_frames: out of range; they are {usual:?}");
    }
}

/// Finds out what the machine has, and starts interrupt controller and clock of the boot CPU.
pub(super) fn discover(info: &BootInfo) -> Platform {
    pic::disable();
    let rsdp = info.rsdp.as_ref().map(|r| r.bytes());
    // SAFETY: `map` maps RAM, firmware tables and device registers, and nobody writes to the tables.
    let platform = unsafe { acpi::discover_mapped(rsdp, memory::map) };
    for problem in &platform.problems {
        log::warn!("{problem}");
    }
    hide_iommus(&platform);
    machine::setup(&platform);
    let highest = platform.cpus.iter().filter(|c| c.enabled).map(|c| c.apic_id).max().unwrap_or(0);
    let registers = memory::map(apic::machine_base(), 4096);
    // SAFETY: the mapping is the local APIC's, uncached, for ever.
    match unsafe { apic::setup(registers, highest) } {
        Ok(mode) => log::info!("local APIC: {mode:?}"),
        Err(error) => super::give_up(format_args!("the local APIC cannot be used: {error:?}")),
    }
    apic::init_cpu();
    // SAFETY: as for the local APIC.
    let lines = unsafe { ioapic::init(&platform.ioapics, memory::map) };
    log::info!("{} I/O APICs, {lines} interrupt lines", platform.ioapics.len());
    start_clock(&platform);
    let _ = host::msrs();
    platform
}

/// Renames the tables of IOMMUs, so that dom0 leaves those alone: what it takes for addresses of memory are its own numbers of
/// pages, and an IOMMU that it set up would send devices to wrong ones.
fn hide_iommus(platform: &Platform) {
    const CHECKSUM: usize = 9;
    for (name, maddr) in &platform.iommus {
        let table = memory::map(*maddr, CHECKSUM + 1);
        if table.is_null() {
            log::error!("ACPI table {}: cannot be hidden from dom0", name.escape_ascii());
            continue;
        }
        // SAFETY: the header of a table in the firmware's memory, which is mapped; what was read of it is not looked at again.
        unsafe {
            let sum = table.add(CHECKSUM);
            sum.write_volatile(sum.read_volatile().wrapping_sub(b'X'.wrapping_sub(name[0])));
            table.write_volatile(b'X');
        }
        log::info!("ACPI table {}: IOMMUs are not used, dom0 does not see them", name.escape_ascii());
    }
}

/// Starts time.
fn start_clock(platform: &Platform) {
    let wanted = super::command_line_options().clocksource.map(|source| match source {
        ClockSource::Acpi => clock::Source::Pm,
        ClockSource::Hpet => clock::Source::Hpet,
        ClockSource::Pit => clock::Source::Pit,
        ClockSource::Tsc => clock::Source::Tsc,
    });
    match clock::calibrate(platform, memory::map, wanted) {
        Ok(found) => {
            clock::start(&found);
            log::info!("clock: {found}");
            if timer::setup(&found).is_err() {
                super::give_up(format_args!("the local APIC's timer does not run"));
            }
        }
        Err(_) => super::give_up(format_args!("no clock to measure the TSC by: neither PM timer, HPET nor PIT runs")),
    }
    match rtc::read(platform.rtc_century) {
        Some(seconds) => time::set_wall_clock(seconds * 1_000_000_000, arch::time::now()),
        None => log::warn!("the real-time clock cannot be read: time starts in 1970"),
    }
}

/// Lets the machine's NMIs come, now that there is somebody who can be told.
pub(super) fn admit_nmi() {
    nmi::set_policy(match super::command_line_options().nmi {
        options::Nmi::Ignore => nmi::Policy::Ignore,
        options::Nmi::Dom0 => nmi::Policy::Dom0,
        options::Nmi::Fatal => nmi::Policy::Fatal,
    });
    apic::admit_nmi();
}

/// Takes note of the windows of PCI configuration space.
pub(super) fn config_space(info: &BootInfo, platform: &Platform) {
    let windows = platform.ecams.iter().map(|e| ecam::Window {
        base: e.maddr,
        segment: e.segment,
        first_bus: e.first_bus,
        last_bus: e.last_bus,
    });
    ecam::init(windows, |range| {
        let covers = |r: &MemRegion| r.kind == RegionKind::Reserved && r.start <= range.start && range.end <= r.end;
        info.memory.iter().any(covers)
    });
}

/// Messages that dom0's devices can have, beside the lines: what that many CPUs have vectors for, within reason.
fn messages() -> u32 {
    (irq::vectors::COUNT as u32 * arch::cpu::online().count() as u32).clamp(256, 4096)
}

/// Makes the table of interrupts, and routes those that are the hypervisor's own.
pub(super) fn interrupts(platform: &Platform) {
    irq::init(messages(), |gsi| platform.line_mode(gsi));
    let options = super::command_line_options();
    let Some(isa) = serial::legacy_irq(options.com1.io_base).filter(|_| options.console.com1) else { return };
    let (gsi, _) = platform.isa_irq(isa);
    let claimed = irq::get(gsi).ok_or(Errno::EINVAL).and_then(|irq| irq.claim("serial line", Work::CONSOLE));
    match claimed {
        Ok(()) => serial::receive_interrupt(true),
        Err(error) => log::warn!("the serial line's interrupt, GSI {gsi}, cannot be routed: {error:?}"),
    }
}
