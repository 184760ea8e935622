// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mca`: the hardware domain fetches records of machine checks, and feigns errors to see what becomes of them.

mod cpus;

use arch::machine_check as registers;
use arch::{CpuId, cpu};
use hypercalls::mca::*;
use hypercalls::{Errno, GuestPtr, HypercallNr, Payload, Result};
use mm::Lock;

use super::bitmap;
use super::sysctl::{self, Answer};
use crate::cpus::Model;
use crate::dispatch::{Args, Outcome, SubOp, find, refused, sub};
use crate::mca::{self, interposed, telemetry};
use crate::vcpu::Vcpu;
use crate::{domain, guest, rank};

type Union = Payload<18>;
/// What runs a sub-operation.
pub type Run = fn(&Vcpu, &mut Union) -> Result<Answer>;

/// The sub-operations.
pub static OPS: [SubOp<Run>; 7] = [
    refused("", Errno::EINVAL),
    sub("fetch", fetch),
    // Domains are not told of errors: one that has used bad memory is crashed.
    refused("notifydomain", Errno::EINVAL),
    sub("physcpuinfo", cpus::physcpuinfo),
    sub("msrinject", msrinject),
    sub("mceinject", mceinject),
    sub("inject_v2", inject_v2),
];

/// Hypercall 48.
pub fn mca(vcpu: &Vcpu, args: &Args) -> Outcome {
    run(vcpu, GuestPtr::new(args[0])).into()
}

fn run(vcpu: &Vcpu, arg: GuestPtr<McaOp>) -> Result<i64> {
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM);
    }
    let mut op = guest::read(arg)?;
    if op.interface_version != XEN_MCA_INTERFACE_VERSION {
        return Err(Errno::EACCES);
    }
    if op.cmd.0 as usize >= OPS.len() {
        return Err(Errno::EINVAL);
    }
    let run = find(vcpu, HypercallNr::MCA, &OPS, op.cmd.0.into())?;
    sysctl::answer(run(vcpu, &mut op.u)?, arg, &op)
}

/// Hands out the oldest record of a class, or takes note that the caller has it.
fn fetch(_: &Vcpu, payload: &mut Union) -> Result<Answer> {
    let mut a: McFetch = payload.get();
    let urgent = match a.flags & (XEN_MC_NONURGENT | XEN_MC_URGENT) {
        XEN_MC_NONURGENT => false,
        XEN_MC_URGENT => true,
        _ => return Err(Errno::EINVAL),
    };
    if a.flags & XEN_MC_ACK != 0 {
        telemetry::acknowledge(urgent, a.fetch_id);
        return Ok(Answer::Nothing);
    }
    if a.data.is_null() {
        return Err(Errno::EINVAL);
    }
    let mut answer = Answer::Back;
    (a.flags, a.fetch_id) = match telemetry::fetch(urgent) {
        None => (XEN_MC_NODATA, 0),
        Some((id, record)) if guest::write(a.data, record.info()).is_ok() => (XEN_MC_OK, id),
        Some(_) => {
            answer = Answer::Failed(Errno::EFAULT);
            (XEN_MC_FETCHFAILED, 0)
        }
    };
    payload.put(&a);
    Ok(answer)
}

/// Fails unless some CPU has banks.
fn some_banks() -> Result<()> {
    if cpu::online().iter().any(|cpu| mca::bank_count(cpu) != 0) { Ok(()) } else { Err(Errno::ENODEV) }
}

/// Returns a CPU that errors can be feigned on.
fn target(number: u32) -> Result<CpuId> {
    some_banks()?;
    let cpu = crate::cpus::online(number).ok_or(Errno::EINVAL)?;
    if mca::bank_count(cpu) == 0 { Err(Errno::ENOENT) } else { Ok(cpu) }
}

/// True when the register may be fed with values, and whether that takes one that is read in its place.
fn may_feed(register: u64, cpu: CpuId, interpose: bool) -> bool {
    let Ok(register) = u32::try_from(register) else { return false };
    let model = Model::here();
    let amd = model.vendor == *b"AuthenticAMD";
    let banks = registers::control(0)..registers::control(mca::bank_count(cpu));
    if banks.contains(&register) && !(register - registers::control(0)).is_multiple_of(4) {
        return amd || interpose;
    }
    register == registers::STATUS || amd && model.family >= 0x10 && registers::AMD_MISC4.contains(&register)
}

/// Writers of values that are read in place of registers are one at a time.
static FEEDING: Lock<()> = Lock::new(rank::MCA, ());

/// Has registers hold what they do when there is an error.
fn msrinject(_: &Vcpu, payload: &mut Union) -> Result<Answer> {
    let a: McMsrInject = payload.get();
    let cpu = target(a.cpunr)?;
    if a.count == 0 {
        return Ok(Answer::Nothing);
    }
    let values = a.msr.get(..a.count as usize).ok_or(Errno::EINVAL)?;
    // The addresses of a PV domain are the machine's.
    if a.flags & MC_MSRINJ_F_GPADDR != 0 && domain::find(a.domid).is_none() {
        return Err(Errno::EINVAL);
    }
    let interpose = a.flags & MC_MSRINJ_F_INTERPOSE != 0;
    if !values.iter().all(|msr| may_feed(msr.reg, cpu, interpose)) {
        return Err(Errno::EINVAL);
    }
    let _one = FEEDING.lock();
    for msr in values {
        let register = msr.reg as u32;
        log::warn!("machine checks: on CPU {} register {register:#x} is made to hold {:#x}", cpu.0, msr.value);
        // Registers of another CPU cannot be written from here: they are interposed, too.
        let written = !interpose && cpu == cpu::this_cpu() && registers::write(register, msr.value);
        if !written && !interposed::put(cpu, register, msr.value) {
            log::warn!("machine checks: there is no room for more");
        }
    }
    Ok(Answer::Nothing)
}

/// Has a CPU, or all where an exception reaches all, behave as if it had taken one.
fn mceinject(_: &Vcpu, payload: &mut Union) -> Result<Answer> {
    let a: McMceInject = payload.get();
    let cpu = target(a.cpunr)?;
    if mca::is_broadcast() {
        cpu::online().iter().for_each(mca::feign);
    } else {
        mca::feign(cpu);
    }
    Ok(Answer::Nothing)
}

/// As [`mceinject`], for any set of CPUs.
fn inject_v2(_: &Vcpu, payload: &mut Union) -> Result<Answer> {
    let a: McInjectV2 = payload.get();
    some_banks()?;
    let broadcast = a.flags & XEN_MC_INJECT_CPU_BROADCAST != 0;
    let online = cpu::online();
    let wanted = if broadcast { online } else { bitmap::read_cpus(&a.cpumap)? };
    let there = || online.iter().filter(|cpu| wanted.contains(*cpu));
    if there().next().is_none() {
        return Err(Errno::EINVAL);
    }
    if there().any(|cpu| mca::bank_count(cpu) == 0) {
        return Err(Errno::ENOENT);
    }
    match a.flags & XEN_MC_INJECT_TYPE_MASK {
        XEN_MC_INJECT_TYPE_MCE => there().for_each(mca::feign),
        // Neither interrupts for corrected errors nor exceptions of one CPU alone are used.
        _ => return Err(Errno::EINVAL),
    }
    Ok(Answer::Nothing)
}
