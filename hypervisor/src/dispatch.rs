// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the registers of a hypercall to its handler and back.
//!
//! One table, one line a hypercall. A handler gets the vCPU and decoded arguments and says what came of it
//! ([`Outcome`]); it never touches registers. Here results become RAX, and a call that was cut short becomes a call
//! that will be made again: RIP back over the SYSCALL, arguments as the handler left them. Those are guest
//! registers, so a resumed call is checked like a fresh one and is no more powerful.

use arch::{Regs, cpu};
use hypercalls::{Errno, GuestPtr, HypercallNr, MulticallEntry, Result};

use crate::abi::Listing;
use crate::crash;
use crate::vcpu::Vcpu;
use crate::{bounce, guest, ops};

/// The arguments of a hypercall.
pub type Args = [u64; 5];

/// What came of a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is finished; this goes to RAX.
    Done(i64),
    /// It was cut short and goes on with these arguments.
    Again(Args),
}

impl From<Result<i64>> for Outcome {
    #[inline(always)]
    fn from(result: Result<i64>) -> Self {
        Self::Done(result.unwrap_or_else(Errno::to_ret))
    }
}

/// A hypercall's handler.
pub type Handler = fn(&Vcpu, &Args) -> Outcome;

/// A line of the dispatch table.
#[derive(Clone, Copy, Debug)]
pub struct Hypercall {
    /// Its name in the ABI.
    pub name: &'static str,
    /// What runs it.
    pub handler: Handler,
    /// Its sub-operations, for the ones that have a table of them.
    pub subops: Option<&'static dyn Listing>,
}

/// How a sub-operation is answered; `F` is what runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<F> {
    /// By this.
    Run(F),
    /// By the family's handler itself: it takes more than the others do.
    ByFamily,
    /// Always with this error, as it is meant to be.
    Refused(Errno),
    /// With `ENOSYS`: it does not exist here (yet).
    Absent,
}

/// What runs most sub-operations: it gets the address of the argument.
pub type Run = fn(&Vcpu, u64) -> Result<i64>;

/// A line of a family's table: the position is the number.
#[derive(Clone, Copy, Debug)]
pub struct SubOp<F = Run> {
    /// Its name in the ABI; empty where a number is not assigned.
    pub name: &'static str,
    /// How it is answered.
    pub answer: Answer<F>,
}

/// Makes a line of a family's table.
pub const fn sub<F: Copy>(name: &'static str, run: F) -> SubOp<F> {
    SubOp { name, answer: Answer::Run(run) }
}

/// Makes a line for a sub-operation that the family's handler picks out before it looks at the table.
pub const fn by_family<F>(name: &'static str) -> SubOp<F> {
    SubOp { name, answer: Answer::ByFamily }
}

/// Makes a line for a sub-operation that has one answer for everybody.
pub const fn refused<F>(name: &'static str, errno: Errno) -> SubOp<F> {
    SubOp { name, answer: Answer::Refused(errno) }
}

/// Makes a line for a sub-operation that does not exist here (yet).
pub const fn absent<F>(name: &'static str) -> SubOp<F> {
    SubOp { name, answer: Answer::Absent }
}

/// Runs line `number` of a family's table.
///
/// # Errors
/// `ENOSYS` when there is none, and what the operation says.
#[inline]
pub fn run_sub(vcpu: &Vcpu, family: HypercallNr, table: &[SubOp], number: u64, arg: u64) -> Result<i64> {
    find(vcpu, family, table, number)?(vcpu, arg)
}

/// Returns what runs line `number` of a family's table.
///
/// # Errors
/// `ENOSYS` when there is none; the error of one that is refused.
#[inline]
pub fn find<F: Copy>(vcpu: &Vcpu, family: HypercallNr, table: &[SubOp<F>], number: u64) -> Result<F> {
    match usize::try_from(number).ok().and_then(|n| table.get(n)).map(|line| line.answer) {
        Some(Answer::Run(run)) => Ok(run),
        Some(Answer::Refused(errno)) => Err(errno),
        _ => Err(unknown(vcpu, family, number)),
    }
}

