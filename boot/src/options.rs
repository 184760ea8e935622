// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor's command line: the C hypervisor's options under their own names.
//!
//! One table says what there is. A word that cannot be taken changes nothing and yields a [`Complaint`]; parsing goes on.
//! Later words override earlier ones. Any name may be given with `no-` before it, which means what `=no` means.

mod com1;
mod dom0;
mod l1tf;
mod names;
pub(crate) mod parse;
mod sharing;
mod time;

pub use com1::{Baud, Com1, Parity};
pub use dom0::{Dom0Mem, Dom0Vcpus, MemSize};
pub use l1tf::PvL1tf;
pub use sharing::Sharing;
pub use time::ClockSource;

use arrayvec::ArrayVec;
use core::fmt;
use parse::Refusal;

/// A level of importance; the more important is the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// Errors.
    Error,
    /// Warnings too.
    Warning,
    /// Information too.
    Info,
    /// All of it.
    Debug,
}

/// Which messages are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Up to this level always.
    pub always: Level,
    /// Up to this level if there are not too many. Never below `always`.
    pub limited: Level,
}

impl Levels {
    /// Reads the value of `loglvl=`.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        levels(value).ok()
    }
}

/// Which consoles are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consoles {
    /// The first serial port.
    pub com1: bool,
    /// The text screen.
    pub vga: bool,
}

/// How what is typed changes between the hypervisor and dom0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conswitch {
    /// The letter that is pressed with Ctrl three times; `None` for no switch.
    pub letter: Option<u8>,
    /// dom0 gets the input as soon as it is built.
    pub to_dom0: bool,
}

impl Conswitch {
    /// Reads the value of `conswitch=`.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        conswitch(value).ok()
    }
}

/// All options, with the C hypervisor's defaults; but what the machine is and how dom0 is built is told unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What the TSC is measured by; `None`: the first that runs.
    pub clocksource: Option<ClockSource>,
    /// The first serial port.
    pub com1: Com1,
    /// Where messages go.
    pub console: Consoles,
    /// Who gets what is typed.
    pub conswitch: Conswitch,
    /// How many bytes of messages are kept.
    pub conring_size: u64,
    /// What dom0 prints is kept with them.
    pub console_to_ring: bool,
    /// How much memory dom0 gets.
    pub dom0_mem: Dom0Mem,
    /// How many vCPUs dom0 gets.
    pub dom0_max_vcpus: Dom0Vcpus,
    /// The hypervisor's own messages.
    pub loglvl: Levels,
    /// Messages about guests.
    pub guest_loglvl: Levels,
    /// After a fatal error, stay.
    pub noreboot: bool,
    /// Write out each message before going on.
    pub sync_console: bool,
    /// The most CPUs to use.
    pub maxcpus: Option<u32>,
    /// Use the first CPU only.
    pub nosmp: bool,
    /// Call UEFI's runtime services.
    pub efi_services: bool,
    /// Fail on purpose.
    pub debug: Option<Failure>,
    /// The most frames of a domain's grant table; `None`: as many as are usual.
    pub gnttab_max_frames: Option<u32>,
    /// The most frames with a domain's handles for grants of others; likewise.
    pub gnttab_max_maptrack_frames: Option<u32>,
    /// What becomes of NMIs that the machine sends.
    pub nmi: Nmi,
    /// How CPUs are shared.
    pub sched: Sharing,
    /// Watch that no CPU is stuck.
    pub watchdog: bool,
    /// Seconds within which a CPU that is not stuck takes its timer.
    pub watchdog_timeout: u32,
    /// Refuse guests' absent page-table entries that a CPU affected by L1TF would look at.
    pub pv_l1tf: PvL1tf,
}

/// What becomes of NMIs that the machine sends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nmi {
    /// They are told on the log.
    Ignore,
    /// dom0 gets them, too.
    #[default]
    Dom0,
    /// They are the machine's end.
    Fatal,
}

