// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine's interrupts on their way to domains: lines that are pulled, PIRQs that are mapped, bound and closed.

use std::sync::atomic::Ordering::Relaxed;

use arch::{CpuId, apic, entry, ioapic};
use hypercalls::event::{BIND_PIRQ_WILL_SHARE, EvtchnBindPirq, EvtchnBindVcpu, EvtchnClose, EvtchnOp, EvtchnStatus};
use hypercalls::physdev::{
    MapPirqType, PhysdevApic, PhysdevEoi, PhysdevIrqStatusQuery, PhysdevMapPirq, PhysdevOp, PhysdevPirqEoiGmfn,
    PhysdevSetupGsi, PhysdevUnmapPirq,
};
use hypercalls::{DomId, Errno, HypercallNr, VcpuId};
use hypervisor::domain::Domain;
use hypervisor::testing::World;
use hypervisor::testing::guest::{self, POOL, args_of, va};
use hypervisor::{events, irq, keys, pirq};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A level-triggered line of PCI, and an edge-triggered one of ISA.
pub(crate) const PCI: u32 = 18;
pub(crate) const ISA: u32 = 5;

pub(crate) struct Machine(pub(crate) World);

impl Machine {
    pub(crate) fn new(cpus: u16) -> Self {
        let mut machine = Self(World::new(cpus));
        machine.let_dom0_run();
        machine
    }

    /// Goes to the CPU that runs dom0's first vCPU, when its turn has come.
    fn let_dom0_run(&mut self) {
        for _ in 0..1000 {
            self.0.go_to(0);
            entry::take_interrupts();
            if self.0.go_back().is_some_and(|vcpu| (vcpu.domid, vcpu.id) == (DomId(0), VcpuId(0))) {
                return;
            }
            arch::time::advance(1_000_000);
        }
        panic!("dom0's turn never comes");
    }

    pub(crate) fn domain(&self, n: usize) -> &Domain {
        &self.0.guests[n].domain
    }

    /// Makes a call on an argument, as dom0, and returns the result and the argument afterwards.
    fn ask<T>(&mut self, number: HypercallNr, op: u32, arg: &T) -> (i64, T)
    where
        T: IntoBytes + FromBytes + Immutable,
    {
        self.let_dom0_run();
        let at = va(args_of(VcpuId(0)));
        assert!(guest::write(at, arg.as_bytes()));
        let result = self.0.call(number, [u64::from(op), at, 0, 0, 0]);
        self.0.check();
        let bytes: Vec<u8> = (0..size_of::<T>() as u64).map(|n| guest::read(at + n) as u8).collect();
        (result, T::read_from_bytes(&bytes).expect("as many bytes"))
    }

    pub(crate) fn physdev<T: IntoBytes + FromBytes + Immutable>(&mut self, op: PhysdevOp, arg: &T) -> (i64, T) {
        self.ask(HypercallNr::PHYSDEV_OP, op.0, arg)
    }

    fn channel<T: IntoBytes + FromBytes + Immutable>(&mut self, op: EvtchnOp, arg: &T) -> (i64, T) {
        self.ask(HypercallNr::EVENT_CHANNEL_OP, op.0, arg)
    }

    fn map(&mut self, gsi: i32, pirq: i32) -> (i64, i32) {
        let arg = PhysdevMapPirq { domid: DomId::SELF, kind: MapPirqType::GSI, index: gsi, pirq, ..Default::default() };
        let (result, arg) = self.physdev(PhysdevOp::MAP_PIRQ, &arg);
        (result, arg.pirq)
    }

    fn bind(&mut self, pirq: u32, flags: u32) -> (i64, u32) {
        let (result, arg) = self.channel(EvtchnOp::BIND_PIRQ, &EvtchnBindPirq { pirq, flags, port: 0 });
        (result, arg.port)
    }

    pub(crate) fn close(&mut self, port: u32) -> i64 {
        self.channel(EvtchnOp::CLOSE, &EvtchnClose { port }).0
    }

