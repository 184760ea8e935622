// SPDX-License-Identifier: MIT OR Apache-2.0
//! How errors are judged.

use super::*;

fn model(vendor: &[u8; 12], family: u32, model: u32) -> Model {
    Model { vendor: *vendor, family, model, stepping: 0 }
}

#[test]
fn intel_tells_what_must_be_done() {
    let rules = Rules::new(&model(b"GenuineIntel", 6, 0x55), 1 << 24 | 20);
    assert_eq!((rules.is_broadcast, rules.first_bank), (true, 0));
    let judged = |bits| rules.judge(VALID | bits);
    assert_eq!(judged(0), Severity::Corrected);
    assert_eq!(judged(OVERFLOW), Severity::Corrected);
    assert_eq!(judged(UNCORRECTED), Severity::Unused);
    assert_eq!(judged(UNCORRECTED | SIGNALLED), Severity::Unused);
    assert_eq!(judged(UNCORRECTED | SIGNALLED | ACTION), Severity::ActionRequired);
    assert_eq!(judged(UNCORRECTED | SIGNALLED | ACTION | OVERFLOW), Severity::Fatal);
    assert_eq!(judged(UNCORRECTED | CONTEXT_CORRUPT), Severity::Fatal);
    let old = Rules::new(&model(b"GenuineIntel", 6, 0xf), 6);
    assert_eq!((old.is_broadcast, old.first_bank), (true, 1));
    assert_eq!(old.judge(VALID | UNCORRECTED), Severity::Fatal);
}

#[test]
fn amd_tells_by_its_code() {
    let rules = Rules::new(&model(b"AuthenticAMD", 0x17, 1), 23);
    assert_eq!((rules.is_broadcast, rules.first_bank), (false, 0));
    assert_eq!(rules.judge(VALID | 0x136), Severity::Corrected);
    assert_eq!(rules.judge(VALID | UNCORRECTED | 0x136), Severity::ActionRequired);
    assert_eq!(rules.judge(VALID | UNCORRECTED | 0x813), Severity::Fatal);
    assert_eq!(rules.judge(VALID | UNCORRECTED | 0x15), Severity::Fatal);
    let k8 = Rules::new(&model(b"AuthenticAMD", 0xf, 5), 5);
    assert_eq!(k8.judge(VALID | UNCORRECTED | 0x136), Severity::Fatal);
}

#[test]
fn what_ends_the_machine() {
    let found = |worst, status| Found { count: 1, worst, status };
    let (lost, at, resumes) = (0, ADDRESS_VALID, RESTART_VALID);
    for status in [lost, at, resumes] {
        assert!(found(Severity::Fatal, status).ends_the_machine(true));
        assert!(found(Severity::ActionRequired, status).ends_the_machine(false));
    }
    assert!(!found(Severity::ActionRequired, at).ends_the_machine(true));
    assert!(found(Severity::ActionRequired, lost).ends_the_machine(true));
    assert!(!found(Severity::Unused, resumes).ends_the_machine(false));
    assert!(found(Severity::Unused, at).ends_the_machine(false));
    assert!(found(Severity::Corrected, lost).ends_the_machine(true));
    assert!(!Found::default().ends_the_machine(false));
}
