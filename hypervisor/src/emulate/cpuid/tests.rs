// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of the policy, on leaves recorded from QEMU 7.2 (`-cpu max`, `-cpu qemu64`) and on made-up hosts.

use super::*;

type Recorded = &'static [(u32, u32, Leaf)];

#[rustfmt::skip]
const MAX: Recorded = &[
    (0x0, 0, [0x0000000d, 0x68747541, 0x444d4163, 0x69746e65]),
    (0x1, 0, [0x00060fb1, 0x00000800, 0xf6d8320b, 0x0fcbfbfd]),
    (0x5, 0, [0x00000000, 0x00000000, 0x00000003, 0x00000000]),
    (0x6, 0, [0x00000004, 0x00000000, 0x00000000, 0x00000000]),
    (0x7, 0, [0x00000000, 0x01d843a9, 0x8001020c, 0x00000000]),
    (0xb, 0, [0x00000000, 0x00000001, 0x00000100, 0x00000000]),
    (0xb, 1, [0x00000000, 0x00000001, 0x00000201, 0x00000000]),
    (0xb, 2, [0x00000000, 0x00000000, 0x00000002, 0x00000000]),
    (0xd, 0, [0x0000021f, 0x00000240, 0x00000a88, 0x00000000]),
    (0xd, 1, [0x00000005, 0x000003c8, 0x00000000, 0x00000000]),
    (0xd, 2, [0x00000100, 0x00000240, 0x00000000, 0x00000000]),
    (0xd, 3, [0x00000040, 0x000003c0, 0x00000000, 0x00000000]),
    (0xd, 4, [0x00000040, 0x00000400, 0x00000000, 0x00000000]),
    (0xd, 9, [0x00000008, 0x00000a80, 0x00000000, 0x00000000]),
    (0x80000000, 0, [0x8000000a, 0x68747541, 0x444d4163, 0x69746e65]),
    (0x80000001, 0, [0x00060fb1, 0x00000000, 0x00000075, 0xedd3fbfd]),
    (0x80000002, 0, [0x554d4551, 0x47435420, 0x55504320, 0x72657620]),
    (0x80000003, 0, [0x6e6f6973, 0x352e3220, 0x0000002b, 0x00000000]),
    (0x80000005, 0, [0x01ff01ff, 0x01ff01ff, 0x40020140, 0x40020140]),
    (0x80000006, 0, [0x00000000, 0x42004200, 0x02008140, 0x00808140]),
    (0x80000008, 0, [0x00003928, 0x00000000, 0x00000000, 0x00000000]),
    (0x8000000a, 0, [0x00000001, 0x00000010, 0x00000000, 0x10010001]),
];

#[rustfmt::skip]
const QEMU64: Recorded = &[
    (0x0, 0, [0x0000000d, 0x68747541, 0x444d4163, 0x69746e65]),
    (0x1, 0, [0x00060fb1, 0x00000800, 0x80002001, 0x078bfbfd]),
    (0x5, 0, [0x00000000, 0x00000000, 0x00000003, 0x00000000]),
    (0xb, 0, [0x00000000, 0x00000001, 0x00000100, 0x00000000]),
    (0xb, 1, [0x00000000, 0x00000001, 0x00000201, 0x00000000]),
    (0xb, 2, [0x00000000, 0x00000000, 0x00000002, 0x00000000]),
    (0x80000000, 0, [0x8000000a, 0x68747541, 0x444d4163, 0x69746e65]),
    (0x80000001, 0, [0x00060fb1, 0x00000000, 0x00000005, 0x2193fbfd]),
    (0x80000002, 0, [0x554d4551, 0x72695620, 0x6c617574, 0x55504320]),
    (0x80000003, 0, [0x72657620, 0x6e6f6973, 0x352e3220, 0x0000002b]),
    (0x80000005, 0, [0x01ff01ff, 0x01ff01ff, 0x40020140, 0x40020140]),
    (0x80000006, 0, [0x00000000, 0x42004200, 0x02008140, 0x00808140]),
    (0x80000008, 0, [0x00003028, 0x00000000, 0x00000000, 0x00000000]),
    (0x8000000a, 0, [0x00000001, 0x00000010, 0x00000000, 0x00000000]),
];

