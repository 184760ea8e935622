// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options as people write them, and as they miswrite them.

use super::*;
use std::string::ToString;

fn good(line: &str) -> Options {
    let (options, complaints) = parse(line);
    assert!(complaints.list.is_empty(), "{line}: {complaints:?}");
    options
}

/// The word's problem; the options must be untouched.
fn bad(line: &str) -> Problem {
    let (options, complaints) = parse(line);
    assert_eq!(options, Options::default(), "{line}");
    assert_eq!(complaints.list.len(), 1, "{line}: {complaints:?}");
    complaints.list[0].problem
}

fn is_malformed(line: &str) {
    assert!(matches!(bad(line), Problem::Malformed { .. }), "{line}");
}

#[test]
fn words_that_do_nothing() {
    assert_eq!(good("  placeholder no-real-mode edd=off   edid=no real-mode"), Options::default());
    assert_eq!(good(""), Options::default());
}

#[test]
fn booleans() {
    for line in ["noreboot", "noreboot=1", "noreboot=yes", "noreboot=on", "noreboot=enable", "no-noreboot=no"] {
        assert!(good(line).noreboot, "{line}");
    }
    for line in ["noreboot=0", "noreboot=false", "no-noreboot", "noreboot noreboot=off"] {
        assert!(!good(line).noreboot, "{line}");
    }
    assert!(good("sync_console").sync_console);
    is_malformed("nosmp=maybe");
}

#[test]
fn nmis() {
    for (line, nmi) in
        [("", Nmi::Dom0), ("nmi=ignore", Nmi::Ignore), ("nmi=fatal", Nmi::Fatal), ("nmi=fatal nmi=dom0", Nmi::Dom0)]
    {
        assert_eq!(good(line).nmi, nmi, "{line}");
    }
    is_malformed("nmi");
    is_malformed("no-nmi");
}

#[test]
fn the_watchdog() {
    for (line, on) in [("", false), ("watchdog", true), ("watchdog=force", true), ("watchdog=1 no-watchdog", false)] {
        assert_eq!(good(line).watchdog, on, "{line}");
    }
    assert_eq!(good("").watchdog_timeout, 5);
    assert_eq!(good("watchdog_timeout=30").watchdog_timeout, 30);
    is_malformed("watchdog=always");
    is_malformed("watchdog_timeout=long");
}

#[test]
fn clock_sources() {
    assert_eq!(good("").clocksource, None);
    for (line, source) in [
        ("clocksource=acpi", ClockSource::Acpi),
        ("clocksource=hpet", ClockSource::Hpet),
        ("clocksource=tsc clocksource=pit", ClockSource::Pit),
        ("clocksource=tsc", ClockSource::Tsc),
    ] {
        assert_eq!(good(line).clocksource, Some(source), "{line}");
    }
    for line in ["clocksource", "clocksource=", "clocksource=sundial", "clocksource=hpet,pit", "no-clocksource"] {
        is_malformed(line);
    }
}

#[test]
fn schedulers() {
    assert_eq!(good("").sched, Sharing::Credit2);
    assert_eq!(good("sched=null").sched, Sharing::Null);
    assert_eq!(good("sched=null sched=credit2").sched, Sharing::Credit2);
    for line in ["sched", "sched=", "sched=credit", "sched=null,credit2", "no-sched"] {
        is_malformed(line);
    }
}

#[test]
fn efi_services() {
    for line in ["", "efi=rs", "efi=no-rs,rs", "efi=rs=yes"] {
        assert!(good(line).efi_services, "{line}");
    }
    for line in ["efi=no-rs", "efi=rs=no", "efi=rs efi=no-rs"] {
        assert!(!good(line).efi_services, "{line}");
    }
    is_malformed("efi=what");
    assert!(matches!(bad("efi=attr=uc"), Problem::PartNotImplemented { .. }));
}

#[test]
fn cpu_limit() {
    assert_eq!(good("").cpu_limit(8), 8);
    assert_eq!(good("maxcpus=3").cpu_limit(8), 3);
    assert_eq!(good("maxcpus=0").cpu_limit(8), 1);
    assert_eq!(good("maxcpus=0x10").cpu_limit(8), 8);
    assert_eq!(good("nosmp maxcpus=4").cpu_limit(8), 1);
    is_malformed("maxcpus=");
    is_malformed("maxcpus=-1");
    is_malformed("maxcpus=4x");
}

