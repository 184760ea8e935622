// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hypercalls that set a vCPU's registers and entry points.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use arch::cpu::{self, Work};
use arch::{CpuId, Flush, context, tlb};
use hypercalls::segment::SegmentBase;
use hypercalls::trap::*;
use hypercalls::vm_assist::{VmAssistCmd, VmAssistType};
use hypercalls::{Errno, GuestPtr, GuestVa, HypercallNr, Maddr, Mfn, Result, TrapInfo};

use crate::dispatch::{Args, Outcome, SubOp, run_sub, sub};
use crate::vcpu::{Entry, Vcpu};
use crate::{bounce, guest, registers};

fn canonical(address: u64) -> Result<u64> {
    if GuestVa(address).is_canonical() { Ok(address) } else { Err(Errno::EINVAL) }
}

/// Puts one entry of a guest's list into the trap table.
///
/// # Errors
/// `EINVAL` for an address that is not canonical.
pub fn set_trap(vcpu: &Vcpu, info: &TrapInfo) -> Result<()> {
    let address = canonical(info.address)?;
    let trap = &vcpu.traps[usize::from(info.vector)];
    trap.entry.set(address, info.flags & TRAP_MASK_EVENTS != 0);
    trap.dpl.store(info.flags & TRAP_DPL_MASK, Relaxed);
    trap.cs.store(info.cs | 3, Relaxed);
    Ok(())
}

/// Hypercall 0: a list that an address of 0 ends; no list clears all.
pub fn set_trap_table(vcpu: &Vcpu, args: &Args) -> Outcome {
    let list = GuestPtr::<TrapInfo>::new(args[0]);
    if list.is_null() {
        for trap in vcpu.traps.iter() {
            trap.entry.set(0, false);
            trap.dpl.store(0, Relaxed);
        }
        return Outcome::Done(0);
    }
    for index in 0u64.. {
        if index > 0 && cpu::preempt_pending() {
            return Outcome::Again([list.add(index).map_or(0, |p| p.0), 0, 0, 0, 0]);
        }
        let info = match guest::read_at(list, index) {
            Ok(info) => info,
            Err(error) => return Err(error).into(),
        };
        if info.address == 0 {
            break;
        }
        if let Err(error) = set_trap(vcpu, &info) {
            return Err(error).into();
        }
    }
    Outcome::Done(0)
}

/// Hypercall 2.
pub fn set_gdt(vcpu: &Vcpu, args: &Args) -> Outcome {
    let act = || -> Result<i64> {
        let entries = args[1] as u32;
        if entries > registers::MAX_GDT_ENTRIES {
            return Err(Errno::EINVAL);
        }
        let pages = (entries as usize).div_ceil(512);
        let mut frames = [Mfn::INVALID; arch::window::GDT_PAGES];
        for (index, frame) in (0u64..).zip(frames.iter_mut().take(pages)) {
            *frame = guest::read_at(GuestPtr::<Mfn>::new(args[0]), index)?;
        }
        registers::set_gdt(vcpu, frames.get(..pages).unwrap_or(&[]), entries)?;
        tlb::flush_local(Flush::All);
        Ok(0)
    };
    act().into()
}

/// Hypercall 3.
pub fn stack_switch(vcpu: &Vcpu, args: &Args) -> Outcome {
    vcpu.kernel_ss.store(args[0] as u16 | 3, Relaxed);
    vcpu.kernel_sp.store(args[1], Relaxed);
    Outcome::Done(0)
}

/// Hypercall 4: the old way to register three callbacks; single ones that are bad are ignored.
pub fn set_callbacks(vcpu: &Vcpu, args: &Args) -> Outcome {
    for (entry, address) in [(&vcpu.event, args[0]), (&vcpu.failsafe, args[1]), (&vcpu.syscall, args[2])] {
        if let Ok(address) = canonical(address) {
            entry.set(address, false);
        }
    }
    Outcome::Done(0)
}

/// Hypercall 5.
pub fn fpu_taskswitch(vcpu: &Vcpu, args: &Args) -> Outcome {
    registers::set_ts(vcpu, args[0] as u32 != 0);
    Outcome::Done(0)
}

/// Hypercall 8.
pub fn set_debugreg(vcpu: &Vcpu, args: &Args) -> Outcome {
    registers::set_debug(vcpu, args[0] & 0xffff_ffff, args[1]).map(|()| 0).into()
}

