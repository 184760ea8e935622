// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a CPU or a vCPU is doing: its registers, its stack, the code it is at.
//!
//! A CPU tells about itself when another one asks ([`ask`]): on its way out of the hypervisor ([`answer`]), or, when it does
//! not come there, from an NMI ([`answer_nmi`]), which tells where in the hypervisor it is. One CPU at a time is asked.
//!
//! # Locking
//! `ANSWER` is held for a copy only; an NMI that finds it taken gives no answer.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed, Ordering::SeqCst};

use arch::context::{self, Context};
use arch::cpu::{self, Work};
use arch::{CpuId, MAX_CPUS, Regs};
use arrayvec::ArrayVec;
use hypercalls::{GuestVa, Mfn, PAGE_SIZE};
use spin::mutex::Mutex;

use crate::vcpu::Vcpu;
use crate::{current, guest, shared};

/// Whose registers they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// The CPU has nothing to do.
    Idle,
    /// A vCPU's guest kernel or user code.
    Guest {
        /// Domain.
        domain: u16,
        /// vCPU.
        vcpu: u32,
        /// In its kernel.
        kernel: bool,
    },
    /// The hypervisor's own code.
    Hypervisor,
}

/// Words of the stack that are told.
const STACK: usize = 32;
/// Bytes of code.
const CODE: usize = 15;

/// What was seen.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whose registers they are.
    pub doing: Doing,
    /// The registers.
    pub regs: Regs,
    /// Bases of FS, of GS, and of GS in the other mode.
    bases: [u64; 3],
    /// The guest's CR2, or the machine's.
    cr2: u64,
    /// The roots of the guest's kernel and user address spaces.
    roots: [Mfn; 2],
    code: ArrayVec<u8, CODE>,
    /// From the stack pointer on; return addresses for the hypervisor.
    stack: ArrayVec<u64, STACK>,
    /// Code and stack were looked at: what is missing cannot be read.
    is_whole: bool,
}

impl Snapshot {
    /// Looks at the vCPU that this CPU has loaded, whose registers are `regs`.
    pub fn of_current(vcpu: &Vcpu, regs: &Regs) -> Self {
        let mut buffer = [0; CODE];
        let len = guest::fetch(GuestVa(regs.rip), &mut buffer);
        let words = (0..STACK as u64).map(|n| GuestVa(regs.rsp.wrapping_add(n * 8)));
        Self {
            bases: [context::fs_base(), context::gs_base(), context::other_gs_base()],
            code: buffer.iter().take(len).copied().collect(),
            stack: words.map_while(|va| arch::guest::read_u64(va).ok()).collect(),
            is_whole: true,
            ..Self::bare(vcpu, regs, context::kernel_mode())
        }
    }

    /// Looks at a vCPU that does not run. What is not mapped is left out.
    pub fn of_saved(vcpu: &Vcpu, saved: &Context) -> Self {
        let root = if saved.kernel_mode { vcpu.kernel_mfn() } else { Mfn(vcpu.user_root.load(Relaxed)) };
        let read = |va: u64| peek(root, va);
        let bytes = (0..CODE as u64).map_while(|n| {
            let at = saved.regs.rip.wrapping_add(n);
            read(at & !7).map(|word| word.to_le_bytes()[(at & 7) as usize])
        });
        let words = (0..STACK as u64).map(|n| saved.regs.rsp.wrapping_add(n * 8));
        let gs = if saved.kernel_mode { [saved.gs_kernel, saved.gs_user] } else { [saved.gs_user, saved.gs_kernel] };
        Self {
            bases: [saved.fs_base, gs[0], gs[1]],
            code: bytes.collect(),
            stack: words.map_while(read).collect(),
            is_whole: true,
            ..Self::bare(vcpu, &saved.regs, saved.kernel_mode)
        }
    }

    fn bare(vcpu: &Vcpu, regs: &Regs, kernel: bool) -> Self {
        Self {
            doing: Doing::Guest { domain: vcpu.domid.0, vcpu: vcpu.id.0, kernel },
            cr2: vcpu.cr2.load(Relaxed),
            roots: [vcpu.kernel_mfn(), Mfn(vcpu.user_root.load(Relaxed))],
            ..Self::without_guest(Doing::Idle, *regs)
        }
    }

    fn without_guest(doing: Doing, regs: Regs) -> Self {
        Self {
            doing,
            regs,
            bases: [0; 3],
            cr2: 0,
            roots: [Mfn::INVALID; 2],
            code: ArrayVec::new(),
            stack: ArrayVec::new(),
            is_whole: false,
        }
    }

    /// Looks at this CPU, on its way out of the hypervisor.
    pub fn here() -> Self {
        match current::vcpu() {
            Some(vcpu) => Self::of_current(vcpu, &context::frame()),
            None => Self::without_guest(Doing::Idle, Regs::default()),
        }
    }
}

/// Reads an aligned word of a guest's memory by a walk of its tables; what they lead to belongs to its domain or to nobody
/// that needs to be asked.
fn peek(root: Mfn, va: u64) -> Option<u64> {
    if !va.is_multiple_of(8) {
        return None;
    }
    let mfn = mm::walk(root, GuestVa(va)).mapped()?;
    let owner = mm::frame::get(mfn)?.owner();
    let frame = mm::PageRef::get(mfn, owner)?;
    Some(shared::read_guest_frame(&frame, va as usize % PAGE_SIZE))
}

struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

