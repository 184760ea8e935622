// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the life of another domain, as dom0's tools lead it: it is created, given memory and page tables, started, it says
//! one thing and is destroyed. Many times: nothing of it may stay.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;
use pv::abi::{self, MmuExt, MmuUpdate, nr, pte};
use pv::hypercall::*;
use pv::{check, equal, errno, mem};

pv::guest!(main);

/// Domains that are built and destroyed.
const ROUNDS: u64 = 150;
/// Frames of each: four page tables, code, and a page of data.
const FRAMES: usize = 6;
/// Where the domain's code and data are: it says its word, or runs in a circle.
const CODE: u64 = 0x40_0000;
const CIRCLE: u64 = CODE + 0x20;
/// Pauses of a domain that runs in a circle.
const PAUSES: u64 = 2000;
/// What the domain says last.
const WORD: u32 = 0x42;

const VERSION: u64 = 0x15 << 32;

mod domctl {
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
type Op = [u64; 18];

fn call(cmd: u64, domid: u64, op: &mut Op) -> i64 {
    (op[0], op[1]) = (cmd | VERSION, domid);
    hypercall1(nr::DOMCTL, op.as_mut_ptr() as u64)
}

/// A call whose argument is one word.
fn simple(cmd: u64, domid: u64, word: u64) -> i64 {
    let mut op = Op::default();
    op[2] = word;
    call(cmd, domid, &mut op)
}

/// What `createdomain` is asked for.
fn wanted() -> Op {
    let mut op = Op::default();
    // One vCPU, ports up to 1023, usual limits on grants, which have version 1.
    op[5] = 1 << 32;
    op[6] = 1023 | u64::from(u32::MAX) << 32;
    op[7] = u64::from(u32::MAX) | 1 << 32;
    op
}

fn create(domid: u64) -> Result<u64, i64> {
    let mut op = wanted();
    match call(domctl::CREATE, domid, &mut op) {
        0 => Ok(op[1] & 0xffff),
        error => Err(error),
    }
}

/// Flags and pages of a domain, if there is one of that number.
fn info(domid: u64) -> Option<(u64, u64)> {
    look(domid).map(|op| (op[2] >> 32, op[3]))
}

/// All that is told of a domain.
fn look(domid: u64) -> Option<Op> {
    let mut op = Op::default();
    let found = call(domctl::INFO, domid, &mut op) == 0 && op[2] & 0xffff == domid;
    found.then_some(op)
}

const DYING: u64 = 1;
const SHUTDOWN: u64 = 1 << 2;
const PAUSED: u64 = 1 << 3;
const RUNNING: u64 = 1 << 5;

fn free_pages() -> u64 {
    let mut op = [0u64; 17];
    op[0] = 3 | VERSION;
    hypercall1(nr::SYSCTL, op.as_mut_ptr() as u64);
    // Behind ten 32-bit words and the number of all pages; what is not scrubbed yet is free too.
    op[1 + 5 + 1]
}

/// Maps a frame of the domain's where `page` is.
fn map(page: u64, mfn: u64, domid: u64) -> i64 {
    let request = MmuUpdate { ptr: mem::l1_entry(page).maddr, val: mfn << 12 | pte::KERNEL_RW };
    let result = hypercall4(nr::MMU_UPDATE, &raw const request as u64, 1, 0, domid);
    mmuext_op(abi::mmuext::INVLPG_LOCAL, page, 0);
    result
}

/// Gives the domain frames.
fn populate(domid: u64) -> Option<[u64; FRAMES]> {
    let mut frames: [u64; FRAMES] = core::array::from_fn(|n| n as u64);
    let mut reservation = [frames.as_mut_ptr() as u64, FRAMES as u64, 0, domid];
    let done = hypercall2(nr::MEMORY_OP, 6, reservation.as_mut_ptr() as u64);
    (done == FRAMES as i64).then_some(frames)
}

/// Writes the domain's memory through `page`, which is this domain's own again afterwards.
fn fill(page: u64, domid: u64, frames: &[u64; FRAMES]) -> bool {
    let [_, l3, l2, l1, code, data] = *frames;
    let table = |mfn: u64| mfn << 12 | pte::TABLE;
    let leaf = |mfn: u64, rw: u64| mfn << 12 | pte::P | pte::U | pte::A | pte::D | rw;
    // mov edi, 2; mov esi, CODE + 0x1000; mov eax, 29; syscall; jmp to the first: it says it again when it goes on.
    let bytes = *b"\xbf\x02\0\0\0\xbe\0\x10\x40\0\xb8\x1d\0\0\0\x0f\x05\xeb\xed\0\0\0\0\0";
    let words =
        core::array::from_fn::<u64, 3, _>(|n| u64::from_le_bytes(core::array::from_fn(|byte| bytes[8 * n + byte])));
    let first = abi::index(CODE, 2);
    let parts: [&[(usize, u64)]; FRAMES] = [
        &[(0, table(l3))],
        &[(0, table(l2))],
        &[(first, table(l1))],
        &[(0, leaf(code, 0)), (1, leaf(data, pte::RW))],
        &[(0, words[0]), (1, words[1]), (2, words[2]), (4, 0xfeeb)],
        &[(0, u64::from(WORD))],
    ];
    let mut good = true;
    for (mfn, words) in frames.iter().zip(parts) {
        good &= map(page, *mfn, domid) == 0;
        words.iter().for_each(|&(index, word)| mem::entry(page, index).store(word, SeqCst));
    }
    mem::make_rw(page);
    good
}

fn pin(domid: u64, root: u64) -> i64 {
    let request = MmuExt { cmd: abi::mmuext::PIN_L4, arg1: root, arg2: 0 };
    hypercall4(nr::MMUEXT_OP, &raw const request as u64, 1, 0, domid)
}

/// Sets vCPU 0's state: in the kernel, online, at the code.
fn start(domid: u64, context: u64, root: u64, at: u64) -> i64 {
    let set = |offset: usize, value: u64| mem::entry(context, offset / 8).store(value, SeqCst);
    set(512, 1 << 2 | 1 << 5);
    set(648, at);
    set(656, abi::FLAT_CS64);
    set(672, CODE + 0x2000);
    set(680, abi::FLAT_SS);
    set(4968, abi::FLAT_SS);
    set(4976, CODE + 0x2000);
    set(5008, root << 12);
    let mut op = Op::default();
    op[3] = context;
    call(domctl::SET_CONTEXT, domid, &mut op)
}

/// Waits until the domain has shut down; returns its flags then.
fn wait(domid: u64) -> u64 {
    for _ in 0..100_000 {
        match info(domid) {
            Some((flags, _)) if flags & SHUTDOWN != 0 => return flags,
            _ => hypercall2(nr::SCHED_OP, 0, 0),
        };
    }
    0
}

/// Waits until there is no such domain.
fn gone(domid: u64) -> bool {
    (0..100_000).any(|_| {
        hypercall2(nr::SCHED_OP, 0, 0);
        info(domid).is_none()
    })
}

/// Builds a domain that runs; an error names what failed.
fn build(page: u64, context: u64, at: u64) -> Result<(u64, [u64; FRAMES]), &'static str> {
    let id = create(0).map_err(|_| "create")?;
    let good = |result: i64, what: &'static str| if result == 0 { Ok(()) } else { Err(what) };
    good(simple(domctl::MAX_VCPUS, id, 1), "vcpus")?;
    good(simple(domctl::MAX_MEM, id, 4 * FRAMES as u64), "memory")?;
    let frames = populate(id).ok_or("populate")?;
    if !fill(page, id, &frames) {
        return Err("fill");
    }
    good(pin(id, frames[0]), "pin")?;
    good(start(id, context, frames[0], at), "start")?;
    good(simple(domctl::UNPAUSE, id, 0), "unpause")?;
    Ok((id, frames))
}

