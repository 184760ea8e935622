// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel image for the dom0 builder: an ELF file with the notes of a PV kernel, and some structure in its bytes.

use alloc::vec;
use alloc::vec::Vec;

/// Where the kernel is linked.
pub const VIRT_BASE: u64 = 0xffff_ffff_8000_0000;
/// The physical address of its first byte.
pub const START: u64 = 0x10_0000;
/// Its first instruction.
pub const ENTRY: u64 = VIRT_BASE + START + 0x10;
/// Its hypercall page.
pub const HYPERCALL_PAGE: u64 = VIRT_BASE + START + 0x1000;
/// Bytes of its text.
pub const TEXT: usize = 0x4000;
/// Offset of the text in the file, and of the notes in the text.
const OFFSET: usize = 0x1000;
const NOTES: usize = 0x3000;

fn note(to: &mut Vec<u8>, kind: u32, value: &[u8]) {
    for word in [4, value.len() as u32, kind] {
        to.extend_from_slice(&word.to_le_bytes());
    }
    to.extend_from_slice(b"Xen\0");
    to.extend_from_slice(value);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Returns the notes of the kernel.
fn notes() -> Vec<u8> {
    let mut all = Vec::new();
    note(&mut all, 6, b"linux\0");
    note(&mut all, 5, b"xen-3.0\0");
    note(&mut all, 8, b"generic\0");
    note(&mut all, 3, &VIRT_BASE.to_le_bytes());
    note(&mut all, 1, &ENTRY.to_le_bytes());
    note(&mut all, 9, b"yes\0");
    note(&mut all, 2, &HYPERCALL_PAGE.to_le_bytes());
    note(&mut all, 16, &1u32.to_le_bytes());
    note(&mut all, 17, &0x8801u32.to_le_bytes());
    all
}

/// Returns byte `at` of the text, the hypercall page and the notes apart.
pub const fn text(at: usize) -> u8 {
    (at ^ at >> 8) as u8
}

/// Makes the file.
pub fn image() -> Vec<u8> {
    let notes = notes();
    let mut file = vec![0; OFFSET + TEXT];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(24, &ENTRY.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &2u16.to_le_bytes());
    let headers =
        [(1u32, OFFSET, START, TEXT, TEXT + 0x2000, 4096u64), (4, OFFSET + NOTES, 0, notes.len(), notes.len(), 4)];
    for (n, (kind, offset, paddr, bytes, memory, align)) in headers.into_iter().enumerate() {
        let at = 64 + 56 * n;
        put(at, &kind.to_le_bytes());
        put(at + 4, &7u32.to_le_bytes());
        for (n, word) in
            [offset as u64, VIRT_BASE + paddr, paddr, bytes as u64, memory as u64, align].into_iter().enumerate()
        {
            put(at + 8 + 8 * n, &word.to_le_bytes());
        }
    }
    for at in 0..TEXT {
        put(OFFSET + at, &[text(at)]);
    }
    put(OFFSET + NOTES, &notes);
    file
}