/// An Intel server with everything: all feature bits set.
pub(super) fn everything(leaf: u32, subleaf: u32) -> Leaf {
    match (leaf, subleaf) {
        (0, _) => [0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69],
        (1, _) => [0xffff_ffff; 4],
        (2, _) => [0x7603_6302, 1, 2, 3],
        (4, 0..=3) => [0xfc1b_c122, 0x02c0_003f, 0x3f, 0],
        (4, _) => EMPTY,
        (7, 0) => [2, u32::MAX, u32::MAX, u32::MAX],
        (7, _) => [u32::MAX; 4],
        (0xd, 0) => [0x602e7, 0x2b00, 0x2b00, 0],
        (0xd, 1) => [0xf, 0x988, 0x1900, 0],
        (0xd, 2) => [0x100, 0x240, 0, 0],
        (0xd, 5) => [0x40, 0x440, 0, 0],
        (0xd, 6) => [0x200, 0x480, 0, 0],
        (0xd, 7) => [0x400, 0x680, 0, 0],
        (0xd, 9) => [8, 0xa80, 0, 0],
        (0xd, 17) => [0x40, 0xac0, 2, 0],
        (0xd, _) => EMPTY,
        (0x8000_0000, _) => [0x8000_0008, 0, 0, 0],
        (0x8000_0008, _) => [0x0030_392e, u32::MAX, 7, 7],
        (0x8000_0001..=0x8000_0007, _) => [u32::MAX; 4],
        _ => [0xdead_beef; 4],
    }
}

fn recorded(of: Recorded) -> impl Fn(u32, u32) -> Leaf {
    move |leaf, subleaf| of.iter().find(|(l, s, _)| (*l, *s) == (leaf, subleaf)).map_or(EMPTY, |(_, _, regs)| *regs)
}

pub(super) const CONFIG: Config = Config {
    hardware_domain: false,
    maddr_width: 40,
    xcr0: u64::MAX,
    ibpb: false,
    spec_ctrl: false,
    breakpoint_masks: false,
    arch_caps: None,
    invariant_tsc: false,
};

const USER: Dynamic = Dynamic { kernel_mode: false, forced: false, cr4: 0, xcr0: 3 };
const FORCED: Dynamic = Dynamic { kernel_mode: true, forced: true, ..USER };
const NATIVE: Dynamic = Dynamic { kernel_mode: true, ..USER };

/// The machines that were recorded.
pub(super) fn recorded_hosts() -> [impl Fn(u32, u32) -> Leaf; 2] {
    [recorded(MAX), recorded(QEMU64)]
}

fn hosts() -> [Policy; 3] {
    [Policy::new(recorded(MAX), &CONFIG), Policy::new(recorded(QEMU64), &CONFIG), Policy::new(everything, &CONFIG)]
}

#[test]
fn hidden_features_stay_hidden() {
    for policy in hosts() {
        for dynamic in [USER, FORCED, NATIVE] {
            let leaf1 = policy.lookup(1, 0, &dynamic);
            assert_eq!(leaf1[D] & Leaf1Edx::HIDDEN.bits(), 0);
            assert_eq!(leaf1[C] & (Leaf1Ecx::HIDDEN - Leaf1Ecx::OSXSAVE).bits(), 0);
            let leaf7 = policy.lookup(7, 0, &dynamic);
            assert_eq!(leaf7[B] & Leaf7Ebx::HIDDEN.bits(), 0);
            assert_eq!(leaf7[C] & Leaf7Ecx::HIDDEN.bits(), 0);
            assert_eq!(leaf7[D] & Leaf7Edx::HIDDEN.bits(), 0);
            assert_eq!(policy.lookup(7, 1, &dynamic)[A] & Leaf7Sub1Eax::HIDDEN.bits(), 0);
            assert_eq!(policy.lookup(7, 1, &dynamic)[1..], [0, 0, 0]);
            let ext1 = policy.lookup(0x8000_0001, 0, &dynamic);
            assert_eq!(ext1[C] & ExtEcx::HIDDEN.bits(), 0);
            assert_eq!(ext1[D] & ExtEdx::HIDDEN.bits(), 0);
            // The copies of leaf 1 hide what leaf 1 hides.
            assert_eq!(ext1[D] & ExtEdx::COPIES & !leaf1[D], 0);
            assert_eq!(policy.lookup(0xd, 1, &dynamic)[A] & XsaveEax::HIDDEN.bits(), 0);
            assert_eq!(policy.lookup(0x8000_0007, 0, &dynamic), EMPTY);
            assert_eq!(policy.lookup(0x8000_0008, 0, &dynamic)[B] & ExtSpecEbx::HIDDEN.bits(), 0);
        }
    }
}

