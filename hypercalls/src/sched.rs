// SPDX-License-Identifier: MIT OR Apache-2.0
//! `sched_op`: yielding, blocking, polling, shutting down.

use crate::layout::{codes, record};
use crate::{DomId, GuestPtr};

codes! {
    /// A sub-operation of `sched_op`.
    pub struct SchedOp(u32) {
        YIELD(SCHEDOP_yield) = 0,
        BLOCK(SCHEDOP_block) = 1,
        SHUTDOWN(SCHEDOP_shutdown) = 2,
        POLL(SCHEDOP_poll) = 3,
        REMOTE_SHUTDOWN(SCHEDOP_remote_shutdown) = 4,
        SHUTDOWN_CODE(SCHEDOP_shutdown_code) = 5,
        WATCHDOG(SCHEDOP_watchdog) = 6,
        PIN_OVERRIDE(SCHEDOP_pin_override) = 7,
    }

    /// Why a domain shuts down.
    pub struct ShutdownReason(u32) {
        POWEROFF(SHUTDOWN_poweroff) = 0,
        REBOOT(SHUTDOWN_reboot) = 1,
        SUSPEND(SHUTDOWN_suspend) = 2,
        CRASH(SHUTDOWN_crash) = 3,
        WATCHDOG(SHUTDOWN_watchdog) = 4,
        SOFT_RESET(SHUTDOWN_soft_reset) = 5,
    }
}

impl ShutdownReason {
    /// The greatest defined reason.
    pub const MAX: u32 = 5;
}

record! {
    /// `shutdown` and `shutdown_code`.
    pub struct SchedShutdown = "struct sched_shutdown", 4 {
        0 reason: ShutdownReason,
    }

    /// `poll`.
    pub struct SchedPoll = "struct sched_poll", 24 {
        0 ports: GuestPtr<u32>,
        8 nr_ports: u32,
        12 _pad: u32,
        /// Absolute system time, 0 for none.
        16 timeout: u64,
    }

    /// `remote_shutdown`.
    pub struct SchedRemoteShutdown = "struct sched_remote_shutdown", 8 {
        0 domain_id: DomId,
        2 _pad: u16,
        4 reason: ShutdownReason,
    }

    /// `watchdog`.
    pub struct SchedWatchdog = "struct sched_watchdog", 8 {
        0 id: u32,
        /// Seconds.
        4 timeout: u32,
    }

    /// `pin_override`.
    pub struct SchedPinOverride = "struct sched_pin_override", 4 {
        0 pcpu: i32,
    }
}
