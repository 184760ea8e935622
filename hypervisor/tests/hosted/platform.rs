// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the hardware domain tells and asks about the machine.

use arch::machine::MachineEnd;
use arch::{CpuId, cpu};
use hypercalls::platform::*;
use hypercalls::platform_power::*;
use hypercalls::{DomId, Errno, GuestPtr, HypercallNr, VcpuId};
use hypervisor::power;
use hypervisor::testing::World;
use hypervisor::testing::guest::{self, args_of, va};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Bytes of the head before the union.
const HEAD: u64 = 8;
/// Where lists lie behind the argument.
pub(super) const LIST: u64 = 0x400;

/// A machine with four CPUs, of which two run; dom0's first vCPU runs on the first.
pub(super) struct Dom0(pub(super) World);

impl Dom0 {
    pub(super) fn new() -> Self {
        let mut world = World::new(2);
        let present = |n: u32| hypervisor::cpus::Present { apic_id: 2 * n, acpi_id: n + 1 };
        hypervisor::cpus::note((0..4).map(present).collect());
        world.go_to(0);
        let vcpu = world.go_back().expect("a vCPU runs");
        assert_eq!(vcpu.domid, DomId(0));
        Self(world)
    }

    pub(super) fn at() -> u64 {
        va(args_of(VcpuId(0)))
    }

    pub(super) fn ask<T: IntoBytes + Immutable>(&mut self, cmd: PlatformCmd, argument: &T) -> i64 {
        self.ask_with(cmd.0, XENPF_INTERFACE_VERSION, argument)
    }

    fn ask_with<T: IntoBytes + Immutable>(&mut self, cmd: u32, version: u32, argument: &T) -> i64 {
        assert!(guest::write(Self::at(), [cmd, version].as_bytes()));
        assert!(guest::write(Self::at() + HEAD, argument.as_bytes()));
        let result = self.0.call(HypercallNr::PLATFORM_OP, [Self::at(), 0, 0, 0, 0]);
        self.0.check();
        result
    }

    /// Reads the union.
    pub(super) fn answer<T: FromBytes + FromZeros + IntoBytes>(&self) -> T {
        Self::read(Self::at() + HEAD)
    }

    pub(super) fn read<T: FromBytes + FromZeros + IntoBytes>(at: u64) -> T {
        let mut value = T::new_zeroed();
        for (n, byte) in value.as_mut_bytes().iter_mut().enumerate() {
            *byte = guest::read(at + n as u64) as u8;
        }
        value
    }
}

pub(super) fn error(errno: Errno) -> i64 {
    errno.to_ret()
}

#[test]
fn who_may_ask() {
    let mut dom0 = Dom0::new();
    let quirk = PlatformQuirk { quirk_id: QUIRK_IOAPIC_GOOD_REGSEL };
    let quirks = PlatformCmd::PLATFORM_QUIRK;
    assert_eq!(dom0.ask(quirks, &quirk), 0);
    assert_eq!(dom0.ask(quirks, &PlatformQuirk { quirk_id: 4 }), error(Errno::EINVAL));
    assert_eq!(dom0.ask_with(quirks.0, XENPF_INTERFACE_VERSION + 1, &quirk), error(Errno::EACCES));
    for unknown in [0, 18, 64, u32::MAX] {
        assert_eq!(dom0.ask_with(unknown, XENPF_INTERFACE_VERSION, &quirk), error(Errno::ENOSYS));
    }
    dom0.0.go_to(1);
    let other = dom0.0.go_back().expect("a vCPU runs");
    assert_eq!(other.domid, DomId(1));
    assert_eq!(dom0.ask(quirks, &quirk), error(Errno::EPERM));
    dom0.0.finish();
}

