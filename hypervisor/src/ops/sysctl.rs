// SPDX-License-Identifier: MIT OR Apache-2.0
//! `sysctl`: what tools ask about the whole machine, and how they steer it.
//!
//! The argument is read once, whole. A sub-operation works on that copy of its union and says whether it goes back to the
//! caller: it does when there is something to tell, on success and with a few errors.

mod console;
mod machine;
pub(super) mod policy;
mod pool;
pub(super) mod topology;

use hypercalls::sysctl::{Sysctl, XEN_SYSCTL_INTERFACE_VERSION};
use hypercalls::{Errno, GuestPtr, HypercallNr, Payload, Result};
use zerocopy::{Immutable, IntoBytes};

use crate::dispatch::{Args, Outcome, SubOp, absent, find, refused, sub};
use crate::guest;
use crate::vcpu::Vcpu;

/// What becomes of the argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is written back.
    Back,
    /// It stays as it is.
    Nothing,
    /// It is written back, and says more of an error.
    Failed(Errno),
}

/// What runs a sub-operation.
pub type Run = fn(&Vcpu, &mut Payload) -> Result<Answer>;

/// The sub-operations.
pub static OPS: [SubOp<Run>; 30] = {
    let mut t: [SubOp<Run>; 30] = [absent(""); 30];
    t[1] = sub("readconsole", console::read);
    t[2] = absent("tbuf_op");
    t[3] = sub("physinfo", machine::physinfo);
    t[4] = sub("sched_id", pool::sched_id);
    t[5] = absent("perfc_op");
    t[6] = sub("getdomaininfolist", machine::domains);
    t[7] = sub("debug_keys", console::debug_keys);
    t[8] = sub("getcpuinfo", machine::idle_times);
    t[9] = sub("availheap", machine::available);
    // Frequencies and idle states are the firmware's.
    t[10] = refused("get_pmstat", Errno::ENODEV);
    t[11] = absent("cpu_hotplug");
    t[12] = refused("pm_op", Errno::ENODEV);
    t[14] = absent("page_offline_op");
    t[15] = absent("lockprof_op");
    t[16] = sub("cputopoinfo", topology::cpus);
    t[17] = sub("numainfo", topology::nodes);
    t[18] = sub("cpupool_op", pool::cpupool_op);
    t[19] = sub("scheduler_op", pool::scheduler_op);
    t[20] = absent("coverage_op");
    // No cache monitoring and no cache allocation.
    t[21] = refused("psr_cmt_op", Errno::ENODEV);
    t[22] = sub("pcitopoinfo", topology::devices);
    t[23] = refused("psr_alloc", Errno::ENODEV);
    t[25] = sub("get_cpu_levelling_caps", machine::levelling_caps);
    t[26] = sub("get_cpu_featureset", policy::featureset);
    t[27] = absent("livepatch_op");
    t[29] = sub("get_cpu_policy", policy::of_machine);
    t
};

/// Hypercall 35.
pub fn sysctl(vcpu: &Vcpu, args: &Args) -> Outcome {
    run(vcpu, GuestPtr::new(args[0])).into()
}

fn run(vcpu: &Vcpu, arg: GuestPtr<Sysctl>) -> Result<i64> {
    let mut op = guest::read(arg)?;
    if op.interface_version != XEN_SYSCTL_INTERFACE_VERSION {
        return Err(Errno::EACCES);
    }
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM);
    }
    let run = find(vcpu, HypercallNr::SYSCTL, &OPS, u64::from(op.cmd.0))?;
    answer(run(vcpu, &mut op.u)?, arg, &op)
}

/// Ends a call with what becomes of its argument.
pub(super) fn answer<T: IntoBytes + Immutable>(answer: Answer, arg: GuestPtr<T>, op: &T) -> Result<i64> {
    if answer != Answer::Nothing {
        guest::write(arg, op)?;
    }
    if let Answer::Failed(error) = answer { Err(error) } else { Ok(0) }
}

#[cfg(test)]
mod tests;
