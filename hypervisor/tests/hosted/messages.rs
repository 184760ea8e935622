// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages of PCI functions: dom0 tells of them, maps their messages, and writes to their configuration space.

use arch::pci::{self, Words};
use arch::{CpuId, apic, registers};
use hypercalls::physdev::{
    MapPirqType, PhysdevManagePci, PhysdevMapPirq, PhysdevOp, PhysdevPciDevice, PhysdevPciDeviceAdd,
    PhysdevPciMmcfgReserved, PhysdevUnmapPirq,
};
use hypercalls::{DomId, Errno, Mfn};
use hypervisor::emulate::Width;
use hypervisor::irq::{self, vectors};
use hypervisor::pci::{Place, config, device, ecam, guard, watch};
use hypervisor::{events, pirq};
use mm::{IoAccess, IoPolicy};

use super::interrupts::{Machine, err};

/// A card with MSI-X: table at 0xfeb0_0800, pending bits in the next page.
const CARD: u8 = 0x18;
const TABLE: u64 = 0xfeb0_0800;
/// A disk controller with MSI of 4 messages, 64-bit addresses and mask bits.
const DISK: u8 = 0xfa;
/// One with plain MSI.
const PLAIN: u8 = 0x20;

/// Offsets of the capabilities.
const MSIX: u16 = 0x70;
const MSI: u16 = 0x50;

fn header(id: u32, capability: usize) -> (Words, Words) {
    let (mut words, mut writable) = ([0; 64], [0; 64]);
    (words[0], words[1], words[13]) = (id, 0x0010_0002, capability as u32);
    writable[1] = 0x0000_0546;
    (words, writable)
}

fn plug() {
    let (mut words, mut writable) = header(0x1041_1af4, MSIX.into());
    (words[4], words[5], words[6]) = (0xfeb0_0000, 0xc001, 0xe000_000c);
    (writable[4], writable[6]) = (0xffff_f000, 0xffff_f000);
    let at = usize::from(MSIX) / 4;
    // Eight entries, left enabled by the firmware.
    (words[at], words[at + 1], words[at + 2]) = (0x8007_0011, 0x800, 0x1000);
    writable[at] = 0xc000_0000;
    pci::plug(0, CARD, words, writable);
    let (mut words, mut writable) = header(0x2922_8086, MSI.into());
    let at = usize::from(MSI) / 4;
    words[at] = 0x0185_0005;
    (writable[at], writable[at + 1], writable[at + 2]) = (0x0071_0000, 0xffff_fffc, u32::MAX);
    (writable[at + 3], writable[at + 4]) = (0xffff, 0xf);
    pci::plug(0, DISK, words, writable);
    let (mut words, mut writable) = header(0x1234_8086, MSI.into());
    words[at] = 0x0000_0005;
    (writable[at], writable[at + 1], writable[at + 2]) = (0x0071_0000, 0xffff_fffc, 0xffff);
    pci::plug(0, PLAIN, words, writable);
}

fn machine(cpus: u16) -> Machine {
    let mut m = Machine::new(cpus);
    plug();
    for devfn in [CARD, DISK, PLAIN] {
        let add = PhysdevPciDeviceAdd { devfn, ..Default::default() };
        assert_eq!(m.physdev(PhysdevOp::PCI_DEVICE_ADD, &add).0, 0);
    }
    m
}

fn place(devfn: u8) -> Place {
    Place { segment: 0, bus: 0, devfn }
}

fn word(devfn: u8, at: u16) -> u32 {
    pci::peek(0, devfn, at as u8)
}

fn asked(devfn: u8, kind: MapPirqType, entry_nr: i32, table_base: u64) -> PhysdevMapPirq {
    let all = PhysdevMapPirq { domid: DomId::SELF, kind, index: -1, pirq: -1, ..Default::default() };
    PhysdevMapPirq { devfn: devfn.into(), entry_nr, table_base, ..all }
}

fn msix(entry: i32) -> PhysdevMapPirq {
    asked(CARD, MapPirqType::MSI_SEG, entry, 0xfeb0_0000)
}