#[test]
fn cpus_by_number() {
    let mut dom0 = Dom0::new();
    let mut info = |number| {
        assert_eq!(dom0.ask(PlatformCmd::GET_CPUINFO, &PcpuInfo { xen_cpuid: number, ..PcpuInfo::default() }), 0);
        let info: PcpuInfo = dom0.answer();
        assert_eq!((info.xen_cpuid, info.max_present), (number, 3));
        info
    };
    let first = info(1);
    assert_eq!((first.apic_id, first.acpi_id, first.flags), (2, 2, XEN_PCPU_FLAGS_ONLINE));
    let idle = info(3);
    assert_eq!((idle.apic_id, idle.acpi_id, idle.flags), (6, 4, 0));
    for absent in [4, 256, u32::MAX] {
        assert_eq!(info(absent).flags, XEN_PCPU_FLAGS_INVALID);
    }
    let mut version = |number| {
        let asked = PcpuVersion { xen_cpuid: number, family: 9, ..PcpuVersion::default() };
        assert_eq!(dom0.ask(PlatformCmd::GET_CPU_VERSION, &asked), 0);
        dom0.answer::<PcpuVersion>()
    };
    assert_eq!(&version(0).vendor_id, b"GenuineIntel");
    assert_eq!((version(1).family, version(1).max_present), (6, 3));
    for absent in [2, 4, u32::MAX] {
        assert_eq!((version(absent).vendor_id, version(absent).family), ([0; 12], 0));
    }
    dom0.0.finish();
}

#[test]
fn cpus_stay_as_they_are() {
    let mut dom0 = Dom0::new();
    let mut ask = |cmd, cpuid| dom0.ask(cmd, &CpuOnlineOffline { cpuid });
    let (online, offline) = (PlatformCmd::CPU_ONLINE, PlatformCmd::CPU_OFFLINE);
    let impossible = error(Errno::EOPNOTSUPP);
    assert_eq!([ask(online, 0), ask(online, 1), ask(online, 2)], [0, 0, impossible]);
    assert_eq!([ask(offline, 0), ask(offline, 1), ask(offline, 2)], [impossible, impossible, 0]);
    assert_eq!([ask(online, 4), ask(offline, u32::MAX)], [error(Errno::EINVAL); 2]);
    let mut park = |kind, idle_nums| dom0.ask(PlatformCmd::CORE_PARKING, &CoreParking { kind, idle_nums });
    assert_eq!(park(XEN_CORE_PARKING_GET, 7), 0);
    assert_eq!([park(XEN_CORE_PARKING_SET, 0), park(XEN_CORE_PARKING_SET, 1)], [0, impossible]);
    assert_eq!(park(3, 0), error(Errno::EINVAL));
    assert_eq!(dom0.ask(PlatformCmd::CPU_HOTADD, &CpuHotadd::default()), impossible);
    assert_eq!(dom0.ask(PlatformCmd::MEM_HOTADD, &MemHotadd::default()), impossible);
    dom0.0.finish();
}

#[test]
fn idle_time() {
    let mut dom0 = Dom0::new();
    let map = Dom0::at() + LIST;
    let times = map + 0x20;
    let now = arch::time::now();
    cpu::leave_idle(now);
    cpu::set_this_cpu(CpuId(1));
    cpu::leave_idle(now);
    let before = cpu::idle_time(CpuId(1), now);
    cpu::enter_idle(now - 1000);
    cpu::leave_idle(now);
    cpu::set_this_cpu(CpuId(0));
    let request = GetIdleTime {
        cpumap_bitmap: GuestPtr::new(map),
        cpumap_nr_cpus: 9,
        idletime: GuestPtr::new(times),
        ..GetIdleTime::default()
    };
    assert!(guest::write(map, &[0b0010_0110, 0xff]));
    assert!(guest::write(times, [[0xffu8; 8]; 9].as_bytes()));
    assert_eq!(dom0.ask(PlatformCmd::GETIDLETIME, &request), 0);
    // CPU 8 is the last that was asked for.
    assert_eq!(Dom0::read::<[u8; 2]>(map), [0b10, 0]);
    let times: [u64; 9] = Dom0::read(times);
    assert_eq!(times[1], before + 1000);
    assert_eq!([times[2], times[5], times[8]], [0; 3], "of CPUs that do not run");
    assert_eq!([times[0], times[3], times[7]], [u64::MAX; 3], "not asked for");
    assert!(dom0.answer::<GetIdleTime>().now >= now);
    let fault = error(Errno::EFAULT);
    let hole = GuestPtr::new(hypercalls::addr::HOLE_START);
    assert_eq!(dom0.ask(PlatformCmd::GETIDLETIME, &GetIdleTime { cpumap_bitmap: hole, ..request }), fault);
    assert!(guest::write(map, &[1]));
    assert_eq!(dom0.ask(PlatformCmd::GETIDLETIME, &GetIdleTime { idletime: GuestPtr::new(hole.0), ..request }), fault);
    let huge = GetIdleTime { cpumap_nr_cpus: u32::MAX, ..request };
    assert_eq!(dom0.ask(PlatformCmd::GETIDLETIME, &huge), error(Errno::EINVAL));
    dom0.0.finish();
}