/// Notes, once per domain and number, that something was called that does not exist.
#[cold]
pub fn unknown(vcpu: &Vcpu, family: HypercallNr, number: u64) -> Errno {
    let domain = vcpu.domain();
    if domain.first_time(family.0 << 32 | number & 0xffff_ffff) {
        log::info!("d{}v{}: {} {number} is not implemented", vcpu.domid.0, vcpu.id.0, family.name().unwrap_or("hypercall"));
    }
    Errno::ENOSYS
}

/// Runs one hypercall.
#[inline]
pub fn call(vcpu: &Vcpu, number: u64, args: &Args) -> Outcome {
    let line = usize::try_from(number).ok().and_then(|n| ops::TABLE.get(n)).and_then(Option::as_ref);
    match line {
        Some(line) => (line.handler)(vcpu, args),
        None => Outcome::Done(unknown(vcpu, HypercallNr(number), 0).to_ret()),
    }
}

/// Handles a SYSCALL from guest kernel mode.
pub fn hypercall(vcpu: &Vcpu, regs: &mut Regs) {
    cpu::reset_budget();
    let number = HypercallNr(regs.rax);
    if number == HypercallNr::IRET {
        if let Err(reason) = bounce::iret(vcpu, regs) {
            crash::domain(vcpu, regs, reason);
        }
        return;
    }
    let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8];
    if number == HypercallNr::MULTICALL {
        multicall(vcpu, regs, GuestPtr::new(args[0]), args[1]);
        return;
    }
    match call(vcpu, number.0, &args) {
        Outcome::Done(value) => regs.rax = value as u64,
        Outcome::Again(args) => again(regs, &args),
    }
}

/// Makes the guest repeat the call with other arguments.
fn again(regs: &mut Regs, args: &Args) {
    // SYSCALL is two bytes long.
    regs.rip = regs.rip.wrapping_sub(2);
    [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8] = *args;
}

/// Runs a list of hypercalls in order. An entry that is cut short is rewritten in guest memory, and the multicall goes
/// on there later; an `iret` among them ends the list, because the vCPU is no longer in kernel mode (XSA-213).
fn multicall(vcpu: &Vcpu, regs: &mut Regs, list: GuestPtr<MulticallEntry>, count: u64) {
    let count = count & 0xffff_ffff;
    if !list.range_ok(count) {
        regs.rax = Errno::EFAULT.to_ret() as u64;
        return;
    }
    for done in 0..count {
        if done > 0 && (cpu::has_work() || cpu::preempt_pending()) {
            let next = list.add(done).map_or(0, |p| p.0);
            again(regs, &[next, count - done, regs.rdx, regs.r10, regs.r8]);
            return;
        }
        let Ok(mut entry) = guest::read_at(list, done) else {
            regs.rax = Errno::EFAULT.to_ret() as u64;
            return;
        };
        if entry.op == HypercallNr::IRET {
            if let Err(reason) = bounce::iret(vcpu, regs) {
                crash::domain(vcpu, regs, reason);
            }
            return;
        }
        let [a, b, c, d, e, _] = entry.args;
        let outcome = match entry.op {
            HypercallNr::MULTICALL => Outcome::Done(Errno::EINVAL.to_ret()),
            op => call(vcpu, op.0, &[a, b, c, d, e]),
        };
        match outcome {
            Outcome::Done(value) => {
                if write_result(list, done, value).is_err() {
                    regs.rax = Errno::EFAULT.to_ret() as u64;
                    return;
                }
            }
            Outcome::Again(args) => {
                entry.args[..5].copy_from_slice(&args);
                let next = list.add(done).map_or(0, |p| p.0);
                if guest::write_at(list, done, &entry).is_err() {
                    regs.rax = Errno::EFAULT.to_ret() as u64;
                    return;
                }
                again(regs, &[next, count - done, regs.rdx, regs.r10, regs.r8]);
                return;
            }
        }
        if vcpu.domain().paused() {
            // Shut down or crashed by the entry: nothing more runs on its authority.
            return;
        }
    }
    regs.rax = 0;
}

#[inline]
fn write_result(list: GuestPtr<MulticallEntry>, index: u64, value: i64) -> Result<()> {
    let entry = list.va(index).ok_or(Errno::EFAULT)?;
    let at = hypercalls::GuestVa(entry.0 + core::mem::offset_of!(MulticallEntry, result) as u64);
    Ok(arch::guest::write_u64(at, value as u64)?)
}