fn map(m: &mut Machine, wanted: &PhysdevMapPirq) -> Result<u32, i64> {
    match m.physdev(PhysdevOp::MAP_PIRQ, wanted) {
        (0, answer) => Ok(answer.pirq as u32),
        (error, _) => Err(error),
    }
}

fn unmap(m: &mut Machine, pirq: u32) -> i64 {
    let arg = PhysdevUnmapPirq { domid: DomId::SELF, pirq: pirq as i32, ..Default::default() };
    m.physdev(PhysdevOp::UNMAP_PIRQ, &arg).0
}

/// The device sends a message: the words are where and what.
fn send(address: u32, data: u32) {
    assert_eq!(address & !0xff000, 0xfee0_0000, "a message to a local APIC");
    apic::send(CpuId((address >> 12 & 0xff) as u16), data as u8);
}

/// An entry of the card's table.
fn entry(n: u64) -> [u32; 4] {
    core::array::from_fn(|word| registers::peek(TABLE + n * 16 + word as u64 * 4))
}

/// The card has something to say; nothing happens while it may not.
fn fire(n: u64) {
    let control = word(CARD, MSIX) >> 16;
    let [low, 0, data, mask] = entry(n) else { panic!("a message above 4 GiB") };
    if control & 0x8000 != 0 && control & 0x4000 == 0 && mask & 1 == 0 {
        send(low, data);
    }
}

#[test]
fn entries_of_msix() {
    let mut m = machine(1);
    assert_eq!(word(CARD, MSIX) >> 31, 0, "what the firmware left on is off");
    // dom0 enables everything masked first, then maps, then lets through: as Linux does.
    watch::write(place(CARD), MSIX + 2, Width::Word, 0xc007);
    let first = map(&mut m, &msix(1)).expect("mapped");
    assert_eq!(entry(0)[3], 1, "entries that are not in use are masked");
    watch::write(place(CARD), MSIX + 2, Width::Word, 0x8007);
    assert_eq!(entry(1)[3], 1, "nobody listens yet");
    let port = pirq::bind(m.domain(0), first, false).expect("bound");
    fire(1);
    assert_eq!(m.take(0), 1);
    assert!(m.told(0, port));
    assert_eq!(map(&mut m, &msix(1)), Err(err(Errno::EEXIST)));
    assert_eq!(map(&mut m, &msix(8)), Err(err(Errno::EINVAL)), "it has 8");
    assert_eq!(map(&mut m, &asked(CARD, MapPirqType::MSI_SEG, 0, 0)), Err(err(Errno::ENODEV)), "no MSI");
    let second = map(&mut m, &msix(7)).expect("mapped");
    assert_ne!(first, second);
    // Gone: masked, and the vector is somebody else's one day.
    assert_eq!(m.close(port), 0);
    assert_eq!(entry(1)[3], 1);
    assert_eq!((unmap(&mut m, first), unmap(&mut m, first)), (0, err(Errno::EINVAL)));
    assert_eq!(word(CARD, MSIX) >> 30, 2, "the other entry is in use");
    assert_eq!(unmap(&mut m, second), 0);
    assert_eq!(word(CARD, MSIX) >> 30, 3, "no entry in use: all masked");
    m.0.finish();
}

#[test]
fn a_message_follows_its_vcpu() {
    let mut m = machine(2);
    watch::write(place(CARD), MSIX + 2, Width::Word, 0x8007);
    let pirq = map(&mut m, &msix(0)).expect("mapped");
    let port = pirq::bind(m.domain(0), pirq, false).expect("bound");
    let vcpu = m.domain(0).vcpu(hypercalls::VcpuId(1)).expect("two");
    vcpu.status.cpu.store(1, std::sync::atomic::Ordering::Relaxed);
    events::bind_vcpu(m.domain(0), port, vcpu.id).expect("it can be moved");
    fire(0);
    assert_eq!(m.take(0), 1);
    assert!(m.told(0, port));
    fire(0);
    assert_eq!((m.take(0), m.take(1)), (0, 1));
    assert!(m.told(0, port));
    m.0.finish();
}