#[test]
fn com1() {
    let c = good("com1=115200,8n1").com1;
    assert_eq!(c, Com1 { baud: Baud::Rate(115_200), ..Com1::default() });
    assert_eq!((c.divisor(), c.line_control()), (Some(1), 3));
    let c = good("com1=9600/115200,7e2,0x2f8,3").com1;
    assert_eq!((c.divisor(), c.line_control()), (Some(12), 0b0001_1110));
    assert_eq!((c.io_base, c.irq), (0x2f8, 3));
    let c = good("com1=auto").com1;
    assert_eq!((c.baud, c.divisor()), (Baud::Auto, None));
    let c = good("com1=,,0x2f8").com1;
    assert_eq!(c, Com1 { io_base: 0x2f8, ..Com1::default() });
    let c = good("com1=115200,8n1,irq=0,io-base=0x3e8").com1;
    assert_eq!((c.irq, c.io_base), (0, 0x3e8));
    for line in [
        "com1=",
        "com1",
        "com1=fast",
        "com1=115200,8x1",
        "com1=115200,9n1",
        "com1=115200,8n3",
        "com1=115200,8",
        "com1=115200,8n1,0x12345",
        "com1=300",
        "com1=115200,8n1,0x3f8,4,,,x",
        "com1=irq=4,115200",
        "com1=colour=red",
        "no-com1",
        "com1=115200/0",
        "com1=115200,8é1",
    ] {
        is_malformed(line);
    }
    for line in ["com1=115200,8n1,pci", "com1=115200,8n1,0x3f8,msi", "com1=115200,reg-width=4"] {
        assert!(matches!(bad(line), Problem::PartNotImplemented { .. }), "{line}");
    }
}

#[test]
fn console() {
    let consoles = |com1, vga| Consoles { com1, vga };
    assert_eq!(good("").console, consoles(true, true));
    assert_eq!(good("console=vga").console, consoles(false, true));
    assert_eq!(good("console=com1,vga").console, consoles(true, true));
    assert_eq!(good("console=none").console, consoles(false, false));
    is_malformed("console=tty0");
    is_malformed("console=");
    assert!(matches!(bad("console=com2"), Problem::PartNotImplemented { .. }));
}

#[test]
fn console_input_and_kept_messages() {
    let conswitch = |letter, to_dom0| Conswitch { letter, to_dom0 };
    assert_eq!(good("").conswitch, conswitch(Some(b'a'), true));
    assert_eq!(good("conswitch=b").conswitch, conswitch(Some(b'b'), true));
    assert_eq!(good("conswitch=ax").conswitch, conswitch(Some(b'a'), false));
    assert_eq!(good("no-conswitch").conswitch, conswitch(None, true));
    ["conswitch", "conswitch=1", "conswitch=abc", "conswitch=ä", "conring_size=", "conring_size=1x"]
        .iter()
        .for_each(|line| is_malformed(line));
    assert_eq!(good("").conring_size, 128 << 10);
    assert_eq!((good("conring_size=1M").conring_size, good("conring_size=64").conring_size), (1 << 20, 64 << 10));
    assert!(good("console_to_ring").console_to_ring && !good("").console_to_ring);
}

#[test]
fn dom0_mem() {
    const G: u64 = 1 << 18;
    let pages = |line: &str, available| good(line).dom0_mem.initial_pages(available);
    assert_eq!(pages("", 64 << 8), 60 << 8);
    assert_eq!(pages("", 16 * G), 16 * G - (128 << 8));
    assert_eq!(pages("dom0_mem=512M", 4 * G), 512 << 8);
    assert_eq!(pages("dom0_mem=524288", 4 * G), 512 << 8);
    assert_eq!(pages("dom0_mem=1073741824B", 4 * G), G);
    assert_eq!(pages("dom0_mem=0x1g", 4 * G), G);
    assert_eq!(pages("dom0_mem=-1G", 4 * G), 3 * G);
    assert_eq!(pages("dom0_mem=-8G", 4 * G), pages("", 4 * G));
    assert_eq!(pages("dom0_mem=8G", 4 * G), 4 * G);
    assert_eq!(pages("dom0_mem=25%", 4 * G), G);
    assert_eq!(pages("dom0_mem=1G+25%", 4 * G), 2 * G);
    assert_eq!(pages("dom0_mem=-1G+25%", 4 * G), 2 * G);
    assert_eq!(pages("dom0_mem=max:1G", 4 * G), G);
    assert_eq!(pages("dom0_mem=512M,min:1G,max:2G", 4 * G), G);
    assert_eq!(pages("dom0_mem=min:3G,max:2G", 4 * G), 2 * G);
    assert_eq!(pages("dom0_mem=512M dom0_mem=max:256M", 4 * G), 256 << 8);
    assert_eq!(good("dom0_mem=1T").dom0_mem.max_pages(G), u64::MAX);
    assert_eq!(good("dom0_mem=max:-1G").dom0_mem.max_pages(4 * G), 3 * G);
    for value in [
        "",
        "lots",
        "512Q",
        "min:",
        "512M,",
        "100%",
        "5%+1G",
        "--1G",
        "99999999999999999999G",
        "18446744073709551615T",
        "1G+5",
    ] {
        is_malformed(&std::format!("dom0_mem={value}"));
    }
    is_malformed("no-dom0_mem");
}

