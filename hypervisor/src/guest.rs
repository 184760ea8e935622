// SPDX-License-Identifier: MIT OR Apache-2.0
//! Typed access to guest memory: whole values in and out, each byte once.
//!
//! A [`GuestPtr`] is an allegation. These functions are the only way to follow one: they check that it stays out of
//! the hypervisor's hole, copy, and turn a fault into [`Errno::EFAULT`].

use alloc::boxed::Box;
use alloc::vec::Vec;

use arch::{context, guest};
use hypercalls::{Errno, GuestPtr, GuestVa, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Reads element `index` of a guest's array.
///
/// # Errors
/// `EFAULT` when it is not readable guest memory.
#[inline]
pub fn read_at<T: FromBytes + IntoBytes>(ptr: GuestPtr<T>, index: u64) -> Result<T> {
    let va = ptr.va(index).ok_or(Errno::EFAULT)?;
    Ok(guest::read(va)?)
}

/// Reads what the pointer names.
///
/// # Errors
/// `EFAULT` when it is not readable guest memory.
#[inline]
pub fn read<T: FromBytes + IntoBytes>(ptr: GuestPtr<T>) -> Result<T> {
    read_at(ptr, 0)
}

/// Reads what the pointer names into memory of its own, for what is too large for the stack.
///
/// # Errors
/// `EFAULT` when it is not readable guest memory, `ENOMEM`.
pub fn read_boxed<T: FromBytes + IntoBytes>(ptr: GuestPtr<T>) -> Result<Box<[T]>> {
    boxed(read(ptr)?)
}

/// Moves a value into memory of its own.
///
/// # Errors
/// `ENOMEM`.
pub fn boxed<T>(value: T) -> Result<Box<[T]>> {
    let mut one = Vec::new();
    one.try_reserve_exact(1).map_err(|_| Errno::ENOMEM)?;
    one.push(value);
    Ok(one.into_boxed_slice())
}

/// Writes element `index` of a guest's array.
///
/// # Errors
/// `EFAULT` when it is not writable guest memory.
#[inline]
pub fn write_at<T: IntoBytes + Immutable>(ptr: GuestPtr<T>, index: u64, value: &T) -> Result<()> {
    let va = ptr.va(index).ok_or(Errno::EFAULT)?;
    Ok(guest::copy_to(va, value.as_bytes())?)
}

/// Writes what the pointer names.
///
/// # Errors
/// `EFAULT` when it is not writable guest memory.
#[inline]
pub fn write<T: IntoBytes + Immutable>(ptr: GuestPtr<T>, value: &T) -> Result<()> {
    write_at(ptr, 0, value)
}

/// Reads 15 bytes of code at `rip`; false when they are not all there.
#[inline]
pub fn fetch_whole(rip: GuestVa, buffer: &mut [u8; 15]) -> bool {
    // Two words that overlap in one byte, of which the second reading counts.
    let (Ok(first), Ok(last)) = (guest::read_u64(rip), guest::read_u64(GuestVa(rip.0.wrapping_add(7)))) else {
        return false;
    };
    buffer[..8].copy_from_slice(&first.to_le_bytes());
    buffer[7..].copy_from_slice(&last.to_le_bytes());
    true
}

/// Reads code at `rip` (less than a page of it), less where the next page is not there; returns how many bytes.
pub fn fetch(rip: GuestVa, buffer: &mut [u8]) -> usize {
    if guest::copy_from(buffer, rip).is_ok() {
        return buffer.len();
    }
    let first = (4096 - (rip.0 & 4095) as usize).min(buffer.len());
    let fetched = buffer.get_mut(..first).is_some_and(|part| guest::copy_from(part, rip).is_ok());
    if fetched { first } else { 0 }
}

/// Accesses memory in the kernel's address space, whichever mode the current vCPU is in.
pub fn in_kernel<T>(access: impl FnOnce() -> T) -> T {
    if context::kernel_mode() {
        return access();
    }
    context::to_kernel_mode();
    let result = access();
    let back = context::to_user_mode();
    debug_assert!(back, "a vCPU came from user mode and has no user root");
    result
}
