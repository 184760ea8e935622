// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hypervisor's messages, and its debug keys.

use hypercalls::sysctl_args::{DebugKeys, ReadConsole};
use hypercalls::{Errno, Payload, Result};

use super::Answer;
use crate::vcpu::Vcpu;
use crate::{console, keys};

/// Bytes that are copied at a time.
const CHUNK: usize = 512;

/// Copies messages from an index on if that is wanted and they are still there, else from the oldest one; says how many
/// bytes, and the index behind them. May forget what was read.
pub(super) fn read(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let mut a: ReadConsole = payload.get();
    let (oldest, end) = console::log_range();
    let is_held = a.index.wrapping_sub(oldest) <= end.wrapping_sub(oldest);
    let mut next = if a.incremental != 0 && is_held { a.index } else { oldest };
    // What comes meanwhile is for the next call: this one ends.
    let most = (a.count as usize).min(end.wrapping_sub(next) as usize);
    let mut done = 0;
    let mut buffer = [0; CHUNK];
    while done < most {
        let room = buffer.get_mut(..CHUNK.min(most - done)).unwrap_or_default();
        let (count, behind) = console::read_log(next, room);
        if count == 0 {
            break;
        }
        let to = a.buffer.va(done as u64).ok_or(Errno::EFAULT)?;
        arch::guest::copy_to(to, room.get(..count).unwrap_or(&[]))?;
        done += count;
        next = behind;
    }
    if a.clear != 0 {
        console::forget_log(next);
    }
    (a.count, a.index) = (done as u32, next);
    payload.put(&a);
    Ok(Answer::Back)
}

/// Presses debug keys: all of them, or none when they are more than can wait.
pub(super) fn debug_keys(_: &Vcpu, payload: &mut Payload) -> Result<Answer> {
    let a: DebugKeys = payload.get();
    let count = a.nr_keys as usize;
    if !keys::has_room(count) {
        return Err(Errno::EBUSY);
    }
    let mut letters = [0; keys::WAITING];
    let letters = letters.get_mut(..count).ok_or(Errno::EBUSY)?;
    arch::guest::copy_from(letters, a.keys.first())?;
    letters.iter().for_each(|letter| keys::press(*letter));
    Ok(Answer::Nothing)
}
