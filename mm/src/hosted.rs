// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hosted machine with this crate's tables set up, and numbers to decide by: what tests start from.
#![expect(unsafe_code, reason = "hands leaked memory to init, again and again")]

use crate::{Tables, buddy, pt};
extern crate std;

mod source;

pub use source::{Random, Source};

use alloc::vec;
use arch::hosted::Machine;
use core::sync::atomic::Ordering;
use hypercalls::Mfn;
use hypercalls::addr::PAGE_SIZE;

/// The entry for the M2P that [`boot`] puts into L4 slot 256: a supervisor entry that leads nowhere.
pub const FAKE_SLOT: u64 = 0x0bad_c0de_0000;

/// The tables of the last machine, for the next one: their address and how many frames they are for.
static TABLES: std::sync::Mutex<Option<Tables>> = std::sync::Mutex::new(None);

/// Returns zeroed tables for so many frames. The machine's lock is held, so nobody uses those of an earlier machine.
fn tables(frames: u64) -> Tables {
    let count = frames as usize;
    let mut kept = TABLES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let found = kept.filter(|t| t.frames >= frames);
    let tables = found.unwrap_or_else(|| {
        let table = vec![[0u64; 4]; count + 1].leak();
        let aligned = (table.as_ptr() as usize).next_multiple_of(32);
        let m2p = vec![0u64; count].leak();
        Tables { frame_table: aligned, m2p: m2p.as_ptr() as usize, frames }
    });
    *kept = Some(tables);
    for (at, words) in [(tables.frame_table, 4 * count), (tables.m2p, count)] {
        // SAFETY: leaked above or for an earlier machine, at least as long, and nobody else's.
        unsafe { core::ptr::write_bytes(at as *mut u64, 0, words) };
    }
    Tables { frames, ..tables }
}

/// Starts a machine with `frames` of RAM and `cpus` CPUs; all but frame 0 is free.
pub fn boot(frames: u64, cpus: usize) -> Machine {
    let machine = arch::hosted::boot(frames as usize * PAGE_SIZE, cpus);
    // SAFETY: both were leaked for this purpose and are zeroed; the machine's lock keeps other tests away.
    unsafe { crate::init(tables(frames)) };
    buddy::add_ram(Mfn(0), Mfn(frames));
    buddy::free_range(Mfn(1), Mfn(frames));
    let slots: [u64; 16] = core::array::from_fn(|i| FAKE_SLOT | (i as u64) << 12);
    pt::set_hypervisor_slots(&slots);
    machine
}

/// Writes entry `index` of a frame as a guest would write its own memory, past every rule.
pub fn poke(mfn: Mfn, index: usize, value: u64) {
    crate::entry::entry(mfn, index).store(value, Ordering::Relaxed);
}

/// Reads entry `index` of a frame.
pub fn peek(mfn: Mfn, index: usize) -> u64 {
    crate::entry::entry(mfn, index).load(Ordering::Relaxed)
}
