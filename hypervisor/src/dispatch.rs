// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the registers of a hypercall to its handler and back.
//!
//! One table, one line a hypercall. A handler gets the vCPU and decoded arguments and says what came of it
//! ([`Outcome`]); it never touches registers. Here results become RAX, and a call that was cut short becomes a call
//! that will be made again: RIP back over the SYSCALL, arguments as the handler left them. Those are guest
//! registers, so a resumed call is checked like a fresh one and is no more powerful.

use core::mem::offset_of;
use core::sync::atomic::Ordering::Relaxed;

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

impl Outcome {
    /// Makes one of a result; `ERESTART` stands for a call that goes on with the same arguments.
    pub fn or_again(result: Result<i64>, args: &Args) -> Self {
        if result == Err(Errno::ERESTART) { Self::Again(*args) } else { result.into() }
    }

    /// Returns the result in a register; a call that was cut short leaves its arguments with the vCPU.
    #[inline(always)]
    pub(crate) fn into_raw(self, vcpu: &Vcpu) -> i64 {
        match self {
            Self::Done(value) => value,
            Self::Again(args) => {
                vcpu.again.iter().zip(args).for_each(|(slot, arg)| slot.store(arg, Relaxed));
                AGAIN
            }
        }
    }
}

/// The raw result of a call that was cut short. No call returns it as a value: it is no errno, no count and no
/// address that a debug register can hold.
const AGAIN: i64 = i64::MIN;

/// What runs a hypercall: five arguments in, a result or [`AGAIN`] out, all in registers, as the entry code has them.
#[cfg(target_os = "none")]
pub type Handler = extern "C" fn(&Vcpu, u64, u64, u64, u64, u64) -> i64;
/// What runs a hypercall. Where tests call it, panics must get out.
#[cfg(not(target_os = "none"))]
pub type Handler = fn(&Vcpu, u64, u64, u64, u64, u64) -> i64;

/// What the entry code calls by itself: the handlers by number, less those of hypercalls that change more than RAX.
pub static HANDLERS: [Option<Handler>; HypercallNr::COUNT] = {
    let mut all = [None; HypercallNr::COUNT];
    let mut number = 0;
    while number < all.len() {
        let changes_more = number == HypercallNr::IRET.0 as usize || number == HypercallNr::MULTICALL.0 as usize;
        if let (Some(line), false) = (&ops::TABLE[number], changes_more) {
            all[number] = Some(line.handler);
        }
        number += 1;
    }
    all
};

fn arguments_of(vcpu: &Vcpu) -> Args {
    core::array::from_fn(|i| vcpu.again[i].load(Relaxed))
}

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
    let line = usize::try_from(number).ok().filter(|n| *n < table.len()).map(|n| cpu::bounded(n, table.len()));
    match line.and_then(|n| table.get(n)).map(|line| line.answer) {
        Some(Answer::Run(run)) => Ok(run),
        Some(Answer::Refused(errno)) => Err(errno),
        _ => Err(unknown(vcpu, family, number)),
    }
}

/// Notes, once per domain and number, that something was called that does not exist.
#[cold]
pub fn unknown(vcpu: &Vcpu, family: HypercallNr, number: u64) -> Errno {
    let domain = vcpu.domain();
    if domain.account.first_time(family.0 << 32 | number & 0xffff_ffff) {
        log::info!(
            "d{}v{}: {} {number} is not implemented",
            vcpu.domid.0,
            vcpu.id.0,
            family.name().unwrap_or("hypercall")
        );
    }
    Errno::ENOSYS
}

/// Finds a hypercall's handler.
#[inline(always)]
fn handler_of(number: u64) -> Option<Handler> {
    let line =
        usize::try_from(number).ok().filter(|n| *n < ops::TABLE.len()).map(|n| cpu::bounded(n, ops::TABLE.len()));
    line.and_then(|n| ops::TABLE.get(n)).and_then(Option::as_ref).map(|line| line.handler)
}

/// Goes on after a handler that the entry code called has cut its call short.
#[cold]
pub fn made_again(vcpu: &Vcpu, regs: &mut Regs) {
    again(regs, &arguments_of(vcpu));
}

