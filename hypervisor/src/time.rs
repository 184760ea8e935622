// SPDX-License-Identifier: MIT OR Apache-2.0
//! The time that guests see: system time, wall clock, runstate areas.
//!
//! System time is nanoseconds since Xenith started. Every published area uses the scale that [`arch::time::now`] uses, so a
//! guest computes exactly the hypervisor's time; but for a domain with a counter of its own ([`crate::tsc`]). Areas are updated
//! under a version protocol: odd while a change is under way.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU64, fence};

use hypercalls::shared_info::{XEN_PVCLOCK_TSC_STABLE_BIT, shared_offset, vcpu_offset};
use hypercalls::vcpu::{Runstate as State, RunstateInfo, XEN_RUNSTATE_UPDATE};
use hypercalls::vm_assist::VmAssistType;
use hypercalls::{GuestVa, VcpuTimeInfo};
use zerocopy::IntoBytes;

use crate::domain::Domain;
use crate::guest;
use crate::shared::SharedFrame;
use crate::tsc::Tsc;
use crate::vcpu::Vcpu;

/// Wall-clock time when system time was 0, in ns since 1970.
static WALL_AT_BOOT: AtomicU64 = AtomicU64::new(0);

fn write_time_info(to: SharedFrame, counter: &Tsc) {
    let version = to.u32(0);
    version.fetch_add(1, SeqCst);
    fence(SeqCst);
    let (tsc, system, scale) = counter.moment();
    to.u64(8).store(tsc, Relaxed);
    to.u64(16).store(system, Relaxed);
    to.u32(24).store(scale.mul, Relaxed);
    to.u8(28).store(scale.shift.cast_unsigned(), Relaxed);
    let stable = if arch::time::tsc_is_stable() { XEN_PVCLOCK_TSC_STABLE_BIT } else { 0 };
    to.u8(29).store(stable, Relaxed);
    fence(SeqCst);
    version.fetch_add(1, SeqCst);
}

/// How long a vCPU that runs computes its time from what was published once, in ns.
const REFRESH: u64 = 1_000_000_000;

/// Publishes the time anew when the vCPU has had the old one for long enough.
pub fn refresh(vcpu: &Vcpu, now: u64) {
    if vcpu.time_due.load(Relaxed) <= now {
        update(vcpu);
    }
}

/// Publishes the time in a vCPU's `vcpu_info`, and in its secondary area if it has one and runs here: that one lies in its own
/// address space.
pub fn update(vcpu: &Vcpu) {
    vcpu.time_due.store(arch::time::now().saturating_add(REFRESH), Relaxed);
    let area = vcpu.vcpu_info().at(vcpu_offset::TIME);
    write_time_info(area, &vcpu.domain().tsc);
    let secondary = vcpu.time_area.load(Relaxed);
    if secondary != 0 && arch::context::current() == core::ptr::from_ref(vcpu) as usize {
        let info = VcpuTimeInfo {
            version: area.u32(0).load(Relaxed),
            _pad0: 0,
            tsc_timestamp: area.u64(8).load(Relaxed),
            system_time: area.u64(16).load(Relaxed),
            tsc_to_system_mul: area.u32(24).load(Relaxed),
            tsc_shift: area.u8(28).load(Relaxed).cast_signed(),
            flags: area.u8(29).load(Relaxed),
            _pad1: [0; 2],
        };
        guest::in_kernel(|| write_secondary(GuestVa(secondary), info));
    }
}

/// Writes a secondary area. A guest that unmapped it loses the update, nothing else.
fn write_secondary(to: GuestVa, info: VcpuTimeInfo) {
    let changing = VcpuTimeInfo { version: info.version.wrapping_sub(1), ..info };
    let version = |of: &VcpuTimeInfo| arch::guest::copy_to(to, of.version.as_bytes());
    if version(&changing).is_ok() && arch::guest::copy_to(to, changing.as_bytes()).is_ok() {
        let _ = version(&info);
    }
}

/// Sets the wall clock: `wall` ns since 1970 at system time `system`.
pub fn set_wall_clock(wall: u64, system: u64) {
    WALL_AT_BOOT.store(wall.saturating_sub(system), SeqCst);
    crate::domain::for_each(|domain| publish_wall_clock(domain));
}

/// Publishes the wall clock in a domain's shared page.
pub fn publish_wall_clock(domain: &Domain) {
    let shared = domain.shared_info();
    let at_boot = WALL_AT_BOOT.load(SeqCst);
    let seconds = (at_boot / 1_000_000_000).wrapping_add(domain.time_offset.load(Relaxed));
    let version = shared.u32(shared_offset::WC_VERSION);
    version.fetch_add(1, SeqCst);
    fence(SeqCst);
    shared.u32(shared_offset::WC_SEC).store(seconds as u32, Relaxed);
    shared.u32(shared_offset::WC_SEC_HI).store((seconds >> 32) as u32, Relaxed);
    shared.u32(shared_offset::WC_NSEC).store((at_boot % 1_000_000_000) as u32, Relaxed);
    fence(SeqCst);
    version.fetch_add(1, SeqCst);
}

/// Changes a loaded vCPU's runstate and shows it the account.
pub fn update_runstate(vcpu: &Vcpu, state: State, now: u64) {
    let info = {
        let mut account = vcpu.runstate.lock();
        account.enter(state, now);
        account.info(now)
    };
    let area = vcpu.runstate_area.load(Relaxed);
    if area != 0 {
        let marked = vcpu.domain().assists(VmAssistType::RUNSTATE_UPDATE_FLAG);
        guest::in_kernel(|| write_runstate(area, info, marked));
    }
}

/// Writes a runstate area. A guest that unmapped it loses the update, nothing else.
fn write_runstate(area: u64, mut info: RunstateInfo, marked: bool) {
    let entry_time = GuestVa(area.wrapping_add(8));
    if marked {
        info.state_entry_time |= XEN_RUNSTATE_UPDATE;
        if arch::guest::write_u64(entry_time, info.state_entry_time).is_err() {
            return;
        }
    }
    if arch::guest::copy_to(GuestVa(area), info.as_bytes()).is_ok() && marked {
        let _ = arch::guest::write_u64(entry_time, info.state_entry_time & !XEN_RUNSTATE_UPDATE);
    }
}
