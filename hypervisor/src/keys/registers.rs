// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys that tell about registers.

use core::fmt::Write as _;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use core::task::Poll;

use arch::{CpuId, cpu};
use hypercalls::VcpuId;

use super::text::{line, part};
use super::{Text, cpus, patiently};
use crate::domain;
use crate::snapshot::{self, Snapshot};
use crate::vcpu::Vcpu;

/// After how long a CPU is asked by NMI, and how long that may take.
const PATIENCE_NS: u64 = 20_000_000;

/// When the CPU that is waited for was asked, 0 when none is; and whether it was asked by NMI already.
static SINCE: AtomicU64 = AtomicU64::new(0);
static INSISTED: AtomicU64 = AtomicU64::new(0);

/// Asks a CPU, or looks for its answer: to be called until something has come of it. `None`: it does not answer.
fn ask(cpu: CpuId) -> Poll<Option<Snapshot>> {
    if cpu == cpu::this_cpu() {
        return Poll::Ready(Some(Snapshot::here()));
    }
    let now = arch::time::now();
    let since = SINCE.load(Relaxed);
    if since == 0 {
        INSISTED.store(0, Relaxed);
        SINCE.store(now.max(1), Relaxed);
        snapshot::ask(cpu);
        return Poll::Pending;
    }
    if let Some(answer) = snapshot::take(cpu) {
        SINCE.store(0, Relaxed);
        return Poll::Ready(Some(answer));
    }
    let waited = now.saturating_sub(since);
    if waited > 2 * PATIENCE_NS {
        snapshot::give_up();
        SINCE.store(0, Relaxed);
        return Poll::Ready(None);
    }
    if waited > PATIENCE_NS && INSISTED.swap(1, Relaxed) == 0 {
        snapshot::insist(cpu);
    }
    Poll::Pending
}

/// Tells what every CPU is doing.
pub(super) fn all(at: u64, to: &mut Text) -> Option<u64> {
    let cpu = cpus::from(at)?;
    match ask(cpu) {
        Poll::Pending => return Some(at),
        Poll::Ready(None) => line!(to, "CPU {} does not answer", cpu.0),
        Poll::Ready(Some(snapshot)) => part!(to, "CPU {}: {snapshot}", cpu.0),
    }
    cpus::behind(cpu)
}

/// Tells what every vCPU of dom0 is doing.
pub(super) fn dom0(at: u64, to: &mut Text) -> Option<u64> {
    let domain = domain::hardware()?;
    let vcpu = domain.vcpu(VcpuId(u32::try_from(at).ok()?))?;
    if vcpu.status.running.load(SeqCst) {
        let cpu = CpuId(vcpu.status.cpu.load(Relaxed));
        match ask(cpu) {
            Poll::Pending => return Some(at),
            Poll::Ready(None) => line!(to, "CPU {} does not answer", cpu.0),
            Poll::Ready(Some(snapshot)) => part!(to, "running on CPU {}: {snapshot}", cpu.0),
        }
    } else {
        saved(vcpu, to);
    }
    Some(at + 1)
}

fn saved(vcpu: &Vcpu, to: &mut Text) {
    if vcpu.status.down.load(Relaxed) {
        line!(to, "d{}v{} is down", vcpu.domid.0, vcpu.id.0);
        return;
    }
    match patiently(&vcpu.context) {
        Some(saved) => part!(to, "not running: {}", Snapshot::of_saved(vcpu, &saved)),
        None => line!(to, "d{}v{}: busy", vcpu.domid.0, vcpu.id.0),
    }
}