#[test]
fn several_messages_of_msi() {
    let mut m = machine(2);
    let several = |n| asked(DISK, MapPirqType::MULTI_MSI, n, 0);
    let (result, answer) = m.physdev(PhysdevOp::MAP_PIRQ, &several(8));
    assert_eq!((result, answer.entry_nr), (err(Errno::ENFILE), 4), "it can send 4");
    assert_eq!(map(&mut m, &several(0)), Err(err(Errno::EDOM)));
    assert_eq!(map(&mut m, &several(33)), Err(err(Errno::EDOM)));
    let (result, answer) = m.physdev(PhysdevOp::MAP_PIRQ, &several(3));
    assert_eq!((result, answer.entry_nr), (0, 4), "a power of two");
    let first = answer.pirq as u32;
    watch::write(place(DISK), MSI + 2, Width::Word, 0x0001);
    assert_eq!(word(DISK, MSI) >> 16 & 0x71, 0x21, "on, and the count is the hypervisor's");
    let ports: Vec<u32> = (0..4).map(|n| pirq::bind(m.domain(0), first + n, false).expect("bound")).collect();
    assert_eq!(word(DISK, MSI + 16) & 0xf, 0, "none masked");
    for (n, port) in (0..).zip(&ports) {
        send(word(DISK, MSI + 4), word(DISK, MSI + 12) | n);
        assert_eq!(m.take(0), 1);
        assert!(m.told(0, *port));
    }
    assert_eq!(m.close(ports[2]), 0);
    assert_eq!(word(DISK, MSI + 16) & 0xf, 4);
    assert_eq!(unmap(&mut m, first + 1), err(Errno::EBUSY), "they go together");
    assert_eq!(unmap(&mut m, first), 0);
    assert_eq!((word(DISK, MSI) >> 16 & 1, unmap(&mut m, first + 1)), (0, err(Errno::EINVAL)));
    m.0.finish();
}

#[test]
fn the_capability_is_the_hypervisors() {
    let mut m = machine(1);
    let put = |devfn, at, width, value| watch::write(place(devfn), at, width, value);
    put(PLAIN, MSI + 4, Width::Dword, 0x1234_5678);
    put(PLAIN, MSI + 2, Width::Word, 1);
    assert_eq!(word(PLAIN, MSI) >> 16 & 1, 0, "nothing is programmed: it may not send");
    let pirq = map(&mut m, &asked(PLAIN, MapPirqType::MSI, 0, 0)).expect("mapped");
    let programmed = [word(PLAIN, MSI + 4), word(PLAIN, MSI + 8)];
    assert_eq!(word(PLAIN, MSI) >> 16 & 1, 1, "dom0's wish is granted now");
    put(PLAIN, MSI + 4, Width::Dword, 0xfee0_1000);
    put(PLAIN, MSI + 8, Width::Word, 0x20);
    put(PLAIN, MSI + 5, Width::Byte, 0x20);
    assert_eq!([word(PLAIN, MSI + 4), word(PLAIN, MSI + 8)], programmed);
    put(PLAIN, MSI + 2, Width::Byte, 0x31);
    assert_eq!(word(PLAIN, MSI) >> 16 & 0x71, 1, "one message it is");
    put(PLAIN, MSI + 2, Width::Word, 0);
    assert_eq!(word(PLAIN, MSI) >> 16 & 1, 0, "off is always granted");
    put(PLAIN, MSI + 2, Width::Word, 1);
    assert_eq!((unmap(&mut m, pirq), word(PLAIN, MSI) >> 16 & 1), (0, 0));
    // MSI-X without an entry in use stays masked.
    put(CARD, MSIX + 2, Width::Word, 0x8000);
    assert_eq!(word(CARD, MSIX) >> 30, 3);
    m.0.finish();
}

