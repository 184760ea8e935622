// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bitmaps in the memory of tools: bytes, as many as their bits need.

use arch::{CpuId, CpuMask, MAX_CPUS};
use hypercalls::domctl_args::Bitmap;
use hypercalls::{Errno, Result};

use crate::guest;

/// Bytes that all CPUs need.
const BYTES: usize = MAX_CPUS / 8;
/// Bytes of a bitmap that are written; nobody has a longer one.
const MOST: u64 = 4096;

/// Writes bytes as far as the bitmap goes; what it has more becomes zero.
fn write(to: &Bitmap, bytes: &[u8]) -> Result<()> {
    let size = u64::from(to.nr_bits).div_ceil(8).min(MOST);
    for (index, byte) in (0..size).zip(bytes.iter().chain(core::iter::repeat(&0))) {
        guest::write_at(to.bitmap, index, byte)?;
    }
    Ok(())
}

/// Writes a set of CPUs.
///
/// # Errors
/// `EFAULT`.
pub fn write_cpus(to: &Bitmap, cpus: &CpuMask) -> Result<()> {
    let mut bytes = [0; BYTES];
    for cpu in cpus.iter() {
        bytes[usize::from(cpu.0) / 8] |= 1 << (cpu.0 % 8);
    }
    write(to, &bytes)
}

/// Writes the set of the only node.
///
/// # Errors
/// `EFAULT`.
pub fn write_nodes(to: &Bitmap) -> Result<()> {
    write(to, &[1])
}

/// Reads up to `bytes.len()` bytes of a bitmap; what it does not have is zero, and bits behind its last one do not count.
fn read(from: &Bitmap, bytes: &mut [u8]) -> Result<()> {
    let bits = from.nr_bits as usize;
    for (index, byte) in bytes.iter_mut().enumerate().take(bits.div_ceil(8)) {
        *byte = guest::read_at(from.bitmap, index as u64)?;
        if bits - index * 8 < 8 {
            *byte &= (1 << (bits % 8)) - 1;
        }
    }
    Ok(())
}

/// Reads a set of CPUs; those that there cannot be are left out.
///
/// # Errors
/// `EFAULT`.
pub fn read_cpus(from: &Bitmap) -> Result<CpuMask> {
    let mut bytes = [0; BYTES];
    read(from, &mut bytes)?;
    let mut cpus = CpuMask::EMPTY;
    let set = |cpu: &u16| bytes[usize::from(*cpu) / 8] >> (cpu % 8) & 1 != 0;
    (0..MAX_CPUS as u16).filter(set).for_each(|cpu| cpus.insert(CpuId(cpu)));
    Ok(cpus)
}

/// Reads a set of nodes, of which there is one.
///
/// # Errors
/// `EFAULT`; `EINVAL` when the node is not in the set.
pub fn read_nodes(from: &Bitmap) -> Result<()> {
    let mut bytes = [0; 1];
    read(from, &mut bytes)?;
    if bytes[0] & 1 == 0 { Err(Errno::EINVAL) } else { Ok(()) }
}
