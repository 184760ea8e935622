// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table, its edges, and that nothing but the table gets through.

use super::super::cpuid::{Config, Leaf};
use super::super::std::vec::Vec;
use super::super::testing::Rng;
use super::*;

fn host(vendor: [u32; 3], bits: u32) -> impl Fn(u32, u32) -> Leaf {
    move |leaf, _| match leaf {
        0 => [0xd, vendor[0], vendor[1], vendor[2]],
        0x8000_0000 => [0x8000_0021, 0, 0, 0],
        _ => [bits; 4],
    }
}

const INTEL: [u32; 3] = [0x756e_6547, 0x6c65_746e, 0x4965_6e69];
const AMD: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];
const OTHER: [u32; 3] = [1, 2, 3];

fn policy(vendor: [u32; 3], bits: u32, offered: bool) -> Policy {
    let config = Config {
        hardware_domain: offered,
        maddr_width: 40,
        xcr0: 7,
        ibpb: offered,
        spec_ctrl: offered,
        breakpoint_masks: offered,
        arch_caps: offered.then_some(0x55),
        invariant_tsc: offered,
    };
    Policy::new(host(vendor, bits), &config)
}

const FULL: HostMsrs = HostMsrs {
    efer: u64::MAX,
    misc_enable: Some(0x0085_0089),
    platform_id: Some(7),
    microcode: Some(0x1234_0000_0000),
    cpuid_faulting: true,
    lfence_serialises: true,
};

fn view<'a>(policy: &'a Policy, host: &'a HostMsrs) -> MsrView<'a> {
    MsrView {
        policy,
        host,
        boot_vcpu: true,
        tsc_aux: 9,
        spec_ctrl: 1,
        cpuid_faulting: false,
        breakpoint_masks: [10, 11, 12, 13],
    }
}

/// Every register that any guest can read or write anything of, written down a second time.
const LISTED: &[(u32, u32)] = &[
    (0x0, 0x1),
    (0x10, 0x10),
    (0x17, 0x17),
    (0x1b, 0x1b),
    (0x3a, 0x3a),
    (0x48, 0x49),
    (0x8b, 0x8b),
    (0xc1, 0xc8),
    (0xce, 0xce),
    (0xe7, 0xe8),
    (0x10a, 0x10a),
    (0x140, 0x140),
    (0x179, 0x17b),
    (0x186, 0x189),
    (0x198, 0x19a),
    (0x19c, 0x19c),
    (0x1a0, 0x1a0),
    (0x1b0, 0x1b0),
    (0x277, 0x277),
    (0x280, 0x29f),
    (0x309, 0x30b),
    (0x345, 0x345),
    (0x38d, 0x390),
    (0x400, 0x47f),
    (0x4000_0000, 0x4000_0000),
    (0xc000_0080, 0xc000_0080),
    (0xc000_0100, 0xc000_0103),
    (0xc001_0000, 0xc001_0007),
    (0xc001_0015, 0xc001_0015),
    (0xc001_001f, 0xc001_001f),
    (0xc001_0041, 0xc001_0042),
    (0xc001_0058, 0xc001_0058),
    (0xc001_0061, 0xc001_006b),
    (0xc001_0200, 0xc001_020b),
    (0xc001_1019, 0xc001_101b),
    (0xc001_1027, 0xc001_1027),
    (0xc001_1029, 0xc001_1029),
];

fn listed(index: u32) -> bool {
    LISTED.iter().any(|&(first, last)| (first..=last).contains(&index))
}

fn all_policies() -> Vec<Policy> {
    let mut all = Vec::new();
    for vendor in [INTEL, AMD, OTHER] {
        for (bits, offered) in [(0, false), (u32::MAX, false), (u32::MAX, true)] {
            all.push(policy(vendor, bits, offered));
        }
    }
    all
}

fn assert_fault(index: u32, value: u64, view: &MsrView<'_>) {
    assert_eq!(read(index, view), Read::Fault, "{index:#x}");
    assert_eq!(write(index, value, view), Write::Fault, "{index:#x} {value:#x}");
}