#[test]
fn dom0_max_vcpus() {
    let count = |value: &str, cpus| good(&std::format!("dom0_max_vcpus={value}")).dom0_max_vcpus.count(cpus);
    assert_eq!(good("").dom0_max_vcpus.count(6), 6);
    assert_eq!([2, 4, 6, 8, 10].map(|n| count("4-8", n)), [4, 4, 6, 8, 8]);
    assert_eq!((count("3", 8), count("-2", 8), count("4-", 2), count("0", 2)), (3, 2, 4, 1));
    for value in ["", "x", "4-2", "4-8-9", "4,8"] {
        is_malformed(&std::format!("dom0_max_vcpus={value}"));
    }
}

#[test]
fn failures_on_purpose() {
    assert_eq!(good("debug=panic-at-boot").debug, Some(Failure::Panic));
    assert_eq!(good("debug=trap-at-boot").debug, Some(Failure::Trap));
    assert_eq!(good("debug=hang-at-boot").debug, Some(Failure::Hang));
    assert_eq!(good("").debug, None);
    is_malformed("debug");
    is_malformed("debug=yes");
}

#[test]
fn log_levels() {
    let levels = |always, limited| Levels { always, limited };
    assert_eq!(good("loglvl=all").loglvl, levels(Level::Debug, Level::Debug));
    assert_eq!(good("guest_loglvl=error/info").guest_loglvl, levels(Level::Error, Level::Info));
    assert_eq!(good("loglvl=info/none").loglvl, levels(Level::Info, Level::Info));
    let (own, guests) = (good("").loglvl, good("").guest_loglvl);
    assert_eq!(own, levels(Level::Info, Level::Info));
    assert_eq!(guests, levels(Level::None, Level::Warning));
    is_malformed("loglvl=loud");
    is_malformed("loglvl=info/");
    is_malformed("loglvl");
}

#[test]
fn protection_of_absent_entries() {
    let of = |line| {
        let (options, complaints) = parse(line);
        assert_eq!(complaints, Complaints::default(), "{line}");
        (options.pv_l1tf.dom0, options.pv_l1tf.domu)
    };
    let (yes, no) = (Some(true), Some(false));
    for (line, chosen) in [
        ("", (None, None)),
        ("pv-l1tf", (yes, yes)),
        ("no-pv-l1tf", (no, no)),
        ("pv-l1tf=off", (no, no)),
        ("pv-l1tf=dom0", (yes, None)),
        ("pv-l1tf=no-domu", (None, no)),
        ("pv-l1tf=dom0=yes,domu=0", (yes, no)),
        ("pv-l1tf=yes,no-dom0", (no, yes)),
        ("pv-l1tf=dom0 pv-l1tf=domu", (yes, yes)),
    ] {
        assert_eq!(of(line), chosen, "{line}");
    }
    for line in ["pv-l1tf=dom1", "pv-l1tf=dom0=maybe", "pv-l1tf=dom0,"] {
        assert!(matches!(bad(line), Problem::Malformed { .. }), "{line}");
    }
}

#[test]
fn sizes_of_grant_tables() {
    let of = |line| (good(line).gnttab_max_frames, good(line).gnttab_max_maptrack_frames);
    assert_eq!(of(""), (None, None));
    assert_eq!(of("gnttab_max_frames=128"), (Some(128), None));
    assert_eq!(of("gnttab_max_maptrack_frames=0x800"), (None, Some(2048)));
    is_malformed("gnttab_max_frames=many");
}

#[test]
fn complaints_read_well() {
    assert_eq!(bad("frobnicate=1"), Problem::Unknown);
    assert_eq!(bad("no-such"), Problem::Unknown);
    assert_eq!(bad("iommu"), Problem::NotImplemented);
    assert_eq!(bad("spec-ctrl=no"), Problem::NotImplemented);
    assert_eq!(bad("no-xpti"), Problem::NotImplemented);
    let (options, complaints) = parse("maxcpus=2 maxcpus=two wibble nosmp");
    assert_eq!((options.maxcpus, options.nosmp), (Some(2), true));
    assert!(complaints.list[0].is_error() && !complaints.list[1].is_error());
    assert_eq!(
        complaints.list[0].to_string(),
        "option \"maxcpus=two\" is malformed and ignored; accepted is a number of CPUs"
    );
    assert_eq!(complaints.list[1].to_string(), "option \"wibble\" is not known; it is ignored");
}

#[test]
fn many_complaints_are_counted() {
    let line = "x ".repeat(2048);
    let (_, complaints) = parse(&line);
    assert_eq!((complaints.list.len(), complaints.more), (32, 2016));
}

#[test]
fn names_are_sorted_and_free() {
    assert!(names::KNOWN.is_sorted());
    assert!(SPECS.iter().all(|s| names::KNOWN.binary_search(&s.name).is_err()));
}
