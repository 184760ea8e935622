// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scheduler and its CPUs, as far as they are not one domain's.

use hypercalls::sysctl_args::*;
use hypercalls::{Errno, Payload, Result};

use super::Answer;
use crate::ops::bitmap;
use crate::vcpu::Vcpu;
use crate::{domain, placement};

/// The pool that has every CPU.
const POOL: u32 = 0;

/// Says what the scheduler is called.
pub(super) fn sched_id(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    payload.put(&SchedId { sched_id: placement::scheduler() });
    Ok(Answer::Back)
}

/// Tells about pools of CPUs.
pub(super) fn cpupool_op(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: CpupoolOp = payload.get();
    match a.op {
        // The pool asked for, or the next one.
        CpupoolCmd::INFO if a.cpupool_id == POOL => {
            (a.cpupool_id, a.sched_id, a.n_dom) = (POOL, placement::scheduler(), domain::count());
            bitmap::write_cpus(&a.cpumap, &arch::cpu::online())?;
        }
        CpupoolCmd::INFO => return Err(Errno::ENOENT),
        // Every CPU belongs to the pool.
        CpupoolCmd::FREEINFO => bitmap::write_cpus(&a.cpumap, &arch::CpuMask::EMPTY)?,
        CpupoolCmd::CREATE | CpupoolCmd::DESTROY | CpupoolCmd::ADDCPU | CpupoolCmd::RMCPU | CpupoolCmd::MOVEDOMAIN => {
            return Err(Errno::EOPNOTSUPP);
        }
        _ => return Err(Errno::ENOSYS),
    }
    payload.put(&a);
    Ok(Answer::Back)
}

/// Reads or sets what the scheduler does for all domains.
pub(super) fn scheduler_op(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: SysctlSchedulerOp = payload.get();
    if a.cpupool_id != POOL {
        return Err(Errno::ESRCH);
    }
    if a.sched_id != placement::scheduler() {
        return Err(Errno::EINVAL);
    }
    match a.cmd {
        SysctlSchedOp::GETINFO => {}
        SysctlSchedOp::PUTINFO => {
            let range = XEN_SYSCTL_SCHED_RATELIMIT_MIN..=XEN_SYSCTL_SCHED_RATELIMIT_MAX;
            if a.ratelimit_us != 0 && !range.contains(&a.ratelimit_us) {
                return Err(Errno::EINVAL);
            }
            placement::set_ratelimit_us(a.ratelimit_us);
        }
        _ => return Err(Errno::EINVAL),
    }
    a.ratelimit_us = placement::ratelimit_us();
    payload.put(&a);
    Ok(Answer::Back)
}