/// A failure on purpose before dom0 is built, so that tests can look at the report and at the machine's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// As when the hypervisor finds itself in a state that cannot be.
    Panic,
    /// As when it executes something that it must not.
    Trap,
    /// As when it waits for something that never comes.
    Hang,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clocksource: None,
            com1: Com1::default(),
            console: Consoles { com1: true, vga: true },
            conswitch: Conswitch { letter: Some(b'a'), to_dom0: true },
            conring_size: 128 << 10,
            console_to_ring: false,
            dom0_mem: Dom0Mem::default(),
            dom0_max_vcpus: Dom0Vcpus::default(),
            loglvl: Levels { always: Level::Info, limited: Level::Info },
            guest_loglvl: Levels { always: Level::None, limited: Level::Warning },
            noreboot: false,
            sync_console: false,
            maxcpus: None,
            nosmp: false,
            efi_services: true,
            debug: None,
            gnttab_max_frames: None,
            gnttab_max_maptrack_frames: None,
            nmi: Nmi::default(),
            sched: Sharing::default(),
            watchdog: false,
            watchdog_timeout: 5,
            pv_l1tf: PvL1tf::default(),
        }
    }
}

impl Options {
    /// The most CPUs to bring up, of `present` ones: at least one.
    #[must_use]
    pub fn cpu_limit(&self, present: u32) -> u32 {
        let limit = if self.nosmp { 1 } else { self.maxcpus.unwrap_or(u32::MAX) };
        present.min(limit).max(1)
    }
}

/// What is wrong with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No option of that name.
    Unknown,
    /// The C hypervisor has it; here it has no effect.
    NotImplemented,
    /// The value is not of the form that is accepted.
    Malformed {
        /// What is.
        accepted: &'static str,
    },
    /// The value is of a form that the C hypervisor takes, with a part that is not implemented here.
    PartNotImplemented {
        /// What is accepted.
        accepted: &'static str,
    },
}

/// A word of the command line that could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint<'a> {
    /// The word.
    pub word: &'a str,
    /// Why.
    pub problem: Problem,
}

impl Complaint<'_> {
    /// Whether this is an error (something was asked for that cannot be understood), not a warning.
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self.problem, Problem::Malformed { .. })
    }
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word;
        match self.problem {
            Problem::Unknown => write!(f, "option \"{word}\" is not known; it is ignored"),
            Problem::NotImplemented => {
                write!(f, "option \"{word}\" is not implemented; it has no effect")
            }
            Problem::Malformed { accepted } => {
                write!(f, "option \"{word}\" is malformed and ignored; accepted is {accepted}")
            }
            Problem::PartNotImplemented { accepted } => {
                write!(f, "option \"{word}\" asks for what is not implemented and is ignored; accepted is {accepted}")
            }
        }
    }
}

/// What parsing had to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaints<'a> {
    /// The first ones, in the order of the words.
    pub list: ArrayVec<Complaint<'a>, 32>,
    /// How many more there were.
    pub more: usize,
}

impl<'a> Complaints<'a> {
    fn add(&mut self, complaint: Complaint<'a>) {
        if self.list.try_push(complaint).is_err() {
            self.more += 1;
        }
    }
}

/// How an option is taken.
enum Take {
    Bool(fn(&mut Options) -> &mut bool),
    Value(fn(&mut Options, &str) -> Result<(), Refusal>),
    /// It did its work before us, or never has any.
    Nothing,
}

struct Spec {
    name: &'static str,
    accepted: &'static str,
    take: Take,
}

const BOOL: &str = "a boolean: nothing, yes/no, on/off, true/false, enable/disable, 1/0";
const FRAMES: &str = "a number of frames";
const LEVELS: &str = "LEVEL[/RATE-LIMITED LEVEL] of none, error, warning, info, debug, all";

