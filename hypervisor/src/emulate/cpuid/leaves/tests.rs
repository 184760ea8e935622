// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tools set, on the hosts of the policy's own tests.

use super::super::features::{ExtEdx, Leaf7Ebx, PowerEdx};
use super::super::tests::{CONFIG, everything, recorded_hosts};
use super::*;
use std::vec::Vec;

fn leaves_of(policy: &Policy) -> Vec<CpuidLeaf> {
    let mut all = Vec::new();
    list(
        |l, s| policy.fixed(l, s),
        |leaf| {
            all.push(leaf);
            Ok(())
        },
    )
    .expect("nothing refuses");
    all
}

fn most() -> (Policy, Policy, Config) {
    let config = Config { invariant_tsc: true, ..CONFIG };
    (Policy::new(everything, &CONFIG), Policy::new(everything, &config), config)
}

fn one(leaf: u32, subleaf: u32, regs: Leaf) -> [CpuidLeaf; 1] {
    [CpuidLeaf { leaf, subleaf, a: regs[A], b: regs[B], c: regs[C], d: regs[D] }]
}

#[test]
fn what_is_read_and_set_again_changes_nothing() {
    for host in recorded_hosts() {
        let policy = Policy::new(&host, &CONFIG);
        let limit = Policy::new(&host, &Config { invariant_tsc: true, ..CONFIG });
        let read = leaves_of(&policy);
        assert!(read.len() <= MAX_LEAVES as usize);
        assert!(read.windows(2).all(|w| (w[0].leaf, w[0].subleaf) < (w[1].leaf, w[1].subleaf)), "in order");
        let again = policy.with(&limit, &CONFIG, &read, &policy.msrs()).expect("its own leaves fit");
        assert_eq!(leaves_of(&again), read);
    }
}

#[test]
fn no_more_than_the_limit_is_had() {
    let (policy, limit, config) = most();
    let all_bits =
        leaves_of(&policy).iter().map(|l| CpuidLeaf { a: l.a, b: !0, c: !0, d: !0, ..*l }).collect::<Vec<_>>();
    let own_vendor = |l: &CpuidLeaf| l.leaf & 0x7fff_ffff != 0;
    let wanted: Vec<_> = all_bits.into_iter().filter(own_vendor).collect();
    let got = policy.with(&limit, &config, &wanted, &[]).expect("features are cut, not refused");
    let most = featureset(|l, s| limit.fixed(l, s), 0);
    for (word, most) in featureset(|l, s| got.fixed(l, s), 0).into_iter().zip(most) {
        assert_eq!(word & !most, 0);
    }
    assert_eq!(got.fixed(0xd, 0), limit.fixed(0xd, 0), "the layout of saved state is the machine's");
    assert_eq!(got.fixed(0x8000_0007, 0)[D], PowerEdx::ITSC.bits(), "which the limit has");
}

#[test]
fn less_can_be_wanted() {
    let (policy, limit, config) = most();
    let leaf7 = policy.fixed(7, 0);
    let without = one(7, 0, [leaf7[A], leaf7[B] & !Leaf7Ebx::AVX512F.bits(), leaf7[C], leaf7[D]]);
    let got = policy.with(&limit, &config, &without, &[]).expect("it is less");
    assert_eq!((got.xcr0(), policy.xcr0()), (7, 0xe7), "state goes with the feature");
    let ext = policy.fixed(0x8000_0001, 0);
    let no_rdtscp = one(0x8000_0001, XEN_CPUID_NO_SUBLEAF, [ext[A], ext[B], ext[C], ext[D] & !ExtEdx::RDTSCP.bits()]);
    let got = got.with(&limit, &config, &no_rdtscp, &[]).expect("it is less");
    assert!(!got.ext_edx().contains(ExtEdx::RDTSCP));
    assert_eq!(got.xcr0(), 7, "what was set before stays");
    let short = one(0, XEN_CPUID_NO_SUBLEAF, {
        let l = policy.fixed(0, 0);
        [6, l[B], l[C], l[D]]
    });
    let got = policy.with(&limit, &config, &short, &[]).expect("it is less");
    assert_eq!((got.fixed(7, 0), got.fixed(0xd, 0), got.xcr0()), (EMPTY, EMPTY, 0));
}

#[test]
fn what_is_wrong_is_named() {
    let (policy, limit, config) = most();
    let refused = |leaves: &[CpuidLeaf], msrs: &[MsrEntry]| policy.with(&limit, &config, leaves, msrs).map(|_| ());
    for (leaf, subleaf) in
        [(1, 0), (7, 3), (0xe, u32::MAX), (0x4000_0001, u32::MAX), (0x8000_0022, u32::MAX), (0xd, 63)]
    {
        let expected = Refusal(Errno::ERANGE, Culprit::leaf(leaf, subleaf));
        assert_eq!(refused(&one(leaf, subleaf, EMPTY), &[]), Err(expected), "{leaf:#x}");
    }
    let beyond = |leaf, subleaf, last| refused(&one(leaf, subleaf, [last, 0, 0, 0]), &[]);
    let no_sub = XEN_CPUID_NO_SUBLEAF;
    assert_eq!(beyond(0, no_sub, 0xe), Err(Refusal(Errno::EINVAL, Culprit::leaf(0, no_sub))));
    assert_eq!(beyond(7, 0, 3), Err(Refusal(Errno::EINVAL, Culprit::leaf(7, 0))));
    let extended = Err(Refusal(Errno::EINVAL, Culprit::leaf(0x8000_0000, no_sub)));
    assert_eq!(beyond(0x8000_0000, no_sub, 0x8000_0009), extended);
    let msr = |idx, flags, val| refused(&[], &[MsrEntry { idx, flags, val }]);
    let blamed = |idx, error| Err(Refusal(error, Culprit { msr: idx, ..Culprit::NONE }));
    assert_eq!(msr(0xce, 0, 1 << 31), blamed(0xce, Errno::EINVAL));
    assert_eq!(msr(0xce, 0, 1 << 32), blamed(0xce, Errno::EOVERFLOW));
    assert_eq!(msr(0x10a, 1, 0), blamed(0x10a, Errno::EINVAL));
    assert_eq!(msr(0x1b, 0, 0), blamed(0x1b, Errno::ERANGE));
    assert_eq!(msr(0x10a, 0, 1), Ok(()), "what the limit does not have is not had");
}

#[test]
fn feature_words_are_in_the_order_of_tools() {
    let words = featureset(everything, 0x5_0000_0006);
    assert_eq!(words[..4], [u32::MAX; 4]);
    assert_eq!((words[4], words[5], words[16], words[17]), (everything(0xd, 1)[A], u32::MAX, 6, 5));
    assert_eq!(words[11], 0, "there is no such leaf");
}
