// SPDX-License-Identifier: MIT OR Apache-2.0
//! Errors that the machine finds in itself: what becomes of them, and what the hardware domain learns.

use arch::machine_check as registers;
use arch::{CpuId, Regs, cpu, nmi};
use hypercalls::domctl_args::Bitmap;
use hypercalls::event::{EvtchnBindVirq, EvtchnOp};
use hypercalls::mca::*;
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr, Virq, trap};
use hypervisor::mca::{self, telemetry};
use hypervisor::nmi::Policy;
use hypervisor::testing::guest;
use hypervisor::{current, domain, events, snapshot};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;
use zerocopy::{Immutable, IntoBytes};

use super::platform::{Dom0, LIST, error};

const VALID: u64 = 1 << 63;
const UNCORRECTED: u64 = 1 << 61;
const ENABLED: u64 = 1 << 60;
const HAS_ADDRESS: u64 = 1 << 58;
const CORRUPT: u64 = 1 << 57;
const SIGNALLED: u64 = 1 << 56;
const ACTION: u64 = 1 << 55;
/// The interrupted code may go on, and is concerned.
const RESUMES: u64 = 7;

fn dom0() -> Dom0 {
    let dom0 = Dom0::new();
    for n in [1, 0] {
        cpu::set_this_cpu(CpuId(n));
        mca::init_cpu();
    }
    dom0
}

fn at() -> u64 {
    Dom0::at()
}

fn list() -> u64 {
    Dom0::at() + LIST
}

fn ask<T: IntoBytes + Immutable>(dom0: &mut Dom0, cmd: McaCmd, argument: &T) -> i64 {
    ask_with(dom0, cmd.0, XEN_MCA_INTERFACE_VERSION, argument)
}

fn ask_with<T: IntoBytes + Immutable>(dom0: &mut Dom0, cmd: u32, version: u32, argument: &T) -> i64 {
    assert!(guest::write(at(), [cmd, version].as_bytes()));
    assert!(guest::write(at() + 8, argument.as_bytes()));
    let result = dom0.0.call(HypercallNr::MCA, [at(), 0, 0, 0, 0]);
    dom0.0.check();
    result
}

/// Fetches a record; its number and what it holds.
fn fetch(dom0: &mut Dom0, class: u32) -> (u64, McInfo) {
    let argument = McFetch { flags: class, data: GuestPtr::new(list()), ..McFetch::default() };
    assert_eq!(ask(dom0, McaCmd::FETCH, &argument), 0);
    let answer: McFetch = dom0.answer();
    assert_eq!(answer.flags == XEN_MC_OK, answer.fetch_id != 0);
    (answer.fetch_id, Dom0::read(list()))
}

fn acknowledge(dom0: &mut Dom0, class: u32, id: u64) {
    let argument = McFetch { flags: class | XEN_MC_ACK, fetch_id: id, ..McFetch::default() };
    assert_eq!(ask(dom0, McaCmd::FETCH, &argument), 0);
}

/// Has a bank of this CPU hold an error.
fn fail(bank: u32, status: u64, address: u64) {
    registers::write(registers::status(bank), status);
    registers::write(registers::address(bank), address);
}

#[test]
fn who_may_ask() {
    let mut dom0 = dom0();
    let count = McPhysCpuInfo::default();
    assert_eq!(ask(&mut dom0, McaCmd::PHYSCPUINFO, &count), 0);
    assert_eq!(dom0.answer::<McPhysCpuInfo>().ncpus, 2);
    let version = XEN_MCA_INTERFACE_VERSION;
    assert_eq!(ask_with(&mut dom0, McaCmd::PHYSCPUINFO.0, version + 1, &count), error(Errno::EACCES));
    for wrong in [0, McaCmd::NOTIFYDOMAIN.0, 7, u32::MAX] {
        assert_eq!(ask_with(&mut dom0, wrong, version, &count), error(Errno::EINVAL));
    }
    assert_eq!(dom0.0.call(HypercallNr::MCA, [8, 0, 0, 0, 0]), error(Errno::EFAULT));
    dom0.0.go_to(1);
    assert_eq!(dom0.0.go_back().expect("a vCPU runs").domid, DomId(1));
    assert_eq!(ask(&mut dom0, McaCmd::PHYSCPUINFO, &count), error(Errno::EPERM));
    assert_eq!(dom0.0.call(HypercallNr::MCA, [8, 0, 0, 0, 0]), error(Errno::EPERM));
    dom0.0.finish();
}