    pub(crate) fn eoi(&mut self, irq: u32) -> i64 {
        self.physdev(PhysdevOp::EOI, &PhysdevEoi { irq }).0
    }

    /// Maps a line for dom0 under its own number and binds it. Returns the port.
    fn open(&mut self, gsi: u32, flags: u32) -> u32 {
        assert_eq!(self.map(gsi as i32, gsi as i32), (0, gsi as i32));
        let (result, port) = self.bind(gsi, flags);
        assert_eq!(result, 0);
        port
    }

    /// Lets a CPU take what has come to it. Returns how much that was.
    pub(crate) fn take(&self, cpu: u16) -> u32 {
        self.0.go_to(cpu);
        let mut taken = 0;
        while let Some(vector) = apic::take() {
            irq::interrupt(vector);
            taken += 1;
            assert!(taken < 1000, "a line that comes again at once");
        }
        self.0.go_to(0);
        taken
    }

    /// True when the port is pending; it is not afterwards.
    pub(crate) fn told(&self, n: usize, port: u32) -> bool {
        let domain = self.domain(n);
        let told = events::is_pending(domain, port);
        let word = hypercalls::shared_info::shared_offset::EVTCHN_PENDING + port as usize / 64 * 8;
        domain.shared_info().u64(word).fetch_and(!(1 << (port % 64)), Relaxed);
        told
    }
}

pub(crate) fn err(error: Errno) -> i64 {
    -i64::from(error as i32)
}

pub(crate) fn pull(gsi: u32, asserted: bool) {
    ioapic::assert_line(gsi, asserted).expect("there is such a line");
}

#[test]
fn a_level_line_stays_masked_until_it_is_handled() {
    let mut m = Machine::new(1);
    let port = m.open(PCI, 0);
    assert!(!ioapic::is_masked(PCI));
    pull(PCI, true);
    assert_eq!(m.take(0), 1);
    assert!(m.told(0, port) && ioapic::is_masked(PCI));
    assert_eq!(m.take(0), 0, "still asserted, but masked");
    assert_eq!(m.eoi(PCI), 0);
    assert_eq!(m.take(0), 1, "still asserted, so it comes again");
    assert!(m.told(0, port));
    pull(PCI, false);
    assert_eq!((m.eoi(PCI), m.take(0)), (0, 0));
    assert!(!ioapic::is_masked(PCI));
    // Nobody listens any more: silence, whatever the wire does, and the next one starts afresh.
    pull(PCI, true);
    m.take(0);
    assert_eq!(m.close(port), 0);
    assert!(ioapic::is_masked(PCI));
    assert_eq!((m.eoi(PCI), m.take(0)), (0, 0));
    let (_, port) = m.bind(PCI, 0);
    assert_eq!(m.take(0), 1);
    assert!(m.told(0, port));
    m.0.finish();
}

#[test]
fn an_edge_is_told_and_not_masked() {
    let mut m = Machine::new(1);
    let port = m.open(ISA, 0);
    for _ in 0..2 {
        pull(ISA, true);
        assert_eq!(m.take(0), 1);
        assert!(m.told(0, port) && !ioapic::is_masked(ISA));
        pull(ISA, false);
    }
    assert_eq!(m.take(0), 0);
    m.0.finish();
}

