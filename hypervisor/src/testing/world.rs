// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine with two domains, and the ways in and out of the hypervisor that the entry stubs take on the real one.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use arch::cpu::{self, Work};
use arch::entry::Idle;
use arch::hosted::Machine;
use arch::machine::MachineEnd;
use arch::{CpuId, LineMode, Regs, context, entry};
use hypercalls::memory::{E820Entry, E820Type};
use hypercalls::mmu::{MmuextCmd, MmuextOp};
use hypercalls::shared_info::vcpu_offset;
use hypercalls::vcpu::VcpuOp;
use hypercalls::vm_assist::VmAssistType;
use hypercalls::{DomId, Errno, HypercallNr};
use zerocopy::IntoBytes;

use super::guest::{self, CALL, Guest, HANDLER, TABLES, VCPUS, args_of, va};
use super::vcpus;
use super::{audit, end};
use crate::construct::{self, Dom0, Failure};
use crate::cpus::Present;
use crate::create::{Config, Tools};
use crate::emulate::io::PortSet;
use crate::grants::Limits;
use crate::io_rights::{IoRights, message_range};
use crate::vcpu::Vcpu;
use crate::{
    bounce, console, current, death, dispatch, domain, events, grace, host, irq, keys, machine_map, registers,
    schedule, timers,
};

/// Frames of the machine.
const FRAMES: u64 = 512;
/// Messages that devices can have.
const MESSAGES: u32 = 64;
/// More round trips than the way back to a guest ever takes.
const MANY: usize = 1000;

/// A machine with dom0 and one unprivileged domain.
#[derive(Debug)]
pub struct World {
    /// The domains, dom0 first.
    pub guests: Vec<Guest>,
    /// CPUs of the machine.
    pub cpus: u16,
    /// How the machine ended, if it has.
    pub end: Option<MachineEnd>,
    /// How many calls of [`World::call`] were cut short.
    pub cuts: u32,
    watch: audit::Watch,
    /// Last, so that everything else goes while the machine is there.
    _machine: Option<Machine>,
}

/// Starts a machine and forgets everything that belonged to the one before.
pub fn new_machine(frames: u64, cpus: u16) -> Machine {
    let machine = mm::hosted::boot(frames, usize::from(cpus));
    // Left behind by a test that failed: their frames are another machine's.
    core::mem::forget((domain::take_all(), grace::take_all(), schedule::take_all(), host::take_dummy_info()));
    timers::forget_all();
    crate::lingering::forget_all();
    crate::firmware::note_efi(None);
    crate::cpus::note((0..u32::from(cpus)).map(|n| Present { apic_id: n, acpi_id: n + 1 }).collect());
    keys::forget_all();
    console::forget_guests();
    irq::forget_all();
    crate::pci::forget_all();
    crate::mca::forget_all();
    crate::stop::forget_all();
    crate::stuck::forget_all();
    crate::snapshot::give_up();
    irq::init(MESSAGES, |gsi| LineMode { level: gsi >= 16, active_low: gsi >= 16 });
    // What was typed on another machine.
    let _ = console::read_input(usize::MAX, |_, _| Ok(()));
    let ram = E820Entry { addr: 0, size: frames << 12, kind: E820Type::RAM };
    machine_map::MACHINE_MAP.call_once(|| alloc::vec![ram]);
    let _ = host::dummy_info();
    machine
}

/// Brings the CPUs of a machine whose domains are built into the scheduler. This thread plays CPU 0 afterwards.
pub fn start_cpus(cpus: u16) {
    context::on_ldt_fault(|offset| current::vcpu().is_some_and(|vcpu| registers::map_ldt_page(vcpu, offset)));
    for n in (0..cpus).rev() {
        cpu::set_this_cpu(CpuId(n));
        schedule::cpu_online(CpuId(n));
    }
}

/// What dom0 may do with devices: everything but the interrupt controllers, which it may look at.
fn dom0_rights() -> IoRights {
    let ports = PortSet::hardware_domain(Some(0x608)).expect("memory");
    IoRights::dom0(&[message_range(), 0xfec00..=0xfec00], &[0xfed00..=0xfed00], ports).expect("memory")
}