const SPECS: &[Spec] = &[
    value("clocksource", time::CLOCK_ACCEPTED, |o, v| time::parse_clock(v).map(|c| o.clocksource = Some(c))),
    value("com1", com1::ACCEPTED, |o, v| com1::parse(v).map(|c| o.com1 = c)),
    value("console", "a list of com1, vga; or none", |o, v| consoles(v).map(|c| o.console = c)),
    boolean("console_to_ring", |o| &mut o.console_to_ring),
    value("conring_size", "a size", |o, v| {
        o.conring_size = whole_size(v)?;
        Ok(())
    }),
    value("conswitch", "a letter; x behind it leaves the input with the hypervisor", |o, v| {
        conswitch(v).map(|c| o.conswitch = c)
    }),
    value("debug", "one of panic-at-boot, trap-at-boot, hang-at-boot, for tests of the report", |o, v| {
        failure(v).map(|f| o.debug = Some(f))
    }),
    value("dom0_mem", dom0::MEM_ACCEPTED, |o, v| dom0::parse_mem(o.dom0_mem, v).map(|m| o.dom0_mem = m)),
    value("dom0_max_vcpus", dom0::VCPUS_ACCEPTED, |o, v| dom0::parse_vcpus(v).map(|n| o.dom0_max_vcpus = n)),
    value("efi", "a list of rs, no-rs", |o, v| efi(v).map(|services| o.efi_services = services)),
    value("gnttab_max_frames", FRAMES, |o, v| whole(v).map(|n| o.gnttab_max_frames = Some(n))),
    value("gnttab_max_maptrack_frames", FRAMES, |o, v| whole(v).map(|n| o.gnttab_max_maptrack_frames = Some(n))),
    value("loglvl", LEVELS, |o, v| levels(v).map(|l| o.loglvl = l)),
    value("guest_loglvl", LEVELS, |o, v| levels(v).map(|l| o.guest_loglvl = l)),
    value("maxcpus", "a number of CPUs", |o, v| whole(v).map(|n| o.maxcpus = Some(n))),
    value("nmi", "one of ignore, dom0, fatal", |o, v| nmi(v).map(|n| o.nmi = n)),
    value("pv-l1tf", l1tf::ACCEPTED, |o, v| l1tf::parse(o.pv_l1tf, v).map(|p| o.pv_l1tf = p)),
    boolean("noreboot", |o| &mut o.noreboot),
    boolean("nosmp", |o| &mut o.nosmp),
    value("sched", sharing::ACCEPTED, |o, v| sharing::parse(v).map(|s| o.sched = s)),
    boolean("sync_console", |o| &mut o.sync_console),
    value("watchdog", "a boolean, or force", |o, v| watchdog(v).map(|on| o.watchdog = on)),
    value("watchdog_timeout", "a number of seconds; 0 for no watchdog", |o, v| {
        whole(v).map(|seconds| o.watchdog_timeout = seconds)
    }),
    nothing("placeholder"),
    nothing("real-mode"),
    nothing("edd"),
    nothing("edid"),
];

const fn value(
    name: &'static str,
    accepted: &'static str,
    take: fn(&mut Options, &str) -> Result<(), Refusal>,
) -> Spec {
    let take = Take::Value(take);
    Spec { name, accepted, take }
}

const fn boolean(name: &'static str, field: fn(&mut Options) -> &mut bool) -> Spec {
    Spec { name, accepted: BOOL, take: Take::Bool(field) }
}

const fn nothing(name: &'static str) -> Spec {
    Spec { name, accepted: "", take: Take::Nothing }
}

/// Reads a command line as [`crate::BootInfo::cmdline`] gives it.
#[must_use]
pub fn parse(line: &str) -> (Options, Complaints<'_>) {
    let mut options = Options::default();
    let mut complaints = Complaints::default();
    for word in line.split_ascii_whitespace() {
        if let Err(problem) = take(&mut options, word) {
            complaints.add(Complaint { word, problem });
        }
    }
    (options, complaints)
}