#[test]
fn what_calls_answer() {
    let mut m = Machine::new(1);
    let end = ioapic::gsi_end();
    for (gsi, pirq, expected) in [
        (-1, 5, Errno::EINVAL),
        (end as i32, -1, Errno::EINVAL),
        (i32::MAX, -1, Errno::EINVAL),
        (ioapic::FIRST as i32, -1, Errno::EINVAL),
        (PCI as i32, 100_000, Errno::EINVAL),
        (0, 0, Errno::EPERM),
    ] {
        assert_eq!(m.map(gsi, pirq), (err(expected), pirq), "map_pirq of {gsi} as {pirq}");
    }
    assert_eq!(m.bind(100_000, 0).0, err(Errno::EINVAL));
    assert_eq!(m.bind(PCI, 0).0, err(Errno::EPERM), "not mapped");
    assert_eq!(m.map(PCI as i32, 30), (0, 30));
    assert_eq!(m.map(PCI as i32, -1), (0, 30), "mapped already");
    assert_eq!(m.map(PCI as i32, 31).0, err(Errno::EEXIST));
    let (result, port) = m.bind(30, 0);
    assert_eq!(result, 0);
    assert_eq!(m.bind(30, 0).0, err(Errno::EEXIST));
    let (_, status) = m.channel(EvtchnOp::STATUS, &EvtchnStatus { dom: DomId::SELF, port, ..Default::default() });
    assert_eq!((status.status.0, status.arg), (3, 30));
    assert_eq!(m.channel(EvtchnOp::SEND, &EvtchnClose { port }).0, err(Errno::EINVAL));
    let gsi = |gsi| PhysdevSetupGsi { gsi, triggering: 1, polarity: 1, ..Default::default() };
    assert_eq!(m.physdev(PhysdevOp::SETUP_GSI, &gsi(PCI as i32)).0, err(Errno::EEXIST), "in use");
    assert_eq!(m.physdev(PhysdevOp::SETUP_GSI, &gsi(19)).0, 0);
    assert_eq!(m.physdev(PhysdevOp::SETUP_GSI, &gsi(19)).0, err(Errno::EEXIST));
    for no_line in [-1, end as i32, ioapic::FIRST as i32] {
        assert_eq!(m.physdev(PhysdevOp::SETUP_GSI, &gsi(no_line)).0, err(Errno::EINVAL));
    }
    let query = |irq| PhysdevIrqStatusQuery { irq, flags: 7 };
    assert_eq!(m.physdev(PhysdevOp::IRQ_STATUS_QUERY, &query(30)).1.flags, 1);
    assert_eq!(m.physdev(PhysdevOp::IRQ_STATUS_QUERY, &query(1 << 20)).0, err(Errno::EINVAL));
    assert_eq!((m.eoi(29), m.eoi(30), m.eoi(u32::MAX)), (err(Errno::EINVAL), 0, err(Errno::EINVAL)));
    let unmap = |pirq| PhysdevUnmapPirq { domid: DomId::SELF, pirq, ..Default::default() };
    assert_eq!(m.physdev(PhysdevOp::UNMAP_PIRQ, &unmap(30)).0, 0);
    assert_eq!(m.physdev(PhysdevOp::UNMAP_PIRQ, &unmap(30)).0, err(Errno::EINVAL));
    assert_eq!(m.physdev(PhysdevOp::UNMAP_PIRQ, &unmap(-1)).0, err(Errno::EINVAL));
    let elsewhere = PhysdevUnmapPirq { domid: DomId(7), ..unmap(30) };
    assert_eq!(m.physdev(PhysdevOp::UNMAP_PIRQ, &elsewhere).0, err(Errno::ESRCH));
    m.0.finish();
}

#[test]
fn what_is_the_hypervisors_stays_so() {
    let mut m = Machine::new(1);
    let line = irq::get(4).expect("the serial line's");
    line.claim("serial line", arch::cpu::Work::CONSOLE).expect("free");
    assert!(!ioapic::is_masked(4));
    assert_eq!(m.map(4, 4), (0, 4));
    assert_eq!(m.bind(4, BIND_PIRQ_WILL_SHARE).0, err(Errno::EBUSY));
    let gsi = PhysdevSetupGsi { gsi: 4, triggering: 1, polarity: 1, ..Default::default() };
    assert_eq!(m.physdev(PhysdevOp::SETUP_GSI, &gsi).0, err(Errno::EEXIST));
    pull(4, true);
    assert_eq!(m.take(0), 1);
    assert!(arch::cpu::take_work().contains(arch::cpu::Work::CONSOLE));
    m.0.finish();
}

