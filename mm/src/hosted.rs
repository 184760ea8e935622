// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hosted machine with this crate's tables set up: what tests start from.
#![expect(unsafe_code, reason = "hands leaked memory to init")]

use crate::{Tables, buddy, pt};
use alloc::vec;
use arch::hosted::Machine;
use hypercalls::Mfn;
use hypercalls::addr::PAGE_SIZE;

/// The entry for the M2P that [`boot`] puts into L4 slot 256: a supervisor entry that leads nowhere.
pub const FAKE_SLOT: u64 = 0x0bad_c0de_0000;

/// Starts a machine with `frames` of RAM and `cpus` CPUs; all but frame 0 is free.
pub fn boot(frames: u64, cpus: usize) -> Machine {
    let machine = arch::hosted::boot(frames as usize * PAGE_SIZE, cpus);
    let count = frames as usize;
    let table = vec![[0u64; 4]; count + 1].leak();
    let aligned = (table.as_ptr() as usize).next_multiple_of(32);
    let m2p = vec![0u64; count].leak();
    let tables = Tables {
        frame_table: aligned,
        m2p: m2p.as_ptr() as usize,
        frames,
    };
    // SAFETY: both were just leaked for this purpose, zeroed; the machine's lock keeps other tests away.
    unsafe { crate::init(tables) };
    buddy::add_ram(Mfn(0), Mfn(frames));
    buddy::free_range(Mfn(1), Mfn(frames));
    let slots: [u64; 16] = core::array::from_fn(|i| FAKE_SLOT | (i as u64) << 12);
    pt::set_hypervisor_slots(&slots);
    machine
}