/// Writes the general registers, four a line.
pub fn write_general(f: &mut impl fmt::Write, regs: &Regs) -> fmt::Result {
    writeln!(f, "rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", regs.rax, regs.rbx, regs.rcx, regs.rdx)?;
    writeln!(f, "rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}", regs.rsi, regs.rdi, regs.rbp, regs.r8)?;
    writeln!(f, "r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}", regs.r9, regs.r10, regs.r11, regs.r12)?;
    writeln!(f, "r13 {:016x} r14 {:016x} r15 {:016x}", regs.r13, regs.r14, regs.r15)
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Regs { vector, error_code, cs, rip, rflags, ss, rsp, .. } = self.regs;
        match self.doing {
            Doing::Idle => return writeln!(f, "idle"),
            Doing::Hypervisor => writeln!(f, "in the hypervisor")?,
            Doing::Guest { domain, vcpu, kernel } => {
                let mode = if kernel { "kernel" } else { "user" };
                writeln!(f, "d{domain}v{vcpu} in guest {mode} mode, vector {vector:#x} error code {error_code:#x}")?;
            }
        }
        writeln!(f, "rip {cs:04x}:{rip:016x} rflags {rflags:08x} rsp {ss:04x}:{rsp:016x} cr2 {:016x}", self.cr2)?;
        write_general(f, &self.regs)?;
        if self.doing != Doing::Hypervisor {
            let ([fs, gs, other], [kernel, user]) = (self.bases, self.roots);
            writeln!(f, "fs base {fs:016x} gs base {gs:016x} other gs base {other:016x}")?;
            writeln!(f, "kernel root {kernel} user root {user}")?;
        }
        self.write_memory(f)
    }
}

impl Snapshot {
    /// Writes the code and the stack, as far as they were looked at.
    fn write_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_whole {
            writeln!(f, "code at rip:{}", Bytes(&self.code))?;
        }
        let name = if self.doing == Doing::Hypervisor { "returns to:" } else { "stack:" };
        for words in self.stack.chunks(4) {
            write!(f, "{name}")?;
            words.iter().try_for_each(|word| write!(f, " {word:016x}"))?;
            writeln!(f)?;
        }
        if self.is_whole && !self.stack.is_full() {
            let end = self.regs.rsp.wrapping_add(8 * self.stack.len() as u64);
            writeln!(f, "stack: {end:#x} cannot be read")?;
        }
        Ok(())
    }
}

/// Nobody is asked.
const NOBODY: u16 = MAX_CPUS as u16;
static ASKED: AtomicU16 = AtomicU16::new(NOBODY);
static ANSWER: Mutex<Option<(CpuId, Snapshot)>, arch::sync::Relax> = Mutex::new(None);
/// CPUs are asked by NMI at once.
static BY_NMI: AtomicBool = AtomicBool::new(false);

/// Changes whether CPUs are asked by NMI at once; true when they are from now on.
pub fn toggle_nmi() -> bool {
    !BY_NMI.fetch_xor(true, Relaxed)
}

/// Asks another CPU what it is doing; what an earlier question brought is forgotten.
pub fn ask(cpu: CpuId) {
    *ANSWER.lock() = None;
    ASKED.store(cpu.0, SeqCst);
    if BY_NMI.load(Relaxed) {
        cpu::send_nmi(cpu);
    } else {
        cpu::raise(cpu, Work::CONSOLE);
    }
}

/// Asks once more, in a way that cannot be overheard.
pub fn insist(cpu: CpuId) {
    cpu::send_nmi(cpu);
}

/// Takes the answer of a CPU that was asked, if it has come.
pub fn take(cpu: CpuId) -> Option<Snapshot> {
    let mut answer = ANSWER.lock();
    if answer.as_ref().is_some_and(|(of, _)| *of == cpu) { answer.take().map(|(_, snapshot)| snapshot) } else { None }
}

/// Stops waiting for an answer.
pub fn give_up() {
    ASKED.store(NOBODY, SeqCst);
}

fn is_asked(here: CpuId) -> bool {
    ASKED.load(SeqCst) == here.0 && ASKED.compare_exchange(here.0, NOBODY, SeqCst, SeqCst).is_ok()
}

/// Answers on this CPU's way out of the hypervisor, if it was asked.
pub fn answer() {
    let here = cpu::this_cpu();
    if ASKED.load(Relaxed) != here.0 {
        return;
    }
    let snapshot = Snapshot::here();
    let mut answer = ANSWER.lock();
    if is_asked(here) {
        *answer = Some((here, snapshot));
    }
}

/// Answers from an NMI that has interrupted the guest or the hypervisor at `regs`, if this CPU was asked; true when the NMI
/// was meant for that. `returns` are the return addresses on the hypervisor's stack.
pub fn answer_nmi(regs: &Regs, in_guest: bool, returns: impl Iterator<Item = u64>) -> bool {
    let here = cpu::this_cpu();
    if !is_asked(here) {
        return false;
    }
    let mut snapshot = Snapshot::without_guest(Doing::Hypervisor, *regs);
    match current::vcpu() {
        // Its memory is not touched: a fault would end the NMI.
        Some(vcpu) if in_guest => snapshot = Snapshot::bare(vcpu, regs, context::kernel_mode()),
        _ => snapshot.stack = returns.take(STACK).collect(),
    }
    if let Some(mut answer) = ANSWER.try_lock() {
        *answer = Some((here, snapshot));
    }
    true
}