#[test]
fn io_apics_as_dom0_reads_and_writes_them() {
    let mut m = Machine::new(1);
    let at = |apic_physbase, reg, value| PhysdevApic { apic_physbase, reg, value };
    let (result, version) = m.physdev(PhysdevOp::APIC_READ, &at(ioapic::MADDRS[1], 1, 0));
    assert_eq!((result, version.value >> 16 & 0xff), (0, ioapic::SECOND - 1));
    assert_eq!(m.physdev(PhysdevOp::APIC_READ, &at(0x1000, 1, 0)).0, err(Errno::EINVAL));
    // Level, low, not masked, the PIRQ in the vector: the last line of the second.
    let (gsi, entry) = (ioapic::gsi_end() - 1, 0x10 + 2 * (ioapic::SECOND - 1));
    assert_eq!(m.physdev(PhysdevOp::APIC_WRITE, &at(ioapic::MADDRS[1], entry, 0xa000 | 45)).0, 0);
    assert_eq!(m.domain(0).pirqs.irq(45).map(irq::Irq::number), Some(gsi));
    assert_eq!(
        m.physdev(PhysdevOp::APIC_WRITE, &at(ioapic::MADDRS[1], entry, 0x1_0400)).0,
        err(Errno::EINVAL),
        "an NMI"
    );
    assert_eq!(m.physdev(PhysdevOp::APIC_WRITE, &at(ioapic::MADDRS[1], entry + 2, 0)).0, err(Errno::EINVAL));
    assert_eq!(m.physdev(PhysdevOp::APIC_WRITE, &at(ioapic::MADDRS[1], entry + 1, 0)).0, 0, "ignored");
    m.0.finish();
}

#[test]
fn domains_share_a_line() {
    let mut m = Machine::new(1);
    let port = m.open(PCI, BIND_PIRQ_WILL_SHARE);
    let other =
        PhysdevMapPirq { domid: DomId(1), kind: MapPirqType::GSI, index: PCI as i32, pirq: 7, ..Default::default() };
    assert_eq!(m.physdev(PhysdevOp::MAP_PIRQ, &other).0, 0);
    assert_eq!(pirq::bind(m.domain(1), 7, false), Err(Errno::EBUSY));
    let theirs = pirq::bind(m.domain(1), 7, true).expect("shared");
    let query = PhysdevIrqStatusQuery { irq: PCI, flags: 0 };
    assert_eq!(m.physdev(PhysdevOp::IRQ_STATUS_QUERY, &query).1.flags, 3);
    pull(PCI, true);
    m.take(0);
    assert!(m.told(0, port) && m.told(1, theirs));
    pull(PCI, false);
    assert_eq!((m.eoi(PCI), m.eoi(PCI)), (0, 0));
    assert!(ioapic::is_masked(PCI), "the other domain has not handled it");
    pirq::done(m.domain(1), 7).expect("mapped");
    assert!(!ioapic::is_masked(PCI));
    // A domain that goes while it owes an end does not keep the line from the other.
    pull(PCI, true);
    m.take(0);
    assert_eq!(m.eoi(PCI), 0);
    pull(PCI, false);
    events::close(m.domain(1), theirs).expect("open");
    assert!(!ioapic::is_masked(PCI));
    // Without the right there is no binding.
    m.domain(1).pirqs.permit(PCI, false);
    assert_eq!(pirq::bind(m.domain(1), 7, true), Err(Errno::EPERM));
    m.0.finish();
}

#[test]
fn the_page_says_what_must_be_ended() {
    let mut m = Machine::new(1);
    m.open(PCI, 0);
    let frame = m.0.guests[0].p2m[POOL[0].start];
    let arg = PhysdevPirqEoiGmfn { gmfn: frame.0 };
    let foreign = PhysdevPirqEoiGmfn { gmfn: m.0.guests[1].p2m[POOL[0].start].0 };
    assert_eq!(m.physdev(PhysdevOp::PIRQ_EOI_GMFN_V2, &foreign).0, err(Errno::EINVAL));
    assert_eq!(m.physdev(PhysdevOp::PIRQ_EOI_GMFN_V2, &arg).0, 0);
    assert_eq!(m.physdev(PhysdevOp::PIRQ_EOI_GMFN_V1, &arg).0, err(Errno::EBUSY));
    let word = || mm::hosted::peek(frame, 0);
    assert_eq!(word(), 1 << PCI, "bound before the page was there");
    let edge = m.open(ISA, 0);
    assert_eq!(word(), 1 << PCI, "an edge needs no end");
    let port = m.open(19, 0);
    assert_eq!(word(), 1 << PCI | 1 << 19);
    assert_eq!((m.close(port), m.close(edge)), (0, 0));
    assert_eq!(word(), 1 << PCI);
    m.0.finish();
}

