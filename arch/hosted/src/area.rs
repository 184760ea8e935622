// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each simulated CPU has in its registers: the frame of the interrupted guest, and what the machine keeps beside it.
#![expect(unsafe_code, reason = "the register frame is written through two ways, as on the machine")]

use crate::cpu;
use crate::window::Window;
use arch_types::{CpuId, IdleClock, MAX_CPUS, Regs};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Registers and per-CPU data of one CPU.
#[derive(Debug)]
pub(crate) struct Area {
    pub(crate) regs: UnsafeCell<Regs>,
    pub(crate) work: AtomicU32,
    pub(crate) kernel_mode: AtomicBool,
    pub(crate) vcpu: AtomicUsize,
    pub(crate) vcpu_info: AtomicUsize,
    pub(crate) cr3_kernel: AtomicU64,
    pub(crate) cr3_user: AtomicU64,
    pub(crate) lingers: AtomicBool,
    pub(crate) cr2: AtomicU64,
    pub(crate) cr4: AtomicU64,
    pub(crate) ts: AtomicBool,
    pub(crate) shown_flags: AtomicU32,
    pub(crate) xcr0: AtomicU64,
    pub(crate) tsc_aux: AtomicU32,
    pub(crate) fs_base: AtomicU64,
    pub(crate) gs_base: AtomicU64,
    pub(crate) other_gs_base: AtomicU64,
    pub(crate) selectors: Mutex<[u16; 4]>,
    pub(crate) debug: [AtomicU64; 8],
    pub(crate) ldt_entries: AtomicU32,
    pub(crate) window: Mutex<Option<Arc<Window>>>,
    pub(crate) fpu: Mutex<[u8; 512]>,
    pub(crate) idle: IdleClock,
}

// SAFETY: all but `regs` is synchronised; `regs` is only touched by the thread that plays the CPU.
unsafe impl Sync for Area {}

impl Area {
    const fn new() -> Self {
        Self {
            regs: UnsafeCell::new(NO_REGS),
            work: AtomicU32::new(0),
            kernel_mode: AtomicBool::new(false),
            vcpu: AtomicUsize::new(0),
            vcpu_info: AtomicUsize::new(0),
            cr3_kernel: AtomicU64::new(0),
            cr3_user: AtomicU64::new(0),
            lingers: AtomicBool::new(false),
            cr2: AtomicU64::new(0),
            cr4: AtomicU64::new(0),
            ts: AtomicBool::new(false),
            shown_flags: AtomicU32::new(0),
            xcr0: AtomicU64::new(0),
            tsc_aux: AtomicU32::new(0),
            fs_base: AtomicU64::new(0),
            gs_base: AtomicU64::new(0),
            other_gs_base: AtomicU64::new(0),
            selectors: Mutex::new([0; 4]),
            debug: [const { AtomicU64::new(0) }; 8],
            ldt_entries: AtomicU32::new(0),
            window: Mutex::new(None),
            fpu: Mutex::new([0; 512]),
            idle: IdleClock::new(),
        }
    }

    fn reset(&self) {
        // SAFETY: the machine is being started: no CPU runs.
        unsafe { *self.regs.get() = NO_REGS };
        self.work.store(0, Relaxed);
        self.kernel_mode.store(false, Relaxed);
        self.vcpu.store(0, Relaxed);
        self.vcpu_info.store(0, Relaxed);
        let words = [&self.cr3_kernel, &self.cr3_user, &self.cr2, &self.cr4, &self.xcr0];
        words.into_iter().for_each(|w| w.store(0, Relaxed));
        let bases = [&self.fs_base, &self.gs_base, &self.other_gs_base];
        bases.into_iter().chain(&self.debug).for_each(|w| w.store(0, Relaxed));
        self.ts.store(false, Relaxed);
        self.shown_flags.store(0, Relaxed);
        self.tsc_aux.store(0, Relaxed);
        self.ldt_entries.store(0, Relaxed);
        *locked(&self.selectors) = [0; 4];
        *locked(&self.window) = None;
        *locked(&self.fpu) = [0; 512];
        self.idle.reset();
    }
}

const NO_REGS: Regs = Regs {
    r15: 0,
    r14: 0,
    r13: 0,
    r12: 0,
    rbp: 0,
    rbx: 0,
    r11: 0,
    r10: 0,
    r9: 0,
    r8: 0,
    rax: 0,
    rcx: 0,
    rdx: 0,
    rsi: 0,
    rdi: 0,
    error_code: 0,
    vector: 0,
    rip: 0,
    cs: 0,
    rflags: 0,
    rsp: 0,
    ss: 0,
};

static AREAS: [Area; MAX_CPUS] = [const { Area::new() }; MAX_CPUS];

/// Takes a lock whether or not a test panicked under it.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns this CPU's area.
pub(crate) fn area() -> &'static Area {
    of(cpu::this_cpu())
}

/// Returns a CPU's area.
pub(crate) fn of(cpu: CpuId) -> &'static Area {
    &AREAS[cpu.0 as usize % MAX_CPUS]
}

pub(crate) fn reset() {
    AREAS.iter().for_each(Area::reset);
}