#[test]
fn what_the_cpus_are() {
    let mut dom0 = dom0();
    let mut argument = McPhysCpuInfo { ncpus: 0, info: GuestPtr::new(list()), ..McPhysCpuInfo::default() };
    assert_eq!(ask(&mut dom0, McaCmd::PHYSCPUINFO, &argument), error(Errno::EINVAL));
    argument.ncpus = 100;
    assert_eq!(ask(&mut dom0, McaCmd::PHYSCPUINFO, &argument), 0);
    assert_eq!(dom0.answer::<McPhysCpuInfo>().ncpus, 2);
    for n in 0..2 {
        let info: McLogicalCpu = Dom0::read(list() + n * size_of::<McLogicalCpu>() as u64);
        assert_eq!((info.cpunr, info.apicid, info.vendor), (n as u32, n as u32, 1));
        assert_eq!(&info.vendorid, b"GenuineIntel\0\0\0\0");
        assert_eq!((info.family, info.cache_alignment, info.cpuid_level), (6, 64, 0xd));
        assert_eq!(info.nmsrvals, 1);
        let value = registers::get(CpuId(n as u16), registers::CAPABILITIES);
        assert_eq!(info.msrvalues[0], McMsr { reg: 0x179, value });
    }
    argument.info = GuestPtr::new(8);
    assert_eq!(ask(&mut dom0, McaCmd::PHYSCPUINFO, &argument), error(Errno::EFAULT));
    dom0.0.finish();
}

#[test]
fn corrected_errors_are_found_by_a_cpu_that_is_awake() {
    let mut dom0 = dom0();
    assert_eq!(fetch(&mut dom0, XEN_MC_NONURGENT).0, 0);
    let virq = EvtchnBindVirq { virq: Virq::MCA, ..EvtchnBindVirq::default() };
    assert!(guest::write(list(), virq.as_bytes()));
    let bind = [EvtchnOp::BIND_VIRQ.0.into(), list(), 0, 0, 0];
    assert_eq!(dom0.0.call(HypercallNr::EVENT_CHANNEL_OP, bind), 0);
    let port = Dom0::read::<EvtchnBindVirq>(list()).port;
    fail(3, VALID | ENABLED | HAS_ADDRESS | 0x9f, 0x1234_5678);
    mca::look(CpuId(0), arch::time::now());
    dom0.0.go_back();
    let domain = domain::hardware().expect("dom0 is there");
    assert!(events::is_pending(&domain, port), "dom0 is told");
    drop(domain);
    assert_eq!(registers::read(registers::status(3)), 0, "the bank is free for the next error");
    assert_eq!(fetch(&mut dom0, XEN_MC_URGENT).0, 0);
    let (id, info) = fetch(&mut dom0, XEN_MC_NONURGENT);
    assert_eq!((info.nentries, info.flags), (2, 0));
    let entry = |at: u64| Dom0::read::<McCommon>(list() + 8 + at);
    assert_eq!((entry(0).kind, entry(0).size), (McKind::GLOBAL, 32));
    assert_eq!((entry(32).kind, entry(32).size), (McKind::BANK, 48));
    let global: McGlobal = Dom0::read(list() + 8);
    assert_eq!((global.domid, global.vcpuid, global.apicid), (DomId(0), 0, 0));
    assert_eq!(global.flags, MC_FLAG_POLLED | MC_FLAG_CORRECTABLE);
    let bank: McBank = Dom0::read(list() + 40);
    assert_eq!((bank.bank, bank.domid, bank.addr, bank.misc), (3, DomId::INVALID, 0x1234_5678, 0));
    // It stays until it is acknowledged, by its number.
    acknowledge(&mut dom0, XEN_MC_NONURGENT, id + 1);
    acknowledge(&mut dom0, XEN_MC_URGENT, id);
    assert_eq!(fetch(&mut dom0, XEN_MC_NONURGENT), (id, info));
    acknowledge(&mut dom0, XEN_MC_NONURGENT, id);
    assert_eq!(fetch(&mut dom0, XEN_MC_NONURGENT).0, 0);
    // Not again before its time.
    fail(3, VALID, 0);
    mca::look(CpuId(0), arch::time::now());
    assert_eq!(fetch(&mut dom0, XEN_MC_NONURGENT).0, 0);
    mca::look(CpuId(0), arch::time::now() + 8_000_000_000);
    assert_ne!(fetch(&mut dom0, XEN_MC_NONURGENT).0, 0);
    dom0.0.finish();
}

