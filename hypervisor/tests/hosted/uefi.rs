// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the hardware domain asks about UEFI firmware and of its runtime services.

use std::sync::atomic::Ordering::Relaxed;

use arch::efi::{BUFFER_TOO_SMALL, NOT_FOUND, SUCCESS};
use hypercalls::platform::{FirmwareType, PlatformCmd};
use hypercalls::platform_efi::*;
use hypercalls::{Errno, GuestPtr};
use hypervisor::firmware::{self, Efi, EfiRegion};
use hypervisor::testing::guest;
use zerocopy::IntoBytes;

use super::platform::{Dom0, LIST, error};

const NAME: u64 = LIST;
const DATA: u64 = LIST + 0x200;

fn firmware(runtime: Option<u32>) -> Efi {
    let region = |start, end, kind| EfiRegion { start, end, kind, attributes: 0xf };
    Efi {
        revision: 0x2_0046,
        runtime_revision: runtime,
        vendor: "EDK\0".encode_utf16().collect(),
        firmware_revision: 7,
        config: 0x7f00_0000,
        config_entries: 9,
        map: vec![region(0x1000, 0x5000, 7), region(0x9000, 0xa000, 6)],
    }
}

/// dom0 on a machine with UEFI firmware.
fn dom0() -> Dom0 {
    let dom0 = Dom0::new();
    arch::efi::install();
    firmware::note_efi(Some(firmware(Some(0x2_0046))));
    dom0
}

#[test]
fn nothing_without_uefi() {
    let mut dom0 = Dom0::new();
    let info = FirmwareEfiVersion { kind: FirmwareType::EFI_INFO, ..FirmwareEfiVersion::default() };
    assert_eq!(dom0.ask(PlatformCmd::FIRMWARE_INFO, &info), error(Errno::ENOSYS));
    let time = EfiTimeCall { function: EfiFunction::GET_TIME, ..EfiTimeCall::default() };
    assert_eq!(dom0.ask(PlatformCmd::EFI_RUNTIME_CALL, &time), error(Errno::ENOSYS));
    firmware::note_efi(Some(firmware(None)));
    assert_eq!(dom0.ask(PlatformCmd::EFI_RUNTIME_CALL, &time), error(Errno::EOPNOTSUPP));
    let version = FirmwareEfiVersion { index: EfiInfo::RT_VERSION, ..info };
    assert_eq!(dom0.ask(PlatformCmd::FIRMWARE_INFO, &version), error(Errno::EOPNOTSUPP));
    dom0.0.finish();
}

#[test]
fn what_the_firmware_says_of_itself() {
    let mut dom0 = dom0();
    let ask = PlatformCmd::FIRMWARE_INFO;
    for index in [EfiInfo::VERSION, EfiInfo::RT_VERSION] {
        let version = FirmwareEfiVersion { kind: FirmwareType::EFI_INFO, index, ..FirmwareEfiVersion::default() };
        assert_eq!(dom0.ask(ask, &version), 0);
        assert_eq!(dom0.answer::<FirmwareEfiVersion>().version, 0x2_0046);
    }
    let config = FirmwareEfiConfig {
        kind: FirmwareType::EFI_INFO,
        index: EfiInfo::CONFIG_TABLE,
        ..FirmwareEfiConfig::default()
    };
    assert_eq!(dom0.ask(ask, &config), 0);
    let answer: FirmwareEfiConfig = dom0.answer();
    assert_eq!((answer.addr, answer.nent), (0x7f00_0000, 9));
    for (index, errno) in [(5, Errno::ESRCH), (6, Errno::ENODATA), (7, Errno::EINVAL), (u32::MAX, Errno::EINVAL)] {
        assert_eq!(dom0.ask(ask, &FirmwareEfiConfig { index: EfiInfo(index), ..config }), error(errno));
    }
    let name = GuestPtr::new(Dom0::at() + NAME);
    for (bufsz, text) in [(200, "EDK\0"), (6, "EDK"), (3, "E"), (0, "")] {
        assert!(guest::write(name.0, &[0xff; 16]));
        let vendor = FirmwareEfiVendor {
            kind: FirmwareType::EFI_INFO,
            index: EfiInfo::VENDOR,
            bufsz,
            name,
            ..FirmwareEfiVendor::default()
        };
        assert_eq!(dom0.ask(ask, &vendor), 0);
        assert_eq!(dom0.answer::<FirmwareEfiVendor>().revision, 7);
        let mut expected = [0xffff_u16; 8];
        text.encode_utf16().zip(&mut expected).for_each(|(unit, to)| *to = unit);
        assert_eq!(Dom0::read::<[u16; 8]>(name.0), expected);
    }
    dom0.0.finish();
}

