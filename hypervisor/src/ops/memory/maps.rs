// SPDX-License-Identifier: MIT OR Apache-2.0
//! Maps: of the machine's memory, of a domain's as its tools made it, and where the M2P is.

use alloc::sync::Arc;
use alloc::vec::Vec;

use hypercalls::addr::M2P_VIRT_START;
use hypercalls::memory::*;
use hypercalls::{Errno, GuestPtr, Result};

use crate::machine_map::{self, MACHINE_MAP};
use crate::vcpu::Vcpu;
use crate::{guest, mmu};

/// Entries of the longest map that a domain may be given.
const MOST_ENTRIES: u32 = 1024;

/// Tells dom0 what the machine's memory is.
pub(super) fn machine(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let domain = vcpu.domain();
    if !domain.privileged {
        return Err(Errno::EPERM);
    }
    let ptr = GuestPtr::<MemoryMap>::new(arg);
    let mut args = guest::read(ptr)?;
    let firmware = MACHINE_MAP.get().map_or(&[][..], |map| map);
    let map = domain.io.with_memory(|memory| machine_map::for_domain(firmware, memory))?;
    if !args.buffer.is_null() {
        if (args.nr_entries as usize) < map.len() {
            return Err(Errno::EINVAL);
        }
        write_entries(args.buffer, &map)?;
    }
    args.nr_entries = map.len() as u32;
    guest::write(ptr, &args)?;
    Ok(0)
}

/// Tells a domain the map that it was given, as much as there is room for. A kernel without one makes its own.
pub(super) fn own(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::<MemoryMap>::new(arg);
    let mut args = guest::read(ptr)?;
    let map = vcpu.domain().memory_map.lock().clone().ok_or(Errno::ENOSYS)?;
    let told = map.get(..args.nr_entries as usize).unwrap_or(&map);
    write_entries(args.buffer, told)?;
    args.nr_entries = told.len() as u32;
    guest::write(ptr, &args)?;
    Ok(0)
}

fn write_entries(to: GuestPtr<E820Entry>, map: &[E820Entry]) -> Result<()> {
    (0..).zip(map).try_for_each(|(index, entry)| guest::write_at(to, index, entry))
}

/// Gives a domain its map.
pub(super) fn set(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    let args: ForeignMemoryMap = guest::read(GuestPtr::new(arg))?;
    let count = args.map.nr_entries;
    if count > MOST_ENTRIES {
        return Err(Errno::EINVAL);
    }
    let other = mmu::other_domain(vcpu, args.domid)?;
    let mut map = Vec::new();
    map.try_reserve_exact(count as usize).map_err(|_| Errno::ENOMEM)?;
    for index in 0..u64::from(count) {
        map.push(guest::read_at(args.map.buffer, index)?);
    }
    let map = if map.is_empty() { None } else { Some(Arc::<[E820Entry]>::from(map)) };
    let old = core::mem::replace(&mut *other.as_deref().unwrap_or_else(|| vcpu.domain()).memory_map.lock(), map);
    drop(old);
    Ok(0)
}

/// Bytes of linear address space for the M2P.
const M2P_SIZE: u64 = 256 << 30;

/// Tells where the M2P is in a guest's address space.
pub(super) fn machphys_mapping(vcpu: &Vcpu, arg: u64) -> Result<i64> {
    // Other domains may come to a machine with more memory; dom0 stays.
    let entries = if vcpu.domain().privileged { mm::m2p::entries() } else { M2P_SIZE / 8 };
    let answer = MachphysMapping {
        v_start: M2P_VIRT_START,
        v_end: M2P_VIRT_START + M2P_SIZE,
        max_mfn: entries.saturating_sub(1),
    };
    guest::write(GuestPtr::new(arg), &answer)?;
    Ok(0)
}

/// Entries of the M2P in a piece of 2 MiB.
const PER_PIECE: u64 = (2 << 20) / 8;

/// Tells which frames hold the M2P, for tools that map it: of each 2 MiB the first one.
pub(super) fn machphys_frames(_: &Vcpu, arg: u64) -> Result<i64> {
    let ptr = GuestPtr::<MachphysMfnList>::new(arg);
    let mut args = guest::read(ptr)?;
    let mut count = 0;
    while count < args.max_extents
        && let Some(mfn) = mm::m2p::frame_of(u64::from(count) * PER_PIECE)
    {
        guest::write_at(args.extent_start, u64::from(count), &mfn.0)?;
        count += 1;
    }
    args.nr_extents = count;
    guest::write(ptr, &args)?;
    Ok(0)
}