/// The upper half of the number is looked at first, so the four inhabited blocks are tried number by number, and of
/// each other block its edges, the image of every listed number and some by chance.
#[test]
fn nothing_unlisted_gets_through() {
    let mut rng = Rng::new();
    let values = [0, 1, u64::MAX, PAT, 0x1000];
    for policy in all_policies() {
        for host in [HostMsrs::default(), FULL] {
            let view = view(&policy, &host);
            for block in [0, 0x4000, 0xc000, 0xc001] {
                for index in block << 16..=block << 16 | 0xffff {
                    if !listed(index) {
                        assert_fault(index, values[index as usize % values.len()], &view);
                    }
                }
            }
            for block in (0..=0xffffu32).filter(|b| ![0, 0x4000, 0xc000, 0xc001].contains(b)) {
                for low in [0, 0xffff, LISTED[block as usize % LISTED.len()].0 & 0xffff, rng.next() as u32 & 0xffff] {
                    assert_fault(block << 16 | low, values[low as usize % values.len()], &view);
                }
            }
        }
    }
}

/// Every number there is. Takes minutes without optimisation.
#[test]
#[ignore = "slow"]
fn nothing_unlisted_gets_through_in_the_whole_space() {
    for policy in [policy(INTEL, u32::MAX, true), policy(AMD, u32::MAX, true)] {
        let view = view(&policy, &FULL);
        for index in 0..=u32::MAX {
            if read(index, &view) != Read::Fault || write(index, 0, &view) != Write::Fault {
                assert!(listed(index), "{index:#x}");
            }
        }
    }
}

#[test]
fn only_four_registers_are_read_live() {
    for policy in all_policies() {
        let view = view(&policy, &FULL);
        for &(first, last) in LISTED {
            for index in first..=last {
                let live = match index {
                    0x10 => Some(Live::Tsc),
                    0xc000_0100 => Some(Live::FsBase),
                    0xc000_0101 => Some(Live::GsBase),
                    0xc000_0102 => Some(Live::UserGsBase),
                    _ => None,
                };
                match read(index, &view) {
                    Read::Live(which) => assert_eq!(Some(which), live),
                    _ => assert_eq!(live, None),
                }
            }
        }
    }
}

#[test]
fn bases_must_be_canonical() {
    let policy = policy(AMD, 0, false);
    let view = view(&policy, &FULL);
    let good = [0, 1, (1 << 47) - 1, 0xffff_8000_0000_0000, u64::MAX];
    let bad = [1 << 47, (1 << 48) - 1, 0xffff_7fff_ffff_ffff, 1 << 63];
    for value in good {
        assert_eq!(write(0xc000_0100, value, &view), Write::FsBase(value));
        assert_eq!(write(0xc000_0101, value, &view), Write::GsBase(value));
        assert_eq!(write(0xc000_0102, value, &view), Write::UserGsBase(value));
    }
    for value in bad {
        for index in 0xc000_0100..=0xc000_0102 {
            assert_eq!(write(index, value, &view), Write::Fault);
        }
    }
}

#[test]
fn fixed_values() {
    let policy = policy(INTEL, u32::MAX, true);
    let mut view = view(&policy, &FULL);
    assert_eq!(read(0x277, &view), Read::Value(0x0501_0007_0406));
    assert_eq!(write(0x277, PAT, &view), Write::Ignore);
    assert_eq!(write(0x277, 0x0007_0406_0007_0406, &view), Write::Fault);
    assert_eq!(read(0x1b, &view), Read::Value(0xfee0_0900));
    assert_eq!(write(0x1b, 0xfee0_0900, &view), Write::Fault);
    view.boot_vcpu = false;
    assert_eq!(read(0x1b, &view), Read::Value(0xfee0_0800));
    // SVME and everything unknown is hidden; the value may be written back.
    assert_eq!(read(0xc000_0080, &view), Read::Value(0x4d01));
    assert_eq!(write(0xc000_0080, 0x4d01, &view), Write::Ignore);
    assert_eq!(write(0xc000_0080, 0x4d00, &view), Write::Fault);
    assert_eq!(read(0x1a0, &view), Read::Value(0x0085_0089 & !(1 << 7 | 1 << 18) | 1 << 11 | 1 << 12 | 1 << 23));
    assert_eq!(read(0x179, &view), Read::Value(1 << 24 | 1 << 11 | 2));
    assert_eq!(read(0x400, &view), Read::Value(u64::MAX));
    assert_eq!(read(0x408, &view), Read::Value(0));
    assert_eq!(write(0x401, 1, &view), Write::Fault);
    assert_eq!(read(0x10a, &view), Read::Value(0x55));
    assert_eq!(write(0x10a, 0x55, &view), Write::Fault);
    assert_eq!(write(0x4000_0000, 0x5000, &view), Write::HypercallPage(5));
    assert_eq!(write(0x4000_0000, 0x5001, &view), Write::Fault);
    assert_eq!(write(0x10, 0, &view), Write::Fault);
    // System call entry points and extended state are never a guest's.
    for index in [0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0x174, 0x175, 0x176, 0xda0, 0x808, 0x6a2, 0x79] {
        assert_fault(index, 0, &view);
    }
}