#[test]
fn the_memory_map() {
    let mut dom0 = dom0();
    let mut ask = |addr, size| {
        let mem = FirmwareEfiMem {
            kind: FirmwareType::EFI_INFO,
            index: EfiInfo::MEM_INFO,
            addr,
            size,
            ..FirmwareEfiMem::default()
        };
        let result = dom0.ask(PlatformCmd::FIRMWARE_INFO, &mem);
        let answer: FirmwareEfiMem = dom0.answer();
        (result, answer.memory_type, answer.size)
    };
    assert_eq!(ask(0x1000, 0x800), (0, 7, 0x800));
    assert_eq!(ask(0x4fff, 0x800), (0, 7, 1));
    assert_eq!(ask(0x9800, u64::MAX), (0, 6, 0x800));
    for outside in [0xfff, 0x5000, 0xa000, u64::MAX] {
        assert_eq!(ask(outside, 1).0, error(Errno::ESRCH));
    }
    dom0.0.finish();
}

#[test]
fn clock_and_alarm() {
    let mut dom0 = dom0();
    let call = PlatformCmd::EFI_RUNTIME_CALL;
    let time = EfiTime { year: 2024, month: 2, day: 29, hour: 23, ..EfiTime::default() };
    let set = EfiTimeCall { function: EfiFunction::SET_TIME, time, status: 77, ..EfiTimeCall::default() };
    assert_eq!(dom0.ask(call, &set), 0);
    assert_eq!(dom0.answer::<EfiTimeCall>().status, SUCCESS);
    let get = EfiTimeCall { function: EfiFunction::GET_TIME, ..EfiTimeCall::default() };
    // What the guest has in the FPU stays, and so does its CR0.TS.
    arch::fpu::guest_write(160, 0xab);
    let vcpu = dom0.0.go_back().expect("a vCPU runs");
    vcpu.ts.store(true, Relaxed);
    assert_eq!(dom0.ask(call, &get), 0);
    assert_eq!(arch::fpu::guest_read(160), 0xab);
    vcpu.ts.store(false, Relaxed);
    arch::fpu::set_ts(false);
    let answer: EfiTimeCall = dom0.answer();
    assert_eq!((answer.time, answer.resolution, answer.misc), (time, 1, XEN_EFI_GET_TIME_SET_CLEARS_NS));
    for function in [EfiFunction::GET_TIME, EfiFunction::SET_TIME, EfiFunction::GET_WAKEUP_TIME] {
        assert_eq!(dom0.ask(call, &EfiTimeCall { function, misc: 1, ..get }), error(Errno::EINVAL));
    }
    let alarm = EfiTimeCall { function: EfiFunction::SET_WAKEUP_TIME, time, misc: 1, ..get };
    assert_eq!(dom0.ask(call, &alarm), 0);
    let ask = EfiTimeCall { function: EfiFunction::GET_WAKEUP_TIME, ..get };
    assert_eq!(dom0.ask(call, &ask), 0);
    let answer: EfiTimeCall = dom0.answer();
    assert_eq!((answer.time, answer.misc), (time, XEN_EFI_GET_WAKEUP_TIME_ENABLED));
    assert_eq!(dom0.ask(call, &EfiTimeCall { misc: 4, ..alarm }), error(Errno::EINVAL));
    let count = EfiRuntimeCall { function: EfiFunction::GET_NEXT_HIGH_MONOTONIC_COUNT, ..EfiRuntimeCall::default() };
    assert_eq!(dom0.ask(call, &count), 0);
    assert_eq!(dom0.answer::<EfiRuntimeCall>().misc, 1);
    for function in [0, 10, 11, 12, u32::MAX] {
        let unknown = EfiRuntimeCall { function: EfiFunction(function), ..count };
        assert_eq!(dom0.ask(call, &unknown), error(Errno::ENOSYS));
    }
    dom0.0.finish();
}

fn put_name(text: &str) {
    let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
    assert!(guest::write(Dom0::at() + NAME, units.as_bytes()));
}

fn variable(function: EfiFunction, size: u64) -> EfiVariableCall {
    EfiVariableCall {
        function,
        name: GuestPtr::new(Dom0::at() + NAME),
        size,
        data: GuestPtr::new(Dom0::at() + DATA),
        vendor_guid: EfiGuid { data1: 0x8be4_df61, ..EfiGuid::default() },
        ..EfiVariableCall::default()
    }
}

#[test]
fn variables() {
    let mut dom0 = dom0();
    let call = PlatformCmd::EFI_RUNTIME_CALL;
    let mut ask = |request: &EfiVariableCall| {
        assert_eq!(dom0.ask(call, request), 0);
        dom0.answer::<EfiVariableCall>()
    };
    put_name("Boot0001");
    assert_eq!(ask(&variable(EfiFunction::GET_VARIABLE, 16)).status, NOT_FOUND);
    assert!(guest::write(Dom0::at() + DATA, b"value"));
    let set = EfiVariableCall { misc: 7, ..variable(EfiFunction::SET_VARIABLE, 5) };
    assert_eq!(ask(&set).status, SUCCESS);
    assert!(guest::write(Dom0::at() + DATA, &[0xee; 8]));
    let got = ask(&variable(EfiFunction::GET_VARIABLE, 8));
    assert_eq!((got.status, got.misc, got.size), (SUCCESS, 7, 5));
    assert_eq!(&Dom0::read::<[u8; 8]>(Dom0::at() + DATA), b"value\xee\xee\xee", "no byte too many");
    let got = ask(&variable(EfiFunction::GET_VARIABLE, 0));
    assert_eq!((got.status, got.size), (BUFFER_TOO_SMALL, 5));
    // As kernels remove one: no value, and no pointer to it.
    let remove = EfiVariableCall { data: GuestPtr::NULL, ..variable(EfiFunction::SET_VARIABLE, 0) };
    assert_eq!(ask(&remove).status, SUCCESS);
    assert_eq!(ask(&variable(EfiFunction::GET_VARIABLE, 8)).status, NOT_FOUND, "removed");
    dom0.0.finish();
}

