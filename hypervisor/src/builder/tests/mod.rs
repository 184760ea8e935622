// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the builder, and the small images they are made with.
//!
//! The tests with the real kernel take its path from `XENITH_TEST_KERNEL`; random ones take their seed from `XENITH_SEED`.

extern crate std;

mod elf;
mod images;
mod kernel;
mod layout;
mod notes;

use super::decompress::Stream;
use super::elf::{LoadError, Loader, NoteSegment, Sink};
use super::image::{ImageError, Payload, find};
use alloc::vec;
use alloc::vec::Vec;
use std::io::Write;
use std::process::{Command, Stdio};

/// Takes every byte, by address.
#[derive(Default)]
struct Memory {
    base: u64,
    bytes: Vec<u8>,
    unpacked: u64,
}

impl Sink for Memory {
    type Error = ();

    fn write(&mut self, paddr: u64, bytes: &[u8]) -> Result<(), ()> {
        let at = paddr.checked_sub(self.base).ok_or(())? as usize;
        let to = self.bytes.get_mut(at..at + bytes.len()).ok_or(())?;
        to.copy_from_slice(bytes);
        Ok(())
    }

    fn progress(&mut self, unpacked: u64) {
        self.unpacked = unpacked;
    }
}

/// A small ELF file in the making.
struct Image {
    kind: u16,
    machine: u16,
    entry: u64,
    /// Type, offset, paddr, bytes, memory size, alignment.
    parts: Vec<(u32, u64, u64, Vec<u8>, u64, u64)>,
}

impl Image {
    fn new() -> Self {
        Self { kind: 2, machine: 62, entry: 0x10_0000, parts: Vec::new() }
    }

    fn load(mut self, offset: u64, paddr: u64, bytes: &[u8], memory: u64) -> Self {
        self.parts.push((1, offset, paddr, bytes.to_vec(), memory, 4096));
        self
    }

    fn notes(mut self, offset: u64, bytes: &[u8]) -> Self {
        self.parts.push((4, offset, 0, bytes.to_vec(), bytes.len() as u64, 4));
        self
    }

    fn build(&self) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..18].copy_from_slice(&self.kind.to_le_bytes());
        file[18..20].copy_from_slice(&self.machine.to_le_bytes());
        file[20] = 1;
        file[24..32].copy_from_slice(&self.entry.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[52..54].copy_from_slice(&64u16.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&(self.parts.len() as u16).to_le_bytes());
        for (kind, offset, paddr, bytes, memory, align) in &self.parts {
            file.extend_from_slice(&kind.to_le_bytes());
            file.extend_from_slice(&7u32.to_le_bytes());
            for field in [*offset, *paddr, *paddr, bytes.len() as u64, *memory, *align] {
                file.extend_from_slice(&field.to_le_bytes());
            }
        }
        for (_, offset, _, bytes, ..) in &self.parts {
            let end = *offset as usize + bytes.len();
            file.resize(file.len().max(end), 0);
            file[*offset as usize..end].copy_from_slice(bytes);
        }
        file
    }
}