#[test]
fn speculation_registers_follow_the_policy() {
    for (vendor, bits) in [(INTEL, 0b1000_0111), (AMD, 0b1000_0111)] {
        let (off, on) = (policy(vendor, u32::MAX, false), policy(vendor, u32::MAX, true));
        let (off, on) = (view(&off, &FULL), view(&on, &FULL));
        assert_fault(0x48, 0, &off);
        assert_fault(0x49, 1, &off);
        assert_eq!(read(0x48, &on), Read::Value(1));
        for bit in 0..64 {
            let value = 1u64 << bit;
            let wanted = if value & bits != 0 { Write::SpecCtrl(value) } else { Write::Fault };
            assert_eq!(write(0x48, value, &on), wanted, "bit {bit}");
        }
        assert_eq!(read(0x49, &on), Read::Fault);
        assert_eq!(write(0x49, 1, &on), Write::PredictorBarrier);
        assert_eq!(write(0x49, 0, &on), Write::Ignore);
        assert_eq!(write(0x49, 2, &on), Write::Fault);
        assert_fault(0x10b, 1, &on);
    }
}

#[test]
fn registers_of_one_vendor() {
    let (intel, amd) = (policy(INTEL, u32::MAX, true), policy(AMD, u32::MAX, true));
    let (intel, amd) = (view(&intel, &FULL), view(&amd, &FULL));
    assert_eq!(read(0xc001_0015, &amd), Read::Value(0));
    assert_eq!(write(0xc001_0015, 0x10, &amd), Write::Ignore);
    assert_fault(0xc001_0015, 0, &intel);
    assert_eq!(read(0xc001_101b, &amd), Read::Value(13));
    assert_eq!(write(0xc001_1027, 0xffff_ffff, &amd), Write::BreakpointMask(0, u32::MAX));
    assert_eq!(write(0xc001_1027, 1 << 32, &amd), Write::Fault);
    assert_eq!(read(0x198, &intel), Read::Value(0));
    assert_eq!(read(0x198, &amd), Read::Fault);
    assert_eq!(read(0x8b, &amd), Read::Value(0x1234_0000_0000));
    assert_eq!(write(0x8b, 0, &intel), Write::Ignore);
    assert_eq!(write(0x8b, 0, &amd), Write::Fault);
}

#[test]
fn small_registers() {
    let policy = policy(INTEL, u32::MAX, true);
    let full = view(&policy, &FULL);
    assert_eq!(read(0xc000_0103, &full), Read::Value(9));
    assert_eq!(write(0xc000_0103, 7, &full), Write::TscAux(7));
    assert_eq!(write(0xc000_0103, 1 << 32, &full), Write::Fault);
    assert_eq!(write(0x140, 1, &full), Write::CpuidFaulting(true));
    assert_eq!(write(0x140, 2, &full), Write::Fault);
    let none = HostMsrs::default();
    let plain = view(&policy, &none);
    assert_eq!(write(0x140, 1, &plain), Write::Fault);
    assert_eq!(write(0x140, 0, &plain), Write::CpuidFaulting(false));
    assert_eq!(read(0xce, &plain), Read::Value(0));
    for missing in [0x17, 0x8b, 0x1a0] {
        assert_eq!(read(missing, &plain), Read::Fault);
    }
}
