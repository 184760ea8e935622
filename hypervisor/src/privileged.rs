// SPDX-License-Identifier: MIT OR Apache-2.0
//! Privileged instructions of a guest kernel, carried out (runtime rules 6).
//!
//! [`emulate`] fetches the instruction once, [`crate::emulate`] says what it is and whether it is allowed, and
//! here it has its effect on the vCPU. Whatever does not decode or is not allowed is the guest's own fault, reflected with
//! nothing changed.

use core::sync::atomic::Ordering::Relaxed;

use arch::{Regs, context, entry, fpu};
use hypercalls::segment::FLAT_RING3_CS64;
use hypercalls::{Errno, GuestVa};

use crate::emulate::cpuid::{Dynamic, Leaf, TIME_LEAF};
use crate::emulate::crdr::{self, CrView, CrWrite};
use crate::emulate::decode::Cr;
use crate::emulate::msr::{self, Live, MsrView};
use crate::emulate::{self, CodeSize, Gpr, Insn, Reject};
use crate::operand::{self, Fault};
use crate::port_io::Element;
use crate::vcpu::Vcpu;
use crate::{bounce, mmu, port_io, registers};

const TF: u64 = 1 << 8;
const RF: u64 = 1 << 16;
/// DR6: a single step.
const DR6_STEP: u64 = 1 << 14;

/// An instruction did not come to its end.
enum Stop {
    /// The guest hears of a fault.
    Fault(Fault),
    /// It was cut short and runs again.
    Again,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// #GP.
const REFUSED: Stop = Stop::Fault(Fault::Protection);

type Done = Result<(), Stop>;

/// Carries out the instruction that a #GP was taken for; false when it is to be reflected.
pub fn emulate(vcpu: &Vcpu, regs: &mut Regs) -> bool {
    let Some(code) = operand::fetch(vcpu, regs) else { return false };
    let decoded = match emulate::decode(code.bytes(), code.size) {
        Ok(decoded) => decoded,
        Err(Reject::Truncated) => return code.end.deliver(vcpu, regs),
        Err(_) => return false,
    };
    if decoded.insn.needs_kernel() && !context::kernel_mode() {
        return false;
    }
    arch::cpu::reset_budget();
    let ports = port_io::accessed(regs, decoded.insn);
    match execute(vcpu, regs, decoded.insn, code.size) {
        Ok(Element::Last) => regs.rip = regs.rip.wrapping_add(u64::from(decoded.len)),
        // A repeated string instruction goes on with its next element, and interrupts may come in between.
        Ok(Element::More) => {}
        Err(Stop::Again) => {
            entry::want_iret(regs);
            return true;
        }
        Err(Stop::Fault(fault)) => return fault.deliver(vcpu, regs),
    }
    let hits = ports.map_or(0, |(port, bytes)| vcpu.debug.lock().port_hits(port, bytes, vcpu.cr4.load(Relaxed)));
    finish(vcpu, regs, hits);
    true
}

/// After an emulated instruction: RF is clear, and a set TF traps, as do the breakpoints that it met (bits of DR6).
fn finish(vcpu: &Vcpu, regs: &mut Regs, hits: u64) {
    regs.rflags &= !RF;
    entry::want_iret(regs);
    let step = if regs.rflags & TF != 0 { DR6_STEP } else { 0 };
    if hits | step != 0 {
        vcpu.debug.lock().dr6 |= hits | step;
        bounce::exception(vcpu, regs, 1, None);
    }
}

fn execute(vcpu: &Vcpu, regs: &mut Regs, insn: Insn, size: CodeSize) -> Result<Element, Stop> {
    match insn {
        Insn::Ins(op) => Ok(port_io::input_string(vcpu, regs, op, size)?),
        Insn::Outs(op) => Ok(port_io::output_string(vcpu, regs, op, size)?),
        other => execute_once(vcpu, regs, other).map(|()| Element::Last),
    }
}

fn execute_once(vcpu: &Vcpu, regs: &mut Regs, insn: Insn) -> Done {
    match insn {
        Insn::In { port, width } => Ok(port_io::input(vcpu, regs, port, width)?),
        Insn::Out { port, width } => Ok(port_io::output(vcpu, regs, port, width)?),
        Insn::Clts => {
            registers::set_ts(vcpu, false);
            Ok(())
        }
        Insn::Wbinvd | Insn::Wbnoinvd => {
            if vcpu.domain().io.any_memory() {
                arch::cpu::flush_cache();
            }
            Ok(())
        }
        Insn::ReadCr { cr, gpr } => {
            let value = crdr::read_cr(cr, &cr_view(vcpu)).ok_or(REFUSED)?;
            gpr.set(regs, value);
            Ok(())
        }
        Insn::WriteCr { cr, gpr } => write_cr(vcpu, cr, gpr.get(regs)),
        Insn::ReadDr { dr, gpr } => {
            let value = registers::get_debug(vcpu, u64::from(dr)).map_err(debug_fault)?;
            gpr.set(regs, value);
            Ok(())
        }
        Insn::WriteDr { dr, gpr } => {
            let value = gpr.get(regs);
            registers::set_debug(vcpu, u64::from(dr), value).map_err(debug_fault)
        }
        Insn::Rdmsr => read_msr(vcpu, regs),
        Insn::Wrmsr => write_msr(vcpu, regs),
        Insn::Rdtsc => {
            set_edx_eax(regs, read_tsc(vcpu)?);
            Ok(())
        }
        Insn::Rdtscp => {
            set_edx_eax(regs, read_tsc(vcpu)?);
            regs.rcx = u64::from(vcpu.tsc_aux.load(Relaxed));
            Ok(())
        }
        Insn::Cpuid => {
            cpuid(vcpu, regs, false);
            Ok(())
        }
        Insn::Xsetbv => set_xcr(vcpu, regs),
        Insn::Cli | Insn::Sti => {
            // The event mask is the guest's interrupt flag; the instruction has no effect where it is allowed at all.
            if port_io::privilege(vcpu).iopl_ok() { Ok(()) } else { Err(REFUSED) }
        }
        Insn::Ins(_) | Insn::Outs(_) | Insn::Int(_) | Insn::Iret(_) => Err(REFUSED),
    }
}

/// Reads the time-stamp counter, as the domain sees it. A guest's own choice of CR4.TSD refuses it to its user mode; its kernel is
/// served.
fn read_tsc(vcpu: &Vcpu) -> Result<u64, Stop> {
    if !context::kernel_mode() && vcpu.cr4.load(Relaxed) & crdr::CR4_TSD != 0 {
        return Err(REFUSED);
    }
    Ok(vcpu.domain().tsc.read())
}

/// What MOV from or to a debug register meets.
fn debug_fault(error: Errno) -> Stop {
    Stop::Fault(if error == Errno::ENODEV { Fault::Undefined } else { Fault::Protection })
}

fn set_edx_eax(regs: &mut Regs, value: u64) {
    regs.rax = value & 0xffff_ffff;
    regs.rdx = value >> 32;
}

fn cr_view(vcpu: &Vcpu) -> CrView<'_> {
    CrView {
        policy: vcpu.domain().cpuid.get(),
        host_cr0: arch::cpu::guest_cr0(),
        host_cr4: arch::cpu::host_cr4(),
        task_switched: vcpu.ts.load(Relaxed),
        cr2: vcpu.cr2.load(Relaxed),
        kernel_base: vcpu.kernel_mfn(),
        cr4: crdr::guest_cr4(vcpu.cr4.load(Relaxed), vcpu.domain().cpuid.get(), arch::cpu::host_cr4()),
    }
}