/// One note as it is in a file.
fn note(owner: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [owner.len() as u32, value.len() as u32, kind] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for part in [owner, value] {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Notes like those of a Linux kernel whose one segment lies at 16 MiB.
fn linux_notes() -> Vec<Vec<u8>> {
    let number = |kind, value: u64| note(b"Xen\0", kind, &value.to_le_bytes());
    vec![
        note(b"Xen\0", 6, b"linux\0"),
        note(b"Xen\0", 5, b"xen-3.0\0"),
        note(b"Xen\0", 8, b"generic\0"),
        number(3, 0xffff_ffff_8000_0000),
        number(1, 0xffff_ffff_8100_0010),
        number(15, 0x80_0000_0000),
        note(b"Xen\0", 16, &1u32.to_le_bytes()),
        note(b"Xen\0", 10, b"!writable_page_tables|pae_pgdir_above_4gb\0"),
        note(b"Xen\0", 17, &0x8801u32.to_le_bytes()),
        note(b"Xen\0", 9, b"yes\0"),
        note(b"GNU\0", 3, b"some id "),
    ]
}

/// A small kernel with those notes and some structure in its bytes.
fn small_kernel() -> Image {
    let mut text = Vec::new();
    for i in 0..20_000u32 {
        text.extend_from_slice(&[0xe8, (i * 7) as u8, (i >> 3) as u8, 0, 0]);
    }
    let notes = linux_notes().concat();
    text[0x2000..0x2000 + notes.len()].copy_from_slice(&notes);
    Image::new()
        .load(0x1000, 0x100_0000, &text, 0x2_0000)
        .load(0x2_0000, 0x102_0000, &[0x5a; 300], 0x5000)
        .notes(0x3000, &notes)
}

/// A bzImage around a payload.
fn bzimage(payload: &[u8], setup_sectors: u8, protocol: u16) -> Vec<u8> {
    let sectors = if setup_sectors == 0 { 4 } else { usize::from(setup_sectors) };
    let offset = 0x2c4;
    let mut file = vec![0x90; (sectors + 1) * 512 + offset];
    file[0x1f1] = setup_sectors;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&protocol.to_le_bytes());
    file[0x248..0x24c].copy_from_slice(&(offset as u32).to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file.extend_from_slice(payload);
    file.extend_from_slice(&[0xcc; 100]);
    file
}

/// Packs with a command of the machine; `None`, with a message, where it is missing.
fn pack(command: &[&str], bytes: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(command[0]).args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        std::println!("skipped: there is no {} here", command[0]);
        return None;
    };
    let mut stdin = child.stdin.take().expect("piped");
    let input = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("the command ran");
    writer.join().expect("no panic").expect("the command read everything");
    assert!(output.status.success(), "{command:?}");
    Some(output.stdout)
}

/// The ways kernels are packed; the x86 filter and the sizes are those of the kernel's build.
const PACKERS: &[&[&str]] = &[
    &["xz", "--check=crc32", "--x86", "--lzma2=dict=32MiB", "-c"],
    &["xz", "--check=crc64", "-c"],
    &["xz", "--check=sha256", "--delta=dist=4", "--lzma2=dict=4KiB", "-c"],
    &["xz", "--check=none", "--block-size=8192", "-c"],
    &["gzip", "-n", "-9", "-c"],
    &["gzip", "-n", "-1", "-c"],
    &["zstd", "-q", "-22", "--ultra", "-c"],
    &["zstd", "-q", "-1", "--no-check", "-c"],
];

/// The packed kernels, as a bzImage has them: all but gzip with the size behind.
fn packed_payloads(kernel: &[u8]) -> Vec<Vec<u8>> {
    let packed = PACKERS.iter().filter_map(|command| {
        let mut packed = pack(command, kernel)?;
        if command[0] != "gzip" {
            packed.extend_from_slice(&(kernel.len() as u32).to_le_bytes());
        }
        Some(packed)
    });
    packed.collect()
}

fn unpack(payload: &Payload<'_>) -> Result<Vec<u8>, ImageError> {
    let mut stream = Stream::open(payload)?;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 5000];
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(bytes),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}

/// Does all that is done with a module, as far as it goes.
fn load(module: &[u8]) -> Result<(Memory, Vec<NoteSegment>), LoadError<()>> {
    let payload = find(module)?;
    let loader = Loader::open(Stream::open(&payload)?)?;
    let range = loader.range();
    let mut memory = Memory { base: range.start, bytes: vec![0; (range.end - range.start) as usize], unpacked: 0 };
    let notes = loader.load(&mut memory)?;
    Ok((memory, notes))
}

/// A small generator of random numbers (xorshift64*), whose seed is printed.
struct Random(u64);

impl Random {
    fn new(test: &str) -> Self {
        let seed = std::env::var("XENITH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| now.as_nanos() as u64)
        });
        std::println!("{test}: XENITH_SEED={seed}");
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}