/// Names from the list of what Linux must not see or must see.
#[test]
fn the_words_have_the_right_bits() {
    assert_eq!(Leaf1Edx::HIDDEN.bits(), 1 << 1 | 1 << 3 | 3 << 12 | 3 << 17 | 1 << 21 | 1 << 28 | 1 << 29 | 1 << 31);
    let vmx_smx_eist = Leaf1Ecx::VMX | Leaf1Ecx::SMX | Leaf1Ecx::EIST;
    assert_eq!(vmx_smx_eist.bits(), 0xe0);
    assert_eq!((Leaf7Ebx::SMEP | Leaf7Ebx::SMAP | Leaf7Ebx::INVPCID).bits(), 1 << 7 | 1 << 20 | 1 << 10);
    assert_eq!((Leaf7Ecx::UMIP | Leaf7Ecx::PKU | Leaf7Ecx::LA57).bits(), 1 << 2 | 1 << 3 | 1 << 16);
    let max = &hosts()[0];
    assert_eq!(max.lookup(1, 0, &USER), [0x0006_0fb1, 0x0800, 0xf6d8_320b & !0x0800_0008 & !(1 << 17), 0x0fc9_c3f5]);
    assert_eq!(max.lookup(7, 0, &USER), [0, 0x0188_0329, 0x200, 0]);
    assert_eq!(max.lookup(0x8000_0001, 0, &USER), [0x0006_0fb1, 0, 0x61, 0xe9d1_cbf5]);
}

#[test]
fn what_programs_need_is_there() {
    for policy in hosts() {
        let leaf1 = policy.lookup(1, 0, &USER);
        let edx = Leaf1Edx::FPU | Leaf1Edx::TSC | Leaf1Edx::PAE | Leaf1Edx::APIC | Leaf1Edx::FXSR | Leaf1Edx::SSE2;
        assert!(policy.leaf1_edx().contains(edx));
        assert!(policy.ext_edx().contains(ExtEdx::SYSCALL | ExtEdx::NX | ExtEdx::LM));
        assert_ne!(leaf1[C] & 1 << 31, 0);
        assert_eq!(leaf1[B] >> 16, 0, "no APIC number, no siblings");
        assert_eq!(leaf1[A] & 0xf000_f000, 0);
    }
    let [max, _, everything] = hosts();
    assert!(max.leaf7_ebx().contains(Leaf7Ebx::FSGSBASE | Leaf7Ebx::AVX2));
    assert!(everything.leaf7_ebx().contains(Leaf7Ebx::AVX512F));
    assert_eq!(max.vendor(), Vendor::Amd);
    assert!(!max.leaf1_edx().contains(Leaf1Edx::SEP));
    assert_eq!(everything.vendor(), Vendor::Intel);
    assert!(everything.leaf1_edx().contains(Leaf1Edx::SEP));
}

#[test]
fn osxsave_follows_cr4_except_for_the_kernels_emulated_cpuid() {
    let osxsave = |policy: &Policy, dynamic: Dynamic| policy.lookup(1, 0, &dynamic)[C] & 1 << 27 != 0;
    let [max, plain, _] = hosts();
    let set = Dynamic { cr4: CR4_OSXSAVE, ..USER };
    assert!(osxsave(&max, FORCED));
    assert!(osxsave(&max, set));
    assert!(!osxsave(&max, NATIVE));
    assert!(!osxsave(&max, USER));
    assert!(!osxsave(&max, Dynamic { kernel_mode: false, ..FORCED }));
    assert!(!osxsave(&plain, FORCED));
    assert!(!osxsave(&plain, set));
}

#[test]
fn power_features_only_for_the_hardware_domains_kernel() {
    let bits = |policy: &Policy, dynamic: &Dynamic| policy.lookup(1, 0, dynamic)[C] & (1 << 3 | 1 << 7);
    let dom0 = Policy::new(everything, &Config { hardware_domain: true, ..CONFIG });
    assert_eq!(bits(&dom0, &NATIVE), 1 << 3 | 1 << 7);
    assert_eq!(bits(&dom0, &FORCED), 1 << 7);
    assert_eq!(bits(&dom0, &USER), 0);
    assert_eq!(dom0.lookup(5, 0, &NATIVE), [0xdead_beef; 4]);
    assert_eq!(dom0.lookup(5, 0, &FORCED), EMPTY);
    let domu = &hosts()[2];
    assert_eq!(bits(domu, &NATIVE), 0);
    assert_eq!(domu.lookup(5, 0, &NATIVE), EMPTY);
}