fn write_cr(vcpu: &Vcpu, cr: Cr, value: u64) -> Done {
    match crdr::write_cr(cr, value, &cr_view(vcpu)).ok_or(REFUSED)? {
        CrWrite::TaskSwitched(on) => registers::set_ts(vcpu, on),
        CrWrite::Cr2(address) => vcpu.cr2.store(address, Relaxed),
        CrWrite::NewBase(mfn) => {
            let mut tables = vcpu.domain().page_tables.lock();
            mmu::set_kernel_root(vcpu, &mut tables, mfn).map_err(|error| match error {
                // Progress is in the frames.
                Errno::ERESTART => Stop::Again,
                _ => REFUSED,
            })?;
        }
        CrWrite::Cr4(bits) => {
            vcpu.cr4.store(bits, Relaxed);
            context::set_guest_cr4(vcpu.domain().tsc.cr4(bits));
        }
    }
    Ok(())
}

fn msr_view(vcpu: &Vcpu) -> MsrView<'_> {
    MsrView {
        policy: vcpu.domain().cpuid.get(),
        host: crate::host::msrs(),
        boot_vcpu: vcpu.id.0 == 0,
        tsc_aux: vcpu.tsc_aux.load(Relaxed),
        spec_ctrl: 0,
        cpuid_faulting: false,
        breakpoint_masks: [0; 4],
    }
}

fn read_msr(vcpu: &Vcpu, regs: &mut Regs) -> Done {
    let index = regs.rcx as u32;
    let value = match msr::read(index, &msr_view(vcpu)) {
        msr::Read::Value(value) => value,
        msr::Read::Live(Live::FsBase) => context::fs_base(),
        msr::Read::Live(Live::GsBase) => context::gs_base(),
        msr::Read::Live(Live::UserGsBase) => context::other_gs_base(),
        msr::Read::Live(Live::Tsc) => vcpu.domain().tsc.read(),
        msr::Read::Fault => {
            // Before the guest has a handler for #GP, a register that the machine has reads as 0.
            let early = vcpu.traps[13].entry.address.load(Relaxed) == 0;
            let ours = (0x4000_0000..0x4001_0000).contains(&index);
            if !early || ours || arch::msr::read_safe(index).is_none() {
                return Err(REFUSED);
            }
            0
        }
    };
    set_edx_eax(regs, value);
    Ok(())
}

