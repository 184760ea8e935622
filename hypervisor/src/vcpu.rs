// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual CPUs: what a guest registered, and what it is doing.
//!
//! Scalars that hypercalls set are atomics with relaxed ordering: only the CPU that runs the vCPU writes them, or
//! another one while it is down, and the scheduler's lock lies between the two. [`Vcpu::context`] holds the hardware
//! state while the vCPU is *not* running; whoever locks it has made sure of that.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use arch::context::Context;
use arch::window::Window;
use hypercalls::event::NR_VIRQS;
use hypercalls::sched::ShutdownReason;
use hypercalls::{DomId, Mfn, VcpuId, Virq};
use mm::{Lock, RootRef, SegDescRef, WritableRef};

use crate::current::DomainRef;
use crate::domain::Domain;
use crate::emulate::crdr::DebugRegs;
use crate::placement::Places;
use crate::rank;
use crate::runstate::Runstate;
use crate::shared::{SharedFrame, SharedSlot};

/// A handler that a guest registered.
#[derive(Debug, Default)]
pub struct Entry {
    /// Where to go; 0 means not registered.
    pub address: AtomicU64,
    /// True when events are masked on entry.
    pub mask_events: AtomicBool,
}

impl Entry {
    /// Registers a handler.
    pub fn set(&self, address: u64, mask_events: bool) {
        self.address.store(address, Relaxed);
        self.mask_events.store(mask_events, Relaxed);
    }
}

/// A trap-table entry.
#[derive(Debug, Default)]
pub struct Trap {
    /// Where to go, and whether events are masked.
    pub entry: Entry,
    /// Lowest privilege (highest number) that may raise it with INT n.
    pub dpl: AtomicU8,
    /// Code selector as registered; only kept to be read back.
    pub cs: AtomicU16,
}

/// What a vCPU is doing, as far as scheduling goes.
#[derive(Debug, Default)]
pub struct Status {
    /// Its registers have been set.
    pub initialised: AtomicBool,
    /// It is not to run until brought up.
    pub down: AtomicBool,
    /// It waits for an event.
    pub blocked: AtomicBool,
    /// It waits for one of the ports it polls.
    pub polling: AtomicBool,
    /// The only port that it polls, 0 when any may be.
    pub polled_port: AtomicU32,
    /// The CPU it runs on or ran on last.
    pub cpu: AtomicU16,
    /// True while its state is in a CPU.
    pub running: AtomicBool,
    /// What a CPU that lingers has of its translations must not be used any more; see [`crate::lingering`].
    pub stale: AtomicBool,
}

/// References to the frames of a vCPU's descriptor tables.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// The GDT's.
    pub gdt: [Option<SegDescRef>; 14],
    /// Those of the LDT that the CPU has touched.
    pub ldt: [Option<SegDescRef>; 16],
}

/// References to the root tables that a vCPU uses.
#[derive(Debug, Default)]
pub struct Roots {
    /// For kernel mode.
    pub kernel: Option<RootRef>,
    /// For user mode.
    pub user: Option<RootRef>,
}

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    /// Its number in its domain.
    pub id: VcpuId,
    /// Its domain's number.
    pub domid: DomId,
    /// Its number among all vCPUs of the machine.
    pub unit: u32,
    domain: DomainRef,
    /// The trap table.
    pub traps: Box<[Trap; 256]>,
    /// Stack of the guest kernel for entries from user mode.
    pub kernel_sp: AtomicU64,
    /// Stack selector that goes with it.
    pub kernel_ss: AtomicU16,
    /// Where events are delivered.
    pub event: Entry,
    /// Where a failed selector load is reported.
    pub failsafe: Entry,
    /// Where SYSCALL from 64-bit user mode goes.
    pub syscall: Entry,
    /// Where SYSENTER goes.
    pub sysenter: Entry,
    /// Where SYSCALL from 32-bit user mode goes.
    pub syscall32: Entry,
    /// Virtual I/O privilege level, 0 to 3.
    pub iopl: AtomicU8,
    /// Guest address of the I/O bitmap.
    pub io_bitmap: AtomicU64,
    /// How many ports the bitmap covers.
    pub io_ports: AtomicU32,
    /// L4 of the kernel address space, `Mfn::INVALID` when none.
    pub kernel_root: AtomicU64,
    /// L4 of the user address space, `Mfn::INVALID` when none.
    pub user_root: AtomicU64,
    /// Guest address of the LDT.
    pub ldt_base: AtomicU64,
    /// How many entries it has.
    pub ldt_entries: AtomicU32,
    /// Where its descriptor tables are mapped.
    pub window: Arc<Window>,
    /// References to the frames that are mapped there.
    pub descriptors: Lock<Descriptors>,
    /// References to its root tables.
    pub roots: Lock<Roots>,
    /// How many GDT entries are the guest's.
    pub gdt_entries: AtomicU32,
    /// CR2 as the guest sees it.
    pub cr2: AtomicU64,
    /// CR4 bits that the guest set.
    pub cr4: AtomicU64,
    /// CR0.TS as the guest sees it.
    pub ts: AtomicBool,
    /// Debug registers.
    pub debug: Lock<DebugRegs>,
    /// TSC_AUX as the guest set it.
    pub tsc_aux: AtomicU32,
    /// XCR0 as the guest set it.
    pub xcr0: AtomicU64,
    /// All bits that the guest ever set in XCR0.
    pub xcr0_accum: AtomicU64,
    /// An NMI is to be delivered.
    pub nmi_pending: AtomicBool,
    /// An NMI is being handled.
    pub nmi_masked: AtomicBool,
    /// A failsafe callback is due.
    pub failsafe_due: AtomicBool,
    /// Its `vcpu_info`; a dummy with upcalls masked until it has one.
    pub info: SharedSlot,
    /// The frame of the area that it registered.
    pub info_frame: Lock<Option<WritableRef>>,
    /// Time spent in each state.
    pub runstate: Lock<Runstate>,
    /// Guest address of the runstate area, 0 when none.
    pub runstate_area: AtomicU64,
    /// Guest address of the secondary time area, 0 when none.
    pub time_area: AtomicU64,
    /// When the time that it sees is to be published anew.
    pub time_due: AtomicU64,
    virq_ports: [AtomicU32; NR_VIRQS as usize],
    /// Period of the periodic timer in ns, 0 when stopped.
    pub period: AtomicU64,
    /// The CPU in whose queue its timers are.
    pub timer_cpu: AtomicU16,
    /// What it is doing.
    pub status: Status,
    /// Why it crashed its domain and what the domain says of that, until it is reported.
    pub crashed: Lock<Option<(crate::crash::Reason, ShutdownReason)>>,
    /// Where it may run as soon as it is not pinned for a while any more.
    pub pinned: Lock<Option<Places>>,
    /// Arguments of a hypercall that was cut short, on their way to the registers.
    pub again: [AtomicU64; 5],
    /// Hardware state while it is not running.
    pub context: Lock<Context>,
}

