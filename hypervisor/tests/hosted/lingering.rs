// SPDX-License-Identifier: MIT OR Apache-2.0
//! An idle CPU lingers in the address space of the vCPU it ran last, and leaves when it must.

use std::sync::atomic::Ordering::SeqCst;

use arch::{CpuId, CpuMask, Flush, context, tlb};
use hypercalls::shared_info::vcpu_offset;
use hypercalls::{GuestPtr, GuestVa, Mfn, VcpuId};
use hypervisor::testing::guest::{self, args_of, va};
use hypervisor::vcpu::Vcpu;
use hypervisor::{lingering, mmu, schedule};

use crate::pair::Pair;

/// Domain 1's vCPU has used a page and waits; CPU 1, on which it ran, idles.
fn waiting() -> (Pair, &'static Vcpu) {
    let mut w = Pair::new();
    let vcpu = w.on(1);
    assert!(guest::write(va(40), &[1]));
    w.block();
    assert!(context::lingers() && arch::guest::root() == vcpu.kernel_mfn());
    w.0.check();
    (w, vcpu)
}

fn wake(w: &mut Pair, vcpu: &Vcpu) {
    let pending = || vcpu.vcpu_info().u8(vcpu_offset::EVTCHN_UPCALL_PENDING);
    pending().store(1, SeqCst);
    schedule::kick(vcpu);
    assert!(core::ptr::eq(w.on(1), vcpu));
    pending().store(0, SeqCst);
    w.0.check();
}

fn cached_on_1() -> usize {
    tlb::cached().iter().filter(|(cpu, ..)| *cpu == CpuId(1)).count()
}

#[test]
fn a_vcpu_finds_its_translations_where_it_waited() {
    let (mut w, vcpu) = waiting();
    let (flushes, cached) = (tlb::full_flushes(), cached_on_1());
    assert!(cached > 0);
    wake(&mut w, vcpu);
    assert_eq!((tlb::full_flushes(), cached_on_1() >= cached), (flushes, true));
    w.0.finish();
}

#[test]
fn a_flush_that_the_guest_wants_is_made_when_the_vcpu_runs() {
    let (mut w, vcpu) = waiting();
    w.on(0);
    let bitmap = va(args_of(VcpuId(0)));
    assert!(guest::write(bitmap, &1u64.to_le_bytes()));
    let flushes = tlb::full_flushes();
    let cpus = mmu::cpus_of(vcpu.domain(), GuestPtr::new(bitmap)).expect("the bitmap can be read");
    assert!(cpus.is_empty(), "the CPU that idles is left alone");
    assert!(cached_on_1() > 0);
    w.0.go_to(1);
    wake(&mut w, vcpu);
    assert_eq!(tlb::full_flushes(), flushes + 1);
    // Once is enough.
    w.block();
    wake(&mut w, vcpu);
    assert_eq!(tlb::full_flushes(), flushes + 1);
    w.0.finish();
}

#[test]
fn a_cpu_that_is_to_flush_leaves() {
    for page_only in [false, true] {
        let (mut w, vcpu) = waiting();
        w.0.go_to(0);
        let what = if page_only { Flush::Page(GuestVa(va(41))) } else { Flush::All };
        tlb::flush(&vcpu.domain().account.dirty.load(), what);
        w.0.go_to(1);
        assert!(!context::lingers() && arch::guest::root() == Mfn::INVALID && cached_on_1() == 0);
        wake(&mut w, vcpu);
        w.0.finish();
    }
}

#[test]
fn a_cpu_that_has_left_is_not_flushed_again() {
    let (mut w, vcpu) = waiting();
    lingering::evict(vcpu);
    assert!(!context::lingers());
    assert!(w.0.go_back().is_none(), "it still waits");
    assert!(!vcpu.domain().account.dirty.load().contains(CpuId(1)));
    // Nobody is to be asked twice.
    let flushes = tlb::full_flushes();
    lingering::evict(vcpu);
    assert_eq!(tlb::full_flushes(), flushes);
    tlb::flush(&CpuMask::of(CpuId(0)), Flush::All);
    wake(&mut w, vcpu);
    w.0.finish();
}