#[test]
fn a_bad_place_for_a_record() {
    let mut dom0 = dom0();
    fail(0, VALID, 0);
    mca::look(CpuId(0), arch::time::now());
    let nowhere = McFetch { flags: XEN_MC_NONURGENT, ..McFetch::default() };
    assert_eq!(ask(&mut dom0, McaCmd::FETCH, &nowhere), error(Errno::EINVAL));
    for class in [0, XEN_MC_NONURGENT | XEN_MC_URGENT, XEN_MC_ACK] {
        assert_eq!(ask(&mut dom0, McaCmd::FETCH, &McFetch { flags: class, ..nowhere }), error(Errno::EINVAL));
    }
    let bad = McFetch { data: GuestPtr::new(8), ..nowhere };
    assert_eq!(ask(&mut dom0, McaCmd::FETCH, &bad), error(Errno::EFAULT));
    assert_eq!(dom0.answer::<McFetch>().flags, XEN_MC_FETCHFAILED);
    assert_ne!(fetch(&mut dom0, XEN_MC_NONURGENT).0, 0, "it is not lost");
    dom0.0.finish();
}

#[test]
fn records_are_not_kept_without_bound() {
    let mut dom0 = dom0();
    for n in 0..100 {
        (0..10).for_each(|bank| fail(bank, VALID | n, 0));
        mca::look(CpuId(0), arch::time::now() + n * 10_000_000_000);
    }
    let mut kept = 0;
    while let Some((id, record)) = telemetry::fetch(false) {
        let statuses: Vec<u64> = record.banks().map(|bank| bank.status & !VALID).collect();
        assert_eq!(statuses, [kept; 10], "the oldest are kept, in order");
        acknowledge(&mut dom0, XEN_MC_NONURGENT, id);
        kept += 1;
    }
    assert_eq!(kept, 20);
    dom0.0.finish();
}

#[test]
fn feigned_errors() {
    let mut dom0 = dom0();
    let mut inject = McMsrInject { flags: MC_MSRINJ_F_INTERPOSE, count: 3, domid: DomId(77), ..McMsrInject::default() };
    inject.msr[0] = McMsr { reg: registers::status(2).into(), value: VALID | HAS_ADDRESS | 0x136 };
    inject.msr[1] = McMsr { reg: registers::address(2).into(), value: 0x4000 };
    inject.msr[2] = McMsr { reg: registers::STATUS.into(), value: 5 };
    let mut ask = |argument: &McMsrInject| ask(&mut dom0, McaCmd::MSRINJECT, argument);
    let invalid = error(Errno::EINVAL);
    assert_eq!(ask(&McMsrInject { cpunr: 2, ..inject }), invalid);
    assert_eq!(ask(&McMsrInject { count: 9, ..inject }), invalid);
    assert_eq!(ask(&McMsrInject { count: 0, flags: 0, ..inject }), 0);
    assert_eq!(ask(&McMsrInject { flags: 0, ..inject }), invalid, "registers cannot be written");
    assert_eq!(ask(&McMsrInject { flags: 3, ..inject }), invalid, "there is no domain 77");
    let mut wrong = inject;
    for register in [0, registers::CAPABILITIES, registers::CONTROL, registers::control(2), registers::status(10)] {
        wrong.msr[1].reg = register.into();
        assert_eq!(ask(&wrong), invalid, "{register:#x}");
    }
    assert_eq!(ask(&inject), 0);
    assert_eq!(self::ask(&mut dom0, McaCmd::MCEINJECT, &McMceInject { cpunr: 2 }), invalid);
    assert_eq!(self::ask(&mut dom0, McaCmd::MCEINJECT, &McMceInject { cpunr: 0 }), 0);
    assert!(dom0.0.go_back().is_some());
    let (id, info) = fetch(&mut dom0, XEN_MC_URGENT);
    assert_eq!(info.nentries, 2);
    let (global, bank): (McGlobal, McBank) = (Dom0::read(list() + 8), Dom0::read(list() + 40));
    assert_eq!((global.gstatus, global.flags), (5, MC_FLAG_MCE | MC_FLAG_CORRECTABLE));
    assert_eq!((bank.bank, bank.addr), (2, 0x4000));
    acknowledge(&mut dom0, XEN_MC_URGENT, id);
    // Once only: the values are gone.
    mca::look(CpuId(0), arch::time::now() + 10_000_000_000);
    assert_eq!((fetch(&mut dom0, XEN_MC_URGENT).0, fetch(&mut dom0, XEN_MC_NONURGENT).0), (0, 0));
    let everywhere =
        McInjectV2 { flags: XEN_MC_INJECT_CPU_BROADCAST | XEN_MC_INJECT_TYPE_CMCI, ..McInjectV2::default() };
    assert_eq!(self::ask(&mut dom0, McaCmd::INJECT_V2, &everywhere), invalid);
    assert!(guest::write(list(), &[0xf0]));
    let cpumap = Bitmap { bitmap: GuestPtr::new(list()), nr_bits: 8, _pad: 0 };
    let nowhere = McInjectV2 { cpumap, ..McInjectV2::default() };
    assert_eq!(self::ask(&mut dom0, McaCmd::INJECT_V2, &nowhere), invalid, "no such CPUs");
    dom0.0.finish();
}

