// SPDX-License-Identifier: MIT OR Apache-2.0
//! ACPI tables.

use arch_x86_64::platform::acpi::discover;

const HEADER: usize = 36;
/// Where tables lie, one behind the other.
const TABLES: u64 = 0x10_0000;
/// Where the list of them lies.
const LIST: u64 = 0xf_1000;
const NAMES: [&[u8; 4]; 4] = [b"APIC", b"FACP", b"DSDT", b"HPET"];

/// Machine memory from [`LIST`] on.
struct Machine(Vec<u8>);

impl Machine {
    fn read(&self, maddr: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(maddr.checked_sub(LIST)?).ok()?;
        self.0.get(start..start.checked_add(len)?)
    }

    fn put(&mut self, maddr: u64, bytes: &[u8]) {
        let start = (maddr - LIST) as usize;
        self.0.resize(self.0.len().max(start + bytes.len()), 0);
        self.0[start..start + bytes.len()].copy_from_slice(bytes);
    }
}

/// Sets the byte that makes the sum 0.
fn sum(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = 0u8.wrapping_sub(bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
}

fn table(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = vec![0; HEADER];
    table[..4].copy_from_slice(name);
    table.extend_from_slice(body);
    table[4..8].copy_from_slice(&((HEADER + body.len()) as u32).to_le_bytes());
    sum(&mut table, 9);
    table
}

/// The bytes are bodies of tables, each behind a byte with its kind and two with its length. Headers and sums are made for
/// them, since no search finds those; a kind with the highest bit set has a wrong one.
pub fn run(bytes: &[u8]) {
    let mut machine = Machine(Vec::new());
    let (mut at, mut list, mut rest) = (TABLES, Vec::new(), bytes);
    while let [kind, low, high, body @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(body.len());
        let (body, later) = body.split_at(len);
        let mut made = table(NAMES[usize::from(*kind) % NAMES.len()], body);
        if kind & 0x80 != 0 {
            made[9] ^= 1;
        }
        machine.put(at, &made);
        list.extend(at.to_le_bytes());
        at = (at + made.len() as u64).next_multiple_of(0x100);
        rest = later;
    }
    machine.put(LIST, &table(b"XSDT", &list));
    let mut rsdp = b"RSD PTR \0OEMOEM\x02\0\0\0\0\x24\0\0\0".to_vec();
    rsdp.extend(LIST.to_le_bytes());
    rsdp.extend([0; 4]);
    sum(&mut rsdp[..20], 8);
    sum(&mut rsdp, 32);
    let read = |maddr, len| machine.read(maddr, len);
    let platform = discover(Some(&rsdp), &read);
    assert_eq!(platform.rsdp_maddr, None, "the root pointer given is a good one");
    let mut ids: Vec<u32> = platform.cpus.iter().filter(|cpu| cpu.enabled).map(|cpu| cpu.apic_id).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "no CPU is listed twice");
    (0..16).for_each(|irq| {
        let _ = platform.isa_irq(irq);
    });
    platform.problems.iter().for_each(|problem| assert!(!problem.to_string().is_empty()));
    // And as they are, where a root pointer may be anywhere.
    let raw = |maddr: u64, len: usize| bytes.get(maddr as usize..(maddr as usize).checked_add(len)?);
    let _ = discover(Some(bytes), &raw);
}
