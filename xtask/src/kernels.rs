// SPDX-License-Identifier: MIT OR Apache-2.0
//! The distribution's kernel in other packings: a plain ELF file, and bzImages with gzip and zstd payloads.
//!
//! A bzImage names its payload by offset and length in its header (boot protocol 2.08 and later), so another payload
//! can stand behind the original image.

use crate::process;
use crate::project::{self, Project, made};
use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use serde::Deserialize;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// How a kernel is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Packing {
    /// An ELF file, not compressed.
    Elf,
    /// A bzImage with a gzip payload.
    Gzip,
    /// A bzImage with a zstd payload.
    Zstd,
}

/// Repacks an XZ-compressed bzImage; the product is kept for the next time.
pub(crate) fn repack(project: &Project, bzimage: &Path, packing: Packing) -> Result<PathBuf> {
    repacked(&project.out()?, bzimage, packing)
}

/// Held while a kernel is repacked: scenarios that run at the same time may want the same packing.
static REPACKING: Mutex<()> = Mutex::new(());

/// [`repack`] into this directory.
fn repacked(out: &Path, bzimage: &Path, packing: Packing) -> Result<PathBuf> {
    let _alone = REPACKING.lock().unwrap_or_else(PoisonError::into_inner);
    let product = out.join(format!("vmlinuz-{packing:?}").to_lowercase());
    if product.exists() {
        return Ok(product);
    }
    let work = made(product.with_extension("work"))?;
    let image = project::read(bzimage)?;
    let elf = unpacked(&work, &image)?;
    let bytes = match packing {
        Packing::Elf => elf,
        // gzip ends with the unpacked size by itself; for the others the kernel's build appends it.
        Packing::Gzip => with_payload(&image, &gzip(&elf)?)?,
        Packing::Zstd => {
            let mut packed = zstd(&work)?;
            packed.extend_from_slice(&u32::try_from(elf.len())?.to_le_bytes());
            with_payload(&image, &packed)?
        }
    };
    fs::remove_dir_all(&work)?;
    let partial = product.with_extension("partial");
    project::write(&partial, bytes)?;
    fs::rename(&partial, &product)?;
    Ok(product)
}

/// The unpacked kernel's name in the working directory.
const ELF: &str = "vmlinux";

/// The ELF file inside an XZ-compressed bzImage; it is left in the working directory too.
fn unpacked(work: &Path, image: &[u8]) -> Result<Vec<u8>> {
    let (start, length) = payload(image)?;
    // The kernel's build appends the unpacked size to the stream.
    let end = start + length.saturating_sub(4);
    let stream = image.get(start..end).context("the payload lies beyond the image")?;
    let packed = work.join(ELF).with_extension("xz");
    project::write(&packed, stream)?;
    process::run(Command::new("xz").args(["-q", "-d", "-k", "-f"]).arg(&packed))?;
    let elf = project::read(&work.join(ELF))?;
    ensure!(elf.starts_with(b"\x7fELF"), "the kernel's payload is no ELF file");
    Ok(elf)
}

/// Compresses the unpacked kernel as a kernel's build does: from a pipe, with the 128 MiB window of level 22.
fn zstd(work: &Path) -> Result<Vec<u8>> {
    let packed = work.join("vmlinux.zst");
    let mut zstd = Command::new("zstd");
    zstd.args(["-q", "-3", "--long=27", "-c"]);
    zstd.stdin(fs::File::open(work.join(ELF))?).stdout(fs::File::create(&packed)?);
    process::run(&mut zstd)?;
    project::read(&packed)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// Where the protected-mode part of a bzImage begins; the payload's offset counts from here.
fn protected_mode(image: &[u8]) -> Result<usize> {
    ensure!(image.get(0x202..0x206) == Some(b"HdrS"), "the kernel is no bzImage");
    let sectors = match image[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    Ok((sectors + 1) * 512)
}

/// Offset and length of the payload.
fn payload(image: &[u8]) -> Result<(usize, usize)> {
    let base = protected_mode(image)?;
    let field = |at: usize| {
        let bytes = image.get(at..at + 4).context("the header is cut short")?;
        Ok::<_, anyhow::Error>(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    Ok((base + field(PAYLOAD_OFFSET)?, field(PAYLOAD_LENGTH)?))
}

/// The bzImage with this payload in place of its own.
fn with_payload(image: &[u8], packed: &[u8]) -> Result<Vec<u8>> {
    let base = protected_mode(image)?;
    let (start, _) = payload(image)?;
    let mut new = image[..start].to_vec();
    new.extend_from_slice(packed);
    for (at, value) in [(PAYLOAD_OFFSET, start - base), (PAYLOAD_LENGTH, packed.len())] {
        new[at..at + 4].copy_from_slice(&u32::try_from(value)?.to_le_bytes());
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a bzImage with three sectors of setup code, whose payload begins at 0x900.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 8192];
        image[SETUP_SECTORS] = 3;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&0x100u32.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&0x200u32.to_le_bytes());
        image
    }

    #[test]
    fn scenarios_that_want_one_packing_at_the_same_time_get_it() {
        let dir = std::env::temp_dir().join(format!("xenith-repacked-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("the temporary directory can be written to");
        let elf = [b"\x7fELF".as_slice(), &vec![0x5a; 1 << 20]].concat();
        let plain = dir.join("elf");
        fs::write(&plain, &elf).expect("the directory was just made");
        process::run(Command::new("xz").args(["-q", "-k"]).arg(&plain)).expect("xz is installed");
        let mut stream = fs::read(dir.join("elf.xz")).expect("xz wrote it");
        stream.extend_from_slice(&u32::try_from(elf.len()).expect("a mebibyte").to_le_bytes());
        let bzimage = dir.join("vmlinuz");
        fs::write(&bzimage, with_payload(&image(), &stream).expect("the head is well-formed")).expect("as above");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let product = repacked(&dir, &bzimage, Packing::Elf).expect("the image is well-formed");
                    assert!(fs::read(product).expect("it was just made") == elf);
                });
            }
        });
        fs::remove_dir_all(&dir).expect("it is ours");
    }

    #[test]
    fn a_new_payload_is_found_where_the_header_says() {
        let image = image();
        let new = with_payload(&image, b"packed").expect("the image is well-formed");
        let (start, length) = payload(&new).expect("so is the new one");
        assert_eq!(&new[start..start + length], b"packed");
        assert_eq!(start, 2048 + 0x100);
    }

    #[test]
    fn what_is_no_bzimage_is_refused() {
        assert!(payload(b"\x7fELF").is_err());
    }
}