#[test]
fn a_storm_of_messages_that_cannot_be_masked() {
    let mut m = machine(1);
    let pirq = map(&mut m, &asked(PLAIN, MapPirqType::MSI_SEG, 0, 0)).expect("mapped");
    watch::write(place(PLAIN), MSI + 2, Width::Word, 1);
    let port = pirq::bind(m.domain(0), pirq, false).expect("bound");
    let is_on = || word(PLAIN, MSI) >> 16 & 1 != 0;
    let storm = |m: &Machine| {
        let mut sent = 0;
        while is_on() {
            send(word(PLAIN, MSI + 4), word(PLAIN, MSI + 8));
            m.take(0);
            sent += 1;
            assert!(sent < 2000, "it is never switched off");
        }
    };
    storm(&m);
    assert!(m.told(0, port));
    arch::time::advance(irq::storm::PERIOD_NS * 2);
    irq::chores::run(CpuId(0), arch::time::now());
    assert!(is_on() && m.told(0, port), "on again, and what was lost is made up for");
    assert_eq!(m.close(port), 0);
    storm(&m);
    assert_eq!(unmap(&mut m, pirq), 0);
    m.0.finish();
}

#[test]
fn tables_are_read_only_for_dom0() {
    let mut m = machine(1);
    let access = |m: &Machine, mfn| m.domain(0).io.mmio(Mfn(mfn));
    assert_eq!(access(&m, 0xfeb00), IoAccess::ReadOnly, "the table");
    assert_eq!(access(&m, 0xfeb01), IoAccess::ReadOnly, "its pending bits");
    assert_eq!(access(&m, 0xfeb02), IoAccess::ReadWrite);
    // What is written beside the table is carried out, what is in it is not.
    assert!(guard::write(0xfeb0_0010, Width::Word, 0x1234) && guard::write(0xfeb0_0010, Width::Byte, 0x55));
    assert_eq!(registers::peek(0xfeb0_0010), 0x1255);
    let before = entry(2);
    assert!(guard::write(TABLE + 32, Width::Dword, 7) && guard::write(TABLE + 44, Width::Byte, 0));
    assert!(guard::write(0xfeb0_1000, Width::Dword, 7));
    assert_eq!((entry(2), registers::peek(0xfeb0_1000)), (before, 0));
    assert!(guard::write(TABLE + 128, Width::Dword, 9), "behind the eighth entry");
    assert_eq!(registers::peek(TABLE + 128), 9);
    assert!(!guard::write(0xfeb0_2000, Width::Dword, 1), "not guarded");
    // dom0 moves the registers, and switches them on again.
    watch::write(place(CARD), 4, Width::Word, 0);
    watch::write(place(CARD), 0x10, Width::Dword, u32::MAX);
    assert_eq!(config::read(place(CARD), 0x10, Width::Dword), 0xffff_f000, "its size");
    watch::write(place(CARD), 0x10, Width::Dword, 0xfea0_0000);
    assert_eq!(map(&mut m, &msix(0)), Err(err(Errno::ENXIO)), "switched off");
    watch::write(place(CARD), 4, Width::Word, 6);
    assert_eq!(device::find(place(CARD)).and_then(|d| d.table()), Some((0xfea0_0800, 0xfea0_1000)));
    assert_eq!((access(&m, 0xfeb00), access(&m, 0xfea00)), (IoAccess::ReadWrite, IoAccess::ReadOnly));
    // Not onto the hypervisor's own.
    watch::write(place(CARD), 0x10, Width::Dword, 0xfee0_0000);
    assert_eq!(device::find(place(CARD)).and_then(|d| d.table()), None);
    assert_eq!(map(&mut m, &msix(0)), Err(err(Errno::ENXIO)));
    m.0.finish();
}