#[test]
fn names_of_variables() {
    let mut dom0 = dom0();
    let call = PlatformCmd::EFI_RUNTIME_CALL;
    for name in ["A", "Bc"] {
        put_name(name);
        assert_eq!(dom0.ask(call, &variable(EfiFunction::SET_VARIABLE, 1)), 0);
    }
    put_name("");
    let at = GuestPtr::new(Dom0::at() + NAME);
    let next = EfiNextNameCall {
        function: EfiFunction::GET_NEXT_VARIABLE_NAME,
        size: 64,
        name: at,
        ..EfiNextNameCall::default()
    };
    let mut guid = EfiGuid::default();
    for (name, bytes) in [("A", 4), ("Bc", 6)] {
        assert_eq!(dom0.ask(call, &EfiNextNameCall { vendor_guid: guid, ..next }), 0);
        let answer: EfiNextNameCall = dom0.answer();
        assert_eq!((answer.status, answer.size, answer.vendor_guid.data1), (SUCCESS, bytes, 0x8be4_df61));
        let units: Vec<u16> = Dom0::read::<[u16; 8]>(at.0).into_iter().take_while(|u| *u != 0).collect();
        assert_eq!(String::from_utf16(&units).expect("it was one"), name);
        guid = answer.vendor_guid;
    }
    assert_eq!(dom0.ask(call, &EfiNextNameCall { vendor_guid: guid, ..next }), 0);
    assert_eq!(dom0.answer::<EfiNextNameCall>().status, NOT_FOUND);
    // A name without an end, an odd size, no size at all, an impossible one.
    assert!(guest::write(at.0, &[0xff; 64]));
    assert_eq!(dom0.ask(call, &next), error(Errno::EINVAL));
    assert_eq!(dom0.ask(call, &EfiNextNameCall { size: 0, ..next }), error(Errno::EINVAL));
    put_name("");
    assert_eq!(dom0.ask(call, &EfiNextNameCall { size: 3, ..next }), 0);
    assert_eq!(dom0.answer::<EfiNextNameCall>().status, BUFFER_TOO_SMALL);
    assert_eq!(dom0.ask(call, &EfiNextNameCall { size: u64::MAX, ..next }), error(Errno::ENOMEM));
    dom0.0.finish();
}

#[test]
fn bad_pointers_and_sizes() {
    let mut dom0 = dom0();
    let call = PlatformCmd::EFI_RUNTIME_CALL;
    put_name("A");
    let hole = GuestPtr::<u8>::new(hypercalls::addr::HOLE_START);
    for function in [EfiFunction::GET_VARIABLE, EfiFunction::SET_VARIABLE] {
        let good = variable(function, 4);
        assert_eq!(dom0.ask(call, &EfiVariableCall { name: hole.cast(), ..good }), error(Errno::EFAULT));
        assert_eq!(dom0.ask(call, &EfiVariableCall { size: u64::MAX, ..good }), error(Errno::ENOMEM));
    }
    let set = EfiVariableCall { data: hole, ..variable(EfiFunction::SET_VARIABLE, 4) };
    assert_eq!(dom0.ask(call, &set), error(Errno::EFAULT));
    assert_eq!(dom0.ask(call, &variable(EfiFunction::SET_VARIABLE, 4)), 0);
    let get = EfiVariableCall { data: hole, ..variable(EfiFunction::GET_VARIABLE, 4) };
    assert_eq!(dom0.ask(call, &get), error(Errno::EFAULT));
    let info =
        EfiVariableInfoCall { function: EfiFunction::QUERY_VARIABLE_INFO, attr: 7, ..EfiVariableInfoCall::default() };
    assert_eq!(dom0.ask(call, &info), 0);
    assert_eq!(dom0.answer::<EfiVariableInfoCall>().remain_store_size, 0x8000);
    assert_eq!(dom0.ask(call, &EfiVariableInfoCall { misc: 2, ..info }), error(Errno::EINVAL));
    assert_eq!(dom0.ask(call, &EfiVariableInfoCall { misc: 1, attr: 1, ..info }), error(Errno::EINVAL));
    firmware::note_efi(Some(firmware(Some(0x1_000a))));
    assert_eq!(dom0.ask(call, &info), error(Errno::EOPNOTSUPP), "not in the first edition");
    dom0.0.finish();
}
