// SPDX-License-Identifier: MIT OR Apache-2.0
//! `domctl`: what tools ask about domains, and how they steer them.
//!
//! As with [`super::sysctl`] the argument is read once, whole, and a sub-operation works on the copy. The domain is looked up
//! before the caller's right to ask is.

mod create;
mod devices;
pub mod info;
mod pages;
mod policy;
mod settings;
mod state;
mod vcpus;

use hypercalls::domctl::{Domctl, DomctlCmd, XEN_DOMCTL_INTERFACE_VERSION};
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr, Payload, Result};

use super::sysctl::Answer;
use crate::dispatch::{Args, Outcome, SubOp, absent, by_family, find, refused, sub};
use crate::domain::{self, Domain};
use crate::guest;
use crate::vcpu::Vcpu;

/// What runs a sub-operation on a domain that exists. The caller controls it.
pub type Run = fn(&Vcpu, &Domain, &mut Payload) -> Result<Answer>;

/// The sub-operations.
pub static OPS: [SubOp<Run>; 87] = {
    let mut t: [SubOp<Run>; 87] = [absent(""); 87];
    t[1] = by_family("createdomain");
    t[2] = sub("destroydomain", settings::destroy);
    t[3] = sub("pausedomain", settings::pause);
    t[4] = sub("unpausedomain", settings::unpause);
    t[5] = by_family("getdomaininfo");
    t[9] = sub("setvcpuaffinity", vcpus::set_affinity);
    // No shadow page tables, so no log of what is written.
    t[10] = refused("shadow_op", Errno::EOPNOTSUPP);
    t[11] = sub("max_mem", settings::max_mem);
    t[12] = sub("setvcpucontext", state::set_context);
    t[13] = sub("getvcpucontext", state::context);
    t[14] = sub("getvcpuinfo", vcpus::info);
    t[15] = sub("max_vcpus", settings::max_vcpus);
    t[16] = sub("scheduler_op", settings::scheduler_op);
    t[17] = sub("setdomainhandle", settings::set_handle);
    t[18] = absent("setdebugging");
    t[19] = sub("irq_permission", devices::permit_irq);
    t[20] = sub("iomem_permission", devices::permit_memory);
    t[21] = sub("ioport_permission", devices::permit_ports);
    t[22] = sub("hypercall_init", settings::hypercall_page);
    t[23] = absent("soft_reset_cont");
    t[24] = sub("settimeoffset", settings::time_offset);
    t[25] = sub("getvcpuaffinity", vcpus::affinity);
    t[26] = absent("real_mode_area");
    t[27] = sub("resumedomain", settings::resume);
    t[28] = sub("sendtrigger", state::send_trigger);
    t[29] = sub("subscribe", settings::subscribe);
    // For translated guests.
    t[33] = refused("gethvmcontext", Errno::EINVAL);
    t[34] = refused("sethvmcontext", Errno::EINVAL);
    t[35] = sub("set_address_size", settings::set_address_size);
    t[36] = sub("get_address_size", settings::address_size);
    // No IOMMU.
    t[37] = refused("assign_device", Errno::ENODEV);
    t[38] = refused("bind_pt_irq", Errno::ENODEV);
    t[39] = sub("memory_mapping", devices::map_memory);
    t[40] = absent("ioport_mapping");
    t[42] = sub("set_ext_vcpucontext", state::set_extended);
    t[43] = sub("get_ext_vcpucontext", state::extended);
    t[44] = absent("set_opt_feature");
    t[45] = refused("test_assign_device", Errno::ENODEV);
    t[46] = refused("set_target", Errno::EOPNOTSUPP);
    t[47] = refused("deassign_device", Errno::ENODEV);
    t[48] = refused("unbind_pt_irq", Errno::ENODEV);
    t[50] = refused("get_device_group", Errno::ENODEV);
    t[54] = absent("debug_op");
    t[55] = refused("gethvmcontext_partial", Errno::EINVAL);
    t[56] = absent("vm_event_op");
    t[57] = absent("mem_sharing_op");
    t[59] = sub("gettscinfo", settings::tsc);
    t[60] = sub("settscinfo", settings::set_tsc);
    t[61] = sub("getpageframeinfo3", pages::types);
    t[62] = absent("setvcpuextstate");
    t[63] = absent("getvcpuextstate");
    t[64] = absent("set_access_required");
    t[65] = absent("audit_p2m");
    t[66] = sub("set_virq_handler", devices::set_virq_handler);
    t[67] = absent("set_broken_page_p2m");
    t[68] = sub("setnodeaffinity", settings::set_node_affinity);
    t[69] = sub("getnodeaffinity", settings::node_affinity);
    t[71] = absent("cacheflush");
    t[72] = absent("get_vcpu_msrs");
    t[73] = absent("set_vcpu_msrs");
    t[74] = absent("setvnumainfo");
    t[75] = refused("psr_cmt_op", Errno::ENODEV);
    t[77] = absent("monitor_op");
    t[78] = refused("psr_alloc", Errno::ENODEV);
    t[79] = absent("soft_reset");
    t[81] = absent("vuart_op");
    t[82] = sub("get_cpu_policy", policy::get);
    t[83] = sub("set_cpu_policy", policy::set);
    t[84] = refused("vmtrace_op", Errno::EOPNOTSUPP);
    t[85] = refused("get_paging_mempool_size", Errno::EOPNOTSUPP);
    t[86] = refused("set_paging_mempool_size", Errno::EOPNOTSUPP);
    t
};

/// Hypercall 36.
pub fn domctl(vcpu: &Vcpu, args: &Args) -> Outcome {
    Outcome::or_again(run(vcpu, GuestPtr::new(args[0])), args)
}

fn run(vcpu: &Vcpu, arg: GuestPtr<Domctl>) -> Result<i64> {
    let mut op = guest::read(arg)?;
    if op.interface_version != XEN_DOMCTL_INTERFACE_VERSION {
        return Err(Errno::EACCES);
    }
    let answer = match op.cmd {
        DomctlCmd::CREATEDOMAIN => create::domain(vcpu, &mut op)?,
        DomctlCmd::GETDOMAININFO => next_info(vcpu, &mut op)?,
        _ => on_domain(vcpu, &mut op)?,
    };
    super::sysctl::answer(answer, arg, &op)
}

fn on_domain(vcpu: &Vcpu, op: &mut Domctl) -> Result<Answer> {
    let target = domain::find(op.domain).ok_or(Errno::ESRCH)?;
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM);
    }
    let run = find(vcpu, HypercallNr::DOMCTL, &OPS, u64::from(op.cmd.0))?;
    run(vcpu, &target, &mut op.u)
}

/// Describes the domain that is asked for, or the next one that there is.
fn next_info(vcpu: &Vcpu, op: &mut Domctl) -> Result<Answer> {
    if op.domain.0 >= DomId::FIRST_RESERVED.0 {
        return Err(Errno::EINVAL);
    }
    let found = domain::next(op.domain).ok_or(Errno::ESRCH)?;
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM);
    }
    let info = info::of(&found);
    op.domain = info.domain;
    op.u.put(&info);
    Ok(Answer::Back)
}

#[cfg(test)]
mod tests;