#[test]
fn power_states_are_kept() {
    let mut dom0 = Dom0::new();
    let list = Dom0::at() + LIST;
    let pminfo = PlatformCmd::SET_PROCESSOR_PMINFO;
    let states = [1u8, 2].map(|kind| ProcessorCx { kind, latency: u32::from(kind) * 10, ..ProcessorCx::default() });
    assert!(guest::write(list, states.as_bytes()));
    let idle =
        PowerInfo { id: 3, kind: PmInfoType::CX, count: 2, flags: 4, states: GuestPtr::new(list), _rest: [0; 11] };
    assert_eq!(dom0.ask(pminfo, &idle), 0);
    let known = power::known(2).and_then(|info| info.idle).expect("told");
    assert_eq!((known.flags, known.states.as_slice()), (4, &states[..]));
    assert_eq!(dom0.ask(pminfo, &PowerInfo { id: 5, ..idle }), error(Errno::EINVAL), "no such CPU");
    assert_eq!(dom0.ask(pminfo, &PowerInfo { count: 257, ..idle }), error(Errno::EINVAL));
    assert_eq!(
        dom0.ask(pminfo, &PowerInfo { count: u32::MAX, states: GuestPtr::new(u64::MAX), ..idle }),
        error(Errno::EFAULT)
    );
    assert_eq!(dom0.ask(pminfo, &PowerInfo { states: GuestPtr::NULL, ..idle }), error(Errno::EFAULT));
    assert_eq!(power::known(2).and_then(|info| info.idle), Some(known), "what failed changed nothing");

    let px = [3000u64, 2000].map(|core_frequency| ProcessorPx { core_frequency, ..ProcessorPx::default() });
    assert!(guest::write(list, px.as_bytes()));
    let all = PerformanceInfo {
        id: 1,
        kind: PmInfoType::PX,
        flags: XEN_PX_PCT | XEN_PX_PSS | XEN_PX_PSD | XEN_PX_PPC,
        state_count: 2,
        states: GuestPtr::new(list),
        shared_type: XEN_CPUPERF_SHARED_TYPE_ALL,
        ..PerformanceInfo::default()
    };
    assert_eq!(dom0.ask(pminfo, &all), 0);
    assert_eq!(
        dom0.ask(pminfo, &PerformanceInfo { flags: XEN_PX_PPC, platform_limit: 1, states: GuestPtr::NULL, ..all }),
        0
    );
    let known = power::known(0).expect("told").performance;
    assert_eq!((known.limit, known.states.as_deref()), (Some(1), Some(&px[..])));
    let mut odd = all;
    odd.control_register.space_id = 1;
    assert_eq!(dom0.ask(pminfo, &odd), error(Errno::EINVAL));
    assert_eq!(dom0.ask(pminfo, &PerformanceInfo { state_count: 1, ..all }), error(Errno::EINVAL));
    assert_eq!(dom0.ask(pminfo, &PerformanceInfo { shared_type: 4, ..all }), error(Errno::EINVAL));
    assert_eq!(power::known(0).map(|info| info.performance), Some(known));
    dom0.0.finish();
}

#[test]
fn capabilities_and_throttling() {
    let mut dom0 = Dom0::new();
    let list = Dom0::at() + LIST;
    let mut pdc = |id, words: [u32; 3], kind| {
        assert!(guest::write(list, words.as_bytes()));
        let mut u = [0; 13];
        u[0] = list;
        let result = dom0.ask(PlatformCmd::SET_PROCESSOR_PMINFO, &SetProcessorPminfo { id, kind, u });
        (result, Dom0::read::<[u32; 3]>(list)[2])
    };
    let refused = error(Errno::EINVAL);
    assert_eq!(pdc(u32::MAX, [1, 1, 0xff], PmInfoType::PDC), (0, 0));
    assert_eq!(pdc(2, [1, 1, 0xff], PmInfoType::PDC), (0, 0));
    assert_eq!(pdc(3, [1, 1, 0xff], PmInfoType::PDC), (refused, 0xff), "a CPU that does not run");
    assert_eq!(pdc(u32::MAX, [2, 1, 0xff], PmInfoType::PDC), (refused, 0xff));
    assert_eq!(pdc(u32::MAX, [1, 0, 0xff], PmInfoType::PDC), (refused, 0xff));
    assert_eq!(pdc(1, [1, 1, 0xff], PmInfoType::TX).0, error(Errno::ENOSYS));
    assert_eq!(pdc(1, [1, 1, 0xff], PmInfoType(9)).0, refused);
    dom0.0.finish();
}