#[test]
fn leaves_out_of_range_are_empty() {
    let [max, _, full] = hosts();
    for policy in [&max, &full] {
        for leaf in [3, 6, 8, 9, 0xa, 0xb, 0xc, 0xe, 0x1f, 0x4000_0004, 0x4000_0006, 0x4000_00ff, 0x4000_0100] {
            assert_eq!(policy.lookup(leaf, 0, &FORCED), EMPTY, "{leaf:#x}");
        }
        for leaf in
            [0x7fff_ffff, 0x8000_0009, 0x8000_000a, 0x8000_001d, 0x8000_001e, 0x8000_0022, 0xc000_0000, u32::MAX]
        {
            assert_eq!(policy.lookup(leaf, 0, &FORCED), EMPTY, "{leaf:#x}");
        }
        for subleaf in [3, 64, u32::MAX] {
            assert_eq!(policy.lookup(7, subleaf, &FORCED), EMPTY);
        }
        assert_eq!(policy.lookup(4, 6, &FORCED), EMPTY);
        assert_eq!(policy.lookup(0xd, 8, &FORCED), EMPTY);
        assert_eq!(policy.lookup(0xd, u32::MAX, &FORCED), EMPTY);
        assert!(policy.lookup(0, 0, &USER)[A] <= 0xd);
    }
    assert_eq!(full.lookup(0x8000_0000, 0, &USER)[A], 0x8000_0008);
}

#[test]
fn every_vcpu_is_a_core_of_its_own() {
    let full = &hosts()[2];
    for subleaf in 0..4 {
        let leaf = full.lookup(4, subleaf, &USER);
        assert_eq!((leaf[A] >> 14, leaf[A] & 0x3fff), (0, 0x0122));
    }
    assert_eq!(full.lookup(2, 0, &USER)[A] & 0xff, 1);
    assert_eq!(full.lookup(0x8000_0008, 0, &USER)[C..], [0, 0]);
    assert!(hosts()[0].lookup(4, 0, &USER) == EMPTY);
}

#[test]
fn saved_state_is_sized_for_what_is_enabled() {
    let [max, plain, full] = hosts();
    assert_eq!((max.xcr0(), plain.xcr0(), full.xcr0()), (7, 0, 0xe7));
    let size = |policy: &Policy, xcr0: u64| policy.lookup(0xd, 0, &Dynamic { xcr0, ..USER });
    assert_eq!(size(&max, 1), [7, 576, 832, 0]);
    assert_eq!(size(&max, 7), [7, 832, 832, 0]);
    assert_eq!(size(&full, 3)[B], 576);
    assert_eq!(size(&full, 0xe7), [0xe7, 0xa80, 0xa80, 0]);
    // Components that are not the guest's do not count.
    assert_eq!(size(&full, u64::MAX)[B], 0xa80);
    assert_eq!(plain.lookup(0xd, 0, &USER), EMPTY);
    let compact = |xcr0: u64| full.lookup(0xd, 1, &Dynamic { xcr0, ..USER });
    assert_eq!(compact(0xe7), [7, 0x240 + 0x100 + 0x40 + 0x200 + 0x400, 0, 0]);
    assert_eq!(compact(0xe3)[B], 0x240 + 0x40 + 0x200 + 0x400);
    assert_eq!(max.lookup(0xd, 1, &USER), [5, 0, 0, 0]);
    assert_eq!(max.lookup(0xd, 2, &USER), [0x100, 0x240, 0, 0]);
    for hidden in [3, 4, 9] {
        assert_eq!(max.lookup(0xd, hidden, &USER), EMPTY);
    }
}