fn take(options: &mut Options, word: &str) -> Result<(), Problem> {
    let (key, value) = match word.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (word, None),
    };
    let (name, positive) = match key.strip_prefix("no-") {
        Some(name) => (name, false),
        None => (key, true),
    };
    let Some(spec) = SPECS.iter().find(|s| s.name == name) else {
        return Err(if names::KNOWN.binary_search(&name).is_ok() { Problem::NotImplemented } else { Problem::Unknown });
    };
    let accepted = spec.accepted;
    let given = value.unwrap_or_default();
    let result = match spec.take {
        Take::Nothing => Ok(()),
        Take::Bool(field) => parse::boolean(given).map(|b| *field(options) = b == positive),
        // With `no-` a value makes no sense, and without one it stands for `=no`.
        Take::Value(_) if !positive && !given.is_empty() => Err(Refusal::Malformed),
        Take::Value(set) if !positive => set(options, "no"),
        Take::Value(set) => set(options, given),
    };
    result.map_err(|refusal| match refusal {
        Refusal::Malformed => Problem::Malformed { accepted },
        Refusal::NotImplemented => Problem::PartNotImplemented { accepted },
    })
}

fn nmi(name: &str) -> Result<Nmi, Refusal> {
    match name {
        "ignore" => Ok(Nmi::Ignore),
        "dom0" => Ok(Nmi::Dom0),
        "fatal" => Ok(Nmi::Fatal),
        _ => Err(Refusal::Malformed),
    }
}

fn watchdog(value: &str) -> Result<bool, Refusal> {
    // There is no kind of machine on which it would have to be forced.
    if value == "force" { Ok(true) } else { parse::boolean(value) }
}

fn failure(name: &str) -> Result<Failure, Refusal> {
    match name {
        "panic-at-boot" => Ok(Failure::Panic),
        "trap-at-boot" => Ok(Failure::Trap),
        "hang-at-boot" => Ok(Failure::Hang),
        _ => Err(Refusal::Malformed),
    }
}

fn efi(value: &str) -> Result<bool, Refusal> {
    let mut services = true;
    for word in value.split(',') {
        services = match word.split_once('=').unwrap_or((word, "")) {
            ("rs", answer) => parse::boolean(answer)?,
            ("no-rs", "") => false,
            ("attr", _) => return Err(Refusal::NotImplemented),
            _ => return Err(Refusal::Malformed),
        };
    }
    Ok(services)
}

fn whole(value: &str) -> Result<u32, Refusal> {
    Ok(u32::try_from(parse::whole_number(value)?).unwrap_or(u32::MAX))
}

fn level(name: &str) -> Result<Level, Refusal> {
    Ok(match name {
        "none" => Level::None,
        "error" => Level::Error,
        "warning" => Level::Warning,
        "info" => Level::Info,
        "debug" | "all" => Level::Debug,
        _ => return Err(Refusal::Malformed),
    })
}

fn levels(value: &str) -> Result<Levels, Refusal> {
    let (always, limited) = value.split_once('/').unwrap_or((value, value));
    let (always, limited) = (level(always)?, level(limited)?);
    Ok(Levels { always, limited: limited.max(always) })
}

fn consoles(value: &str) -> Result<Consoles, Refusal> {
    let mut consoles = Consoles { com1: false, vga: false };
    for name in value.split(',') {
        match name {
            "com1" => consoles.com1 = true,
            "vga" => consoles.vga = true,
            "none" => {}
            "com1H" | "com1L" | "com2" | "com2H" | "com2L" | "pv" | "dbgp" | "ehci" | "xhci" => {
                return Err(Refusal::NotImplemented);
            }
            _ => return Err(Refusal::Malformed),
        }
    }
    Ok(consoles)
}

fn whole_size(value: &str) -> Result<u64, Refusal> {
    match parse::size(value)? {
        (bytes, "") => Ok(bytes),
        _ => Err(Refusal::Malformed),
    }
}

fn conswitch(value: &str) -> Result<Conswitch, Refusal> {
    let mut chars = value.chars();
    let (letter, rest) = (chars.next(), chars.as_str());
    match (letter, rest) {
        _ if value == "no" => Ok(Conswitch { letter: None, to_dom0: true }),
        (Some(letter), "" | "x") if letter.is_ascii_alphabetic() => {
            Ok(Conswitch { letter: Some(letter as u8), to_dom0: rest.is_empty() })
        }
        _ => Err(Refusal::Malformed),
    }
}

#[cfg(test)]
mod tests;