impl World {
    /// Builds the domains; their first vCPUs are ready to run.
    ///
    /// # Panics
    /// When they cannot be built.
    pub fn new(cpus: u16) -> Self {
        let machine = new_machine(FRAMES, cpus);
        let guests = [0, 1].map(|n: u16| {
            let config = Config {
                id: DomId(n),
                privileged: n == 0,
                vcpus: VCPUS,
                max_pages: guest::FRAMES as u64 + 8,
                max_port: u32::MAX,
                io: if n == 0 { dom0_rights() } else { IoRights::none() },
                grants: Limits::DEFAULT,
                tools: Tools::default(),
            };
            Guest::build(config).expect("the machine has memory, and the tables are valid")
        });
        Self::start(machine, guests.into(), cpus)
    }

    /// Builds dom0 alone, from a kernel image, on a machine with one CPU.
    ///
    /// # Errors
    /// What the builder says.
    pub fn from_image(from: Dom0<'_>, frames: u64) -> Result<Self, Failure> {
        let machine = new_machine(frames, 1);
        let domain = construct::dom0(Dom0 { io: dom0_rights(), ..from })?;
        let mut p2m = Vec::new();
        domain.account.for_each(|mfn| p2m.push(mfn));
        Ok(Self::start(machine, alloc::vec![Guest { domain, p2m }], 1))
    }

    /// Builds a guest as the hypervisor does without tools, and nothing else, on a machine with one CPU; it may run.
    ///
    /// # Errors
    /// What the builder says.
    pub fn from_guest(from: &construct::Guest<'_>, frames: u64) -> Result<Self, Failure> {
        let machine = new_machine(frames, 1);
        let domain = construct::guest(from)?;
        let mut p2m = Vec::new();
        domain.account.for_each(|mfn| p2m.push(mfn));
        domain.unpause_by_controller().map_err(Failure::Create)?;
        Ok(Self::start(machine, alloc::vec![Guest { domain, p2m }], 1))
    }

    fn start(machine: Machine, guests: Vec<Guest>, cpus: u16) -> Self {
        start_cpus(cpus);
        Self { guests, cpus, end: None, cuts: 0, watch: audit::Watch::default(), _machine: Some(machine) }
    }

    /// Lets both kernels do what kernels do first: register handlers, start the second vCPU.
    ///
    /// # Panics
    /// When a call fails, or a kernel never gets its turn.
    pub fn boot_kernels(&mut self) {
        let mut waits = [true; 2];
        for n in 0..MANY as u16 {
            self.go_to(n % self.cpus);
            entry::take_interrupts();
            if let Some(vcpu) = self.go_back() {
                let waits = &mut waits[usize::from(vcpu.domid.0)];
                if vcpu.id.0 == 0 && core::mem::take(waits) {
                    self.boot_kernel(vcpu);
                }
            }
            if waits == [false; 2] {
                return;
            }
            arch::time::advance(20_000_000);
        }
        panic!("a kernel never gets its turn");
    }

    fn boot_kernel(&mut self, vcpu: &Vcpu) {
        let args = va(args_of(vcpu.id));
        let put = |bytes: &[u8]| assert!(guest::write(args, bytes), "the arguments' page is mapped");
        put(vcpus::trap_table().as_slice().as_bytes());
        assert_eq!(self.call(HypercallNr::SET_TRAP_TABLE, [args, 0, 0, 0, 0]), 0);
        assert_eq!(self.call(HypercallNr::SET_CALLBACKS, [HANDLER; 5]), 0);
        let writable_tables = [0, u64::from(VmAssistType::WRITABLE_PAGETABLES.0), 0, 0, 0];
        assert_eq!(self.call(HypercallNr::VM_ASSIST, writable_tables), 0);
        let root = self.guests[usize::from(vcpu.domid.0)].p2m[TABLES[4]];
        put(MmuextOp { cmd: MmuextCmd::NEW_USER_BASEPTR, arg1: root.0, ..MmuextOp::default() }.as_bytes());
        assert_eq!(self.call(HypercallNr::MMUEXT_OP, [args, 1, 0, u64::from(DomId::SELF.0), 0]), 0);
        let context = vcpus::second_context(&self.guests[usize::from(vcpu.domid.0)]);
        put(context.as_bytes());
        for op in [VcpuOp::INITIALISE, VcpuOp::UP] {
            assert_eq!(self.call(HypercallNr::VCPU_OP, [u64::from(op.0), 1, args, 0, 0]), 0);
        }
    }