/// Handles a SYSCALL from guest kernel mode.
#[inline]
pub fn hypercall(vcpu: &Vcpu, regs: &mut Regs) {
    cpu::reset_budget();
    if regs.rax == HypercallNr::IRET.0 {
        return iret(vcpu, regs);
    }
    if regs.rax == HypercallNr::MULTICALL.0 {
        return multicall(vcpu, regs, GuestPtr::new(regs.rdi), regs.rsi);
    }
    let Some(handler) = handler_of(regs.rax) else {
        regs.rax = unknown(vcpu, HypercallNr(regs.rax), 0).to_ret() as u64;
        return;
    };
    match handler(vcpu, regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8) {
        AGAIN => again(regs, &arguments_of(vcpu)),
        value => regs.rax = value as u64,
    }
}

fn iret(vcpu: &Vcpu, regs: &mut Regs) {
    if let Err(reason) = bounce::iret(vcpu, regs) {
        crash::domain(vcpu, reason);
    }
}

/// Makes the guest repeat the call with other arguments.
#[cold]
fn again(regs: &mut Regs, args: &Args) {
    // SYSCALL is two bytes long.
    regs.rip = regs.rip.wrapping_sub(2);
    [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8] = *args;
}

/// Makes the guest go on with a multicall at element `done`.
#[cold]
fn again_at(regs: &mut Regs, list: GuestPtr<MulticallEntry>, done: u64, count: u64) {
    let next = list.add(done).map_or(0, |p| p.0);
    again(regs, &[next, count - done, regs.rdx, regs.r10, regs.r8]);
}

/// Runs a list of hypercalls in order. An entry that is cut short is rewritten in guest memory, and the multicall goes
/// on there later; an `iret` among them ends the list, because the vCPU is no longer in kernel mode (XSA-213).
#[inline(never)]
fn multicall(vcpu: &Vcpu, regs: &mut Regs, list: GuestPtr<MulticallEntry>, count: u64) {
    // RAX stays the number of the call until it is known that the call is over: one that is cut short is made again.
    if let Err(error) = run_list(vcpu, regs, list, count & 0xffff_ffff) {
        regs.rax = error.to_ret() as u64;
    }
}

#[inline(always)]
fn run_list(vcpu: &Vcpu, regs: &mut Regs, list: GuestPtr<MulticallEntry>, count: u64) -> Result<()> {
    if !list.range_ok(count) {
        return Err(Errno::EFAULT);
    }
    for done in 0..count {
        if done > 0 && (cpu::has_work() || cpu::preempt_pending()) {
            again_at(regs, list, done, count);
            return Ok(());
        }
        // All but the last word of an entry, which no call uses: number, result, arguments.
        let at = list.va(done).ok_or(Errno::EFAULT)?;
        let [op, _, a, b, c, d, e]: [u64; 7] = arch::guest::read(at)?;
        if op == HypercallNr::IRET.0 {
            iret(vcpu, regs);
            return Ok(());
        }
        let value = match handler_of(op) {
            Some(handler) => handler(vcpu, a, b, c, d, e),
            None => unknown(vcpu, HypercallNr(op), 0).to_ret(),
        };
        if value == AGAIN {
            return repeat_entry(vcpu, regs, list, done, count);
        }
        write_result(list, done, value)?;
        if vcpu.domain().paused() {
            // Shut down or crashed by the entry: nothing more runs on its authority.
            return Ok(());
        }
    }
    regs.rax = 0;
    Ok(())
}

#[cold]
fn repeat_entry(vcpu: &Vcpu, regs: &mut Regs, list: GuestPtr<MulticallEntry>, done: u64, count: u64) -> Result<()> {
    let entry = list.va(done).ok_or(Errno::EFAULT)?;
    let args = GuestPtr::new(entry.0 + offset_of!(MulticallEntry, args) as u64);
    guest::write(args, &arguments_of(vcpu))?;
    again_at(regs, list, done, count);
    Ok(())
}

#[inline]
fn write_result(list: GuestPtr<MulticallEntry>, index: u64, value: i64) -> Result<()> {
    let entry = list.va(index).ok_or(Errno::EFAULT)?;
    let at = hypercalls::GuestVa(entry.0 + offset_of!(MulticallEntry, result) as u64);
    Ok(arch::guest::write_u64(at, value as u64)?)
}
