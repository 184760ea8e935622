// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each register with nothing, everything, each bit, and the edges of what is canonical.

use super::super::cpuid::Config;
use super::*;
use hypercalls::addr::HOLE_START;

const CR4_GUEST: u64 = CR4_TSD | CR4_DE | CR4_FSGSBASE | CR4_OSXSAVE;

fn policy(bits: u32) -> Policy {
    let host = |leaf, _| match leaf {
        0 => [0xd, 0, 0, 0],
        0x8000_0000 => [0x8000_0008, 0, 0, 0],
        _ => [bits; 4],
    };
    let config = Config {
        hardware_domain: false,
        maddr_width: 40,
        xcr0: 7,
        ibpb: false,
        spec_ctrl: false,
        breakpoint_masks: false,
        arch_caps: None,
        invariant_tsc: false,
    };
    Policy::new(host, &config)
}

fn view(policy: &Policy) -> CrView<'_> {
    CrView {
        policy,
        host_cr0: 0x8005_0033,
        host_cr4: 0x0037_06f0,
        task_switched: false,
        cr2: 0x1234,
        kernel_base: Mfn(0x5678),
        cr4: 0x660,
    }
}

#[test]
fn only_ts_of_cr0_changes() {
    let policy = policy(u32::MAX);
    let mut view = view(&policy);
    assert_eq!(read_cr(Cr::Cr0, &view), Some(0x8005_0033));
    view.task_switched = true;
    assert_eq!(read_cr(Cr::Cr0, &view), Some(0x8005_003b));
    assert_eq!(write_cr(Cr::Cr0, 0x8005_0033, &view), Some(CrWrite::TaskSwitched(false)));
    assert_eq!(write_cr(Cr::Cr0, 0x8005_003b, &view), Some(CrWrite::TaskSwitched(true)));
    for bit in (0..64).filter(|&bit| bit != 3) {
        assert_eq!(write_cr(Cr::Cr0, 0x8005_0033 ^ 1 << bit, &view), None);
    }
}

#[test]
fn the_other_control_registers() {
    let policy = policy(u32::MAX);
    let view = view(&policy);
    assert_eq!(read_cr(Cr::Cr2, &view), Some(0x1234));
    assert_eq!(read_cr(Cr::Cr3, &view), Some(0x567_8000));
    assert_eq!(read_cr(Cr::Cr4, &view), Some(0x660));
    assert_eq!(read_cr(Cr::Cr8, &view), None);
    assert_eq!(write_cr(Cr::Cr2, u64::MAX, &view), Some(CrWrite::Cr2(u64::MAX)));
    assert_eq!(write_cr(Cr::Cr3, 0x9018, &view), Some(CrWrite::NewBase(Mfn(9))));
    assert_eq!(write_cr(Cr::Cr8, 0, &view), None);
}

#[test]
fn cr4_has_the_guests_choice_of_the_policys_bits() {
    let (all, none) = (policy(u32::MAX), policy(0));
    let cr4 = |value, policy| write_cr(Cr::Cr4, value, &view(policy));
    assert_eq!(cr4(0, &all), Some(CrWrite::Cr4(0x660)));
    assert_eq!(cr4(u64::MAX, &all), Some(CrWrite::Cr4(0x660 | CR4_GUEST)));
    assert_eq!(cr4(u64::MAX, &none), Some(CrWrite::Cr4(0x660)));
    for bit in 0..64 {
        let value = 1u64 << bit;
        assert_eq!(cr4(value, &all), Some(CrWrite::Cr4(0x660 | value & CR4_GUEST)));
    }
}

#[test]
fn xcr0_combinations() {
    let all = u64::MAX;
    for good in [1, 3, 7, 0xe7, 0xff, 0x1f, 0x1b, 1 << 9 | 3] {
        assert!(xcr0_ok(good, all), "{good:#x}");
    }
    for bad in [0, 2, 6, 4, 5, 0x23, 0x27, 0x67, 0xe3, 0x0b, 0x13] {
        assert!(!xcr0_ok(bad, all), "{bad:#x}");
    }
    assert!(!xcr0_ok(7, 3));
    assert!(!xcr0_ok(1 << 63 | 3, 7));
    assert!(!xcr0_ok(3, 0));
}

