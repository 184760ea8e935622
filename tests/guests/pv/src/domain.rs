// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other domains, as dom0's tools make them: created, given memory, page tables and a state, started and destroyed.

use crate::abi::{self, MmuExt, MmuUpdate, nr, pte};
use crate::hypercall::{hypercall1, hypercall2, hypercall4, mmuext_op};
use crate::mem;
use core::sync::atomic::Ordering::SeqCst;

/// Frames of a domain that [`build`] built: four page tables, code, and a page of data.
pub const FRAMES: usize = 6;
/// Where the domain sees its code, which it cannot write.
pub const CODE: u64 = 0x40_0000;
/// Where it sees its data. The stack begins at the end of this page.
pub const DATA: u64 = CODE + 0x1000;
/// Where it sees its shared info page.
pub const SHARED_INFO: u64 = CODE + 0x2000;

const VERSION: u64 = 0x15 << 32;

/// Commands of domctl.
#[expect(missing_docs, reason = "names of the public header")]
pub mod domctl {
    pub const CREATE: u64 = 1;
    pub const DESTROY: u64 = 2;
    pub const PAUSE: u64 = 3;
    pub const UNPAUSE: u64 = 4;
    pub const INFO: u64 = 5;
    pub const MAX_MEM: u64 = 11;
    pub const SET_CONTEXT: u64 = 12;
    pub const GET_CONTEXT: u64 = 13;
    pub const MAX_VCPUS: u64 = 15;
    pub const RESUME: u64 = 27;
}

/// The structure of a call, as 18 words.
pub type Op = [u64; 18];

/// Makes a domctl call; the command and the domain are written into the structure.
pub fn call(cmd: u64, domid: u64, op: &mut Op) -> i64 {
    (op[0], op[1]) = (cmd | VERSION, domid);
    hypercall1(nr::DOMCTL, op.as_mut_ptr() as u64)
}

/// A call whose argument is one word.
pub fn simple(cmd: u64, domid: u64, word: u64) -> i64 {
    let mut op = Op::default();
    op[2] = word;
    call(cmd, domid, &mut op)
}

/// What `createdomain` is asked for.
pub fn wanted() -> Op {
    let mut op = Op::default();
    // One vCPU, ports up to 1023, usual limits on grants, which have version 1.
    op[5] = 1 << 32;
    op[6] = 1023 | u64::from(u32::MAX) << 32;
    op[7] = u64::from(u32::MAX) | 1 << 32;
    op
}

/// Creates a domain without memory and returns its number; 0 asks for any.
pub fn create(domid: u64) -> Result<u64, i64> {
    let mut op = wanted();
    match call(domctl::CREATE, domid, &mut op) {
        0 => Ok(op[1] & 0xffff),
        error => Err(error),
    }
}

/// All that is told of a domain, if there is one of that number.
pub fn look(domid: u64) -> Option<Op> {
    let mut op = Op::default();
    let found = call(domctl::INFO, domid, &mut op) == 0 && op[2] & 0xffff == domid;
    found.then_some(op)
}

/// Free memory in pages; what is not scrubbed yet is free too.
pub fn free_pages() -> u64 {
    let mut op = [0u64; 17];
    op[0] = 3 | VERSION;
    hypercall1(nr::SYSCTL, op.as_mut_ptr() as u64);
    // Behind ten 32-bit words and the number of all pages.
    op[1 + 5 + 1]
}

/// Maps a frame of a domain's where `page` is.
pub fn map(page: u64, mfn: u64, domid: u64) -> i64 {
    let request = MmuUpdate { ptr: mem::l1_entry(page).maddr, val: mfn << 12 | pte::KERNEL_RW };
    let result = hypercall4(nr::MMU_UPDATE, &raw const request as u64, 1, 0, domid);
    mmuext_op(abi::mmuext::INVLPG_LOCAL, page, 0);
    result
}

/// Gives a domain frames: the list holds their numbers on its side, and the machine's afterwards. Returns how many it got.
pub fn populate(domid: u64, list: &mut [u64]) -> i64 {
    let mut reservation = [list.as_mut_ptr() as u64, list.len() as u64, 0, domid];
    hypercall2(nr::MEMORY_OP, 6, reservation.as_mut_ptr() as u64)
}