/// Hypercall 9.
pub fn get_debugreg(vcpu: &Vcpu, args: &Args) -> Outcome {
    registers::get_debug(vcpu, args[0] & 0xffff_ffff).map(u64::cast_signed).into()
}

/// Hypercall 10.
pub fn update_descriptor(vcpu: &Vcpu, args: &Args) -> Outcome {
    let domain = vcpu.domain();
    let mut tables = domain.page_tables.lock();
    match tables.update_descriptor(&domain.tables_ctx(), Maddr(args[0]), args[1]) {
        Ok(()) => Outcome::Done(0),
        Err(Errno::ERESTART) => Outcome::Again(*args),
        Err(error) => Err(error).into(),
    }
}

/// Hypercall 21.
pub fn vm_assist(vcpu: &Vcpu, args: &Args) -> Outcome {
    let Some(mask) = VmAssistType(args[1] as u32).mask() else {
        return Err(Errno::EINVAL).into();
    };
    let domain = vcpu.domain();
    match VmAssistCmd(args[0] as u32) {
        VmAssistCmd::ENABLE => domain.assist.fetch_or(mask, SeqCst),
        VmAssistCmd::DISABLE => domain.assist.fetch_and(!mask, SeqCst),
        _ => return Err(Errno::ENOSYS).into(),
    };
    if VmAssistType(args[1] as u32) == VmAssistType::ARCHITECTURAL_IOPL {
        bounce::refresh(vcpu);
        // Others that run take notice on their next way back.
        for other in domain.vcpus.iter().filter(|other| other.id != vcpu.id && other.status.running.load(SeqCst)) {
            cpu::raise(CpuId(other.status.cpu.load(SeqCst)), Work::VCPU);
        }
    }
    Outcome::Done(0)
}

/// Hypercall 25.
pub fn set_segment_base(_vcpu: &Vcpu, args: &Args) -> Outcome {
    let base = GuestVa(args[1]);
    let which = SegmentBase(args[0] as u32);
    if which == SegmentBase::GS_USER_SEL {
        context::set_user_gs_selector(args[1] as u16);
        return Outcome::Done(0);
    }
    if !base.is_canonical() {
        return Err(Errno::EINVAL).into();
    }
    match which {
        SegmentBase::FS => context::set_fs_base(base),
        SegmentBase::GS_USER => context::set_other_gs_base(base),
        SegmentBase::GS_KERNEL => context::set_gs_base(base),
        _ => return Err(Errno::EINVAL).into(),
    }
    Outcome::Done(0)
}

/// The sub-operations of `callback_op`.
pub static CALLBACKS: [SubOp; 2] = [
    sub("register", |vcpu, arg| register_callback(vcpu, &guest::read(GuestPtr::new(arg))?)),
    sub("unregister", |vcpu, arg| unregister_callback(vcpu, &guest::read(GuestPtr::new(arg))?)),
];

/// Hypercall 30.
pub fn callback_op(vcpu: &Vcpu, args: &Args) -> Outcome {
    run_sub(vcpu, HypercallNr::CALLBACK_OP, &CALLBACKS, args[0] & 0xffff_ffff, args[1]).into()
}

fn register_callback(vcpu: &Vcpu, what: &CallbackRegister) -> Result<i64> {
    let address = canonical(what.address)?;
    // How an NMI is delivered is not a matter of flags.
    let mask = what.flags & CALLBACKF_MASK_EVENTS != 0 && what.kind != CallbackType::NMI;
    let entry: &Entry = match what.kind {
        CallbackType::EVENT => &vcpu.event,
        CallbackType::FAILSAFE => &vcpu.failsafe,
        CallbackType::SYSCALL => &vcpu.syscall,
        CallbackType::SYSENTER => &vcpu.sysenter,
        CallbackType::SYSCALL32 => &vcpu.syscall32,
        CallbackType::NMI => &vcpu.traps[2].entry,
        _ => return Err(Errno::ENOSYS),
    };
    entry.set(address, mask);
    Ok(0)
}

/// Takes a callback back: that for NMIs is the only one that a kernel can do without.
fn unregister_callback(vcpu: &Vcpu, which: &CallbackUnregister) -> Result<i64> {
    match which.kind {
        CallbackType::NMI => vcpu.traps[2].entry.set(0, false),
        CallbackType::EVENT
        | CallbackType::FAILSAFE
        | CallbackType::SYSCALL
        | CallbackType::SYSENTER
        | CallbackType::SYSCALL32 => return Err(Errno::EINVAL),
        _ => return Err(Errno::ENOSYS),
    }
    Ok(0)
}