fn main() {
    refused();
    let (page, context) = (mem::alloc(), mem::alloc_contiguous(2));
    let Ok((id, frames)) = build(page, context, CODE).map_err(|what| check!(["build-{what}"], false)) else { return };
    one_life(id, page, context, &frames);
    busy(page, context);
    let before = free_pages();
    let mut failed = None;
    for round in 0..ROUNDS {
        failed = failed.or_else(|| life(page, context, round).err());
    }
    equal!("many-lives", failed.map_or(0, |(round, _)| round + 1), 0);
    if let Some((_, what)) = failed {
        check!(["many-lives-{what}"], false);
    }
    // What is freed is scrubbed at some time, and free then.
    let mut after = 0;
    for _ in 0..100_000 {
        after = free_pages();
        if after >= before {
            break;
        }
        hypercall2(nr::SCHED_OP, 0, 0);
    }
    equal!("many-lives-pages", after, before);
}

/// One domain from the first to the last; every fourth dies before it has said anything, every eighth before it is built.
fn life(page: u64, context: u64, round: u64) -> Result<(), (u64, &'static str)> {
    let failed = |what| (round, what);
    let id = if round % 8 == 3 {
        create(0).map_err(|_| failed("create"))?
    } else {
        let (id, _) = build(page, context, CODE).map_err(failed)?;
        if round % 4 != 1 && wait(id) >> 16 & 0xff != u64::from(WORD) {
            return Err(failed("word"));
        }
        id
    };
    if simple(domctl::DESTROY, id, 0) != 0 {
        return Err(failed("destroy"));
    }
    if gone(id) { Ok(()) } else { Err(failed("gone")) }
}

