// SPDX-License-Identifier: MIT OR Apache-2.0
//! `console_io`: dom0's use of the hypervisor's console.

use hypercalls::console::ConsoleIo;
use hypercalls::{Errno, GuestPtr, HypercallNr, Result};

use crate::console;
use crate::dispatch::{Args, Outcome, SubOp, by_family, unknown};
use crate::vcpu::Vcpu;

/// The sub-operations. They take a count, so [`console_io`] runs them itself.
pub static OPS: [SubOp; 2] = [by_family("write"), by_family("read")];

/// How many bytes are written at a time: a slow line takes long for them, so the call is resumed after each lot.
const CHUNK: usize = 128;

/// Hypercall 18.
pub fn console_io(vcpu: &Vcpu, args: &Args) -> Outcome {
    let [op, count, buffer, ..] = *args;
    // C `unsigned int`s in the interface.
    let (op, count) = (ConsoleIo(op as u32), count as u32);
    let buffer = GuestPtr::<u8>::new(buffer);
    if !vcpu.domain().privileged {
        return Err(Errno::EPERM).into();
    }
    match op {
        ConsoleIo::WRITE => write(count, buffer),
        ConsoleIo::READ => read(count, buffer).into(),
        other => Err(unknown(vcpu, HypercallNr::CONSOLE_IO, u64::from(other.0))).into(),
    }
}

fn write(count: u32, buffer: GuestPtr<u8>) -> Outcome {
    let mut chunk = [0; CHUNK];
    let now = count.min(CHUNK as u32);
    let bytes = chunk.get_mut(..now as usize).unwrap_or_default();
    if let Err(fault) = arch::guest::copy_from(bytes, buffer.first()) {
        return Err(fault.into()).into();
    }
    console::guest_output(bytes);
    match buffer.add(u64::from(now)) {
        Some(rest) if now < count => {
            Outcome::Again([u64::from(ConsoleIo::WRITE.0), u64::from(count - now), rest.0, 0, 0])
        }
        _ => Outcome::Done(0),
    }
}

fn read(count: u32, buffer: GuestPtr<u8>) -> Result<i64> {
    // The count comes back as a number that must not look like an error.
    let most = i32::try_from(count).map_err(|_| Errno::E2BIG)?;
    let done = console::read_input(most as usize, |offset, part| {
        let at = buffer.va(offset as u64).ok_or(Errno::EFAULT)?;
        Ok(arch::guest::copy_to(at, part)?)
    })?;
    Ok(done as i64)
}