impl Vcpu {
    /// Makes a vCPU of a domain that is being created.
    pub fn new(
        domid: DomId,
        id: VcpuId,
        unit: u32,
        domain: DomainRef,
        info: SharedFrame,
        context: Context,
        traps: Box<[Trap; 256]>,
    ) -> Self {
        let invalid = || AtomicU64::new(Mfn::INVALID.0);
        let vcpu = Self {
            id,
            domid,
            unit,
            domain,
            traps,
            kernel_sp: AtomicU64::new(0),
            kernel_ss: AtomicU16::new(hypercalls::segment::FLAT_RING3_SS64),
            event: Entry::default(),
            failsafe: Entry::default(),
            syscall: Entry::default(),
            sysenter: Entry::default(),
            syscall32: Entry::default(),
            iopl: AtomicU8::new(0),
            io_bitmap: AtomicU64::new(0),
            io_ports: AtomicU32::new(0),
            kernel_root: invalid(),
            user_root: invalid(),
            ldt_base: AtomicU64::new(0),
            ldt_entries: AtomicU32::new(0),
            window: context.window.clone(),
            descriptors: Lock::new(rank::DESCRIPTORS, Descriptors::default()),
            roots: Lock::new(rank::ROOTS, Roots::default()),
            gdt_entries: AtomicU32::new(0),
            cr2: AtomicU64::new(0),
            cr4: AtomicU64::new(0),
            ts: AtomicBool::new(false),
            debug: Lock::new(rank::DEBUG, DebugRegs::default()),
            tsc_aux: AtomicU32::new(0),
            xcr0: AtomicU64::new(1),
            xcr0_accum: AtomicU64::new(1),
            nmi_pending: AtomicBool::new(false),
            nmi_masked: AtomicBool::new(false),
            failsafe_due: AtomicBool::new(false),
            info: SharedSlot::new(info),
            info_frame: Lock::new(rank::INFO, None),
            runstate: Lock::new(rank::RUNSTATE, Runstate::new(arch::time::now())),
            runstate_area: AtomicU64::new(0),
            time_area: AtomicU64::new(0),
            time_due: AtomicU64::new(0),
            virq_ports: [const { AtomicU32::new(0) }; NR_VIRQS as usize],
            period: AtomicU64::new(0),
            timer_cpu: AtomicU16::new(0),
            status: Status::default(),
            crashed: Lock::new(rank::CRASHED, None),
            pinned: Lock::new(rank::PINNED, None),
            again: [const { AtomicU64::new(0) }; 5],
            context: Lock::new(rank::CONTEXT, context),
        };
        vcpu.status.down.store(true, Relaxed);
        vcpu
    }

    /// Returns its domain.
    #[inline(always)]
    pub fn domain(&self) -> &Domain {
        self.domain.get(self)
    }

    /// Returns the port to which one of its virtual interrupts is bound, 0 for none.
    pub fn virq_port(&self, virq: Virq) -> &AtomicU32 {
        &self.virq_ports[virq.0 as usize % NR_VIRQS as usize]
    }

    /// Returns its `vcpu_info`.
    #[inline(always)]
    pub fn vcpu_info(&self) -> SharedFrame {
        self.info.get()
    }

    /// True when it may be scheduled.
    pub fn runnable(&self) -> bool {
        let s = &self.status;
        !s.down.load(Relaxed) && !s.blocked.load(Relaxed) && !s.polling.load(Relaxed) && !self.domain().paused()
    }

    /// Returns the L4 of the kernel address space.
    #[inline(always)]
    pub fn kernel_mfn(&self) -> Mfn {
        Mfn(self.kernel_root.load(Relaxed))
    }
}