fn refused() {
    let with = |word: usize, value: u64| {
        let mut op = wanted();
        op[word] = value;
        call(domctl::CREATE, 0, &mut op)
    };
    errno!("create-own-number", create(0x7ff0).map_or_else(|error| error, |id| simple(domctl::DESTROY, id, 0)), 0);
    errno!("create-no-vcpus", with(5, 0), EINVAL);
    errno!("create-unknown-flag", with(4, 1 << 40), EINVAL);
    errno!("create-no-grant-version", with(7, u64::from(u32::MAX)), EINVAL);
    errno!("create-other-pool", with(8, 7 << 32), ESRCH);
    errno!("destroy-own", simple(domctl::DESTROY, 0, 0), EINVAL);
    errno!("destroy-nobody", simple(domctl::DESTROY, 7777, 0), ESRCH);
    errno!("pause-own", simple(domctl::PAUSE, 0, 0), EINVAL);
    errno!("unpause-own", simple(domctl::UNPAUSE, 0, 0), EINVAL);
}

/// Looks at one domain more closely.
fn one_life(id: u64, page: u64, context: u64, frames: &[u64; FRAMES]) {
    equal!("word", wait(id) >> 16 & 0xff, u64::from(WORD));
    errno!("create-same-number", create(id).map_or_else(|error| error, |_| 0), EEXIST);
    let mut op = Op::default();
    op[3] = context;
    errno!("state", call(domctl::GET_CONTEXT, id, &mut op), 0);
    let word = |offset: usize| mem::entry(context, offset / 8).load(SeqCst);
    // Behind the SYSCALL, with the result of the call in RAX.
    equal!("state-rip", word(648), CODE + 17);
    equal!("state-rax", word(520 + 80), 0);
    equal!("state-root", word(5008), frames[0] << 12);
    errno!("resume", simple(domctl::RESUME, id, 0), 0);
    equal!("word-again", wait(id) >> 16 & 0xff, u64::from(WORD));
    errno!("pause", simple(domctl::PAUSE, id, 0), 0);
    errno!("resume-paused", simple(domctl::RESUME, id, 0), 0);
    check!("paused", info(id).is_some_and(|(flags, _)| flags & (PAUSED | SHUTDOWN) == PAUSED));
    errno!("unpause", simple(domctl::UNPAUSE, id, 0), 0);
    errno!("unpause-again", simple(domctl::UNPAUSE, id, 0), EINVAL);
    equal!("word-at-last", wait(id) >> 16 & 0xff, u64::from(WORD));
    errno!("map", map(page, frames[5], id), 0);
    errno!("destroy", simple(domctl::DESTROY, id, 0), 0);
    let left = info(id);
    check!("dying", left.is_some_and(|(flags, pages)| flags & DYING != 0 && pages == 1), "{left:x?}");
    equal!("dying-data", mem::entry(page, 0).load(SeqCst), u64::from(WORD));
    mem::make_rw(page);
    check!("gone", gone(id));
    errno!("destroy-gone", simple(domctl::DESTROY, id, 0), ESRCH);
}

/// A domain that always runs is paused, looked at and let go on, again and again, and destroyed while it runs.
fn busy(page: u64, context: u64) {
    let Ok((id, _)) = build(page, context, CIRCLE).map_err(|what| check!(["busy-{what}"], false)) else { return };
    let time = |op: Option<Op>| op.map_or(0, |op| op[9]);
    let first = time(look(id));
    let mut good = 0;
    for _ in 0..PAUSES {
        hypercall2(nr::SCHED_OP, 0, 0);
        let paused = simple(domctl::PAUSE, id, 0) == 0;
        let seen = [look(id), look(id)];
        let stands = seen.iter().flatten().all(|op| op[2] >> 32 & (PAUSED | RUNNING) == PAUSED);
        let mut op = Op::default();
        op[3] = context;
        let told = call(domctl::GET_CONTEXT, id, &mut op) == 0;
        let there = mem::entry(context, 648 / 8).load(SeqCst) == CIRCLE;
        let goes_on = simple(domctl::UNPAUSE, id, 0) == 0;
        good += u64::from(paused && stands && time(seen[0]) == time(seen[1]) && told && there && goes_on);
    }
    equal!("busy-pauses", good, PAUSES);
    check!("busy-ran", time(look(id)) > first);
    errno!("busy-destroy", simple(domctl::DESTROY, id, 0), 0);
    check!("busy-gone", gone(id));
}