#[test]
fn features_go_with_the_state_that_is_not_saved() {
    let with = |xcr0| Policy::new(everything, &Config { xcr0, ..CONFIG });
    let none = with(0);
    assert_eq!(
        none.leaf1_ecx() & (Leaf1Ecx::XSAVE | Leaf1Ecx::AVX | Leaf1Ecx::FMA | Leaf1Ecx::F16C),
        Leaf1Ecx::empty()
    );
    assert_eq!(none.leaf7_ecx() & (Leaf7Ecx::VAES | Leaf7Ecx::AVX512_VBMI), Leaf7Ecx::empty());
    assert_eq!(none.lookup(0xd, 1, &USER), EMPTY);
    let sse = with(3);
    assert!(sse.leaf1_ecx().contains(Leaf1Ecx::XSAVE) && !sse.leaf1_ecx().contains(Leaf1Ecx::AVX));
    assert_eq!(sse.xcr0(), 3);
    let avx = with(7);
    assert!(avx.leaf7_ebx().contains(Leaf7Ebx::AVX2) && !avx.leaf7_ebx().intersects(needs_avx512::LEAF7_EBX));
    assert_eq!(avx.lookup(7, 1, &USER)[A] & Leaf7Sub1Eax::AVX512_BF16.bits(), 0);
    assert_eq!(with(0x67).xcr0(), 7, "half of the AVX-512 state is none");
}

#[test]
fn speculation_controls_are_shown_where_they_work() {
    let off = &hosts()[2];
    assert!(!off.leaf7_edx().intersects(Leaf7Edx::IBRSB | Leaf7Edx::STIBP | Leaf7Edx::SSBD | Leaf7Edx::ARCH_CAPS));
    let config = Config { spec_ctrl: true, ibpb: true, arch_caps: Some(1), invariant_tsc: true, ..CONFIG };
    let on = Policy::new(everything, &config);
    assert!(on.leaf7_edx().contains(Leaf7Edx::IBRSB | Leaf7Edx::STIBP | Leaf7Edx::SSBD | Leaf7Edx::ARCH_CAPS));
    assert_eq!(on.arch_caps(), Some(1));
    assert!(on.ext_spec().contains(ExtSpecEbx::IBPB | ExtSpecEbx::IBRS));
    assert_eq!(on.lookup(0x8000_0007, 0, &USER), [0, 0, 0, 1 << 8]);
    let plain = Policy::new(recorded(QEMU64), &config);
    assert_eq!(plain.leaf7_edx(), Leaf7Edx::empty());
    assert_eq!(plain.ext_spec(), ExtSpecEbx::empty());
}

#[test]
fn hypervisor_leaves() {
    let policy = &hosts()[0];
    let leaf = |leaf, subleaf| policy.lookup(leaf, subleaf, &USER);
    assert_eq!(leaf(0x4000_0000, 0), [0x4000_0005, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e]);
    assert_eq!(leaf(0x4000_0001, 0), [0x0004_0011, 0, 0, 0]);
    assert_eq!(leaf(0x4000_0002, 0), [1, 0x4000_0000, 1, 0]);
    assert_eq!(leaf(0x4000_0005, 0), [0, 40, 0, 0]);
    assert_eq!(leaf(0x4000_0005, 1), EMPTY);
}

#[test]
fn the_time_leaf() {
    let mut tsc = TscInfo {
        emulated: false,
        safe: true,
        mode: 0,
        khz: 2_000_000,
        incarnation: 1,
        offset: 0x1_0000_0002,
        mul: 0x8000_0000,
        shift: -1,
        host_khz: 2_000_001,
    };
    let leaf = |tsc: &TscInfo, subleaf| hosts()[0].time_leaf(tsc, subleaf);
    assert_eq!(leaf(&tsc, 0), [6, 0, 2_000_000, 1]);
    assert_eq!(leaf(&tsc, 1), [2, 1, 0x8000_0000, u32::MAX]);
    assert_eq!(leaf(&tsc, 2), [2_000_001, 0, 0, 0]);
    assert_eq!(leaf(&tsc, 3), EMPTY);
    (tsc.emulated, tsc.mode) = (true, 1);
    assert_eq!(leaf(&tsc, 0), [7, 1, 2_000_000, 1]);
    assert_eq!(leaf(&tsc, 1), [0, 0, 0x8000_0000, u32::MAX], "the offset is in what is read");
}

#[test]
fn addresses_have_at_most_48_linear_bits() {
    let [max, plain, full] = hosts();
    assert_eq!(max.lookup(0x8000_0008, 0, &USER)[A], 0x3028);
    assert_eq!(plain.lookup(0x8000_0008, 0, &USER)[A], 0x3028);
    assert_eq!(full.lookup(0x8000_0008, 0, &USER)[A], 0x302e);
}