#[test]
fn breakpoints_stay_out_of_the_hole() {
    let mut regs = DebugRegs::default();
    for number in 0..4 {
        for good in [0, 1, (1 << 47) - 1, HOLE_END, u64::MAX] {
            assert_eq!(regs.write(number, good, 0), Ok(()));
            assert_eq!(regs.read(number, 0), Ok(good));
        }
        for bad in [1 << 47, HOLE_START - 1, HOLE_START, HOLE_END - 1, HOLE_END - 8, 0xffff_8300_0000_0000, 1 << 63] {
            assert_eq!(regs.write(number, bad, 0), Err(Errno::EPERM));
        }
        assert_eq!(regs.read(number, 0), Ok(u64::MAX));
    }
    assert_eq!(HOLE_START % (1 << 32), 0);
    assert_eq!(HOLE_END % (1 << 32), 0);
}

#[test]
fn dr6_and_dr7_keep_their_reserved_bits() {
    let mut regs = DebugRegs::default();
    for bit in 0..64 {
        let value = 1u64 << bit;
        let ok = bit < 32;
        assert_eq!(regs.write(6, value, 0), if ok { Ok(()) } else { Err(Errno::EINVAL) });
        assert_eq!(regs.dr6 & !DR6_MASK, 0);
        assert_eq!(regs.dr6 & DR6_ONES, DR6_ONES);
        let wanted = match bit {
            13 => Err(Errno::EPERM),
            0..32 => Ok(()),
            _ => Err(Errno::EINVAL),
        };
        assert_eq!(regs.write(7, value, 0), wanted);
        assert_eq!(regs.dr7 & !(DR7_MASK & !DR7_DETECT), 0);
        assert_eq!(regs.dr7 & DR7_ONES, DR7_ONES);
    }
}

#[test]
fn dr4_and_dr5_are_names_for_6_and_7() {
    let mut regs = DebugRegs::default();
    assert_eq!(regs.write(5, 0x401, 0), Ok(()));
    assert_eq!((regs.read(7, 0), regs.read(5, 0)), (Ok(0x401), Ok(0x401)));
    assert_eq!(regs.read(4, 0), regs.read(6, 0));
    for number in [4, 5, 8, 9, u64::MAX] {
        assert_eq!(regs.write(number, 0, CR4_DE), Err(Errno::ENODEV));
        assert_eq!(regs.read(number, CR4_DE), Err(Errno::ENODEV));
    }
}

#[test]
fn breakpoints_on_ports_are_emulated() {
    let mut regs = DebugRegs::default();
    // Breakpoint 1: port, two bytes wide; breakpoint 0: execution.
    let dr7 = 0x0060_0000 | 0b0101;
    assert_eq!(regs.write(7, dr7, 0), Err(Errno::EPERM));
    regs.write(1, 0x71, CR4_DE).unwrap();
    regs.write(7, dr7, CR4_DE).unwrap();
    assert_eq!((regs.dr7, regs.ports, regs.read(7, CR4_DE)), (0x0060_0401, 0b0100, Ok(dr7 | 0x400)));
    assert!(regs.active());
    for (port, bytes, hits) in [(0x6f, 1, 0), (0x6f, 2, 2), (0x70, 1, 2), (0x71, 4, 2), (0x72, 1, 0)] {
        assert_eq!(regs.port_hits(port, bytes, CR4_DE), hits, "{port:#x}+{bytes}");
    }
    assert_eq!(regs.port_hits(0x70, 1, 0), 0);
    regs.write(7, 0, CR4_DE).unwrap();
    assert_eq!((regs.ports, regs.active()), (0, false));
}