/// What is left of the machine after an exception.
fn exception(in_guest: bool) -> Result<(), ()> {
    let vcpu = current::vcpu().expect("a vCPU runs");
    catch_unwind(AssertUnwindSafe(|| {
        if in_guest {
            mca::in_guest(vcpu, &Regs::default());
        } else {
            mca::in_hypervisor(&Regs::default());
        }
    }))
    .map_err(|_| ())
}

#[test]
fn exceptions() {
    let unused = VALID | UNCORRECTED | SIGNALLED | 0xcf;
    let required = unused | ACTION;
    // Whether the machine goes on, and with it the domain, in guest and in hypervisor code.
    for (status, global, [guest, hypervisor], lives) in [
        (unused, RESUMES, [true, true], true),
        (required, RESUMES, [true, false], false),
        (required | CORRUPT, RESUMES, [false, false], true),
        (unused, 6, [true, false], false),
        (unused, 4, [false, false], true),
    ] {
        for (in_guest, goes_on) in [(true, guest), (false, hypervisor)] {
            let mut dom0 = dom0();
            dom0.0.go_to(1);
            let domain = dom0.0.go_back().expect("a vCPU runs").domain();
            registers::write(registers::STATUS, global);
            fail(1, status, 0);
            let result = exception(in_guest);
            assert_eq!(result.is_ok(), goes_on, "{status:x} {global} {in_guest}");
            if goes_on {
                assert_eq!(registers::read(registers::STATUS), 0);
                assert_eq!(registers::read(registers::status(1)), 0);
                assert_eq!(domain.paused(), in_guest && !lives);
                let (_, record) = telemetry::fetch(true).expect("an urgent record");
                assert_eq!(record.global().flags & MC_FLAG_MCE, MC_FLAG_MCE);
            } else {
                assert_eq!(registers::read(registers::status(1)), status, "to be found after the reset");
            }
            drop(dom0);
        }
    }
}

#[test]
fn nmis_of_the_machine() {
    const REASON: usize = hypercalls::shared_info::shared_offset::NMI_REASON;
    let (serr, iochk, unknown) = (trap::NMIREASON_PCI_SERR, trap::NMIREASON_IO_ERROR, trap::NMIREASON_UNKNOWN);
    for (policy, raised, told) in [
        (Policy::Dom0, nmi::SERR, serr),
        (Policy::Dom0, nmi::SERR | nmi::IOCHK, serr | iochk),
        (Policy::Dom0, 0, unknown),
        (Policy::Ignore, nmi::SERR, 0),
    ] {
        let mut dom0 = dom0();
        hypervisor::nmi::set_policy(policy);
        nmi::give(raised);
        dom0.0.exception(2, 0);
        assert_eq!(nmi::reasons(), 0, "taken back");
        dom0.0.go_back();
        let domain = domain::hardware().expect("dom0 is there");
        assert_eq!(domain.shared_info().u64(REASON).load(SeqCst), told);
        assert!(!domain.paused());
        drop(domain);
        dom0.0.finish();
    }
    // One that was sent for another reason comes with it, or alone.
    for (raised, told) in [(nmi::IOCHK, iochk), (0, 0)] {
        let mut dom0 = dom0();
        hypervisor::nmi::set_policy(Policy::Dom0);
        nmi::give(raised);
        snapshot::ask(CpuId(0));
        dom0.0.exception(2, 0);
        assert!(snapshot::take(CpuId(0)).is_some());
        dom0.0.go_back();
        let domain = domain::hardware().expect("dom0 is there");
        assert_eq!(domain.shared_info().u64(REASON).load(SeqCst), told);
        drop(domain);
        dom0.0.finish();
    }
    let mut dom0 = dom0();
    hypervisor::nmi::set_policy(Policy::Fatal);
    let ends = catch_unwind(AssertUnwindSafe(|| dom0.0.exception(2, 0))).is_err();
    hypervisor::nmi::set_policy(Policy::Dom0);
    assert!(ends);
}