    /// Lets this thread play another CPU.
    pub fn go_to(&self, cpu: u16) {
        cpu::set_this_cpu(CpuId(cpu));
    }

    /// Does what `f` does, and finds out whether that was the end of the machine.
    pub fn guarded<T>(&mut self, f: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => Some(value),
            Err(payload) => {
                match payload.downcast_ref::<MachineEnd>() {
                    Some(end) => self.end = Some(*end),
                    None => resume_unwind(payload),
                }
                None
            }
        }
    }

    /// Goes the way back to a guest on this CPU: work is done until none is left. Returns the vCPU that runs then, `None`
    /// when the CPU idles or the machine is at its end.
    ///
    /// # Panics
    /// When the way back never ends.
    pub fn go_back(&mut self) -> Option<&'static Vcpu> {
        for _ in 0..MANY {
            let current = current::vcpu();
            let is_idle = match current {
                Some(vcpu) if !cpu::has_work() => {
                    if !is_event_due(vcpu) {
                        return current;
                    }
                    self.guarded(|| entry::with_frame(|regs| bounce::event(vcpu, regs)))?;
                    false
                }
                _ => self.guarded(work)?,
            };
            if is_idle {
                return None;
            }
        }
        let vcpu = current::vcpu().map(|v| (v.domid, v.id, v.runnable()));
        panic!("the way back to the guest does not end: {:?} on {vcpu:?}", cpu::take_work());
    }

    /// Makes the current vCPU's kernel execute one SYSCALL. The registers say afterwards what came of it.
    pub fn syscall(&mut self, vcpu: &Vcpu, number: u64, args: [u64; 5]) {
        self.prepare_syscall(number, args);
        self.repeat_syscall(vcpu);
    }

    fn prepare_syscall(&mut self, number: u64, args: [u64; 5]) {
        entry::with_frame(|regs| {
            (regs.rax, regs.rip, regs.rcx, regs.vector) = (number, CALL + 2, CALL + 2, entry::VECTOR_SYSCALL);
            [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8] = args;
        });
    }

    /// Makes the current vCPU's kernel execute the SYSCALL at which its instruction pointer is, registers as they are.
    pub fn repeat_syscall(&mut self, vcpu: &Vcpu) {
        self.guarded(|| {
            entry::with_frame(|regs| {
                regs.rip = CALL + 2;
                dispatch::hypercall(vcpu, regs);
            });
        });
    }

    /// As [`World::repeat_syscall`]; the call may read each byte of the guest's once: before it does so again, another vCPU may
    /// have changed it. A list of calls may be made of several that have the same arguments.
    fn watched_syscall(&mut self, vcpu: &Vcpu) {
        let (number, op) = entry::with_frame(|regs| (regs.rax, regs.rdi));
        arch::guest::watch_reads();
        self.repeat_syscall(vcpu);
        let mut reads = arch::guest::take_reads();
        reads.sort_unstable();
        let twice = reads.windows(2).find(|pair| pair[1].0 - pair[0].0 < pair[0].1 as u64);
        assert!(twice.is_none() || number == HypercallNr::MULTICALL.0, "call {number} {op:#x} reads twice: {twice:x?}");
    }

    /// Makes a hypercall as the vCPU that runs on this CPU, and goes back to it as often as it is cut short.
    ///
    /// # Panics
    /// When another vCPU runs, or the machine is at its end, or the call reads a byte of the guest's twice.
    pub fn call(&mut self, number: HypercallNr, args: [u64; 5]) -> i64 {
        let vcpu = self.go_back().expect("a vCPU runs");
        self.prepare_syscall(number.0, args);
        self.watched_syscall(vcpu);
        while entry::with_frame(|regs| regs.rip) == CALL {
            let now = self.go_back().expect("a vCPU runs");
            assert!(core::ptr::eq(now, vcpu), "the vCPU that called still runs");
            self.cuts += 1;
            self.let_pass();
            self.watched_syscall(vcpu);
        }
        entry::with_frame(|regs| regs.rax).cast_signed()
    }

    /// Lets the CPU take an exception in the guest's name.
    pub fn exception(&mut self, vector: u32, code: u32) {
        self.guarded(|| {
            entry::with_frame(|regs| {
                (regs.vector, regs.error_code) = (vector, code);
                crate::traps::guest_exception(regs);
            });
        });
    }

    /// Returns a copy of the registers of the guest on this CPU.
    pub fn registers(&self) -> Regs {
        entry::with_frame(|regs| *regs)
    }

    /// Makes sure that some vCPU can run: when all CPUs idle, time passes until a timer fires, or something comes from
    /// outside.
    pub fn disturb(&self) {
        let deadlines = (0..self.cpus).filter_map(|n| arch::timer::deadline(CpuId(n)));
        if let Some(first) = deadlines.min() {
            arch::time::wait_until(first);
            return;
        }
        for vcpu in self.guests.iter().flat_map(|g| &g.domain.vcpus) {
            if vcpu.status.polling.load(Relaxed) {
                schedule::wake_poller(vcpu);
            }
            if vcpu.status.blocked.load(Relaxed) {
                events::mark_pending(vcpu);
                schedule::kick(vcpu);
            }
        }
        cpu::raise_here(Work::SCHEDULE);
    }

    /// Ends the grace period that is under way.
    pub fn let_pass(&self) {
        let here = cpu::this_cpu();
        for n in 0..self.cpus {
            self.go_to(n);
            grace::pass();
        }
        cpu::set_this_cpu(here);
    }

    /// Checks every rule.
    ///
    /// # Panics
    /// When one is broken.
    pub fn check(&mut self) {
        self.let_pass();
        let watched = self.watch.check();
        if let Err(broken) = watched.and_then(|()| audit::check(self.cpus)) {
            panic!("{broken}");
        }
    }

    /// Ends the machine's life: the domains are torn down, and every frame must come back.
    ///
    /// # Panics
    /// When a rule is broken, or something is left behind.
    pub fn finish(mut self) {
        for n in 0..self.cpus {
            self.go_to(n);
            end::unload();
        }
        cpu::preempt_after(None);
        for domain in domain::from(DomId(0)) {
            while let Err(error) = death::destroy(&domain) {
                assert_eq!(error, Errno::ERESTART, "only for want of time is a death put off");
                self.let_pass();
            }
        }
        drop((schedule::take_all(), domain::take_all(), grace::take_all(), host::take_dummy_info()));
        timers::forget_all();
        drop(core::mem::take(&mut self.guests));
        let (free, total) = (mm::buddy::free_frames(), mm::buddy::total_frames());
        assert_eq!(free + 1, total, "every frame but the reserved one has come back");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Not finished, most likely because a test failed: nothing may touch the frames of a machine that is gone.
        core::mem::forget(core::mem::take(&mut self.guests));
    }
}

/// Does work on the way back to a guest; true when there is no guest to go back to.
fn work() -> bool {
    match catch_unwind(|| entry::with_frame(crate::traps::exit_work)) {
        Ok(()) => false,
        Err(payload) if payload.is::<Idle>() => true,
        Err(payload) => resume_unwind(payload),
    }
}

/// True when the exit path finds an event pending and not masked.
fn is_event_due(vcpu: &Vcpu) -> bool {
    let info = vcpu.vcpu_info();
    let byte = |at| info.u8(at).load(Relaxed);
    byte(vcpu_offset::EVTCHN_UPCALL_PENDING) != 0 && byte(vcpu_offset::EVTCHN_UPCALL_MASK) == 0
}
