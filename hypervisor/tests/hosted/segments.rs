// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segments of the LDT, whose pages are mapped when the CPU first looks at them.

use std::sync::atomic::Ordering::Relaxed;

use arch::context;
use hypercalls::event::{EvtchnBindVirq, EvtchnOp};
use hypercalls::mmu::{MmuextCmd, MmuextOp};
use hypercalls::segment::SegmentBase;
use hypercalls::{DomId, HypercallNr, VcpuId, Virq};
use hypervisor::testing::guest::{self, DESCRIPTORS, args_of, va};
use mm::flags::{GUEST_KERNEL, P, US, entry_for};
use mm::hosted::poke;
use zerocopy::IntoBytes;

use crate::pair::Pair;

/// A data segment of user mode, present.
const DATA: u64 = 0x00cf_f200_0000_ffff;
/// The second descriptor of the LDT, for ring 3.
const SELECTOR: u16 = 1 << 3 | 4 | 3;

fn mmuext(w: &mut Pair, cmd: MmuextCmd, arg1: u64, arg2: u64) -> i64 {
    let at = va(args_of(VcpuId(0)));
    assert!(guest::write(at, MmuextOp { cmd, _pad: 0, arg1, arg2 }.as_bytes()));
    w.call(HypercallNr::MMUEXT_OP, [at, 1, 0, u64::from(DomId::SELF.0), 0])
}

/// The page of the LDT was dropped while the vCPU waited: loading its segments takes the locks of its page tables.
#[test]
fn a_vcpu_is_loaded_with_a_segment_of_an_ldt_that_is_not_mapped_yet() {
    let mut w = Pair::new();
    let vcpu = w.on(1);
    let frames = w.0.guests[1].p2m.clone();
    poke(frames[DESCRIPTORS[0]], 1, DATA);
    let read_only = entry_for(frames[DESCRIPTORS[0]], P | US | GUEST_KERNEL);
    assert_eq!(w.call(HypercallNr::UPDATE_VA_MAPPING, [va(DESCRIPTORS[0]), read_only, 2, 0, 0]), 0);
    assert_eq!(mmuext(&mut w, MmuextCmd::SET_LDT, va(DESCRIPTORS[0]), 2), 0);
    let gs = u64::from(SegmentBase::GS_USER_SEL.0);
    assert_eq!(w.call(HypercallNr::SET_SEGMENT_BASE, [gs, u64::from(SELECTOR), 0, 0, 0]), 0);
    assert_eq!((context::current_selectors()[3], vcpu.window.ldt_page(0)), (SELECTOR, Some(frames[DESCRIPTORS[0]])));
    // Another LDT, though its pages are the same: the selector stays.
    assert_eq!(mmuext(&mut w, MmuextCmd::SET_LDT, va(DESCRIPTORS[0]), 3), 0);
    assert_eq!(vcpu.window.ldt_page(0), None);
    let virq = EvtchnBindVirq { virq: Virq::DEBUG, ..EvtchnBindVirq::default() };
    assert_eq!(w.channel(EvtchnOp::BIND_VIRQ, &virq), 0);
    w.block();
    hypervisor::events::send_vcpu_virq(vcpu, Virq::DEBUG);
    assert!(core::ptr::eq(w.on(1), vcpu));
    assert_eq!((context::current_selectors()[3], vcpu.window.ldt_page(0)), (SELECTOR, Some(frames[DESCRIPTORS[0]])));
    assert!(!vcpu.failsafe_due.load(Relaxed));
    w.0.finish();
}
