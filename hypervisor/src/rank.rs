// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ranks of the hypervisor's locks: a CPU takes them in ascending order only. `mm`'s come behind them.

/// A domain's death.
pub const DEATH: u8 = 4;
/// The right to set the state of a domain's vCPUs that are not initialised.
pub const INITIALISE: u8 = 6;
/// A domain's page tables.
pub const PAGE_TABLES: u8 = 8;
/// A vCPU's root tables.
pub const ROOTS: u8 = 10;
/// A vCPU's descriptor tables.
pub const DESCRIPTORS: u8 = 12;
/// A domain's event channels; two of them in ascending order of the domains' numbers.
pub const EVENTS: u8 = 16;
/// A domain's list of PIRQs, while it is changed.
pub const PIRQS: u8 = 14;
/// An interrupt.
pub const IRQ: u8 = 20;
/// A PCI function's messages.
pub const PCI: u8 = 21;
/// A CPU's list of interrupts that are held back.
pub const HELD: u8 = 22;
/// The page on which a domain finds which PIRQs it must end.
pub const EOI_PAGE: u8 = 23;
/// A queue of events; two of them in ascending order of vCPU and priority.
pub const EVENT_QUEUE: u8 = 17;
/// A domain's handles for grants of others.
pub const MAPTRACK: u8 = 17;
/// A domain's grant table.
pub const GRANTS: u8 = 18;
/// What CPUID tells a domain.
pub const CPU_POLICY: u8 = 19;
/// The map of a domain's memory.
pub const MEMORY_MAP: u8 = 25;
/// Run queues.
pub const SCHEDULE: u8 = 24;
/// A vCPU's saved state.
pub const CONTEXT: u8 = 28;
/// A vCPU's debug registers.
pub const DEBUG: u8 = 29;
/// A vCPU's account of time.
pub const RUNSTATE: u8 = 30;
/// A CPU's timers.
pub const TIMERS: u8 = 32;
/// What is known of power states.
pub const POWER: u8 = 33;
/// Values that are read in place of machine-check registers.
pub const MCA: u8 = 26;
/// Wall clock.
pub const WALLCLOCK: u8 = 34;
/// Console input and the ring of log messages.
pub const CONSOLE: u8 = 44;
/// The serial line.
pub const SERIAL: u8 = 46;
/// Calls of the firmware.
pub const FIRMWARE: u8 = 36;
/// Devices that are reached by an index port and a data port.
pub const PORTS: u8 = 40;
/// The pair of ports of PCI configuration space.
pub const CONFIG_PORTS: u8 = 41;
/// A domain's latched port values.
pub const LATCHES: u8 = 38;
/// What a domain may do with devices.
pub const IO_RIGHTS: u8 = 35;
/// A domain's watchdogs.
pub const WATCHDOGS: u8 = 31;
/// Where a vCPU may run that is pinned for a while.
pub const PINNED: u8 = 19;
/// A domain's name among tools.
pub const HANDLE: u8 = 39;
/// The frame of a registered `vcpu_info`.
pub const INFO: u8 = 9;
/// Why a vCPU crashed its domain.
pub const CRASHED: u8 = 42;
/// What waits for the end of a grace period.
pub const GRACE: u8 = 36;