#[test]
fn a_line_follows_its_vcpu() {
    let mut m = Machine::new(2);
    let port = m.open(ISA, 0);
    let (cpu, old) = ioapic::target(ISA).expect("a line");
    assert_eq!(cpu, CpuId(0));
    let dom0 = m.0.guests[0].domain.clone();
    let vcpu = dom0.vcpu(VcpuId(1)).expect("it has two");
    vcpu.status.cpu.store(1, Relaxed);
    assert_eq!(m.channel(EvtchnOp::BIND_VCPU, &EvtchnBindVcpu { port, vcpu: 1 }).0, 0);
    let pulse = || {
        pull(ISA, true);
        pull(ISA, false);
    };
    pulse();
    assert_eq!(m.take(0), 1, "the last one on the old CPU");
    let (cpu, new) = ioapic::target(ISA).expect("a line");
    assert_eq!(cpu, CpuId(1));
    // One that was on its way to the old vector still counts; the vector is free only when its CPU has looked.
    apic::send(CpuId(0), old);
    assert!(m.told(0, port));
    assert_eq!(m.take(0), 1);
    assert!(m.told(0, port));
    assert!(irq::vectors::of(CpuId(0)).lookup(old).is_some_and(|taken| taken.is_retired));
    arch::time::advance(5_000_000);
    irq::chores::run(CpuId(0), arch::time::now());
    assert_eq!(irq::vectors::of(CpuId(0)).lookup(old), None);
    pulse();
    assert_eq!((m.take(0), m.take(1)), (0, 1));
    assert!(m.told(0, port));
    // The scheduler moves the vCPU: the line follows when that has lasted for a few interrupts.
    vcpu.status.cpu.store(0, Relaxed);
    for _ in 0..10 {
        pulse();
        m.take(0);
        m.take(1);
    }
    assert_eq!(ioapic::target(ISA).map(|(cpu, _)| cpu), Some(CpuId(0)));
    assert!(irq::vectors::of(CpuId(1)).lookup(new).is_some_and(|taken| taken.is_retired));
    drop(dom0);
    m.0.finish();
}

#[test]
fn a_storm_is_contained() {
    let mut m = Machine::new(1);
    let port = m.open(ISA, 0);
    let mut sent = 0;
    while !ioapic::is_masked(ISA) {
        pull(ISA, true);
        pull(ISA, false);
        m.take(0);
        sent += 1;
        assert!(sent < 1000, "nobody takes notice, and it is not held back");
    }
    assert!(m.told(0, port));
    arch::time::advance(irq::storm::PERIOD_NS * 2);
    m.0.go_to(0);
    entry::take_interrupts();
    m.0.go_back();
    assert!(!ioapic::is_masked(ISA), "let through again");
    assert!(m.told(0, port), "what came meanwhile is made up for");
    arch::console::take_output();
    keys::press(b'i');
    for _ in 0..100 {
        keys::run();
        arch::time::advance(10_000_000);
    }
    let text = String::from_utf8(arch::console::take_output()).expect("text");
    assert!(text.contains("1 storms") && text.contains("d0 PIRQ 5"), "{text}");
    m.0.finish();
}

#[test]
fn a_vector_that_is_nobodys_is_ended() {
    let m = Machine::new(1);
    apic::send(CpuId(0), 0x99);
    assert_eq!(m.take(0), 1);
    assert!(!apic::in_service(0x99));
    m.0.finish();
}
