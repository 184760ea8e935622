// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pools of CPUs and their schedulers.

use hypercalls::sysctl_args::*;
use hypercalls::{DomId, Errno, Payload, Result};
use sched::PoolId;

use super::Answer;
use crate::domain;
use crate::ops::bitmap;
use crate::pools::{self, Info};
use crate::vcpu::Vcpu;

/// Says what the scheduler is called that has all CPUs which nobody put into another pool.
pub(super) fn sched_id(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    payload.put(&SchedId { sched_id: pools::scheduler(PoolId::DEFAULT).ok_or(Errno::ENOENT)? });
    Ok(Answer::Back)
}

/// Tells about pools of CPUs, and changes them.
pub(super) fn cpupool_op(vcpu: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: CpupoolOp = payload.get();
    let id = PoolId(a.cpupool_id);
    let unless_any = |number: u32| (number != XEN_SYSCTL_CPUPOOL_PAR_ANY).then_some(number);
    match a.op {
        CpupoolCmd::CREATE => a.cpupool_id = pools::create(unless_any(a.cpupool_id).map(PoolId), a.sched_id)?.0,
        CpupoolCmd::DESTROY => pools::destroy(id)?,
        // The pool asked for, or the next one.
        CpupoolCmd::INFO => {
            let Info { id, scheduler, domains, cpus } = pools::info_from(id).ok_or(Errno::ENOENT)?;
            (a.cpupool_id, a.sched_id, a.n_dom) = (id.0, scheduler, domains);
            bitmap::write_cpus(&a.cpumap, &cpus)?;
        }
        CpupoolCmd::ADDCPU => pools::add_cpu(id, unless_any(a.cpu))?,
        CpupoolCmd::RMCPU => pools::remove_cpu(id, unless_any(a.cpu))?,
        CpupoolCmd::MOVEDOMAIN => {
            let target = u16::try_from(a.domid).ok().and_then(|id| domain::find(DomId(id))).ok_or(Errno::ESRCH)?;
            if target.id == vcpu.domid {
                return Err(Errno::EPERM);
            }
            pools::move_domain(&target, id)?;
        }
        CpupoolCmd::FREEINFO => bitmap::write_cpus(&a.cpumap, &pools::free())?,
        _ => return Err(Errno::ENOSYS),
    }
    payload.put(&a);
    Ok(Answer::Back)
}

/// Reads or sets what a pool's scheduler does for all domains.
pub(super) fn scheduler_op(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: SysctlSchedulerOp = payload.get();
    if !matches!(a.cmd, SysctlSchedOp::GETINFO | SysctlSchedOp::PUTINFO) {
        return Err(Errno::EINVAL);
    }
    let id = PoolId(a.cpupool_id);
    if a.sched_id != pools::scheduler(id).ok_or(Errno::ESRCH)? {
        return Err(Errno::EINVAL);
    }
    // The null scheduler has nothing to set, and says so by doing nothing.
    if a.sched_id == hypercalls::domctl_args::SchedulerId::CREDIT2 {
        if a.cmd == SysctlSchedOp::PUTINFO {
            let range = XEN_SYSCTL_SCHED_RATELIMIT_MIN..=XEN_SYSCTL_SCHED_RATELIMIT_MAX;
            if a.ratelimit_us != 0 && !range.contains(&a.ratelimit_us) {
                return Err(Errno::EINVAL);
            }
            pools::set_ratelimit_us(id, a.ratelimit_us);
        }
        a.ratelimit_us = pools::ratelimit_us(id);
    }
    payload.put(&a);
    Ok(Answer::Back)
}