#[test]
fn a_table_in_use_does_not_move() {
    let mut m = machine(1);
    let pirq = map(&mut m, &msix(3)).expect("mapped");
    let programmed = entry(3);
    watch::write(place(CARD), 0x10, Width::Dword, 0xfea0_0000);
    assert_eq!(device::find(place(CARD)).and_then(|d| d.table()), Some((TABLE, 0xfeb0_1000)));
    watch::write(place(CARD), 0x10, Width::Dword, 0xfeb0_0000);
    // The device loses its registers while it is off, and gets them back.
    let port = pirq::bind(m.domain(0), pirq, false).expect("bound");
    watch::write(place(CARD), 4, Width::Word, 0);
    (0..4).for_each(|n| registers::poke(TABLE + 48 + n * 4, 0));
    watch::write(place(CARD), 4, Width::Word, 6);
    assert_eq!(entry(3)[..3], programmed[..3]);
    assert_eq!(entry(3)[3], 0, "somebody listens");
    registers::poke(TABLE + 48, 0);
    let restore = PhysdevPciDevice { seg: 0, bus: 0, devfn: CARD };
    assert_eq!(m.physdev(PhysdevOp::RESTORE_MSI_EXT, &restore).0, 0);
    assert_eq!(entry(3)[0], programmed[0]);
    let nobody = PhysdevManagePci { bus: 9, devfn: 0 };
    assert_eq!(m.physdev(PhysdevOp::RESTORE_MSI, &nobody).0, err(Errno::ENODEV));
    assert_eq!(m.close(port), 0);
    m.0.finish();
}

#[test]
fn functions_come_and_go() {
    let mut m = machine(1);
    let nothing = PhysdevPciDeviceAdd { devfn: 0x48, ..Default::default() };
    assert_eq!(m.physdev(PhysdevOp::PCI_DEVICE_ADD, &nothing).0, err(Errno::ENODEV));
    assert_eq!(map(&mut m, &asked(0x48, MapPirqType::MSI_SEG, 0, 0)), Err(err(Errno::ENODEV)));
    assert_eq!(m.physdev(PhysdevOp::MANAGE_PCI_ADD, &PhysdevManagePci { bus: 0, devfn: CARD }).0, 0, "known already");
    let pirq = map(&mut m, &msix(0)).expect("mapped");
    let port = pirq::bind(m.domain(0), pirq, false).expect("bound");
    let free = vectors::of(CpuId(0)).free();
    let it = PhysdevPciDevice { seg: 0, bus: 0, devfn: CARD };
    assert_eq!(m.physdev(PhysdevOp::PREPARE_MSIX, &it).0, err(Errno::EBUSY), "in use");
    assert_eq!(m.physdev(PhysdevOp::PCI_DEVICE_REMOVE, &it).0, 0);
    assert_eq!(m.physdev(PhysdevOp::PCI_DEVICE_REMOVE, &it).0, err(Errno::ENODEV));
    assert_eq!(m.domain(0).io.mmio(Mfn(0xfeb00)), IoAccess::ReadWrite);
    assert_eq!((m.eoi(pirq), m.close(port)), (err(Errno::EINVAL), 0), "its port is left, and silent");
    arch::time::advance(5_000_000);
    irq::chores::run(CpuId(0), arch::time::now());
    assert_eq!(vectors::of(CpuId(0)).free(), free + 1);
    let again = PhysdevPciDeviceAdd { devfn: CARD, ..Default::default() };
    assert_eq!(m.physdev(PhysdevOp::PCI_DEVICE_ADD, &again).0, 0);
    assert_eq!(m.physdev(PhysdevOp::PREPARE_MSIX, &it).0, 0);
    assert_eq!(m.physdev(PhysdevOp::PREPARE_MSIX, &it).0, err(Errno::EBUSY));
    assert_eq!(m.physdev(PhysdevOp::RELEASE_MSIX, &it).0, 0);
    assert_eq!(m.physdev(PhysdevOp::RELEASE_MSIX, &it).0, err(Errno::EBUSY));
    let disk = PhysdevPciDevice { devfn: DISK, ..it };
    assert_eq!(m.physdev(PhysdevOp::PREPARE_MSIX, &disk).0, err(Errno::ENODEV), "no MSI-X");
    m.0.finish();
}

