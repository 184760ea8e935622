// SPDX-License-Identifier: MIT OR Apache-2.0
//! What guests are shown of the processor, for any processor: CPUID, MSRs, control and debug registers, descriptors.

use hypercalls::domctl_args::TscInfo;
use hypercalls::{GuestVa, Mfn};
use hypervisor::emulate::cpuid::{Config, Dynamic, Policy};
use hypervisor::emulate::crdr::{self, CrView, DebugRegs};
use hypervisor::emulate::decode::Cr;
use hypervisor::emulate::descriptor::SegmentDesc;
use hypervisor::emulate::msr::{self, HostMsrs, MsrView};
use hypervisor::tsc::Tsc;
use mm::hosted::Source;
use std::cell::RefCell;

/// Some leaves of the host's CPUID that decide much, from the bytes; then questions of a guest's.
pub fn run(bytes: &[u8]) {
    let source = RefCell::new(Source::Bytes(bytes));
    let word = || source.borrow_mut().edge();
    let below = |limit| source.borrow_mut().below(limit);
    let flag = || below(2) == 1;
    let some = |value: u64| (value & 1 == 0).then_some(value >> 1);
    let config = Config {
        hardware_domain: flag(),
        maddr_width: 36 + below(17) as u8,
        xcr0: word(),
        ibpb: flag(),
        spec_ctrl: flag(),
        breakpoint_masks: flag(),
        arch_caps: some(word()),
        invariant_tsc: flag(),
    };
    let host = |_: u32, _: u32| [word() as u32, word() as u32, word() as u32, word() as u32];
    let policy = Policy::new(host, &config);
    let host = HostMsrs { efer: word(), misc_enable: some(word()), ..HostMsrs::default() };
    let host_cr4 = word();
    let mut cr4 = crdr::guest_cr4(0, &policy, host_cr4);
    let mut debug = DebugRegs::default();
    let tsc = Tsc::native();
    while !source.borrow().is_empty() {
        let dynamic = Dynamic { kernel_mode: flag(), forced: flag(), cr4, xcr0: word() };
        let _ = policy.lookup(word() as u32, word() as u32, &dynamic);
        let view = MsrView {
            policy: &policy,
            host: &host,
            boot_vcpu: flag(),
            tsc_aux: word() as u32,
            spec_ctrl: word(),
            cpuid_faulting: flag(),
            breakpoint_masks: [word() as u32; 4],
        };
        let (index, value) = (word() as u32, word());
        let _ = (msr::read(index, &view), msr::write(index, value, &view));
        let view = CrView {
            policy: &policy,
            host_cr0: word(),
            host_cr4,
            task_switched: flag(),
            cr2: word(),
            kernel_base: Mfn(word() >> 12),
            cr4,
        };
        for cr in [Cr::Cr0, Cr::Cr2, Cr::Cr3, Cr::Cr4, Cr::Cr8] {
            let _ = (crdr::read_cr(cr, &view), crdr::write_cr(cr, word(), &view));
        }
        cr4 = crdr::guest_cr4(word(), &policy, host_cr4);
        assert_eq!(cr4 & !(host_cr4 | 0x5_000c), 0, "guests choose TSD, DE, FSGSBASE and OSXSAVE");
        counter(&tsc, &policy, &word);
        debug_registers(&mut debug, cr4, &word);
        if let Some(descriptor) = SegmentDesc::parse(word()) {
            let _ = descriptor.linear(word(), word() as u32);
        }
    }
}

/// Whatever tools set, a counter can be read and told of, and a mode that there is not changes nothing.
fn counter(tsc: &Tsc, policy: &Policy, word: &impl Fn() -> u64) {
    let record = TscInfo {
        tsc_mode: word() as u32 % 4,
        gtsc_khz: word() as u32,
        incarnation: word() as u32,
        elapsed_nsec: word(),
        ..TscInfo::default()
    };
    let before = tsc.told();
    if tsc.set(&record).is_err() {
        assert_eq!(tsc.told(), before, "a mode that is refused changes nothing");
    }
    let _ = (tsc.read(), tsc.moment(), tsc.record(), policy.time_leaf(&tsc.told(), word() as u32 % 4));
}

/// Whatever a guest sets, no breakpoint reaches the hypervisor.
fn debug_registers(debug: &mut DebugRegs, cr4: u64, word: &impl Fn() -> u64) {
    let _ = debug.write(word() % 16, word(), cr4);
    let _ = debug.read(word() % 16, cr4);
    let loaded = debug.loaded();
    for (n, address) in loaded[..4].iter().enumerate() {
        let enabled = loaded[7] >> (2 * n) & 3 != 0;
        assert!(!enabled || GuestVa(*address).range_ok(0), "breakpoint {n} at {address:#x}");
    }
    let _ = debug.port_hits(word() as u16, 1 << (word() % 3), cr4);
}