/// What a domain is built of.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// What is at [`CODE`], at most a page.
    pub code: &'a [u64],
    /// The first word at [`DATA`].
    pub data: u64,
    /// Its first instruction.
    pub start: u64,
    /// Its event callback, or 0.
    pub upcall: u64,
}

/// A domain that was built.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// Its number.
    pub id: u64,
    /// Its frames: tables from the root down, code, data.
    pub frames: [u64; FRAMES],
}

/// Builds a domain, paused; an error names what failed. `page` is lent by the caller for the domain's frames, `context` (two
/// pages) for its state.
pub fn build(page: u64, context: u64, image: &Image<'_>) -> Result<Domain, &'static str> {
    let id = create(0).map_err(|_| "create")?;
    let good = |result: i64, what: &'static str| if result == 0 { Ok(()) } else { Err(what) };
    good(simple(domctl::MAX_VCPUS, id, 1), "vcpus")?;
    good(simple(domctl::MAX_MEM, id, 1 << 20), "memory")?;
    let mut frames: [u64; FRAMES] = core::array::from_fn(|n| n as u64);
    good(populate(id, &mut frames) - FRAMES as i64, "populate")?;
    let shared_info = look(id).ok_or("info")?[8];
    if !fill(page, id, &frames, shared_info, image) {
        return Err("fill");
    }
    good(pin(id, frames[0]), "pin")?;
    good(start(id, context, frames[0], image), "start")?;
    Ok(Domain { id, frames })
}

/// Writes the domain's memory through `page`, which is this domain's own again afterwards.
fn fill(page: u64, domid: u64, frames: &[u64; FRAMES], shared_info: u64, image: &Image<'_>) -> bool {
    let [_, l3, l2, l1, code, data] = *frames;
    let table = |mfn: u64| mfn << 12 | pte::TABLE;
    let leaf = |mfn: u64, rw: u64| mfn << 12 | pte::P | pte::U | pte::A | pte::D | rw;
    let first = abi::index(CODE, 2);
    let tables: [&[(usize, u64)]; FRAMES] = [
        &[(0, table(l3))],
        &[(0, table(l2))],
        &[(first, table(l1))],
        &[(0, leaf(code, 0)), (1, leaf(data, pte::RW)), (2, leaf(shared_info, pte::RW))],
        &[],
        &[(0, image.data)],
    ];
    let mut good = true;
    for (mfn, words) in frames.iter().zip(tables) {
        good &= map(page, *mfn, domid) == 0;
        words.iter().for_each(|&(index, word)| mem::entry(page, index).store(word, SeqCst));
        if *mfn == code {
            image.code.iter().enumerate().for_each(|(index, word)| mem::entry(page, index).store(*word, SeqCst));
        }
    }
    mem::make_rw(page);
    good
}

fn pin(domid: u64, root: u64) -> i64 {
    let request = MmuExt { cmd: abi::mmuext::PIN_L4, arg1: root, arg2: 0 };
    hypercall4(nr::MMUEXT_OP, &raw const request as u64, 1, 0, domid)
}

/// Sets vCPU 0's state: in the kernel, online, at its first instruction.
fn start(domid: u64, context: u64, root: u64, image: &Image<'_>) -> i64 {
    let set = |offset: usize, value: u64| mem::entry(context, offset / 8).store(value, SeqCst);
    set(512, 1 << 2 | 1 << 5);
    set(648, image.start);
    set(656, abi::FLAT_CS64);
    set(672, DATA + 0x1000);
    set(680, abi::FLAT_SS);
    set(4968, abi::FLAT_SS);
    set(4976, DATA + 0x1000);
    set(5008, root << 12);
    set(5112, image.upcall);
    let mut op = Op::default();
    op[3] = context;
    call(domctl::SET_CONTEXT, domid, &mut op)
}

/// Waits until there is no such domain.
pub fn gone(domid: u64) -> bool {
    (0..100_000).any(|_| {
        hypercall2(nr::SCHED_OP, 0, 0);
        look(domid).is_none()
    })
}