#[test]
fn nothing_is_left_when_a_step_fails() {
    let mut m = machine(2);
    let hold: Vec<(u16, u8)> = (0..2u16)
        .flat_map(|c| std::iter::from_fn(move || vectors::of(CpuId(c)).allocate(9999)).map(move |v| (c, v)))
        .collect();
    assert_eq!(map(&mut m, &msix(0)), Err(err(Errno::ENOSPC)), "no vector");
    assert_eq!(map(&mut m, &asked(DISK, MapPirqType::MULTI_MSI, 4, 0)), Err(err(Errno::ENOSPC)));
    for (cpu, vector) in hold {
        vectors::of(CpuId(cpu)).retire(vector, 9999);
        vectors::of(CpuId(cpu)).reap(|_| false);
    }
    let mut used = 0;
    while m.domain(0).pirqs.reserve(false).is_ok() {
        used += 1;
    }
    assert!(used > 0);
    assert_eq!(map(&mut m, &msix(0)), Err(err(Errno::ENOSPC)), "no PIRQ");
    assert_eq!(map(&mut m, &PhysdevMapPirq { pirq: 1 << 20, ..msix(0) }), Err(err(Errno::EINVAL)));
    assert_eq!(map(&mut m, &PhysdevMapPirq { index: 3, ..msix(0) }), Err(err(Errno::EINVAL)));
    for number in 0..m.domain(0).pirqs.count() {
        let _ = pirq::unmap(m.domain(0), number);
    }
    let free = |m: &mut Machine| {
        arch::time::advance(5_000_000);
        for cpu in 0..2 {
            m.0.go_to(cpu);
            irq::chores::run(CpuId(cpu), arch::time::now());
        }
        m.0.go_to(0);
        [0, 1].map(|cpu| vectors::of(CpuId(cpu)).free())
    };
    let before = free(&mut m);
    let all: Vec<u32> = (0..8).map(|n| map(&mut m, &msix(n)).expect("all of it is free again")).collect();
    all.iter().for_each(|p| assert_eq!(unmap(&mut m, *p), 0));
    let first = map(&mut m, &asked(DISK, MapPirqType::MULTI_MSI, 4, 0)).expect("likewise");
    assert_eq!(unmap(&mut m, first), 0);
    assert_eq!(free(&mut m), before);
    m.0.finish();
}

#[test]
fn a_window_of_configuration_space() {
    let mut m = machine(1);
    let window = ecam::Window { base: 0xb000_0000, segment: 0, first_bus: 0, last_bus: 3 };
    ecam::init([window].into_iter(), |_| false);
    let extended = |at| config::read(place(CARD), at, Width::Dword);
    assert_eq!(extended(0x100), u32::MAX, "not used yet");
    assert_eq!(m.domain(0).io.mmio(Mfn(0xb0000)), IoAccess::ReadWrite);
    let said = PhysdevPciMmcfgReserved { address: 0xb000_0000, segment: 0, start_bus: 0, end_bus: 3, flags: 1 };
    let other = PhysdevPciMmcfgReserved { end_bus: 4, ..said };
    assert_eq!(m.physdev(PhysdevOp::PCI_MMCFG_RESERVED, &other).0, err(Errno::ENODEV));
    assert_eq!(m.physdev(PhysdevOp::PCI_MMCFG_RESERVED, &said).0, 0);
    let at = 0xb000_0000 + (u64::from(CARD) << 12);
    registers::poke(at + 0x100, 0x1234_5678);
    assert_eq!(extended(0x100), 0x1234_5678);
    assert_eq!(config::read(place(CARD), 0x102, Width::Byte), 0x34);
    assert_eq!(config::read(place(CARD), 0x103, Width::Word), u32::MAX, "across a word");
    // dom0 finds the window read-only, and what it writes there is looked at as what it writes by ports.
    assert_eq!(m.domain(0).io.mmio(Mfn(0xb0000)), IoAccess::ReadOnly);
    assert!(guard::write(at + 0x100, Width::Byte, 0xff));
    assert_eq!(extended(0x100), 0x1234_56ff);
    assert!(guard::write(at + u64::from(MSIX) + 2, Width::Word, 0x8000));
    assert_eq!(word(CARD, MSIX) >> 30, 3, "all masked: no entry is in use");
    assert_eq!(m.physdev(PhysdevOp::PCI_MMCFG_RESERVED, &PhysdevPciMmcfgReserved { flags: 0, ..said }).0, 0);
    assert_eq!(extended(0x100), u32::MAX);
    m.0.finish();
}