fn write_msr(vcpu: &Vcpu, regs: &mut Regs) -> Done {
    let value = regs.rax & 0xffff_ffff | regs.rdx << 32;
    match msr::write(regs.rcx as u32, value, &msr_view(vcpu)) {
        msr::Write::Ignore => Ok(()),
        msr::Write::FsBase(base) => {
            context::set_fs_base(GuestVa(base));
            Ok(())
        }
        msr::Write::GsBase(base) => {
            context::set_gs_base(GuestVa(base));
            Ok(())
        }
        msr::Write::UserGsBase(base) => {
            context::set_other_gs_base(GuestVa(base));
            Ok(())
        }
        msr::Write::TscAux(value) => {
            vcpu.tsc_aux.store(value, Relaxed);
            context::set_tsc_aux(value);
            Ok(())
        }
        msr::Write::HypercallPage(frame) => {
            crate::hypercall_page::fill(vcpu.domain(), hypercalls::Mfn(frame)).map_err(|_| REFUSED)
        }
        // The policy offers none of these.
        msr::Write::SpecCtrl(_)
        | msr::Write::PredictorBarrier
        | msr::Write::CpuidFaulting(_)
        | msr::Write::BreakpointMask(..)
        | msr::Write::Fault => Err(REFUSED),
    }
}

fn set_xcr(vcpu: &Vcpu, regs: &mut Regs) -> Done {
    let value = regs.rax & 0xffff_ffff | regs.rdx << 32;
    let allowed = vcpu.domain().cpuid.get().xcr0() & arch::features::get().xcr0;
    if regs.rcx as u32 != 0 || !crdr::xcr0_ok(value, allowed) {
        return Err(REFUSED);
    }
    vcpu.xcr0.store(value, Relaxed);
    vcpu.xcr0_accum.fetch_or(value, Relaxed);
    fpu::set_xcr0(value);
    Ok(())
}

/// Answers CPUID into the registers.
#[inline(always)]
fn cpuid(vcpu: &Vcpu, regs: &mut Regs, forced: bool) {
    let dynamic = Dynamic {
        kernel_mode: context::kernel_mode(),
        forced,
        cr4: vcpu.cr4.load(Relaxed),
        xcr0: vcpu.xcr0.load(Relaxed),
    };
    let [a, b, c, d] = match regs.rax as u32 {
        TIME_LEAF => time_leaf(vcpu, regs.rcx as u32),
        leaf => vcpu.domain().cpuid.get().lookup(leaf, regs.rcx as u32, &dynamic),
    };
    Gpr::Rax.set(regs, u64::from(a));
    Gpr::Rbx.set(regs, u64::from(b));
    Gpr::Rcx.set(regs, u64::from(c));
    Gpr::Rdx.set(regs, u64::from(d));
}

#[cold]
#[inline(never)]
fn time_leaf(vcpu: &Vcpu, subleaf: u32) -> Leaf {
    let domain = vcpu.domain();
    domain.cpuid.get().time_leaf(&domain.tsc.told(), subleaf)
}

/// Answers `ud2; "xen"; cpuid`, the CPUID that a guest asks to be emulated; false when the bytes are others.
pub fn forced_cpuid(vcpu: &Vcpu, regs: &mut Regs) -> bool {
    const FORCED: &[u8] = b"\x0f\x0bxen\x0f\xa2";
    const FORCED_WORD: u64 = u64::from_le_bytes(*b"\x0f\x0bxen\x0f\xa2\0");
    if regs.cs as u16 == FLAT_RING3_CS64
        && let Ok(word) = arch::guest::read_u64(GuestVa(regs.rip))
        && word << 8 == FORCED_WORD << 8
    {
        // Nearly always: flat, and all there.
        answer_forced(vcpu, regs);
        return true;
    }
    let Some(code) = operand::fetch(vcpu, regs) else { return false };
    let bytes = code.bytes();
    if !bytes.starts_with(FORCED) {
        // Behind a bare UD2, which kernels use for their assertions, nothing need be there.
        let cut = bytes.len() > 2 && FORCED.starts_with(bytes);
        return cut && code.end.deliver(vcpu, regs);
    }
    answer_forced(vcpu, regs);
    true
}

#[inline]
fn answer_forced(vcpu: &Vcpu, regs: &mut Regs) {
    cpuid(vcpu, regs, true);
    regs.rip = regs.rip.wrapping_add(7);
    finish(vcpu, regs, 0);
}

#[cfg(test)]
mod tests;