#[test]
fn sleep() {
    let mut dom0 = Dom0::new();
    let sleep = PlatformCmd::ENTER_ACPI_SLEEP;
    let off = EnterAcpiSleep { val_a: 0x3401, val_b: 0, sleep_state: 5, flags: 0 };
    let cases = [
        (EnterAcpiSleep { sleep_state: 0, ..off }, Errno::EINVAL),
        (EnterAcpiSleep { sleep_state: 6, ..off }, Errno::EINVAL),
        (EnterAcpiSleep { sleep_state: 3, ..off }, Errno::EOPNOTSUPP),
        (EnterAcpiSleep { val_b: 0x1401, ..off }, Errno::EINVAL),
        (EnterAcpiSleep { flags: 2, ..off }, Errno::EINVAL),
        (EnterAcpiSleep { val_a: 8, flags: XENPF_ACPI_SLEEP_EXTENDED, ..off }, Errno::ERANGE),
        // The simulated machine has no register for it.
        (EnterAcpiSleep { val_a: 5, val_b: 0xff, flags: XENPF_ACPI_SLEEP_EXTENDED, ..off }, Errno::EPERM),
    ];
    for (request, errno) in cases {
        assert_eq!(dom0.ask(sleep, &request), error(errno), "{request:?}");
        assert_eq!(dom0.0.end, None);
    }
    assert!(guest::write(Dom0::at(), [sleep.0, XENPF_INTERFACE_VERSION].as_bytes()));
    assert!(guest::write(Dom0::at() + HEAD, off.as_bytes()));
    let vcpu = dom0.0.go_back().expect("a vCPU runs");
    dom0.0.syscall(vcpu, HypercallNr::PLATFORM_OP.0, [Dom0::at(), 0, 0, 0, 0]);
    assert_eq!(dom0.0.end, Some(MachineEnd::PowerOff));
}

#[test]
fn firmware_and_symbols() {
    let mut dom0 = Dom0::new();
    let mut firmware = |kind, index| {
        let result = dom0.ask(PlatformCmd::FIRMWARE_INFO, &FirmwareInfo { kind, index, u: [7; 4] });
        (result, dom0.answer::<FirmwareKbd>().shift_flags)
    };
    hypervisor::firmware::KEYBOARD_FLAGS.store(0x20, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(firmware(FirmwareType::KBD_SHIFT_FLAGS, 0), (0, 0x20));
    let none = (error(Errno::ESRCH), 7);
    assert_eq!(firmware(FirmwareType::KBD_SHIFT_FLAGS, 1), none);
    for kind in [FirmwareType::DISK_INFO, FirmwareType::DISK_MBR_SIGNATURE, FirmwareType::VBEDDC_INFO] {
        assert_eq!(firmware(kind, 0), none);
    }
    assert_eq!(firmware(FirmwareType::EFI_INFO, 0), (error(Errno::ENOSYS), 7));
    assert_eq!(firmware(FirmwareType(6), 0), (error(Errno::EINVAL), 7));
    let name = Dom0::at() + LIST;
    assert!(guest::write(name, b"xx"));
    let symbols = SymData { namelen: 2, name: GuestPtr::new(name), address: 9, ..SymData::default() };
    assert_eq!(dom0.ask(PlatformCmd::GET_SYMBOL, &symbols), 0);
    let answer: SymData = dom0.answer();
    assert_eq!((answer.namelen, answer.symnum, answer.address), (1, 0, 0));
    assert_eq!(&Dom0::read::<[u8; 2]>(name), b"\0x");
    assert_eq!(dom0.ask(PlatformCmd::GET_SYMBOL, &SymData { symnum: 1, ..symbols }), error(Errno::ERANGE));
    dom0.0.finish();
}
