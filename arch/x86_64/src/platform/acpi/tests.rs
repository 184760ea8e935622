// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole sets of tables, made here, good and broken.

use std::vec::Vec;

use super::*;

/// Machine memory from address 0.
struct Machine(Vec<u8>);

impl Machine {
    fn read(&self, maddr: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(maddr).ok()?;
        self.0.get(start..start.checked_add(len)?)
    }
    fn discover(&self, rsdp: Option<&[u8]>) -> Platform {
        discover(rsdp, &|maddr, len| self.read(maddr, len))
    }
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn fix(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = 0u8.wrapping_sub(bytes.iter().fold(0, |s: u8, b| s.wrapping_add(*b)));
}

fn make(name: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = std::vec![0; HEADER];
    table[..4].copy_from_slice(name);
    table.extend_from_slice(body);
    let len = table.len() as u32;
    table[4..8].copy_from_slice(&len.to_le_bytes());
    table[8] = revision;
    fix(&mut table, 9);
    table
}

fn make_rsdp(rsdt: u32, xsdt: Option<u64>) -> Vec<u8> {
    let mut rsdp = b"RSD PTR \0OEMOEM\0".to_vec();
    rsdp.extend(rsdt.to_le_bytes());
    fix(&mut rsdp, 8);
    if let Some(xsdt) = xsdt {
        rsdp[15] = 2;
        fix(&mut rsdp, 8);
        rsdp.extend(36u32.to_le_bytes());
        rsdp.extend(xsdt.to_le_bytes());
        rsdp.extend([0; 4]);
        fix(&mut rsdp, 32);
    }
    rsdp
}

const RSDP: usize = 0xf_0010;
const RSDT: usize = 0x10_0000;
const XSDT: usize = 0x10_1000;
const MADT: usize = 0x10_2000;
const FADT: usize = 0x10_3000;
const DSDT: usize = 0x10_4000;
const HPET: usize = 0x10_5000;
const DMAR: usize = 0x10_6000;

fn madt_body() -> Vec<u8> {
    let mut body = 0xfee0_0000u32.to_le_bytes().to_vec();
    body.extend(1u32.to_le_bytes());
    body.extend([0, 8, 0, 0, 1, 0, 0, 0]);
    body.extend([0, 8, 7, 6, 0, 0, 0, 0]); // a slot without a CPU
    body.extend([0, 8, 1, 2, 1, 0, 0, 0]);
    body.extend([9, 16, 0, 0, 0x34, 0x12, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
    body.extend([9, 16, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]); // the second CPU once more
    body.extend([1, 12, 3, 0, 0, 0, 0xc0, 0xfe, 24, 0, 0, 0]);
    body.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    body.extend([2, 10, 0, 9, 20, 0, 0, 0, 0xf, 0]);
    body.extend([4, 6, 0xff, 0, 0, 1]);
    body
}

fn fadt_body() -> Vec<u8> {
    let mut body = std::vec![0; 244 - HEADER];
    let mut put = |at: usize, bytes: &[u8]| body[at - HEADER..at - HEADER + bytes.len()].copy_from_slice(bytes);
    put(40, &(DSDT as u32).to_le_bytes());
    put(46, &9u16.to_le_bytes());
    put(48, &0xb2u32.to_le_bytes());
    put(52, &[2]);
    put(64, &0x604u32.to_le_bytes());
    put(76, &0x608u32.to_le_bytes());
    put(89, &[2]);
    put(91, &[4]);
    put(108, &[0x32]);
    put(112, &(1u32 << 8 | 1 << 10).to_le_bytes());
    put(116, &[1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0]);
    put(128, &[0x0f]);
    body
}

fn machine() -> Machine {
    let mut m = Machine(std::vec![0; 0x11_0000]);
    m.put(RSDP, &make_rsdp(RSDT as u32, Some(XSDT as u64)));
    let tables = [MADT, FADT, HPET, DMAR];
    let rsdt: Vec<u8> = tables.iter().flat_map(|t| (*t as u32).to_le_bytes()).collect();
    let xsdt: Vec<u8> = tables.iter().flat_map(|t| (*t as u64).to_le_bytes()).collect();
    m.put(RSDT, &make(b"RSDT", 1, &rsdt));
    m.put(XSDT, &make(b"XSDT", 1, &xsdt));
    m.put(MADT, &make(b"APIC", 1, &madt_body()));
    m.put(FADT, &make(b"FACP", 3, &fadt_body()));
    m.put(DSDT, &make(b"DSDT", 1, b"junk\x08_S5_\x12\x06\x04\x00\x01\x00\x00"));
    m.put(DMAR, &make(b"DMAR", 1, &[38, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    m.put(HPET, &make(b"HPET", 1, &[0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0xd0, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0]));
    m
}

#[test]
fn whole() {
    let p = machine().discover(None);
    assert!(p.problems.is_empty(), "{:?}", p.problems);
    assert_eq!(p.rsdp_maddr, Some(RSDP as u64));
    let cpus: Vec<_> = p.cpus.iter().map(|c| (c.apic_id, c.acpi_id, c.enabled)).collect();
    assert_eq!(cpus, [(0, 0, true), (2, 1, true), (0x1234, 9, true), (6, 7, false)]);
    assert_eq!(p.ioapics[..], [IoApicInfo { id: 3, maddr: 0xfec0_0000, gsi_base: 24 }]);
    assert_eq!(p.isa_irq(0), (2, LineMode::default()));
    assert_eq!(p.isa_irq(9), (20, LineMode { level: true, active_low: true }));
    assert_eq!(p.isa_irq(4), (4, LineMode::default()));
    assert_eq!(p.pm_timer, Some(PmTimer { port: 0x608, bits: 32 }));
    assert_eq!(p.hpet_base, Some(0xfed0_0000));
    assert_eq!(p.iommus[..], [(*b"DMAR", DMAR as u64)]);
    assert_eq!(p.rtc_century, 0x32);
    assert_eq!(p.power.pm1a_control, Some(0x604));
    assert_eq!(p.power.pm1b_control, None);
    assert_eq!(p.power.s5, Some((0, 1)));
    assert_eq!(p.power.reset, Some((Register::Io { port: 0xcf9, bits: 8 }, 0x0f)));
    assert_eq!(p.power.enable, Some((0xb2, 2)));
    assert_eq!(p.power.sci, 9);
}

#[test]
fn loader_copy_and_old_revision() {
    let m = machine();
    let p = m.discover(Some(&make_rsdp(RSDT as u32, None)));
    assert!(p.problems.is_empty());
    assert_eq!((p.cpus.len(), p.rsdp_maddr), (4, None));
    // A broken copy is named, and the scan finds the good one.
    let p = m.discover(Some(b"RSD PTR garbage garbage"));
    assert_eq!(p.problems[..], [AcpiError::BadRootPointer]);
    assert_eq!(p.cpus.len(), 4);
}

/// The areas that a BIOS may leave its root pointer in, and what in them is none.
#[test]
fn the_root_pointer_is_where_a_bios_leaves_it() {
    let pointer = make_rsdp(RSDT as u32, Some(XSDT as u64));
    let found = |places: &[(usize, &[u8])], ebda: u16| {
        let mut m = machine();
        m.put(RSDP, &[0; 64]);
        m.put(0x40e, &ebda.to_le_bytes());
        places.iter().for_each(|(at, bytes)| m.put(*at, bytes));
        m.discover(None).rsdp_maddr
    };
    // Both ends of the BIOS's own area, on paragraphs only, and nothing below or within a paragraph.
    for at in [0xe_0000, 0xe_0010, 0xf_fff0 - 0x20] {
        assert_eq!(found(&[(at, &pointer)], 0), Some(at as u64), "{at:#x}");
    }
    for at in [0xd_fff0, 0xe_0008, 0xf_0001, 0xc_0000] {
        assert_eq!(found(&[(at, &pointer)], 0), None, "{at:#x}");
    }
    // The first KiB of the extended BIOS data, wherever the pointer at 0x40e says that they are; most often it is 0x9fc0.
    for ebda in [0x8000, 0x9e80, 0x9fc0] {
        let start = usize::from(ebda) << 4;
        for at in [start, start + 0x3d0] {
            assert_eq!(found(&[(at, &pointer)], ebda), Some(at as u64), "{at:#x}");
            assert_eq!(found(&[(at, &pointer), (0xf_0000, &pointer)], ebda), Some(at as u64), "the first place counts");
        }
        assert_eq!(found(&[(start - 16, &pointer)], ebda), None, "in front of it");
        assert_eq!(found(&[(start, &pointer), (0xf_0000, &pointer)], 0), Some(0xf_0000), "no such area");
    }
    // Pointers to no such data are not followed.
    for ebda in [1, 0x40, 0xa000, 0xffff] {
        assert_eq!(found(&[(0xf_0000, &pointer)], ebda), Some(0xf_0000), "{ebda:#x}");
    }
    // What is damaged is passed over, in either checksum.
    for byte in [0, 8, 15, 16, 24, 32] {
        let mut bad = pointer.clone();
        bad[byte] ^= 0x40;
        assert_eq!(found(&[(0xe_0000, &bad)], 0), None, "byte {byte}");
        assert_eq!(found(&[(0xe_0000, &bad), (0xe_1230, &pointer)], 0), Some(0xe_1230), "byte {byte}");
    }
}

#[test]
fn broken_tables_are_named() {
    let none = Machine(std::vec![0; 0x11_0000]).discover(None);
    assert_eq!(none.problems[..], [AcpiError::NoRootPointer]);
    assert!(none.cpus.is_empty());

    let mut m = machine();
    m.0[XSDT + 9] ^= 1;
    let p = m.discover(None);
    assert_eq!(p.problems[..], [AcpiError::Checksum(*b"XSDT")]);
    assert_eq!(p.cpus.len(), 4);

    let mut m = machine();
    m.0[MADT + 50] ^= 1;
    let p = m.discover(None);
    assert_eq!(p.problems[..], [AcpiError::Checksum(*b"APIC")]);
    assert!(p.cpus.is_empty() && p.pm_timer.is_some());

    let mut m = machine();
    m.put(DSDT + 4, &[0xff; 4]);
    assert_eq!(m.discover(None).problems[..], [AcpiError::Length(*b"DSDT")]);
    let text = std::format!("{}", AcpiError::Length(*b"DSDT"));
    assert_eq!(text, "ACPI: table DSDT has an impossible length");

    let mut body = madt_body();
    body.extend([0, 0, 0]);
    let mut m = machine();
    m.put(MADT, &make(b"APIC", 1, &body));
    let p = m.discover(None);
    assert_eq!(p.problems[..], [AcpiError::BadEntry(*b"APIC")]);
    assert_eq!(p.cpus.len(), 4);
}

/// Any single broken byte, and any cut, ends in an answer.
#[test]
fn nothing_panics() {
    let mut m = machine();
    let good = make_rsdp(RSDT as u32, Some(XSDT as u64));
    for at in [RSDP, RSDT, XSDT, MADT, FADT, DSDT, HPET].into_iter().flat_map(|t| t..t + 300) {
        for value in [0, 0xff] {
            let old = std::mem::replace(&mut m.0[at], value);
            // With the checksum mended too, so that the damage is looked at.
            let start = at & !0xfff;
            let len = u32_at(&m.0, start + 4).unwrap_or(0) as usize;
            let sum = (start != RSDP & !0xfff && (HEADER..0x1000).contains(&len)).then(|| m.0[start + 9]);
            if sum.is_some() {
                fix(&mut m.0[start..start + len], 9);
            }
            // Only damage of the root pointer is worth a search for it.
            let _ = m.discover((at >= RSDT).then_some(&good[..]));
            if let Some(sum) = sum {
                m.0[start + 9] = sum;
            }
            m.0[at] = old;
        }
    }
    for len in 0xe_0000..m.0.len().min(XSDT) {
        if len % 4096 == 0 {
            let cut = Machine(m.0[..len].to_vec());
            let _ = cut.discover(None);
        }
    }
}
